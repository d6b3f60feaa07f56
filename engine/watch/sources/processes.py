"""The serving processes: what each reads and writes, and the disk tier that KVBM keeps in a file without a name."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from kvdeck.engine.watch.series import Reading, Series
from kvdeck.engine.watch.sources.local import LocalSource, now_ns

SERVING = re.compile(r"vllm|dynamo|sglang|trtllm|tensorrt_llm|lmcache|kvbm|nixlbench", re.IGNORECASE)
"""What a serving process's command line holds."""
NOBODY = "no serving process on this host (vllm, dynamo, sglang, trtllm, lmcache)"
RESCAN_S = 5.0
LEAST_FILE = 1 << 20
"""Smaller unlinked files are no disk tier."""
_NO_DISK = ("/dev/", "/memfd:", "/proc/", "/run/", "/SYSV")
_NOT_SERVING = ("kvdeck", "grep", "tail", "less", "vim", "ssh", "tmux", "docker")


class Processes:
    """Serving processes of this host, found by their command line every few seconds."""

    def __init__(self, root: Path = Path("/proc"), pattern: re.Pattern[str] = SERVING) -> None:
        self._root = root
        self._pattern = pattern
        self._found: dict[int, str] = {}
        self._scanned = -RESCAN_S

    def found(self) -> dict[int, str]:
        """Process id and short name of each."""
        now = time.monotonic()
        if now - self._scanned >= RESCAN_S:
            self._found, self._scanned = dict(self._scan()), now
        return self._found

    def _scan(self) -> Iterator[tuple[int, str]]:
        for entry in os.scandir(self._root):
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                words = Path(entry.path, "cmdline").read_bytes()[:4096].decode("utf-8", "replace").split("\0")
            except OSError:
                continue
            name = _serving_name(words, self._pattern)
            if name:
                yield int(entry.name), name

    def look_at_io(self) -> Reading:
        """Bytes that each process had from storage and gave to it; the page cache is not in them."""
        values: dict[Series, float] = {}
        closed = 0
        found = self.found()
        for pid, name in found.items():
            labels = (("name", name), ("pid", str(pid)))
            try:
                text = (self._root / str(pid) / "io").read_text()
            except PermissionError:
                closed += 1
                continue
            except OSError:
                continue
            fields = dict(line.split(": ") for line in text.splitlines() if ": " in line)
            values[Series("process_read_bytes", labels)] = float(fields.get("read_bytes", 0))
            values[Series("process_write_bytes", labels)] = float(fields.get("write_bytes", 0))
        if not found:
            return Reading(now_ns(), values, quiet=NOBODY)
        missing = f"{closed} of {len(found)} belong to another user: their I/O can't be read" if closed else ""
        return Reading(now_ns(), values, missing=missing)

    def look_at_disk_tier(self) -> Reading:
        """Unlinked files that serving processes hold open: bytes on disk, not the size they were made with."""
        values: dict[Series, float] = {}
        closed = 0
        found = self.found()
        for pid, name in found.items():
            try:
                held = list(_unlinked(self._root / str(pid) / "fd"))
            except PermissionError:
                closed += 1
                continue
            except OSError:
                continue
            for inode, path, size, allocated in held:
                for what, value in (("size", size), ("allocated", allocated)):
                    labels = (("inode", str(inode)), ("name", name), ("path", path), ("pid", str(pid)), ("what", what))
                    values[Series("disk_tier_bytes", labels, counter=False)] = value
        if not found:
            return Reading(now_ns(), values, quiet=NOBODY)
        missing = f"{closed} of {len(found)} processes belong to another user" if closed else ""
        quiet = "" if values else "no serving process holds an unlinked file: no KVBM disk tier here"
        return Reading(now_ns(), values, missing=missing, quiet=quiet)


def _serving_name(words: list[str], pattern: re.Pattern[str]) -> str:
    """A name for a serving process, empty for any other: an editor with vllm.py open is none."""
    program = words[0].rpartition("/")[2]
    if program.startswith(_NOT_SERVING):
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
    """Per-process I/O, and the disk tier behind `/proc/<pid>/fd`."""
    processes, tier = Processes(root), Processes(root)
    return [
        LocalSource("processes", "process", processes.look_at_io, least_period_s=1.0),
        LocalSource("disk tier", "process", tier.look_at_disk_tier, least_period_s=2.0),
    ]
