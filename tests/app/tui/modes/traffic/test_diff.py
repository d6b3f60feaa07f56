"""Two tests beside each other: where the congestion ratio changed."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kvdeck.app.tui.modes.traffic.diff import PatternChangeRow, change_text, pattern_changes
from kvdeck.sessions.analysis.compare_traffic import compare_traffic
from kvdeck.sessions.model.records import Interval, Session
from kvdeck.sessions.model.traffic import PatternResult
from tests.support.builders import traffic


def results(ratio: float) -> tuple[PatternResult, ...]:
    found = traffic.session("x", ratio).traffic
    assert found is not None
    return found.patterns


def changes(one: tuple[PatternResult, ...], other: tuple[PatternResult, ...]) -> tuple[PatternChangeRow, ...]:
    """The rows of two tests with these patterns."""
    a, b = with_patterns(one), with_patterns(other)
    assert a.traffic is not None
    assert b.traffic is not None
    return pattern_changes(compare_traffic(a, b), a.traffic, b.traffic)


def with_patterns(patterns: tuple[PatternResult, ...]) -> Session:
    session = traffic.session("x")
    assert session.traffic is not None
    return replace(session, traffic_result=replace(session.traffic, patterns=patterns))


def test_a_ratio_that_rose_is_named_with_its_change():
    rows = changes(results(1.1), results(1.42))
    assert [row.kind for row in rows] == ["same", "same", "same", "more", "same"]
    text = change_text(rows)
    assert text.startswith("The ratio changed in 1 of 5 patterns (1 more, 0 less), #3 most: 1.10 → 1.41, 1.29× (")


def test_the_change_back_is_the_inverse():
    more, less = (changes(results(a), results(b))[3].change for a, b in ((1.1, 1.42), (1.42, 1.1)))
    assert more is not None
    assert less is not None
    assert more.median == pytest.approx(1 / less.median)
    assert more.low == pytest.approx(1 / less.high)


def test_without_intervals_nothing_is_said_to_have_changed():
    blurred = tuple(replace(one, ratio=None if one.ratio is None else Interval(2.0, 2.0, 2.0)) for one in results(1.1))
    rows = changes(blurred, results(1.42))
    assert {row.kind for row in rows} == {"undecided"}
    assert change_text(rows) == "Undecided for 5 of 5: their intervals are too wide."


def test_patterns_that_are_not_the_same_are_not_compared():
    now = results(1.42)
    other = (replace(now[0], bytes=1), *now[1:4])
    rows = changes(other, now)
    assert [row.kind for row in rows] == ["other pattern", "same", "same", "same", "only B"]
    assert change_text(rows) == "The ratio changed in none of 3 patterns."
    assert change_text(changes((), now)) == "The tests have no pattern in common."
    assert change_text(()) == "The tests have no pattern in common."
