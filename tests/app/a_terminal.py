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

PROGRAM = "from kvdeck.app.tui import Deck; Deck(connect=False).run()"
PATIENCE_S = 20.0
QUESTION = b"\x1b[6n"
BUSY = """
import random, time
from kvdeck.app.folding import LogLine, RunView
from kvdeck.app.messages import SnapshotTaken
from kvdeck.app.snapshot import Snapshot
from kvdeck.app.tui import Deck
class Busy(Deck):
    number = 0
    def on_mount(self):
        super().on_mount()
        self.set_interval(0.05, self.tick)
    def tick(self):
        self.number += 1
        noise = lambda: "".join(random.choices("abcdefghijklmnop", k=80))
        log = [LogLine(0.0, "info", noise()) for _ in range(30)]
        log.append(LogLine(0.0, "info", f"at {time.monotonic():.3f} number {self.number};"))
        self.post_message(SnapshotTaken(Snapshot("connected", "", 1, run=RunView("busy", "running", log=tuple(log)))))
Busy(connect=False).run()
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
        # Private modes that pyte does not know would be printed.
        self.stream.feed(data.replace(b"\x1b[>25u", b"").replace(b"\x1b[<u", b""))
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
    """At the end of a link that buffers without bounds and lets so many bytes a second through, as SSH does."""

    def __init__(self, bytes_per_s: float, answers: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.bytes_per_s, self.answers = bytes_per_s, answers
        self.under_way = b""
        self._allowed, self._at = 0.0, time.monotonic()

    def read(self, seconds: float) -> bytes:
        """Take what the link lets through within that time; cursor questions are answered as they arrive."""
        end = time.monotonic() + seconds
        while True:
            if select.select([self.master], [], [], 0.005)[0]:
                with contextlib.suppress(OSError):
                    self.under_way += os.read(self.master, 1 << 16)
            now = time.monotonic()
            self._allowed = min(self._allowed + (now - self._at) * self.bytes_per_s, self.bytes_per_s / 20)
            self._at = now
            count = int(self._allowed)
            data, self.under_way = self.under_way[:count], self.under_way[count:]
            self._allowed -= len(data)
            asked = (self.taken[-3:] + data).count(QUESTION)
            self.taken += data
            self.stream.feed(data.replace(b"\x1b[>25u", b"").replace(b"\x1b[<u", b""))
            if asked and self.answers:
                os.write(self.master, b"\x1b[5;7R" * asked)
            if data or now >= end:
                return data


def watched(link: FarTerminal, pictures: int) -> list[tuple[float, int]]:
    """(age in seconds, number) of each picture as it arrives."""
    found: list[tuple[float, int]] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(found) < pictures and time.monotonic() < deadline:
        if link.read(0.2) and (seen := STAMP.search("\n".join(link.screen.display))):
            number = int(seen[2])
            if not found or found[-1][1] != number:
                found.append((time.monotonic() - float(seen[1]), number))
    return found
