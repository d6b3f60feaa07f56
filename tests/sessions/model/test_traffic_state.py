"""The fold of a traffic test: figures from visits, the congestion ratio's interval, stragglers, skew."""

from __future__ import annotations

import json

import pytest

from kvdeck.sessions.model import events
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.run_state import RunState, apply
from kvdeck.sessions.model.traffic import PatternPlan, ProcessPlace, RankPart, VisitPhase, VisitRecord
from kvdeck.sessions.model.traffic_state import TrafficState, congestion, skew_ns

PLANS = (
    PatternPlan(0, 3, "WRITE", "DRAM", 1, 5000, (4000, 1000, 0), (0, 0, 5000), ((0, 2, 4000), (1, 2, 1000))),
    PatternPlan(1, 3, "WRITE", "DRAM", 1, 0, (0, 0, 0), (0, 0, 0), ()),
)
PLACES = (ProcessPlace("ranks0-1", "", 0, 1), ProcessPlace("rank2", "far", 2, 2))


def visit(phase: VisitPhase, turn: int, *ends: tuple[int, int, int, int]) -> VisitRecord:
    """A visit of rank, start, done and arrival in ns."""
    sizes = PLANS[0].sent
    parts = tuple(RankPart(rank, sizes[rank], start, start, done, arrived) for rank, start, done, arrived in ends)
    return VisitRecord(0, phase, turn, 1, parts)


def folded(*told: events.Event) -> TrafficState:
    run = RunState("x")
    planned = events.TrafficPlanned(0, "sequential", PLANS, PLACES, 6, 0, 6, True, 8192)
    for event in (planned, *told):
        read = events.decode_event(encode_line(event))
        assert read == event
        run = apply(run, read)
    assert run.traffic is not None
    assert run.fraction == run.traffic.fraction
    return run.traffic


def test_figures_come_from_the_visits_as_they_are_read_from_the_log() -> None:
    alone = tuple(visit("alone", turn, (0, 0, 10, 1000 + turn), (1, 0, 10, 20)) for turn in range(6))
    together = tuple(visit("together", turn, (0, 0, 400, 2000 + turn), (1, 0, 10, 4000)) for turn in range(6))
    state = folded(
        events.TrafficPrepared(0, 2, 7, 0.5),
        events.PatternBegun(0, 0, "together", 0, 5),
        events.PatternsMoved(0, alone + together[:2]),
        events.PatternsMoved(0, together[2:]),
        events.PatternVerified(0, 0, 5000),
        events.PatternVerified(0, 1, 0, ("pattern 1: wrong",)),
    )
    first, empty = state.rows
    assert first.together_ms is not None
    assert first.together_ms.median == 4e-3
    assert first.initiator_ms == pytest.approx(4e-4)
    assert first.ratio is not None
    assert first.ratio.median == pytest.approx(4, rel=0.01)
    assert first.straggler is not None
    assert (first.straggler.rank, first.straggler.times, first.straggler.of) == (1, 6, 6)
    assert first.gb_per_s == 5000 / 4000
    assert (first.verified, empty.verified, state.verified) == (True, False, False)
    assert (empty.together_ms, empty.ratio, empty.gb_per_s, empty.straggler) == (None,) * 4
    assert [(one.bytes, one.host, one.last) for one in state.rank_rows] == [
        (24000, "", 0),
        (6000, "", 6),
        (0, "far", 0),
    ]
    assert state.rank_rows[1].gb_per_s == 1000 / 4000
    assert (state.fraction, state.current, len(state.visits)) == (1.0, (), 12)
    assert state.result.descriptors == 7
    assert state.result.hosts == ("far",)


def test_a_pattern_alone_is_current_until_its_last_visit() -> None:
    alone = tuple(visit("alone", turn, (0, 0, 10, 1000), (1, 0, 10, 20)) for turn in range(6))
    begun = events.PatternBegun(0, 0, "alone", 0, 5)
    assert [one.pattern for one in folded(begun, events.PatternsMoved(0, alone[:5])).current] == [0]
    assert folded(begun, events.PatternsMoved(0, alone[:5]), events.PatternsMoved(0, alone[5:])).current == ()


def test_a_ratio_has_no_interval_below_six_values() -> None:
    few = congestion([1000.0] * 5, [2000.0, 2100.0] * 3)
    assert few is not None
    assert (few.median, few.known) == (2.05, False)
    assert congestion([], [1.0]) is None
    many = congestion([1000.0, 1010.0, 990.0, 1005.0, 995.0, 1001.0], [2000.0, 2100.0] * 3)
    assert many is not None
    assert many.known


def test_an_arrival_before_the_initiators_completion_is_the_end() -> None:
    assert visit("alone", 0, (0, 0, 900_000, 500_000)).latency_ns == 500_000


def test_skew_is_between_processes() -> None:
    assert skew_ns(visit("alone", 0, (0, 0, 1, 1), (1, 500, 501, 501), (2, 30, 40, 40)), PLACES) == 30
    assert skew_ns(visit("alone", 0, (0, 0, 1, 1), (1, 500, 501, 501)), PLACES) is None


def test_a_log_from_before_with_storage_phases_is_read() -> None:
    moved = events.PatternsMoved(0, (visit("together", 0, (0, 0, 10, 1000)),))
    line = json.loads(encode_line(moved))
    line["visits"][0]["storage"] = [[0, "read", 4000, 0, 2_000_000]]
    assert events.decode_event(json.dumps(line).encode()) == moved


def test_what_names_no_pattern_changes_nothing() -> None:
    state = folded(events.PatternVerified(0, 9, 1), events.PatternsMoved(0, (VisitRecord(9, "alone", 0, 1, ()),)))
    assert state.visits == ()
