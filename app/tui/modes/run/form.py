"""The Run screen's form: paths, layouts, geometry and effort, and the `RunSpec` mapping it produces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kvdeck.app.tui.current_plan import BlockChoice
from kvdeck.app.tui.form_fields import LAYOUTS, MAX_NUMBER, Field
from kvdeck.app.tui.modes.run.form_fields import AUTO, COLUMNS, MIXED, MORE
from kvdeck.app.tui.state import Doctor
from kvdeck.engine.planning.layout import LLAMA_3_1_8B, Geometry, parse_layout_pair
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS
from kvdeck.sessions.units import count_text, exact_size_text, many, short_layout_name, size_text

LEAST_SIZE = 4096
_EVERY_LAYOUT = (*LAYOUTS, *MIXED)
_SWEEPS = {"sweep_block_sizes": ("sizes_from", "sizes_to"), "sweep_batches": ("batches_from", "batches_to")}


@dataclass(frozen=True, slots=True)
class Form:
    """The form's values; immutable, each change returns a new form."""

    unwanted: frozenset[str] = frozenset()
    """Paths the operator has deselected; all other ready paths run."""
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
    block_size: int | None = None
    sizes_from: int | None = None
    sizes_to: int | None = None
    batches_from: int | None = None
    batches_to: int | None = None
    seconds: int | None = None
    threads: int = 1
    pipeline_depth: int = 1
    files: int = 1
    operation: str = "WRITE"
    loopback: str = "off"
    notify: str = "on"
    merge: str = "off"
    durable: str = "off"
    page_cache: str = "drop"
    verify: str = "on"
    reference: str = "on"
    huge_pages: str = "off"
    pin: str = "on"
    error_handling: str = "auto"
    progress_thread: str = "off"
    doctor: Doctor = field(default_factory=Doctor)

    @property
    def geometry(self) -> Geometry:
        return Geometry(self.layers, self.outer_dims, self.page_size, self.inner_dim, self.dtype)

    def available(self, path: str) -> bool:
        """True if a path can be chosen; before doctor has reported, every path can."""
        row = self.doctor.best(path)
        return row is None or row.state != "unavailable"

    def chosen(self, key: str) -> bool:
        """True if a toggle is on."""
        if key in PATHS:
            return key not in self.unwanted and self.available(key)
        return key in self.layouts

    def text(self, item: Field) -> str:
        """Return a field's display text."""
        if item.kind == "toggle":
            if self.chosen(item.key):
                return "[x]"
            return "[ ]" if item.key in _EVERY_LAYOUT or self.available(item.key) else " – "
        value = getattr(self, item.key)
        return AUTO if value is None else size_text(value) if item.size else str(value)

    def _with(self, item: Field, value: Any) -> Form:
        change: dict[str, Any] = {item.key: value}
        return replace(self, **change)

    def toggled(self, item: Field) -> Form:
        """Return the form with a toggle switched or a choice's next option; numbers and unavailable paths don't
        change."""
        if item.kind == "choice":
            return self.stepped(item, 1)
        if item.kind == "number":
            return self
        if item.key in _EVERY_LAYOUT:
            return replace(self, layouts=self.layouts ^ {item.key})
        return replace(self, unwanted=self.unwanted ^ {item.key}) if self.available(item.key) else self

    def stepped(self, item: Field, by: int) -> Form:
        """Return the form with the next or previous option; a number is doubled or halved.

        Below its minimum an optional number becomes auto.
        """
        if item.kind == "toggle":
            return self.toggled(item)
        value = getattr(self, item.key)
        if item.kind == "choice":
            place = (item.options.index(value) + by) % len(item.options)
            return self._with(item, item.options[place])
        least = LEAST_SIZE if item.size else 1
        if value is None:
            return self._with(item, least) if by > 0 else self
        if by < 0 and value <= least:
            return self._with(item, None) if item.optional else self
        return self._with(item, min(MAX_NUMBER, value * 2 if by > 0 else max(1, value // 2)))

    def typed(self, item: Field, text: str) -> Form:
        """Return the form with a typed number, for sizes also as 64K. Empty means auto if optional; invalid text
        changes nothing."""
        number = _typed_size(text) if item.size else int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
        if 0 < number <= MAX_NUMBER:
            return self._with(item, number)
        return self._with(item, None) if item.optional and not text else self

    def hint(self, item: Field) -> str:
        """Return a one-line hint for a field; for a path, doctor's reason and fix."""
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
        """Return the settings of the second page, and the geometry in bytes and descriptors."""
        said = f"{', '.join(more)} · " if (more := list(self.more())) else ""
        if self.block_size is not None:
            return f"{said}{exact_size_text(self.block_size)}"
        shape = self.geometry
        counts = ", ".join(
            f"{short_layout_name(text)} {count_text(parse_layout_pair(text).descriptors_per_block(shape))}"
            for text in _EVERY_LAYOUT
            if text in self.layouts
        )
        return (
            f"{said}{exact_size_text(shape.block_bytes)} a block · {many(shape.regions, 'region')} of "
            f"{size_text(shape.region_bytes)} · descriptors: {counts or 'no layout'}"
        )

    def with_block(self, block: BlockChoice) -> Form:
        """Return the form with a plan's block; a plain block size and sweeps are cleared, since they would override
        it."""
        return replace(
            self,
            unwanted=frozenset(PATHS) - {block.path},
            layouts=block.layouts,
            layers=block.layers,
            outer_dims=block.outer_dims,
            page_size=block.page_size,
            inner_dim=block.inner_dim,
            dtype=block.dtype,
            batch=block.batch,
            blocks=block.blocks,
            block_size=None,
            sizes_from=None,
            sizes_to=None,
            batches_from=None,
            batches_to=None,
        )

    def more(self) -> Iterator[str]:
        """Yield each changed setting of the second page, short; shown on both pages so that none applies unseen."""
        for item in MORE:
            if getattr(self, item.key) != _DEFAULTS[item.key]:
                yield f"{item.label} {self.text(item)}"

    def carried(self) -> str:
        """Return block, batch and working set, short."""
        batch = "batch auto" if self.batch is None else f"{count_text(self.batch)} a request"
        blocks = "working set auto" if self.blocks is None else f"{count_text(self.blocks)} in the working set"
        return f"{size_text(self.geometry.block_bytes)}, {batch}, {blocks}"

    def problem(self) -> str:
        """Return why this can't be launched, or ""."""
        if not any(self.chosen(path) for path in PATHS):
            return "no path is chosen · switch one on with space"
        if not self.layouts:
            return "no layout is chosen · switch one on with space"
        if self.blocks is not None and self.batch is not None and self.batch > self.blocks:
            batch, blocks = count_text(self.batch), many(self.blocks, "block")
            return f"batch {batch} is larger than the {blocks} · lower batch or raise blocks"
        if self.api != AUTO and self.backend not in (AUTO, "POSIX"):
            return f"api {self.api} goes with the POSIX backend, not {self.backend} · set one of them to auto"
        if self.block_size is not None and self.layouts not in ({LAYOUTS[0]}, frozenset(LAYOUTS[:2])):
            return "a plain block has one layout, FullyContiguous · set it to auto, or the others off"
        for name, (start, stop) in _SWEEPS.items():
            if (getattr(self, start) is None) != (getattr(self, stop) is None):
                what = name.removeprefix("sweep_").replace("_", " ")
                return f"the sweep of {what} needs both its ends, from and to · m shows them"
        return self._problem_together() if any(self.more()) else ""

    def _problem_together(self) -> str:
        from kvdeck.engine.spec import spec_from_mapping

        try:
            spec_from_mapping(self.to_mapping(), "the form")
        except UsageError as error:
            return str(error)
        return ""

    def to_mapping(self) -> dict[str, Any]:
        """Return the `RunSpec` mapping. Auto fields are left out, and so are the paths until doctor has reported or
        one is deselected."""
        data: dict[str, Any] = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in _APART and getattr(self, item.name) not in (None, AUTO)
        }
        for item in MORE:
            value = getattr(self, item.key)
            if item.key in _SPECS and value != _DEFAULTS[item.key]:
                data[item.key] = value == "on" if value in ("on", "off") else value
        for name, (start, stop) in _SWEEPS.items():
            if (first := getattr(self, start)) and (last := getattr(self, stop)):
                data[name] = {"start": first, "stop": last, "factor": 2}
        data["layouts"] = [text for text in _EVERY_LAYOUT if text in self.layouts]
        data["tune"] = self.tune == "on"
        if self.unwanted or self.doctor.paths:
            data["paths"] = [path for path in PATHS if self.chosen(path)]
        return data

    def kept(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, as plain values for the UI state."""
        values = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "doctor"}
        changed = {name: value for name, value in values.items() if value != _DEFAULTS[name]}
        return {name: sorted(value) if isinstance(value, frozenset) else value for name, value in changed.items()}


def remembered(kept: object) -> Form:
    """Return the form from the UI state; values that are no longer valid take their default."""
    if not isinstance(kept, Mapping):
        return Form()
    found: dict[str, Any] = {}
    for column in (*COLUMNS, MORE):
        for item in column:
            value = kept.get(item.key)
            number = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_NUMBER
            if value in item.options if item.kind == "choice" else item.kind == "number" and number:
                found[item.key] = value
    for name, known in (("unwanted", PATHS), ("layouts", _EVERY_LAYOUT)):
        if isinstance(value := kept.get(name), list):
            found[name] = frozenset(value).intersection(known)
    return Form(**found)


def _typed_size(text: str) -> int:
    from kvdeck.engine.spec import parse_size

    try:
        return parse_size(text)
    except UsageError:
        return 0


_DEFAULTS = {item.name: getattr(Form(), item.name) for item in fields(Form)}
_APART = {"unwanted", "doctor", "layouts", "tune", *(item.key for item in MORE)}
_SPECS = {item.key for item in MORE} - {key for ends in _SWEEPS.values() for key in ends}
