"""The time line: what a column says, and that nothing that moved is left out."""

from __future__ import annotations

from kvdeck.app.tui.modes.traffic.figures import Stretch
from kvdeck.app.tui.modes.traffic.timeline_pane import lane_text, timeline_rows
from kvdeck.app.tui.modes.traffic.times_pane import strip, time_rows


def lane(*stretches: Stretch, end_ms: float = 10.0, pattern: int | None = None) -> str:
    return "".join(text for text, _ in lane_text(stretches, 20, end_ms, pattern))


def test_a_rank_waits_sleeps_and_moves():
    text = lane(Stretch(0, 0, 0.0, 2.0, "sleeps"), Stretch(0, 0, 2.0, 5.0), Stretch(0, 1, 8.0, 10.0), pattern=1)
    assert text == "░" * 4 + "▓" * 6 + "▁" * 6 + "█" * 4


def test_a_movement_shorter_than_a_column_has_one_all_the_same():
    assert lane(Stretch(0, 0, 3.0, 3.0001)).count("▓") == 1
    assert lane(Stretch(0, 0, 9.9999, 10.0)) == "▁" * 19 + "▓"


def test_each_sender_has_a_row_of_the_width():
    rows = timeline_rows([Stretch(11, 0, 0.0, 1.0), Stretch(2, 0, 0.5, 4.0)], 40)
    texts = ["".join(text for text, _ in row) for row in rows]
    assert [text.split()[0] for text in texts] == ["r2", "r11"]
    assert {len(text) for text in texts} == {39}


def test_times_stand_on_one_log_scale():
    assert strip([1e6, 1e8], 1e6, 1e8, 11, ascii=False) == "∙         ∙"
    assert strip([1e7] * 9 + [1e6], 1e6, 1e8, 11, ascii=True) == ".    @     "
    assert strip([5.0, 5.0], 5.0, 5.0, 4, ascii=False) == "█   "


def test_times_that_are_missing_are_a_dash():
    rows = time_rows((), (2e6, 3e6), 60, ascii=False)
    texts = ["".join(text for text, _ in row) for row in rows]
    assert texts[0].split() == ["alone", "–"]
    assert "p50 2.50 ms" in texts[1]
    assert texts[2].split() == ["2.00", "ms", "3.00", "ms"]
    assert time_rows((), (0.0,), 60, ascii=False) == []
