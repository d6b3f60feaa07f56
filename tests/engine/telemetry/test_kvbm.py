"""The real KVBM under the real `kvdeck monitor`. Without a GPU no block moves: growth is in recorded samples only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.telemetry.test_dynamo import monitor, source, state
from tests.support.programs.kvbm import kvbm

pytestmark = pytest.mark.heavy


def test_every_series_is_known_and_stands_at_0_through_a_restart(tmp_path: Path) -> None:
    with kvbm(tmp_path) as leader, monitor(tmp_path, leader.url) as seen:
        first = seen.until(
            lambda m: state(m, leader.url) != "unreachable" and source(m, leader.url)["over_s"], "metrics"
        )
        told = source(first, leader.url)
        assert (told["kind"], told["series"], told["unknown"]) == ("kvbm", 13, 0)
        still = seen.until(lambda m: all(flow["blocks_per_s"] is not None for flow in m["flows"]), "a second reading")
        assert {(flow["from"], flow["to"]) for flow in still["flows"]} == {
            ("G1", "G2"), ("G1", "G3"), ("G1", "G4"), ("G2", "G3"), ("G2", "G1"), ("G3", "G1"), ("G4", "G1"),
        }  # fmt: skip
        for flow in still["flows"]:
            figures = (flow[name] for name in ("blocks_total", "blocks_gained", "blocks_before", "blocks_per_s"))
            assert set(figures) == {0.0}, flow["name"]
            assert flow["bytes_total"] is None, "the size of a block is not known"
        assert still["checks"] == []
        leader.kill()
        gone = seen.until(lambda m: state(m, leader.url) == "unreachable", "a leader that was killed")
        assert all(flow["stale"] for flow in gone["flows"])
        leader.start()
        back = seen.until(lambda m: not source(m, leader.url)["stale"], "it is back")
        assert state(back, leader.url) in ("live", "idle"), "nothing that fell, so nothing restarted that it could tell"
        assert {flow["blocks_gained"] for flow in back["flows"]} == {0.0}
