"""A traffic test made up event by event, the same every time: what the engine would send of it."""

from __future__ import annotations

import random
from collections.abc import Iterator

from kvdeck.app.tui.state import EngineState
from kvdeck.engine.protocol import RunInfo
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.sessions.model.events import (
    Event,
    PatternBegun,
    PatternsMoved,
    PatternVerified,
    RunStarted,
    StateChanged,
    TrafficPlanned,
    TrafficPrepared,
)
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.run_state import RunState, apply
from kvdeck.sessions.model.traffic import TRAFFIC, PatternPlan, ProcessPlace, RankPart, VisitRecord

NAME = "20260101-120000-traffic-16ranks"
RANKS = 16
MB, GB = 1 << 20, 1 << 30
ISOLATION, ITERATIONS = 12, 8
SLOW = 3
"""The pattern that takes 1.42 times as long together, while pattern 2 moves."""
LATE = 7
"""The rank that is always last."""
SLEEP_S = 0.004


def matrix(number: int) -> Matrix:
    """Return a pattern's matrix: ranks 0 to 7 send, each to two of 8 to 15; odd patterns send half and less."""
    rows = [[0] * RANKS for _ in range(RANKS)]
    for source in range(4, 8) if number == SLOW else range(4) if number == 2 else range(8):
        for to in (8 + source % 8, 8 + (source + 1 + number) % 8):
            rows[source][to] += GB // (1 + number) if source < 4 else 64 * MB
    return Matrix(tuple(map(tuple, rows)))


def large(ranks: int = 256) -> Matrix:
    """Return a matrix of many ranks: the first half sends to the other one, each to eight, more the further down."""
    dice = random.Random(4)
    half = ranks // 2
    rows = [[0] * ranks for _ in range(ranks)]
    for source in range(half):
        for step in range(8):
            rows[source][half + (source * 2 + step) % half] = MB << dice.randrange(1 + source * 8 // half)
    return Matrix(tuple(map(tuple, rows)))


def plan(number: int) -> PatternPlan:
    of = matrix(number)
    cells = tuple((a, b, size) for a, row in enumerate(of.rows) for b, size in enumerate(row) if size)
    return PatternPlan(number, RANKS, "WRITE", "DRAM", 1, of.total, of.sent, of.received, cells,
                       SLEEP_S if number == 1 else 0.0)  # fmt: skip


PLANS = tuple(map(plan, range(5)))
BIGGEST = max(PLANS, key=lambda one: one.bytes)


def visit(number: int, phase: str, iteration: int, start: int, factor: float = 1.0) -> VisitRecord:
    """Return a visit: 100 GB/s a rank, a little slower for the late one, and swinging by a percent."""
    parts = []
    for rank in PLANS[number].initiators:
        slower = 1.12 if rank == LATE else 1.0
        swing = 1 + 0.01 * ((iteration * 7 + rank * 3) % 5 - 2) / 2
        size = PLANS[number].sent[rank]
        took = round((size / 100 + 100_000) * slower * swing * factor)
        begin = start + rank * 3_000
        parts.append(RankPart(rank, size, begin, begin + 40_000, begin + took - 9_000, begin + took))
    return VisitRecord(number, "alone" if phase == "alone" else "together", iteration, 1, tuple(parts))


def events(upto: str = "done", ratio: float = 1.42) -> Iterator[Event]:
    """Yield the events of a test, up to `planned`, `alone`, `together` (half way), or `done`."""
    t = 1_000_000_000
    yield RunStarted(t, 1_767_268_800.0, ())
    places = (ProcessPlace("a", "", 0, 7), ProcessPlace("b", "hostb", 8, 15))
    yield TrafficPlanned(t, "sequential", PLANS, places, ITERATIONS, 2, ISOLATION, True, 12 * GB)
    yield TrafficPrepared(t, 3, 60, 0.2)
    if upto == "planned":
        return
    yield TrafficPrepared(t, 5, 90, 0.31)
    for number in range(len(PLANS)):
        yield PatternBegun(t, number, "alone", 0, t)
        visits = [visit(number, "alone", i, t + i * 100_000_000) for i in range(ISOLATION)]
        if upto == "alone" and number == 2:
            yield PatternsMoved(t, tuple(visits[:-1]))
            return
        yield PatternsMoved(t, tuple(visits))
    for iteration in range(ITERATIONS // 2 if upto == "together" else ITERATIONS):
        t += 1_000_000_000
        for number, found in enumerate(sequence(iteration, t, ratio)):
            yield PatternBegun(t, number, "together", iteration, found.start)
            yield PatternsMoved(t, (found,))
    if upto == "together":
        yield PatternBegun(t, 0, "together", ITERATIONS // 2, t)
        return
    for one in PLANS:
        yield PatternVerified(t, one.pattern, one.bytes)
    yield StateChanged(t, 1_767_268_830.0, "done")


def sequence(iteration: int, t: int, ratio: float) -> Iterator[VisitRecord]:
    """Yield a sequence's visits; patterns 2 and 3 have other senders, and overlap."""
    free = t
    for number in range(len(PLANS)):
        begin = free + round(SLEEP_S * 1e9) * (number == 1)
        found = visit(number, "together", iteration, begin, ratio if number == SLOW else 1.0)
        yield found
        free = free if number == 2 else max(free, found.end)


def state(upto: str = "done", ratio: float = 1.42, name: str = NAME) -> RunState:
    """Return the folded state of a test."""
    found = RunState(name)
    for event in events(upto, ratio):
        found = apply(found, event)
    return found


def engine(upto: str = "done", ratio: float = 1.42) -> EngineState:
    """Return the engine that runs a test."""
    run = state(upto, ratio)
    info = RunInfo(run.session, run.state, 1_767_268_790.0, kind=TRAFFIC)
    return EngineState("connected", "", 4242, 0, (info,), run)


def session(name: str = NAME, ratio: float = 1.42) -> Session:
    """Return a stored test."""
    traffic = state("done", ratio).traffic
    assert traffic is not None
    return Session(name, "done", 1_767_268_800.0, kind="traffic", traffic_result=traffic.result)
