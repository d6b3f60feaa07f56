"""Counts transfers inside any process, for a session that others can read while the process runs.

`record` runs on the program's own threads and only appends; a background thread aggregates every
`TICK_SECONDS` and replaces this process's file. Each process writes its own file, so ranks never overwrite
each other. Standard library only: this module also runs in environments without kvdeck's dependencies.

SESSION/recorder/control.json                 {"enabled": …, "epoch": …}, written by `kvdeck session`
SESSION/recorder/EPOCH-HOST-PID-STARTED.json  counts of one process; a reset starts a new epoch
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import os
import re
import socket
import stat
import struct
import sys
import threading
import time
import weakref
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kvdeck.sessions.host.files import replace_file

TICK_SECONDS = 0.5
"""Interval in seconds between writes of the counts and reads of `control.json`."""
MOST_SIZES = 256
"""Maximum distinct sizes counted exactly; above it sizes are binned, 16 bins per octave."""
FAILED = -1
"""Replaces the byte count of a failed transfer."""
_WIDTH = 4

Add = Callable[[tuple[int, int, "float | None", int]], None]


class TransferCounter:
    """Counts transfers into the session folder `folder`, or into the one `asked_folder` returns at the first transfer.

    The thread and the file start with the first transfer, and again in each forked child.
    """

    _file: Path | None
    _stop: threading.Event

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._lanes = _Lanes(self)
        self._lock = threading.Lock()
        self._begin_empty()
        _recorders.add(self)

    def record(
        self, path: str, layout: str, bytes: int, blocks: int, seconds: float | None, descriptors: int = 0
    ) -> None:
        """Count one completed transfer.

        Args:
            path: Transfer path, such as `HostToDisk`.
            layout: Text of the layout.
            bytes: Bytes moved.
            blocks: Blocks completed; if a block takes several transfers, count it with the last one.
            seconds: Time from posting to completion; None if not timed.
            descriptors: Number of descriptors; 0 if unknown.
        """
        # One look-up and one `extend`: no lock, clock or allocation of its own in the program's transfer path.
        self._lanes[path, layout]((bytes, blocks, seconds, descriptors))

    def failed(self, path: str, layout: str) -> None:
        """Count one failed transfer; it counts no bytes."""
        self._lanes[path, layout]((FAILED, 0, None, 0))

    def attach(self, folder: Path | None) -> None:
        """Count into another session from now on; counts so far stay in the previous one."""
        self.close()
        with self._lock:
            self._folder = folder
            self._begin_empty()

    def flush(self) -> None:
        """Aggregate and write everything recorded so far."""
        with self._lock:
            self._tick()

    def close(self) -> None:
        """Write the final counts; a later transfer starts a new file."""
        self._stop.set()
        with self._lock:
            if self._file is not None:
                self._tick(ended=True)
                self._lanes.clear()
                self._file = None

    def _begin_empty(self) -> None:
        self._lanes.clear()
        self._pending: dict[tuple[str, str], list[Any]] = {}
        self._counts: dict[tuple[str, str], _Counts] = {}
        self._file = None
        self._stop = threading.Event()
        self._enabled, self._epoch, self._changed = True, 0, False

    def _open_lane(self, key: tuple[str, str]) -> Add:
        """Return the append function for the first transfer of a path and layout; failures never reach the program."""
        with self._lock:
            if self._folder is None:
                self._folder = asked_folder()
            if self._folder is None:
                return self._lanes.setdefault(key, _ignored)
            if self._file is None:
                self._begin()
            # `list.extend` with a tuple is atomic between threads and leaves no object for the garbage collector.
            return self._lanes.setdefault(key, self._pending.setdefault(key, []).extend)

    def _begin(self) -> None:
        self._started = time.time()
        self._name = f"{_safe(socket.gethostname())}-{os.getpid()}-{time.time_ns()}.json"
        self._enabled, self._epoch = read_control(self._recorder_folder())
        self._file = self._recorder_folder() / f"{self._epoch}-{self._name}"
        self._stop = threading.Event()
        threading.Thread(target=self._run, args=(self._stop,), name="kvdeck-recorder", daemon=True).start()
        # The daemon thread is stopped before its last tick: without this, up to TICK_SECONDS of counts are lost.
        atexit.register(self.close)
        forked = sys.modules.get("multiprocessing.util")
        if forked is not None:  # multiprocessing children skip `atexit`
            forked.Finalize(None, self.close, exitpriority=0)

    def _recorder_folder(self) -> Path:
        return Path(self._folder or ".") / "recorder"

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(TICK_SECONDS):
            # Never disturb the host program: ignore errors, and retry at the next tick.
            with contextlib.suppress(Exception):
                self.flush()

    def _tick(self, ended: bool = False) -> None:
        if self._file is None:
            return
        enabled, epoch = read_control(self._recorder_folder(), (self._enabled, self._epoch))
        # By the setting that held until this read: it was the one when these transfers were made.
        self._drain(count=self._enabled)
        if epoch != self._epoch:
            self._write(ended=True)
            self._counts, self._epoch, self._changed = {}, epoch, False
            self._file = self._recorder_folder() / f"{epoch}-{self._name}"
        self._enabled = enabled
        if self._changed or (ended and self._counts):
            self._write(ended)

    def _drain(self, count: bool) -> None:
        for key, pending in list(self._pending.items()):
            # A copy, then a deletion by count: the program may append in its own threads.
            items = pending[:]
            if not items:
                continue
            del pending[: len(items)]
            if count:
                self._counts.setdefault(key, _Counts()).add(items)
                self._changed = True

    def _write(self, ended: bool) -> None:
        if not self._counts or self._file is None:
            return
        data = {
            "version": 1,
            "epoch": self._epoch,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "command": [str(part)[:200] for part in sys.argv[:8]],
            "started": self._started,
            "updated": time.time(),
            "ended": ended,
            "tallies": [counts.as_json(*key) for key, counts in self._counts.items()],
        }
        # A full disk or a deleted session must not affect the program; the next tick retries.
        with contextlib.suppress(OSError):
            replace_file(self._file, json.dumps(data).encode(), mode=0o666)
            self._changed = False


class _Lanes(dict[tuple[str, str], Add]):
    def __init__(self, recorder: TransferCounter) -> None:
        super().__init__()
        # Weak, so that a recorder without users goes at once, not at the next garbage collection.
        self._recorder = weakref.ref(recorder)

    def __missing__(self, key: tuple[str, str]) -> Add:
        recorder = self._recorder()
        with contextlib.suppress(Exception):
            if recorder is not None:
                return recorder._open_lane(key)
        return _ignored


def _ignored(_: object) -> None:
    """Drop the transfer: no session is being recorded."""


class _Counts:
    """Counts of one process for one path and layout."""

    def __init__(self) -> None:
        self.transfers = self.bytes = self.blocks = self.descriptors = self.failures = 0
        self.timed_transfers = self.timed_bytes = self.timed_blocks = 0
        self.busy = 0.0
        self.least: int | None = None
        self.greatest = 0
        self.sizes: Counter[int] = Counter()
        self.buckets: Counter[int] = Counter()
        self.coarse = False

    def add(self, items: Sequence[Any]) -> None:
        """Add transfers, four values each. Summed by column, because column sums run in C."""
        try:
            self._add_columns(*(items[column::_WIDTH] for column in range(_WIDTH)))
        except (TypeError, ValueError, OverflowError):
            for row in zip(*(items[column::_WIDTH] for column in range(_WIDTH)), strict=False):
                with contextlib.suppress(TypeError, ValueError, OverflowError):
                    self._add_columns(*([value] for value in row))

    def _add_columns(self, sizes: Any, blocks: Any, seconds: Any, descriptors: Any) -> None:
        least = int(min(sizes))
        if least == FAILED:
            rows = [row for row in zip(sizes, blocks, seconds, descriptors, strict=True) if row[0] != FAILED]
            self.failures += len(sizes) - len(rows)
            if rows:
                self._add_columns(*zip(*rows, strict=True))
            return
        timed = (
            [row for row in zip(sizes, blocks, seconds, strict=True) if row[2] is not None] if None in seconds else None
        )
        times = array("d", seconds if timed is None else [row[2] for row in timed])
        busy, greatest = sum(times), int(max(sizes))
        if least < 0 or not math.isfinite(busy) or min(times, default=0.0) < 0:
            raise ValueError("no size or time")
        size, whole, pieces = int(sum(sizes)), int(sum(blocks)), int(sum(descriptors))
        self.buckets.update(time_buckets(times))
        # The usual case; a Counter would walk through every transfer.
        if least == greatest:
            self.sizes[least] += len(sizes)
        else:
            self.sizes.update(sizes)
        self.transfers += len(sizes)
        self.bytes, self.blocks, self.descriptors = self.bytes + size, self.blocks + whole, self.descriptors + pieces
        self.busy += busy
        self.timed_transfers += len(times)
        self.timed_bytes += size if timed is None else int(sum(row[0] for row in timed))
        self.timed_blocks += whole if timed is None else int(sum(row[1] for row in timed))
        self.least = least if self.least is None else min(self.least, least)
        self.greatest = max(self.greatest, greatest)
        if self.coarse or len(self.sizes) > MOST_SIZES:
            self._coarsen()

    def _coarsen(self) -> None:
        self.coarse = True
        coarse: Counter[int] = Counter()
        for size, count in self.sizes.items():
            # The five leading bits: a one, and four that make 16 bins per octave.
            shift = max(0, int(size).bit_length() - 5)
            coarse[int(size) >> shift << shift] += count
        self.sizes = coarse

    def as_json(self, path: str, layout: str) -> dict[str, Any]:
        """Return the counts as the JSON form of `kvdeck.sessions.model.records.TransferCounts`."""
        return {
            "path": path,
            "layout": layout,
            "transfers": self.transfers,
            "bytes": self.bytes,
            "blocks": self.blocks,
            "descriptors": self.descriptors,
            "min_bytes": self.least,
            "max_bytes": self.greatest,
            "failures": self.failures,
            "timed_transfers": self.timed_transfers,
            "timed_bytes": self.timed_bytes,
            "timed_blocks": self.timed_blocks,
            "busy_s": self.busy,
            "sizes": sorted((int(size), count) for size, count in self.sizes.items()),
            "times": [(bucket_edge(bucket), count) for bucket, count in sorted(self.buckets.items())],
        }


def time_buckets(seconds: Sequence[float]) -> list[int]:
    """Return the upper 16 bits of each double: exponent and four bits of fraction, hence 16 buckets per octave."""
    times = seconds if isinstance(seconds, array) else array("d", seconds)
    words = memoryview(times).cast("B").cast("H")
    return words[3 if sys.byteorder == "little" else 0 :: 4].tolist()


def bucket_edge(bucket: int) -> float:
    """Return the lower edge of a bucket, in seconds."""
    (edge,) = struct.unpack(">d", struct.pack(">Q", bucket << 48))
    return float(edge)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "_", text)[:60] or "host"


def read_control(folder: Path, known: tuple[bool, int] = (True, 0)) -> tuple[bool, int]:
    """Return (enabled, epoch) from `control.json`; `known` if it is missing or invalid."""
    try:
        data = json.loads(_read_small(folder / "control.json"))
        enabled, epoch = data["enabled"], data["epoch"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return known
    # Not `isinstance`: a bool is an int, and could be taken for an epoch.
    sound = type(enabled) is bool and type(epoch) is int and 0 <= epoch < 1 << 63
    return (enabled, epoch) if sound else known


def _read_small(path: Path, limit: int = 1 << 16) -> bytes:
    """Return up to `limit` bytes of a regular file; empty for anything else. Never blocks, even on a FIFO."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, limit) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    finally:
        os.close(descriptor)


