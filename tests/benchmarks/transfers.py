"""Transfers against plain means and against NIXL's documented Python loop, in pairs within one process.

nixlbench itself is measured where it is installed; where it isn't, no figure stands in for it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvdeck.engine.host import host_facts
from kvdeck.engine.io.loop import Visit
from kvdeck.engine.planning.layout import Geometry
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.ranks.initiator import Lane
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer.run import lane_setups
from kvdeck.engine.transfer.trial import TrialProgress, TrialRun
from kvdeck.engine.transfer.trials import Room, plan_trials, room_of
from kvdeck.sessions.model.disturbance import is_disturbed
from tests.benchmarks.table import Row

ROUNDS = 15
SAME_TRIALS = 40
SECONDS = 0.03
WORKING_SET = 128 << 20
CORES = sorted(os.sched_getaffinity(0))
"""Taken once: a lane pins this process, and would be all that a later look finds."""
VISITS: list[bool] = []
"""Whether each visit of the row being measured was disturbed."""


def measure() -> list[Row]:
    """Every row about transfers."""
    rows = [_documented(4096, 1), _documented(65536, 1), _documented(589_824, 64)]
    rows += [
        _best(4096, 1, "≤ 0.2 of nixlbench"),
        _best(65536, 1, "–"),
        _best(589_824, 64, "≤ 0.7 of nixlbench"),
        _beside_busy_loops(),
        _limit("peer"),
        _limit("none"),
        _disk_limit("DiskToHost"),
        _disk_limit("HostToDisk"),
        _plain_pages("DiskToHost"),
        _plain_pages("HostToDisk"),
        _bookkeeping(),
        _against_itself(),
    ]
    if shutil.which("nixlbench") is None:
        rows.append(
            Row("a run against nixlbench, same settings", "not measured: nixlbench isn't installed here", "≤ 1.05")
        )
    return rows


def _setup(folder: str, size: int, batch: int, **changes: Any) -> LaneSetup:
    blocks = max(WORKING_SET // size // batch, 1) * batch
    setup = LaneSetup(
        path="HostToHost",
        backend="UCX",
        backend_params={"ucx_error_handling_mode": "peer"},
        geometry=Geometry(1, 1, 1, size, "int8"),
        blocks=min(blocks, 8192 // batch * batch),
        folder=folder,
        files=1,
        direct=False,
        durable=False,
        drop_cache=False,
        huge_pages=False,
        progress_thread=False,
        notify=True,
        two_processes=True,
        operation="WRITE",
        cores=((CORES[0],), (CORES[-1],)),
        reference=True,
        yields=(False, False),  # each side has a core of its own, which `_check_cores` holds it to
    )
    return dataclasses.replace(setup, **changes)


def _open(folder: str, size: int, batch: int, **changes: Any) -> Lane:
    lane = Lane(_setup(folder, size, batch, **changes), f"bench-{time.monotonic_ns()}", lambda: False)
    _check_cores(lane)
    lane.prepare(0, "FullyContiguous", batch, depth=1, merge=False)
    _p50(lane, 50)
    return lane


def _check_cores(lane: Lane) -> None:
    """Refuse a figure of two sides that poll on one core: it would be the scheduler's.

    Raises:
        SystemExit: The sides share a core, one of them isn't pinned, or this host gives only one core.
    """
    sides = [_cores_of(os.getpid()), *(_cores_of(target._process.pid) for target in lane._targets)]
    for number, (allowed, last) in enumerate(sides):
        name = f"target {number}" if number else "the initiator"
        if len(allowed) != 1 or not last <= allowed:
            raise SystemExit(f"no figure: {name} may run on the cores {sorted(allowed)} and ran on {sorted(last)}")
    own, _ = sides[0]
    for theirs, _ in sides[1:]:
        if own & theirs:
            raise SystemExit(f"no figure: initiator and target share the cores {sorted(own & theirs)}")


def _cores_of(pid: int) -> tuple[set[int], set[int]]:
    """Cores that a process's main thread, which polls, may run on, and the one on which it ran last."""
    last = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[36]
    return os.sched_getaffinity(pid), {int(last)}


def _visit(lane: Lane, count: int) -> Visit:
    """Run `count` requests; only this lane's target polls meanwhile, and the cores are checked after it."""
    lane.attend(True)
    visit = lane.visit(0, count)
    lane.attend(False)
    _check_cores(lane)
    if visit.waits_ns is not None:
        VISITS.append(is_disturbed(visit.waits_ns, visit.end_ns - visit.start_ns))
    return visit


