"""The Run screen's form: the settings of a run, and the `RunSpec` mapping it produces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvdeck.app.tui.current_plan import BlockChoice
from kvdeck.app.tui.form_fields import LAYOUTS, MAX_NUMBER, Field, not_taken
from kvdeck.app.tui.modes.run.form_fields import MIXED, TABLE, FormTable
from kvdeck.app.tui.state import Doctor, PeerState
from kvdeck.engine.planning.layout import parse_layout_pair
from kvdeck.engine.quantities import Range, parse_size
from kvdeck.engine.run_field import AUTO, RunField
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import HOST_TO_HOST, PATHS
from kvdeck.sessions.units import count_text, exact_size_text, many, short_layout_name, size_text

LEAST_SIZE = 4096
THIS_HOST = "none"
_EVERY_LAYOUT = (*LAYOUTS, *MIXED)


@dataclass(frozen=True, slots=True)
class Form:
    """The form's values; immutable, each change returns a new form."""

    unwanted: frozenset[str] = frozenset()
    """Paths the operator has deselected; all other ready paths run."""
    layouts: frozenset[str] = frozenset(LAYOUTS[:2])
    spec: RunSpec = field(default_factory=RunSpec)
    """All other fields, unchecked: a sweep with only one end has 0 for the other."""
    doctor: Doctor = field(default_factory=Doctor)
    used_peers: tuple[str, ...] = ()
    """Peers of earlier runs, the newest first."""
    peer: PeerState = field(default_factory=PeerState)
    table: FormTable = field(default=TABLE, compare=False, repr=False)

    def but(self, **changes: Any) -> Form:
        """Return the form with other values of a run's fields."""
        return replace(self, spec=replace(self.spec, **changes))

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
        value = self._value(item)
        if item.kind == "text":
            return ", ".join(value) if value else THIS_HOST
        return size_text(value) if item.size and value is not None else self._row(item).text(value)

    def _row(self, item: Field) -> RunField:
        return self.table.edits[item.key][0]

    def _value(self, item: Field) -> Any:
        row, end = self.table.edits[item.key]
        value = getattr(self.spec, row.name)
        return (getattr(value, end) or None) if end and value is not None else value

    def _with(self, item: Field, value: Any) -> Form:
        row, end = self.table.edits[item.key]
        if end:
            sweep = replace(getattr(self.spec, row.name) or Range(0, 0), **{end: value or 0})
            value = sweep if sweep.start or sweep.stop else None
        return self.but(**{row.name: value})

    def toggled(self, item: Field) -> Form:
        """Return the form with a toggle switched or a choice's next option; numbers and unavailable paths don't
        change."""
        if item.kind in ("choice", "text"):
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
        value = self._value(item)
        if item.kind == "text":
            offered = (None, *((peer,) for peer in self.used_peers))
            return self._with(item, offered[(offered.index(value) + by) % len(offered) if value in offered else 0])
        if item.kind == "choice":
            place = (item.options.index(self.text(item)) + by) % len(item.options)
            return self._chosen(item, item.options[place])
        least = LEAST_SIZE if item.size else 1
        if value is None:
            return self._with(item, least) if by > 0 else self
        if by < 0 and value <= least:
            return self._with(item, None) if item.optional else self
        return self._with(item, min(MAX_NUMBER, value * 2 if by > 0 else max(1, value // 2)))

    def _chosen(self, item: Field, option: str) -> Form:
        row = self._row(item)
        return self._with(item, None if option == AUTO and row.optional else row.read(option))

    def typed(self, item: Field, text: str) -> Form:
        """Return the form with a typed number, for sizes also as 64K, or with typed hosts. Empty means auto if
        optional; invalid text changes nothing."""
        if item.kind == "text":
            names = text.replace(",", " ").split()
            try:
                return self._with(item, self._row(item).checked(names, "the form") if names else None)
            except UsageError:
                return self
        number = _typed_size(text) if item.size else int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
        if 0 < number <= MAX_NUMBER:
            return self._with(item, number)
        return self._with(item, None) if item.optional and not text else self

    def refusal(self, item: Field, text: str) -> str:
        """Return why `typed` doesn't take a text, and the fix; "" if it does."""
        if item.kind == "text":
            try:
                names = text.replace(",", " ").split()
                if names:
                    self._row(item).checked(names, "the form")
            except UsageError as error:
                return str(error)
            return ""
        number = _typed_size(text) if item.size else int(text) if re.fullmatch("[0-9]{1,18}", text) else 0
        if 0 < number <= MAX_NUMBER or not text:
            return ""
        return not_taken(item, text, 1)

    def hint(self, item: Field) -> str:
        """Return a one-line hint for a field; for a path, doctor's reason and fix."""
        if item.key == "peer" and self.spec.peer:
            return self.peer.text(", ".join(self.spec.peer))
        if item.key not in PATHS:
            return item.hint
        row = self.doctor.best(item.key)
        if row is None:
            return self.doctor.error or ("doctor is checking this host" if self.doctor.looking else "not checked yet")
        said = row.reason or f"{row.state} with {row.backend}"
        return f"{said} · fix: {row.fix}" if row.fix else said

    def derived(self) -> str:
        """Return the settings of the other pages, and the geometry in bytes and descriptors."""
        said = f"{', '.join(more)} · " if (more := list(self.more())) else ""
        shape = self.spec.geometry
        if self.spec.block_size is not None:
            return f"{said}{exact_size_text(shape.block_bytes)}"
        counts = ", ".join(
            f"{short_layout_name(text)} {count_text(parse_layout_pair(text).descriptors_per_block(shape))}"
            for text in _EVERY_LAYOUT
            if text in self.layouts
        )
        return (
            f"{said}{exact_size_text(shape.block_bytes)} per block · {many(shape.regions, 'region')} of "
            f"{size_text(shape.region_bytes)} · descriptors: {counts or 'no layout'}"
        )

    def with_block(self, block: BlockChoice) -> Form:
        """Return the form with a plan's block; a plain block size and sweeps are cleared, since they would override
        it."""
        return replace(self, unwanted=frozenset(PATHS) - {block.path}, layouts=block.layouts).but(
            layers=block.layers,
            outer_dims=block.outer_dims,
            page_size=block.page_size,
            inner_dim=block.inner_dim,
            dtype=block.dtype,
            batch=block.batch,
            blocks=block.blocks,
            block_size=None,
            sweep_block_sizes=None,
            sweep_batches=None,
        )

    def more(self) -> Iterator[str]:
        """Yield each changed setting of the other pages, short; shown on all pages so that none applies unseen."""
        default = replace(self, spec=type(self.spec)())
        for item in self.table.more:
            if self._value(item) != default._value(item):
                yield f"{item.label} {self.text(item)}"

    def carried(self) -> str:
        """Return block, batch and working set, short."""
        spec = self.spec
        batch = "batch auto" if spec.batch is None else f"{count_text(spec.batch)} per request"
        blocks = "working set auto" if spec.blocks is None else f"{count_text(spec.blocks)} in the working set"
        return f"{size_text(spec.geometry.block_bytes)}, {batch}, {blocks}"

    def problem(self) -> str:
        """Return why this can't be launched, or ""."""
        spec = self.spec
        if not any(self.chosen(path) for path in PATHS):
            return "no path is selected · fix: select one with space"
        if not self.layouts:
            return "no layout is selected · fix: select one with space"
        if spec.blocks is not None and spec.batch is not None and spec.batch > spec.blocks:
            batch, blocks = count_text(spec.batch), many(spec.blocks, "block")
            return f"batch {batch} is larger than the {blocks} · fix: lower batch or raise blocks"
        if spec.api is not None and spec.backend not in (None, "POSIX"):
            return f"api {spec.api} needs the POSIX backend, not {spec.backend} · fix: set one of them to auto"
        if spec.block_size is not None and self.layouts not in ({LAYOUTS[0]}, frozenset(LAYOUTS[:2])):
            return "a plain block has one layout, FullyContiguous · fix: set it to auto, or the others off"
        for row in self.table.rows:
            sweep = getattr(spec, row.name)
            if isinstance(sweep, Range) and not (sweep.start and sweep.stop):
                what = row.name.removeprefix("sweep_").replace("_", " ")
                return f"the sweep of {what} needs both from and to · fix: set both (v shows them)"
        try:
            spec_from_mapping(self.to_mapping(), "the form", type(spec), self.table.rows)
        except UsageError as error:
            return str(error)
        return ""

    def to_mapping(self) -> dict[str, Any]:
        """Return the `RunSpec` mapping. Defaults are left out, and so are the paths until doctor has reported or
        one is deselected."""
        values, rows = self.spec.to_mapping(), self.table.rows
        data = {
            row.name: values[row.name]
            for row in rows
            if row.name in values and getattr(self.spec, row.name) != row.default
        }
        data["layouts"] = [text for text in _EVERY_LAYOUT if text in self.layouts]
        if self.spec.peer:
            data["paths"] = [HOST_TO_HOST]  # the only path that leads to another host
        elif self.unwanted or self.doctor.paths:
            data["paths"] = [path for path in PATHS if self.chosen(path)]
        return data

    def kept(self) -> dict[str, Any]:
        """Return the values that differ from the defaults, as plain values for the UI state."""
        default = Form(spec=type(self.spec)(), table=self.table)
        found: dict[str, Any] = {
            name: sorted(getattr(self, name))
            for name in ("unwanted", "layouts")
            if getattr(self, name) != getattr(default, name)
        }
        for item in self.table.items:
            if (value := self._value(item)) != default._value(item):
                plain = list(value) if item.kind == "text" and value else value
                found[item.key] = self.text(item) if item.kind == "choice" else plain
        return found


def remembered(kept: object) -> Form:
    """Return the form from the UI state; values that are no longer valid take their default."""
    form = Form()
    if not isinstance(kept, Mapping):
        return form
    for item in form.table.items:
        value = kept.get(item.key)
        number = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_NUMBER
        if item.kind == "number" and number:
            form = form._with(item, value)
        elif item.kind == "text" and isinstance(value, list):
            form = form.typed(item, " ".join(map(str, value)))
        elif item.kind == "choice" and value in item.options:
            form = form._chosen(item, str(value))
    for name, known in (("unwanted", PATHS), ("layouts", _EVERY_LAYOUT)):
        if isinstance(value := kept.get(name), list):
            change: dict[str, Any] = {name: frozenset(value).intersection(known)}
            form = replace(form, **change)
    return form


def _typed_size(text: str) -> int:
    try:
        return parse_size(text)
    except UsageError:
        return 0
