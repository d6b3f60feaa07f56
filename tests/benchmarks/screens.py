"""What each live screen costs in a real pty, that the deck does not grow over an hour's ticks, and how old its
picture gets where the terminal answers badly. Monitor's rows are in `monitor`."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import psutil

from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.model.records import TransferCounts
from tests.benchmarks.engine import own_engine
from tests.benchmarks.table import Row
from tests.benchmarks.terminal import PROGRAM, SETTLE_S, SIZE, TICK_S, read_for
from tests.support.programs.terminal import BUSY, FarTerminal, Terminal, watched

STILL_S = 5.0
LIVE_S = 15.0
CHANGES = 30
HOUR_TICKS, WARM_TICKS = 7200, 600
"""An hour at 2 Hz, and what fills the caches first."""
LONGEST_S = 600.0
FAR_S = 60.0
FAR_SIZES = ((80, 24), (120, 40), (200, 60))
HOUR = """
import asyncio, time
from kvdeck.sessions.model.run_state import RunState, advance
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.requests import Requests
from kvdeck.engine.client.run_log import entry_of
from kvdeck.engine.protocol import SampleMessage
from tests.support.builders import run as a_run
class Hour(Deck):
    def on_mount(self):
        super().on_mount()
        self.link.paces = False
        self.run_worker(self.ticks())
    async def ticks(self):
        run = a_run.view(None)
        plan = a_run.plans()[2]
        for number in range(TICKS):
            t = run.last_t + 500_000_000
            values = a_run.values(plan, 20 + number, min(0.99, number / TICKS))
            run = advance(run, entry_of(SampleMessage(run.session, run.next_seq, t, values)))
            self.post_message(EngineChanged(EngineState("connected", "", number, 0, a_run.live().runs, run)))
            painted = asyncio.Event()
            self.call_after_refresh(painted.set)
            await painted.wait()
Hour(requests=Requests(live=False)).run()
"""


def measure() -> list[Row]:
    """Every row about the screens."""
    with own_engine() as folder:
        os.environ["TMPDIR"] = str(folder)
        try:
            deck = Terminal(SIZE, program=PROGRAM)
            try:
                assert deck.shows("engine: idle"), "no engine came up"
                assert deck.shows("Ready here"), "doctor did not answer"
                rows = [_sessions(deck, folder), _plan(deck), *_still(deck), _opened(deck)]
            finally:
                deck.close()
        finally:
            del os.environ["TMPDIR"]
    return [*rows, _hour(), *_far()]


def _sessions(deck: Terminal, folder: Path) -> Row:
    """A session of Dynamo's that grows while it is looked at."""
    file, count = folder / "dynamo_benchmark_live.json", 0

    def grow() -> None:
        nonlocal count
        count += 100
        counts = [TransferCounts("HostToDisk", "FullyContiguous", count, count << 20, count)]
        file.write_bytes(dynamo.encode(dynamo.Counts("live", 60.0 + count, tuple(counts))))

    grow()
    os.write(deck.master, b"4r")
    assert deck.shows("live"), "the session is not listed"
    read_for(deck, SETTLE_S)
    process = psutil.Process(deck.process.pid)
    before, begin = sum(process.cpu_times()[:2]), time.monotonic()
    ticks = []
    for _ in range(round(LIVE_S)):
        grow()
        ticks.append(read_for(deck, 2 * TICK_S))
    share = 100 * (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begin)
    said = f"{statistics.mean(ticks):,.0f} / {max(ticks):,} B, {share:.1f} % of a core"
    return Row("Sessions, a live session: bytes a second, mean / most; processor", said, "≤ 8,000 B a tick, ≤ 2 %")


def _plan(deck: Terminal) -> Row:
    """A field that is changed."""
    os.write(deck.master, b"1")
    assert deck.shows("one descriptor"), "no plan is shown"
    read_for(deck, 2 * TICK_S)
    sizes = []
    for number in range(CHANGES):
        os.write(deck.master, b"+" if number % 2 == 0 else b"-")
        sizes.append(read_for(deck, TICK_S / 2))
    return Row(
        "Plan: bytes for a change, mean / most", f"{statistics.mean(sizes):,.0f} / {max(sizes):,} B", "≤ 8,000 B"
    )


def _still(deck: Terminal) -> list[Row]:
    """Bytes of each mode while nothing changes."""
    found = {}
    for key, name in (("1", "Plan"), ("2", "Run"), ("9", "Doctor"), ("4", "Sessions")):
        os.write(deck.master, key.encode())
        read_for(deck, SETTLE_S if key == "4" else 2 * TICK_S)
        found[name] = read_for(deck, STILL_S)
    os.write(deck.master, b"\r")
    read_for(deck, 2 * TICK_S)
    found["Result"] = read_for(deck, STILL_S)
    said = ", ".join(f"{name} {count} B" for name, count in found.items())
    return [Row(f"nothing changes for {STILL_S:.0f} s, each mode", said, "0 B")]


def _opened(deck: Terminal) -> Row:
    memory = psutil.Process(deck.process.pid).memory_full_info()
    said = f"{memory.rss / 2**20:.0f} MiB, {memory.pss / 2**20:.0f} MiB in proportion"
    return Row("memory of the deck with every mode opened once", said, "–")


def _hour() -> Row:
    """Memory over as many ticks of a run as two hours have, drawn as fast as they can be."""
    deck = Terminal(SIZE, program=HOUR.replace("TICKS", str(2 * HOUR_TICKS)))
    try:
        process = psutil.Process(deck.process.pid)
        warm = _memory_at(deck, process, WARM_TICKS)
        first = _memory_at(deck, process, HOUR_TICKS)
        second = _memory_at(deck, process, 2 * HOUR_TICKS - 1)
    finally:
        deck.close()
    said = f"{first - warm:+.1f} MiB on {warm:.0f} of its own, then {second - first:+.1f} MiB"
    return Row("memory of the deck over an hour's ticks of a run, and over the next hour's", said, "no growth")


def _memory_at(deck: Terminal, process: psutil.Process, tick: int) -> float:
    """MiB of the process's own once the header has come to a tick: it stands where the engine's pid does."""
    end = time.monotonic() + LONGEST_S
    while True:
        deck.read(0.2)
        number = deck.screen.display[0].rpartition("pid ")[2].strip()
        if number.isdigit() and int(number) >= tick:
            return float(process.memory_full_info().uss) / 2**20
        assert time.monotonic() < end, "the ticks did not come so far"


def _far() -> list[Row]:
    """A link of 30 KiB/s whose terminal answers no question, or has tmux answering in its place."""
    rows = []
    for answers, said in (("none", "no answers"), ("nearby", "tmux answering")):
        for size in FAR_SIZES:
            environ = {"TMUX": "/tmp/tmux,1,0"} if answers == "nearby" else {}
            link = FarTerminal(30 * 1024, answers=answers, size=size, program=BUSY, **environ)
            try:
                ages = [age for age, _ in watched(link, seconds=FAR_S)][1:]
                stalest = link.stalest
            finally:
                link.close()
            what = f"age of the picture over 30 KiB/s for {FAR_S:.0f} s, {said}, {size[0]}×{size[1]}: new / stalest"
            rows.append(Row(what, f"{statistics.median(ages):.2f} / {stalest:.2f} s", "< 2 s"))
    return rows
