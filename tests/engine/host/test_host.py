"""Facts of this host, and of hosts whose /proc and /sys are laid out in a folder."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.host import folder_facts, host_facts
from kvdeck.engine.host.folder import mount_of
from kvdeck.engine.host.gpu import driver_present, gpu_facts, parse
from kvdeck.engine.host.machine import cgroup_memory, cpu_model, infiniband_ports, last_level_cache

GB = 1 << 30


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root


def test_this_host(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    assert facts.hostname == os.uname().nodename
    assert facts.cores == len(os.sched_getaffinity(0))
    assert 0 < facts.memory_available_bytes <= facts.memory_bytes
    assert facts.memory_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert facts.open_files == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert facts.folder is not None
    assert facts.folder.path == str(tmp_path)


def test_the_mapping_is_json_and_has_what_comparisons_need(tmp_path: Path) -> None:
    facts = host_facts(tmp_path)
    mapping = orjson.loads(orjson.dumps(facts.to_mapping()))
    assert {"cpu", "cores", "memory_bytes", "kernel", "gpus", "filesystem", "hostname"} <= set(mapping)
    lasting = orjson.loads(orjson.dumps(facts.comparable()))
    assert lasting["filesystem"] == mapping["folder"]["filesystem"]
    assert "memory_available_bytes" not in lasting
    assert "free_bytes" not in str(lasting)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, (64 * GB, 50 * GB)),
        (
            {
                "proc/self/cgroup": "0::/pod/box",
                "sys/fs/cgroup/pod/box/memory.max": "max",
                "sys/fs/cgroup/pod/memory.max": str(8 * GB),
                "sys/fs/cgroup/pod/memory.current": str(5 * GB),
                "sys/fs/cgroup/pod/memory.stat": f"anon 1\ninactive_file {GB}",
            },
            (8 * GB, 4 * GB),
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/box\n0::/",
                "sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(4 * GB),
                "sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(3 * GB),
                "sys/fs/cgroup/memory/box/memory.stat": f"total_inactive_file {2 * GB}",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(1 << 62),
            },
            (4 * GB, 3 * GB),
        ),
        (
            {
                "proc/self/cgroup": "0::/box",
                "sys/fs/cgroup/box/memory.max": str(GB),
                "sys/fs/cgroup/box/memory.current": str(2 * GB),
            },
            (GB, 0),
        ),
    ],
    ids=["no group", "v2, a limit above", "v1", "over the limit"],
)
def test_memory_is_what_the_control_group_allows(
    tmp_path: Path, files: dict[str, str], expected: tuple[int, int]
) -> None:
    assert cgroup_memory(lay(tmp_path, files), 64 * GB, 50 * GB) == expected


def test_last_level_caches_are_counted_once_each(tmp_path: Path) -> None:
    files = {}
    for core, shared in ((0, "0-1"), (1, "0-1"), (2, "2-3"), (3, "2-3")):
        cache = f"sys/devices/system/cpu/cpu{core}/cache"
        files |= {f"{cache}/index0/level": "1", f"{cache}/index0/size": "32K"}
        files |= {
            f"{cache}/index3/level": "3",
            f"{cache}/index3/size": "16M",
            f"{cache}/index3/shared_cpu_list": shared,
        }
    root = lay(tmp_path, files)
    assert last_level_cache(root, {0, 1, 2, 3}) == 32 << 20
    assert last_level_cache(root, {0, 1}) == 16 << 20
    assert last_level_cache(tmp_path / "nothing", {0}) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor: 0\nmodel name\t: AMD EPYC 9654\n", "AMD EPYC 9654"),
        ("CPU implementer : 0x41\nCPU part\t: 0xd4f\n", "Neoverse V2"),
        ("CPU part : 0x123\n", "ARM part 0x123"),
    ],
)
def test_cpu_names(tmp_path: Path, text: str, name: str) -> None:
    assert cpu_model(lay(tmp_path, {"proc/cpuinfo": text})) == name


def test_infiniband_ports(tmp_path: Path) -> None:
    port = "sys/class/infiniband/mlx5_0/ports/1"
    root = lay(
        tmp_path,
        {f"{port}/state": "4: ACTIVE", f"{port}/rate": "400 Gb/sec (4X NDR)", f"{port}/link_layer": "InfiniBand"},
    )
    (found,) = infiniband_ports(root)
    assert (found.device, found.port, found.rate, found.active) == ("mlx5_0", 1, "400 Gb/sec (4X NDR)", True)


def test_the_mount_that_covers_a_folder(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:9 / /mnt/with\\040space rw shared:1 - nfs4 host:/a rw\n"
        "3 1 0:8 / /mnt/data rw - xfs /dev/nvme0n1 rw\n"
        "4 1 0:7 / /mnt/data rw - tmpfs tmpfs rw\n"
    )
    assert mount_of(Path("/mnt/with space/x"), table) == ("/mnt/with space", "nfs4", "host:/a")
    assert mount_of(Path("/mnt/data/x"), table)[1] == "tmpfs"
    assert mount_of(Path("/mnt/database"), table)[1] == "ext4"


def test_a_folder_is_probed_and_left_as_it_was(tmp_path: Path) -> None:
    facts = folder_facts(tmp_path)
    assert facts.writable
    assert facts.free_bytes > 0
    assert facts.direct_alignment in (None, 512, 4096, 65536)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_folder_is_a_fact_not_an_exception(tmp_path: Path) -> None:
    facts = folder_facts(tmp_path / "missing")
    assert not facts.writable
    assert facts.reason == "no such file or directory"


def test_gpus_or_the_reason_for_none() -> None:
    facts = gpu_facts()
    assert bool(facts.gpus) == (facts.reason is None)
    if not driver_present():
        assert facts.reason == "no NVIDIA driver is loaded"


def test_asking_a_driver_that_is_not_there_is_an_answer() -> None:
    if driver_present():
        pytest.skip("this host has an NVIDIA driver")
    child = subprocess.run(
        [sys.executable, "-c", "from kvdeck.engine.host import gpu; gpu.main()"], capture_output=True, check=True
    )
    facts = parse(orjson.loads(child.stdout))
    assert facts.gpus == ()
    assert facts.reason is not None
    assert "NVML" in facts.reason
