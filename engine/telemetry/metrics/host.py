"""Definitions of the host's counters and of session counters."""

from __future__ import annotations

from kvdeck.engine.telemetry.metrics.metric import Meaning, Measure, gauges
from kvdeck.sessions.model.tier_words import Tier

_CGROUPS = "Linux, Documentation/admin-guide/cgroup-v2.rst"
_CGROUPS_HELP = {
    "container_memory_bytes": "The total amount of memory currently being used by the cgroup and its descendants."
}
_STAT = "Linux man-pages, stat(3type), of an unlinked open file"
_STAT_HELP = {
    "disk_tier_bytes": "size: st_size, Size, in bytes. allocated: st_blocks, Number of 512 B blocks allocated."
}
_NVML = "NVIDIA's nvml.h"
_PCIE = (
    "This function is querying a byte counter over a 20ms interval and thus is the PCIe throughput over that interval."
)
_NVML_HELP = {
    "gpu_pcie_sent_bytes_per_s": _PCIE,
    "gpu_pcie_received_bytes_per_s": _PCIE,
    "gpu_memory_used_bytes": "Sum of Reserved and Allocated device memory (in bytes).",
    "gpu_utilisation": (
        "Percent of time over the past sample period during which one or more kernels was executing on the GPU"
    ),
}


def host() -> list[Meaning]:
    nvidia_fs = "/proc/driver/nvidia-fs/stats"
    gds_stats = "cuFile's gds_stats as NVIDIA's guide prints it; posix= is the compatibility path; no sample"
    found = [
        Meaning("disk_read_bytes", "bytes", "/proc/diskstats through psutil", group="host"),
        Meaning("disk_write_bytes", "bytes", "/proc/diskstats through psutil", group="host"),
        Meaning("network_sent_bytes", "bytes", "/proc/net/dev through psutil", group="host"),
        Meaning("network_received_bytes", "bytes", "/proc/net/dev through psutil", group="host"),
        Meaning("fabric_sent_bytes", "bytes", "port_xmit_data of /sys/class/infiniband, 4-byte words", group="host"),
        Meaning("fabric_received_bytes", "bytes", "port_rcv_data of /sys/class/infiniband, 4-byte words", group="host"),
        Meaning("process_read_bytes", "bytes", "read_bytes of /proc/<pid>/io: what came from storage", group="host"),
        Meaning("process_write_bytes", "bytes", "write_bytes of /proc/<pid>/io: what went to storage", group="host"),
        *(
            Meaning(f"container_{what}_bytes", "bytes", "io.stat or blkio of the control group", group="host")
            for what in ("read", "write")
        ),
        Meaning("container_memory_bytes", "bytes", "memory.current of the control group", group="memory"),
        Meaning("disk_tier_bytes", "bytes", "KVBM's unlinked file, seen in /proc/<pid>/fd", group="memory"),
        Meaning("nvidia_fs_read_bytes", "bytes", nvidia_fs, group="host"),
        Meaning("nvidia_fs_write_bytes", "bytes", nvidia_fs, group="host"),
        Meaning("nvidia_fs_ops", "operations", nvidia_fs, group="host"),
        Meaning("nvidia_fs_errors", "failures", nvidia_fs, group="errors"),
        *(Meaning(f"cufile_{way}_bytes", "bytes", gds_stats, group="host") for way in ("read", "write")),
        *(
            Meaning(f"cufile_{what}ops", "operations", gds_stats, group="host")
            for what in ("", "posix_", "nvfs_", "p2p_", "unaligned_")
        ),
        Meaning("cufile_errors", "failures", gds_stats, group="errors"),
        Meaning("gpu_pcie_sent_bytes_per_s", "B/s", "NVML, a 20 ms sample; the GPU sends", group="host"),
        Meaning("gpu_pcie_received_bytes_per_s", "B/s", "NVML, a 20 ms sample; the GPU receives", group="host"),
        Meaning("gpu_nvlink_sent_bytes", "bytes", "NVML's cumulative NVLink field", group="host"),
        Meaning("gpu_nvlink_received_bytes", "bytes", "NVML's cumulative NVLink field", group="host"),
        Meaning("gpu_memory_used_bytes", "bytes", "NVML", group="memory"),
        Meaning("gpu_utilisation", "ratio", "NVML", group="host"),
    ]
    for source, texts in ((_CGROUPS, _CGROUPS_HELP), (_STAT, _STAT_HELP), (_NVML, _NVML_HELP)):
        found = gauges(found, source, texts)
    return found


def sessions() -> list[Meaning]:
    paths: list[tuple[str, Tier, Tier]] = [
        ("HostToHost", "G2", "G2"),
        ("HostToDisk", "G2", "G3"),
        ("DiskToHost", "G3", "G2"),
        ("HostToDevice", "G2", "G1"),
        ("DeviceToHost", "G1", "G2"),
        ("DeviceToDevice", "G1", "G1"),
        ("DeviceToDisk", "G1", "G3"),
        ("DiskToDevice", "G3", "G1"),
    ]
    measures: tuple[Measure, ...] = ("bytes", "blocks", "transfers", "seconds", "descriptors", "failures")
    return [
        Meaning(
            f"session_{measure}",
            measure,
            "the session's own samples",
            path,
            measure,
            source,
            target,
            where=("path", path),
        )
        for path, source, target in paths
        for measure in measures
    ]
