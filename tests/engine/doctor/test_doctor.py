"""The doctor on this host, and on hosts that refuse, hang and crash."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvdeck.engine.doctor import report as doctor
from kvdeck.engine.doctor.probe.memory import transports_in
from kvdeck.engine.doctor.probes import Probed, probe, probe_command
from kvdeck.engine.host import folder_facts, host_facts
from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import plugins
from kvdeck.sessions.model.records import PATHS

LIMIT = "20"
"""Generous: other work on the machine must not fail a test."""
REFUSING = Path(__file__).parents[3] / "tests" / "support/programs/refusing_server.py"


def ask(folder: Path, *before: str) -> dict[str, Any]:
    command = [
        *before,
        sys.executable,
        "-m",
        "kvdeck.engine.doctor.report",
        "--json",
        "--limit",
        LIMIT,
        "--folder",
        str(folder),
    ]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    if b"the kernel takes no filter" in done.stderr:
        pytest.skip(done.stderr.decode().strip())
    found: dict[str, Any] = orjson.loads(done.stdout)
    assert done.returncode == (0 if found["ready"] else 1)
    return found


def row(found: dict[str, Any], path: str, backend: str, mode: str | None = None) -> dict[str, Any]:
    (it,) = [row for row in found["paths"] if (row["path"], row["backend"], row["mode"]) == (path, backend, mode)]
    return dict(it)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("target")
    report = ask(folder)
    assert list(folder.iterdir()) == [], "a probe left a file behind"
    return report


def test_every_path_and_backend_has_one_row(found: dict[str, Any]) -> None:
    rows = [(row["path"], row["backend"], row["mode"]) for row in found["paths"]]
    assert len(set(rows)) == len(rows)
    assert [path for path in PATHS for _ in plugins.SERVES[path]] == [
        path for path, _, mode in rows if mode != "loopback"
    ]


@pytest.mark.parametrize("mode", ["two processes", "loopback"])
def test_ucx_moves_bytes_here(found: dict[str, Any], mode: str) -> None:
    it = row(found, "HostToHost", "UCX", mode)
    assert it["state"] != "unavailable", it["reason"]
    assert it["transports"]


@pytest.mark.parametrize("path", ["HostToDisk", "DiskToHost"])
def test_posix_moves_bytes_here(found: dict[str, Any], path: str) -> None:
    it = row(found, path, "POSIX")
    assert it["state"] != "unavailable", it["reason"]
    assert it["api"] in it["apis"]
    assert it["apis"]["POSIXAIO"].startswith(("ready", "degraded"))


@pytest.mark.skipif(driver_present(), reason="this host has an NVIDIA driver")
def test_without_a_driver_gds_and_device_rows_say_what_is_missing(found: dict[str, Any]) -> None:
    rows = [row for row in found["paths"] if "GDS" in row["backend"] or "Device" in row["path"]]
    assert len(rows) == 14
    for it in rows:
        assert it["state"] == "unavailable"
        assert "no NVIDIA driver" in it["reason"]
        assert "install the NVIDIA driver" in it["fix"]


@pytest.mark.gpu
@pytest.mark.skipif(not driver_present(), reason="no NVIDIA driver is loaded")
@pytest.mark.parametrize(
    ("path", "mode", "transport"),
    [
        ("HostToDevice", None, "cuda_copy/cuda"),
        ("DeviceToHost", None, "cuda_copy/cuda"),
        ("DeviceToDevice", "loopback", "cuda_copy/cuda"),
        ("DeviceToDevice", "two processes", "cuda_ipc/cuda"),
    ],
)
def test_a_gpu_s_transports_are_named(found: dict[str, Any], path: str, mode: str | None, transport: str) -> None:
    it = row(found, path, "UCX", mode)
    assert it["state"] != "unavailable", it["reason"]
    assert transport in it["transports"]


def test_plugins_are_all_there_with_what_they_take(found: dict[str, Any]) -> None:
    named = {plugin["name"]: plugin for plugin in found["plugins"]}
    assert set(named) == set(plugins.plugin_files())
    assert named["POSIX"]["creates"] is True
    assert "use_uring" in named["POSIX"]["params"]
    assert named["UCX"]["memory_types"] == ["DRAM", "VRAM"]
    for plugin in named.values():
        assert plugin["creates"] or (plugin["reason"] and plugin["fix"])


def test_the_report_names_versions_and_host(found: dict[str, Any]) -> None:
    assert found["nixl"] == {"version": plugins.nixl_version(), "build": plugins.build()}
    assert found["host"]["folder"]["writable"] is True
    assert found["cufile"]["config"].endswith(".json")
    assert found["ready"] is True


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers of the refused system calls are x86-64's")
class TestRefused:
    def test_without_copies_between_processes_ucx_is_degraded(self, tmp_path: Path) -> None:
        """310 and 311: process_vm_readv and process_vm_writev, which UCX's cma needs."""
        it = row(ask(tmp_path, sys.executable, str(REFUSING), "310,311"), "HostToHost", "UCX", "two processes")
        assert it["state"] == "degraded"
        assert "tcp/" in it["reason"]
        assert "SYS_PTRACE" in it["fix"] or "ptrace_scope" in it["fix"]

    def test_without_io_uring_posix_uses_another_api(self, tmp_path: Path) -> None:
        """425: io_uring_setup."""
        it = row(ask(tmp_path, sys.executable, str(REFUSING), "425"), "HostToDisk", "POSIX")
        assert it["api"] == "AIO"
        assert it["apis"]["URING"].startswith("unavailable: io_uring is ")


