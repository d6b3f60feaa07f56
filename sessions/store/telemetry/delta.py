"""Lossless delta encoding of samples as lines: occasional full samples, only changes in between.

A sample (`Moment`) is the object that `kvdeck monitor --json` prints: `t`, and lists of flat rows (`sources`, `flows`,
…). Lines are `{"key": sample}`, or `{"t": …, "ns": …, LIST: …}`: an omitted list is unchanged; a list of rows replaces
it; a mapping gives `FIELD: [row, value, row, value, …]`. Ages (`moved_s`) of unlisted rows grow by `ns`.
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
    """Encodes samples as lines, each relative to the previous one."""

    def __init__(self) -> None:
        self._before: Moment | None = None

    @property
    def moment(self) -> Moment:
        """The sample of the last line."""
        assert self._before is not None
        return self._before

    def restart(self) -> None:
        """Make the next line a full sample."""
        self._before = None

    def line(self, raw: bytes) -> bytes:
        """Return the line, newline included, for a sample given as JSON.

        Raises:
            ValueError: It is not a sample.
        """
        moment = load_record(raw)
        check(moment)
        delta = None if self._before is None else _delta(self._before, moment)
        if delta is not None and self._before is not None:
            # A delta can't express every change (1 to 1.0, -0.0): then write the full sample.
            again = apply(self._before, delta)
            if orjson.dumps(again) == raw:
                self._before = again
                return orjson.dumps(delta, option=orjson.OPT_APPEND_NEWLINE)
        self._before = moment
        return _KEY + raw + b"}\n"


def check(moment: object) -> None:
    """Check that an object is a sample: a time, and lists of rows.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(moment, dict) or not isinstance(moment.get("t"), (int, float)):
        raise ValueError("a sample without a time")
    for name, rows in moment.items():
        if name != "t" and not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
            raise ValueError(f"{name!r} is not a list of rows")


def decode(line: bytes, before: Moment | None) -> Moment | None:
    """Return the sample of a line, given the previous sample; None for a line without one.

    Unchanged rows are the same objects as before.

    Raises:
        ValueError: The line is damaged, or the previous sample is missing.
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
            raise ValueError("a delta without a previous sample")
        return apply(before, data)
    except (TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"a damaged sample: {error}") from error


def time_of(line: bytes) -> float | None:
    """Return a line's Unix time in seconds; None if it has none."""
    try:
        data = load_record(line)
        t = data["key"]["t"] if "key" in data else data["t"]
    except (ValueError, TypeError, KeyError):
        return None
    return float(t) if isinstance(t, (int, float)) else None


def apply(before: Moment, delta: dict[str, Any]) -> Moment:
    """Return the sample after a delta.

    Raises:
        ValueError: The delta doesn't fit the previous sample.
    """
    if not isinstance(delta["t"], (int, float)):
        raise ValueError("a sample without a time")
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
                raise ValueError(f"a delta of {field!r} in a row without it")
            if index not in own:
                made[index] = dict(made[index])
                own.add(index)
            made[index][field] = value
    return made


def _older(age: float, grown: int) -> float:
    """Return the age in seconds, `grown` ns later, rounded exactly as the sampler does."""
    return (round(age * 1e9) + grown) / 1e9


def _delta(before: Moment, after: Moment) -> dict[str, Any] | None:
    """Return what changed; None if a full sample is needed."""
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
    """Return the most common growth of ages, in ns."""
    seen: Counter[int] = Counter()
    for name, rows in after.items():
        if name == "t":
            continue
        for old, new in zip(before[name], rows, strict=False):
            # Nearly all ages grow by the time between the samples: written once, it saves a number per row.
            a, b = old.get(AGE), new.get(AGE)
            if isinstance(a, float) and isinstance(b, float) and b > a:
                seen[round(b * 1e9) - round(a * 1e9)] += 1
    return seen.most_common(1)[0][0] if seen else 0


def _changes(before: list[Row], after: list[Row], grown: int) -> dict[str, list[Any]] | None:
    """Return the changed cells by field; None if the rows don't correspond."""
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
            # 1, 1.0 and True are equal, but not the same JSON.
            if was != value or type(was) is not type(value):
                changes.setdefault(field, []).extend((index, value))
    return changes
