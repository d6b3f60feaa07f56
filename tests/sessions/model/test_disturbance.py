"""Which rounds count as disturbed, and that records without the count keep their bytes."""

from __future__ import annotations

from msgspec import UNSET

from kvdeck.sessions.model import events
from kvdeck.sessions.model.disturbance import Disturbance, disturbance_of, is_disturbed
from kvdeck.sessions.model.encoding import encode_line

WAITED = (2_000_000, 0), 20_000_000
"""The initiator waited 2 of 20 ms."""
CALM = (900_000, 900_000), 20_000_000


def test_a_round_is_disturbed_if_one_side_waited_for_more_than_5_percent() -> None:
    assert is_disturbed(*WAITED)
    assert is_disturbed((0, 2_000_000), 20_000_000)
    assert not is_disturbed(*CALM)
    assert not is_disturbed((1_000_000, 1_000_000), 20_000_000)


def test_waits_are_summed_over_the_rounds_in_which_they_are_known() -> None:
    assert disturbance_of([WAITED, CALM, (UNSET, 20_000_000), WAITED]) == Disturbance(2, 3, 4.9, 0.9)


def test_nothing_is_said_of_calm_rounds() -> None:
    assert disturbance_of([CALM, (UNSET, 5)]) is UNSET
    assert disturbance_of([]) is UNSET


def test_a_round_keeps_its_waits_and_without_them_its_bytes() -> None:
    told = events.Round(3, 0, 0, (1,), (3,), 10, (0.0,), (7, 8))
    assert events.decode_event(encode_line(told)) == told
    silent = events.Round(3, 0, 0, (1,), (3,), 10, (0.0,))
    line = b'{"kind":"round","t":3,"step":0,"round":0,"post_ns":[1],"transfer_ns":[3],"busy_ns":10,"values":[0.0]}\n'
    assert encode_line(silent) == line
    assert events.decode_event(line) == silent
