"""NIXL as this host has it: real agents, real backends, and reasons an operator can use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import capability, cuda, nixl, plugins, reasons, stdio
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.model.records import DEVICE_TO_DISK, HOST_TO_DEVICE, HOST_TO_DISK, HOST_TO_HOST, PATHS

without_driver = pytest.mark.skipif(driver_present(), reason="this host has an NVIDIA driver")
with_driver = pytest.mark.skipif(not driver_present(), reason="no NVIDIA driver is loaded")


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    code = f"{code}\nfrom kvdeck.engine.io.exit import leave\nleave(0)"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=False)


def test_an_agent_prints_nothing_to_stdout() -> None:
    """The worker's stdout carries events, and NIXL's own logger writes there."""
    done = in_a_process(
        "from kvdeck.engine.io import nixl\n"
        "agent = nixl.make_agent('quiet'); nixl.create_backend(agent, 'POSIX')\n"
        "print(len(agent.get_plugin_params('no such')), 'end')"
    )
    assert done.stdout == "0 end\n"
    assert "INFO" not in done.stderr


def test_the_user_s_log_level_is_kept() -> None:
    done = in_a_process(
        "import os; os.environ['NIXL_LOG_LEVEL'] = 'INFO'\nfrom kvdeck.engine.io import nixl; nixl.make_agent('loud')"
    )
    assert done.stdout == ""
    assert "Initialized NIXL agent: loud" in done.stderr


def test_the_build_that_loads_is_the_one_for_this_cuda() -> None:
    build = plugins.build()
    assert nixl.load().__name__ == f"{build}._api"
    major = plugins.cuda_major()
    assert major is None or build == f"nixl_cu{major}"


def test_plugin_parameters_and_memory_types() -> None:
    agent = nixl.make_agent("parameters")
    params, kinds = nixl.plugin_parameters(agent, "POSIX")
    assert set(plugins.POSIX_PARAMS.values()) <= set(params)
    assert set(kinds) == {"DRAM", "FILE"}
    assert plugins.plugin_files().keys() == set(agent.plugin_list)


def test_a_plugin_that_is_not_there() -> None:
    with pytest.raises(UnavailableError, match=r"no plugin WARP · fix: .*kvdeck doctor"):
        nixl.create_backend(nixl.make_agent("missing"), "WARP")


def test_a_missing_library_is_named() -> None:
    absent = next((name for name in ("INFINIA", "GPUNETIO", "LIBFABRIC") if not _loads(name)), None)
    if absent is None:
        pytest.skip("every plugin's libraries are installed here")
    with pytest.raises(UnavailableError, match=rf"{absent} doesn't load: lib.*isn't found · fix: install"):
        nixl.require_plugin(absent)


def _loads(backend: str) -> bool:
    try:
        nixl.require_plugin(backend)
    except UnavailableError:
        return False
    return True


def test_a_refused_backend_says_what_it_needs() -> None:
    with pytest.raises(UnavailableError, match="AZURE_BLOB can't start: it needs an Azure container · fix: set AZURE"):
        nixl.create_backend(nixl.make_agent("refused"), "AZURE_BLOB")


def test_cufile_errors_are_put_into_words() -> None:
    """The only witness here is what GDS wrote on a host with cuFile 1.14 and no driver."""
    words = (
        "E1122 00:06:45.9 7769 gds_utils.cpp:26] cuFileDriverOpen failed: NVFS driver initialization error (err=5033)"
    )
    error = reasons.not_created("GDS", "NIXL_ERR_BACKEND", words)
    assert "nvidia-fs" in error.what
    assert "5033" in error.what
    assert "modprobe nvidia-fs" in error.fix


def test_words_of_native_code_are_caught_and_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    with stdio.captured() as words:
        os.write(1, b"to stdout\n")
        os.write(2, b"to stderr\n")
    assert words.text == "to stdout\nto stderr\n"
    out, err = capfd.readouterr()
    assert out == ""
    assert err == words.text


def test_a_path_that_works_is_let_through() -> None:
    capability.check(HOST_TO_HOST, "UCX")
    capability.check(HOST_TO_DISK, "POSIX", api="AIO")


@pytest.mark.parametrize(
    ("path", "backend", "reason"),
    [
        (HOST_TO_HOST, "POSIX", "POSIX doesn't serve HostToHost · fix: use UCX"),
        (HOST_TO_DISK, "GUSLI", "GUSLI"),
        (HOST_TO_DISK, "WARP", "NIXL has no plugin WARP"),
    ],
)
def test_a_path_that_can_not_run_is_refused(path: str, backend: str, reason: str) -> None:
    with pytest.raises(UnavailableError) as refusal:
        capability.check(path, backend)
    assert reason in str(refusal.value)
    assert refusal.value.fix


@without_driver
@pytest.mark.parametrize("backend", plugins.SERVES[DEVICE_TO_DISK])
def test_without_a_driver_the_device_paths_say_so(backend: str) -> None:
    with pytest.raises(UnavailableError, match="no NVIDIA driver is loaded · fix: install"):
        capability.check(DEVICE_TO_DISK, backend)


@without_driver
def test_without_a_driver_gds_is_not_even_created() -> None:
    """cuFile 1.17 spins for ever there."""
    with pytest.raises(UnavailableError, match="no NVIDIA driver is loaded"):
        capability.check(HOST_TO_DISK, "GDS")


@without_driver
def test_without_a_driver_every_gpu_function_raises() -> None:
    buffer = cuda.DeviceBuffer(0, 0, 8)
    for call in (
        cuda.require,
        cuda.memory_info,
        lambda: cuda.allocate(0, 8),
        lambda: cuda.release(buffer),
        lambda: cuda.allocate_pinned(8),
        lambda: cuda.fill(buffer, 0, 8),
        lambda: cuda.read(buffer, 0, 8),
        lambda: cuda.poison(buffer),
        lambda: cuda.copy(0, "DeviceToDevice", 0, 0, 8),
    ):
        with pytest.raises(UnavailableError, match="no NVIDIA driver"):
            call()


def test_a_gpu_buffer_is_never_overrun() -> None:
    with pytest.raises(ValueError, match="outside"):
        cuda.fill(cuda.DeviceBuffer(0, 4096, 8), 0, 9)


def test_every_path_has_a_backend() -> None:
    assert tuple(plugins.SERVES) == PATHS
    assert all(plugins.SERVES[path] for path in PATHS)
    assert plugins.memory_of(HOST_TO_DEVICE) == ("DRAM", "VRAM")


@pytest.mark.gpu
@with_driver
def test_bytes_come_back_from_the_gpu() -> None:
    from kvdeck.engine.doctor.probe.transfer import SIZE, Pages

    pages = Pages()
    first, second = cuda.allocate(0, SIZE), cuda.allocate(0, SIZE)
    try:
        cuda.fill(first, pages.address, SIZE)
        cuda.poison(second)
        assert cuda.copy(0, "DeviceToDevice", second.address, first.address, SIZE) > 0
        pages.poison()
        cuda.read(second, pages.address, SIZE)
        assert pages.holds(pages.pattern)
    finally:
        cuda.release(first)
        cuda.release(second)


CUFILE_SAID = "cufio-udev:67 udev property not found: ID_FS_USAGE vda\n"
"""A line of cuFile 1.15's log on a machine whose /run/udev is empty."""


