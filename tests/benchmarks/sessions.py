"""What counting costs a program, and how long two sessions take to be compared."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from kvdeck.engine import tracing
from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.model.records import Interval, Session, StepResult
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store import trace_counts, traces
from kvdeck.sessions.store.store import Store
from tests.benchmarks.table import Row

CALLS = 20_000
REQUESTS = """
import sys, time
from nixl._api import nixl_agent, nixl_agent_config
import ctypes, mmap
agent = nixl_agent("a", nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
memory = mmap.mmap(-1, 1 << 20)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
registered = agent.register_memory([(address, 1 << 20, 0, "")], "DRAM")
sides = [agent.get_xfer_descs([(address + half, 4096, 0)], "DRAM") for half in (0, 1 << 19)]
handle = agent.initialize_xfer("WRITE", *sides, "a")
def request():
    state = agent.transfer(handle)
    while state == "PROC":
        state = agent.check_xfer_state(handle)
for _ in range(2000): request()
times = []
for _ in range(15):
    started = time.perf_counter()
    for _ in range(2000): request()
    times.append((time.perf_counter() - started) / 2000)
agent.release_xfer_handle(handle)
agent.deregister_memory(registered)
print(sorted(times)[3], flush=True)
import atexit, os
atexit._run_exitfuncs()  # the recorder's last flush
os._exit(0)  # the wheel's libnl-route crashes in its destructor
"""


def measure() -> list[Row]:
    """Rows of the budget table."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return [*_recording(home), _hooks(home), *_comparing(home)]


def _recording(home: Path) -> list[Row]:
    session = home / "counting"
    session.mkdir()
    trace_counts.prepare(session)
    recorder = TransferCounter(session)
    record, calls, folds = recorder.record, [], []
    empty = min(_timed(_nothing) for _ in range(9))
    for _ in range(60):
        started = perf_counter()
        for _ in range(CALLS):
            record("HostToDisk", "FullyContiguous", 4096, 1, 0.000123)
        calls.append(perf_counter() - started - empty)
        folds.append(_timed(recorder.flush))
    recorder.close()
    call, fold = (sorted(times)[len(times) // 10] / CALLS * 1e9 for times in (calls, folds))
    return [
        Row("recording one transfer, in the caller", f"{call:.0f} ns", "≤ 300 ns"),
        Row("… and with the background's share", f"{call + fold:.0f} ns", "≤ 300 ns"),
    ]


def _nothing() -> None:
    for _ in range(CALLS):
        pass


def _timed(work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def _hooks(home: Path) -> Row:
    session = home / "hooked"
    session.mkdir()
    trace_counts.prepare(session)
    plain = dict(os.environ)
    recorded = {**plain, **traces.environment(session, "hooked"), **tracing.environment(None, None, None)}
    pairs = [(_request_seconds(plain), _request_seconds(recorded)) for _ in range(3)]
    cost = statistics.median(b - a for a, b in pairs) * 1e6
    return Row("a NIXL request of a recorded program", f"+{cost:.1f} µs", "–")


def _request_seconds(environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", REQUESTS]
    done = subprocess.run(command, env={**environment, "NIXL_LOG_LEVEL": "ERROR"}, check=True, capture_output=True)
    return float(done.stdout.split()[-1])


def _comparing(home: Path) -> list[Row]:
    store, rows = Store(home), []
    for count in (36, 324):
        names = [f"{side}{count}" for side in "ab"]
        for name, rate in zip(names, (10.0, 9.0), strict=True):
            steps = tuple(_step(number, rate) for number in range(count))
            store.keep(Session(name, "done", 1.0, results=steps))
        times = [_timed(lambda names=names: compare(*map(store.load, names))) for _ in range(30)]
        rows.append(
            Row(
                f"two sessions of {count} steps read and compared",
                f"{statistics.median(times) * 1e3:.1f} ms",
                "< 20 ms",
            )
        )
    return rows


def _step(number: int, rate: float) -> StepResult:
    return StepResult(
        step=number, trial=number // 2, path="HostToHost", layout=("FullyContiguous", "LayerSeparate")[number % 2],
        backend="UCX", api=None, direct=None, page_cache=None, durable=None, block_bytes=4096 << (number // 2 % 9),
        batch=1 << (number // 18), descriptors_per_block=1, descriptors_per_request=16, merged=False, blocks=64,
        iterations=100, warmup_iterations=1, bytes=1 << 30, prep_us=None, post_us=None, transfer_us=None,
        request_us=None, gb_per_s=Interval(rate, rate * 0.98, rate * 1.02), reference_gb_per_s=None, reference=None,
        efficiency=None, verified=True, status="ok", reason=None,
    )  # fmt: skip
