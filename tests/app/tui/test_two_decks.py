"""Two decks and two recorders on one session: what is counted, tagged, noted and renamed at once is all there after."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store import trace_counts
from kvdeck.sessions.store.store import Store
from tests.support.programs.terminal import Terminal

DECK = "from kvdeck.app.tui.app import Deck; Deck().run()"
RECORDER = """
import sys, threading
from pathlib import Path
from kvdeck.sessions.recorder import TransferCounter
recorder, stop, count = TransferCounter(Path(sys.argv[1])), threading.Event(), 0
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
while not stop.wait(0.001):
    for _ in range(50):
        recorder.record("DeviceToHost", "FullyContiguous", 2048, 1, 2e-5, 1)
        recorder.record("HostToDevice", "FullyContiguous", 4096, 2, 4e-5, 2)
    count += 100
recorder.close()
print(count)
"""


class Place:
    """A home with one session, and what looks at it."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "home")
        self.store.keep(Session("shared", "done", time.time(), kind="trace"))
        self.environ = {"KVDECK_HOME": str(folder / "home"), "KVDECK_RUNTIME": str(folder / "rt")}
        self.environ |= {"HOME": str(folder), "TMPDIR": str(folder), "KVDECK_IDLE_EXIT": "1"}
        self.decks = [Terminal((120, 40), DECK, **self.environ) for _ in "AB"]
        self.recorders: list[subprocess.Popen[str]] = []

    def record(self) -> None:
        command = [sys.executable, "-c", RECORDER, str(self.store.folder("shared"))]
        self.recorders = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
        ]

    def stop_recording(self) -> int:
        """Let both recorders end; what they say they counted."""
        return sum(int(recorder.communicate(timeout=30)[0]) for recorder in self.recorders)

    def close(self) -> None:
        for deck in self.decks:
            deck.close()
        for recorder in self.recorders:
            if recorder.poll() is None:
                recorder.kill()
        command = [sys.executable, "-m", "kvdeck.app.cli.main", "engine", "stop", "--force"]
        subprocess.run(command, env={**os.environ, **self.environ}, capture_output=True, timeout=30)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.close()


def press(deck: Terminal, keys: str, shown: str) -> None:
    os.write(deck.master, keys.encode())
    assert deck.shows(shown), "\n".join(deck.screen.display)


def both_write(decks: list[Terminal], key: str, asked: str, texts: tuple[str, str], said: tuple[str, str]) -> None:
    """Both open the same question before either of them answers it."""
    for deck in decks:
        press(deck, key, asked)
    for deck, text, answer in zip(decks, texts, said, strict=True):
        press(deck, f"{text}\r", answer)


def test_two_decks_and_two_recorders_lose_nothing(place: Place) -> None:
    decks = place.decks
    first = decks[0]
    for deck in decks:
        assert deck.shows("run")
        press(deck, "4", "shared")
    place.record()
    for deck in decks:
        assert deck.shows("recording")

    both_write(decks, "T", "Tags, sep", ("alpha", "beta"), ("tags alpha", "tags alpha beta"))
    both_write(decks, "n", "Note on", ("mine", "yours"), ("note saved", "it replaced"))
    press(first, "N", "New name of")
    press(first, "-done\r", "is being written")

    total = place.stop_recording()
    assert total > 0
    for deck in decks:
        assert deck.shows(f"{total:,}")
    both_write(decks, "N", "New name of", ("-done", "-other"), ("is now shared-done", "there is no session"))
    place.store.change("shared-done", lambda now: replace(now, tags=(*now.tags, "late")))
    for deck in decks:
        assert deck.shows("shared-done")
        assert deck.shows("alpha, beta, late")

    assert place.store.names() == ["shared-done"]
    kept = place.store.load("shared-done")
    assert (kept.tags, kept.note) == (("alpha", "beta", "late"), "yours")
    counts = {t.path: (t.transfers, t.bytes, t.blocks, t.descriptors, t.failures) for t in kept.transfer_counts}
    half = total // 2
    assert counts == {
        "DeviceToHost": (half, half * 2048, half, half, 0),
        "HostToDevice": (half, half * 4096, half * 2, half * 2, 0),
    }
    assert len(trace_counts.processes(place.store.folder("shared-done"))) == 2
