"""Mode 9: what this host can run, why the rest can't, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical

from kvdeck.app.tui.export_tables import facts_table
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.modes.doctor.groups import PathGroup, fact_groups, fixes, headline, limits, path_groups
from kvdeck.app.tui.state import Doctor
from kvdeck.app.tui.widgets.key_bar import RUN
from kvdeck.app.tui.widgets.lines import Lines, Row, cell, heading
from kvdeck.app.tui.widgets.list import Listing, Page
from kvdeck.app.tui.widgets.scroll import Scrolled
from kvdeck.app.tui.widgets.table import Column
from kvdeck.sessions.units import many, size_text

MARKS = {"ready": "✓", "degraded": "!", "unavailable": "–"}
TONES = {"ready": "ok", "degraded": "warn", "unavailable": "dim"}


def _columns(width: int) -> list[Column[PathGroup]]:
    columns: list[Column[PathGroup]] = [
        Column("", 1, lambda g: MARKS[g.best.state], lambda g: TONES[g.best.state], right=False),
        Column("path", 14, lambda g: g.path, lambda g: _path_style(g), right=False),
        Column("backends", 26 if width < 90 else 34, _chips, lambda g: TONES[g.best.state], right=False),
    ]
    left = width - 1 - sum(column.width + 1 for column in columns) - 1
    columns.append(Column("reason", max(10, left), _reason, lambda g: TONES[g.best.state], right=False))
    return columns


def _path_style(group: PathGroup) -> str:
    return f"path:{group.path}" if group.best.state != "unavailable" else "dim"


def _chips(group: PathGroup) -> str:
    return "  ".join(f"{backend} {MARKS[state]}" for backend, state in group.backends)


def _reason(group: PathGroup) -> str:
    best = group.best
    return ", ".join(filter(None, (best.mode, best.reason))) or best.state


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


class Readiness(Lines):
    """How many paths can run here, in one line."""

    groups: tuple[PathGroup, ...] = ()
    instead = ""

    def apply(self, groups: Sequence[PathGroup], instead: str) -> None:
        """Show the headline of these paths, or the text instead if there are none."""
        self.groups, self.instead = tuple(groups), instead
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        return [(cell(f" {headline(self.groups, width - 2) if self.groups else self.instead}", width, "!"),)]


class Advice(Scrolled):
    """Every fix once, with the paths that wait for it, and the reasons of the path under the cursor."""

    group: PathGroup | None = None
    groups: tuple[PathGroup, ...] = ()

    def apply(self, group: PathGroup | None, groups: Sequence[PathGroup]) -> None:
        self.group, self.groups = group, tuple(groups)
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        lines = self._lines(width)
        self.top = max(0, min(self.top, len(lines) - height))
        below = len(lines) - height - self.top
        shown = lines[self.top : self.top + height]
        if below > 0:
            shown[-1] = (cell(f" ↓ {many(below + 1, 'more line')}", width, "dim"),)
        return shown

    def _lines(self, width: int) -> list[Row]:
        rows: list[Row] = []
        for fix in fixes(self.groups):
            rows += [] if rows else [heading("Fixes", width, self.has_focus)]
            rows += _wrapped(f"fix: {fix.text}", width, "key")
            rows += _wrapped(f"for {', '.join(fix.paths)}", width, "dim")
        if self.group is not None:
            rows.append(heading(self.group.path, width, self.has_focus and not rows))
            for report in self.group.reports:
                name = " ".join(filter(None, (report.backend, report.mode)))
                rows += _wrapped(f"{name}: {report.reason or report.state}", width, TONES[report.state])
        return rows


def _wrapped(text: str, width: int, tone: str) -> list[Row]:
    return [(cell(f" {line}", width, tone),) for line in wrap(text, max(10, width - 2))]


class PathList(Listing[PathGroup]):
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
        yield Readiness(id="answer")
        with Horizontal(id="doctor"):
            with Vertical(id="left"):
                yield PathList("Paths", _columns, lambda group: group.path, id="paths")
                yield Advice(id="advice")
            yield Page(self._facts, id="host", table=lambda: facts_table("host", facts(self.app.doctor.host)))

    def on_mount(self) -> None:
        self.query_one(PathList).focus()
        super().on_mount()

    def apply_doctor(self, doctor: Doctor) -> None:
        self.doctor = doctor
        waiting = "checking this host …" if doctor.looking else "not checked yet · r checks"
        trouble = "\n".join([*wrap(f"✗ {doctor.error}", 64), "r checks again"]) if doctor.error else ""
        groups = path_groups(doctor.paths)
        self.query_one(Readiness).apply(groups, (doctor.error and "This host could not be checked.") or waiting)
        self.query_one(PathList).show(groups, trouble or waiting, "bad" if trouble else "dim")
        self.query_one("#host", Page).redraw()

    def on_row_moved(self) -> None:
        paths = self.query_one(PathList)
        self.query_one(Advice).apply(paths.under_cursor, paths.items)

    def action_look(self) -> None:
        self.app.run_doctor()

    def _facts(self, width: int, focused: bool) -> list[Row]:
        note = "looking …" if self.app.doctor.looking else ""
        rows: list[Row] = [heading("Host", width, focused, note)]
        marked = limits(self.app.doctor.host)
        for title, of_group in fact_groups(self.app.doctor.host):
            rows.append((cell(f" {title}", width, "!dim"),))
            for name, value in of_group.items():
                for label, text in _fact(name, value):
                    if text != "–":
                        rows += _fact_rows(label, text, width)
                if why := marked.get(name):
                    rows += _wrapped(f"  ▲ {why}", width, "warn")
        if self.app.doctor.environment:
            rows += [(), (cell(" Variables that decide", width, "!dim"),)]
            for name, value in self.app.doctor.environment.items():
                rows += _fact_rows(name, value, width)
        plugins = self.app.doctor.plugins
        if plugins:
            rows += [(), (cell(" NIXL plugins", width, "!dim"),)]
        for plugin in plugins:
            rows.append(_plugin_row(plugin, width))
        return rows


def _fact_rows(label: str, text: str, width: int) -> list[Row]:
    first, *rest = wrap(text, max(10, width - 24)) or ["–"]
    rows: list[Row] = [(cell(f"   {label}", 22, "dim"), cell(f" {first}", width - 22))]
    return rows + [(cell("", 22), cell(f" {line}", width - 22)) for line in rest]


def _plugin_row(plugin: dict[str, Any], width: int) -> Row:
    works = bool(plugin.get("creates"))
    stage = (
        "creates" if works else "loads" if plugin.get("loads") else "present" if plugin.get("present") else "missing"
    )
    detail = ", ".join(map(str, plugin.get("memory_types") or ())) if works else str(plugin.get("reason") or "")
    return (
        cell(f" {plugin.get('name', '')}", 14),
        cell(stage, 8, "ok" if works else "dim"),
        cell(f" {detail}", width - 22, "dim"),
    )
