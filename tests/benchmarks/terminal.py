"""What the deck costs in a real pty: first paint, bytes and processor time while a run ticks, and how keys feel."""

from __future__ import annotations

import os
import statistics
import time

import psutil

from kvdeck.app.tui.modes.monitor.history import SPARK_S
from kvdeck.app.tui.ui_state import keep
from tests.benchmarks.engine import own_engine
from tests.benchmarks.table import Row
from tests.support.programs.served_host import served
from tests.support.programs.terminal import BUSY, FarTerminal, Terminal, watched

SIZE = (120, 40)
STARTS = 5
SETTLE_S = 4.0
STILL_S = 10.0
LIVE_S = 20.0
TICK_S = 0.5
KEYS = 100
PICTURES = 30
PROGRAM = "import sys; from kvdeck.app.tui.launch import run_deck; sys.exit(run_deck())"


def measure() -> list[Row]:
    """Every row about the terminal."""
    with own_engine():
        first = statistics.median(_first_paint() for _ in range(STARTS))
        rows = [Row("first paint of the TUI, warm disk, median", f"{first:.2f} s", "< 0.5 s")]
        deck = Terminal(SIZE, program=PROGRAM)
        try:
            rows += _watched(deck)
        finally:
            deck.close()
    return rows + monitor()


MONITOR_HZ = 2.0


def monitor() -> list[Row]:
    """The Monitor over endpoints whose counters all move, and over the same ones when they stand still."""
    with own_engine(), served() as endpoints:
        keep({"view": "monitor", "monitor": {"sources": [*endpoints.urls, "disks"], "hz": MONITOR_HZ}})
        deck = Terminal(SIZE, program=PROGRAM)
        try:
            assert deck.shows("live"), "the Monitor did not open"
            assert deck.shows("B/s"), "nothing was seen to move"
            read_for(deck, SETTLE_S)
            ticks, share, memory = _live(deck)
        finally:
            deck.close()
        endpoints.hold()
        keep({"view": "monitor", "monitor": {"sources": endpoints.urls, "hz": MONITOR_HZ}})
        deck = Terminal(SIZE, program=PROGRAM)
        try:
            assert deck.shows("no change yet"), "no source was seen to idle"
            read_for(deck, SPARK_S + SETTLE_S)  # until then each spark grows by what is known to be nothing
            still = read_for(deck, STILL_S)
        finally:
            deck.close()
    size = f"{SIZE[0]}×{SIZE[1]}, {len(endpoints.urls)} endpoints"
    return [
        Row(
            f"Monitor at 2 Hz, {size}: bytes a tick, mean / most",
            f"{statistics.mean(ticks):,.0f} / {max(ticks):,} B",
            "≤ 8,000 B",
        ),
        Row(f"Monitor at 2 Hz, {size}: share of a core", f"{share:.1f} %", "≤ 2 %"),
        Row(f"Monitor at 2 Hz, every counter still for {STILL_S:.0f} s", f"{still} B", "0 B"),
        Row("memory of the deck with the Monitor on its screen", f"{memory / 2**20:.0f} MiB of its own", "–"),
    ]


def _live(deck: Terminal) -> tuple[list[int], float, int]:
    """The bytes of each tick for LIVE_S, the share of a core in percent, and the deck's own bytes of memory."""
    process = psutil.Process(deck.process.pid)
    before, begin = sum(process.cpu_times()[:2]), time.monotonic()
    ticks = [read_for(deck, TICK_S) for _ in range(round(LIVE_S / TICK_S))]
    share = 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)
    return ticks, share, process.memory_full_info().uss


def _first_paint() -> float:
    begin = time.monotonic()
    deck = Terminal(SIZE, program=PROGRAM)
    try:
        assert deck.shows("[x] HostToHost"), "the deck did not open"
        return time.monotonic() - begin
    finally:
        deck.close()


def _watched(deck: Terminal) -> list[Row]:
    assert deck.shows("engine: idle"), "no engine came up"
    read_for(deck, SETTLE_S)
    still = read_for(deck, STILL_S)
    os.write(deck.master, b"r")
    assert deck.shows("running"), "no run began"
    read_for(deck, SETTLE_S)
    ticks, share, memory = _live(deck)
    size = f"{SIZE[0]}×{SIZE[1]}"
    keys = sorted(_key_to_paint(deck, number) for number in range(KEYS))
    return [
        Row(f"nothing changes for {STILL_S:.0f} s", f"{still} B", "0 B"),
        Row(
            f"a live run at 2 Hz, {size}: bytes a tick, mean / most",
            f"{statistics.mean(ticks):,.0f} / {max(ticks):,} B",
            "≤ 8,000 B",
        ),
        Row(f"a live run at 2 Hz, {size}: share of a core", f"{share:.1f} %", "≤ 2 %"),
        Row("key to paint while a run loads the cores, p99", f"{keys[int(KEYS * 0.99) - 1] * 1e3:.0f} ms", "< 100 ms"),
        Row("memory of the deck with a run on its screen", f"{memory / 2**20:.0f} MiB of its own", "–"),
        *_far(),
    ]


def _far() -> list[Row]:
    """How old the picture is over a link that buffers and lets little through, drawn as often as it can be."""
    rows = []
    for kib in (30, 10):
        link = FarTerminal(kib * 1024, size=SIZE, program=BUSY)
        try:
            ages = [age for age, _ in watched(link, PICTURES)][PICTURES // 3 :]
        finally:
            link.close()
        said = f"{statistics.median(ages):.1f} / {max(ages):.1f} s"
        rows.append(Row(f"age of the picture over {kib} KiB/s, everything changing, median / most", said, "< 2 s"))
    return rows


def read_for(deck: Terminal, seconds: float) -> int:
    """Bytes that the deck writes within that time."""
    end, count = time.monotonic() + seconds, 0
    while (left := end - time.monotonic()) > 0:
        count += len(deck.read(left))
    return count


def _key_to_paint(deck: Terminal, number: int) -> float:
    """Seconds from a key that moves the form's cursor to the cursor in its new place."""
    down = number % 2 == 0
    begin = time.monotonic()
    os.write(deck.master, b"j" if down else b"k")
    row = 3 if down else 2
    while not deck.screen.display[row].startswith("▸"):
        deck.read(0.05)
        assert time.monotonic() - begin < 5, "the cursor did not move"
    return time.monotonic() - begin
