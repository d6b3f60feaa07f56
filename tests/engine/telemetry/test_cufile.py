"""cuFile's counters. The real `gds_stats` was not to be had, nor a driver for it: a program that stands in for it
prints what the GPUDirect Storage guide shows, and fails in the ways that are documented or thinkable."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import SourceGone
from kvdeck.engine.telemetry.sources import cufile
from kvdeck.engine.telemetry.sources.cufile import Cufile, counters, cufile_source, find_gds_stats
from kvdeck.engine.telemetry.sources.processes import Processes

OUTPUT = """cuFile STATS VERSION : 3
GLOBAL STATS:
Total Files: 8
Total Read Errors : 0
Total Read Size (MiB): 78193
Read BandWidth (GiB/s): 6.32129
Avg Read Latency (us): 1044
Total Write Errors : 0
Total Write Size (MiB): 4
Write BandWidth (GiB/s): 0
Avg Write Latency (us): 0
READ-WRITE SIZE HISTOGRAM :
0-4(KiB): 0 0
1024-2048(KiB): 78193 0
65536-...(KiB): 0 0
PER_GPU STATS:
GPU 0 Read: bw=0 util(%)=0 n=0 posix=0 unalign=0 r_sparse=0 r_inline=0 err=0 MiB=0 Write: bw=0 util(%)=0 n=0 posix=0 \
unalign=0 err=0 MiB=0 BufRegister: n=0 err=0 free=0 MiB=0
GPU 2 Read: bw=6.32129 util(%)=797 n=78193 posix=POSIX unalign=0 r_sparse=0 r_inline=0 err=0 MiB=78193 Write: bw=0 \
util(%)=0 n=4 posix=1 unalign=2 err=0 MiB=4 BufRegister: n=8 err=0 free=0 MiB=8
PER_GPU POOL BUFFER STATS:
PER_GPU POSIX POOL BUFFER STATS:
GPU 0 4(KiB) :0/0 1024(KiB) :0/0 16384(KiB) :0/0
"""


def text(posix: int = 0) -> str:
    return OUTPUT.replace("POSIX", str(posix), 1)


def test_the_documented_output() -> None:
    found = {(s.name, s.label("op")): v for s, v in counters(text(), (("name", "vllm"), ("pid", "7"))).items()}
    assert found == {
        ("cufile_ops", "read"): 78193,
        ("cufile_posix_ops", "read"): 0,
        ("cufile_unaligned_ops", "read"): 0,
        ("cufile_errors", "read"): 0,
        ("cufile_read_bytes", ""): 78193 << 20,
        ("cufile_ops", "write"): 4,
        ("cufile_posix_ops", "write"): 1,
        ("cufile_unaligned_ops", "write"): 2,
        ("cufile_errors", "write"): 0,
        ("cufile_write_bytes", ""): 4 << 20,
    }
    below = text().partition("PER_GPU STATS")[0]
    assert {s.name: v for s, v in counters(below, ()).items()} == {
        "cufile_read_bytes": 78193 << 20,
        "cufile_write_bytes": 4 << 20,
    }, "at level 1 there are only sums"
    assert counters("what is this", ()) == {}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Processes]:
    """A real process under a serving program's name, alone in its /proc."""
    script = tmp_path / "vllm"
    script.write_text("import sys\nprint('up', flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen([sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        tree = tmp_path / "proc"
        tree.mkdir()
        (tree / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        try:
            yield Processes(tree)
        finally:
            process.kill()


def stand_in(tmp_path: Path, body: str) -> str:
    """A program called gds_stats."""
    program = tmp_path / "gds_stats"
    program.write_text(
        f"#!{sys.executable}\nimport sys, time\nassert sys.argv[1] == '-p' and sys.argv[3:] == ['-l', '3']\n{body}\n"
    )
    program.chmod(0o755)
    return str(program)


async def test_the_compatibility_path_is_seen_while_it_grows(
    tmp_path: Path, serving: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cufile, "PERIOD_S", 0.1)
    said = tmp_path / "said"
    said.write_text(text(0).replace("posix=1 ", "posix=0 "))
    source = cufile_source(stand_in(tmp_path, f"print(open({str(said)!r}).read())"), serving)
    sampler = Sampler([source], hz=10)
    await sampler.start()
    try:
        snapshot = await until(sampler, "ok")
        assert snapshot.sources[0].state == "live"
        said.write_text(text(500))
        snapshot = await until(sampler, "warning")
        (found,) = check(snapshot)
        assert "501 of 78,197 operations on its compatibility path (posix=501)" in found.evidence
        labels = next(n.labels for n in snapshot.counters if n.name == "cufile_posix_ops")
        assert (labels["name"], labels["gpu"]) == ("vllm", "2")
    finally:
        await sampler.close()


async def until(sampler: Sampler, verdict: str) -> Snapshot:
    deadline = time.monotonic() + 10
    async for snapshot in sampler.snapshots():
        if [found.verdict for found in snapshot.checks if found.id == "cufile-posix"] == [verdict]:
            return snapshot
        assert time.monotonic() < deadline, snapshot
    raise AssertionError


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("sys.stderr.write('error opening gds stats for pid\\n'); sys.exit(1)", "profile.cufile_stats"),
        ("", "profile.cufile_stats"),
        ("print('<html>what?</html>')", "printed no statistics: '<html>what?</html>'"),
        ("print('cuFile STATS VERSION : 9')", "an unknown version"),
        ("sys.stdout.buffer.write(bytes(range(256)) * 900)", "printed no statistics"),
        ("import os; os.kill(os.getpid(), 11)", "profile.cufile_stats"),
        ("time.sleep(60)", "more than 0.5 s"),
        ("while True: print('x' * 9999)", "more than 0.5 s"),
    ],
)
def test_one_that_says_nothing_useful_is_left_alone(
    tmp_path: Path, serving: Processes, monkeypatch: pytest.MonkeyPatch, body: str, words: str
) -> None:
    monkeypatch.setattr(cufile, "DEADLINE_S", 0.5 if "more than" in words else 10.0)
    calls = tmp_path / "calls"
    looking = Cufile(stand_in(tmp_path, f"open({str(calls)!r}, 'a').write('x')\n{body}"), serving)
    for _ in range(3):
        reading = looking.look()
        assert words in reading.quiet
        assert reading.values == {}
    assert calls.read_text() == "x", "asked once, and not again before a minute is over"


def test_below_level_three_the_path_is_not_known(tmp_path: Path, serving: Processes) -> None:
    below = text().partition("PER_GPU STATS")[0]
    reading = Cufile(stand_in(tmp_path, f"print({below!r})"), serving).look()
    assert "cufile_stats 3" in reading.missing
    assert {series.name for series in reading.values} == {"cufile_read_bytes", "cufile_write_bytes"}


def test_without_the_program(tmp_path: Path, serving: Processes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceGone, match="not installed"):
        Cufile(None, serving).look()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gds_stats(tmp_path) is None
    tools = tmp_path / "cuda-13.0/gds/tools"
    tools.mkdir(parents=True)
    (tools / "gds_stats").touch()
    assert find_gds_stats(tmp_path) == str(tools / "gds_stats")
    stand_in(tmp_path, "")
    assert find_gds_stats(tmp_path) == str(tmp_path / "gds_stats"), "the one on the path comes first"
    assert "cufile" in [source.name for source in discovery.host_sources(None)]


def test_nobody_serves(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    reading = Cufile(stand_in(tmp_path, "sys.exit(9)"), Processes(tmp_path / "proc")).look()
    assert "no serving process" in reading.quiet
