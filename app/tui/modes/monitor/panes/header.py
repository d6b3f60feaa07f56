"""Status line of the Monitor: time shown, sampling rate, sources, recording."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from kvdeck.app.text.monitor_names import time_of_day
from kvdeck.app.tui.widgets.lines import Lines, Row, Span
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.units import clock_text, duration_text, many, number_text, size_text

if TYPE_CHECKING:
    from kvdeck.app.tui.modes.monitor.screen import MonitorScreen


@dataclass(frozen=True, slots=True)
class HeaderState:
    """Content of the status line; None for parts that don't apply."""

    shown: float | None = None
    """Unix time in seconds of the sample shown; None is live."""
    newest: float | None = None
    hz: float = 1.0
    block_bytes: float | None = None
    block_from: str = ""
    recording: tuple[str, float, int] | None = None
    """Name, seconds and bytes of the running recording."""
    replay: tuple[str, float, float, float] | None = None
    """Name, begin and end (Unix time, s) and speed of the replayed recording."""
    held: bool = False
    unwatched: bool = False
    error: str = ""
    """Why there is no newer sample."""
    age_s: float | None = None
    """Age of the newest sample, if it is overdue."""
    new: int = 0
    """Number of discovered sources that were never offered."""


def state_of(screen: MonitorScreen) -> HeaderState:
    """Return the status line's content for a Monitor screen."""
    timeline, settings, going = screen.timeline, screen.settings, screen.recording
    replay = timeline.replay
    held = screen.app.paused and replay is None and timeline.shown is None
    newest = None if timeline.newest is None else screen.pictured if held else timeline.newest.t
    known = {*settings.known, *(settings.sources or ())}
    return HeaderState(
        shown=timeline.now if replay is not None else timeline.shown,
        newest=newest,
        hz=settings.hz,
        block_bytes=settings.block_bytes,
        block_from=settings.block_from,
        recording=None
        if going is None
        else (going.name, (newest or going.begin or 0) - (going.begin or newest or 0), going.bytes),
        replay=None if replay is None else (replay.recording.name, replay.begin, replay.end, replay.speed),
        held=screen.app.paused,
        error=timeline.error,
        age_s=screen.age(),
        unwatched=not settings.sources and newest is None,
        new=sum(found.name not in known for found in screen.found) if settings.sources is not None else 0,
    )


class MonitorBar(Lines):
    """The status line: on the left the parts that fit, on the right the recording."""

    DEFAULT_CSS = "MonitorBar { height: 1; }"
    state = HeaderState()
    moment = Snapshot(0.0)

    def apply(self, state: HeaderState, moment: Snapshot) -> None:
        self.state, self.moment = state, moment
        self.redraw()

    def rows(self, width: int, height: int) -> list[Row]:
        right = self._right()
        spans = self._left()
        used, room = _width(spans), width - _width(right)
        for more in (self._sources(), self._blocks(), self._new()):
            if more and used + _width(more) <= room:
                spans += more
                used += _width(more)
        return [(*spans, (" " * max(0, room - used), ""), *right)]

    def _left(self) -> list[Span]:
        state = self.state
        if state.replay is not None:
            name, begin, end, speed = state.replay
            at = "" if state.shown is None else time_of_day(state.shown)
            how = "held" if state.held else f"×{number_text(speed)}"
            return [
                (f" ▶ replay {name} ", "!run"),
                (f"{at} ", "!"),
                (f"of {time_of_day(begin)}–{time_of_day(end)}  {how}  ", "dim"),
            ]
        if state.error:
            when = f", shown: {time_of_day(state.newest)}" if state.newest is not None else ""
            return [(f" ✗ {state.error}{when}  ", "bad")]
        if state.unwatched:
            return [(" ○ no source selected  ", "dim")]
        if state.held and state.shown is None and state.newest is not None:
            return [
                (f" ◂ held at {time_of_day(state.newest)}  ", "!warn"),
                (f"{number_text(state.hz)} Hz continues  ", "dim"),
            ]
        if state.shown is not None:
            behind = max(0.0, (state.newest or state.shown) - state.shown)
            return [(f" ◂ {time_of_day(state.shown)}, {_behind(behind)} ago  ", "!warn"), ("l goes live  ", "dim")]
        if state.newest is None:
            return [(" ○ no sample yet  ", "dim"), (f"{number_text(state.hz)} Hz  ", "")]
        if state.age_s is not None:
            old = duration_text(float(int(state.age_s)))
            return [(f" ◂ {old} old, waiting for a sample ", "!warn"), (f"{number_text(state.hz)} Hz  ", "")]
        down = sum(source.stale for source in self.moment.sources)
        if down:
            return [(f" ▲ {down} of {len(self.moment.sources)} down ", "!bad"), (f"{number_text(state.hz)} Hz  ", "")]
        return [(" ● live ", "ok"), (f"{number_text(state.hz)} Hz  ", "")]

    def _sources(self) -> list[Span]:
        states = Counter(source.state for source in self.moment.sources)
        total = sum(states.values())
        if not total:
            return []
        bad = [f"{states[state]} {state}" for state in ("unreachable", "stale") if states[state]]
        spans: list[Span] = [(many(total, "source"), "dim")]
        if bad:
            spans.append((f", {', '.join(bad)}", "bad"))
        looks = sum(check.verdict == "warning" for check in self.moment.checks)
        if looks:
            spans.append((f"  ▲ {many(looks, 'warning')}", "warn"))
        return [*spans, ("  ", "")]

    def _blocks(self) -> list[Span]:
        state = self.state
        if state.block_bytes is not None:
            return [(f"block {size_text(state.block_bytes)}, {state.block_from}  ", "dim")]
        if any(flow.blocks_total is not None and flow.bytes_total is None for flow in self.moment.flows):
            return [("Shown in blocks; press B to set the block size  ", "dim")]
        return []

    def _new(self) -> list[Span]:
        return [(f"{many(self.state.new, 'new source')}: press s  ", "key")] if self.state.new else []

    def _right(self) -> list[Span]:
        recording = self.state.recording
        if recording is None:
            return []
        name, seconds, size = recording
        return [(f"● REC {name} ", "bad"), (f"{size_text(size)} {clock_text(seconds)} ", "")]


def _behind(seconds: float) -> str:
    return duration_text(float(round(seconds))) if seconds >= 10 else f"{number_text(round(seconds))} s"


def _width(spans: list[Span]) -> int:
    return sum(cell_len(text) for text, _ in spans)
