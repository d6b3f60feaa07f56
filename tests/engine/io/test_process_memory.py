"""Copies between two processes by the kernel, against a process that holds known bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from kvdeck.engine.io import memory
from kvdeck.engine.io.process_memory import plan_copies, run_copies

SIZE, COUNT = 4096, 1500
"""More pieces than one call takes."""
PROGRAM = f"""
import ctypes, sys
room = (ctypes.c_ubyte * {SIZE * COUNT})(*[i % 251 for i in range({SIZE * COUNT})])
print(ctypes.addressof(room), flush=True)
input()
print(bytes(room) == bytes([9]) * len(room), flush=True)
"""


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


def rows(start: int) -> np.ndarray:
    return np.array([[start + place * SIZE, SIZE, 0] for place in range(COUNT)], np.uint64)


def test_bytes_are_read_from_and_written_to_another_process(other: subprocess.Popen[str]) -> None:
    assert other.stdout is not None
    there, buffer = rows(int(other.stdout.readline())), memory.allocate(SIZE * COUNT)
    here = rows(buffer.address)
    calls = plan_copies(other.pid, here, there, COUNT, write=False)
    assert [call.size for call in calls] == [1024 * SIZE, 476 * SIZE]
    run_copies(calls)
    assert (buffer.array == np.arange(SIZE * COUNT) % 251).all()
    buffer.array[:] = 9
    run_copies(plan_copies(other.pid, here, there, 7, write=True))
    said, _ = other.communicate("\n")
    assert said == "True\n"
    with pytest.raises(OSError, match="No such process"):
        run_copies(calls)
    buffer.close()


def test_memory_that_is_not_there_is_told(other: subprocess.Popen[str]) -> None:
    buffer = memory.allocate(SIZE)
    here = rows(buffer.address)[:1]
    with pytest.raises(OSError, match="Bad address"):
        run_copies(plan_copies(other.pid, here, np.array([[4096, SIZE, 0]], np.uint64), 1, write=True))
    buffer.close()
