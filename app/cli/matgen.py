"""`kvdeck matgen generate`: matrices of the KV that prefill sends to decode, for the traffic tests."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvdeck.sessions.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvdeck.engine.planning.models import Architecture
    from kvdeck.engine.traffic.deployment import Workers
    from kvdeck.engine.traffic.upstream_generator import Batch, ModelSizes

SHAPE = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "dtype_size")


class Whole(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic since click 8.2
    """A whole number; decimals like `16000.0` and the text `None` are taken, as scripts around upstream give them."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Return the number; null for `None`."""
        if value is None or str(value).strip() == "None":
            return None
        try:
            number = float(value)
            if number != int(number):
                raise ValueError
        except (ValueError, OverflowError):
            self.fail(f"{str(value)[:24]!r} is not a whole number", param, ctx)
        return int(value) if str(value).strip().lstrip("+-").isdigit() else int(number)


WHOLE = Whole()


@click.group()
def matgen() -> None:
    """Generate traffic matrices."""


@matgen.command()
@click.option("--num-user-requests", type=WHOLE, default=1000, help="Requests to draw. Default: 1000.")
@click.option("--isl-list", metavar="N,N…", help="Input lengths, in place of drawing them.")
@click.option("--seed", type=WHOLE, help="Of the draws; without it each run draws others. Kept in metadata.yaml.")
@click.option("--isl-mean", type=float, default=16000.0, help="Mean input length in tokens. Default: 16000.")
@click.option("--isl-scale", type=float, default=10000.0, help="Standard deviation. Default: 10000.")
@click.option("--min-isl", type=WHOLE, default=1000, help="Default: 1000.")
@click.option("--max-isl", type=WHOLE, default=128000, help="Default: 128000.")
@click.option("--batch-size", type=WHOLE, default=1, help="Requests of a batch, at most. Default: 1.")
@click.option("--max-batch-mem", type=float, default=100e9, help="KV bytes that close a batch. Default: 100e9.")
@click.option("--num-prefill-nodes", type=WHOLE, required=True, help="Nodes of the prefill side.")
@click.option("--num-decode-nodes", type=WHOLE, required=True, help="Nodes of the decode side.")
@click.option("--ppn", type=WHOLE, default=8, help="Ranks of a node. Default: 8.")
@click.option("--prefill-tp", type=WHOLE, default=1, help="Default: 1, as for the five below.")
@click.option("--prefill-pp", type=WHOLE, default=1)
@click.option("--prefill-cp", type=WHOLE, default=1)
@click.option("--decode-tp", type=WHOLE, default=1)
@click.option("--decode-pp", type=WHOLE, default=1)
@click.option("--decode-cp", type=WHOLE, default=1)
@click.option("--model", metavar="NAME|FILE", help="Of the catalogue, a YAML file or a config.json.")
@click.option("--hidden-size", type=WHOLE, help="With the four below, in place of --model.")
@click.option("--num-layers", type=WHOLE)
@click.option("--num-heads", type=WHOLE)
@click.option("--num-kv-heads", type=WHOLE)
@click.option("--dtype-size", type=WHOLE, help="Bytes of an element.")
@click.option("--dtype", default="bf16", help="Element type of the KV. Default: bf16.")
@click.option("--page-size", type=WHOLE, default=16, help="Tokens of a page, dealt to CP ranks. Default: 16.")
@click.option("--rail-optimized", is_flag=True, help="Place decode ranks so that prefill rank k sends on its own rail.")
@click.option(
    "--assignment",
    type=click.Choice(["round-robin", "least-loaded"]),
    default="round-robin",
    help="How batches get a worker of each side.",
)
@click.option("--attention-dp", is_flag=True, help="Each decode rank has the whole KV of its own requests.")
@click.option("--flops", type=float, help="FLOP/s that a rank reaches: adds the compute time before each pattern.")
@click.option("--parameters", type=float, help="Parameters active for a token, for --flops if the model has none.")
@click.option("--compat", type=click.Choice(["upstream"]), help="Upstream's files and metadata, to the byte.")
@click.option("--results-dir", metavar="DIR", help="Default: matrices_<world>ranks.")
def generate(**values: Any) -> int:
    """Generate a matrix for each batch of requests, and metadata.yaml for `kvdeck sequential-ct-perftest`.

    A cell is the KV that both ranks hold: layers by PP, heads by TP, pages by CP. With --compat upstream it is NIXL's
    own generator, with its models, its even division and its 36 TFLOP/s.
    """
    from kvdeck.engine.traffic.deployment import Workers, check_workers

    defaults = {name: 1 for side in ("prefill", "decode") for name in (f"{side}_tp", f"{side}_pp", f"{side}_cp")}
    values |= {name: value for name, value in defaults.items() if values[name] is None}
    _check_counts(values)
    prefill = Workers(
        values["prefill_tp"], values["prefill_pp"], values["prefill_cp"], values["num_prefill_nodes"], values["ppn"]
    )
    decode = Workers(
        values["decode_tp"], values["decode_pp"], values["decode_cp"], values["num_decode_nodes"], values["ppn"],
        prefill.ranks,
    )  # fmt: skip
    check_workers(prefill, decode)
    folder = Path(values["results_dir"] or f"matrices_{prefill.ranks + decode.ranks}ranks")
    seed = _seed(values)
    lengths = _lengths(values, seed)
    write = _write_upstream if values["compat"] else _write_serving
    try:
        batches, sent = write(folder, values, seed, lengths, prefill, decode)
    except OSError as error:
        raise UsageError(f"can't write {error.filename}: {error.strerror}", "give another --results-dir") from error
    from kvdeck.sessions.units import many, size_text

    click.echo(
        f"{many(len(batches), 'pattern')} of {many(len(lengths), 'request')} between "
        f"{many(prefill.ranks + decode.ranks, 'rank')}, {size_text(sent)} in all: {folder / 'metadata.yaml'}"
    )
    return 0