def test_a_folder_in_memory_is_degraded() -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or not folder_facts(shm).in_memory:
        pytest.skip("no filesystem in memory here")
    it = row(ask(shm), "DiskToHost", "POSIX")
    assert it["state"] == "degraded"
    assert "no disk is measured" in it["reason"]


def test_a_missing_folder_blames_the_folder(tmp_path: Path) -> None:
    report = ask(tmp_path / "missing")
    it = row(report, "HostToDisk", "POSIX")
    assert it["state"] == "unavailable"
    assert "missing: no such file or directory" in it["reason"]
    assert "--folder" in it["fix"]
    assert next(plugin for plugin in report["plugins"] if plugin["name"] == "POSIX")["creates"] is True


def scripted(bodies: dict[str, str]) -> Any:
    """Children that tell what they try, like real probes, and then do what the body says."""
    say = "import os, sys, signal, time\ndef say(**line):\n    import json; print(json.dumps(line), flush=True)\n"

    def command(checks: Sequence[str]) -> list[str]:
        steps = "".join(f"say(trying={check!r})\n{bodies[check]}\nsay(done={check!r})\n" for check in checks)
        return [sys.executable, "-c", say + steps]

    return command


ROW = "say(row={'path': 'HostToHost', 'backend': 'UCX', 'mode': 'loopback', 'state': 'ready'})"


def test_a_probe_that_hangs_is_ended_and_what_it_told_is_kept() -> None:
    start = time.monotonic()
    found = probe([["UCX"], ["POSIX:AIO"]], scripted({"UCX": ROW + "\ntime.sleep(600)", "POSIX:AIO": ""}), 1.0)
    assert time.monotonic() - start < 60
    assert [row.state for row in found.rows] == ["ready"]
    assert "no answer within 1 s while trying UCX" in found.failures["UCX"].what
    assert "KVDECK_DOCTOR_LIMIT" in found.failures["UCX"].fix
    assert "POSIX:AIO" not in found.failures


def test_what_comes_after_a_hang_is_still_tried() -> None:
    bodies = {"OBJ": "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)", "UCX": ROW}
    found = probe([["OBJ", "UCX"]], scripted(bodies), 4.0)
    assert "no answer within 2 s while trying OBJ" in found.failures["OBJ"].what
    assert len(found.rows) == 1


def test_a_probe_that_crashes_is_named_with_its_signal_and_last_words() -> None:
    bodies = {"GDS": "print('cuFile is unwell', file=sys.stderr)\nos.kill(os.getpid(), signal.SIGSEGV)", "UCX": ROW}
    found = probe([["GDS", "UCX"]], scripted(bodies), 20.0)
    assert "trying GDS ended with SIGSEGV: cuFile is unwell" in found.failures["GDS"].what
    assert len(found.rows) == 1


