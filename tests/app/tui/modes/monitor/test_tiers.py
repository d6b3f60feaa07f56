"""The Tiers pane: what was counted before watching and since then, and the units that it spells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvdeck.app.tui.modes.monitor.panes.flows import Paths
from kvdeck.app.tui.modes.monitor.panes.tiers import WIDE, Tiers, both_text, rate_text
from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.engine.telemetry.tracker import SourceStatus
from tests.app.conftest import DeckOfFiles
from tests.app.tui.modes.monitor.test_screen import show
from tests.support.painted import BIG, HUGE, SMALL

BYTES = Flow("s", "vllm offload store", "G1", "G2", "m", "c", bytes_total=3.5e9, bytes_before=1.25e9,
             bytes_gained=2.25e9, bytes_per_s=1.5e9)  # fmt: skip
BLOCKS = Flow("s", "kvbm offload_blocks_h2d", "G2", "G3", "m", "c", blocks_total=150, blocks_before=100,
              blocks_gained=50, blocks_per_s=10)  # fmt: skip


def moment(*flows: Flow) -> Snapshot:
    return Snapshot(1_767_268_800.0, (SourceStatus("s", "vllm", "live", "", 0.0),), flows)


async def drawn(size: tuple[int, int], *flows: Flow) -> list[str]:
    memory: dict[str, Any] = {"view": "monitor", "monitor": {"sources": ["s"]}}
    deck = DeckOfFiles(memory=memory)
    async with deck.run_test(size=size) as pilot:
        await show(pilot, moments=(moment(*flows),))
        deck.screen.query_one(Tiers).focus()
        return deck.screen.query_one(Tiers).plain.splitlines()


@pytest.mark.parametrize("size", [SMALL, BIG, HUGE])
async def test_what_was_counted_before_watching_stands_apart(size: tuple[int, int]) -> None:
    _, *rows = await drawn(size, BYTES, BLOCKS)
    (store,) = [row for row in rows if "1.50 GB/s" in row]
    (disk,) = [row for row in rows if "10 bl" in row]
    if size[0] < WIDE:
        assert "1.25 GB +2.25 GB" in store
        assert "100 blocks +50 blocks" not in disk
        assert "100 bl +50 bl" in disk
        assert "before +watched" in rows[0]
    else:
        assert store.index("1.25 GB") < store.index("2.25 GB")
        unit = "blocks" if size == HUGE else "bl"
        assert disk.index(f"100 {unit}") < disk.index(f"50 {unit}")
        assert "before" in "".join(rows[:2])
    assert "3.5" not in store, "no sum of both"


async def test_blocks_are_explained_where_they_are_abbreviated_and_nowhere_else() -> None:
    for size, flows, explained in (
        (SMALL, (BYTES,), False),
        (SMALL, (BYTES, BLOCKS), True),
        (HUGE, (BYTES, BLOCKS), False),
        (HUGE, (BYTES, replace(BLOCKS, blocks_before=123_456)), True),
    ):
        head, *_ = await drawn(size, *flows)
        assert ("bl: blocks" in head) is explained, (size, flows)


def test_a_flow_is_in_one_unit() -> None:
    # KVBM's object tier counts both; one reading gives no rate of the bytes.
    both = replace(BLOCKS, bytes_total=1e9, bytes_before=1e9, bytes_gained=None, bytes_per_s=None)
    assert rate_text(both) == "–"
    assert both_text(both) == "1.00 GB +–"
    assert both_text(replace(both, bytes_before=0.0, bytes_gained=1e9)) == "+1.00 GB"
    assert both_text(replace(BLOCKS, blocks_before=None)) == "– +50 blocks"
    assert both_text(replace(both, bytes_from_blocks=True, bytes_gained=1e9)) == "≈1.00 GB +1.00 GB"


async def test_posted_and_merged_descriptors_have_a_column_each_where_both_are_known() -> None:
    merged = Flow("s", "vllm nixl", "remote", "G1", "m", "c", bytes_total=1e9, transfers_total=2, descriptors_total=102)
    posted = Flow("r", "HostToDisk", "G2", "G3", "m", "c", bytes_total=1e9, transfers_total=2, descriptors_total=512)
    for flows, titles in (
        ((merged, posted), ["posted", "merged"]),
        ((merged,), ["merged"]),
        ((posted, BLOCKS), ["posted"]),
        ((BLOCKS, replace(posted, descriptors_total=0.0)), []),
    ):
        deck = DeckOfFiles(memory={"view": "monitor", "monitor": {"sources": ["s"], "pane": "paths"}})
        async with deck.run_test(size=SMALL) as pilot:
            await show(pilot, moments=(moment(*flows),))
            head, *rows = deck.screen.query_one(Paths).plain.splitlines()
        assert [word for word in head.split() if word in ("posted", "merged", "desc")] == titles
        assert ("51" in " ".join(rows).split()) is ("merged" in titles)
        assert "0.167" not in " ".join(rows)
