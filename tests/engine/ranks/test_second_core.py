"""A thread on another core does its parts there, leaves its process where it was, and passes on what ends it."""

from __future__ import annotations

import os

import pytest

from kvdeck.engine.ranks.second_core import SecondCore


def test_parts_are_done_on_the_other_core() -> None:
    cores = os.sched_getaffinity(0)
    helper, seen = SecondCore(max(cores)), list[set[int]]()
    for _ in range(3):
        helper.begin(lambda: seen.append(os.sched_getaffinity(0)))
        helper.wait()
    helper.close()
    assert seen == [{max(cores)}] * 3
    assert os.sched_getaffinity(0) == cores


def test_an_error_reaches_the_one_who_waits() -> None:
    def fail() -> None:
        raise OSError("no such core")

    helper = SecondCore(max(os.sched_getaffinity(0)))
    helper.begin(fail)
    with pytest.raises(OSError, match="no such core"):
        helper.wait()
