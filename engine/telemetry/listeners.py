"""TCP ports that listen on this host, and the processes that own them, from /proc."""

from __future__ import annotations

import ipaddress
import os
import sys
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket."""

    host: str
    """Address to connect to from this host, in brackets if it is IPv6; a wildcard socket is reached by loopback."""
    port: int
    inode: int
    loopback: bool
    """True if the socket can be reached over loopback."""


def listeners(root: Path = Path("/")) -> list[Listener]:
    """Return the listening sockets of /proc/net/tcp6 and tcp; empty where they can't be read."""
    found = []
    for name in ("tcp6", "tcp"):
        try:
            lines = (root / "proc/net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if len(fields) > 9 and fields[3] == _LISTEN:
                address, _, port = fields[1].partition(":")
                found.append(_listener(_address(address), int(port, 16), int(fields[9])))
    return found


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of a hexadecimal field, which the kernel prints as 32-bit words in the host's byte order."""
    words = [int(text[place : place + 8], 16).to_bytes(4, sys.byteorder) for place in range(0, len(text), 8)]
    address = ipaddress.ip_address(b"".join(words))
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _listener(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, inode: int) -> Listener:
    if address.is_unspecified:  # an IPv6 wildcard socket usually takes IPv4 too
        return Listener("127.0.0.1", port, inode, True)
    host = f"[{address}]" if address.version == 6 else str(address)
    return Listener(host, port, inode, address.is_loopback)


def sockets_of(pid: int, root: Path = Path("/")) -> frozenset[int] | None:
    """Return the inodes of a process's sockets; None if another user owns it, so that they can't be read."""
    found = set()
    try:
        for entry in os.scandir(root / "proc" / str(pid) / "fd"):
            try:
                target = os.readlink(entry.path)  # noqa: PTH115
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(int(target[8:-1]))
    except PermissionError:
        return None
    except OSError:
        return frozenset()
    return frozenset(found)
