"""The worker process: start in its own process group, read its lines, end it and its descendants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kvdeck.engine.children.child import PIPE, Child, last_lines, tail_of
from kvdeck.engine.children.pipes import PipeLines, exit_of
from kvdeck.engine.children.stray_lines import StrayLines
from kvdeck.engine.tasks import TaskGroup
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.host.processes import group_members, process_start

# A process that left the worker's group may hold the pipe open after its end.
EOF_SECONDS = 5.0
LAST_WORDS = 20
HURRY_SECONDS = 1.5
"""Seconds a worker has to end when the engine is stopped by force."""
KILL_SECONDS = 5.0
"""Seconds to wait after SIGKILL; a process blocked on a dead disk or device never ends."""
SESSION_VARIABLE = "KVDECK_SESSION_DIR"
"""Environment variable of a worker and its ranks that holds their session folder."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a worker in seconds, after which it is killed."""

    grace: float = 10.0
    """After SIGTERM (cancellation)."""
    linger: float = 60.0
    """After its last line; it may have many gigabytes of test files to remove."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Result of a worker process."""

    status: int
    """Exit status; if negative, minus the signal number."""
    killed: bool
    """True if the engine killed the worker because it did not end in time."""


class Worker:
    """A running worker process. Its stdin stays open while the engine lives; end of file means that the engine died."""

    def __init__(
        self, argv: Sequence[str], folder: Path, log: IO[bytes], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the worker with `--session-dir FOLDER`; its stderr goes to `log`, which is closed with it.

        `environment` are variables added to those of this process.

        Raises:
            OSError: The process can't be started.
        """
        self.ending = asyncio.Event()
        """Set by the caller after the worker's last line: it ends by itself, so no SIGTERM is sent."""
        self._log = log
        try:
            self._child = Child(
                [*argv, "--session-dir", str(folder)],
                stdin=PIPE,
                stdout=PIPE,
                stderr=self._log,
                cwd="/",
                # A crash in a native library then leaves Python's stack in the session's log.
                env={**(environment or {}), SESSION_VARIABLE: str(folder), "PYTHONFAULTHANDLER": "1"},
            )
        except OSError:
            self._log.close()
            raise
        self.pid = self._child.pid

    async def run(
        self, take: Callable[[list[bytes]], None], cancel: asyncio.Event, limits: Limits, hurry: asyncio.Event
    ) -> Ending:
        """Pass the worker's event lines to `take` until the worker and its process group have ended.

        After `cancel`, the worker gets SIGTERM, and its group SIGKILL after `limits.grace`; after `hurry`, within
        `HURRY_SECONDS`. No process of the group remains when this returns or raises.

        Raises:
            EngineError: The worker was killed, but the kernel does not end it.
            Exception: An error of `take`.
        """
        strays = StrayLines(self._log)
        lines = PipeLines(self._child.stdout, lambda lines: _split(lines, take, strays))
        exited = asyncio.Event()
        try:
            async with TaskGroup() as tasks:
                watching, writing = tasks.create_task(self._watch(exited)), tasks.create_task(strays.run())
                await _first_of(exited, cancel, self.ending, hurry, lines.ended)
                killed = not await self._goes(exited, limits, hurry)
                # Kill remaining ranks before reaping the worker: while it is a zombie, its group id can't be reused.
                self._child.signal_group(signal.SIGKILL)
                await _within(KILL_SECONDS, exited)
                watching.cancel()
                status = self._child.poll()
                if status is not None:
                    await _within(EOF_SECONDS, lines.ended)
                strays.close()
                await asyncio.wait((writing,), timeout=EOF_SECONDS)
                writing.cancel()
        finally:
            lines.close()
            self.abandon()
        if status is None:
            raise EngineError(
                f"worker {self.pid} was killed but has not exited: the kernel waits for a disk or a device",
                f"see `cat /proc/{self.pid}/stack`",
            )
        if lines.broken is not None:
            raise lines.broken
        return Ending(status, killed)

    async def _watch(self, exited: asyncio.Event) -> None:
        await exit_of(self._child)
        exited.set()

    def abandon(self) -> None:
        """Kill the worker's group if it still runs, and close its files."""
        self._child.abandon()
        with contextlib.suppress(OSError):
            self._log.close()

    async def _goes(self, exited: asyncio.Event, limits: Limits, hurry: asyncio.Event) -> bool:
        """Send SIGTERM unless the worker is ending, and return True if it exits within its time limit."""
        if not exited.is_set() and not self.ending.is_set():
            self._child.signal(signal.SIGTERM)
        await _within(limits.linger if self.ending.is_set() else limits.grace, exited, hurry)
        if hurry.is_set():
            await _within(HURRY_SECONDS, exited)
        return exited.is_set()


def _split(lines: list[bytes], take: Callable[[list[bytes]], None], strays: StrayLines) -> None:
    """Pass event lines on; let others, such as a library's prints, be written to the log."""
    # Events are encoded with their kind first, so a prefix tells them from prints without parsing.
    events = [line for line in lines if line.startswith(b'{"kind":"')]
    if len(events) < len(lines):
        strays.add([line for line in lines if not line.startswith(b'{"kind":"')])
    if events:
        take(events)


async def _first_of(*events: asyncio.Event) -> None:
    """Wait for the first of several events."""
    async with TaskGroup() as tasks:
        waiting = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()


async def _within(seconds: float, *events: asyncio.Event) -> None:
    """Wait for the first of several events, for at most `seconds`."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(_first_of(*events), seconds)


def last_words(log: Path) -> tuple[str, ...]:
    """Return the last `LAST_WORDS` non-blank lines of a worker's log; empty if unreadable."""
    try:
        with log.open("rb") as file:
            return last_lines(tail_of(file), LAST_WORDS)
    except OSError:
        return ()


def end_group(pid: int, start: int, folder: Path, seconds: float) -> bool:
    """End a worker and its ranks that a dead engine left behind.

    It kills only the worker with this pid *and* start time, and processes in its group that have its session in their
    environment.

    Args:
        start: Start time of the worker in clock ticks since boot.
        seconds: Time for the worker to end by itself, since it notices the engine's end.

    Returns:
        True if there was such a process.
    """
    if process_start(pid) not in (None, start):
        return False
    members = [member for member in group_members(pid) if member == pid or _belongs(member, folder)]
    deadline = time.monotonic() + seconds
    while process_start(pid) == start and time.monotonic() < deadline:
        time.sleep(0.02)
    for member in group_members(pid):
        if member in members:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
    return bool(members)


def end_left(folder: Path) -> list[int]:
    """Kill every process with the session in its environment: a worker whose pid was never written.

    Returns:
        The pids of the killed processes.
    """
    ended = []
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if entry.isdigit() and int(entry) != os.getpid() and _belongs(int(entry), folder):
            with contextlib.suppress(OSError):
                os.kill(int(entry), signal.SIGKILL)
                ended.append(int(entry))
    return ended


def _belongs(pid: int, folder: Path) -> bool:
    try:
        return f"{SESSION_VARIABLE}={folder}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
