"""The benchmark measures two sides that each have a core, lane after lane, and refuses a figure otherwise."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from . import transfers


@pytest.fixture(autouse=True)
def unpinned():
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.skipif(len(transfers.CORES) < 2, reason="two sides want two cores")
def test_every_lane_has_a_core_for_each_side(tmp_path: Path):
    for _ in range(3):
        lane = transfers._open(str(tmp_path), 4096, 1)
        (target,) = lane._targets
        assert os.sched_getaffinity(0) == {transfers.CORES[0]}
        assert os.sched_getaffinity(target._process.pid) == {transfers.CORES[-1]}
        lane.close()


def test_sides_that_share_a_core_get_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transfers, "CORES", transfers.CORES[:1])
    with pytest.raises(SystemExit, match="share the cores"):
        transfers._open(str(tmp_path), 4096, 1)


@pytest.mark.skipif(len(transfers.CORES) < 2, reason="two sides want two cores")
def test_a_row_after_a_pinned_lane_is_planned_on_all_cores(tmp_path: Path):
    lane = transfers._open(str(tmp_path), 4096, 1)
    lane.close()
    assert os.sched_getaffinity(0) == {transfers.CORES[0]}
    assert transfers._room(str(tmp_path)).cores == tuple(transfers.CORES)
