"""Marks on the time line: what an operator noted, thresholds that were crossed, sources that came and went."""

from __future__ import annotations

from bisect import bisect_right

from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.sessions.store.telemetry.annotations import Mark

MOST = 500
TONES = {"note": "key", "threshold": "warn", "gap": "warn", "thinned": "warn", "bad": "bad", "look": "warn"}
_BAD = ("stale", "unreachable")


class Marks:
    """The newest marks, in order of time."""

    def __init__(self, marks: tuple[Mark, ...] = ()) -> None:
        self._marks = list(marks)

    def add(self, mark: Mark) -> None:
        """Keep one more; beyond `MOST` the oldest goes."""
        place = bisect_right(self._marks, mark.t, key=lambda known: known.t)
        self._marks.insert(place, mark)
        del self._marks[:-MOST]

    def until(self, t: float) -> tuple[Mark, ...]:
        """Those at or before a time."""
        return tuple(self._marks[: bisect_right(self._marks, t, key=lambda known: known.t)])


def happened(before: Snapshot, after: Snapshot) -> list[Mark]:
    """What is worth a line between two moments: a source that fell silent, came back or was reset, a new finding."""
    found: list[Mark] = []
    states = {source.name: source.state for source in before.sources}
    for source in after.sources:
        was = states.get(source.name)
        if was is None or was == source.state:
            continue
        if source.state in _BAD and was not in _BAD:
            found.append(Mark(after.t, f"{source.name} is {source.state}: {source.reason}", "bad"))
        elif was in _BAD and source.state not in _BAD:
            found.append(Mark(after.t, f"{source.name} answers again", "source"))
        elif source.state == "reset":
            found.append(Mark(after.t, f"{source.name}: {source.reason}", "source"))
    looked = {check.id for check in before.checks if check.verdict == "look"}
    for check in after.checks:
        if check.verdict == "look" and check.id not in looked and before.sources:
            found.append(Mark(after.t, check.evidence, "look"))
    return found
