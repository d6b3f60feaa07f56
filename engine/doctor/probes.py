"""Runner for probe child processes: in parallel, each with a time limit, tolerant of crashes and hangs."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kvdeck.engine.io import reasons
from kvdeck.engine.io.findings import PathFinding, PluginFinding
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.processes import signal_name
from kvdeck.sessions.model.records import from_json

_PATIENCE = 4
"""All probes end after this many times the limit, even if they waited for a core."""

Command = Callable[[Sequence[str]], list[str]]
"""Returns the argv of a child that runs the given checks."""


@dataclass(slots=True)
class Probed:
    """Findings of all children; `failures` by check, for those that failed, crashed or hung."""

    rows: list[PathFinding] = field(default_factory=list)
    plugins: dict[str, PluginFinding] = field(default_factory=dict)
    failures: dict[str, UnavailableError] = field(default_factory=dict)


def probe_command(folder: Path) -> Command:
    """Return a function that builds the argv of a child for some checks; test files go to `folder`."""
    return lambda checks: [sys.executable, "-m", "kvdeck.engine.doctor.probe", *checks, "--folder", str(folder)]


def probe(groups: Sequence[Sequence[str]], command: Command, limit_s: float) -> Probed:
    """Run each group of checks in one child, all groups in parallel, and return the findings.

    A check that crashes its child is recorded with the signal, and a new child runs the checks after it. A check that
    hangs is killed at `limit_s` seconds, or at half of that if others in its group follow. Time that a child was
    runnable but got no core isn't counted, up to `_PATIENCE` times the limit, so that a busy host doesn't look broken.
    """
    return _Probing(command, limit_s).run(groups)


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    left: list[str]
    """Checks not done yet; the first one is running."""
    budget_s: float
    """Seconds for all of them."""
    since: float
    """Start of the running check, on the monotonic clock."""
    starved_s: float = 0.0
    """Seconds without a core before `since`."""
    starved_at_last_s: float = 0.0
    """Seconds without a core at the last look."""
    pending: bytes = b""

    def used_s(self) -> float:
        """Return seconds that the running check has used, without time spent waiting for a core."""
        # The kernel drops the count when the process or one of its children exits, so use the maximum seen.
        self.starved_at_last_s = max(self.starved_at_last_s, _starved_s(self.process.pid))
        return time.monotonic() - self.since - (self.starved_at_last_s - self.starved_s)

    def next_check(self) -> None:
        self.budget_s -= self.used_s()
        self.since, self.starved_s = time.monotonic(), self.starved_at_last_s


class _Probing:
    """The running children, and their findings so far."""

    def __init__(self, command: Command, limit_s: float) -> None:
        self._command = command
        self._limit_s = limit_s
        self._end = time.monotonic() + _PATIENCE * limit_s
        self._found = Probed()
        self._selector = selectors.DefaultSelector()

    def run(self, groups: Sequence[Sequence[str]]) -> Probed:
        with self._selector:
            for group in groups:
                self._start(list(group), self._limit_s)
            while children := [key.data for key in self._selector.get_map().values()]:
                wait = min(self._remaining_s(child) for child in children)
                for key, _ in self._selector.select(max(0.0, wait)):
                    self._hear(key.data)
                for key in list(self._selector.get_map().values()):
                    if self._remaining_s(key.data) <= 0:
                        self._give_up(key.data)
        return self._found

    def _allowed_s(self, child: _Child) -> float:
        return child.budget_s if len(child.left) <= 1 else min(child.budget_s, self._limit_s / 2)

    def _remaining_s(self, child: _Child) -> float:
        return min(self._allowed_s(child) - child.used_s(), self._end - time.monotonic())

    def _start(self, checks: list[str], budget_s: float) -> None:
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its child
        process = subprocess.Popen(
            self._command(checks),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        child = _Child(process, words, checks, budget_s, time.monotonic())
        self._selector.register(process.stdout, selectors.EVENT_READ, child)

    def _hear(self, child: _Child) -> None:
        assert child.process.stdout is not None
        data = child.process.stdout.read()
        if data:
            *lines, child.pending = (child.pending + data).split(b"\n")
            for line in lines:
                self._note(child, load_record(line))
            return
        status = child.process.wait()
        if child.left:
            trying = child.left[0]
            self._found.failures[trying] = reasons.crashed(trying, _how(status), _last_line(child.words))
        self._leave(child)

    def _note(self, child: _Child, line: dict[str, Any]) -> None:
        found = self._found
        if "row" in line:
            found.rows.append(from_json(PathFinding, line["row"]))
        elif "plugin" in line:
            plugin = from_json(PluginFinding, line["plugin"])
            found.plugins[plugin.name] = plugin
        elif "failed" in line and child.left:
            found.failures[child.left[0]] = UnavailableError(line["failed"]["reason"], line["failed"]["fix"])
        elif "done" in line:
            child.left.remove(line["done"])
            child.next_check()

    def _give_up(self, child: _Child) -> None:
        allowed = self._allowed_s(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver it can't die: leave it behind
            child.process.wait(timeout=0.1)
        if child.left:
            self._found.failures[child.left[0]] = reasons.no_answer(child.left[0], allowed, self._limit_s)
        self._leave(child)

    def _leave(self, child: _Child) -> None:
        """Close a child that ended, and start another for the checks after the one that ended it, if time is left."""
        assert child.process.stdout is not None
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        child.words.close()
        budget_s = child.budget_s - child.used_s()
        if len(child.left) > 1 and budget_s > 0 and time.monotonic() < self._end:
            self._start(child.left[1:], budget_s)


def _starved_s(pid: int) -> float:
    """Return seconds that a process and its children were runnable but got no core; 0 without kernel support."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for process in (str(pid), *children):
            total += int(Path(f"/proc/{process}/schedstat").read_text().split()[1])
    return total / 1e9


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    return signal_name(-status)


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = [line.strip() for line in words.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
