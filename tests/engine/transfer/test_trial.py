"""What a trial plans before it measures, and what a race of two settings leaves behind."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import psutil
import pytest

from kvdeck.engine.host import host_facts
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.transfer.run import QUICK_SECONDS, paced_seconds
from kvdeck.engine.transfer.trial import TrialProgress, TrialRun
from kvdeck.engine.transfer.trials import StandIn, plan_trials, room_of
from kvdeck.engine.transfer.tuning import race

SMALL = {"layers": 2, "page_size": 4, "inner_dim": 512, "batch": 2, "blocks": 12}


@pytest.mark.parametrize(
    ("path", "direct", "limited"),
    [
        ("DiskToHost", "off", True),
        ("DiskToDevice", "off", True),
        ("DiskToHost", "on", False),
        ("DiskToDevice", "on", False),
        ("HostToDisk", "off", False),
        ("HostToHost", "auto", False),
    ],
)
def test_a_buffered_read_takes_no_page_twice_in_a_round(tmp_path: Path, path: str, direct: str, limited: bool) -> None:
    spec = spec_from_mapping({**SMALL, "paths": [path], "direct": direct})
    stand_in = {"DiskToDevice": StandIn("staged:POSIX", "no GPU")}
    (trial,) = plan_trials(spec, room_of(host_facts(tmp_path)), None, stand_in)
    crew = Crew.__new__(Crew)  # never opened: no GPU is needed to count
    count = TrialRun(spec, trial, crew, TrialProgress(lambda _: None, lambda: False))._visit_count(1e-6)
    assert count == (trial.blocks // trial.batch if limited else 20_000)


def test_a_race_leaves_no_rank_behind_if_a_setting_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Crew.prepare

    def refuse_merged(crew: Crew, step: int, layout: str, batch: int, depth: int, merge: bool) -> object:
        if merge:
            raise RuntimeError("no merging here")
        return prepare(crew, step, layout, batch, depth, merge)

    monkeypatch.setattr(Crew, "prepare", refuse_merged)
    now = spec_from_mapping({**SMALL, "paths": ["HostToHost"], "pin": False})
    before = set(psutil.Process().children())
    with pytest.raises(RuntimeError, match="no merging here") as kept:  # `kept` keeps the frames, and so the groups
        race(now, dataclasses.replace(now, merge=True), room_of(host_facts(tmp_path)), str(tmp_path), lambda: False)
    assert kept.tb is not None
    assert set(psutil.Process().children()) == before


@pytest.mark.parametrize("beyond", [0.1, 0.6, 1.4])
def test_trials_of_a_quick_run_keep_to_its_time(beyond: float) -> None:
    spec, gone = spec_from_mapping({"effort": "quick"}), 0.0
    progress = TrialProgress(lambda _: None, lambda: False)
    for left in (2, 1, 0):
        progress.trials_left = left
        seconds = paced_seconds(spec, 2.2, gone, progress)
        assert 0.3 <= seconds <= 2.2
        progress.overheads.append(beyond)
        gone += seconds + beyond
    assert gone <= QUICK_SECONDS + 0.3


@pytest.mark.parametrize("other", [{"effort": "normal"}, {"effort": "quick", "seconds": 2.2}, {"iterations": 5}])
def test_only_a_quick_run_without_a_length_of_its_own_is_paced(other: dict[str, object]) -> None:
    progress = TrialProgress(lambda _: None, lambda: False)
    assert paced_seconds(spec_from_mapping(other), 2.2, 100.0, progress) == 2.2
