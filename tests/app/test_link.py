"""A slow link: one picture under way at a time, and a word in the header."""

from __future__ import annotations

from kvdeck.app.link import FIRST_S, PATIENCE_S, Link


def test_the_next_picture_waits_for_the_answer_to_the_last():
    link = Link()
    assert link.may_paint(0.0)
    assert link.painted(0.0)
    assert not link.may_paint(0.5)
    assert not link.may_paint(0.9)
    link.answered(1.0)
    assert link.may_paint(1.0)
    assert (link.lag_s, link.skipped) == (1.0, 2)


def test_a_terminal_that_never_answers_is_not_asked_again():
    link = Link()
    link.painted(0.0)
    assert link.may_paint(FIRST_S + 0.1)
    assert not link.painted(FIRST_S + 0.1)
    assert link.may_paint(FIRST_S + 0.2)
    assert link.text == ""
    link.answered(FIRST_S + 4)  # but for a link that was only very slow
    assert link.painted(FIRST_S + 4)
    assert not link.may_paint(FIRST_S + 4.1)


def test_one_lost_answer_holds_the_picture_for_a_while_only():
    link = Link()
    link.painted(0.0)
    link.answered(0.1)
    link.painted(1.0)
    assert not link.may_paint(1.0 + FIRST_S)
    assert link.may_paint(1.1 + PATIENCE_S)
    assert link.painted(1.1 + PATIENCE_S)


def test_answers_that_nobody_asked_for_count_for_nothing():
    link = Link()
    link.answered(5.0)
    assert link.lag_s is None


def test_the_header_speaks_of_slow_links_only_and_of_a_lower_rate_only():
    link = Link()
    link.painted(0.0)
    link.answered(0.05)
    link.painted(0.5)
    assert link.text == ""
    link.answered(2.0)
    assert link.text == "slow link 0.8 s"
    link.painted(2.1)
    assert link.text == "slow link 0.8 s, 0.6 Hz"
    link.answered(2.11)
    for number in range(8):
        link.painted(3.0 + number)
        link.answered(3.01 + number)
    assert link.text == ""
