"""`kvdeck profile`: a plan run by the real engine, by a program called nixlbench, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvdeck.engine.planning.nixlbench import nixlbench_params
from kvdeck.engine.planning.nixlbench_runs import bytes_moved, native_specs, path_of
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.text.nixlbench_report import as_row
from tests.sessions.formats.test_nixlbench import OUTPUT

Kvdeck = Callable[..., "subprocess.CompletedProcess[str]"]
PLAN = ["profile", "--model", "qwen3-0.6b", "--isl", "64", "--page_size", "16"]


@pytest.fixture
def kvdeck(tmp_path: Path) -> Iterator[Kvdeck]:
    def run(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kvdeck.app.cli.main", *arguments],
            env={**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run"),
                 "PATH": f"{path}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    yield run
    run("engine", "stop", "--force")


def test_a_plan_runs_and_is_shown_in_both_columns(kvdeck: Kvdeck, tmp_path: Path) -> None:
    done = kvdeck(*PLAN, "--num_iter", "32", "--warmup_iter", "16", "--session", "mine", "--check_consistency", "true",
                  "--prepared_xfer")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "kvdeck: --prepared_xfer changes nothing: the engine always makes" in done.stderr
    assert done.stdout.startswith("Model Config: the options\nISL: 64 tokens\n")
    assert "In nixlbench's columns:" in done.stdout
    assert "per descriptor" in done.stdout
    (result,) = Store(tmp_path / "home").load("mine").results
    assert (result.path, result.block_bytes, result.batch) == ("HostToHost", 28 * 2048 * 16, 4)
    assert (result.iterations, result.verified) == (32, True)
    row = as_row(result)
    assert row is not None
    assert row.latency_us is not None
    assert row.prep_us is not None
    assert result.request_us is not None
    # nixlbench's total time: all rounds and the request's creation, so at least the requests' own times
    total_us = row.latency_us * 32 * result.batch
    assert total_us >= result.request_us.mean * 32
    assert row.gb_per_s == pytest.approx(result.bytes / total_us / 1e3)


def test_the_posix_backend_takes_its_pool_and_queue(kvdeck: Kvdeck, tmp_path: Path) -> None:
    sizes = ["--posix_ios_pool_size", "128", "--posix_kernel_queue_size=32", "--pipeline_depth", "2"]
    asked = ["--backend", "POSIX", "--source", "memory", "--filepath", str(tmp_path), "--num_iter", "16", *sizes]
    done = kvdeck(*PLAN, *asked, "--warmup_iter", "0", "--session", "mine")
    assert done.returncode == 0, done.stderr
    (result,) = Store(tmp_path / "home").load("mine").results
    assert result.settings["params"].items() >= {"ios_pool_size": "128", "kernel_queue_size": "32"}.items()
    assert result.settings["pipeline_depth"] == 2


def test_a_scheme_of_several_devices(kvdeck: Kvdeck, tmp_path: Path) -> None:
    asked = ["--scheme", "manytoone", "--num_initiator_dev", "2", "--num_iter", "16", "--warmup_iter", "16"]
    done = kvdeck(*PLAN, *asked, "--session", "mine", "--check_consistency")
    assert done.returncode == 0, done.stderr
    assert "manytoone SG: 2 devices to 1, 2 pairs, 3 processes" in done.stdout
    assert "per initiator" in done.stdout
    (result,) = Store(tmp_path / "home").load("mine").results
    assert (result.verified, result.batch, result.iterations) == (True, 4, 32)
    assert result.bytes == 32 * 4 * result.block_bytes
    assert len(result.settings["lanes_gb_per_s"]) == 2


def program(folder: Path, status: int) -> str:
    folder.mkdir()
    (folder / "output").write_text(OUTPUT)
    (folder / "nixlbench").write_text(
        f'#!/bin/sh\necho "$@" > "{folder}/asked"\ncat "{folder}/output"\nexit {status}\n'
    )
    (folder / "nixlbench").chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("status", [0, 3])
def test_nixlbenchs_rows_and_status_are_kept(kvdeck: Kvdeck, tmp_path: Path, status: int) -> None:
    where = program(tmp_path / "bin", status)
    done = kvdeck(*PLAN, "--exec", "nixlbench", "--session", "theirs", "--backend", "posix", path=where)
    assert done.returncode == status
    assert OUTPUT.rstrip() in done.stdout
    session = Store(tmp_path / "home").read("theirs")
    assert session.state == ("failed" if status else "done")
    assert [result.block_bytes for result in session.results] == [4096, 8192]
    assert [result.step for result in session.results] == [0, 1]
    asked = (tmp_path / "bin" / "asked").read_text()
    assert "--backend=POSIX" in asked
    assert "--start_block_size=917504" in asked


def test_json_of_the_tool(kvdeck: Kvdeck, tmp_path: Path) -> None:
    done = kvdeck(*PLAN, "--exec", "nixlbench", "--json", path=program(tmp_path / "bin", 0))
    assert json.loads(done.stdout)["rows"] == 2


TWO = """#!/bin/sh
if mkdir "{folder}/first" 2>/dev/null; then
    echo "$@" > "{folder}/asked.0"
    echo "Init nixl worker, dev all rank 0, type initiator"
    until [ -e "{folder}/asked.1" ]; do sleep 0.02; done
    cat "{folder}/output"
    kill -SEGV $$
