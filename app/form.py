"""What the Run screen's form holds: a choice of paths, layouts, geometry and effort, and the spec it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from kvdeck.app.snapshot import Doctor
from kvdeck.engine.kv.layout import (
    DTYPE_BYTES,
    FULLY_CONTIGUOUS,
    LAYER_SEPARATE,
    LAYER_SEPARATE_OUTER,
    LLAMA_3_1_8B,
    Geometry,
    parse_layout_pair,
)
from kvdeck.sessions.records import PATHS
from kvdeck.sessions.units import short_layout_name, size_text

LAYOUTS = tuple(str(layout) for layout in (FULLY_CONTIGUOUS, LAYER_SEPARATE, LAYER_SEPARATE_OUTER))
AUTO = "auto"
MAX_NUMBER = 1 << 40

Kind = Literal["toggle", "choice", "number"]


@dataclass(frozen=True, slots=True)
class Field:
    """One line of the form."""

    key: str
    label: str
    kind: Kind
    hint: str
    options: tuple[str, ...] = ()
    optional: bool = False
    """A number that may be left to the worker."""


_DTYPES = tuple(name for name in DTYPE_BYTES if name != "bfloat16")

PATH_FIELDS = tuple(Field(path, path, "toggle", "") for path in PATHS)
LAYOUT_FIELDS = (
    Field(LAYOUTS[0], "FullyContiguous", "toggle", "a block is one region: one descriptor a block"),
    Field(
        LAYOUTS[1],
        "LayerSeparate",
        "toggle",
        "a region for each layer and outer dim: layers × outer descriptors a block",
    ),
    Field(
        LAYOUTS[2],
        "LayerSep. outer",
        "toggle",
        "LayerSeparate { outer_contiguous: true }: K and V of a layer lie apart",
    ),
)
GEOMETRY_FIELDS = (
    Field("layers", "layers", "number", "layers that this rank holds"),
    Field("outer_dims", "outer dims", "number", "2 for K and V, 1 for MLA"),
    Field("page_size", "page size", "number", "tokens in a block"),
    Field("inner_dim", "inner dim", "number", "elements of one token in one layer and outer dim: KV heads × head size"),
    Field("dtype", "dtype", "choice", "type of an element", _DTYPES),
)
RUN_FIELDS = (
    Field(
        "blocks", "blocks", "number", "blocks in the working set; auto is larger than the last-level cache", (), True
    ),
    Field("batch", "batch", "number", "blocks in one request; auto is 16, or fewer in a small working set", (), True),
    Field(
        "backend",
        "backend",
        "choice",
        "NIXL backend; auto is UCX for memory, POSIX for files, GDS for device and disk",
        (AUTO, "UCX", "POSIX", "GDS", "GDS_MT"),
    ),
    Field("api", "api", "choice", "what the POSIX backend calls", (AUTO, "AIO", "URING", "POSIXAIO")),
    Field(
        "direct",
        "direct",
        "choice",
        "O_DIRECT, past the page cache; auto where the filesystem can",
        (AUTO, "on", "off"),
    ),
    Field("effort", "effort", "choice", "how long each comparison is measured", ("quick", "normal", "thorough")),
    Field("tune", "tune", "choice", "first try what matters on this host, then run with the best", ("off", "on")),
)
COLUMNS = (PATH_FIELDS, (*LAYOUT_FIELDS, *GEOMETRY_FIELDS), RUN_FIELDS)


@dataclass(frozen=True, slots=True)
class Form:
    """The form's values; every change makes a new one."""

    unwanted: frozenset[str] = frozenset()
    """Paths that the operator has taken out; all others that are ready run."""
    layouts: frozenset[str] = frozenset(LAYOUTS[:2])
    layers: int = LLAMA_3_1_8B.layers
    outer_dims: int = LLAMA_3_1_8B.outer_dims
    page_size: int = LLAMA_3_1_8B.page_size
    inner_dim: int = LLAMA_3_1_8B.inner_dim
    dtype: str = LLAMA_3_1_8B.dtype
    blocks: int | None = None
    batch: int | None = None
    backend: str = AUTO
    api: str = AUTO
    direct: str = AUTO
    effort: str = "normal"
    tune: str = "off"
    doctor: Doctor = field(default_factory=Doctor)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.layers, self.outer_dims, self.page_size, self.inner_dim, self.dtype)

    def available(self, path: str) -> bool:
        """Whether a path can be chosen; before doctor has answered, each can."""
        row = self.doctor.best(path)
        return row is None or row.state != "unavailable"

    def chosen(self, key: str) -> bool:
        """Whether a toggle is on."""
        if key in PATHS:
            return key not in self.unwanted and self.available(key)
        return key in self.layouts

    def text(self, item: Field) -> str:
        """A field's value as it is shown."""
        if item.kind == "toggle":
            return (
                "[x]" if self.chosen(item.key) else "[ ]" if item.key in LAYOUTS or self.available(item.key) else " – "
            )
        value = getattr(self, item.key)
        return AUTO if value is None else str(value)

    def _with(self, item: Field, value: Any) -> Form:
        change: dict[str, Any] = {item.key: value}
        return replace(self, **change)

    def toggled(self, item: Field) -> Form:
        """Switch a toggle, or take a choice's next option."""
        if item.kind == "choice":
            return self.stepped(item, 1)
        if item.kind == "number":
            return self
        if item.key in LAYOUTS:
            return replace(self, layouts=self.layouts ^ {item.key})
        return replace(self, unwanted=self.unwanted ^ {item.key}) if self.available(item.key) else self

    def stepped(self, item: Field, by: int) -> Form:
        """The next or previous option; a number is doubled or halved, and an optional one passes through auto."""
        if item.kind == "toggle":
            return self.toggled(item)
        value = getattr(self, item.key)
        if item.kind == "choice":
            place = (item.options.index(value) + by) % len(item.options)
            return self._with(item, item.options[place])
        if value is None:
            return self._with(item, 1) if by > 0 else self
        if by < 0 and value == 1:
            return self._with(item, None) if item.optional else self
        return self._with(item, min(MAX_NUMBER, value * 2 if by > 0 else max(1, value // 2)))

    def typed(self, item: Field, text: str) -> Form:
        """A number that was typed; nothing, or no number above 0, means auto where that is possible."""
        number = int(text) if text.isascii() and text.isdigit() else 0
        if 0 < number <= MAX_NUMBER:
            return self._with(item, number)
        return self._with(item, None) if item.optional and not text else self

    def hint(self, item: Field) -> str:
        """One line about a field; for a path, doctor's reason and mend."""
        if item.key not in PATHS:
            return item.hint
        row = self.doctor.best(item.key)
        if row is None:
            return self.doctor.error or (
                "doctor is looking at this host" if self.doctor.looking else "not looked at yet"
            )
        said = row.reason or f"{row.state} with {row.backend}"
        return f"{said} · {row.mend}" if row.mend else said

    def derived(self) -> str:
        """What the geometry means in bytes and descriptors."""
        shape = self.geometry
        counts = ", ".join(
            f"{short_layout_name(text)} {parse_layout_pair(text).descriptors_per_block(shape):,}"
            for text in LAYOUTS
            if text in self.layouts
        )
        return (
            f"{shape.block_bytes:,} B = {size_text(shape.block_bytes)} a block · {shape.regions:,} regions of "
            f"{size_text(shape.region_bytes)} · descriptors: {counts or 'no layout'}"
        )

    def problem(self) -> str:
        """Why this can't be launched, or nothing."""
        if not any(self.chosen(path) for path in PATHS):
            return "no path is chosen · switch one on with space"
        if not self.layouts:
            return "no layout is chosen · switch one on with space"
        if self.blocks is not None and self.batch is not None and self.batch > self.blocks:
            return f"batch {self.batch} is larger than the {self.blocks} blocks · lower batch or raise blocks"
        if self.api != AUTO and self.backend not in (AUTO, "POSIX"):
            return f"api {self.api} goes with the POSIX backend, not {self.backend} · set one of them to auto"
        return ""

    def to_mapping(self) -> dict[str, Any]:
        """The `RunSpec` mapping; what is auto is left open, and so are the paths until doctor has looked."""
        data: dict[str, Any] = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("unwanted", "doctor", "layouts", "tune")
            and getattr(self, item.name) not in (None, AUTO)
        }
        data["layouts"] = [text for text in LAYOUTS if text in self.layouts]
        data["tune"] = self.tune == "on"
        if self.unwanted or self.doctor.paths:
            data["paths"] = [path for path in PATHS if self.chosen(path)]
        return data
