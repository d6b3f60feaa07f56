"""The Plan screen's form: a model, its parallelism and its load, and the plan computed from them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kvdeck.app.tui.form_fields import LAYOUTS, MAX_NUMBER, Field, not_taken
from kvdeck.app.tui.state import Doctor
from kvdeck.engine.planning.kvbench import ModelConfig, model_config
from kvdeck.engine.planning.model_files import catalogue, find_model, read_yaml
from kvdeck.engine.planning.models import Architecture
from kvdeck.engine.planning.nixlbench import command_line, nixlbench_params
from kvdeck.engine.planning.parallelism import PP_RULES, Parallelism
from kvdeck.engine.planning.plan import Group, Plan, Work, make_plan
from kvdeck.engine.planning.precision import PRECISIONS, parse_precision
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS
from kvdeck.sessions.units import count_text, many, size_text

DEFAULT_MODEL = "llama-3.1-8b"
TP_SIZES = (1, 2, 4, 8, 16, 32)
PAGE_SIZES = (16, 32, 64, 128, 256, 512)

COLUMNS = (
    (
        Field("tp", "TP", "number", "KV heads are split over this many GPUs (MLA is copied to each)"),
        Field("pp", "PP", "number", "layers are split over this many stages"),
        Field(
            "pp_rule",
            "PP rule",
            "choice",
            "engine whose rule places the layers that PP doesn't divide",
            tuple(PP_RULES),
        ),
        Field("cp", "CP", "number", "pages of each sequence are split over this many ranks"),
        Field("dp", "DP", "number", "requests are split over this many replicas"),
    ),
    (
        Field("isl", "ISL", "number", "input tokens per request; their KV is transferred"),
        Field("osl", "OSL", "number", "output tokens per request; they need memory, not a transfer"),
        Field("requests", "requests", "number", "concurrent requests, all replicas together"),
        Field("page_size", "page size", "number", "tokens per block"),
        Field("precision", "KV precision", "choice", "element type of the KV cache", tuple(PRECISIONS)),
    ),
    (
        Field("path", "path", "choice", "source and destination memory of the transfer", PATHS),
        Field(LAYOUTS[0], "FullyContiguous", "toggle", "run FullyContiguous: one descriptor per block"),
        Field(LAYOUTS[1], "LayerSeparate", "toggle", "run LayerSeparate: one descriptor per layer and outer dim"),
        Field(LAYOUTS[2], "LayerSep. outer", "toggle", "run LayerSeparate with K and V of a layer apart"),
        Field("access", "nixlbench", "choice", "unit of one I/O in the nixlbench command", ("block", "layer")),
    ),
)
_ENDS = {"Host": "memory", "Device": "gpu", "Disk": "file"}


@lru_cache(maxsize=1)
def _default_model() -> Architecture:
    return find_model(DEFAULT_MODEL)


@dataclass(frozen=True, slots=True)
class PlanForm:
    """The form's values; immutable, each change returns a new form."""

    model: Architecture = field(default_factory=_default_model)
    file: str = ""
    """Path the model was read from; empty for a model of the catalogue."""
    precision: str = "fp8"
    tp: int = 1
    pp: int = 1
    cp: int = 1
    dp: int = 1
    pp_rule: str = "trtllm"
    pp_layers: tuple[int, ...] = ()
    """Layers of each stage, if an opened plan gives them; else empty."""
    isl: int = 8192
    osl: int = 1024
    requests: int = 16
    page_size: int = 16
    access: str = "block"
    path: str = PATHS[0]
    layouts: frozenset[str] = frozenset(LAYOUTS[:2])
    doctor: Doctor = field(default_factory=Doctor)

    def with_model(self, model: Architecture, file: str) -> PlanForm:
        """Return the form with another model, and with the KV precision of its files if they say one."""
        return replace(self, model=model, file=file, precision=model.precision or self.precision)

    def plan(self, **other: int) -> Plan:
        """Return the plan, optionally with another `tp` or `page_size`.

        Raises:
            UsageError: There is no such plan; the message gives the reason.
        """
        return make_plan(
            self.model,
            PRECISIONS[self.precision],
            Parallelism(
                other.get("tp", self.tp), self.pp, self.dp, self.cp, pp_rule=self.pp_rule, pp_layers=self.pp_layers
            ),
            Work(self.isl, self.requests, other.get("page_size", self.page_size), self.osl),
        )

    def text(self, item: Field) -> str:
        """Return a field's display text."""
        if item.kind == "toggle":
            return "[x]" if item.key in self.layouts else "[ ]"
        value = getattr(self, item.key)
        return count_text(value) if isinstance(value, int) else str(value)

    def toggled(self, item: Field) -> PlanForm:
        """Return the form with a layout toggled, or with a choice's next option."""
        return self.stepped(item, 1)

    def stepped(self, item: Field, by: int) -> PlanForm:
        """Return the form with the next or previous option; a number is doubled or halved."""
        if item.kind == "toggle":
            return replace(self, layouts=self.layouts ^ {item.key})
        value = getattr(self, item.key)
        if item.kind == "choice":
            return self._with(item.key, item.options[(item.options.index(value) + by) % len(item.options)])
        least = 0 if item.key == "osl" else 1
        fresh = max(value * 2, 1) if by > 0 else value // 2
        return self._with(item.key, max(least, min(MAX_NUMBER, fresh)))

    def typed(self, item: Field, text: str) -> PlanForm:
        """Return the form with a typed number; unchanged if it is invalid or out of range."""
        if not re.fullmatch("[0-9]{1,18}", text):
            return self
        number = int(text)
        least = 0 if item.key == "osl" else 1
        return self._with(item.key, number) if least <= number <= MAX_NUMBER else self

    def refusal(self, item: Field, text: str) -> str:
        """Return why `typed` doesn't take a text, and the fix; "" if it does."""
        least = 0 if item.key == "osl" else 1
        if not text or (re.fullmatch("[0-9]{1,18}", text) and least <= int(text) <= MAX_NUMBER):
            return ""
        return not_taken(item, text, least)

    def _with(self, key: str, value: Any) -> PlanForm:
        change = {key: value}
        if key in ("pp", "pp_rule"):
            change["pp_layers"] = ()
        return replace(self, **change)

    def hint(self, item: Field) -> str:
        """Return a one-line hint for a field."""
        if item.key == "precision":
            return f"{self.precision}: {PRECISIONS[self.precision].said}{self._origin()}"
        if item.key == "pp_rule":
            return PP_RULES[self.pp_rule]
        if item.key == "path" and (row := self.doctor.best(self.path)) is not None:
            return f"{self.path}: {row.reason or f'{row.state} with {row.backend}'}"
        return item.hint

    def _origin(self) -> str:
        """Return what the model's files say about the KV precision, as text; empty if they don't."""
        if not self.model.precision_source:
            return ""
        said = self.model.precision and f"{self.model.precision} by "
        return f" · the model's: {said}{self.model.precision_source}"

    def problem(self) -> str:
        """Return why there is no plan, or ""."""
        try:
            self.plan()
        except UsageError as error:
            return error.what
        return ""

    def derived(self) -> str:
        """Return the block that follows, in one line."""
        plan = self.plan()
        block, tokens = size_text(plan.group.block_bytes), many(plan.group.page_size, "token")
        layers, gpus = many(plan.group.layers, "layer"), many(plan.parallel.gpus, "GPU")
        return f"a block is {block}: {tokens} of {layers} on one of {gpus}"

    def launch_problem(self) -> str:
        """Return why the plan can't be launched, or ""."""
        if problem := self.problem():
            return problem
        if not self.layouts:
            return "no layout is selected · fix: select one with space"
        row = self.doctor.best(self.path)
        if row is not None and row.state == "unavailable":
            return (
                f"{self.path} can't run here: {row.reason} · fix: {row.fix}"
                if row.fix
                else f"{self.path}: {row.reason}"
            )
        return ""

    def config(self) -> ModelConfig:
        """Return the form as KVBench's model config."""
        return ModelConfig(
            tp_size=self.tp, pp_size=self.pp, dp_size=self.dp, cp_size=self.cp, kvcache_quant_mode=self.precision,
            num_requests=self.requests, isl=self.isl, osl=self.osl, page_size=self.page_size,
            access_pattern=self.access, pp_rule=self.pp_rule, pp_layers=self.pp_layers,
        )  # fmt: skip

    def command(self, plan: Plan) -> str:
        """Return nixlbench's command line for the path.

        Raises:
            UsageError: nixlbench doesn't support it.
        """
        size = plan.group.block_bytes if self.access == "block" else plan.group.layer_bytes
        source, destination = (_ENDS[end] for end in self.path.split("To"))
        return command_line(nixlbench_params(size, -(-plan.total_bytes // size), {}, source, destination, self.tp))

    def to_spec(self) -> dict[str, Any]:
        """Return the `RunSpec` mapping: this plan's block, path and layouts, without a working set.

        Raises:
            UsageError: There is no such plan.
        """
        return {
            "paths": [self.path],
            "layouts": [layout for layout in LAYOUTS if layout in self.layouts],
            **block_spec(self.plan().group, self.precision),
        }

    def to_mapping(self) -> dict[str, Any]:
        """Return the mapping to save: KVBench's sections, the model and the transfer."""
        config = self.config().sections()
        transfer = {"path": self.path, "layouts": [layout for layout in LAYOUTS if layout in self.layouts]}
        return {"model": self.file or self.model.name, **config, "transfer": transfer}

    @property
    def title(self) -> str:
        """File name stem of the plan."""
        split = f"tp{self.tp}-pp{self.pp}"
        name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in self.model.name.lower())
        return f"{name.strip('.-')}-{split}-isl{self.isl}-page{self.page_size}"


def block_spec(group: Group, precision: str) -> dict[str, Any]:
    """Return a group's block as `RunSpec` fields; in plain bytes (int8) if elements have no whole number of bytes,
    or K and V differ."""
    first, layers = group.kind.parts[0], group.layers
    shape = {"layers": layers, "page_size": group.page_size, "outer_dims": len(group.part_bytes)}
    if len(set(group.part_bytes)) > 1:
        return {**shape, "outer_dims": 1, "inner_dim": sum(group.part_bytes), "dtype": "int8"}
    width = PRECISIONS[precision].bits // 8
    if first.fixed_bytes or PRECISIONS[precision].scale_every or PRECISIONS[precision].packed:
        return {**shape, "inner_dim": group.part_bytes[0], "dtype": "int8"}
    return {**shape, "inner_dim": group.part_bytes[0] // width, "dtype": precision}


def read_plan(path: Path, before: PlanForm) -> PlanForm:
    """Return a saved plan, or one of KVBench's model configs, which leaves model and transfer as in `before`.

    Raises:
        UsageError: It can't be read, or holds an invalid value.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise UsageError(f"{path} is not a mapping", "open a plan saved by kvdeck, or KVBench's model config")
    return plan_in(data, str(path), before)


def plan_in(data: dict[str, Any], source: str, before: PlanForm) -> PlanForm:
    """Return the plan of a saved mapping, on top of the values of `before`; `source` names it in errors.

    Raises:
        UsageError: It holds an invalid value.
    """
    config, _ = model_config(data, source)
    read = replace(
        before,
        precision=parse_precision(config.kvcache_quant_mode).name,
        tp=config.tp_size, pp=config.pp_size, cp=config.cp_size, dp=config.dp_size,
        isl=config.isl, osl=config.osl, requests=config.num_requests,
        page_size=config.page_size, access=config.access, pp_rule=config.pp_rule, pp_layers=config.pp_layers,
    )  # fmt: skip
    if name := data.get("model"):
        read = replace(read, model=find_model(str(name)), file="" if name in catalogue() else str(name))
    transfer = data.get("transfer")
    if not isinstance(transfer, dict):
        return read
    layouts = frozenset(layout for layout in LAYOUTS if layout in (transfer.get("layouts") or ()))
    path_there = transfer.get("path")
    return replace(
        read, path=path_there if path_there in PATHS else read.path, layouts=layouts if layouts else read.layouts
    )