def _check_counts(values: dict[str, Any]) -> None:
    from kvdeck.sessions.units import number_text

    zero_is_fine = ("seed", "num_user_requests")
    for name, value in values.items():
        option = "--" + name.replace("_", "-")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if not 0 <= value <= 1e18 or (value == 0 and name not in zero_is_fine and name != "isl_scale"):
            raise UsageError(f"{option} is {number_text(value)}", "give a number above 0")
    if values["max_isl"] < values["min_isl"]:
        raise UsageError("--max-isl is below --min-isl", "exchange them")


def _seed(values: dict[str, Any]) -> int:
    import secrets

    seed = secrets.randbits(32) if values["seed"] is None else int(values["seed"])
    if seed >= 1 << 32:
        raise UsageError(f"--seed {seed} doesn't fit in 32 bits", "give a smaller one")
    return seed


def _lengths(values: dict[str, Any], seed: int) -> tuple[int, ...]:
    from kvdeck.engine.quantities import parse_count
    from kvdeck.engine.traffic.random_lengths import input_lengths

    if values["isl_list"] is not None:
        return tuple(parse_count(text) for text in values["isl_list"].split(",") if text.strip())
    return input_lengths(
        seed, values["num_user_requests"], values["isl_mean"], values["isl_scale"], values["min_isl"], values["max_isl"]
    )


