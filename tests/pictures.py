"""The README's pictures: `uv run python -m tests.pictures` runs the deck over a real run and saves what it shows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from textual.pilot import Pilot

from kvdeck.app.tui.app import Deck
from kvdeck.engine.client.client import Client
from tests.benchmarks.engine import own_engine
from tests.support.programs.served_host import served

SIZE = (120, 40)
DOCS = Path(__file__).parent.parent / "docs"
LONGEST_S = 300.0
HOST = "host-1"


async def photograph() -> None:
    """Start a run from the form; save it half way, its report when it is done, and the plan of a model."""
    app = Deck()
    app.host = HOST  # no name of the machine that drew it
    async with app.run_test(size=SIZE) as pilot:
        await _until(pilot, lambda: bool(app.doctor.paths) and not app.doctor.looking)
        await pilot.press("r")
        await _until(pilot, lambda: app.engine.run is not None and app.engine.run.fraction > 0.6)
        _save(app, "deck")
        await pilot.press("1")
        await pilot.pause(1.0)
        _save(app, "plan")
        await _until(pilot, lambda: app.engine.run is not None and app.engine.run.state == "done")
        await pilot.press("4")
        await pilot.pause(1.0)
        await pilot.press("enter")
        await pilot.pause(1.0)
        _save(app, "report")


WATCHED_S = 75.0
"""How long the Monitor watches, so that its sparks show something."""


async def photograph_monitor(urls: list[str]) -> None:
    """Watch endpoints that answer as real engines did, drawn out over time, beside this host's own counters."""
    watching = {"sources": [*urls, "disks", "network"], "known": ["processes", "disk tier"], "hz": 2.0}
    app = Deck(memory={"view": "monitor", "monitor": watching})
    app.host = HOST
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(WATCHED_S)
        _save(app, "monitor")


def _save(app: Deck, name: str) -> None:
    app.clear_notifications()
    (DOCS / f"{name}.svg").write_text(app.export_screenshot(title="kvdeck"))


async def _until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    end = time.monotonic() + LONGEST_S
    while not true():
        if time.monotonic() > end:
            raise TimeoutError("the deck did not come so far")
        await pilot.pause(0.2)


def main() -> None:
    with own_engine(), Client.connect():
        asyncio.run(photograph())
        with served() as endpoints:
            asyncio.run(photograph_monitor(endpoints.urls))


if __name__ == "__main__":
    main()
