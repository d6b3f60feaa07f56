"""A verdict is a sentence and a table: final only where the run is, and `can't tell` where it can't be told."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.cells import cell_len

from kvdeck.app.tui.widgets.verdicts import (
    VerdictRow,
    forest,
    framed,
    result_text,
    rows_of_run,
    rows_of_session,
    scale_of,
    scale_text,
    sentence,
    verdict_rows,
)
from tests.support.builders import run as a_run

FC, LS = (name for name, _, _ in a_run.LAYOUTS)
ROW = VerdictRow("HostToHost", 2 << 20, 16, FC, LS, 1.31, 1.28, 1.35, "slower")


def text(rows: list[tuple[tuple[str, str], ...]]) -> str:
    return "\n".join("".join(part for part, _ in row) for row in rows)


def test_a_finished_run_names_the_winner_and_its_margin():
    rows = rows_of_run(a_run.view())
    assert sentence(rows) == "FullyContiguous wins on all 3 paths: LayerSeparate takes 1.31× its time."
    assert sentence(rows, 40) == "FullyContiguous wins on all 3 paths (1.31×)."
    assert [row.verdict for row in rows] == [row.verdict for row in rows_of_session(a_run.session())]


def test_what_still_runs_is_about_and_what_waits_is_a_dash():
    rows = rows_of_run(a_run.view(None))
    assert [row.final for row in rows] == [True, False, False]
    assert sentence(rows).endswith("; 2 to come.")
    shown = text(verdict_rows(rows, 118, 6)).splitlines()
    assert "≈" not in shown[1]
    assert "≈1.31×" in shown[2]
    assert "measuring" in shown[2]
    assert "waits" in shown[3]
    assert "–" in shown[3]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "One layout was measured: nothing is compared."),
        ([replace(ROW, verdict="undecided")], "Can't tell on 1 path."),
        ([replace(ROW, verdict="no difference")], "No difference on 1 path."),
        ([replace(ROW, verdict="", instead="failed")], "No verdict: failed."),
        ([ROW], "FullyContiguous wins on HostToHost: LayerSeparate takes 1.31× its time."),
        (
            [replace(ROW, verdict="faster", ratio=0.5)],
            "LayerSeparate wins on HostToHost: FullyContiguous takes 2.00× its time.",
        ),
    ],
)
def test_the_sentence_has_a_word_for_every_case(rows: list[VerdictRow], said: str):
    assert sentence(rows) == said


def test_the_scale_fits_the_intervals_and_nothing_is_drawn_without_a_ratio():
    assert scale_of([1.2, None, 1.9]) == 2.0
    assert scale_of([0.3, 1.0]) == 4.0
    assert forest(1.0, 0.8, 1.25, 21, 2.0) == "┄┄┄┄┄┄┄━━━●━━━┄┄┄┄┄┄┄"
    assert forest(3.0, 1.5, 9.0, 21, 2.0).endswith("▶")
    assert forest(None, None, None, 5, 2.0) == "┄┄│┄┄"
    assert scale_text(2.0, 41).split() == ["½", "0.7", "1", "1.4", "2"]


def test_more_rows_than_there_is_room_are_counted():
    rows = verdict_rows([ROW] * 9, 100, 4)
    assert len(rows) == 4
    assert "7 more rows" in text(rows)


def test_a_frame_is_as_wide_as_it_is_told():
    for title, line in (("Verdict", "x"), ("漢字", "run 全角"), ("e\u0301", "e\u0301")):
        rows = framed(title, f"95 % {title}", [((line, ""),)], 60)
        assert {cell_len(line) for line in text(rows).splitlines()} == {60}


def test_a_session_says_its_result_in_one_line():
    assert result_text(a_run.session()) == "H→H 1.31×  H→D 1.31×  D→H 1.31×"
