"""`kvdeck plan`, `kvcache` and `iosize`: a model's KV cache sizes, and the nixlbench command that transfers it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.output import print_json
from kvdeck.app.cli.plan_options import (
    BENCHMARK,
    OVERRIDES,
    PlanRequest,
    UpstreamCommand,
    asked_configs,
    asked_model,
    given_parameters,
    options,
)
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.escapes import csv_text

if TYPE_CHECKING:
    from kvdeck.engine.planning.io_plan import Ios
    from kvdeck.engine.planning.kvbench import ModelConfig
    from kvdeck.engine.planning.models import Architecture

RULE = "=" * 80
STATED = "kvcache_quant_mode in the model config"
FORMAT = click.option(
    "--format", "style", type=click.Choice(["text", "json", "csv"]), default="text", help="Default: text."
)
FOR = click.option("--for", "target", type=click.Choice(["nixlbench", "seed"]), default="nixlbench",
                   help="Format for nixlbench, or exactly as in KVBench's first README.")  # fmt: skip
SIDES = (
    click.option("--source", type=click.Choice(["file", "memory", "gpu"]),
                 help="Source memory; kvcache and iosize don't depend on it."),
    click.option("--destination", type=click.Choice(["file", "memory", "gpu"]),
                 help="Destination memory; kvcache and iosize don't depend on it."),
)  # fmt: skip


@options(OVERRIDES, BENCHMARK)
@click.command(cls=UpstreamCommand)
@FORMAT
@FOR
@SIDES[0]
@SIDES[1]
@click.option("--models", is_flag=True, help="List the catalogue's models.")
def plan(style: str, target: str, models: bool, **values: Any) -> int:
    """Plan a model's KV cache and print the nixlbench command that transfers it."""
    if models:
        return _list_models()
    from kvdeck.engine.planning.nixlbench import command_line

    model = asked_model(values)

    def made(asked: PlanRequest) -> dict[str, Any]:
        return asked_parameters(model, asked, values, target)

    plainly = bool(values["compat"]) or target == "seed"

    def text(asked: PlanRequest, params: Mapping[str, Any]) -> str:
        command = command_line(params, "seed" if target == "seed" else "nixlbench")
        return "\n".join((*header(asked), command, ""))

    def row(asked: PlanRequest, params: Mapping[str, Any]) -> dict[str, Any]:
        more = {} if plainly else _state_row(model, asked.config)
        if not plainly and not _stated(asked.config):
            more |= _precision_row(model, asked.config)
        return {**params, **more, "config_file": asked.file}

    return _each(
        values,
        style,
        made,
        text,
        row,
        lambda asked: () if target == "seed" else beside_lines(model, asked.config, plainly),
        lambda asked: _sections(model, asked.config, plainly),
    )


def asked_parameters(model: Architecture, asked: PlanRequest, values: Mapping[str, Any], target: str) -> dict[str, Any]:
    """Return nixlbench's parameters for one configuration and the options.

    Args:
        target: `seed` for the parameters of KVBench's first README, otherwise `nixlbench`.

    Raises:
        UsageError: The plan is impossible, or nixlbench would refuse it.
    """
    from kvdeck.engine.planning.io_plan import ios
    from kvdeck.engine.planning.nixlbench import nixlbench_params

    found = ios(model, asked.config, bool(values["compat"]))
    return nixlbench_params(
        found.size,
        found.batch,
        given_parameters(values),
        values["source"],
        values["destination"],
        asked.config.tp_size,
        "seed" if target == "seed" else "nixlbench",
    )


def header(asked: PlanRequest, leading: bool = True) -> tuple[str, ...]:
    """Return the header lines that KVBench prints above a command; `leading` adds the first rule."""
    config = asked.config
    lines = (
        f"Model Config: {asked.file}" if asked.file else "Model Config: the options",
        f"ISL: {config.isl} tokens",
        f"Page Size: {config.page_size}",
        f"Requests: {config.num_requests}",
        f"TP: {config.tp_size}",
        f"PP: {config.pp_size}",
        RULE,
    )
    return (RULE, *lines) if leading else lines


