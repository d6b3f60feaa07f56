"""`kvdeck monitor --replay`: plays a telemetry session in the deck, or prints it in the format of live telemetry."""

from __future__ import annotations

import itertools
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, TypeVar

import click

from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.app.cli.standard_output import echo_json
from kvdeck.sessions.errors import SessionError

if TYPE_CHECKING:
    from kvdeck.engine.telemetry.recording import Mark, TelemetrySession
    from kvdeck.engine.telemetry.sample import Snapshot
    from kvdeck.sessions.store.telemetry.delta import Moment

Shown = TypeVar("Shown")
LONGEST_S = 2.0
"""Longest pause for a gap in a telemetry session, in seconds at speed 1."""


def replay(name: str, once: bool, as_json: bool, speed: float | None, seconds: float | None) -> int:
    """Play a telemetry session, and return the exit status.

    On a terminal without further options it plays in the deck's Monitor, otherwise as one line per sample.

    Args:
        once: Print the last sample only.
        speed: Factor over the recorded pace; 0: without pauses. None: 0 as JSON, otherwise 1.
        seconds: Length to play in seconds, from its start; None: all of it.

    Raises:
        KvdeckError: There is no such telemetry session, or it is empty.
    """
    from kvdeck.engine.client.client import home
    from kvdeck.engine.telemetry.recording import TelemetrySession

    recording = TelemetrySession.open(home(), name)
    if not (once or as_json) and speed is None and seconds is None and _on_a_terminal():
        from kvdeck.app.tui.launch import run_deck

        return run_deck(replay=name)
    end = None if seconds is None else recording.begin + seconds
    if once:
        return _last(recording, end, as_json)
    pace = (0.0 if as_json else 1.0) if speed is None else speed
    if as_json:
        shown = _print_json_lines(_paced(recording.mappings(end=end), itemgetter("t"), pace))
    else:
        shown = _print_lines(_paced(recording.moments(end=end), attrgetter("t"), pace), recording.marks)
    if not shown:
        raise _empty(name)
    return 0


def _on_a_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout, sys.__stderr__))


def _empty(name: str) -> SessionError:
    return SessionError(f"the telemetry session {name!r} has no samples", f"see `kvdeck session show {name}`")


def _last(recording: TelemetrySession, end: float | None, as_json: bool) -> int:
    from kvdeck.app.text.monitor_report import monitor_lines
    from kvdeck.engine.telemetry.sample import to_mapping

    snapshot = recording.at(recording.end if end is None else end)
    if snapshot is None:
        raise _empty(recording.name)
    if as_json:
        print_json(to_mapping(snapshot))
    else:
        print_lines(monitor_lines(snapshot, report_width()))
    return 0


def _paced(
    moments: Iterator[Shown],
    time_of: Callable[[Shown], float],
    speed: float,
    wait: Callable[[float], None] = time.sleep,
) -> Iterator[Shown]:
    """Yield the samples at the recorded intervals divided by `speed`; without pauses if `speed` is 0."""
    first = next(moments, None)
    if first is None:
        return
    due, before = time.monotonic(), time_of(first)
    for moment in itertools.chain((first,), moments):
        if speed:
            due += min(max(0.0, time_of(moment) - before), LONGEST_S) / speed
            before = time_of(moment)
            wait(max(0.0, due - time.monotonic()))
        yield moment


def _print_json_lines(moments: Iterator[Moment]) -> int:
    count = 0
    for moment in moments:
        echo_json(moment)
        count += 1
    return count


def _print_lines(moments: Iterator[Snapshot], marks: Sequence[Mark]) -> int:
    """Print one line per sample, with the annotations in between; return the number of samples."""
    from kvdeck.app.cli.monitor import clock, print_line

    left, count = deque(marks), 0

    def say_marks(until: float) -> None:
        while left and left[0].t < until:
            mark = left.popleft()
            click.echo(f"{clock(mark.t)} ── {mark.kind}: {mark.text}")

    for moment in moments:
        say_marks(moment.t)
        print_line(moment)
        count += 1
    say_marks(float("inf"))
    return count
