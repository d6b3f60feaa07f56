"""Records of a host's facts; None where this host doesn't provide one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

MEMORY_FILESYSTEMS = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU, as reported by NVML."""

    index: int
    name: str
    uuid: str
    memory_bytes: int
    memory_free_bytes: int
    other_processes: int
    """Number of other compute processes on this GPU, which share its bandwidth with a run."""
    numa_node: int | None = None
    """NUMA node of its PCI slot; None if unknown."""


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """The GPUs and their driver; `reason` is why there are none."""

    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    """Newest CUDA version that the driver supports, such as `13.0`."""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class InfiniBandPort:
    """A port in `/sys/class/infiniband`."""

    device: str
    port: int
    state: str
    rate: str
    link_layer: str

    @property
    def active(self) -> bool:
        return "ACTIVE" in self.state.upper()


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A target folder: filesystem, free space, and whether O_DIRECT works in it (tested)."""

    path: str
    filesystem: str
    mount: str
    device: str
    free_bytes: int
    writable: bool
    direct_alignment: int | None
    """Smallest O_DIRECT write in bytes that this filesystem accepts; None if it accepts none."""
    reason: str | None = None
    """Why the folder can't be written to."""

    @property
    def in_memory(self) -> bool:
        return self.filesystem in MEMORY_FILESYSTEMS


@dataclass(frozen=True, slots=True)
class HostFacts:
    """This host's current facts. Sizes are in bytes; a limit of None is unlimited."""

    hostname: str
    kernel: str
    architecture: str
    cpu: str
    cores: int
    """Cores this process may use, by affinity."""
    cpu_quota: float | None
    """CPU quota of the control group, in cores; None: no quota."""
    numa_nodes: int
    last_level_cache_bytes: int | None
    """Sum of the last-level caches of the usable cores."""
    memory_bytes: int
    """Total memory, or the control group's limit if lower."""
    memory_available_bytes: int
    huge_pages: str | None
    """Transparent huge pages: `always`, `madvise` or `never`."""
    huge_page_bytes: int
    huge_pages_reserved: int
    huge_pages_free: int
    memlock_bytes: int | None
    open_files: int | None
    aio_max: int | None
    aio_used: int | None
    io_uring_disabled: int | None
    """`kernel.io_uring_disabled`: 0 allowed, 1 privileged only, 2 off; None if the kernel has no such switch."""
    ptrace_scope: int | None
    """`kernel.yama.ptrace_scope`; above 0, UCX can't copy from another process's memory. None: no yama."""
    nvidia_fs: str | None
    """Version of the nvidia-fs module; None if it isn't loaded."""
    gpu: GpuFacts
    infiniband: tuple[InfiniBandPort, ...]
    folder: FolderFacts | None

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values, with `gpus` and `filesystem` at the top level, where comparisons read them."""
        data = dataclasses.asdict(self)
        data["gpus"] = data["gpu"].pop("gpus")
        data["filesystem"] = self.folder.filesystem if self.folder else None
        return data

    def comparable(self) -> dict[str, Any]:
        """Return the lasting facts for `session.json`; if any differs, two measurements aren't comparable."""
        passing = ("memory_available_bytes", "huge_pages_free", "aio_used", "infiniband", "folder", "gpu")
        data = {name: value for name, value in self.to_mapping().items() if name not in passing}
        data["gpus"] = [{"name": gpu.name, "memory_bytes": gpu.memory_bytes} for gpu in self.gpu.gpus]
        return {**data, "driver": self.gpu.driver, "folder_device": self.folder.device if self.folder else None}