@options(OVERRIDES)
@click.command(cls=UpstreamCommand)
@FORMAT
@FOR
@SIDES[0]
@SIDES[1]
def kvcache(style: str, target: str, **values: Any) -> int:
    """Show a model's KV cache as KVBench does: number of I/Os (batch size) and bytes of each."""
    from kvdeck.engine.planning.io_plan import ios, precision_text

    model = asked_model(values)
    plainly = bool(values["compat"]) or target == "seed"

    def made(asked: PlanRequest) -> Ios:
        config = replace(asked.config, num_requests=1) if target == "seed" else asked.config
        return ios(model, config, bool(values["compat"]))

    def text(asked: PlanRequest, found: Ios) -> str:
        lines: dict[str, Any] = {
            "Model": model.title or model.name,
            "Input Sequence Length": asked.config.isl,
            "Batch Size": found.batch,
            "IO Size": _size_text(found.size),
        }
        if not plainly and not _stated(asked.config):
            lines["KV Precision"] = precision_text(model, asked.config)
        if not plainly and model.state_bytes():
            lines["Recurrent State"] = f"{_size_text(model.state_bytes())} per request, apart from these"
        return "\n".join(f"{name:<23}: {value}" for name, value in lines.items())

    def row(asked: PlanRequest, found: Ios) -> dict[str, Any]:
        return _kvcache_row(model, asked, found, bool(values["compat"]))

    def notes(asked: PlanRequest) -> tuple[str, ...]:
        if target == "seed":
            return ()
        shown = not plainly and not _stated(asked.config)
        lines = _note_lines(model, asked.config, plainly)
        return lines if shown else (f"KV precision {precision_text(model, asked.config, plainly)}", *lines)

    return _each(values, style, made, text, row, notes)


@options(OVERRIDES)
@click.command(cls=UpstreamCommand)
@FORMAT
@SIDES[0]
@SIDES[1]
def iosize(style: str, **values: Any) -> int:
    """Show the bytes of one token's I/O on one GPU."""
    from kvdeck.engine.planning.io_plan import ios, precision_text

    model, compat = asked_model(values), bool(values["compat"])

    def row(asked: PlanRequest, size: int) -> dict[str, Any]:
        precision = {} if compat else _precision_row(model, asked.config)
        return {"model": model.name, "io_size": size, **precision, "config_file": asked.file}

    return _each(
        values,
        style,
        lambda asked: ios(model, replace(asked.config, page_size=1), compat).size,
        lambda _, size: f"IO Size per GPU: {size}",
        row,
        lambda asked: (
            f"KV precision {precision_text(model, asked.config, compat)}",
            *_note_lines(model, asked.config, compat),
        ),
    )


def _each(
    values: Mapping[str, Any],
    style: str,
    made: Callable[[PlanRequest], Any],
    text: Callable[[PlanRequest, Any], str],
    row: Callable[[PlanRequest, Any], dict[str, Any]],
    notes: Callable[[PlanRequest], tuple[str, ...]],
    sections: Callable[[PlanRequest], dict[str, Any]] = lambda _: {},
) -> int:
    """Print all configurations in the given style; return exit status 1 if any is invalid, otherwise 0.

    An invalid configuration is reported on stderr after the valid ones, and then what `notes` gives of those that the
    output itself doesn't say it of.

    Raises:
        KvdeckError: No configuration is valid; this is the first one's error.
    """
    rows: list[dict[str, Any]] = []
    wrong: list[KvdeckError] = []
    texts: list[str] = []
    beside: list[str] = []
    for asked in asked_configs(values):
        try:
            if isinstance(asked, KvdeckError):
                raise asked
            found = made(asked)
            texts.append(text(asked, found))
            rows.append({**row(asked, found), **(sections(asked) if style == "csv" else {})})
            if style == "text" or "precision" not in rows[-1]:
                beside += [f"{asked.file + ': ' if asked.file else ''}{line}" for line in notes(asked)]
        except KvdeckError as error:
            named = asked.file if isinstance(asked, PlanRequest) else ""
            wrong.append(type(error)(f"{named}: {error.what}", error.fix) if named else error)
    if wrong and not rows:
        raise wrong[0]
    if style == "text":
        click.echo("\n".join(texts))
    elif style == "json":
        print_json(rows)
    else:
        click.echo(_csv(rows), nl=False)
    for refused in wrong:
        click.echo(f"kvdeck: {refused}", err=True)
    for line in beside:
        click.echo(f"kvdeck: {line}", err=True)
    return 1 if wrong else 0


