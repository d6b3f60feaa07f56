"""Kernel counters of block devices, network cards, InfiniBand ports and nvidia-fs, for all processes together."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil

from kvdeck.engine.telemetry.source import Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns

_MEMORY_DEVICES = re.compile(r"(loop|ram|zram|sr|fd)\d+")
_PARTITION = re.compile(r"(nvme\d+n\d+p|mmcblk\d+p|[svx]v?d[a-z]+)\d+")
_RATE = re.compile(r"([\d.]+)\s*Gb/sec")
_FIELD = re.compile(r"(\w+)=(\d+)")
RATES_S = 10.0
"""Seconds between two readings of the link rates."""
IB_WORD = 4
"""Bytes per unit of InfiniBand's data counters."""


def disks_source() -> LocalSource:
    """Return a source for all whole block devices: no partitions, no memory or loop devices."""
    return LocalSource("disks", "disk", _disks, inline=True)


def _disks() -> Reading:
    values: dict[Series, float] = {}
    for name, io in (psutil.disk_io_counters(perdisk=True, nowrap=False) or {}).items():
        if _MEMORY_DEVICES.fullmatch(name) or _PARTITION.fullmatch(name):
            continue
        labels = (("device", name),)
        values[Series("disk_read_bytes", labels)] = io.read_bytes
        values[Series("disk_write_bytes", labels)] = io.write_bytes
    if not values:
        raise SourceGone("the kernel lists no block device")
    return Reading(now_ns(), values)


def network_source(root: Path = Path("/")) -> LocalSource:
    """Return a source for all network cards except loopback, with line rates if the kernel reports them."""
    return LocalSource("network", "network", Network(root).look, inline=True)


class Network:
    """Counters and line rates of network cards; rates are read again every RATES_S, since links renegotiate."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._rates: dict[str, float | None] = {}
        self._asked = -RATES_S

    def look(self) -> Reading:
        """Return bytes sent and received per card, with limits in bytes per second.

        Raises:
            SourceGone: There is no card except loopback.
        """
        if time.monotonic() - self._asked >= RATES_S:
            self._rates, self._asked = {}, time.monotonic()
        values: dict[Series, float] = {}
        limits: dict[Series, float] = {}
        for name, io in psutil.net_io_counters(pernic=True, nowrap=False).items():
            if name == "lo":
                continue
            labels = (("device", name),)
            sent, received = Series("network_sent_bytes", labels), Series("network_received_bytes", labels)
            values[sent], values[received] = io.bytes_sent, io.bytes_recv
            if name not in self._rates:
                speed = _integer(self._root / f"sys/class/net/{name}/speed")
                self._rates[name] = speed * 1e6 / 8 if speed is not None and speed > 0 else None
            rate = self._rates[name]
            if rate is not None:
                limits[sent] = limits[received] = rate
        if not values:
            raise SourceGone("no network card except the loopback")
        return Reading(now_ns(), values, limits=limits)


def fabric_source(root: Path = Path("/")) -> LocalSource:
    """Return a source for all InfiniBand and RoCE ports, read at most once per second: each read queries firmware."""
    return LocalSource("fabric", "fabric", lambda: _fabric(root), least_period_s=1.0)


def has_fabric(root: Path = Path("/")) -> bool:
    return any((root / "sys/class/infiniband").glob("*/ports/*"))


def _fabric(root: Path) -> Reading:
    values: dict[Series, float] = {}
    limits: dict[Series, float] = {}
    unread = 0
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        labels = (("device", port.parent.parent.name), ("port", port.name))
        rate = _RATE.search(_text(port / "rate"))
        for file, name in (("port_xmit_data", "fabric_sent_bytes"), ("port_rcv_data", "fabric_received_bytes")):
            words = _integer(port / "counters" / file)
            if words is None:
                unread += 1
                continue
            series = Series(name, labels, wrap_bits=66)  # 64-bit counter of 4-byte words
            values[series] = words * IB_WORD
            if rate:
                limits[series] = float(rate[1]) * 1e9 / 8
    if not values:
        raise SourceGone("the counters of the InfiniBand ports can't be read" if unread else "no InfiniBand port")
    return Reading(now_ns(), values, missing=f"{unread} counters can't be read" if unread else "", limits=limits)


def nvidia_fs_source(root: Path = Path("/")) -> LocalSource:
    """Return a source for the counters of the GPUDirect Storage driver."""
    return LocalSource("nvidia-fs", "nvidia_fs", lambda: nvidia_fs(root), least_period_s=0.5)


def has_nvidia_fs(root: Path = Path("/")) -> bool:
    return (root / "proc/driver/nvidia-fs/stats").exists()


def nvidia_fs(root: Path) -> Reading:
    """Return bytes, operations and errors; ignores the driver's bandwidth, which goes stale when idle.

    Raises:
        SourceGone: nvidia-fs isn't loaded.
    """
    path = root / "proc/driver/nvidia-fs/stats"
    if not path.exists():
        raise SourceGone("nvidia-fs is not loaded (not needed with the kernel's NVMe P2PDMA)")
    values: dict[Series, float] = {}
    for line in path.read_text(errors="replace").splitlines():
        head, _, rest = line.partition(":")
        fields = {key: int(value) for key, value in _FIELD.findall(rest)}
        way = {"Reads": "read", "Writes": "write"}.get(head.strip())
        if way is None:
            continue
        labels = (("op", way),)
        if f"{way}MiB" in fields:
            values[Series(f"nvidia_fs_{way}_bytes")] = fields[f"{way}MiB"] << 20
        if "n" in fields:
            values[Series("nvidia_fs_ops", labels)] = fields["n"]
        if "err" in fields:
            values[Series("nvidia_fs_errors", labels)] = fields["err"]
    bare = not any(series.name.endswith("_bytes") for series in values)
    missing = "no bytes: the module runs without rw_stats_enabled=1" if bare else ""
    return Reading(now_ns(), values, missing=missing)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _integer(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.lstrip("-").isdigit() else None
