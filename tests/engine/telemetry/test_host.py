"""The host's own counters, from this host's kernel and from trees made like others' kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.telemetry.source import Reading, SourceGone
from kvdeck.engine.telemetry.sources.devices import disks_source, fabric_source, network_source, nvidia_fs
from kvdeck.engine.telemetry.sources.gpu import Gpus
from kvdeck.engine.telemetry.sources.processes import Processes, _serving_name
from kvdeck.engine.telemetry.sources.sessions import DynamoFile, OwnRuns
from kvdeck.sessions.model.events import COUNTERS, Round, RunStarted
from kvdeck.sessions.model.records import StepPlan
from kvdeck.sessions.store.event_log import append_event

STATS = """GDS Version: 1.13.0.11
NVFS statistics(ver: 4.0)
IO stats: Enabled, peer IO stats: Disabled

Reads				: n=1200 ok=1198 err=2 readMiB=600 io_state_err=0
Reads				: Bandwidth(MiB/s)=812 Avg-Latency(usec)=2400
Writes				: n=40 ok=40 err=0 writeMiB=20 io_state_err=0 pg-cache=0
Ops				: Read=0 Write=0 BatchIO=0
"""


def by_name(reading: Reading) -> dict[str, float]:
    found: dict[str, float] = {}
    for series, value in reading.values.items():
        found[series.name] = found.get(series.name, 0) + value
    return found


async def test_this_hosts_disks_count_what_is_written(tmp_path: Path) -> None:
    source = disks_source()
    try:
        before = await source.read()
    except SourceGone:
        pytest.skip("this kernel lists no block device")
    assert by_name(before).keys() == {"disk_read_bytes", "disk_write_bytes"}
    after = await source.read()
    assert after.values.keys() == before.values.keys()
    assert all(after.values[series] >= value for series, value in before.values.items())


async def test_the_network_leaves_the_loopback_out() -> None:
    try:
        reading = await network_source().read()
    except SourceGone:
        pytest.skip("this host has no network card but the loopback")
    assert all(series.label("device") != "lo" for series in reading.values)


async def test_infiniband_counts_words_of_four_bytes(tmp_path: Path) -> None:
    port = tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    (port / "counters").mkdir(parents=True)
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    (port / "counters/port_xmit_data").write_text("1000\n")
    reading = await fabric_source(tmp_path).read()
    ((series, value),) = reading.values.items()
    assert (series.name, value) == ("fabric_sent_bytes", 4000)
    assert reading.limits[series] == 50e9
    assert reading.missing == "1 counters can't be read"


def test_nvidia_fs_gives_totals_and_not_its_stale_bandwidth(tmp_path: Path) -> None:
    """No sample of a real driver was to be had: the text is made after its documentation."""
    stats = tmp_path / "proc/driver/nvidia-fs/stats"
    stats.parent.mkdir(parents=True)
    stats.write_text(STATS)
    reading = nvidia_fs(tmp_path)
    assert by_name(reading) == {
        "nvidia_fs_read_bytes": 600 << 20,
        "nvidia_fs_write_bytes": 20 << 20,
        "nvidia_fs_ops": 1240,
        "nvidia_fs_errors": 2,
    }
    stats.write_text("Reads : err=0 io_state_err=0\nWrites : err=0 io_state_err=0\n")
    assert "rw_stats_enabled=1" in nvidia_fs(tmp_path).missing
    stats.unlink()
    with pytest.raises(SourceGone, match="not loaded"):
        nvidia_fs(tmp_path)


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this host has an NVIDIA driver")
def test_no_driver_is_said_and_not_zero() -> None:
    with pytest.raises(SourceGone, match="driver"):
        Gpus().look()


@pytest.mark.gpu
@pytest.mark.skipif(not any(Path("/dev").glob("nvidia[0-9]*")), reason="no NVIDIA driver is loaded")
def test_a_gpu_tells_its_memory_and_pcie() -> None:
    names = by_name(Gpus().look()).keys()
    assert "gpu_memory_used_bytes" in names


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["/usr/bin/python3", "-m", "vllm.entrypoints.openai.api_server"], "vllm.entrypoints.openai.api_server"),
        (["python3.11", "/opt/venv/bin/vllm", "serve"], "vllm"),
        (["python", "-u", "-m", "dynamo.mocker"], "dynamo.mocker"),
        (["VLLM::EngineCore"], "VLLM::EngineCore"),
        (["vim", "vllm.py"], ""),
        (["python", "train.py", "--name", "vllm"], ""),
        (["/usr/bin/kvdeck", "monitor", "--source", "vllm"], ""),
        (["/usr/bin/less", "vllm.log"], ""),
    ],
)
def test_serving_processes_are_known_by_their_command_line(line: list[str], name: str) -> None:
    assert _serving_name(line, Processes()._pattern) == name


def test_a_serving_process_and_its_file_without_a_name(tmp_path: Path) -> None:
    """A real process under a serving program's name holds an unlinked file, as KVBM's disk tier does."""
    script = tmp_path / "vllm"
    script.write_text(
        "import os, sys\n"
        "path = sys.argv[1]\n"
        "file = os.open(path, os.O_RDWR | os.O_CREAT)\n"
        "os.ftruncate(file, 64 << 20)\n"
        "os.pwrite(file, b'x' * (2 << 20), 0)\n"
        "os.fsync(file)\n"
        "os.unlink(path)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    tier = tmp_path / "dynamo-kvbm-disk-cache"
    with subprocess.Popen(
        [sys.executable, str(script), str(tier)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        tree = tmp_path / "proc"
        tree.mkdir()
        (tree / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        processes = Processes(tree)
        reading = processes.look_at_disk_tier()
        sizes = {s.label("what"): v for s, v in reading.values.items() if s.label("path") == str(tier)}
        assert sizes["size"] == 64 << 20
        assert sizes["allocated"] >= 2 << 20
        assert processes.look_at_io().values
        process.communicate()
    gone = processes.look_at_io()
    assert gone.values == {}


def test_nobody_serves(tmp_path: Path) -> None:
    assert "no serving process" in Processes(tmp_path).look_at_io().quiet


def test_dynamos_session_file(tmp_path: Path) -> None:
    path = tmp_path / "bench_a.json"
    tally = {"transfer_count": 2, "total_bytes": 100, "total_blocks": 4}
    tally |= {"min_transfer_size": 50, "max_transfer_size": 50}
    content = {"session_name": "a", "session_duration_secs": 1.0, "metrics": {"HostToDisk_FullyContiguous": tally}}
    path.write_bytes(orjson.dumps(content))
    os.utime(path, ns=(10**18, 10**18))
    source = DynamoFile(path)
    reading = source.look()
    assert reading.t_ns == 10**18, "the file's own time"
    assert by_name(reading) == {"session_bytes": 100, "session_blocks": 4, "session_transfers": 2}
    path.write_text('{"session_name": "a", "session')
    with pytest.raises(SourceGone):
        source.look()


def test_our_own_runs(tmp_path: Path) -> None:
    folder = tmp_path / "sessions/mine"
    folder.mkdir(parents=True)
    step = StepPlan(0, 0, "HostToDisk", "FullyContiguous", "POSIX", "AIO", True, 4096, 1, 8, 1)
    counters: dict[str, float] = {"bytes": 8192, "blocks": 2, "iterations": 2, "busy_ns": 5e8}
    values = tuple(counters.get(counter.name) for counter in COUNTERS)
    append_event(folder / "samples.jsonl", RunStarted(1, 0.0, (step,)))
    runs = OwnRuns(tmp_path)
    assert runs.look().quiet
    append_event(folder / "samples.jsonl", Round(77, 0, 0, (), (), 1, values))
    reading = runs.look()
    assert by_name(reading) == {
        "session_bytes": 8192,
        "session_blocks": 2,
        "session_transfers": 2,
        "session_seconds": 0.5,
    }
    shutil.rmtree(folder)