def _p50(lane: Lane, count: int) -> float:
    """Median ns of a request."""
    visit = _visit(lane, count)
    return statistics.median(post + move for post, move in zip(visit.post_ns, visit.transfer_ns, strict=True))


def _mean(lane: Lane, count: int) -> float:
    """Wall time in ns over the requests: what a limit is measured by, which has no single requests to take a median of.

    A median leaves out a wait for a core that a wall time contains: beside other programs the limit seemed exceeded.
    """
    visit = _visit(lane, count)
    return (visit.end_ns - visit.start_ns) / count


def _row(what: str, measured: str, budget: str) -> Row:
    """A row that tells how many of its visits were disturbed by other programs on the same cores."""
    disturbed, visits = sum(VISITS), len(VISITS)
    VISITS.clear()
    return Row(what, measured + (f", {disturbed} of {visits} visits disturbed" if disturbed else ""), budget)


def _count(lane: Lane) -> int:
    return max(3, min(4000, int(SECONDS * 1e9 / _p50(lane, 20))))


def _pairs(first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float, float]:
    """Median of the first over the second, pair by pair, and the medians themselves."""
    found: list[tuple[float, float]] = []
    for number in range(ROUNDS):
        if number % 2:
            later, earlier = second(), first()
            found.append((earlier, later))
        else:
            found.append((first(), second()))
    ratio = statistics.median(a / b for a, b in found)
    return ratio, statistics.median(a for a, _ in found), statistics.median(b for _, b in found)


def _documented(size: int, batch: int) -> Row:
    """kvdeck's loop against `transfer` and `check_xfer_state` on the same prepared requests."""
    with tempfile.TemporaryDirectory() as folder:
        lane = _open(folder, size, batch)
        count = _count(lane)
        agent, handles = lane._agent, lane._steps[0].handles

        def documented() -> float:
            times = []
            lane.attend(True)
            for index in range(count):
                handle = handles[index % len(handles)]
                begin = time.perf_counter_ns()
                state = agent.transfer(handle)
                while state == "PROC":
                    state = agent.check_xfer_state(handle)
                times.append(time.perf_counter_ns() - begin)
            lane.attend(False)
            return statistics.median(times)

        ratio, ours, theirs = _pairs(lambda: _p50(lane, count), documented)
        lane.close()
    what = f"UCX {size:,} B × {batch}: p50 over NIXL's documented Python loop"
    return _row(what, f"{ratio:.2f} ({ours / 1e3:.1f} µs, {(ours - theirs) / 1e3:+.1f} µs)", "–")


def _best(size: int, batch: int, budget: str) -> Row:
    """The settings that `--tune` finds on this kind of host, against NIXL's defaults."""
    with tempfile.TemporaryDirectory() as folder:
        plain = _open(folder, size, batch)
        best = _open(folder, size, batch, huge_pages=True, backend_params={"ucx_error_handling_mode": "none"})
        count = _count(plain)
        ratio, ours, _ = _pairs(lambda: _p50(best, count), lambda: _p50(plain, count))
        for lane in (plain, best):
            lane.close()
    what = f"UCX {size:,} B × {batch}: best settings over the defaults, p50"
    return _row(what, f"{ratio:.2f} ({ours / 1e3:.1f} µs)", budget)


