"""Two sides that poll beside other busy programs: none gives its own core away."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.io.loop import Visit
from kvdeck.engine.planning.layout import Geometry
from kvdeck.engine.ranks.initiator import Lane
from kvdeck.engine.ranks.initiator_setup import LaneSetup

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def busy_loops() -> Iterator[None]:
    """A busy loop on each of two cores, in the tests' own session, and so in the CPU group of the two sides."""
    loops = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os\nos.sched_setaffinity(0, [{core}])\nprint(1, flush=True)\nwhile 1: pass",
            ],
            stdout=subprocess.PIPE,
        )
        for core in (CORES[0], CORES[-1])
    ]
    for loop in loops:
        assert loop.stdout is not None
        assert loop.stdout.readline()
    yield
    for loop in loops:
        loop.kill()
        loop.wait()
    os.sched_setaffinity(0, CORES)


def visit_of(folder: Path, yields: bool) -> Visit:
    setup = LaneSetup(
        path="HostToHost", backend="UCX", backend_params={}, geometry=Geometry(1, 1, 1, 65536, "int8"), blocks=64,
        folder=str(folder), files=1, direct=False, durable=False, drop_cache=False, huge_pages=False,
        progress_thread=False, notify=True, two_processes=True, operation="WRITE",
        cores=((CORES[0],), (CORES[-1],)), reference=False, yields=(yields, yields),
    )  # fmt: skip
    lane = Lane(setup, f"busy-{yields}", lambda: False)
    try:
        lane.prepare(0, "FullyContiguous", 1, depth=1, merge=False)
        lane.attend(True)
        lane.visit(0, 4)
        return lane.visit(0, 30)
    finally:
        lane.attend(False)
        lane.close()


@pytest.mark.skipif(len(CORES) < 2, reason="two sides want two cores")
@pytest.mark.usefixtures("busy_loops")
def test_a_side_with_a_core_of_its_own_does_not_give_it_to_a_busy_loop(tmp_path: Path) -> None:
    keeping, giving = visit_of(tmp_path, yields=False), visit_of(tmp_path, yields=True)
    p50 = [statistics.median(map(sum, zip(v.post_ns, v.transfer_ns, strict=True))) for v in (keeping, giving)]
    assert p50[0] < p50[1] / 4  # a request takes tens of µs, and whole ticks if the sides yield
    assert giving.waits_ns is not None
    assert min(giving.waits_ns) > 0.05 * (giving.end_ns - giving.start_ns)
