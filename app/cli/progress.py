"""A run's progress on stderr: one line that is redrawn on a terminal, otherwise one line per finished step."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import click

from kvdeck.app.cli.standard_output import echo_own
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.model.events import (
    COUNTER_INDEX,
    Event,
    Logged,
    RunStarted,
    StateChanged,
    StepFinished,
    StepStarted,
)
from kvdeck.sessions.model.records import StepPlan, StepResult, Tuned
from kvdeck.sessions.units import (
    done_text,
    duration_text,
    figure,
    interval_text,
    layout_name,
    many,
    ratio_text,
    shape_text,
)

REDRAW_S = 0.2
"""Seconds between two drawings of the line, at least."""


@dataclass(slots=True)
class Picture:
    """A run's state from the messages received so far."""

    steps: dict[int, StepPlan] = field(default_factory=dict)
    values: tuple[float | None, ...] = ()
    """Newest counters of the running step, in the order of `COUNTERS`; empty before the first sample."""
    waiting: str = "starting"
    """Text shown before the first sample."""

    def counter(self, name: str) -> float | None:
        """Return a counter of the newest sample, or None if it has none. `name` is one of `COUNTERS`."""
        index = COUNTER_INDEX[name]
        return self.values[index] if index < len(self.values) else None


def plan_text(step: StepPlan | StepResult) -> str:
    """Return a step's name: path, layout, block size and batch."""
    return f"{step.path} {layout_name(step.layout)} {shape_text(step.block_bytes, step.batch)}"


def event_text(event: Event) -> str | None:
    """Return an event as one line, or None if it isn't shown."""
    if isinstance(event, RunStarted):
        paths = ", ".join(dict.fromkeys(step.path for step in event.steps))
        return f"{many(len(event.steps), 'step')} on {paths or 'no path'}"
    if isinstance(event, StepFinished):
        return _result_text(event.result)
    if isinstance(event, Tuned):
        words = " · kept" if event.chosen else ""
        return f"{event.path} {event.setting}={event.value}: {ratio_text(event.ratio, event.low, event.high)}{words}"
    if isinstance(event, Logged):
        return event.text if event.level == "info" else f"{event.level}: {event.text}"
    return None


def _result_text(result: StepResult) -> str:
    if result.status == "unavailable":
        return f"{result.path}: unavailable: {result.reason}"
    text = plan_text(result)
    if result.gb_per_s is not None:
        text += f": {interval_text(result.gb_per_s)} GB/s"
    if result.status != "ok":
        text += f": {result.status}" + (f": {result.reason}" if result.reason else "")
    return text + (": the bytes that arrived differ" if result.verified is False else "")


def line_text(picture: Picture, width: int) -> str:
    """Return the progress line: share done, time left, the running step's rate; its sizes only if they fit."""
    if not picture.values:
        return picture.waiting[:width]
    step = picture.steps.get(int(picture.counter("step") or 0))
    start = [done_text(picture.counter("fraction") or 0).rjust(5)]
    eta = picture.counter("eta_s")
    if eta is not None:
        start.append(f"{duration_text(eta)} left")
    end = _figures(picture, step)
    if step is None:
        return " · ".join((*start, *end))[:width]
    line = " · ".join((*start, plan_text(step), *end))
    return line if len(line) <= width else " · ".join((*start, f"{step.path} {layout_name(step.layout)}", *end))[:width]


def _figures(picture: Picture, step: StepPlan | None) -> list[str]:
    moved, busy, ratio = picture.counter("bytes"), picture.counter("busy_ns"), picture.counter("ratio")
    figures = [f"{figure(moved / busy)} GB/s"] if moved is not None and busy else []
    if ratio is not None and step is not None:
        first = next(other for other in picture.steps.values() if other.trial == step.trial)
        figures.append(f"{ratio_text(ratio)} {layout_name(first.layout)}")
    return figures


class Progress:
    """Draws a run's messages on stderr: a line that is redrawn if stderr is a terminal, otherwise plain lines."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.picture = Picture()
        self._live = sys.stderr is not None and sys.stderr.isatty()
        self._clock = clock
        self._drawn_at = -REDRAW_S
        self._shown = False
        self._said_reasons: set[str | None] = set()

    def waiting(self, text: str) -> None:
        """Show what the run waits for; has no effect after the first sample."""
        if text != self.picture.waiting and not self.picture.values:
            self.picture.waiting = text
            if not self._live:
                self.say(text)
        self._draw()

    def event(self, event: Event) -> None:
        """Show an event: on a terminal only warnings and errors of the log get a line of their own."""
        if isinstance(event, RunStarted):
            self.picture.steps = {step.step: step for step in event.steps}
            self.picture.waiting = "preparing memory and files"
        elif isinstance(event, StepStarted) and not self.picture.values and event.step in self.picture.steps:
            self.picture.waiting = f"warming up {plan_text(self.picture.steps[event.step])}"
        elif isinstance(event, StateChanged):
            self.clear()
        text = None if self._is_repeated(event) else event_text(event)
        loud = isinstance(event, Logged) and event.level != "info"
        if text is not None and (loud or not self._live):
            self.say(text, loud)
        self._draw()

    def _is_repeated(self, event: Event) -> bool:
        """True if an unavailable step's reason was already printed (a dozen steps may share one)."""
        if not isinstance(event, StepFinished) or event.result.status != "unavailable":
            return False
        repeated = event.result.reason in self._said_reasons
        self._said_reasons.add(event.result.reason)
        return repeated

    def sample(self, values: tuple[float | None, ...]) -> None:
        """Show the newest counters of the running step, in the order of `COUNTERS`."""
        self.picture.values = values
        self._draw()

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
        echo_own(f"\r{visible(line_text(self.picture, width))}\x1b[K", newline=False, err=True)
        self._shown, self._drawn_at = True, now
