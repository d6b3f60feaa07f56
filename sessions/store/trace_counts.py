"""Traces, sessions that count transfers in running programs: reading the processes' files, and control of recording."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from kvdeck.sessions import recorder
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.host.files import MAX_RECORD, read_regular, replace_file
from kvdeck.sessions.model.encoding import decode
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.model.transfer_counts import added as added
from kvdeck.sessions.store.locks import alone_in

_CLOCK_SLACK_S = 2.0
"""Seconds by which a process may appear to start after its last update, because of clock steps."""


class Process(Struct, frozen=True):
    """Transfer counts of one process."""

    epoch: int
    host: str
    pid: int
    started: float
    updated: float
    ended: bool
    transfer_counts: tuple[TransferCounts, ...] = field(name="tallies")
    command: tuple[str, ...] = ()


def prepare(session: Path) -> None:
    """Create the folder that recorders write into; recording is on unless it was switched off before.

    Raises:
        SessionError: It can't be written.
    """
    folder = session / "recorder"
    try:
        folder.mkdir(exist_ok=True, mode=0o700)
        if not (folder / "control.json").exists():
            _write_control(folder, True, 0)
    except OSError as error:
        raise _error(folder, error) from error


def control(session: Path) -> tuple[bool, int]:
    """Return whether recording is on, and the current epoch."""
    return recorder.read_control(session / "recorder")


def set_enabled(session: Path, enabled: bool) -> None:
    """Switch counting on or off in every process that records into the session, within a second.

    Raises:
        SessionError: It can't be written.
    """
    with _changing(session) as folder:
        _, epoch = recorder.read_control(folder)
        _write_control(folder, enabled, epoch)


def reset(session: Path) -> int:
    """Start a new epoch: running processes count from zero within a second; previous counts stay in their files.

    Returns:
        The previous epoch, now archived.

    Raises:
        SessionError: It can't be written.
    """
    with _changing(session) as folder:
        enabled, epoch = recorder.read_control(folder)
        _write_control(folder, enabled, epoch + 1)
        return epoch


def processes(session: Path, epoch: int | None = None) -> list[Process]:
    """Return the counts of each process in an epoch, by default the current one; damaged files are skipped."""
    folder = session / "recorder"
    wanted = recorder.read_control(folder)[1] if epoch is None else epoch
    found = []
    for name in _file_names(folder, wanted):
        with contextlib.suppress(OSError, ValueError):
            found.append(decode(Process, read_regular(folder / name, MAX_RECORD)))
    return found


def _file_names(folder: Path, epoch: int | None = None) -> list[str]:
    """Return the names of the files that processes wrote in an epoch, or in any; empty if unreadable."""
    start = "" if epoch is None else f"{epoch}-"
    try:
        return sorted(name for name in os.listdir(folder) if name.startswith(start))  # noqa: PTH208
    except OSError:
        return []


def transfer_counts(session: Path) -> tuple[TransferCounts, ...]:
    """Return the counts of all processes in the current epoch, summed."""
    return added(counts for process in processes(session) for counts in process.transfer_counts)


def archived(session: Path) -> list[int]:
    """Return the epochs before the current one that have files."""
    present = control(session)[1]
    numbers = {
        int(epoch) for name in _file_names(session / "recorder") if (epoch := name.partition("-")[0]).isdecimal()
    }
    return sorted(number for number in numbers if number < present)


def live(session: Path) -> list[Process]:
    """Return processes that may still count: on this host the running ones, elsewhere those that wrote within 10 s."""
    here = os.uname().nodename
    return [
        process
        for process in processes(session)
        if not process.ended and (_runs(process) if process.host == here else _fresh(process))
    ]


def filled(session: Session, folder: Path) -> Session:
    """Return the session with its processes' counts so far, and their times."""
    found = processes(folder)
    if not found:
        return session
    started, ended = min(process.started for process in found), max(process.updated for process in found)
    return replace(
        session,
        transfer_counts=added(counts for process in found for counts in process.transfer_counts),
        started=started,
        ended=ended,
        duration_s=max(0.0, ended - started),
    )


def _runs(process: Process) -> bool:
    """True if it still runs on this host; False for a zombie and for a later process with the same pid."""
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_bytes()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # unreadable: assume that it may still count
    # The name stands in parentheses, and may hold blanks and parentheses itself.
    fields = stat.rpartition(b")")[2].split()
    if fields[0] in (b"Z", b"X"):
        return False
    # A process that began later has the pid of one that ended, and counts nothing here.
    begun = time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return begun <= process.updated + _CLOCK_SLACK_S


def _fresh(process: Process) -> bool:
    return time.time() - process.updated < 10


def mark(session: str) -> int:
    """Return a value that changes when a process has written; 0 if unreadable."""
    try:
        return os.stat(f"{session}/recorder").st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


@contextlib.contextmanager
def _changing(session: Path) -> Iterator[Path]:
    folder = session / "recorder"
    try:
        with alone_in(folder):
            yield folder
    except OSError as error:
        raise _error(folder, error) from error


def _write_control(folder: Path, enabled: bool, epoch: int) -> None:
    replace_file(folder / "control.json", orjson.dumps({"enabled": enabled, "epoch": epoch}), mode=0o666)


def _error(folder: Path, error: OSError) -> SessionError:
    return SessionError(f"can't write in {folder}: {error.strerror}", "check the folder's owner and free space")
