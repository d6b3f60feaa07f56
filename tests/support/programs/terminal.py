"""A pty with a deck in it, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from typing import Any

import pyte

PROGRAM = """
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
Deck(requests=Requests(live=False)).run()
"""
PATIENCE_S = 60.0
BUSY = """
import random, time
from kvdeck.sessions.model.events import Logged
from kvdeck.sessions.model.run_state import LogLine, RunState
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
class Busy(Deck):
    number = 0
    def on_mount(self):
        super().on_mount()
        self.set_interval(0.05, self.tick)
    def tick(self):
        self.number += 1
        noise = lambda: "".join(random.choices("abcdefghijklmnop", k=80))
        log = [LogLine(0.0, Logged(0, "info", noise())) for _ in range(30)]
        log.append(LogLine(0.0, Logged(0, "info", f"at {time.monotonic():.3f} number {self.number};")))
        run = RunState("busy", "running", log=tuple(log))
        self.post_message(EngineChanged(EngineState("connected", "", 1, run=run)))
Busy(requests=Requests(live=False)).run()
"""
STAMP = re.compile(r"at (\d+\.\d+) number (\d+);")


class Terminal:
    """A pty with a process in it, and what its screen shows."""

    def __init__(self, size: tuple[int, int] = (80, 24), program: str = PROGRAM, **environ: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self.screen = pyte.Screen(*size)
        self.stream = pyte.ByteStream(self.screen)
        self.taken = b""
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "KVDECK_THEME", "TEXTUAL", "TMUX")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**clean, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environ},
        )
        os.close(slave)

    def read(self, seconds: float) -> bytes:
        """What comes within that time."""
        ready, _, _ = select.select([self.master], [], [], seconds)
        data = b""
        if ready:
            with contextlib.suppress(OSError):
                data = os.read(self.master, 1 << 16)
        self.taken += data
        self.stream.feed(_known(data))
        return data

    def resize(self, width: int, height: int) -> None:
        """Become another size, as a window does that is dragged."""
        self.screen.resize(height, width)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def shows(self, text: str) -> bool:
        """Read until the screen shows a text."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if any(text in line for line in self.screen.display):
                return True
            self.read(0.1)
        return False

    def hides(self, text: str) -> bool:
        """Read until the screen doesn't show a text any more."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if not any(text in line for line in self.screen.display):
                return True
            self.read(0.1)
        return False

    def ended(self) -> int:
        """Read on until the process ends; its exit status."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None and time.monotonic() < deadline:
            self.read(0.05)
        return self.process.wait(0.1)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(OSError):
            os.close(self.master)


class FarTerminal(Terminal):
    """At the end of a link that buffers without bounds and lets so many bytes a second through, as SSH does.

    Cursor questions are answered by what has drawn what came before them: `all` of them, `none`, `some` (every third),
    `late` (a second and a half on top), `wrong` (another place than it is in), or `nearby` (as they are written, by
    something on this side of the link, as tmux does).
    """

    LATE_S = 1.5

    def __init__(self, bytes_per_s: float, answers: str = "all", **options: Any) -> None:
        super().__init__(**options)
        self.bytes_per_s, self.answers = bytes_per_s, answers
        self.under_way = b""
        self.asked = 0
        self.stalest = 0.0
        """Seconds that the picture was behind at the worst, from when `watched` had seen two."""
        self.most_under_way = 0
        """Bytes on the link at the worst, from then on."""
        self._allowed, self._at = 0.0, time.monotonic()
        self._late: list[tuple[float, bytes]] = []
        self._nearby = pyte.Screen(self.screen.columns, self.screen.lines)
        self._nearby_stream = pyte.ByteStream(self._nearby)
        (self._nearby if answers == "nearby" else self.screen).write_process_input = self._answer

    def _answer(self, answer: str) -> None:
        self.asked += 1
        if self.answers in ("all", "nearby") or (self.answers == "some" and self.asked % 3 == 0):
            os.write(self.master, answer.encode())
        elif self.answers == "late":
            self._late.append((time.monotonic() + self.LATE_S, answer.encode()))
        elif self.answers == "wrong":
            os.write(self.master, b"\x1b[20;20R\x1b[1;2R")

    def read(self, seconds: float) -> bytes:
        """Take what the link lets through within that time."""
        end = time.monotonic() + seconds
        while True:
            if select.select([self.master], [], [], 0.005)[0]:
                with contextlib.suppress(OSError):
                    data = os.read(self.master, 1 << 16)
                    self.under_way += data
                    if self.answers == "nearby":
                        self._nearby_stream.feed(_known(data))
            now = time.monotonic()
            self._allowed = min(self._allowed + (now - self._at) * self.bytes_per_s, self.bytes_per_s / 20)
            self._at = now
            count = int(self._allowed)
            data, self.under_way = self.under_way[:count], self.under_way[count:]
            self._allowed -= len(data)
            self.taken += data
            self.stream.feed(_known(data))
            while self._late and self._late[0][0] <= now:
                os.write(self.master, self._late.pop(0)[1])
            if data or now >= end:
                return data


def _known(data: bytes) -> bytes:
    """Without the private modes that pyte does not know: it would print them."""
    return data.replace(b"\x1b[>25u", b"").replace(b"\x1b[<u", b"")


def watched(link: FarTerminal, pictures: int = 1 << 30, seconds: float = PATIENCE_S) -> list[tuple[float, int]]:
    """(age in seconds, number) of each picture as it arrives, so many of them or for so long."""
    found: list[tuple[float, int]] = []
    deadline = time.monotonic() + seconds
    shown = float("inf")
    while len(found) < pictures and time.monotonic() < deadline:
        if len(found) > 2:
            link.stalest = max(link.stalest, time.monotonic() - shown)
            link.most_under_way = max(link.most_under_way, len(link.under_way))
        if link.read(0.05) and (seen := STAMP.search("\n".join(link.screen.display))):
            number = int(seen[2])
            if not found or found[-1][1] != number:
                shown = float(seen[1])
                found.append((time.monotonic() - shown, number))
    return found
