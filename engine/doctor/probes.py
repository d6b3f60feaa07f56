"""Runner for probe child processes: in parallel, each with a time limit, tolerant of crashes and hangs."""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from msgspec import Struct

from kvdeck.engine.children.child import PIPE, Child, last_line, tail_of
from kvdeck.engine.io import reasons
from kvdeck.engine.io.findings import PathFinding, PluginFinding
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.host.processes import signal_name
from kvdeck.sessions.model.encoding import decode

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


class _Failed(Struct):
    reason: str
    fix: str


class _Line(Struct):
    """A line of a child, see `probe.checks`: one of these, or what is of no interest here."""

    row: PathFinding | None = None
    plugin: PluginFinding | None = None
    failed: _Failed | None = None
    done: str | None = None


@dataclass(slots=True)
class _Group:
    process: Child
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
    lines: LineBuffer = field(default_factory=LineBuffer)

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

    def _allowed_s(self, child: _Group) -> float:
        # A check that hangs must leave time for those behind it.
        return child.budget_s if len(child.left) <= 1 else min(child.budget_s, self._limit_s / 2)

    def _remaining_s(self, child: _Group) -> float:
        return min(self._allowed_s(child) - child.used_s(), self._end - time.monotonic())

    def _start(self, checks: list[str], budget_s: float) -> None:
        # A file, not a pipe: a pipe that isn't read meanwhile would block a native library that logs much.
        words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its child
        process = Child(self._command(checks), stdout=PIPE, stderr=words)
        os.set_blocking(process.stdout.fileno(), False)
        child = _Group(process, words, checks, budget_s, time.monotonic())
        self._selector.register(process.stdout, selectors.EVENT_READ, child)

    def _hear(self, child: _Group) -> None:
        data = child.process.stdout.read()
        if data:
            for line in child.lines.take(data):
                self._note(child, decode(_Line, line))
            return
        status = child.process.wait()
        assert status is not None
        if child.left:
            trying = child.left[0]
            self._found.failures[trying] = reasons.crashed(trying, _how(status), last_line(tail_of(child.words))[:200])
        self._leave(child)

    def _note(self, child: _Group, line: _Line) -> None:
        found = self._found
        if line.row is not None:
            found.rows.append(line.row)
        elif line.plugin is not None:
            found.plugins[line.plugin.name] = line.plugin
        elif line.failed is not None and child.left:
            found.failures[child.left[0]] = UnavailableError(line.failed.reason, line.failed.fix)
        elif line.done is not None:
            child.left.remove(line.done)
            child.next_check()

    def _give_up(self, child: _Group) -> None:
        allowed = self._allowed_s(child)
        child.process.kill(0.1)  # stuck in a driver it can't die: leave it behind
        if child.left:
            self._found.failures[child.left[0]] = reasons.no_answer(child.left[0], allowed, self._limit_s)
        self._leave(child)

    def _leave(self, child: _Group) -> None:
        """Close a child that ended, and start another for the checks after the one that ended it, if time is left."""
        self._selector.unregister(child.process.stdout)
        child.process.close()
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