def asked_folder() -> Path | None:
    """Return the session folder this process records into; None if there is none.

    `KVDECK_RECORD_FOLDER` names it, otherwise the active Dynamo session (only if its `recorder` folder exists).
    """
    if folder := os.environ.get("KVDECK_RECORD_FOLDER"):
        return Path(folder)
    # Deferred: it imports orjson and msgspec, which the program's environment may lack.
    from kvdeck.sessions.formats.dynamo import active_session

    found = active_session()
    if found is None or not found.name or "/" in found.name or found.name.startswith("."):
        return None
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")  # noqa: PTH111
    folder_path = Path(os.environ.get("KVDECK_HOME") or Path(data) / "kvdeck") / "sessions" / found.name
    return folder_path if (folder_path / "recorder").is_dir() else None


_recorders: weakref.WeakSet[TransferCounter] = weakref.WeakSet()


def _forked() -> None:
    for recorder in list(_recorders):
        # The fork copied the lock in whatever state another thread had left it, and no thread that would free it.
        recorder._lock = threading.Lock()
        recorder._begin_empty()


os.register_at_fork(after_in_child=_forked)

_process = TransferCounter()
record = _process.record
"""Count one transfer of this process into its session; does nothing without one."""
failed = _process.failed
attach = _process.attach
flush = _process.flush
