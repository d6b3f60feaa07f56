"""The deck in a real pty that lags, stops, shrinks and goes away: the picture stays fresh, nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.programs.terminal import BUSY, PATIENCE_S, STAMP, FarTerminal, Terminal, watched

RATE = 30 * 1024
FRESH_S = 6.0
"""It is 2 s where the host is quiet; a picture that queued behind others was 15 s old, and rising."""


def test_over_a_slow_link_the_picture_is_fresh_and_ticks_are_left_out():
    link = FarTerminal(RATE, size=(200, 60), program=BUSY)
    try:
        found = watched(link, 15)
        assert len(found) == 15
        numbers = [number for _, number in found]
        assert numbers == sorted(numbers)
        assert numbers[-1] - numbers[0] > 2 * len(numbers)  # ticks were left out, not queued
        assert max(age for age, _ in found[2:]) < FRESH_S
        assert link.stalest < FRESH_S
        assert link.most_under_way < RATE  # less than a second of the link is ever under way
    finally:
        link.close()


def test_a_link_that_is_slow_is_called_so_in_the_header():
    link = FarTerminal(RATE / 3, size=(120, 40), program=BUSY)
    try:
        assert link.shows("slow link")
    finally:
        link.close()


@pytest.mark.parametrize(
    ("answers", "size"),
    [
        ("none", (120, 40)),
        ("none", (200, 60)),
        ("nearby", (200, 60)),
        ("some", (200, 60)),
        ("late", (120, 40)),
        ("wrong", (120, 40)),
    ],
)
def test_however_badly_it_answers_the_picture_stays_fresh(answers: str, size: tuple[int, int]):
    environ = {"TMUX": "/tmp/tmux,1,0"} if answers == "nearby" else {}
    link = FarTerminal(RATE, answers=answers, size=size, program=BUSY, **environ)
    try:
        found = watched(link, pictures=5)
        assert len(found) == 5
        assert max(age for age, _ in found[2:]) < FRESH_S
        assert link.stalest < FRESH_S
        assert link.most_under_way < RATE
    finally:
        link.close()


def test_a_terminal_that_answers_nothing_is_asked_once_and_gets_every_picture_it_can_take():
    link = FarTerminal(1e9, answers="none", size=(200, 60), program=BUSY)
    try:
        found = watched(link, pictures=40)
        assert len(found) == 40  # once it has been given up on, no picture waits for an answer
        assert link.asked == 1
    finally:
        link.close()


@pytest.fixture
def deck() -> Iterator[Terminal]:
    shown = Terminal()
    yield shown
    shown.close()


def idle(process: psutil.Process) -> bool:
    """Whether a process soon takes less than a tenth of a core over a second."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        before = sum(process.cpu_times()[:2])
        begin = time.monotonic()
        while time.monotonic() < begin + 1.0:
            time.sleep(0.2)
        if sum(process.cpu_times()[:2]) - before < 0.1:
            return True
    return False


def stopped(deck: Terminal) -> bool:
    process, deadline = psutil.Process(deck.process.pid), time.monotonic() + PATIENCE_S
    while process.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        deck.read(0.05)
    return process.status() == psutil.STATUS_STOPPED


def test_it_is_suspended_and_comes_back(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    os.write(deck.master, b"Z")
    assert stopped(deck)
    assert b"\x1b[?1049l" in deck.taken  # the shell's own screen is back
    deck.screen.reset()
    deck.process.send_signal(signal.SIGCONT)
    assert deck.shows("[x] HostToHost")
    os.write(deck.master, b"9")
    assert deck.shows("not checked yet")
    os.write(deck.master, b"q")
    assert deck.ended() == 0


def test_a_storm_of_sizes_ends_in_the_last_one(deck: Terminal):
    assert deck.shows("[x] HostToHost")
    for step in range(120):
        deck.resize(60 + step % 97, 15 + step % 41)
        deck.read(0.0)
    deck.resize(60, 20)
    assert deck.shows("kvdeck needs 80×24")
    deck.resize(132, 43)
    assert deck.shows("[x] HostToHost")
    assert deck.shows("no run yet")
    while deck.read(0.5):
        pass
    assert idle(psutil.Process(deck.process.pid))
    assert deck.process.poll() is None


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_tmux_detach_leaves_it_idle_and_kill_server_leaves_nothing(tmp_path: Path):
    clean = {k: v for k, v in os.environ.items() if k not in ("TMUX", "NO_COLOR")}
    base = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]

    def tmux(*words: str) -> str:
        return subprocess.run([*base, *words], env=clean, check=True, capture_output=True, text=True).stdout

    tmux("new-session", "-d", "-x", "120", "-y", "40", sys.executable, "-c", BUSY.replace("0.05", "0.5"))
    try:
        pid = int(tmux("display-message", "-p", "#{pane_pid}"))
        client = Terminal((120, 40), program=f"import os; os.execvp('tmux', {[*base, 'attach']!r})")
        assert client.shows("number")
        os.write(client.master, b"\x02d")
        assert client.ended() == 0
        client.close()
        process = psutil.Process(pid)
        assert idle(process)
        before = STAMP.search(tmux("capture-pane", "-p"))
        again = Terminal((120, 40), program=f"import os; os.execvp('tmux', {[*base, 'attach']!r})")
        assert again.shows("number")
        os.close(again.master)  # the SSH connection is lost
        again.process.wait(PATIENCE_S)
        assert process.is_running()
        assert before is not None
    finally:
        tmux("kill-server")
    assert psutil.wait_procs([process], timeout=PATIENCE_S)[1] == []
