"""Facts of CPU, memory, kernel limits and InfiniBand ports, from /proc and /sys."""

from __future__ import annotations

import os
import platform
import re
import resource
from pathlib import Path

from kvdeck.engine.host.facts import GpuFacts, HostFacts, InfiniBandPort
from kvdeck.engine.host.folder import folder_facts
from kvdeck.engine.host.gpu import gpu_facts
from kvdeck.engine.host.kernel_files import kernel_number, kernel_text

_ARM_CORES = {
    "0xd0c": "Neoverse N1",
    "0xd40": "Neoverse V1",
    "0xd49": "Neoverse N2",
    "0xd4f": "Neoverse V2",
    "0xd85": "Cortex-X925",
}


def host_facts(folder: Path | None = None, *, gpu: GpuFacts | None = None) -> HostFacts:
    """Return this host's facts; takes milliseconds, or up to 2 s if a GPU driver is queried.

    Args:
        folder: Target folder to examine; None: no folder facts.
        gpu: GPU facts if known already; None queries the driver.
    """
    root = Path("/")
    memory = _meminfo(root)
    total, available = cgroup_memory(root, memory["MemTotal"] * 1024, memory["MemAvailable"] * 1024)
    return HostFacts(
        hostname=platform.node(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=cpu_model(root),
        # Those of this process: a container or taskset may give it fewer than the host has.
        cores=len(os.sched_getaffinity(0)),
        cpu_quota=_cpu_quota(root),
        numa_nodes=max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        last_level_cache_bytes=last_level_cache(root, os.sched_getaffinity(0)),
        memory_bytes=total,
        memory_available_bytes=available,
        huge_pages=_chosen(kernel_text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        huge_page_bytes=memory.get("Hugepagesize", 0) * 1024,
        huge_pages_reserved=memory.get("HugePages_Total", 0),
        huge_pages_free=memory.get("HugePages_Free", 0),
        memlock_bytes=memlock_bytes(),
        open_files=_limit(resource.RLIMIT_NOFILE),
        aio_max=kernel_switch("fs/aio-max-nr"),
        aio_used=kernel_switch("fs/aio-nr"),
        io_uring_disabled=kernel_switch("kernel/io_uring_disabled"),
        ptrace_scope=kernel_switch("kernel/yama/ptrace_scope"),
        nvidia_fs=_nvidia_fs(root),
        gpu=gpu_facts() if gpu is None else gpu,
        infiniband=infiniband_ports(root),
        folder=None if folder is None else folder_facts(folder),
    )


def memlock_bytes() -> int | None:
    """Return the bytes that this process may lock in memory; None if unlimited."""
    return _limit(resource.RLIMIT_MEMLOCK)


def kernel_switch(name: str) -> int | None:
    """Return a number from /proc/sys; None if this kernel doesn't have it."""
    return kernel_number(Path("/proc/sys") / name)


def cpu_model(root: Path) -> str:
    """Return the CPU's name; ARM kernels report only part numbers, which `_ARM_CORES` maps for common server cores."""
    lines = (kernel_text(root / "proc/cpuinfo") or "").splitlines()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if "model name" in fields:
        return fields["model name"]
    part = fields.get("CPU part")
    return _ARM_CORES.get(part or "") or (f"ARM part {part}" if part else platform.machine())


def last_level_cache(root: Path, cores: set[int]) -> int | None:
    """Return the bytes of all distinct last-level caches of these cores; None if unknown."""
    caches: dict[tuple[str, str], int] = {}
    for core in cores:
        levels = [
            (kernel_number(index / "level") or 0, index)
            for index in (root / f"sys/devices/system/cpu/cpu{core}/cache").glob("index*")
        ]
        if not levels:
            continue
        level, index = max(levels)
        size = re.fullmatch(r"(\d+)([KMG])", kernel_text(index / "size") or "")
        if size:
            shared = kernel_text(index / "shared_cpu_list") or str(core)
            # Cores that share a cache count it once.
            caches[(str(level), shared)] = int(size[1]) << {"K": 10, "M": 20, "G": 30}[size[2]]
    return sum(caches.values()) or None


def cgroup_memory(root: Path, total: int, available: int) -> tuple[int, int]:
    """Return total and available memory in bytes, limited by this process's control groups (v1 or v2)."""
    for folder, limit_name, usage_name, cache_name in _memory_groups(root):
        limit = kernel_number(folder / limit_name)
        if limit is None or limit >= total:
            continue
        stat = dict(
            line.split() for line in (kernel_text(folder / "memory.stat") or "").splitlines() if line.count(" ") == 1
        )
        # Inactive page cache counts as used, but is given back before the limit is reached.
        used = (kernel_number(folder / usage_name) or 0) - int(stat.get(cache_name, 0))
        total, available = limit, min(available, max(0, limit - used))
    return total, available


def _memory_groups(root: Path) -> list[tuple[Path, str, str, str]]:
    """Return this process's memory group and its ancestors, with the names of their limit, usage and cache files."""
    found = []
    for line in (kernel_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            base = root / "sys/fs/cgroup"
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        own = base / group.lstrip("/")
        # The limit of any group above holds as well.
        found += [(folder, *names) for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return found


def _cpu_quota(root: Path) -> float | None:
    quotas = []
    for line in (kernel_text(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            base = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            base = root / "sys/fs/cgroup/cpu"
        else:
            continue
        own = base / group.lstrip("/")
        for folder in (own, *own.parents):
            quota, period = ((kernel_text(folder / "cpu.max") or "").split() or ["", ""])[:2]
            quota = quota or str(kernel_number(folder / "cpu.cfs_quota_us") or "")
            period = period or str(kernel_number(folder / "cpu.cfs_period_us") or "")
            if quota.isdigit() and period.isdigit():
                quotas.append(int(quota) / int(period))
            if folder == base:
                break
    return min(quotas, default=None)


def infiniband_ports(root: Path) -> tuple[InfiniBandPort, ...]:
    """Return the ports of all InfiniBand and RoCE devices."""
    return tuple(
        InfiniBandPort(
            device=port.parent.parent.name,
            port=int(port.name),
            state=kernel_text(port / "state") or "unknown",
            rate=kernel_text(port / "rate") or "unknown",
            link_layer=kernel_text(port / "link_layer") or "unknown",
        )
        for port in sorted((root / "sys/class/infiniband").glob("*/ports/*"))
        if port.name.isdigit()
    )


def _nvidia_fs(root: Path) -> str | None:
    return kernel_text(root / "proc/driver/nvidia-fs/version") or kernel_text(root / "sys/module/nvidia_fs/version")


def _meminfo(root: Path) -> dict[str, int]:
    rows = (line.partition(":") for line in (kernel_text(root / "proc/meminfo") or "").splitlines())
    return {key: int(value.split()[0]) for key, _, value in rows if value.split()[:1] and value.split()[0].isdigit()}


def _chosen(text: str | None) -> str | None:
    match = re.search(r"\[(\w+)\]", text or "")
    return match[1] if match else None


def _limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft
