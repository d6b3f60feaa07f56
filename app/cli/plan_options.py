"""The options of `plan`, `kvcache`, `iosize` and `profile`: KVBench's, in all spellings, and their parsing."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvdeck.engine.planning.nixlbench_flags import FLAGS, Flag
from kvdeck.engine.quantities import MOST
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.engine.planning.kvbench import ModelConfig
    from kvdeck.engine.planning.models import Architecture


class Count(click.IntRange):
    """A whole number within 64 bits, which the help needn't say."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if number > MOST:
            self.fail(f"{number} does not fit in 64 bits.", param, ctx)
        return number


COUNT, COUNT_FROM_0 = Count(min=1), Count(min=0)


def _kind(flag: Flag) -> Any:
    if flag.choices:
        return click.Choice(flag.choices, case_sensitive=False)
    if isinstance(flag.default, bool):
        return bool
    return Count(min=flag.least, max=flag.most) if isinstance(flag.default, int) else str


SPELLINGS = {
    "etcd_endpoints": ("etcd_endpoints", "etcd_endpoint"),
    "filepath": ("filepath", "gds_filepath"),
    "kvcache_quant_mode": ("precision", "kvcache_quant_mode"),
    "tp_size": ("tp", "tp_size"),
    "pp_size": ("pp", "pp_size"),
    "dp_size": ("dp", "dp_size"),
    "cp_size": ("cp", "cp_size"),
    "ep_size": ("ep", "ep_size"),
}
"""Option names by parameter, where they differ from its name; each name is also accepted with `-` for `_`."""

_PRECISION_HELP = (
    "KV cache's type: fp8, int8, fp16, bf16, fp32, fp4, nvfp4, mxfp4, fp8_ds_mla. "
    "Default: the model config's, else that of the model's files, else KVBench's fp8."
)
OVERRIDES: dict[str, tuple[Any, str]] = {
    "tp_size": (COUNT, "Tensor parallelism: ranks the KV heads are split over."),
    "pp_size": (COUNT, "Pipeline parallelism: stages the layers are split over."),
    "pp_rule": (
        click.Choice(["trtllm", "vllm", "sglang"]),
        "Stages that get the layers left over by PP: the first (trtllm, default), those before the last, the last.",
    ),
    "pp_layers": (str, "Layers per stage, as in VLLM_PP_LAYER_PARTITION: 16,15,15,15. Sets --pp."),
    "dp_size": (COUNT, "Data parallelism: replicas the requests are split over."),
    "cp_size": (COUNT, "Context parallelism: ranks each sequence's pages are split over."),
    "ep_size": (COUNT, "Expert parallelism; changes nothing in the KV cache."),
    "isl": (COUNT, "Input sequence length in tokens."),
    "osl": (COUNT_FROM_0, "Output sequence length in tokens."),
    "num_requests": (COUNT, "Concurrent requests."),
    "page_size": (COUNT, "Tokens per block."),
    "access_pattern": (click.Choice(["block", "layer"]), "Unit of one I/O: a block, or one layer of a block."),
    "kvcache_quant_mode": (str, _PRECISION_HELP),
    "model_quant_mode": (str, "Weights' type; matters with --compat kvbench only."),
}
BENCHMARK: dict[str, tuple[Any, str]] = {flag.name: (_kind(flag), flag.help) for flag in FLAGS}
"""nixlbench's flags, of KVBench and its own."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """One configuration, with the command line's options applied."""

    file: str
    """Path of its file; empty if it comes from the options alone."""
    config: ModelConfig


def options(*groups: Mapping[str, tuple[Any, str]]) -> Callable[[click.Command], click.Command]:
    """Return a decorator that adds the model and config options and these groups to a command."""

    def add(command: click.Command) -> click.Command:
        command.params += [
            click.Option(["--model"], metavar="NAME|FILE",
                         help="Catalogue name, YAML file, config.json, or its folder."),
            click.Option(["--model_config", "--model-config"], metavar="FILE", help="KVBench's model config YAML."),
            click.Option(["--model_configs", "--model-configs"], metavar="GLOB", multiple=True,
                         help="Several configs; patterns are expanded."),
            click.Option(["--compat"], type=click.Choice(["kvbench"]),
                         help="KVBench's figures: weights' precision, fractions of layers, MLA divided."),
        ]  # fmt: skip
        for group in groups:
            command.params += [_option(name, kind, said) for name, (kind, said) in group.items()]
        return command

    return add


