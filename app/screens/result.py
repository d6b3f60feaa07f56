"""A session's results: what each layout gave on each path, and the verdicts in words."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import groupby
from typing import ClassVar

from kvdeck.app.screens.frame import DeckScreen
from kvdeck.app.widgets.keys import LIST
from kvdeck.app.widgets.lines import Row, cell, heading
from kvdeck.app.widgets.listing import Page
from kvdeck.app.words import binary, clock, figure, fixed, percent, short_layout, verdict
from kvdeck.sessions.records import Comparison, Percentiles, Session, StepResult
from textual.app import ComposeResult
from textual.binding import Binding, BindingType

_TONES = {"faster": "ok", "slower": "warn"}


def _p50(times: Percentiles | None) -> str:
    return figure(None if times is None else times.p50)


def _rate(result: StepResult) -> str:
    return fixed(None if result.gb_per_s is None else result.gb_per_s.median)


def _rate_interval(result: StepResult) -> str:
    rate = result.gb_per_s
    return "–" if rate is None else f"[{rate.low:.2f} {rate.high:.2f}]"


def _verified(result: StepResult) -> str:
    return {True: "yes", False: "NO", None: "–"}[result.verified]


Text = Callable[[StepResult], str]
_COLUMNS: tuple[tuple[str, int, Text, int], ...] = (
    ("layout", 9, lambda r: short_layout(r.layout), 0),
    ("desc/blk", 8, lambda r: f"{r.descriptors_per_block:,}", 0),
    ("post µs", 8, lambda r: _p50(r.post_us), 0),
    ("xfer µs", 8, lambda r: _p50(r.transfer_us), 0),
    ("p99 µs", 8, lambda r: figure(None if r.request_us is None else r.request_us.p99), 0),
    ("GB/s", 7, _rate, 0),
    ("95 %", 15, _rate_interval, 110),
    ("ref GB/s", 9, lambda r: fixed(r.reference_gb_per_s), 110),
    ("effic.", 7, lambda r: percent(r.efficiency), 0),
    ("verified", 9, _verified, 0),
    ("requests", 9, lambda r: f"{r.iterations:,}", 110),
)  # fmt: skip


def result_rows(session: Session, width: int) -> list[Row]:
    """The whole page for a width, its heading left out."""
    rows = _facts(session, width)
    if not session.results:
        return [*rows, (), (cell(" nothing was measured", width, "dim"),)]
    for path, of_path in groupby(sorted(session.results, key=lambda r: r.step), key=lambda r: r.path):
        rows.append(())
        for (backend, size, batch, cache), found in groupby(of_path, key=_setting):
            rows += _table(path, f"{backend} · {batch:,} × {binary(size)} a request{cache}", list(found), width)
            rows += _verdicts(
                [c for c in session.comparisons if (c.path, c.block_bytes, c.batch) == (path, size, batch)], width
            )
    if session.tuned:
        rows += [(), (cell(" Tuned", width, "!dim"),)]
    for tuned in session.tuned:
        mark = "✓" if tuned.chosen else " "
        said = f" {mark} {tuned.path} {tuned.setting}={tuned.value}: {tuned.ratio:.2f} × the time [{tuned.low:.2f} {tuned.high:.2f}]"
        rows.append((cell(said, width, "" if tuned.chosen else "dim"),))
    return rows


def _setting(result: StepResult) -> tuple[str, int, int, str]:
    parts = (result.backend, result.api or "", "O_DIRECT" if result.direct else "")
    cache = f" · page cache {result.page_cache}" if result.page_cache else ""
    return " ".join(part for part in parts if part), result.block_bytes, result.batch, cache


def _facts(session: Session, width: int) -> list[Row]:
    made = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(session.created))
    took = None if session.started is None or session.ended is None else session.ended - session.started
    state = f"{session.state}{f': {session.reason}' if session.reason else ''}"
    tone = {"done": "ok", "running": "run"}.get(session.state, "warn")
    host = " · ".join(str(session.host[key]) for key in ("hostname", "cpu", "kernel") if session.host.get(key))
    rows: list[Row] = [
        (cell(f" {state}", width, tone),),
        (cell(f" {made}, took {clock(took)} · {host}", width, "dim"),),
    ]
    return rows


def _table(path: str, setting: str, results: list[StepResult], width: int) -> list[Row]:
    shown = [column for column in _COLUMNS if width >= column[3]]
    title: Row = ((f" {path} ", f"!path:{path}"), (setting, "dim"))
    head: Row = tuple(
        cell(name, size, "dim", right=i > 0)
        for i, (name, size, _, _) in enumerate((("  layout", 11, str, 0), *shown[1:]))
    )
    rows: list[Row] = [title, head]
    for result in results:
        name = cell(f"  {short_layout(result.layout)}", 11, f"layout:{result.layout}")
        if result.status != "ok":
            rows.append((name, cell(f"  {result.status}: {result.reason or 'no reason given'}", width - 11, "warn")))
            continue
        cells = [cell(text(result), size, _tone(title, result), right=True) for title, size, text, _ in shown[1:]]
        rows.append((name, *cells))
    return rows


def _tone(title: str, result: StepResult) -> str:
    return "bad" if title == "verified" and result.verified is False else ""


def _verdicts(comparisons: list[Comparison], width: int) -> list[Row]:
    return [(cell(f"  {verdict(c)}", width, _TONES.get(c.verdict, "")),) for c in comparisons]


class ResultScreen(DeckScreen):
    """One session; Esc goes back to the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", key_display="Esc", id="result.back", tooltip="Back to the list", group=LIST),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def body(self) -> ComposeResult:
        yield Page(self._rows, id="result")

    def on_mount(self) -> None:
        self.query_one("#result").focus()
        super().on_mount()

    def _rows(self, width: int, focused: bool) -> list[Row]:
        return [heading(self.session.name, width, focused), *result_rows(self.session, width)]

    def action_back(self) -> None:
        self.dismiss()
