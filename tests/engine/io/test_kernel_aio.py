"""io_submit without a library: the bytes come and go, and what fails is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kvdeck.engine.io import memory
from kvdeck.engine.io.kernel_aio import KernelAio

SIZE, COUNT = 8192, 10


@pytest.fixture
def queue() -> Iterator[KernelAio]:
    opened = KernelAio(4)
    yield opened
    opened.close()
    opened.close()  # again changes nothing


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "blocks", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def rows(start: int, device: int, order: range) -> np.ndarray:
    return np.array([[start + place * SIZE, SIZE, device] for place in order], np.uint64)


@pytest.mark.parametrize("group", [1, 3, 4, 7, 100])
def test_blocks_are_written_and_read_where_they_belong(queue: KernelAio, file: int, group: int) -> None:
    buffer = memory.allocate(SIZE * COUNT)
    content = np.random.default_rng(1).integers(0, 255, SIZE * COUNT, np.uint8)
    buffer.array[:] = content
    backwards = range(COUNT - 1, -1, -1)
    queue.run(queue.plan(rows(buffer.address, 0, backwards), rows(0, file, backwards), group, write=True))
    assert os.pread(file, SIZE * COUNT, 0) == content.tobytes()
    buffer.array[:] = 0
    queue.run(queue.plan(rows(buffer.address, 0, range(COUNT)), rows(0, file, range(COUNT)), group, write=False))
    assert buffer.array.tobytes() == content.tobytes()
    buffer.close()


def test_as_many_are_in_flight_as_a_group_and_at_most_the_queue_s_depth(queue: KernelAio, file: int) -> None:
    plain = rows(0, file, range(COUNT))
    flights = {group: queue.plan(plain, plain, group, write=False) for group in (3, 4, 9)}
    assert {group: flight.window for group, flight in flights.items()} == {3: 3, 4: 4, 9: 4}
    assert {flight.count for flight in flights.values()} == {COUNT}


def test_what_fails_is_told(queue: KernelAio, file: int) -> None:
    buffer = memory.allocate(SIZE)
    with pytest.raises(OSError, match="an operation moved 0 of 8 KiB"):
        queue.run(queue.plan(rows(buffer.address, 0, range(1)), rows(0, file, range(1)), 1, write=False))
    with pytest.raises(OSError, match="Bad file descriptor"):
        queue.run(queue.plan(rows(buffer.address, 0, range(1)), rows(0, 9999, range(1)), 1, write=False))
    buffer.close()
