"""Control groups: container or service of a process, and storage I/O and memory use of the group."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SHORT = 12
"""Characters of a container id that container tools print."""
_ID = re.compile(r"(?:^|[-_.:])([0-9a-f]{64})(?:\.scope)?$")
_RUNTIMES = (
    ("docker", "docker"),
    ("libpod", "podman"),
    ("cri-containerd", "containerd"),
    ("crio", "cri-o"),
    ("kubepods", "kubernetes"),
    ("lxc", "lxc"),
)
_NAMED = re.compile(r"^(?:lxc\.payload\.|machine-)(.+?)(?:\.scope)?$")
_SERVICE = re.compile(r"^(.+)\.service$")
_SERVICES_OF_ALL = re.compile(r"^(?:user@\d+|session-.*|init|ssh|sshd|cron|docker|containerd)$")
"""Services that run unrelated processes, so they aren't a group of one application."""
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """The container or service that a process runs in."""

    name: str
    """`docker 3f2a91c0d4e7`, `lxc name` or `vllm.service`."""
    unified: str
    """Path in cgroup v2, empty if it has none."""
    storage: str
    """Path in the cgroup v1 controller `blkio`."""
    memory: str
    """Path in the cgroup v1 controller `memory`."""
    container: bool
    """True for a container, False for a service of this host."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Cumulative storage I/O and current memory of a whole group; None if the kernel doesn't report it."""

    read_bytes: float | None
    write_bytes: float | None
    memory_bytes: float | None


def group_of(text: str) -> ControlGroup | None:
    """Return the container or service from the content of `/proc/<pid>/cgroup` (v1, v2 or hybrid).

    None for a process in a login session, in the root group, or in the container that kvdeck itself runs in.
    """
    unified = storage = memory = ""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            unified = path
        elif "blkio" in controllers.split(","):
            storage = path
        elif "memory" in controllers.split(","):
            memory = path
    for path in (unified, storage, memory):
        name = _name(path)
        if name:
            return ControlGroup(name, unified, storage, memory, not name.endswith(".service"))
    return None


def _name(path: str) -> str:
    parts = [part for part in path.split("/") if part]
    for part in reversed(parts):
        found = _ID.search(part)
        if found is not None:
            runtime = next((word for mark, word in _RUNTIMES if mark in path), "container")
            return f"{runtime} {found[1][:SHORT]}"
        named = _NAMED.match(part)
        if named is not None:
            return f"{'lxc' if part.startswith('lxc') else 'machine'} {_plain(named[1])}"
    for part in reversed(parts):
        service = _SERVICE.match(part)
        if service is not None and not _SERVICES_OF_ALL.match(service[1]):
            return _plain(part)
    return ""


def _plain(name: str) -> str:
    r"""Return a systemd name without escapes: `\x2d` is a hyphen."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), name)


def usage(group: ControlGroup, root: Path = Path("/sys/fs/cgroup")) -> Usage:
    """Return the group's usage from cgroup v2, or else from v1; read-only."""
    for mount in (root, root / "unified"):
        folder = _inside(mount, group.unified)
        moved = _io_stat(_text(folder / "io.stat")) if folder else None
        held = _number(_text(folder / "memory.current")) if folder else None
        if moved is not None or held is not None:
            read, written = moved or (None, None)
            return Usage(read, written, held)
    storage, memory = _inside(root / "blkio", group.storage), _inside(root / "memory", group.memory)
    read, written = _first_said(storage) if storage else (None, None)
    return Usage(read, written, _number(_text(memory / "memory.usage_in_bytes")) if memory else None)


def _first_said(folder: Path) -> tuple[float, float] | tuple[None, None]:
    """Return bytes (read, written) from the first v1 file that lists a device.

    Newer kernels fill a v1 file only if a scheduler or limit is active; otherwise it holds `Total 0`.
    """
    for name in ("throttle.io_service_bytes_recursive", "throttle.io_service_bytes", "bfq.io_service_bytes_recursive"):
        moved = _service_bytes(_text(folder / f"blkio.{name}"))
        if moved is not None:
            return moved
    return None, None


def _inside(mount: Path, path: str) -> Path | None:
    """Return the group's folder; None for the root group or a path outside this process's cgroup namespace."""
    parts = [part for part in path.split("/") if part]
    return mount.joinpath(*parts) if parts and ".." not in parts else None


def _io_stat(text: str | None) -> tuple[float, float] | None:
    """Parse v2 `io.stat`, `8:0 rbytes=1 wbytes=2 …` per device, into bytes (read, written); an empty file is (0, 0)."""
    if text is None:
        return None
    read = written = 0.0
    for line in text.splitlines():
        fields = dict(field.split("=", 1) for field in line.split()[1:] if "=" in field)
        read += _number(fields.get("rbytes")) or 0.0
        written += _number(fields.get("wbytes")) or 0.0
    return read, written


def _service_bytes(text: str | None) -> tuple[float, float] | None:
    """Parse v1 lines `8:0 Read 1`, `8:0 Write 2` into bytes (read, written), without totals; None without a device."""
    sums: dict[str, float] = {}
    for line in (text or "").splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] in ("Read", "Write"):
            sums[fields[1]] = sums.get(fields[1], 0.0) + (_number(fields[2]) or 0.0)
    return (sums.get("Read", 0.0), sums.get("Write", 0.0)) if sums else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    return float(text) if text.isdigit() else None