def _write_upstream(
    folder: Path, values: dict[str, Any], _: int, lengths: Sequence[int], prefill: Workers, decode: Workers
) -> tuple[Sequence[Batch], float]:
    from kvdeck.engine.traffic.upstream_generator import SHAPES, batches, check_upstream, write_upstream

    check_upstream(prefill, decode, values["rail_optimized"])
    shape = _shape(values)
    if shape is None:
        name = values["model"]
        if name not in SHAPES:
            raise UsageError(
                "upstream's generator needs --model or all five sizes"
                if name is None
                else f"upstream's generator has no model {name!r}",
                f"use {', '.join(SHAPES)}",
            )
        shape = SHAPES[name]
    made = batches(lengths, values["batch_size"], shape.token_bytes, values["max_batch_mem"])
    write_upstream(folder, made, shape, prefill, decode, values["rail_optimized"])
    return made, float(sum(lengths) * shape.token_bytes)


def _write_serving(
    folder: Path, values: dict[str, Any], seed: int, lengths: Sequence[int], prefill: Workers, decode: Workers
) -> tuple[Sequence[Batch], float]:
    from kvdeck.engine.planning.parallelism import Parallelism
    from kvdeck.engine.planning.precision import parse_precision
    from kvdeck.engine.traffic.pattern_set import make_patterns, write_patterns
    from kvdeck.engine.traffic.serving_traffic import HandOver
    from kvdeck.engine.traffic.upstream_generator import batches

    model = _model(values)
    if values["parameters"] is not None:
        model = dataclasses.replace(model, parameters=int(values["parameters"]))
    precision = parse_precision(values["dtype"])
    source, target = (Parallelism(side.tp, side.pp, cp=side.cp) for side in (prefill, decode))
    hand_over = HandOver(model, precision, source, target, values["page_size"], values["attention_dp"])
    made = batches(lengths, values["batch_size"], model.token_bytes(precision), values["max_batch_mem"])
    patterns = make_patterns(
        hand_over, made, prefill, decode,
        rail=values["rail_optimized"], assignment=values["assignment"], flops=values["flops"],
    )  # fmt: skip
    for words in model.without_state():
        click.echo(f"kvdeck: the state of {words} isn't in the matrices: its size isn't known", err=True)
    if model.state_bytes():
        click.echo("kvdeck: recurrent states are not in the matrices, only KV", err=True)
    made_from = {
        name: value for name, value in values.items()
        if value is not None and name not in ("results_dir", "compat", "isl_list", "seed")
    }  # fmt: skip
    write_patterns(folder, patterns, {**made_from, "seed": None if values["isl_list"] else seed, "isl": list(lengths)})
    return made, float(sum(pattern.matrix.total for pattern in patterns))


def _shape(values: dict[str, Any]) -> ModelSizes | None:
    """Return the model of the five sizes; None if `--model` names it."""
    from kvdeck.engine.traffic.upstream_generator import ModelSizes

    sizes = [values[name] for name in SHAPE]
    if values["model"] is not None or not any(sizes):
        return None
    if missing := [name for name, size in zip(SHAPE, sizes, strict=True) if size is None]:
        option = "--" + missing[0].replace("_", "-")
        raise UsageError(f"{option} is missing: without --model all five sizes are needed", f"give {option}")
    if values["hidden_size"] % values["num_heads"]:
        raise UsageError("--hidden-size is no multiple of --num-heads", "correct one of them")
    return ModelSizes(*sizes)


def _model(values: dict[str, Any]) -> Architecture:
    from kvdeck.engine.planning.model_files import find_model
    from kvdeck.engine.planning.models import Kind, keys_and_values, uniform

    shape = _shape(values)
    if shape is None:
        if values["model"] is None:
            raise UsageError("--model is missing", "give a catalogue name (`kvdeck plan --models`), or all five sizes")
        return find_model(values["model"])
    kinds = {1: "fp8", 2: "bf16", 4: "fp32"}
    if shape.dtype_bytes not in kinds:
        raise UsageError(f"--dtype-size is {shape.dtype_bytes}", "give 1, 2 or 4")
    values["dtype"] = kinds[shape.dtype_bytes]
    attention = Kind("full", keys_and_values(shape.kv_heads, shape.hidden // shape.heads))
    return uniform("custom", shape.layers, attention, query_heads=shape.heads)
