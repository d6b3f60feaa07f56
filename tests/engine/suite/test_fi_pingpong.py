"""Output of fi_pingpong."""

from __future__ import annotations

import pytest

from kvdeck.engine.suite.fi_pingpong import read_pingpong, seems_pingpong

TEXT = """\
bytes   #sent   #ack     total       time     MB/sec    usec/xfer   Mxfers/sec
0       100     =100     0           0.33s      0.00    1625.30       0.00
1.5k    100     =100     300k        0.16s      1.97     780.73       0.00
64k     200     =200     25m         0.70s     37.44    1750.43       0.00
"""


def test_the_rate_is_of_one_direction() -> None:
    assert seems_pingpong(TEXT)
    empty, small, large = read_pingpong(TEXT)
    assert empty.bytes_per_s is None
    assert (small.message_bytes, large.message_bytes, large.messages) == (1536, 65_536, 200)
    assert large.bytes_per_s == pytest.approx(37.44e6, rel=1e-3)


def test_a_cut_row_is_left_out() -> None:
    assert len(read_pingpong(TEXT[:-30])) == 2
