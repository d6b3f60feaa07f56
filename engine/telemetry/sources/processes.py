"""Storage I/O of serving processes and their containers, and KVBM's disk tier, which is an unlinked open file."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kvdeck.engine.telemetry.source import Labels, Reading, Series
from kvdeck.engine.telemetry.sources.cgroups import ControlGroup, group_of, usage
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns
from kvdeck.sessions.units import count_text

SERVING = re.compile(r"vllm|dynamo|sglang|trtllm|tensorrt_llm|lmcache|kvbm|nixlbench", re.IGNORECASE)
"""Pattern in the command line of a serving process."""
NOBODY = "no serving process on this host (vllm, dynamo, sglang, trtllm, lmcache)"
RESCAN_S = 5.0
MAX_PROCESSES = 200
LEAST_FILE = 1 << 20
"""Minimum size in bytes for an unlinked file to count as a disk tier."""
_NO_DISK = ("/dev/", "/memfd:", "/proc/", "/run/", "/SYSV")
"""Path prefixes of open files that aren't on disk."""
_WRAPPERS = ("bash", "sh", "tini", "dumb-init", "runc", "conmon", "containerd-shim-runc-v2", "docker", "podman")
_NOT_SERVING = frozenset((*_WRAPPERS, "grep", "tail", "less", "vim", "nano", "ssh", "sshd", "tmux"))
_NOT_SERVING_EITHER = ("kvdeck", "vim.", "tmux:", "sshd:")


@dataclass(frozen=True, slots=True)
class Serving:
    """A serving process."""

    pid: int
    name: str
    group: ControlGroup | None

    @property
    def labels(self) -> Labels:
        """Labels of its series, sorted by name."""
        mine = (("name", self.name), ("pid", str(self.pid)))
        return mine if self.group is None else (("container", self.group.name), *mine)


class Processes:
    """Serving processes of this host, rescanned every RESCAN_S.

    A process is serving if its command line or the name of its service matches the pattern, or if it shares a
    container or such a service with a serving process: the workers that an engine spawns have no matching command
    line.
    """

    def __init__(
        self,
        root: Path = Path("/proc"),
        pattern: re.Pattern[str] = SERVING,
        groups: Path = Path("/sys/fs/cgroup"),
    ) -> None:
        self._root = root
        self._groups = groups
        self._pattern = pattern
        self._found: list[Serving] = []
        self._scanned = -RESCAN_S

    def found(self) -> list[Serving]:
        """Return the serving processes sorted by process id, at most MAX_PROCESSES."""
        now = time.monotonic()
        if now - self._scanned >= RESCAN_S:
            self._found, self._scanned = self._scan(), now
        return self._found

    def _scan(self) -> list[Serving]:
        all_of_them = sorted(self._all(), key=lambda one: one[0])
        serving = {group for _, _, group, serves in all_of_them if serves and group is not None and self._shared(group)}
        found = [
            Serving(pid, name, group)
            for pid, name, group, serves in all_of_them
            if serves or (group in serving and name)
        ]
        return found[:MAX_PROCESSES]

    def _shared(self, group: ControlGroup) -> bool:
        """True if one serving process makes its whole group serving; False for mixed ones like a notebook server."""
        return group.container or self._pattern.search(group.name) is not None

    def _all(self) -> Iterator[tuple[int, str, ControlGroup | None, bool]]:
        """Yield process id, name, group, and whether the command line or the group's name matches the pattern."""
        for entry in os.scandir(self._root):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = Path(entry.path, "cmdline").read_bytes()[:4096].decode("utf-8", "replace").split("\0")
                if not words[0]:
                    continue  # a kernel thread
                group = group_of(Path(entry.path, "cgroup").read_text(errors="replace"))
            except OSError:
                continue
            program = words[0].rpartition("/")[2]
            name = _serving_name(words, self._pattern)
            watcher = _never_serves(program)
            by_group = group is not None and self._pattern.search(group.name) is not None and not watcher
            yield int(entry.name), name or ("" if watcher else program), group, bool(name) or by_group

    def look_at_io(self) -> Reading:
        """Return bytes read from and written to storage (not the page cache) per process and per container or service.

        A container's or service's counters include processes that have ended.
        """
        values: dict[Series, float] = {}
        closed = 0
        found = self.found()
        for process in found:
            try:
                text = (self._root / str(process.pid) / "io").read_text()
            except PermissionError:
                closed += 1
                continue
            except OSError:
                continue
            fields = dict(line.split(": ") for line in text.splitlines() if ": " in line)
            values[Series("process_read_bytes", process.labels)] = float(fields.get("read_bytes", 0))
            values[Series("process_write_bytes", process.labels)] = float(fields.get("write_bytes", 0))
        if not found:
            return Reading(now_ns(), values, quiet=NOBODY)
        self._add_groups(found, values)
        missing = (
            f"{count_text(closed)} of {count_text(len(found))} belong to another user: their I/O can't be read"
            if closed
            else ""
        )
        return Reading(now_ns(), values, missing=missing)

    def _add_groups(self, found: list[Serving], values: dict[Series, float]) -> None:
        for group in {process.group for process in found if process.group is not None}:
            used = usage(group, self._groups)
            labels = (("container", group.name),)
            for what, value, counter in (
                ("read", used.read_bytes, True),
                ("write", used.write_bytes, True),
                ("memory", used.memory_bytes, False),
            ):
                if value is not None:
                    values[Series(f"container_{what}_bytes", labels, counter)] = value

    def look_at_disk_tier(self) -> Reading:
        """Return size and allocated bytes of unlinked files open in serving processes; sparse files allocate less."""
        values: dict[Series, float] = {}
        closed = 0
        found = self.found()
        for process in found:
            try:
                held = list(_unlinked(self._root / str(process.pid) / "fd"))
            except PermissionError:
                closed += 1
                continue
            except OSError:
                continue
            for inode, path, size, allocated in held:
                for what, value in (("size", size), ("allocated", allocated)):
                    labels = (*process.labels, ("inode", str(inode)), ("path", path), ("what", what))
                    values[Series("disk_tier_bytes", tuple(sorted(labels)), counter=False)] = value
        if not found:
            return Reading(now_ns(), values, quiet=NOBODY)
        missing = f"{count_text(closed)} of {count_text(len(found))} processes belong to another user" if closed else ""
        quiet = "" if values else "no serving process has an unlinked file open: no KVBM disk tier here"
        return Reading(now_ns(), values, missing=missing, quiet=quiet)