def _option(name: str, kind: Any, said: str) -> click.Option:
    names = [f"--{text}" for spelled in SPELLINGS.get(name, (name,)) for text in (spelled, spelled.replace("_", "-"))]
    names = list(dict.fromkeys(names))
    if kind is bool:  # `--flag`, or with a value as gflags and KVBench have it: `--flag true`, `--flag=false`
        return click.Option([*names, name], type=click.BOOL, is_flag=False, flag_value=True, default=None, help=said,
                            metavar="[true|false]")  # fmt: skip
    return click.Option([*names, name], type=kind, default=None, help=said, show_choices=True)


class UpstreamCommand(click.Command):
    """A command that also takes gflags' spellings: one dash, and `no` before a flag that is true or false."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, with gflags' spellings replaced by click's."""
        names = {text: option for option in self.params for text in option.opts if text.startswith("--")}
        return super().parse_args(ctx, [_from_gflags(text, names) for text in args])


def _from_gflags(text: str, names: Mapping[str, click.Parameter]) -> str:
    name, equals, value = text.partition("=")
    if not name.startswith("-") or len(name) < 3 or name in names:
        return text
    bare = f"--{name.lstrip('-')}"
    if bare in names:
        return f"{bare}{equals}{value}"
    for prefix in ("--no-", "--no_", "--no"):
        positive = f"--{bare.removeprefix(prefix)}" if bare.startswith(prefix) else ""
        if not equals and positive in names and names[positive].type is click.BOOL:
            return f"{positive}=false"
    return text


def asked_model(values: Mapping[str, Any]) -> Architecture:
    """Return the model of `--model`, or else the one named in the saved plan of `--model_config`.

    Raises:
        UsageError: Neither names a model, or the model can't be read.
    """
    text = values["model"] or (_saved_model(values["model_config"]) if values.get("model_config") else None)
    if not text:
        raise UsageError(
            "--model is missing", "give a catalogue name (--models lists them), a YAML file or a config.json"
        )
    from kvdeck.engine.planning.model_files import find_model

    return find_model(text)


def _saved_model(file: str) -> str | None:
    from kvdeck.engine.planning.model_files import read_yaml

    data = read_yaml(Path(file))
    return data.get("model") if isinstance(data, dict) else None


def asked_configs(values: Mapping[str, Any]) -> Iterator[PlanRequest | KvdeckError]:
    """Yield each requested configuration, each file once; for an invalid file, yield its error instead.

    Raises:
        UsageError: Neither a file nor `--isl` is given, or a pattern matches no file.
    """
    from kvdeck.engine.planning.kvbench import ModelConfig, model_config, parse_layers
    from kvdeck.engine.planning.model_files import read_yaml

    overrides = {name: values[name] for name in OVERRIDES if values.get(name) is not None}
    if "kvcache_quant_mode" in overrides:
        overrides["precision_source"] = "--precision"
    if "pp_layers" in overrides:
        overrides["pp_layers"] = parse_layers(overrides["pp_layers"], "the options")
        overrides.setdefault("pp_size", len(overrides["pp_layers"]))
    files = _files(values)
    if not files:
        if "isl" not in overrides:
            raise UsageError("--model_config or --isl is missing", "name a config file, or give at least --isl")
        yield PlanRequest("", ModelConfig(page_size=16, access_pattern="block").overridden(**overrides))
    for file in files:
        try:
            config, ignored = model_config(read_yaml(Path(file)), file)
            for key in ignored:
                click.echo(f"kvdeck: {file}: ignoring unknown key {key}", err=True)
            yield PlanRequest(file, config.overridden(**overrides))
        except KvdeckError as error:
            yield error


def _files(values: Mapping[str, Any]) -> list[str]:
    files = [values["model_config"]] if values.get("model_config") else []
    for pattern in values.get("model_configs") or ():
        found = sorted(glob.glob(str(expanded(pattern))))  # noqa: PTH207
        if not found:
            raise UsageError(f"no file matches --model_configs {pattern}", "check the pattern")
        files += found
    return list(dict.fromkeys(files))


def given_parameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return nixlbench's parameters: those of `--config_file`, and over them those given as options.

    Raises:
        UsageError: The file can't be read, or a value has the wrong type.
    """
    given = {name: values[name] for name in BENCHMARK if values.get(name) is not None}
    if file := given.pop("config_file", None):
        from kvdeck.engine.planning.nixlbench_config import read_config

        found, ignored = read_config(expanded(file))
        for key in ignored:
            click.echo(f"kvdeck: {file}: ignoring {key}, which is no flag of nixlbench", err=True)
        given = {**found, **given}
    return given
