"""Runs probe children beside each other, each with a limit, and survives what they do."""

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

Command = Callable[[Sequence[str]], list[str]]


@dataclass(slots=True)
class Probed:
    """All that the children told, and why a check told nothing."""

    rows: list[PathFinding] = field(default_factory=list)
    plugins: dict[str, PluginFinding] = field(default_factory=dict)
    failures: dict[str, UnavailableError] = field(default_factory=dict)


def probe_command(folder: Path) -> Command:
    """The command line that runs checks in a child of their own."""
    return lambda checks: [sys.executable, "-m", "kvdeck.engine.doctor.probe", *checks, "--folder", str(folder)]


def probe(groups: Sequence[Sequence[str]], command: Command, limit_s: float) -> Probed:
    """Run each group of checks in a child, all at once, and end what is not done by the limit.

    A check that crashes its child is noted with the signal, and a new child goes on after it. One that hangs is
    ended: alone in its child at the limit, before others in its group at half of it. Time that a child was ready to
    run and got no core is not counted, up to `_PATIENCE` times the limit: a busy host is not a broken one.
    """
    return _Probing(command, limit_s).run(groups)


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    left: list[str]
    """Checks that aren't done, the one being tried at the front."""
    budget_s: float
    """Time for all of them."""
    since: float
    """When the check at the front began, on the monotonic clock."""
    starved_s: float = 0.0
    """Time without a core before that."""
    starved_at_last_s: float = 0.0
    pending: bytes = b""

    def used_s(self) -> float:
        """Seconds that the check at the front has had, without those it had to wait for a core."""
        # The kernel forgets the count with the process, and a part of it with each of its children.
        self.starved_at_last_s = max(self.starved_at_last_s, _starved_s(self.process.pid))
        return time.monotonic() - self.since - (self.starved_at_last_s - self.starved_s)

    def next_check(self) -> None:
        self.budget_s -= self.used_s()
        self.since, self.starved_s = time.monotonic(), self.starved_at_last_s


class _Probing:
    """The children that run, and what they have told so far."""

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
            found.failures[child.left[0]] = UnavailableError(line["failed"]["reason"], line["failed"]["mend"])
        elif "done" in line:
            child.left.remove(line["done"])
            child.next_check()

    def _give_up(self, child: _Child) -> None:
        allowed = self._allowed_s(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver, it can't even die: it is left behind
            child.process.wait(timeout=0.1)
        if child.left:
            self._found.failures[child.left[0]] = reasons.no_answer(child.left[0], allowed, self._limit_s)
        self._leave(child)

    def _leave(self, child: _Child) -> None:
        """Let go of a child that has ended, and go on with the checks after the one that ended it."""
        assert child.process.stdout is not None
        self._selector.unregister(child.process.stdout)
        child.process.stdout.close()
        child.words.close()
        budget_s = child.budget_s - child.used_s()
        if len(child.left) > 1 and budget_s > 0 and time.monotonic() < self._end:
            self._start(child.left[1:], budget_s)


def _starved_s(pid: int) -> float:
    """Seconds that a process and its children were ready to run and got no core; 0 where the kernel doesn't count."""
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