def test_a_crash_reaches_the_rows(tmp_path: Path) -> None:
    probed = probe([["UCX"]], scripted({"UCX": "os.kill(os.getpid(), signal.SIGABRT)"}), 20.0)
    report = doctor.assembled(host_facts(tmp_path), probed)
    it = row(report, "HostToHost", "UCX", "two processes")
    assert it["state"] == "unavailable"
    assert "SIGABRT" in it["reason"]
    assert report["ready"] is False
    assert "not tried" in row(report, "HostToDisk", "POSIX")["reason"]


def test_a_real_probe_is_ended_with_its_second_process(tmp_path: Path) -> None:
    """Whatever the probe was doing: nothing of its process group is left."""
    real = probe_command(tmp_path)

    def remembered(checks: Sequence[str]) -> list[str]:
        return ["sh", "-c", f'echo $$ > {tmp_path}/group; exec "$@"', "sh", *real(checks)]

    probe([["UCX"]], remembered, 0.3)
    group = int((tmp_path / "group").read_text())
    deadline = time.monotonic() + 20
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            break
        assert time.monotonic() < deadline, "a probe outlived its limit"


def test_no_probe_means_not_ready(tmp_path: Path) -> None:
    assert doctor.assembled(host_facts(tmp_path), Probed())["ready"] is False


def test_the_doctor_itself_loads_no_native_library() -> None:
    code = "import sys, kvdeck.engine.doctor.report; print(sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("nixl", "nixl_cu12", "nixl_cu13", "numpy", "cupy", "pynvml", "textual"):
        assert f"'{name}'" not in loaded
    assert "'kvdeck'" in loaded


UCX_SAID = """\
[1.5] [vm:1 :0]   | init intra-node cfg#2                                           |
[1.5] [vm:1 :0]   +--------+--------------------+-----------------------------------+
[1.5] [vm:1 :0]   | remote memory write by ucp_put* from host memory to cuda/dev[1] |
[1.5] [vm:1 :0]   | Range  |    Description     |              Config               |
[1.5] [vm:1 :0]   | 0..inf | software emulation | tcp/lo                            |
[1.5] [vm:1 :0]   | init intra-node cfg#2                                           |
[1.5] [vm:1 :0]   | active message by ucp_am_send* from host memory |
[1.5] [vm:1 :0]   | 8185..inf | multi-frag copy-in | tcp/eth0                       |
[1.5] [vm:1 :0]   | init intra-node cfg#2                                           |
[1.5] [vm:1 :0]   | remote memory write by ucp_put*(multi) from cuda/GPU0 to cuda/dev[1] |
[1.5] [vm:1 :0]   | Range  | Description |                    Config                     |
[1.5] [vm:1 :0]   | 0..inf | zero-copy   | cuda_ipc/cuda                                 |
[1.5] [vm:1 :0]   | remote memory read by ucp_get*(multi) into cuda/GPU0 from cuda/dev[1] |
[1.5] [vm:1 :0]   | 0..inf | software emulation | tcp/lo                                  |
"""
"""As UCX 1.20 in the NIXL 1.5.1 wheel printed it on an H100, without the colours."""


@pytest.mark.parametrize(
    ("heading", "transports"),
    [
        ("write .*cuda.*cuda", ("cuda_ipc/cuda",)),
        ("read .*cuda.*cuda", ("tcp/lo",)),
        ("write .* from host.* to cuda", ("tcp/lo",)),
        ("write .* from cuda.* to host", ()),
        ("", ("tcp/lo", "cuda_ipc/cuda")),
    ],
)
def test_transports_are_those_of_the_operation_and_the_memory_asked_for(
    heading: str, transports: tuple[str, ...]
) -> None:
    assert transports_in(UCX_SAID, heading) == transports


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1e300"])
def test_a_limit_that_is_no_time_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KVDECK_DOCTOR_LIMIT", text)
    assert doctor.main(["--json"]) == 2
    assert capsys.readouterr().err == f"KVDECK_DOCTOR_LIMIT is {text!r} · fix: give a number of seconds above 0\n"
