"""A run's progress on stderr tells each comparison's first verdict once, and marks it as not final."""

from __future__ import annotations

import pytest

from kvdeck.app.cli.progress import Progress
from kvdeck.sessions.model.events import COUNTERS, Round, RunStarted
from kvdeck.sessions.model.records import StepPlan
from kvdeck.sessions.model.run_state import LogEntry

FIRST = StepPlan(0, 0, "HostToHost", "FullyContiguous", "UCX", None, None, 2 << 20, 16, 64, 1)
STEPS = (
    FIRST,
    StepPlan(1, 0, "HostToHost", "LayerSeparate { outer_contiguous: false }", "UCX", None, None, 2 << 20, 16, 64, 64),
)


def values(**known: float) -> tuple[float | None, ...]:
    return tuple(known.get(counter.name) for counter in COUNTERS)


def said(capsys: pytest.CaptureFixture[str], rounds: list[tuple[int, float, float, float]]) -> list[str]:
    """Lines after rounds of the second step, each given by its number and ratio, low and high."""
    progress = Progress("s")
    progress.take(LogEntry(0, RunStarted(1, 1.0, STEPS)))
    for seq, (number, ratio, low, high) in enumerate(rounds, 1):
        shown = values(step=1, round=number, bytes=1e9, busy_ns=1e9, ratio=ratio, ratio_low=low, ratio_high=high)
        progress.take(LogEntry(seq, Round(seq, 1, number, (1,), (1,), 2, shown)))
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("≈")]


def test_the_first_verdict_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, [(10, 1.5, 1.4, 1.6), (11, 1.5, 1.4, 1.6), (12, 1.7, 1.6, 1.8)])
    assert lines == [
        "≈ HostToHost: LayerSeparate takes 1.50× the time of FullyContiguous (95 % interval 1.40–1.60): slower, so far"
    ]


def test_too_few_rounds_and_wide_intervals_give_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, [(10, 1.5, 1.4, 1.6), (11, 1.1, 0.9, 1.3), (30, 1.1, 0.9, 1.3)]) == []


def test_a_first_layout_alone_has_no_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress("s")
    progress.take(LogEntry(0, RunStarted(1, 1.0, (FIRST,))))
    progress.take(LogEntry(1, Round(2, 0, 20, (1,), (1,), 2, values(step=0, round=20, bytes=1e9, busy_ns=1e9))))
    assert "≈" not in capsys.readouterr().err