@pytest.mark.parametrize(
    "words",
    [
        "E1 gds_utils.cpp:26] cuFileHandleRegister failed: file descriptor is not registered (err=5027)\n",
        "E1 gds_mt_backend.cpp:224] GDS_MT: failed to create file handle: file register error: error=5027, fd=37\n",
    ],
)
def test_a_file_that_cufile_refuses_is_told_with_cufile_s_reason(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "cufile.log"
    monkeypatch.setenv("CUFILE_LOGFILE_PATH", str(log))
    assert "see cufile.log" in str(reasons.not_registered("GDS", "FILE", "NIXL_ERR_BACKEND", words))
    log.write_text(CUFILE_SAID)
    said = str(reasons.not_registered("GDS", "FILE", "NIXL_ERR_BACKEND", words))
    assert "registering a file with GDS failed: cuFile doesn't find vda in udev's database" in said
    assert "/run/udev" in said


def test_what_decides_nothing_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_HOME", "CUDA_VERSION", "NIXL_LOG_LEVEL", "UCX_LOG_FILE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert "CUDA_VISIBLE_DEVICES=3" in str(reasons.step_failed("UCX", "NIXL_ERR_BACKEND"))
    assert "=x" not in str(reasons.step_failed("UCX", "NIXL_ERR_BACKEND"))


def test_plugins_are_searched_where_nixl_searches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = plugins.plugin_files()
    assert "POSIX" in installed
    monkeypatch.setenv("NIXL_PLUGIN_DIR", "")
    assert plugins.plugin_files() == {}
    monkeypatch.setenv("NIXL_PLUGIN_DIR", str(tmp_path))
    (tmp_path / "libplugin_MINE.so").symlink_to(installed["POSIX"])
    assert plugins.plugin_files() == {"MINE": tmp_path / "libplugin_MINE.so"}
    monkeypatch.delenv("NIXL_PLUGIN_DIR")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert plugins.plugin_files() == {}