fi
echo "Init nixl worker, dev all rank 1, type target"
echo "$@" > "{folder}/asked.1"
{last}
"""


@pytest.mark.parametrize("last", ["exit 0", "exec sleep 600"])
def test_over_ucx_nixlbench_gets_its_second_process(kvdeck: Kvdeck, tmp_path: Path, monkeypatch, last: str) -> None:
    """The first has its rank before the second starts, neither outlives the run, and the crash is in the reason."""
    folder = Path(program(tmp_path / "bin", 0))
    (folder / "nixlbench").write_text(TWO.format(folder=folder, last=last))
    monkeypatch.setenv("OF_THIS_TEST", str(tmp_path))
    done = kvdeck(*PLAN, "--exec", "nixlbench", "--session", "theirs", path=str(folder))
    assert done.returncode == 128 + signal.SIGSEGV
    first, second = ((folder / f"asked.{rank}").read_text().split() for rank in (0, 1))
    assert first == second
    assert {"--runtime_type=ASIO", "--start_block_size=917504"} <= set(first)
    (port,) = (text for text in first if text.startswith("--asio_port="))
    assert f"2 processes of nixlbench, which meet by ASIO on port {port.partition('=')[2]}" in done.stderr
    assert "nixlbench 2: Init nixl worker, dev all rank 1, type target" in done.stderr
    assert OUTPUT.rstrip() in done.stdout
    kept = Store(tmp_path / "home").load("theirs")
    assert (kept.state, [result.block_bytes for result in kept.results]) == ("done", [4096, 8192])
    assert kept.reason == "nixlbench ended with status 139 after 2 rows, its last"
    until(lambda: not marked(tmp_path))


def test_a_table_that_stays_short_is_a_failure(kvdeck: Kvdeck, tmp_path: Path) -> None:
    where = program(tmp_path / "bin", 0)
    sweep = ["--start_batch_size", "1", "--max_batch_size", "8"]
    done = kvdeck(*PLAN, "--exec", "nixlbench", "--backend", "posix", "--session", "theirs", *sweep, path=where)
    assert done.returncode == 0
    kept = Store(tmp_path / "home").load("theirs")
    assert (kept.state, kept.reason) == ("failed", "nixlbench ended with status 0 after 2 rows of 4")


def test_secrets_are_not_in_the_session(kvdeck: Kvdeck, tmp_path: Path) -> None:
    where = program(tmp_path / "bin", 0)
    secret = ["--backend", "OBJ", "--obj_secret_key", "s3cr3t"]
    assert kvdeck(*PLAN, "--exec", "nixlbench", "--session", "theirs", *secret, path=where).returncode == 0
    assert "--obj_secret_key=s3cr3t" in (tmp_path / "bin" / "asked").read_text()
    files = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if b"s3cr3t" in path.read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "named", "status"),
    [
        (["--num_initiator_dev", "2"], "scheme pairwise has 2 initiator and 1 target devices", 2),
        (["--scheme", "onetomany", "--num_initiator_dev", "2"], "give one initiator device", 2),
        (["--scheme", "manytoone", "--num_target_dev", "2"], "give one target device", 2),
        (["--scheme", "tp", "--tp", "2", "--destination", "gpu"], "--num_target_dev 2 can't run natively with VRAM", 1),
        (["--worker_type", "nvshmem"], "--worker_type nvshmem", 1),
        (["--backend", "OBJ"], "backend OBJ", 1),
        (["--etcd_endpoints", "http://e", "--num_initiator_dev", "2", "--num_target_dev", "2"], "4 processes", 1),
        (["--runtime_type", "ASIO"], "KVDECK_RENDEZVOUS_SECRET=$(openssl rand -hex 32)", 2),
        (["--exec", "nixlbench"], "nixlbench is not on PATH", 1),
        (["--num_requests", "10000000"], "lower --num_requests", 2),
        (["--model_configs", "a*.yaml"], "a*.yaml", 2),
        (["--session", "../x"], "'../x'", 2),
    ],
)
def test_what_can_not_run_is_refused_by_name(kvdeck: Kvdeck, tmp_path: Path, arguments, named, status) -> None:
    done = kvdeck(*PLAN, *arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert named in done.stderr
    assert not (tmp_path / "home").exists()


def test_a_sweep_over_a_mebibyte_is_two_runs() -> None:
    params = nixlbench_params(4096, 1, {"start_block_size": 1 << 18, "max_block_size": 1 << 22, "max_batch_size": 4})
    small, large = (spec_from_mapping(spec) for spec in native_specs(params))
    assert small.sweep_block_sizes is not None
    assert large.sweep_block_sizes is not None
    assert small.sweep_block_sizes.values() == (1 << 18, 1 << 19, 1 << 20)
    assert large.sweep_block_sizes.values() == (1 << 21, 1 << 22)
    assert (small.iterations, large.iterations) == (1008, 63)
    assert bytes_moved(native_specs(params)) == 7 * sum(
        size * (1120 if size <= 1 << 20 else 70) for size in (1 << shift for shift in range(18, 23))
    )


@pytest.mark.parametrize(
    ("given", "source", "destination", "path"),
    [
        ({}, None, None, "HostToHost"),
        ({"backend": "UCX"}, "memory", "gpu", "HostToDevice"),
        ({"backend": "UCX", "op_type": "READ"}, "memory", "gpu", "DeviceToHost"),
        ({}, "file", "memory", "DiskToHost"),
        ({}, "memory", "file", "HostToDisk"),
        ({}, "file", "gpu", "DiskToDevice"),
        ({"backend": "GDS_MT"}, "gpu", None, "DeviceToDisk"),
    ],
)
def test_the_path_follows_the_sides(given, source, destination, path: str) -> None:
    params = nixlbench_params(1 << 20, 4, given, source, destination)
    assert path_of(params) == path
    for spec in native_specs(params):
        assert spec_from_mapping(spec).paths == (path,)


def test_a_backend_the_engine_has_not_is_named() -> None:
    with pytest.raises(UnavailableError, match="Mooncake"):
        native_specs(nixlbench_params(4096, 1, {"backend": "mooncake"}))


NEVER_ENDS = """#!/bin/sh
sleep 600 &
setsid sleep 600 &
sed 8q "{folder}/output"
touch "{folder}/begun"
wait
"""


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)],
)
def test_whatever_ends_it_nothing_of_nixlbench_lives_on(tmp_path: Path, number: int, status: int, times: int) -> None:
    folder = Path(program(tmp_path / "bin", 0))
    (folder / "nixlbench").write_text(NEVER_ENDS.format(folder=folder))
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run"),
                   "PATH": f"{folder}:{os.environ['PATH']}", "OF_THIS_TEST": str(tmp_path)}  # fmt: skip
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *PLAN, "--exec", "nixlbench", "--session", "theirs"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as kvdeck:
        until(lambda: (folder / "begun").exists())
        assert len(marked(tmp_path)) >= 4
        for _ in range(times):
            kvdeck.send_signal(number)
        out, _ = kvdeck.communicate(timeout=30)
    assert kvdeck.returncode == status, out
    until(lambda: not marked(tmp_path))
    store = Store(tmp_path / "home")
    kept = store.load("theirs")
    if number == signal.SIGKILL:
        assert kept.state == "interrupted"
    else:
        assert f"cancelled ({signal.Signals(number).name})" in out
        assert kept.state == "cancelled"
        assert kept.reason == f"kvdeck was ended by {signal.Signals(number).name} after {len(kept.results)} rows"


def marked(folder: Path) -> list[int]:
    """Living processes of a test, by their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                ours = f"OF_THIS_TEST={folder}".encode() in (entry / "environ").read_bytes().split(b"\0")
                zombie = (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
                if ours and not zombie:
                    found.append(int(entry.name))
    return found


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
