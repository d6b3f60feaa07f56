"""Network interfaces of this host, from /sys: their rates and state, and the bytes that they have carried."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kvdeck.engine.host.kernel_files import kernel_number, kernel_text

_WORD = 4
"""Bytes per unit of `port_xmit_data` and `port_rcv_data` (InfiniBand specification, volume 1, PortCounters)."""


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface, or a port of an InfiniBand, RoCE or EFA device."""

    name: str
    """Such as `eth1`, or `mlx5_0:1` for port 1 of a device."""
    rdma: bool
    up: bool
    state: str
    bits_per_s: float | None
    """Rate of the link; None if the driver states none."""
    mtu: int | None
    numa_node: int | None


class Carried(NamedTuple):
    """Bytes that an interface has sent and received since it exists."""

    sent: int
    received: int


def nics(root: Path = Path("/")) -> tuple[Nic, ...]:
    """Return the interfaces that lead off this host; without those on top of another (bond, VLAN, bridge)."""
    return (*_rdma_ports(root), *_net_devices(root))


def nic_counters(root: Path = Path("/")) -> dict[str, Carried]:
    """Return the counters of the same interfaces, by name; without those whose driver counts nothing."""
    found: dict[str, Carried] = {}
    for name, port in _ports(root):
        sent, received = kernel_number(port / "counters/port_xmit_data"), kernel_number(port / "counters/port_rcv_data")
        if sent is not None and received is not None:
            found[name] = Carried(sent * _WORD, received * _WORD)
        else:  # EFA counts bytes, under other names
            sent, received = kernel_number(port / "hw_counters/tx_bytes"), kernel_number(port / "hw_counters/rx_bytes")
            if sent is not None and received is not None:
                found[name] = Carried(sent, received)
    for device in _devices(root):
        sent, received = kernel_number(device / "statistics/tx_bytes"), kernel_number(device / "statistics/rx_bytes")
        if sent is not None and received is not None:
            found[device.name] = Carried(sent, received)
    return found


def _ports(root: Path) -> list[tuple[str, Path]]:
    folders = sorted((root / "sys/class/infiniband").glob("*/ports/*"))
    return [(f"{port.parent.parent.name}:{port.name}", port) for port in folders if port.name.isdigit()]


def _devices(root: Path) -> list[Path]:
    return [
        device
        for device in sorted((root / "sys/class/net").glob("*"))
        # A bond or a VLAN would count the bytes of the devices below it once more.
        if device.name != "lo" and (device / "statistics").is_dir() and not any(device.glob("lower_*"))
    ]


def _rdma_ports(root: Path) -> list[Nic]:
    found = []
    for name, port in _ports(root):
        state, device = kernel_text(port / "state") or "unknown", port.parent.parent
        found.append(
            Nic(
                name=name,
                rdma=True,
                up="ACTIVE" in state.upper(),
                state=state,
                bits_per_s=_rate(kernel_text(port / "rate")),
                mtu=None,
                numa_node=_node(device / "device"),
            )
        )
    return found


def _net_devices(root: Path) -> list[Nic]:
    found = []
    for device in _devices(root):
        state, speed = kernel_text(device / "operstate") or "unknown", kernel_number(device / "speed")
        found.append(
            Nic(
                name=device.name,
                rdma=False,
                up=state == "up",
                state=state,
                # The kernel reports -1 where there is no rate.
                bits_per_s=speed * 1e6 if speed is not None and speed > 0 else None,
                mtu=kernel_number(device / "mtu"),
                numa_node=_node(device / "device"),
            )
        )
    return found


def _rate(text: str | None) -> float | None:
    """Return bits per second of a port's rate, such as `400 Gb/sec (4X NDR)`."""
    match = re.match(r"([\d.]+) Gb/sec", text or "")
    return float(match[1]) * 1e9 if match else None


def _node(device: Path) -> int | None:
    node = kernel_number(device / "numa_node")
    # -1: the device belongs to no node.
    return node if node is not None and node >= 0 else None
