"""The recorder: exact counts from many threads and processes, and nothing but the last second lost by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kvdeck.sessions import recorder
from kvdeck.sessions.host.files import replace_file
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.transfer_counts import gb_per_s, seconds_a_block, time_percentiles
from kvdeck.sessions.recorder import TransferCounter
from kvdeck.sessions.store import trace_counts

FC = "FullyContiguous"


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@pytest.fixture
def session(tmp_path: Path) -> Path:
    trace_counts.prepare(tmp_path)
    return tmp_path


def transfers(session: Path) -> int:
    return sum(counts.transfers for counts in trace_counts.transfer_counts(session))


def test_what_was_recorded_is_there(session: Path) -> None:
    recorder = TransferCounter(session)
    recorder.record("HostToDisk", FC, 4096, 2, 0.001, 64)
    recorder.record("HostToDisk", FC, 8192, 0, 0.003, 64)
    recorder.record("HostToDisk", FC, 100, 1, None)
    recorder.failed("HostToDisk", FC)
    recorder.close()
    (counts,) = trace_counts.transfer_counts(session)
    assert (counts.transfers, counts.bytes, counts.blocks, counts.descriptors) == (3, 12388, 3, 128)
    assert (counts.min_bytes, counts.max_bytes, counts.failures) == (100, 8192, 1)
    assert (counts.timed_transfers, counts.timed_bytes, counts.timed_blocks) == (2, 12288, 2)
    assert counts.sizes == ((100, 1), (4096, 1), (8192, 1))
    assert gb_per_s(counts) == pytest.approx(12288 / 0.004 / 1e9)
    assert seconds_a_block(counts) == pytest.approx(0.002)
    times = time_percentiles(counts.times)
    assert times is not None
    assert times.p50 == pytest.approx(1000, rel=0.04)
    assert times.max == pytest.approx(3000, rel=0.04)


def test_threads_lose_no_count(session: Path) -> None:
    recorder, each = TransferCounter(session), 20_000
    stop = threading.Event()

    def flush() -> None:
        while not stop.is_set():
            recorder.flush()

    def work() -> None:
        for _ in range(each):
            recorder.record("HostToHost", FC, 512, 1, 1e-6)

    flusher = threading.Thread(target=flush)
    workers = [threading.Thread(target=work) for _ in range(4)]
    for thread in (flusher, *workers):
        thread.start()
    for thread in workers:
        thread.join()
    stop.set()
    flusher.join()
    recorder.close()
    (counts,) = trace_counts.transfer_counts(session)
    assert (counts.transfers, counts.bytes, counts.timed_transfers) == (4 * each, 4 * each * 512, 4 * each)
    assert sum(count for _, count in counts.times) == 4 * each


RANK = """
import sys
from pathlib import Path
from kvdeck.sessions.recorder import TransferCounter
recorder = TransferCounter(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    recorder.record("DeviceToHost", "FullyContiguous", 2048, 1, 2e-5)
print("recorded", flush=True)
if len(sys.argv) > 3:
    sys.stdin.read()
"""


def rank(session: Path, count: int, *stay: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", RANK, str(session), str(count), *stay]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_ranks_do_not_overwrite_each_other(session: Path) -> None:
    ranks = [rank(session, 1000 + number) for number in range(3)]
    for process in ranks:
        process.communicate(timeout=30)
    assert len(trace_counts.processes(session)) == 3
    assert transfers(session) == 3003
    assert trace_counts.live(session) == []


def test_a_killed_process_leaves_what_it_had_flushed(session: Path) -> None:
    with rank(session, 500, "stay") as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: transfers(session) == 500)
        assert [found.pid for found in trace_counts.live(session)] == [process.pid]
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    assert transfers(session) == 500
    assert trace_counts.live(session) == []


def test_a_zombie_and_a_pid_that_was_given_again_count_no_more(session: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        for pid, updated, lives in ((zombie.pid, time.time(), 0), (os.getpid(), 1.0, 0), (os.getpid(), time.time(), 1)):
            process = trace_counts.Process(0, os.uname().nodename, pid, 1.0, updated, ended=False, transfer_counts=())
            trace_counts.prepare(session)
            (session / "recorder" / "0-x.json").write_bytes(encode_line(process))
            assert len(trace_counts.live(session)) == lives


def test_a_forked_child_counts_for_itself(session: Path) -> None:
    recorder = TransferCounter(session)
    recorder.record("HostToHost", FC, 1, 1, None)
    child = os.fork()
    if child == 0:
        recorder.record("HostToHost", FC, 1, 1, None)
        recorder.close()
        os._exit(0)
    os.waitpid(child, 0)
    recorder.close()
    assert sorted(p.transfer_counts[0].transfers for p in trace_counts.processes(session)) == [1, 1]


def test_disabling_and_resetting_reach_a_running_process(session: Path) -> None:
    recorder = TransferCounter(session)
    recorder.record("HostToHost", FC, 1, 1, None)
    until(lambda: transfers(session) == 1)
    trace_counts.set_enabled(session, False)
    started = time.monotonic()
    until(lambda: not recorder._enabled)
    assert time.monotonic() - started < 5
    recorder.record("HostToHost", FC, 1, 1, None)
    recorder.flush()
    assert transfers(session) == 1
    trace_counts.set_enabled(session, True)
    until(lambda: recorder._enabled)
    recorder.record("HostToHost", FC, 1, 1, None)
    until(lambda: transfers(session) == 2)
    assert trace_counts.reset(session) == 0
    assert transfers(session) == 0
    until(lambda: recorder._epoch == 1)
    recorder.record("HostToHost", FC, 1, 1, None)
    until(lambda: transfers(session) == 1)
    recorder.close()
    assert trace_counts.archived(session) == [0]
    assert sum(t.transfers for p in trace_counts.processes(session, epoch=0) for t in p.transfer_counts) == 2


BUSY = """
import sys, time
from pathlib import Path
from kvdeck.sessions.recorder import TransferCounter
recorder, count, end = TransferCounter(Path(sys.argv[1])), 0, time.monotonic() + 1.6
while time.monotonic() < end:
    for _ in range(200):
        recorder.record("HostToHost", "FullyContiguous", 10, 1, 1e-5)
    count += 200
    time.sleep(0.001)
recorder.close()
print(count)
"""


def test_a_reset_in_the_middle_loses_no_count(session: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(session)]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    until(lambda: len(trace_counts.processes(session)) == 2)
    trace_counts.reset(session)
    recorded = sum(int(process.communicate(timeout=30)[0]) for process in ranks)
    found = [
        counts
        for epoch in (0, 1)
        for process in trace_counts.processes(session, epoch)
        for counts in process.transfer_counts
    ]
    assert sum(counts.transfers for counts in found) == recorded
    assert len(found) == 4


def test_what_makes_no_sense_is_left_out_and_does_no_harm(session: Path) -> None:
    recorder = TransferCounter(session)
    for size, seconds in ((None, 1.0), ("x", 1.0), (-5, 1.0), (1, float("nan")), (1, -1.0), (7, 1.0)):
        recorder.record("HostToHost", FC, size, 1, seconds)  # type: ignore[arg-type]
    recorder.close()
    (counts,) = trace_counts.transfer_counts(session)
    assert (counts.transfers, counts.bytes) == (1, 7)


def test_many_sizes_are_kept_coarsely(session: Path) -> None:
    recorder = TransferCounter(session)
    for size in range(10_000, 20_000):
        recorder.record("HostToHost", FC, size, 1, None)
    recorder.close()
    (counts,) = trace_counts.transfer_counts(session)
    assert len(counts.sizes) < 32
    assert sum(count for _, count in counts.sizes) == 10_000
    assert counts.bytes == sum(range(10_000, 20_000))


def test_without_a_session_nothing_happens(tmp_path: Path) -> None:
    program = "from kvdeck.sessions import recorder; recorder.record('HostToHost', 'FullyContiguous', 1, 1, 1.0)"
    environment = {k: v for k, v in os.environ.items() if k != "DYNAMO_BENCHMARK_SESSION"}
    environment |= {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "KVDECK_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []


def test_a_session_removed_meanwhile_stays_removed(session: Path) -> None:
    recorder = TransferCounter(session)
    recorder.record("HostToHost", FC, 1, 1, None)
    until(lambda: transfers(session) == 1)
    for file in (session / "recorder").iterdir():
        file.unlink()
    (session / "recorder").rmdir()
    recorder.record("HostToHost", FC, 1, 1, None)
    recorder.close()
    assert not (session / "recorder").exists()


@pytest.mark.parametrize(
    "control",
    [
        b'{"enabled": true, "epoch": 1e999}',
        pytest.param(b"[" * 100_000, id="deep"),
        b'{"enabled": 1, "epoch": 2}',
        b'{"enabled": true, "epoch": -1}',
        None,
    ],
)
def test_an_odd_control_file_changes_nothing_and_is_not_waited_for(tmp_path: Path, control: bytes | None) -> None:
    path = tmp_path / "control.json"
    os.mkfifo(path) if control is None else path.write_bytes(control)
    assert recorder.read_control(tmp_path, (False, 7)) == (False, 7)


def test_a_huge_epoch_makes_no_long_search(tmp_path: Path) -> None:
    folder = tmp_path / "recorder"
    folder.mkdir()
    (folder / "control.json").write_text('{"enabled": true, "epoch": 9223372036854775807}')
    (folder / "3-host-1-1.json").write_text("{}")
    assert trace_counts.archived(tmp_path) == [3]


def test_a_link_that_lies_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "mine"
    target.write_text("untouched")
    (tmp_path / f".x.json.{os.getpid()}").symlink_to(target)
    replace_file(tmp_path / "x.json", b"new")
    assert (target.read_text(), (tmp_path / "x.json").read_bytes()) == ("untouched", b"new")
