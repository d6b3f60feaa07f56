"""Serving processes in containers and services: real processes, and a real control group where this host lets one make
it; else trees of files, written as the kernel's documentation has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvdeck.engine.telemetry.source import Reading
from kvdeck.engine.telemetry.sources.cgroups import ControlGroup, Usage, group_of, usage
from kvdeck.engine.telemetry.sources.processes import Processes

ID = "3f2a91c0d4e7" + "0123456789abcdef" * 3 + "0123"
WRITTEN = 8 << 20
WRITER = (
    "import mmap, os, sys\n"
    "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_DIRECT)\n"
    "sys.stdin.readline()\n"
    f"os.pwrite(file, mmap.mmap(-1, {WRITTEN}), 0)\n"
    "print('written', flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f"0::/system.slice/docker-{ID}.scope\n", "docker 3f2a91c0d4e7"),
        (f"12:blkio:/docker/{ID}\n11:memory:/docker/{ID}\n0::/docker/{ID}\n", "docker 3f2a91c0d4e7"),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", "podman 3f2a91c0d4e7"),
        (f"0::/kubepods.slice/kubepods-pod12_ab.slice/cri-containerd-{ID}.scope\n", "containerd 3f2a91c0d4e7"),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/crio-{ID}.scope\n", "cri-o 3f2a91c0d4e7"),
        (f"4:memory:/kubepods/burstable/pod1234/{ID}\n", "kubernetes 3f2a91c0d4e7"),
        ("0::/lxc.payload.vllm-box/system.slice\n", "lxc vllm-box"),
        ("0::/machine.slice/machine-kv\\x2ddeck.scope/payload\n", "machine kv-deck"),
        ("0::/system.slice/vllm.service\n", "vllm.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/dynamo.service\n", "dynamo.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope\n", None),
        ("9:name=systemd:/\n8:pids:/\n0::/\n", None),
        ("", None),
        ("nonsense", None),
    ],
)
def test_the_container_by_its_path(text: str, name: str | None) -> None:
    found = group_of(text)
    assert (found.name if found else None) == name


def in_tree(root: Path, path: str, **files: str) -> None:
    folder = root / path.lstrip("/")
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_version_two_from_a_tree_of_files(tmp_path: Path) -> None:
    path = f"/system.slice/docker-{ID}.scope"
    lines = "259:0 rbytes=1000 wbytes=200 rios=3 wios=4 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2\n"
    in_tree(tmp_path, path, io__stat=lines, memory__current="4096\n")
    group = group_of(f"0::{path}\n")
    assert group is not None
    assert usage(group, tmp_path) == Usage(1001, 202, 4096)
    (tmp_path / path[1:] / "io.stat").write_text("")
    assert usage(group, tmp_path) == Usage(0, 0, 4096), "it has done nothing"
    (tmp_path / path[1:] / "io.stat").unlink()
    assert usage(group, tmp_path) == Usage(None, None, 4096), "the controller is not on: not known is not 0"


def test_version_one_from_a_tree_of_files(tmp_path: Path) -> None:
    path = f"/docker/{ID}"
    lines = "8:0 Read 10\n8:0 Write 20\n8:0 Sync 30\n8:0 Total 30\n8:16 Read 5\nTotal 35\n"
    in_tree(tmp_path / "blkio", path, blkio__throttle__io_service_bytes=lines)
    in_tree(tmp_path / "memory", path, memory__usage_in_bytes="99\n")
    group = group_of(f"8:blkio:{path}\n4:memory:{path}\n")
    assert group is not None
    assert usage(group, tmp_path) == Usage(15, 20, 99)
    (tmp_path / "blkio" / path[1:] / "blkio.throttle.io_service_bytes").write_text("Total 0\n")
    assert usage(group, tmp_path) == Usage(None, None, 99), "the kernel does not count: not known is not 0"
    (tmp_path / "blkio" / path[1:] / "blkio.bfq.io_service_bytes_recursive").write_text("8:0 Read 1\n8:0 Write 2\n")
    assert usage(group, tmp_path) == Usage(1, 2, 99)


def test_a_group_out_of_sight_tells_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    group = ControlGroup("docker 1", f"/../../{ID}", "", "", True)
    assert usage(group, tmp_path) == Usage(None, None, None)


@contextmanager
def writer(tmp_path: Path, name: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process of Python's that writes past the page cache when it is told to: version 1 of the control groups counts
    what the cache writes later for nobody."""
    script = tmp_path / name
    script.write_text(WRITER)
    with subprocess.Popen(
        [sys.executable, *words, str(script), str(tmp_path / f"{name}.data")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def write(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"


def tree_of(tmp_path: Path, **processes: tuple[int, str]) -> Path:
    """A /proc with these real processes alone, each in a control group of the test's choice."""
    tree = tmp_path / "proc"
    for pid, group in processes.values():
        folder = tree / str(pid)
        folder.mkdir(parents=True)
        for name in ("cmdline", "io", "fd"):
            (folder / name).symlink_to(f"/proc/{pid}/{name}")
        (folder / "cgroup").write_text(f"0::{group}\n")
    return tree


def shown(reading: Reading) -> set[tuple[str, str, str]]:
    return {
        (series.label("name"), series.label("pid"), series.label("container"))
        for series in reading.values
        if series.name == "process_write_bytes"
    }


def test_a_container_is_found_by_one_that_serves_and_shown_with_its_id(tmp_path: Path) -> None:
    """The engine's workers, spawned by Python, say nothing on their command line; the container tells."""
    mine, other = f"/system.slice/docker-{ID}.scope", f"/system.slice/docker-{ID[::-1]}.scope"
    with (
        writer(tmp_path, "vllm") as engine,
        writer(tmp_path, "spawned.py") as worker,
        writer(tmp_path, "unrelated.py") as stranger,
    ):
        tree = tree_of(tmp_path, a=(engine.pid, mine), b=(worker.pid, mine), c=(stranger.pid, other))
        groups = tmp_path / "groups"
        in_tree(groups, mine, io__stat="8:0 rbytes=5 wbytes=7\n", memory__current="11\n")
        processes = Processes(tree, groups=groups)
        reading = processes.look_at_io()
        program = Path(sys.executable).name
        container = "docker 3f2a91c0d4e7"
        assert shown(reading) == {("vllm", str(engine.pid), container), (program, str(worker.pid), container)}
        whole = {s.name: v for s, v in reading.values.items() if s.name.startswith("container_")}
        assert whole == {"container_read_bytes": 5, "container_write_bytes": 7, "container_memory_bytes": 11}


def test_a_service_is_found_by_its_name_and_a_crowded_one_is_not(tmp_path: Path) -> None:
    with (
        writer(tmp_path, "run.py") as served,
        writer(tmp_path, "vllm") as cell,
        writer(tmp_path, "notebook.py") as other,
    ):
        notebooks = "/system.slice/jupyter.service"
        tree = tree_of(
            tmp_path, a=(served.pid, "/system.slice/vllm.service"), b=(cell.pid, notebooks), c=(other.pid, notebooks)
        )
        reading = Processes(tree, groups=tmp_path).look_at_io()
        assert {(name, pid) for name, pid, _ in shown(reading)} == {
            (Path(sys.executable).name, str(served.pid)),
            ("vllm", str(cell.pid)),
        }


@pytest.fixture
def real_group() -> Iterator[tuple[Path, str]]:
    """A control group of the test's own that is named like a container's and counts storage; and its path."""
    name = f"docker-{os.urandom(32).hex()}.scope"
    for mount, file in ((Path("/sys/fs/cgroup"), "io.stat"), (Path("/sys/fs/cgroup/blkio"), "cgroup.procs")):
        folder = mount / name
        if not (mount / "cgroup.procs").exists():
            continue  # not a control group's own file system, but a folder for several
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / file).exists():
                yield folder, name
                return
        finally:
            folder.rmdir()
    pytest.skip("this host lets nobody make a control group that counts storage")


def test_a_real_control_group_and_a_real_write(tmp_path: Path, real_group: tuple[Path, str]) -> None:
    folder, name = real_group
    try:
        os.close(os.open(tmp_path / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
    except OSError as error:
        pytest.skip(f"{tmp_path} can't be written past the page cache: {error}")
    with writer(tmp_path, "vllm") as process:
        (folder / "cgroup.procs").write_text(str(process.pid))
        tree = tmp_path / "proc"
        tree.mkdir()
        (tree / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        processes = Processes(tree)
        container = f"docker {name[7:19]}"
        assert {who for _, _, who in shown(processes.look_at_io())} == {container}
        write(process)
        written = {s.name: v for s, v in processes.look_at_io().values.items() if s.name.endswith("write_bytes")}
        assert written["process_write_bytes"] >= WRITTEN
        process.kill()
        process.wait()
    assert written.get("container_write_bytes", WRITTEN) >= WRITTEN, "all of it, or nothing said: never 0"
