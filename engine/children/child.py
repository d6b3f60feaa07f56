"""One worker child: start it in a session of its own, read its lines, end it and everything it started."""

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
"""What a worker has left when the engine is ended by force."""
KILL_AT_ONCE_SECONDS = 0.5
KILL_SECONDS = 5.0
"""Within which the kernel must have ended what was killed: what waits for a dead disk or device does not end."""
SESSION_VARIABLE = "KVDECK_SESSION_DIR"
"""In the environment of a worker and of its ranks: whose they are."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds a worker has before it is killed."""

    grace: float = 10.0
    """After it was asked to cancel."""
    linger: float = 60.0
    """After its last line: it may have many gigabytes of test files to remove."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended."""

    returncode: int
    """Exit status; negative: the number of the signal."""
    killed: bool
    """It did not go when asked, and was killed by the engine."""


class WorkerLines:
    """Reads a worker's stdout and splits it into lines; what is no event goes to `stray`.

    Hundreds of rounds a second would each wake the engine: while they come that fast, it looks into the pipe
    at a fixed pace instead, and goes back to waiting for the pipe once a look finds nothing.
    """

    def __init__(self, fd: int, take: Callable[[list[bytes]], None], stray: Callable[[list[bytes]], None]) -> None:
        self._fd, self._take, self._stray = fd, take, stray
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        self._next_look = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()
        self.broken: Exception | None = None
        """Why reading ended before the pipe did: what takes the lines failed."""
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._on_readable)

    def close(self) -> None:
        """Stop reading, whether or not the pipe has ended."""
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
        """Bytes read; 0 when there are none yet, -1 at the end."""
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
            # This runs in the loop's callback, where nobody waits for an answer: whoever waits for the worker does.
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
    """On the same grid as the clients' samples, so that one wake-up serves both."""
    return (now // LOOK_SECONDS + 1) * LOOK_SECONDS


class Worker:
    """A running worker child. Its stdin stays open for its life: the pipe's closing says that the engine is gone."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        """Start it with `--session-dir FOLDER`; its stderr goes to the folder's `engine.log`.

        Raises:
            OSError: It can't be started.
        """
        self.ending = asyncio.Event()
        """Set once the worker has said its last line: it goes by itself."""
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
        """Pass its lines to `take` until it and everything in its process group has ended.

        Once `cancel` is set it gets a SIGTERM, and a SIGKILL for its whole group after the grace; once `hurry` is
        set, after `HURRY_SECONDS`. However this ends, nothing of the worker runs after it.

        Raises:
            EngineError: It was killed, and the kernel does not end it.
            Exception: What `take` raised.
        """
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a smaller pipe is sooner full, nothing else
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        lines = WorkerLines(self._process.stdout.fileno(), take, self._stray)
        exited = asyncio.ensure_future(_exit_of(self.pid))
        try:
            await _first_of(exited, cancel, self.ending, hurry, lines.ended)
            killed = not await self._goes(exited, limits, hurry)
            # Until it is waited for, the worker is a zombie and its group's number its own: end the ranks it left.
            self._signal_group(signal.SIGKILL)
            await asyncio.wait({exited}, timeout=KILL_SECONDS)
            returncode = self._process.poll()
            if returncode is None:
                raise EngineError(
                    f"worker {self.pid} was killed and does not end: the kernel waits for a disk or a device for it",
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
        """Kill what still runs of it and close its files, whatever has happened before."""
        if self._process.poll() is None:
            self._signal_group(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_AT_ONCE_SECONDS)
        for file in (self._process.stdout, self._process.stdin, self._log):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()

    async def _goes(self, exited: asyncio.Future[None], limits: Limits, hurry: asyncio.Event) -> bool:
        """Whether it ends within its time."""
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
    """Wait for a child's end without a thread, of which there may be none; the child stays a zombie."""
    try:
        fd = os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel, a filter of system calls, Python without it
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
    """The last lines of a worker's stderr."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-LAST_WORDS:]


def end_group(pid: int, start: int, folder: Path, seconds: float) -> bool:
    """End a worker, and its ranks, that a dead engine left behind.

    Only processes are touched of which the pid *and* the start time are known, or that sit in that worker's
    group with its session in their environment.

    Args:
        start: Start time of the worker in clock ticks since boot.
        seconds: How long the worker may take to end by itself: it knows that the engine is gone.

    Returns:
        Whether there was any.
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
    """Kill every process of this user that has the session in its environment: a worker of which nobody took note."""
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
