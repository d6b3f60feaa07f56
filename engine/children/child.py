"""The one place that starts processes: their group, environment, umask, time limits, output bounds and end.

It works from any thread and imports no asyncio; `pipes` reads a child's output and awaits its end on an event loop.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from kvdeck.sessions.host.processes import signal_name

PIPE = subprocess.PIPE
DEVNULL = subprocess.DEVNULL
STDOUT = subprocess.STDOUT
MOST_OUTPUT = 64 << 20
"""Bytes of a child's output after which `run` kills it, unless told otherwise."""
KILL_SECONDS = 0.5
"""Seconds to wait after SIGKILL; a process that is stuck in a driver or on a dead disk never ends, and is left."""
TAIL_BYTES = 8192
# A descendant may hold the pipes open after the child's end, so its end is looked for as well.
_LOOK_SECONDS = 0.1
_PR_SET_PDEATHSIG = 1

Stream = int | IO[Any] | None


class Child:
    """A started process.

    Args:
        stdin: As for `subprocess`: a file, a descriptor, `PIPE`, `DEVNULL`, or None to inherit it; likewise the others.
        env: Variables added to this process's environment.
        own_group: Start a session and a process group for the child and its descendants, which `kill` then ends
            together. Otherwise it stays in this process's group, and ends when that group is killed.
        umask: The child's umask; -1 keeps this process's.
        signal_mask: Signals blocked in the child; None keeps this thread's mask. Only for a process with one thread.

    Raises:
        OSError: The process can't be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        stdin: Stream = DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        own_group: bool = True,
        umask: int = -1,
        signal_mask: Iterable[int] | None = None,
    ) -> None:
        # Code between fork and exec can deadlock beside threads, so it is used only where a mask has to be set.
        before_exec = None if signal_mask is None else _setting_mask(signal_mask)
        self._process = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=None if env is None else {**os.environ, **env},
            start_new_session=own_group,
            umask=umask,
            preexec_fn=before_exec,
        )
        self._own_group = own_group
        self.pid = self._process.pid

    @property
    def stdin(self) -> IO[bytes]:
        """The write end of the child's stdin, if it is a `PIPE`."""
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def stdout(self) -> IO[bytes]:
        """The read end of the child's stdout, if it is a `PIPE`."""
        assert self._process.stdout is not None
        return self._process.stdout

    @property
    def stderr(self) -> IO[bytes]:
        """The read end of the child's stderr, if it is a `PIPE`."""
        assert self._process.stderr is not None
        return self._process.stderr

    @property
    def status(self) -> int | None:
        """Exit status, minus the signal's number if a signal ended it; None until the child was reaped."""
        return self._process.returncode

    def exited(self) -> bool:
        """True if the child has ended; doesn't reap it, so its process and group id can't be reused yet."""
        if self.status is not None:
            return True
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
        except ChildProcessError:
            return True

    def poll(self) -> int | None:
        """Reap the child if it has ended; return its status, None while it runs."""
        return self._process.poll()

    def wait(self, seconds: float | None = None) -> int | None:
        """Wait for the child's end and reap it; return its status, or None after `seconds`."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def signal(self, number: int) -> None:
        """Send a signal to the child only; does nothing once it was reaped."""
        self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the child and its descendants, also to those that are left of a child that has exited.

        Call it before the child is reaped: afterwards its group id may belong to other processes.
        """
        if not self._own_group:
            self.signal(number)
        elif self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self, seconds: float = KILL_SECONDS) -> int | None:
        """Send SIGKILL to the child and its group and reap it; return its status, None if it doesn't end in time."""
        self.signal_group(signal.SIGKILL)
        return self.wait(seconds)

    def abandon(self) -> None:
        """Kill the child if it still runs, and close this process's ends of its pipes."""
        if self.poll() is None:
            self.kill()
        self.close()

    def close(self) -> None:
        """Close this process's ends of the child's pipes."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _setting_mask(signal_mask: Iterable[int]) -> Callable[[], object]:
    mask = frozenset(signal_mask)
    return lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@dataclass(frozen=True, slots=True)
class Finished:
    """Result of a child that `run` has run to its end."""

    status: int | None
    """Exit status, minus the signal's number if a signal ended it; None if `run` killed it."""
    output: bytes
    errors: bytes
    """The end of its stderr, at most `TAIL_BYTES`; empty if stderr went into `output`."""


def run(
    argv: Sequence[str],
    seconds: float,
    *,
    most_output: int = MOST_OUTPUT,
    merge_stderr: bool = False,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    own_group: bool = True,
) -> Finished:
    """Run a child to its end and return what it wrote. Blocks for at most `seconds` and a moment.

    A child that runs longer, or writes more than `most_output` bytes, is killed with its descendants. One that the
    kernel can't end is left behind.

    Raises:
        OSError: The process can't be started.
    """
    stderr = STDOUT if merge_stderr else PIPE
    child = Child(argv, stdout=PIPE, stderr=stderr, cwd=cwd, env=env, own_group=own_group)
    output, errors = bytearray(), bytearray()
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, output)
        if not merge_stderr:
            selector.register(child.stderr, selectors.EVENT_READ, errors)
        ended = False
        while selector.get_map() and len(output) <= most_output and time.monotonic() < deadline:
            ready = selector.select(max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic())))
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                key.data.extend(data)
                if not data:
                    selector.unregister(key.fileobj)
            del errors[:-TAIL_BYTES]
            if not ready and ended:
                break  # a descendant outlives it and holds its pipes open
            # Only after a look without data: what the child wrote last may still be in the pipe.
            ended = not ready and child.exited()
        in_time = ended or (not selector.get_map() and _exits(child, deadline))
    # Also after an orderly end: descendants that it left in its group end with it.
    status = child.kill() if own_group or not in_time else child.wait()
    child.close()
    return Finished(status if in_time and len(output) <= most_output else None, bytes(output), bytes(errors))


def _exits(child: Child, deadline: float) -> bool:
    """Wait until the child has ended, without reaping it; return False at the deadline."""
    while not child.exited():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.005)
    return True


def die_with_parent(parent: int | None = None, number: int = signal.SIGKILL) -> None:
    """Have the kernel kill this process when the thread that started it ends, for any reason.

    Args:
        parent: The parent's process id, if it is known; closes the gap in which the parent may have ended already.
        number: The signal; 0 undoes it.

    Raises:
        SystemExit: The parent has already ended.
    """
    import ctypes  # takes milliseconds, which clients of the engine don't have to spend

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    if parent is not None and os.getppid() != parent:
        raise SystemExit("the parent process exited")


def exit_reason(status: int) -> str:
    """Return how a process ended: `died of SIGSEGV`, or `ended with status 3`."""
    return f"died of {signal_name(-status)}" if status < 0 else f"ended with status {status}"


def shell_status(status: int) -> int:
    """Return the exit status as a shell gives it: 128 plus the signal's number for a process that a signal ended."""
    return status if status >= 0 else 128 - status


def last_lines(written: bytes, count: int) -> tuple[str, ...]:
    """Return the last lines of a process's output that aren't blank, oldest first."""
    lines = written[-TAIL_BYTES:].decode(errors="replace").splitlines()
    return tuple(line.rstrip() for line in lines if line.strip())[-count:]


def last_line(written: bytes, missing: str = "") -> str:
    """Return the last line of a process's output that isn't blank; `missing` if there is none."""
    return next(iter(last_lines(written, 1)), missing).strip()


def tail_of(file: IO[bytes]) -> bytes:
    """Return the last `TAIL_BYTES` of an open file."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
    return file.read(TAIL_BYTES)