def _never_serves(program: str) -> bool:
    return program in _NOT_SERVING or program.startswith(_NOT_SERVING_EITHER)


def _serving_name(words: list[str], pattern: re.Pattern[str]) -> str:
    """Return the name of a serving process; empty for any other, such as an editor that has vllm.py open."""
    program = words[0].rpartition("/")[2]
    if _never_serves(program):
        return ""
    if pattern.search(program):
        return program
    if not program.startswith("python"):
        return ""
    for index, word in enumerate(words[1:4], 1):
        if word == "-m" and index + 1 < len(words):
            return words[index + 1] if pattern.search(words[index + 1]) else ""
        if not word.startswith("-"):
            script = word.rpartition("/")[2]
            return script if pattern.search(script) else ""
    return ""


def _unlinked(folder: Path) -> Iterator[tuple[int, str, int, int]]:
    """Yield inode, path, size and allocated bytes of each unlinked file; raises OSError if `folder` can't be listed."""
    seen = set()
    for entry in os.scandir(folder):
        try:
            target = os.readlink(entry.path)  # noqa: PTH115
            if not target.endswith(" (deleted)") or target.startswith(_NO_DISK):
                continue
            status = os.stat(entry.path)  # noqa: PTH116
        except FileNotFoundError:
            continue
        key = (status.st_dev, status.st_ino)
        if stat.S_ISREG(status.st_mode) and status.st_size >= LEAST_FILE and key not in seen:
            seen.add(key)
            yield status.st_ino, target.removesuffix(" (deleted)"), status.st_size, status.st_blocks * 512


def process_sources(root: Path = Path("/proc")) -> list[LocalSource]:
    """Return two sources: storage I/O per process, and the disk tier from `/proc/<pid>/fd`."""
    processes, tier = Processes(root), Processes(root)
    return [
        LocalSource("processes", "process", processes.look_at_io, least_period_s=1.0),
        LocalSource("disk tier", "process", tier.look_at_disk_tier, least_period_s=2.0),
    ]
