"""A slow link: one picture under way at a time, no more bytes than it drains, and a word in the header."""

from __future__ import annotations

import re

import pytest

from kvdeck.app.tui.pacing import (
    ASSUMED,
    BACKLOG_S,
    FIRST_S,
    OVERDUE_S,
    PATIENCE_S,
    Place,
    TerminalLink,
    has_other_between,
)


def place(question: str) -> Place:
    """Where a terminal's cursor is when it comes to the question."""
    found = re.search(r"\x1b\[(\d+);(\d+)H\x1b\[6n", question)
    assert found is not None
    return int(found[2]) - 1, int(found[1]) - 1


def painted(link: TerminalLink, now: float, count: int = 0) -> Place:
    """A picture of so many bytes, and the place that is asked for after it."""
    question = link.painted(now)
    link.wrote(count, now)
    link.asked()
    return place(question)


def test_the_next_picture_waits_for_the_answer_to_the_last():
    link = TerminalLink()
    assert link.may_paint(0.0)
    there = painted(link, 0.0)
    assert not link.may_paint(0.5)
    assert not link.may_paint(0.9)
    link.answered(there, 1.0)
    assert link.may_paint(1.0)
    assert (link.lag_s, link.skipped) == (1.0, 2)


def test_a_terminal_that_never_answers_is_not_asked_again():
    link = TerminalLink()
    there = painted(link, 0.0)
    assert link.may_paint(FIRST_S + 0.1)
    assert not link.painted(FIRST_S + 0.1)
    assert link.may_paint(FIRST_S + 0.2)
    assert link.text == ""
    link.answered(there, FIRST_S + 4)  # but for a link that was only very slow
    assert link.painted(FIRST_S + 4)
    assert not link.may_paint(FIRST_S + 4.1)


def test_without_answers_no_more_bytes_are_sent_than_a_poor_link_drains():
    link = TerminalLink(asks=False)
    now, sent, picture = 0.0, 0, 3000
    while now < 60:
        if link.may_paint(now):
            link.painted(now)
            link.wrote(picture, now)
            sent += picture
        now += 0.05
        assert sent <= ASSUMED * (now + BACKLOG_S) + picture
    assert sent > 0.9 * ASSUMED * 60


def test_a_live_screen_at_its_usual_rate_is_never_held_back():
    link = TerminalLink(asks=False)
    for tick in range(120):
        assert link.may_paint(tick / 2)
        link.painted(tick / 2)
        link.wrote(8000, tick / 2)  # the budget of a tick


def test_a_multiplexers_answer_says_nothing_of_the_link_behind_it():
    link = TerminalLink(other_between=True)
    there = painted(link, 0.0, 100_000)
    link.answered(there, 0.001)
    assert not link.may_paint(0.1)
    assert link.may_paint(100_000 / ASSUMED)
    near = TerminalLink()
    near.answered(painted(near, 0.0, 100_000), 0.001)
    assert near.may_paint(0.1)


@pytest.mark.parametrize(
    ("environ", "between"),
    [
        ({"TERM": "xterm-256color"}, False),
        ({"TERM": "tmux-256color"}, True),
        ({"TERM": "screen"}, True),
        ({"TERM": "xterm-256color", "TMUX": "/tmp/tmux-0/default,1,0"}, True),
        ({}, False),
    ],
)
def test_who_has_a_multiplexer_between(environ: dict[str, str], between: bool):
    assert has_other_between(environ) is between


def test_one_lost_answer_lowers_the_rate_for_a_while_only():
    link = TerminalLink()
    link.answered(painted(link, 0.0), 0.1)
    painted(link, 1.0, 40_000)
    assert not link.may_paint(1.0 + OVERDUE_S)
    assert not link.may_paint(1.1 + OVERDUE_S)  # overdue, but its bytes may still be on their way
    assert link.may_paint(1.0 + 40_000 / ASSUMED)
    assert not link.painted(3.0)
    link.wrote(3000, 3.0)
    assert link.may_paint(1.1 + PATIENCE_S)
    assert link.painted(1.1 + PATIENCE_S)


def test_a_rate_that_was_measured_counts_while_an_answer_is_overdue():
    link = TerminalLink()
    link.answered(painted(link, 0.0, 10_000), 2.0)
    assert link.rate == 5_000
    painted(link, 2.0, 30_000)
    assert not link.may_paint(2.0 + 4.5)
    assert link.may_paint(2.0 + 6.0)


def test_answers_that_nobody_asked_for_count_for_nothing():
    link = TerminalLink()
    link.answered((3, 3), 5.0)
    assert link.lag_s is None
    there = painted(link, 6.0)
    link.answered((there[0] + 1, there[1]), 6.1)
    assert link.lag_s is None
    assert not link.may_paint(6.2)
    link.answered(there, 6.3)
    again = painted(link, 7.0)
    assert again != there
    link.answered(there, 7.1)  # the answer to the question before, once more
    assert not link.may_paint(7.2)


def test_no_question_is_asked_where_a_key_would_answer_it():
    link = TerminalLink()
    for number in range(300):
        column, row = painted(link, float(number))
        assert 1 <= row <= 8
        assert column < 16
        link.answered((column, row), number + 0.1)


def test_the_header_speaks_of_slow_links_only_and_of_a_lower_rate_only():
    link = TerminalLink()
    link.answered(painted(link, 0.0), 0.05)
    there = painted(link, 0.5)
    assert link.text == ""
    link.answered(there, 2.0)
    assert link.text == "slow link 0.8 s"
    there = painted(link, 2.1)
    assert link.text == "slow link 0.8 s"
    link.answered(there, 2.11)
    for number in range(8):
        link.answered(painted(link, 3.0 + number), 3.01 + number)
    assert link.text == ""


def test_the_header_says_that_pictures_are_left_out_for_a_silent_link():
    link = TerminalLink(asks=False)
    link.painted(0.0)
    link.wrote(2 * ASSUMED, 0.0)
    assert link.text == ""
    assert not link.may_paint(0.5)
    assert link.may_paint(1.6)
    link.painted(1.6)
    assert link.text == "updates 1.2 s late"
    link.painted(2.8)
    assert link.text == ""


def test_time_without_anything_to_paint_is_no_limit():
    link = TerminalLink(asks=False)
    link.painted(0.0)
    link.wrote(2 * ASSUMED, 60.0)
    assert not link.may_paint(60.1)
    assert link.may_paint(61.8)
    link.painted(61.8)
    assert link.text == "updates 1.6 s late", "and not one update in 61.8 s"
    assert link.may_paint(300.0)
    link.painted(300.0)
    assert link.text == ""
