"""The answer in words, for each state of a test."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.app.tui.modes.traffic.figures import PatternRow, Stretch, TrafficView, answer, beside
from kvdeck.app.tui.modes.traffic.view import RunView, config_view
from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern
from kvdeck.sessions.model.records import Interval
from tests.support.builders import traffic


def row(
    number: int, ratio: float | None = 1.0, low: float | None = 0.99, high: float = 1.01, last: int | None = None
) -> PatternRow:
    interval = None if ratio is None or low is None else Interval(ratio, low, high)
    return PatternRow(number, 1 << 20, 1.0, 1.0, ratio, interval, 1.0, last)


def said(*rows: PatternRow, **fields: object) -> str:
    return answer(replace(TrafficView(patterns=rows, state="done"), **fields)).text  # type: ignore[arg-type]


def test_patterns_that_collide_are_counted_and_the_worst_is_named_with_those_beside_it():
    stretches = (
        Stretch(0, 1, 0.0, 5.0),
        Stretch(4, 2, 4.0, 9.0),
        Stretch(0, 0, 5.0, 6.0),
        Stretch(0, 0, 9.0, 12.0, "sleeps"),
    )
    text = said(
        row(0),
        row(1, 1.1, 1.06, 1.2, 3),
        row(2, 1.42, 1.37, 1.47, 3),
        stretches=stretches,
        hosts=("",) * 3 + ("hostB",),
    )
    assert text == (
        "Patterns collide: 2 of 3 take longer than alone, #2 most: 1.42× (1.37–1.47) beside #0, #1. "
        "Last in 2 of 2 patterns: rank 3, hostB."
    )
    assert beside(stretches, 0) == (2,)
    assert beside(stretches, 7) == ()


def test_without_a_collision_it_says_so_only_if_every_interval_is_narrow():
    assert said(row(0), row(1)) == "No collision: none of 2 patterns takes longer than alone."
    wide = row(1, 1.2, 0.9, 1.6)
    assert said(row(0), wide).startswith("Can't tell whether patterns collide: 1 of 2 have no interval narrow enough")
    assert "≈1.20×" in said(row(0), wide)
    assert "Can't tell for 1." in said(row(0, 1.3, 1.2, 1.4), wide)
    assert said(row(0), row(1, None)).startswith("Can't tell")


def test_a_ratio_without_interval_is_no_collision():
    assert said(row(0, 1.9, None)).startswith("Can't tell")


@pytest.mark.parametrize("state", ["cancelled", "crashed", "interrupted"])
def test_a_test_that_was_cut_short_says_it(state: str):
    assert said(row(0), state=state).startswith(f"{state.capitalize()}: No collision")


def test_an_error_stands_before_all_else():
    found = answer(TrafficView(patterns=(row(0),), state="failed", error="rank 3 is lost", fix="see its log"))
    assert (found.text, found.tone) == ("rank 3 is lost · fix: see its log", "bad")


def test_wrong_bytes_are_not_an_answer():
    found = answer(TrafficView(patterns=(row(0),), state="done", verified=False, error="r0 → r1: byte 7 differs"))
    assert found.tone == "bad"
    assert "WRONG BYTES" in found.note


def test_patterns_of_a_file_are_not_measured_yet():
    config = TrafficConfig((TrafficPattern(traffic.matrix(0)),))
    assert answer(config_view(config, "a.yaml")).text == "1 pattern, 8.5 GiB: not measured yet. r runs."
    assert answer(config_view(TrafficConfig(()), "")).text.startswith("No patterns yet")


def test_a_run_tells_what_it_does_and_marks_live_ratios():
    texts = [answer(RunView().make(traffic.state(upto))).text for upto in ("planned", "alone", "together", "done")]
    assert texts[0] == "Preparing: 3 of 5 patterns, 60 descriptors."
    assert texts[1] == "Measuring pattern 2 alone."
    assert texts[2].startswith("Measuring all in sequence: iteration 5 of 8, pattern 0.")
    assert "≈1.4" in texts[2]
    assert texts[3].startswith("Patterns collide: 1 of 5 takes longer than alone, #3 most: 1.4")


def test_the_row_of_a_pattern_is_made_anew_only_if_it_was_measured():
    views = RunView()
    first, second = views.make(traffic.state("together")), views.make(traffic.state("together"))
    assert first.patterns == second.patterns
    run = traffic.state("together")
    assert all(one is other for one, other in zip(views.make(run).patterns, views.make(run).patterns, strict=True))


def test_figures_add_up_between_panes():
    view = RunView().make(traffic.state())
    for pattern, ranks in zip(view.patterns, view.ranks, strict=True):
        assert len(ranks) == len(traffic.PLANS[pattern.number].initiators)
        assert sum(rank.straggler for rank in ranks) == 1
        assert {rank.host for rank in ranks} == {""}
    assert view.hosts[8] == "hostb"
    assert {part.rank for part in view.stretches} == set(range(8))
    assert [part.pattern for part in view.stretches if part.doing == "sleeps"] == [1] * 8
    assert min(part.start_ms for part in view.stretches) == 0.0
