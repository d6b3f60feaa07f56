"""Mode 9: what this host can run, why the rest can't, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from kvdeck.app.tui.export_tables import facts_table
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.state import Doctor, PathReport
from kvdeck.app.tui.widgets.key_bar import RUN
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.tui.widgets.list import Listing, Page
from kvdeck.app.tui.widgets.table import Column
from kvdeck.sessions.units import size_text

MARKS = {"ready": "✓", "degraded": "!", "unavailable": "–"}
TONES = {"ready": "ok", "degraded": "warn", "unavailable": "dim"}


def _columns(width: int) -> list[Column[PathReport]]:
    columns: list[Column[PathReport]] = [
        Column("", 1, lambda r: MARKS[r.state], lambda r: TONES[r.state], right=False),
        Column(
            "path", 14, lambda r: r.path, lambda r: f"path:{r.path}" if r.state != "unavailable" else "dim", right=False
        ),
        Column(
            "backend",
            10,
            lambda r: r.backend,
            lambda r: TONES[r.state] if r.state == "unavailable" else "",
            right=False,
        ),
        Column("state", 11, lambda r: r.state, lambda r: TONES[r.state], right=False),
    ]
    left = width - 1 - sum(column.width + 1 for column in columns) - 1
    columns.append(
        Column(
            "reason",
            max(10, left),
            lambda r: ", ".join(filter(None, (r.mode, r.reason))),
            lambda r: TONES[r.state] if r.reason else "dim",
            right=False,
        )
    )
    return columns


def facts(host: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield host facts flattened to (name, value); bytes are written with their unit."""
    for name, value in host.items():
        yield from _fact(name, value)


def _fact(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _fact(f"{name} {inner}", item)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
        for number, item in enumerate(value):
            yield from _fact(f"{name} {number}", item)
    else:
        yield name.replace("_", " ").removesuffix(" bytes"), _fact_text(name, value)


def _fact_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ("", [], ()):
        return "–"
    if isinstance(value, int) and name.endswith("bytes"):
        return size_text(value)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


class Advice(Lines):
    """The full reason and fix of the row under the cursor."""

    row: PathReport | None = None

    def apply(self, row: PathReport | None) -> None:
        self.row = row
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        row = self.row
        if row is None:
            return [heading("Advice", width)]
        said = [
            (line, "")
            for line in wrap(
                row.reason or f"{row.path} is {row.state} with {row.backend}{f', {row.mode}' if row.mode else ''}.",
                width - 2,
            )
        ]
        fix = [(line, "key") for line in wrap(f"fix: {row.fix}" if row.fix else "", width - 2)]
        return [
            heading(" ".join(filter(None, (row.path, row.backend, row.mode))), width),
            *((cell(f" {text}", width, tone),) for text, tone in said + fix),
        ]


class PathList(Listing[PathReport]):
    """Doctor's rows; they can't be opened."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "open"


class DoctorScreen(DeckScreen):
    """Paths beside host facts; `r` runs doctor again."""

    CSS_PATH = "doctor.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("r", "look", "check again", id="doctor.look", tooltip="Check this host again", group=RUN),
    ]

    PANES: ClassVar = {"advice": "advice", "host": "host"}

    def body(self) -> ComposeResult:
        with Horizontal(id="doctor"):
            with Vertical(id="left"):
                yield PathList("Paths", _columns, lambda r: f"{r.path} {r.backend} {r.mode}", id="paths")
                yield Advice(id="advice")
            yield Page(self._facts, id="host", table=lambda: facts_table("host", facts(self.app.doctor.host)))

    def on_mount(self) -> None:
        self.query_one(PathList).focus()
        super().on_mount()

    def apply_doctor(self, doctor: Doctor) -> None:
        self.doctor = doctor
        waiting = "checking this host …" if doctor.looking else "not checked yet · r checks"
        trouble = "\n".join([*wrap(f"✗ {doctor.error}", 64), "r checks again"]) if doctor.error else ""
        self.query_one(PathList).show(doctor.paths, trouble or waiting, "bad" if trouble else "dim")
        self.query_one("#host", Page).redraw()

    def on_row_moved(self) -> None:
        self.query_one(Advice).apply(self.query_one(PathList).under_cursor)

    def action_look(self) -> None:
        self.app.run_doctor()

    def _facts(self, width: int, focused: bool) -> list[Row]:
        note = "looking …" if self.app.doctor.looking else ""
        rows: list[Row] = [heading("Host", width, focused, note)]
        for name, value in facts(self.app.doctor.host):
            first, *rest = wrap(value, max(10, width - 22)) or ["–"]
            rows.append((cell(f" {name}", 20, "dim"), cell(f" {first}", width - 20)))
            rows += [(cell("", 20), cell(f" {line}", width - 20)) for line in rest]
        plugins = self.app.doctor.plugins
        if plugins:
            rows += [(), (cell(" NIXL plugins", width, "!dim"),)]
        for plugin in plugins:
            rows.append(_plugin_row(plugin, width))
        return rows


def _plugin_row(plugin: dict[str, Any], width: int) -> Row:
    works = bool(plugin.get("creates"))
    stage = (
        "creates" if works else "loads" if plugin.get("loads") else "present" if plugin.get("present") else "missing"
    )
    said = ", ".join(map(str, plugin.get("memory_types") or ())) if works else str(plugin.get("reason") or "")
    return (
        cell(f" {plugin.get('name', '')}", 14),
        cell(stage, 8, "ok" if works else "dim"),
        cell(f" {said}", width - 22, "dim"),
    )
