"""Time without a core, as the kernel counts it, beside a busy loop on the same core."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from kvdeck.engine.host.run_delay import RunDelays, gained


def test_a_busy_loop_on_the_same_core_makes_a_process_wait() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})  # the child inherits it
    delays = RunDelays([os.getpid(), os.getpid()])
    busy = subprocess.Popen([sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline()
        first, deadline = delays.read(), time.monotonic() + 30
        assert first is not None
        while (now := delays.read()) is not None and now < first + 20_000_000:
            assert time.monotonic() < deadline, "the scheduler counted no wait beside a busy loop"
    finally:
        busy.kill()
        busy.wait()
        delays.close()
        os.sched_setaffinity(0, before)


def test_what_is_not_counted_is_not_known() -> None:
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    delays = RunDelays([ended.pid])
    assert delays.read() is not None
    ended.communicate(b"\n")
    assert delays.read() is None
    assert RunDelays([os.getpid(), None]).read() is None
    assert RunDelays([]).read() == 0


@pytest.mark.parametrize(("before", "after", "told"), [(5, 7, 2), (None, 7, None), (5, None, None)])
def test_a_gain_needs_both_readings(before: int | None, after: int | None, told: int | None) -> None:
    assert gained(before, after) == told
