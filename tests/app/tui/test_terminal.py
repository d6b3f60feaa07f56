"""The deck in a real pty: it paints, keeps still, follows the terminal's end, and leaves the engine alone."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.app.tui import terminal
from tests.support.programs.terminal import PATIENCE_S, Terminal

STUCK = """
import os, time
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
class Stuck(Deck):
    def on_mount(self):
        super().on_mount()
        self.call_after_refresh(self.stick)
    def stick(self):
        os.write(2, b"\\x1b]0;stuck\\x07")
        time.sleep(600)
Stuck(requests=Requests(live=False)).run()
"""


TICKING = """
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.widgets.key_bar import KeyBar
KeyBar.rows = lambda bar, width, height: [((("x" * 89 + "y" + "z" * 30)[:width], ""),)]
class Ticking(Deck):
    def on_resize(self):
        self.call_next(self.tick)
    def tick(self):
        for bar in self.screen.query(KeyBar):
            bar.refresh()
            self.screen._compositor.update_widgets({bar})
            self.screen._compositor_refresh()
Ticking(requests=Requests(live=False)).run()
"""
"""Paints a row before the screen is laid out for a new size: a terminal that became narrower shows its end in the last
column."""


@pytest.fixture
def deck() -> Iterator[Terminal]:
    shown = Terminal()
    yield shown
    shown.close()


def test_it_paints_keeps_still_and_quits(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    assert deck.shows("quit") or deck.shows("pause")
    while deck.read(0.3):
        pass
    assert deck.read(1.5) == b""  # nothing ticks, blinks or animates while nothing changes
    os.write(deck.master, b"9")
    assert deck.shows("not checked yet")
    os.write(deck.master, b"q")
    assert deck.ended() == 0


def test_a_resize_to_the_same_size_paints_what_was_lost(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    while deck.read(0.3):
        pass
    deck.screen.reset()
    deck.process.send_signal(signal.SIGWINCH)
    assert deck.shows("[x] HostToHost")


def test_what_is_painted_before_the_layout_follows_a_resize_is_painted_again():
    deck = Terminal((120, 30), program=TICKING)
    try:
        assert deck.shows("[x] HostToHost")
        while deck.read(0.3):
            pass
        deck.resize(90, 30)
        assert deck.shows("[x] HostToHost")
        while deck.read(0.3):
            pass
        assert deck.screen.display[-1] == "x" * 89 + "y"
    finally:
        deck.close()


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGTERM])
def test_a_signal_ends_it_orderly(deck: Terminal, end: signal.Signals):
    assert deck.shows("[x] HostToHost")
    deck.process.send_signal(end)
    assert deck.ended() == 0


def test_a_signal_ends_it_though_nobody_reads(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    os.write(deck.master, b"49294929")  # more is painted than the pty holds
    deck.process.send_signal(signal.SIGTERM)
    assert deck.process.wait(PATIENCE_S) in (0, 129)


def test_a_terminal_that_is_gone_ends_it(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    os.close(deck.master)
    assert deck.process.wait(PATIENCE_S) in (0, 1, 129)


def test_a_terminal_that_is_gone_ends_it_though_the_loop_is_stuck():
    shown = Terminal(program=STUCK)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while b"stuck" not in shown.taken and time.monotonic() < deadline:
            shown.read(0.1)
        os.close(shown.master)
        assert shown.process.wait(PATIENCE_S) == 129
    finally:
        shown.close()


def test_no_color_writes_no_colours():
    shown = Terminal(NO_COLOR="1")
    try:
        assert shown.shows("[x] HostToHost")
        colours = [part.split(b"m")[0] for part in shown.taken.split(b"\x1b[")[1:] if b"m" in part[:20]]
        codes = {int(code) for part in colours for code in part.split(b";") if code.isdigit()}
        assert not {code for code in codes if 30 <= code <= 38 or 40 <= code <= 48 or 90 <= code <= 107}, codes
    finally:
        shown.close()


def test_without_a_terminal_to_draw_on_it_says_so():
    code = "from kvdeck.app.tui.launch import run_deck; run_deck()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode != 0
    assert "don't redirect stderr" in result.stderr


def test_a_pty_that_nobody_reads_takes_no_more():
    master, slave = pty.openpty()
    try:
        assert terminal.can_take_more(slave)
        os.set_blocking(slave, False)
        deadline = time.monotonic() + PATIENCE_S
        while terminal.can_take_more(slave) and time.monotonic() < deadline:  # the kernel moves it on a little later
            with contextlib.suppress(BlockingIOError):
                os.write(slave, b"x" * 4096)
        assert not terminal.can_take_more(slave)
        assert not terminal.is_gone(slave)
        os.close(master)
        assert terminal.is_gone(slave)
    finally:
        os.close(slave)


def test_the_first_screen_loads_no_other(tmp_path: Path):
    script = (
        "import asyncio, sys\n"
        "from kvdeck.app.tui.app import Deck\n"
        "from kvdeck.app.tui.requests import Requests\n"
        "async def main():\n"
        "    async with Deck(requests=Requests(live=False)).run_test(size=(80, 24)) as pilot:\n"
        "        await pilot.pause()\n"
        "asyncio.run(main())\n"
        "print('\\n'.join(sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    loaded = set(result.stdout.split())
    late = {
        "kvdeck.app.tui.modes.sessions.screen",
        "kvdeck.app.tui.modes.doctor.screen",
        "kvdeck.app.tui.comparison.report",
        "kvdeck.app.tui.dialogs.help",
        "kvdeck.app.tui.connection",
        "kvdeck.engine.client.client",
        "numpy",
        "nixl",
        "orjson",
    }
    assert not loaded & late
