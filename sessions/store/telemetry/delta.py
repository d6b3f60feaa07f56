"""Moments as lines: now and then a whole one, between them only what changed. What is read equals what was written.

A moment is the object that `kvdeck monitor --json` prints: `t`, and lists of flat rows (`sources`, `flows`, …).
Lines are `{"key": moment}`, or `{"t": …, "ns": …, LIST: …}`: a list that is left out stays; a list of rows replaces
it; a mapping gives `FIELD: [row, value, row, value, …]`. Ages (`moved_s`) of rows that are not named grow by `ns`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import orjson

from kvdeck.sessions.host.documents import load_record

Moment = dict[str, Any]
Row = dict[str, Any]
AGE = "moved_s"
_KEY = b'{"key":'


class Encoder:
    """Turns moments into lines, each drawn from the one before."""

    def __init__(self) -> None:
        self._before: Moment | None = None

    @property
    def moment(self) -> Moment:
        """The moment that the last line was made of."""
        assert self._before is not None
        return self._before

    def restart(self) -> None:
        """Let the next line be a whole moment."""
        self._before = None

    def line(self, raw: bytes) -> bytes:
        """The line, newline included, for a moment given as JSON.

        Raises:
            ValueError: It is no moment.
        """
        moment = load_record(raw)
        check(moment)
        delta = None if self._before is None else _delta(self._before, moment)
        if delta is not None and self._before is not None:
            # Whatever a delta can't say (1 and 1.0, -0.0) is seen here, and then the moment is written whole.
            again = apply(self._before, delta)
            if orjson.dumps(again) == raw:
                self._before = again
                return orjson.dumps(delta, option=orjson.OPT_APPEND_NEWLINE)
        self._before = moment
        return _KEY + raw + b"}\n"


def check(moment: object) -> None:
    """Whether it is a moment: a time, and lists of rows.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(moment, dict) or not isinstance(moment.get("t"), (int, float)):
        raise ValueError("a moment without its time")
    for name, rows in moment.items():
        if name != "t" and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise ValueError(f"{name!r} is no list of rows")


def decode(line: bytes, before: Moment | None) -> Moment | None:
    """The moment that a line and the moment before it give; null for a line that holds none.

    Rows that did not change are the same objects as before.

    Raises:
        ValueError: The line is damaged, or the moment before it is missing.
    """
    try:
        data = load_record(line)
        if not isinstance(data, dict) or not data.keys() & {"key", "t"}:
            return None
        if "key" in data:
            check(data["key"])
            moment: Moment = data["key"]
            return moment
        if before is None:
            raise ValueError("a change without the moment that it changes")
        return apply(before, data)
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"a damaged moment: {error}") from error


def time_of(line: bytes) -> float | None:
    """A line's time; null where it has none."""
    try:
        data = load_record(line)
        t = data["key"]["t"] if "key" in data else data["t"]
    except (ValueError, TypeError, KeyError):
        return None
    return float(t) if isinstance(t, (int, float)) else None


def apply(before: Moment, delta: dict[str, Any]) -> Moment:
    """The moment after a delta.

    Raises:
        ValueError: It does not fit the moment before.
    """
    if not isinstance(delta["t"], (int, float)):
        raise ValueError("a moment without its time")
    grown = delta.get("ns", 0)
    moment: Moment = {"t": delta["t"]}
    for name, rows in before.items():
        if name != "t":
            moment[name] = _changed(rows, delta.get(name), grown)
    return moment


def _changed(rows: list[Row], change: Any, grown: int) -> list[Row]:
    if isinstance(change, list):
        if not all(isinstance(row, dict) for row in change):
            raise ValueError("a list without rows")
        return change
    if change is None and not grown:
        return rows
    made = list(rows)
    own: set[int] = set()
    if grown:
        for index, row in enumerate(rows):
            age = row.get(AGE)
            if age is not None:
                made[index] = {**row, AGE: _older(age, grown)}
                own.add(index)
    for field, cells in (change or {}).items():
        for index, value in zip(cells[::2], cells[1::2], strict=True):
            if index < 0 or field not in made[index]:
                raise ValueError(f"a change of {field!r} in a row that has none")
            if index not in own:
                made[index] = dict(made[index])
                own.add(index)
            made[index][field] = value
    return made


def _older(age: float, grown: int) -> float:
    """The age in seconds, `grown` nanoseconds later, exactly as the sampler would say it."""
    return (round(age * 1e9) + grown) / 1e9


def _delta(before: Moment, after: Moment) -> dict[str, Any] | None:
    """What changed; null where it is as well written whole."""
    if before.keys() != after.keys():
        return None
    delta: dict[str, Any] = {"t": after["t"]}
    grown = _growth(before, after)
    if grown:
        delta["ns"] = grown
    for name, rows in after.items():
        if name == "t":
            continue
        change = _changes(before[name], rows, grown)
        if change:
            delta[name] = change
        elif change is None:
            delta[name] = rows
    return delta


def _growth(before: Moment, after: Moment) -> int:
    """Nanoseconds by which most ages grew."""
    seen: Counter[int] = Counter()
    for name, rows in after.items():
        if name == "t":
            continue
        for old, new in zip(before[name], rows, strict=False):
            a, b = old.get(AGE), new.get(AGE)
            if isinstance(a, float) and isinstance(b, float) and b > a:
                seen[round(b * 1e9) - round(a * 1e9)] += 1
    return seen.most_common(1)[0][0] if seen else 0


def _changes(before: list[Row], after: list[Row], grown: int) -> dict[str, list[Any]] | None:
    """Cells that changed, by field; null where the rows are others."""
    if len(before) != len(after):
        return None
    changes: dict[str, list[Any]] = {}
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if old == new and (not grown or old.get(AGE) is None):
            continue
        if old.keys() != new.keys():
            return None
        for field, value in new.items():
            was = old[field]
            if field == AGE and was is not None and grown:
                was = _older(was, grown)
            if was != value or type(was) is not type(value):
                changes.setdefault(field, []).extend((index, value))
    return changes
