"""`kvdeck monitor --replay`: a recording through the same printing as what is live."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click
import orjson

from kvdeck.app.verbs.printing import print_json, print_lines, report_width
from kvdeck.sessions.errors import SessionError

if TYPE_CHECKING:
    from kvdeck.engine.watch.recording import Mark, Recording
    from kvdeck.sessions.watched.delta import Moment

LONGEST_S = 2.0
"""A gap in a recording is waited for no longer than this."""


def replay(name: str, once: bool, as_json: bool, speed: float | None, seconds: float | None) -> int:
    """Play a recording: a line a moment, or its last moment.

    Args:
        speed: Times as fast as it was; 0: without waiting. Null: without waiting as JSON, else as it was.
        seconds: How much of the recording, from its beginning; null: all of it.

    Raises:
        KvdeckError: There is no such recording, or it holds nothing.
    """
    from kvdeck.engine.client import home
    from kvdeck.engine.watch.recording import Recording

    recording = Recording.open(home(), name)
    end = None if seconds is None else recording.begin + seconds
    moments = recording.mappings(end=end)
    if once:
        return _last(recording, end, as_json)
    pace = (0.0 if as_json else 1.0) if speed is None else speed
    paced = _paced(moments, pace)
    shown = _print_json_lines(paced) if as_json else _print_lines(paced, recording.marks)
    if not shown:
        raise _empty(name)
    return 0


def _empty(name: str) -> SessionError:
    return SessionError(f"the recording {name!r} holds no moment", "`kvdeck session show` says what became of it")


def _last(recording: Recording, end: float | None, as_json: bool) -> int:
    from kvdeck.engine.watch.report import monitor_lines
    from kvdeck.engine.watch.snapshot import to_mapping

    snapshot = recording.at(recording.end if end is None else end)
    if snapshot is None:
        raise _empty(recording.name)
    if as_json:
        print_json(to_mapping(snapshot))
    else:
        print_lines(monitor_lines(snapshot, report_width()))
    return 0


def _paced(moments: Iterator[Moment], speed: float, wait: Callable[[float], None] = time.sleep) -> Iterator[Moment]:
    """The moments, each at its time after the one before, so much faster than it was."""
    first = next(moments, None)
    if first is None:
        return
    due, before = time.monotonic(), first["t"]
    for moment in itertools.chain((first,), moments):
        if speed:
            due += min(max(0.0, moment["t"] - before), LONGEST_S) / speed
            before = moment["t"]
            wait(max(0.0, due - time.monotonic()))
        yield moment


def _print_json_lines(moments: Iterator[Moment]) -> int:
    count = 0
    for moment in moments:
        click.echo(orjson.dumps(moment).decode())
        count += 1
    return count


def _print_lines(moments: Iterator[Moment], marks: Sequence[Mark]) -> int:
    """A line a moment, with the marks between them; how many moments."""
    from kvdeck.app.verbs.monitor import clock, print_line
    from kvdeck.engine.watch.snapshot import from_mapping

    left, count = deque(marks), 0

    def say_marks(until: float) -> None:
        while left and left[0].t < until:
            mark = left.popleft()
            click.echo(f"{clock(mark.t)} ── {mark.kind}: {mark.text}")

    for moment in moments:
        say_marks(moment["t"])
        print_line(from_mapping(moment))
        count += 1
    say_marks(float("inf"))
    return count
