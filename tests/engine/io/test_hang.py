"""Native calls that never come back end their process with a reason, whether they hold Python's lock or not."""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from kvdeck.engine.io.loop import Patience, pipelined_visit, serial_visit
from kvdeck.sessions.errors import KvdeckError

HANGING = """
import ctypes, sys
from kvdeck.engine.io import hang
hang.start(lambda what: print(what, flush=True), least_s={least_s})
with hang.watched("a request over GDS", {expected_s}):
    {call}
print("came back", flush=True)
"""


def in_a_process(call: str, least_s: float = 0.4, expected_s: float = 0.0) -> subprocess.CompletedProcess[str]:
    code = HANGING.format(call=call, least_s=least_s, expected_s=expected_s)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)


def test_a_call_that_lets_others_run_is_told_and_left() -> None:
    done = in_a_process("ctypes.CDLL(None).pause()")
    assert done.returncode == 0
    assert done.stdout.startswith("a request over GDS: a native call has not returned for 0.")
    assert "came back" not in done.stdout
    assert 'File "<string>"' in done.stderr, "where it hangs is written down"


def test_a_call_that_holds_the_lock_is_ended_too() -> None:
    done = in_a_process("ctypes.PyDLL(None).pause()")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert 'File "<string>"' in done.stderr


@pytest.mark.parametrize(
    "call",
    [
        "ctypes.CDLL(None).usleep(100_000)",
        "[(ctypes.CDLL(None).usleep(150_000), hang.alive()) for _ in range(6)]",
    ],
)
def test_a_call_that_comes_back_is_left_alone(call: str) -> None:
    assert in_a_process(call).stdout == "came back\n"


def test_what_is_expected_to_take_long_may() -> None:
    assert in_a_process("ctypes.CDLL(None).usleep(900_000)", expected_s=0.1).stdout == "came back\n"


def test_nothing_is_armed_after_a_watched_call() -> None:
    """A later call outside may hold the lock as long as it likes."""
    code = HANGING.format(call="ctypes.CDLL(None).usleep(250_000)", least_s=0.4, expected_s=0.0)
    code += "ctypes.PyDLL(None).usleep(2_000_000)\nprint('end')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "came back\nend\n")


@pytest.mark.parametrize("depth", [1, 2])
def test_the_wait_for_a_request_ends_in_time_however_long_a_poll_takes(depth: int) -> None:
    pending = SimpleNamespace(value=1)

    def slow(handle: object) -> SimpleNamespace:
        time.sleep(0.02)
        return pending

    visit = serial_visit if depth == 1 else functools.partial(pipelined_visit, depth=depth)
    begin = time.monotonic()
    with pytest.raises(KvdeckError, match=r"did not complete within 0\.5 s"):
        visit(lambda _: pending, slow, handles=[1, 2], patience=Patience(0.5, lambda: False))
    assert time.monotonic() - begin < 5, "4,096 polls would take 80 s"
