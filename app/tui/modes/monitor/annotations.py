"""Annotations of the time line: operators' notes, alerts, and changes of the sources' states."""

from __future__ import annotations

from bisect import bisect_right

from msgspec.structs import replace

from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark

MOST = 500
TONES = {"note": "key", "threshold": "warn", "gap": "warn", "thinned": "warn", "bad": "bad", "warning": "warn"}
TONES["look"] = TONES["warning"]  # the kind of a warning in recordings of kvdeck 0.1
_BAD = ("stale", "unreachable")


class Marks:
    """The newest `MOST` annotations, ordered by time."""

    def __init__(self, marks: tuple[Mark, ...] = ()) -> None:
        self._marks = list(marks)

    def add(self, mark: Mark) -> None:
        """Insert an annotation by time; drop the oldest beyond `MOST`."""
        place = bisect_right(self._marks, mark.t, key=lambda known: known.t)
        self._marks.insert(place, mark)
        del self._marks[:-MOST]

    def shift(self, seconds: float) -> None:
        """Move all annotations in time, because the clock was set."""
        self._marks = [replace(mark, t=mark.t + seconds) for mark in self._marks]

    def until(self, t: float) -> tuple[Mark, ...]:
        """Return the annotations at or before Unix time `t`."""
        return tuple(self._marks[: bisect_right(self._marks, t, key=lambda known: known.t)])


def happened(before: Snapshot, after: Snapshot) -> list[Mark]:
    """Return annotations for what changed between two samples: sources lost, back or reset, and new warnings."""
    found: list[Mark] = []
    states = {source.name: source.state for source in before.sources}
    for source in after.sources:
        was = states.get(source.name)
        if was is None or was == source.state:
            continue
        if source.state in _BAD and was not in _BAD:
            found.append(Mark(after.t, f"{source.name} is {source.state}: {source.reason}", "bad"))
        elif was in _BAD and source.state not in _BAD:
            found.append(Mark(after.t, f"{source.name} is back", "source"))
        elif source.state == "reset":
            found.append(Mark(after.t, f"{source.name}: {source.reason}", "source"))
    looked = {check.id for check in before.checks if check.verdict == "warning"}
    for check in after.checks:
        if check.verdict == "warning" and check.id not in looked and before.sources:
            found.append(Mark(after.t, check.evidence, "warning"))
    return found
