"""A run's progress on stderr: one line that is redrawn on a terminal, otherwise one line per finished step."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable

import click

from kvdeck.app.cli.standard_output import echo_own
from kvdeck.app.text.run_events import event_text, plan_text
from kvdeck.sessions import stats
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.model.events import COUNTER_INDEX, Event, Logged, StateChanged, StepFinished
from kvdeck.sessions.model.records import Comparison, Interval
from kvdeck.sessions.model.run_state import LogEntry, RunState, StepState, advance
from kvdeck.sessions.model.traffic_state import TrafficState
from kvdeck.sessions.text.run_report import verdict_text
from kvdeck.sessions.units import done_text, duration_text, figure, layout_name, many, ratio_text

REDRAW_S = 0.2
"""Seconds between two drawings of the line, at least."""


def _counter(run: RunState, name: str) -> float | None:
    """Return a counter of the newest sample, or None if it has none. `name` is one of `COUNTERS`."""
    index = COUNTER_INDEX[name]
    return run.newest[index] if index < len(run.newest) else None


def waiting_text(run: RunState, queued: str) -> str:
    """Return what the run does before its first sample; `queued` if it hasn't started."""
    if not run.steps:
        return queued
    step = None if run.current is None else run.step(run.current)
    return "preparing memory and files" if step is None else f"warming up {plan_text(step.plan)}"


def line_text(run: RunState, width: int, queued: str = "starting") -> str:
    """Return the progress line: share done, time left, the running step's rate; its sizes only if they fit."""
    if run.traffic is not None:
        return traffic_text(run.traffic)[:width]
    if not run.newest:
        return waiting_text(run, queued)[:width]
    step = run.step(int(_counter(run, "step") or 0))
    start = [done_text(_counter(run, "fraction") or 0).rjust(5)]
    eta = _counter(run, "eta_s")
    if eta is not None:
        start.append(f"{duration_text(eta)} left")
    end = _figures(run, step)
    if step is None:
        return " · ".join((*start, *end))[:width]
    plan = step.plan
    line = " · ".join((*start, plan_text(plan), *end))
    return line if len(line) <= width else " · ".join((*start, f"{plan.path} {layout_name(plan.layout)}", *end))[:width]


def traffic_text(traffic: TrafficState) -> str:
    """Return the progress of a traffic test: share done, and the patterns in progress."""
    if traffic.prepared < len(traffic.patterns):
        return f"prepared {traffic.prepared} of {many(len(traffic.patterns), 'pattern')}"
    doing = [f"pattern {one.pattern} {one.phase}" for one in traffic.current[:3]]
    return " · ".join([done_text(traffic.fraction).rjust(5), *doing])


def _figures(run: RunState, step: StepState | None) -> list[str]:
    moved, busy, ratio = (_counter(run, name) for name in ("bytes", "busy_ns", "ratio"))
    figures = [f"{figure(moved / busy)} GB/s"] if moved is not None and busy else []
    if ratio is not None and step is not None:
        first = run.trial_of(step.plan.step)[0].plan
        figures.append(f"≈ {ratio_text(ratio)} {layout_name(first.layout)}")
    return figures


def verdict_so_far(run: RunState) -> Comparison | None:
    """Return the running step's comparison with its trial's first, from the rounds so far; None if undecided."""
    step = run.step(int(_counter(run, "step") or 0)) if run.newest else None
    ratio, low, high, number = (_counter(run, name) for name in ("ratio", "ratio_low", "ratio_high", "round"))
    if step is None or ratio is None or low is None or high is None or number is None:
        return None
    verdict = stats.verdict(Interval(ratio, low, high), int(number) + 1)
    plan, first = step.plan, run.trial_of(step.plan.step)[0].plan
    found = Comparison(
        trial=plan.trial,
        path=plan.path,
        baseline=first.layout,
        candidate=plan.layout,
        block_bytes=plan.block_bytes,
        batch=plan.batch,
        ratio=ratio,
        low=low,
        high=high,
        verdict=verdict,
    )
    return None if found.verdict == "undecided" else found


class Progress:
    """Draws a run's lines on stderr: a line that is redrawn if stderr is a terminal, otherwise plain lines."""

    def __init__(self, session: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.run = RunState(session)
        self._queued = "starting"
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._clock = clock
        self._drawn_at = -REDRAW_S
        self._shown = False
        self._said_reasons: set[str | None] = set()
        self._said_verdicts: set[tuple[int, str]] = set()

    def waiting(self, text: str) -> None:
        """Show what the run waits for; has no effect once it has started."""
        if text != self._queued and not self.run.steps:
            self._queued = text
            if not self._live:
                self.say(text)
        self._draw()

    def take(self, entry: LogEntry) -> None:
        """Show a line of the run: on a terminal only warnings and errors of its log get a line of their own."""
        self.run, event = advance(self.run, entry), entry.event
        if isinstance(event, StateChanged):
            self.clear()
        text = None if event is None or self._is_repeated(event) else event_text(event)
        loud = isinstance(event, Logged) and event.level != "info"
        if text is not None and (loud or not self._live):
            self.say(text, loud)
        if not self._live:
            self._say_verdict()
        self._draw()

    def _say_verdict(self) -> None:
        """Print each comparison's first verdict as soon as there is one, marked as not final."""
        found = verdict_so_far(self.run)
        if found is not None and (found.trial, found.candidate) not in self._said_verdicts:
            self._said_verdicts.add((found.trial, found.candidate))
            self.say(f"≈ {found.path}: {verdict_text(found)}, so far")

    def _is_repeated(self, event: Event) -> bool:
        """True if an unavailable step's reason was already printed (a dozen steps may share one)."""
        if not isinstance(event, StepFinished) or event.result.status != "unavailable":
            return False
        repeated = event.result.reason in self._said_reasons
        self._said_reasons.add(event.result.reason)
        return repeated

    def say(self, text: str, loud: bool = False) -> None:
        """Print a permanent line, in yellow if `loud`."""
        self.clear()
        echo_own(click.style(visible(text), fg="yellow") if loud else visible(text), err=True)

    def clear(self) -> None:
        """Erase the progress line, so that other output can follow."""
        if self._shown:
            echo_own("\r\x1b[K", newline=False, err=True)
            self._shown = False
            self._drawn_at = -REDRAW_S

    def _draw(self) -> None:
        now = self._clock()
        if not self._live or now - self._drawn_at < REDRAW_S:
            return
        width = shutil.get_terminal_size().columns - 3  # room for the ^C that the terminal echoes
        # Erased after the text, not before it: a line that is empty for an instant flickers.
        echo_own(f"\r{visible(line_text(self.run, width, self._queued))}\x1b[K", newline=False, err=True)
        self._shown, self._drawn_at = True, now
