"""The worker process: start in its own process group, read its lines, end it and its descendants."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.protocol import MAX_LINE
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.host.processes import group_members, process_start

PIPE_BYTES = 1 << 20
EOF_SECONDS = 5.0
LOOK_SECONDS = 0.05
LAST_WORDS = 20
HURRY_SECONDS = 1.5
"""Seconds a worker has to end when the engine is stopped by force."""
KILL_AT_ONCE_SECONDS = 0.5
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

    returncode: int
    """Exit status; if negative, minus the signal number."""
    killed: bool
    """True if the engine killed the worker because it did not end in time."""


class WorkerLines:
    """Reader of a worker's stdout: passes event lines to `take`, other lines to `stray`.

    To avoid a wake-up per round at hundreds of rounds per second, it polls the pipe every `LOOK_SECONDS` while lines
    arrive that fast, and waits for the pipe again once a poll returns nothing.
    """

    def __init__(self, fd: int, take: Callable[[list[bytes]], None], stray: Callable[[list[bytes]], None]) -> None:
        self._fd, self._take, self._stray = fd, take, stray
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._next_look = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()
        self.broken: Exception | None = None
        """Error of `take` or `stray` that ended reading before the end of the pipe."""
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._on_readable)

    def close(self) -> None:
        """Stop reading, even before the end of the pipe."""
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()

    def _on_readable(self) -> None:
        now = self._loop.time()
        if now < self._next_look:
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_at(self._next_look, self._look)
        else:
            self._next_look = _next_tick(now)
            self._read()

    def _look(self) -> None:
        found = self._read()
        if found == 0:
            self._loop.add_reader(self._fd, self._on_readable)
        elif found > 0:
            now = self._loop.time()
            when = _next_tick(now) if found < PIPE_BYTES // 16 else now
            self._timer = self._loop.call_at(when, self._look)

    def _read(self) -> int:
        """Return the number of bytes read; 0 if none are available, -1 at the end or after an error."""
        try:
            data = os.read(self._fd, PIPE_BYTES // 4)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
            self.ended.set()
            return -1
        try:
            self._split(data)
        except Exception as error:
            # An event-loop callback has no caller to raise to: `Worker.run` raises this error.
            self.broken = error
            self.close()
            self.ended.set()
            return -1
        return len(data)

    def _split(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            self._rest = b""
        events = [line for line in lines if line.startswith(b'{"kind":"')]
        if len(events) < len(lines):
            self._stray([line for line in lines if not line.startswith(b'{"kind":"')])
        if events:
            self._take(events)


def _next_tick(now: float) -> float:
    """Return the next poll time on the grid that clients' samples use too, so that one wake-up serves both."""
    return (now // LOOK_SECONDS + 1) * LOOK_SECONDS


class Worker:
    """A running worker process. Its stdin stays open while the engine lives; end of file means that the engine died."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        """Start the worker with `--session-dir FOLDER`; its stderr goes to the folder's `engine.log`.

        Raises:
            OSError: The log can't be opened or the process can't be started.
        """
        self.ending = asyncio.Event()
        """Set by the caller after the worker's last line: it ends by itself, so no SIGTERM is sent."""
        self._log = (folder / "engine.log").open("ab", buffering=0)
        try:
            self._process = subprocess.Popen(
                [*argv, "--session-dir", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd="/",
                env={**os.environ, SESSION_VARIABLE: str(folder), "PYTHONFAULTHANDLER": "1"},
                start_new_session=True,
            )
        except OSError:
            self._log.close()
            raise
        self.pid = self._process.pid

    async def run(
        self, take: Callable[[list[bytes]], None], cancel: asyncio.Event, limits: Limits, hurry: asyncio.Event
    ) -> Ending:
        """Pass the worker's lines to `take` until the worker and its process group have ended.

        After `cancel`, the worker gets SIGTERM, and its group SIGKILL after `limits.grace`; after `hurry`, within
        `HURRY_SECONDS`. No process of the group remains when this returns or raises.

        Raises:
            EngineError: The worker was killed, but the kernel does not end it.
            Exception: An error of `take`.
        """
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a larger pipe is only an optimization
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        lines = WorkerLines(self._process.stdout.fileno(), take, self._stray)
        exited = asyncio.ensure_future(_exit_of(self.pid))
        try:
            await _first_of(exited, cancel, self.ending, hurry, lines.ended)
            killed = not await self._goes(exited, limits, hurry)
            # Kill remaining ranks before reaping the worker: while it is a zombie, its group id can't be reused.
            self._signal_group(signal.SIGKILL)
            await asyncio.wait({exited}, timeout=KILL_SECONDS)
            returncode = self._process.poll()
            if returncode is None:
                raise EngineError(
                    f"worker {self.pid} was killed but has not exited: the kernel waits for a disk or a device",
                    f"see `cat /proc/{self.pid}/stack`",
                )
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(lines.ended.wait(), EOF_SECONDS)
        finally:
            exited.cancel()
            lines.close()
            self._abandon()
        if lines.broken is not None:
            raise lines.broken
        return Ending(returncode, killed)

    def _abandon(self) -> None:
        """Kill the worker's group if it still runs, and close its files."""
        if self._process.poll() is None:
            self._signal_group(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_AT_ONCE_SECONDS)
        for file in (self._process.stdout, self._process.stdin, self._log):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    async def _goes(self, exited: asyncio.Future[None], limits: Limits, hurry: asyncio.Event) -> bool:
        """Send SIGTERM unless the worker is ending, and return True if it exits within its time limit."""
        if not exited.done() and not self.ending.is_set():
            os.kill(self.pid, signal.SIGTERM)
        seconds = limits.linger if self.ending.is_set() else limits.grace
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_first_of(exited, hurry), seconds)
        if hurry.is_set():
            await asyncio.wait({exited}, timeout=HURRY_SECONDS)
        return exited.done()

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _stray(self, lines: list[bytes]) -> None:
        with contextlib.suppress(OSError):  # a full disk must not end the run
            self._log.write(b"".join(line + b"\n" for line in lines))


async def _first_of(exited: asyncio.Future[None], *events: asyncio.Event) -> None:
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait({exited, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()


async def _exit_of(pid: int) -> None:
    """Wait for a child's exit without reaping it, and without a thread, as the host may have none left."""
    try:
        fd = os.pidfd_open(pid)
    except (OSError, AttributeError):  # old kernel, seccomp filter, or Python built without it
        while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            await asyncio.sleep(LOOK_SECONDS)
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(fd)
        os.close(fd)


def last_words(log: Path) -> tuple[str, ...]:
    """Return the last `LAST_WORDS` non-blank lines of a worker's log; empty if unreadable."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-LAST_WORDS:]


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