def _beside_busy_loops() -> Row:
    """A busy loop on each side's core, in the sides' CPU group, stopped and continued in turn."""
    program = "import os, sys\nos.sched_setaffinity(0, [int(sys.argv[1])])\nprint(1, flush=True)\nwhile True: pass"
    loops = [
        subprocess.Popen([sys.executable, "-c", program, str(core)], stdout=subprocess.PIPE)
        for core in (CORES[0], CORES[-1])
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            loop.stdout.readline()
            loop.send_signal(signal.SIGSTOP)
        with tempfile.TemporaryDirectory() as folder:
            lane = _open(folder, 65536, 1)
            count = _count(lane)

            def beside() -> float:
                for loop in loops:
                    loop.send_signal(signal.SIGCONT)
                found = _p50(lane, count)
                for loop in loops:
                    loop.send_signal(signal.SIGSTOP)
                return found

            ratio, busy, alone = _pairs(beside, lambda: _p50(lane, count))
            lane.close()
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    VISITS.clear()
    what = "UCX 65,536 B × 1: p50 beside two busy loops over alone"
    return Row(what, f"{ratio:.2f} ({busy / 1e3:.1f} and {alone / 1e3:.1f} µs)", "≤ 2")


def _limit(errors: str) -> Row:
    """Bandwidth between two processes beside the limit of the same bytes in the same memory."""
    with tempfile.TemporaryDirectory() as folder:
        lane = _open(folder, 2 << 20, 16, huge_pages=True, backend_params={"ucx_error_handling_mode": errors})
        what = f"UCX 2 MiB × 16, error handling {errors}: GB/s over {lane.reference_name}'s"
        return _against_limit(lane, what, _count(lane))


def _disk_limit(path: str) -> Row:
    """O_DIRECT over NIXL beside the kernel's own queue, from and to the same memory at the same depth."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("KVDECK_SCRATCH")) as folder:
        lane = _open(folder, 2 << 20, 16, **_disk(path), huge_pages=True)
        return _against_limit(lane, f"POSIX io_uring O_DIRECT {path}, 2 MiB × 16: GB/s over {lane.reference_name}'s", 3)


def _disk(path: str) -> dict[str, Any]:
    operation = "READ" if path == "DiskToHost" else "WRITE"
    return {"path": path, "backend": "POSIX", "backend_params": {"use_uring": "true"}, "operation": operation,
            "direct": True, "two_processes": False}  # fmt: skip


def _against_limit(lane: Lane, what: str, count: int) -> Row:
    size = 16 * (2 << 20)

    def reference() -> float:
        begin, end = lane.reference(16, count, 0)
        return (end - begin) / count

    reference()
    ratio, ours, theirs = _pairs(lambda: _mean(lane, count), reference)
    pages = lane.pages()[0]
    lane.close()
    return _row(what, f"{1 / ratio:.2f} ({size / ours:.2f} of {size / theirs:.2f} GB/s, {pages})", "–")


def _plain_pages(path: str) -> Row:
    """What O_DIRECT gives from and to huge pages over plain ones."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("KVDECK_SCRATCH")) as folder:
        huge, plain = (_open(folder, 2 << 20, 16, **_disk(path), huge_pages=huge) for huge in (True, False))
        ratio, ours, theirs = _pairs(lambda: _p50(huge, 3), lambda: _p50(plain, 3))
        size, pages = 16 * (2 << 20), f"{huge.pages()[0]}, {plain.pages()[0]}"
        for lane in (huge, plain):
            lane.close()
    what = f"POSIX io_uring O_DIRECT {path}, 2 MiB × 16: GB/s with huge pages over plain ones'"
    return _row(what, f"{1 / ratio:.2f} ({size / ours:.2f} and {size / theirs:.2f} GB/s, {pages})", "–")


def _bookkeeping() -> Row:
    """What keeping a request's two times costs: two clock reads and two appends."""
    count = 200_000
    clock = time.perf_counter_ns
    posts: list[int] = []
    ends: list[int] = []
    keep_post, keep_end = posts.append, ends.append

    def kept() -> float:
        posts.clear()
        ends.clear()
        begin = clock()
        for _ in range(count):
            keep_post(clock())
            keep_end(clock())
        return (clock() - begin) / count

    def empty() -> float:
        begin = clock()
        for _ in range(count):
            pass
        return (clock() - begin) / count

    _, cost, loop = _pairs(kept, empty)
    return Row("recording one request in the measuring loop", f"{cost - loop:.0f} ns", "≤ 300 ns")


def _room(folder: str) -> Room:
    """This host with the cores that it gave at first: by now an earlier row's lane has pinned this process."""
    return dataclasses.replace(room_of(host_facts(Path(folder))), cores=tuple(CORES))


def _against_itself() -> Row:
    """A layout compared with itself: how often a verdict is given where there is nothing to find."""
    with tempfile.TemporaryDirectory() as folder:
        room = _room(folder)
        spec = RunSpec(paths=("HostToHost",), layouts=("FullyContiguous",), seconds=0.8, effort="quick", batch=4,
                       verify=False, reference=False)  # fmt: skip
        (trial,) = plan_trials(spec, room)
        trial = dataclasses.replace(trial, pairs=trial.pairs * 2, seconds=0.8)
        crew = Crew(lane_setups(spec, trial, room, folder), lambda: False)
        assert crew._lane is not None
        _check_cores(crew._lane)
        wrong = 0
        for _ in range(SAME_TRIALS):
            run = TrialRun(spec, trial, crew, TrialProgress(lambda _event: None, lambda: False))
            run.measure()
            wrong += run.comparisons()[0].verdict in ("faster", "slower")
            for step in trial.steps:
                crew.release(step.step)
        crew.close()
    return Row("a layout against itself: verdicts given", f"{wrong} of {SAME_TRIALS}", "about 1 in 20")
