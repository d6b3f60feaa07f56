"""Fields of the Run screen's form, made from the table of a run's fields, in pages of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kvdeck.app.tui.form_fields import LAYOUTS, Field
from kvdeck.engine.planning.layout import FULLY_CONTIGUOUS, LAYER_SEPARATE, LayoutPair
from kvdeck.engine.run_field import AUTO, BYTES, Cell, RunField, in_order
from kvdeck.engine.spec import FIELDS
from kvdeck.sessions.model.records import PATHS

MIXED = (str(LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS)), str(LayoutPair(FULLY_CONTIGUOUS, LAYER_SEPARATE)))
"""Layout pairs with a different layout at each endpoint."""

End = Literal["", "start", "stop"]

Page = dict[str, tuple[Field, ...]]
"""Columns of fields, by title."""

_TOGGLES = {
    "Paths": tuple(Field(path, path, "toggle", "") for path in PATHS),
    "Block": (
        Field(LAYOUTS[0], "FullyContiguous", "toggle", "a block is one region: one descriptor per block"),
        Field(
            LAYOUTS[1],
            "LayerSeparate",
            "toggle",
            "one region per layer and outer dim: layers × outer descriptors per block",
        ),
        Field(
            LAYOUTS[2],
            "LayerSep. outer",
            "toggle",
            "LayerSeparate { outer_contiguous: true }: K and V of a layer are apart",
        ),
    ),
    "Sweep and layouts": (
        Field(MIXED[0], "LS to FC", "toggle", "LayerSeparate at the source, FullyContiguous at the destination"),
        Field(MIXED[1], "FC to LS", "toggle", "FullyContiguous at the source, LayerSeparate at the destination"),
    ),
}
_TITLES = (("Paths", "Block", "Run"), ("Sweep and layouts", "Concurrency", "Safety"), ("Time", "Devices"))


@dataclass(frozen=True, slots=True)
class FormTable:
    """The form's pages, and what their fields edit."""

    rows: tuple[RunField, ...]
    pages: tuple[Page, ...]
    """The first one is shown at first."""
    edits: dict[str, tuple[RunField, End]]
    """By a field's key: a row of the run, and which end of a sweep."""

    @property
    def items(self) -> tuple[Field, ...]:
        """The choices and numbers of all pages."""
        return tuple(item for page in self.pages for item in _items(page))

    @property
    def more(self) -> tuple[Field, ...]:
        """The choices and numbers of all pages but the first."""
        return tuple(item for page in self.pages[1:] for item in _items(page))


def form_table(rows: tuple[RunField, ...]) -> FormTable:
    """Return the form's pages for a run's rows."""
    made = [(row.cell.column, field) for row in in_order(rows) if row.cell for field in _made(row, row.cell)]
    pages = tuple(
        {title: (*_TOGGLES.get(title, ()), *(field for column, field in made if column == title)) for title in titles}
        for titles in _TITLES
    )
    edits: dict[str, tuple[RunField, End]] = {}
    for row in rows:
        if row.cell and row.kind == "range":
            edits |= {f"{row.cell.key}_from": (row, "start"), f"{row.cell.key}_to": (row, "stop")}
        elif row.cell:
            edits[row.name] = row, ""
    return FormTable(rows, pages, edits)


def _items(page: Page) -> tuple[Field, ...]:
    return tuple(item for column in page.values() for item in column if item.kind != "toggle")


def _made(row: RunField, cell: Cell) -> tuple[Field, ...]:
    size = row.unit == BYTES
    if row.kind == "range":
        return (
            Field(f"{cell.key}_from", f"{cell.label} from", "number", cell.hint, (), True, size),
            Field(f"{cell.key}_to", f"{cell.label} to", "number", "where the sweep ends", (), True, size),
        )
    if row.kind == "names":
        return (Field(row.name, cell.label, "text", cell.hint, (), row.optional),)
    choices = ("on", "off") if row.kind == "flag" else cell.choices or row.choices
    if choices:
        return (Field(row.name, cell.label, "choice", cell.hint, (*([AUTO] * row.optional), *choices)),)
    return (Field(row.name, cell.label, "number", cell.hint, (), row.optional, size),)


TABLE = form_table(FIELDS)
COLUMNS = tuple(TABLE.pages[0].values())