def _csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: csv_text(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def _stated(config: ModelConfig) -> bool:
    """Return whether the model config gives the KV precision; the output then has KVBench's own lines and keys."""
    return config.precision_source == STATED


def _note_lines(model: Architecture, config: ModelConfig, compat: bool) -> tuple[str, ...]:
    from kvdeck.engine.planning.io_plan import plan_of

    return () if compat else plan_of(model, config).notes()


def _precision_row(model: Architecture, config: ModelConfig) -> dict[str, Any]:
    """Return the columns for the KV precision, where it comes from, and what was assumed."""
    from kvdeck.engine.planning.io_plan import plan_of, with_precision

    found = with_precision(model, config)
    plan = plan_of(model, found)
    return {
        "precision": plan.precision.name,
        "precision_source": found.precision_source or "KVBench's default",
        "notes": list(plan.notes()),
    }


def _sections(model: Architecture, config: ModelConfig, compat: bool) -> dict[str, Any]:
    from kvdeck.engine.planning.io_plan import with_precision

    config = config if compat else with_precision(model, config)
    named = {f"model_{name}_{key}": value for name, keys in config.sections().items() for key, value in keys.items()}
    return {"model": model.name, **named}


def _kvcache_row(model: Architecture, asked: PlanRequest, found: Ios, compat: bool) -> dict[str, Any]:
    """Return a configuration's row: KVBench's columns, followed by kvdeck's unless `compat`. Sizes are in bytes."""
    from kvdeck.engine.planning.io_plan import plan_of
    from kvdeck.engine.planning.kvbench import kv_bytes

    config = asked.config
    row = {
        "model": model.name,
        "isl": config.isl,
        "num_requests": config.num_requests,
        "batch_size": found.batch,
        "io_size": found.size,
        "tp": config.tp_size,
        "pp": config.pp_size,
        "page_size": config.page_size,
        "access": config.access,
        "config_file": asked.file,
    }
    if compat:
        return {**row, "kv_bytes_per_token": kv_bytes(model, config)}
    plan = plan_of(model, config)
    gpu, whole = plan.per_gpu(), plan.in_all()
    return {
        **row,
        "kv_bytes_per_token": plan.token_bytes,
        "kv_bytes_per_request": plan.request_bytes,
        "kv_bytes": plan.total_bytes,
        "block_bytes": plan.group.block_bytes,
        "region_bytes": plan.group.region_bytes,
        "regions_per_block": plan.group.regions,
        "stage_layers": [stage.layers for stage in plan.stages()],
        "stage_rule": plan.remainder(),
        "stage_request_bytes": [stage.request_bytes() for stage in plan.stages()],
        "gpus": plan.parallel.gpus,
        "gpu_blocks": gpu.blocks,
        "gpu_regions": gpu.regions,
        "gpu_bytes": gpu.block_bytes,
        "all_blocks": whole.blocks,
        "all_regions": whole.regions,
        "all_bytes": whole.block_bytes,
        **_state_row(model, config),
        **_precision_row(model, config),
        "replication": plan.replication(),
    }


def beside_lines(model: Architecture, config: ModelConfig, compat: bool) -> tuple[str, ...]:
    """Return lines on what the nixlbench command leaves out.

    These are the KV precision, what was assumed, replicas, recurrent states, and the layers of each stage if
    `pp_layers` or a `pp_rule` is set; with `compat` the precision only.
    """
    from kvdeck.engine.planning.io_plan import plan_of, precision_text
    from kvdeck.engine.planning.kvbench import ModelConfig
    from kvdeck.sessions.units import exact_size_text, size_text

    lines = [f"KV precision {precision_text(model, config, compat)}"]
    if compat:
        return tuple(lines)
    plan = plan_of(model, config)
    lines += plan.notes()
    if plan.state_bytes:
        lines.append(
            f"recurrent state, apart from the KV: {exact_size_text(plan.state_bytes)} per request, "
            f"at most {size_text(plan.gpu_state_bytes())} per GPU"
        )
    lines += [f"unknown state: {words}" for words in model.without_state()]
    asked = config.pp_layers or config.pp_rule != ModelConfig().pp_rule
    if asked and (rule := plan.remainder()):
        lines.append(f"layers per stage {','.join(str(stage.layers) for stage in plan.stages())} · {rule}")
    return tuple(lines)


def _state_row(model: Architecture, config: ModelConfig) -> dict[str, Any]:
    """Return the columns (in bytes) for a hybrid model's recurrent states; {} for other models, to match KVBench."""
    from kvdeck.engine.planning.io_plan import plan_of

    if not model.state_bytes():
        return {}
    plan = plan_of(model, config)
    return {
        "state_bytes_per_request": plan.state_bytes,
        "state_bytes_per_layer": {kind.name: kind.state.bytes() for kind in model.kinds if kind.state},
        "gpu_state_bytes": plan.gpu_state_bytes(),
        "all_state_bytes": plan.all_state_bytes,
    }


def _size_text(size: int) -> str:
    """Return bytes as KVBench prints them: 1024-based units, two decimals, ties to even."""
    value: float = size
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{round(value, 2)} {unit}"
        value /= 1024
    return f"{round(value, 2)} TB"


def _list_models() -> int:
    from kvdeck.engine.planning.model_files import catalogue

    models = catalogue().values()
    width = max(len(model.name) for model in models)
    for model in models:
        click.echo(f"{model.name:<{width}}  {model.attention}")
    return 0
