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

import orjson

from kvdeck.engine.transfer import reasons
from kvdeck.engine.transfer.findings import PathFinding, PluginFinding
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.records import from_json

Command = Callable[[Sequence[str]], list[str]]


@dataclass(slots=True)
class Probed:
    """All that the children told, and why a check told nothing."""

    rows: list[PathFinding] = field(default_factory=list)
    plugins: dict[str, PluginFinding] = field(default_factory=dict)
    failures: dict[str, UnavailableError] = field(default_factory=dict)


@dataclass(slots=True)
class _Child:
    process: subprocess.Popen[bytes]
    words: IO[bytes]
    left: list[str]
    """Checks that aren't done, the one being tried at the front."""
    deadline: float
    pending: bytes = b""


def probe_command(folder: Path) -> Command:
    """The command line that runs checks in a child of their own."""
    return lambda checks: [sys.executable, "-m", "kvdeck.engine.transfer.probe", *checks, "--folder", str(folder)]


def probe(groups: Sequence[Sequence[str]], command: Command, limit_s: float) -> Probed:
    """Run each group of checks in a child, all at once, and end what is not done by the limit.

    A check that crashes its child is noted with the signal, and a new child goes on after it. One that hangs is
    ended: alone in its child at the limit, before others in its group at half of it.
    """
    found = Probed()
    end = time.monotonic() + limit_s
    with selectors.DefaultSelector() as selector:
        for group in groups:
            _start(selector, command, list(group), end, limit_s)
        while selector.get_map():
            now = time.monotonic()
            next_deadline = min(key.data.deadline for key in selector.get_map().values())
            for key, _ in selector.select(max(0.0, next_deadline - now)):
                _hear(selector, key.data, found, command, end, limit_s)
            for key in list(selector.get_map().values()):
                if time.monotonic() >= key.data.deadline:
                    _give_up(selector, key.data, found, command, end, limit_s)
    return found


def _start(selector: selectors.BaseSelector, command: Command, checks: list[str], end: float, limit_s: float) -> None:
    words = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its child
    process = subprocess.Popen(
        command(checks), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=words, start_new_session=True
    )
    child = _Child(process, words, checks, _deadline(checks, end, limit_s))
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    selector.register(process.stdout, selectors.EVENT_READ, child)


def _deadline(checks: list[str], end: float, limit_s: float) -> float:
    return end if len(checks) == 1 else min(end, time.monotonic() + limit_s / 2)


def _hear(
    selector: selectors.BaseSelector, child: _Child, found: Probed, command: Command, end: float, limit_s: float
) -> None:
    assert child.process.stdout is not None
    data = child.process.stdout.read()
    if data:
        *lines, child.pending = (child.pending + data).split(b"\n")
        for line in lines:
            _note(child, orjson.loads(line), found, end, limit_s)
        return
    _leave(selector, child)
    status = child.process.wait()
    if child.left:
        trying = child.left[0]
        found.failures[trying] = reasons.crashed(trying, _how(status), _last_line(child.words))
        _go_on(selector, child, command, end, limit_s)
    child.words.close()


def _note(child: _Child, line: dict[str, Any], found: Probed, end: float, limit_s: float) -> None:
    if "row" in line:
        found.rows.append(from_json(PathFinding, line["row"]))
    elif "plugin" in line:
        plugin = from_json(PluginFinding, line["plugin"])
        found.plugins[plugin.name] = plugin
    elif "failed" in line and child.left:
        found.failures[child.left[0]] = UnavailableError(line["failed"]["reason"], line["failed"]["mend"])
    elif "done" in line:
        child.left.remove(line["done"])
        child.deadline = _deadline(child.left, end, limit_s)


def _give_up(
    selector: selectors.BaseSelector, child: _Child, found: Probed, command: Command, end: float, limit_s: float
) -> None:
    _leave(selector, child)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in a driver, it can't even die: it is left behind
        child.process.wait(timeout=0.1)
    if child.left:
        trying = child.left[0]
        found.failures[trying] = reasons.no_answer(trying, limit_s if len(child.left) == 1 else limit_s / 2)
        _go_on(selector, child, command, end, limit_s)
    child.words.close()


def _go_on(selector: selectors.BaseSelector, child: _Child, command: Command, end: float, limit_s: float) -> None:
    if len(child.left) > 1 and time.monotonic() < end:
        _start(selector, command, child.left[1:], end, limit_s)


def _leave(selector: selectors.BaseSelector, child: _Child) -> None:
    assert child.process.stdout is not None
    selector.unregister(child.process.stdout)
    child.process.stdout.close()


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _last_line(words: IO[bytes]) -> str:
    words.seek(0)
    lines = [line.strip() for line in words.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
