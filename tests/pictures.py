"""The README's picture: `uv run python -m tests.pictures` runs the deck over a real run and saves what it shows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kvdeck.app.tui import Deck
from kvdeck.engine.client import Client
from tests.benchmarks.engine import own_engine

SIZE = (120, 40)
SECONDS = 22.0
DOCS = Path(__file__).parent.parent / "docs"


async def photograph() -> None:
    """Start a run from the form and save the screen once two paths are measured."""
    app = Deck()
    async with app.run_test(size=SIZE) as pilot:
        await asyncio.sleep(4)  # the doctor's look at this host
        await pilot.press("r")
        await asyncio.sleep(SECONDS)
        (DOCS / "deck.svg").write_text(app.export_screenshot(title="kvdeck"))


def main() -> None:
    with own_engine(), Client.connect():
        asyncio.run(photograph())


if __name__ == "__main__":
    main()
