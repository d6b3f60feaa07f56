"""Comparison of two traffic tests by pattern: where latency and the congestion ratio changed."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.sessions.analysis.comparability import differing_facts
from kvdeck.sessions.model.measures import Interval
from kvdeck.sessions.model.records import Session, Verdict, is_same
from kvdeck.sessions.model.traffic import UNKNOWN_TRAFFIC, PatternResult, TrafficResult
from kvdeck.sessions.stats import independent_ratio
from kvdeck.sessions.units import exact_size_text, many


@dataclass(frozen=True, slots=True)
class PatternChange:
    """One pattern in both tests. Changes are of times, B over A: below 1, B is better."""

    pattern: int
    a: PatternResult
    b: PatternResult
    latency: Interval | None
    """Change of the latency in sequence; equal bounds without an interval. Null if a side has none."""
    ratio: Interval | None
    """Change of the congestion ratio, likewise."""
    verdict: Verdict | None
    """Of the congestion ratio; null without a change."""


@dataclass(frozen=True, slots=True)
class TrafficDiff:
    """Comparison of two traffic tests."""

    a: str
    b: str
    differences: tuple[str, ...]
    """Why the two can't be compared directly."""
    rows: tuple[PatternChange, ...]
    """Patterns that move the same bytes in the same way in both."""
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]


def compare_traffic(a: Session, b: Session) -> TrafficDiff:
    """Compare two traffic tests, pattern by pattern.

    Args:
        a: A session with a traffic test.
        b: Another one.
    """
    mine, theirs = a.traffic or TrafficResult("sequential", 0, 0), b.traffic or TrafficResult("sequential", 0, 0)
    left = {one.pattern: one for one in mine.patterns}
    right = {one.pattern: one for one in theirs.patterns}
    both = [number for number in left if number in right and _same(left[number], right[number])]
    said = [*differing_facts(a, b), *_setup(mine, theirs)]
    said += [
        f"pattern {number} is {_work(left[number])} in A and {_work(right[number])} in B"
        for number in left
        if number in right and number not in both
    ]
    return TrafficDiff(
        a.name,
        b.name,
        tuple(said),
        tuple(_row(left[number], right[number]) for number in both),
        tuple(number for number in left if number not in right),
        tuple(number for number in right if number not in left),
    )


def _same(a: PatternResult, b: PatternResult) -> bool:
    if UNKNOWN_TRAFFIC not in (a.operation, b.operation):
        how = (a.operation, a.memory, a.shards) == (b.operation, b.memory, b.shards)
    else:
        how = True
    return how and (a.bytes, a.senders) == (b.bytes, b.senders)


def _work(one: PatternResult) -> str:
    shards = "" if one.shards == 1 else f" in {one.shards} shards"
    return f"a {one.operation} of {exact_size_text(one.bytes)} by {many(one.senders, 'sender')}{shards}, {one.memory}"


def _setup(a: TrafficResult, b: TrafficResult) -> list[str]:
    pairs = (
        ("ranks", a.ranks, b.ranks),
        ("processes", a.processes, b.processes),
        ("other hosts", ", ".join(a.hosts) or "none", ", ".join(b.hosts) or "none"),
        ("mode", a.mode, b.mode),
    )
    known = pairs if a.processes and b.processes else ()  # NIXL's file doesn't say
    return [f"{name}: {left} in A, {right} in B" for name, left, right in known if left != right]


def _row(a: PatternResult, b: PatternResult) -> PatternChange:
    ratio = change(a.ratio, b.ratio)
    verdict = None if ratio is None else judged(ratio)
    return PatternChange(a.pattern, a, b, change(a.together_ms, b.together_ms), ratio, verdict)


def change(a: Interval | None, b: Interval | None) -> Interval | None:
    """Return B over A; without both intervals, its bounds are equal."""
    if a is None or b is None or min(a.median, b.median) <= 0:
        return None
    if a.known and b.known and (found := independent_ratio(a, b)) is not None:
        return found
    ratio = b.median / a.median
    return Interval(ratio, ratio, ratio)


def judged(ratio: Interval) -> Verdict:
    """Return the verdict on a change of times."""
    if not ratio.known:
        return "undecided"
    if ratio.high < 1:
        return "faster"
    if ratio.low > 1:
        return "slower"
    return "no difference" if is_same(ratio.low, ratio.high) else "undecided"


def grown(diff: TrafficDiff, percent: float) -> list[PatternChange]:
    """Return patterns whose latency or congestion grew by over `percent`, with the whole interval above 1."""

    def worse(found: Interval | None) -> bool:
        return found is not None and found.known and found.median > 1 + percent / 100 and found.low > 1

    return [row for row in diff.rows if worse(row.latency) or worse(row.ratio)]
