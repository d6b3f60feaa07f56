"""nixlbench's schemes over several devices: who is paired with whom, the bytes of every pair, and wrong ones found."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvdeck.engine.host import host_facts
from kvdeck.engine.io import descriptors
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.topology import SCHEMES, Topology
from kvdeck.engine.transfer.run import lane_setups
from kvdeck.engine.transfer.trials import Trial, plan_trials, room_of
from kvdeck.sessions.errors import UsageError

SMALL: dict[str, Any] = {
    "paths": ["HostToHost"], "layers": 2, "page_size": 4, "inner_dim": 512, "batch": 2, "blocks": 12,
    "reference": False,
}  # fmt: skip
TOPOLOGIES = st.builds(
    Topology, st.sampled_from(SCHEMES), st.sampled_from(["SG", "MG"]), st.integers(1, 8), st.integers(1, 8),
    st.booleans(),
)  # fmt: skip


@pytest.fixture(autouse=True)
def affinity() -> Iterator[None]:
    """Lanes move the process to their cores; the tests after them want all."""
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


def planned(folder: Path, **changes: Any) -> tuple[Trial, list[LaneSetup]]:
    spec, room = spec_from_mapping({**SMALL, **changes}), room_of(host_facts(folder))
    (trial,) = plan_trials(spec, room)
    return trial, lane_setups(spec, trial, room, str(folder))


def moved(trial: Trial, setups: list[LaneSetup]) -> list[str | None]:
    """Every layout, visited and verified; what is wrong with each."""
    crew = Crew(setups, lambda: False)
    try:
        found = []
        for step in trial.steps:
            prepared = crew.prepare(step.step, step.layout, step.batch, 1, False)
            assert prepared.descriptors == step.batch * step.descriptors_per_block
            crew.attend(True)
            visit = crew.visit(step.step, 2)
            crew.attend(False)
            assert len(visit.post_ns) == 2 * trial.lanes == 2 * len(visit.lane_ns)
            found.append(crew.verify(step.step, 7 + step.step))
        return found
    finally:
        crew.close()


@given(TOPOLOGIES)
def test_every_device_and_every_pair_is_served_once(topology: Topology) -> None:
    try:
        topology.check()
    except UsageError:
        assume(False)
    assert topology.lanes * topology.lane_pairs == topology.pairs
    assert topology.lanes * topology.own_devices == topology.initiators
    if not topology.storage:
        reached = topology.lanes * topology.lane_targets // topology.sharers
        assert reached * topology.target_devices == topology.targets
        assert topology.processes == topology.lanes + reached
        assert topology.pairs == max(topology.initiators, topology.targets)
        assert topology.pairs % topology.initiators == topology.pairs % topology.targets == 0


@pytest.mark.parametrize(("scheme", "pairs"), [("pairwise", 2), ("manytoone", 2), ("onetomany", 8), ("tp", 4)])
def test_storage_multiplies_as_nixlbench_does(scheme: str, pairs: int) -> None:
    topology = Topology(scheme, "SG", 2, 4, storage=True)
    assert (topology.pairs, topology.lanes, topology.own_devices, topology.processes) == (pairs, 1, 2, 1)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))
def test_a_request_takes_a_batch_of_each_pair(pairs: int, requests: int, batch: int) -> None:
    blocks = pairs * requests * batch
    rows = np.arange(blocks, dtype=np.uint64).repeat(3).reshape(blocks, 1, 3)
    taken = descriptors.in_pairs(rows, pairs, batch)[:, 0].reshape(requests, pairs, batch)
    for pair in range(pairs):
        assert taken[:, pair].reshape(-1).tolist() == list(
            range(pair * requests * batch, (pair + 1) * requests * batch)
        )


CASES = [
    ("SG", "onetomany", 1, 3, "WRITE"),
    ("SG", "manytoone", 3, 1, "WRITE"),
    ("SG", "tp", 4, 2, "READ"),
    ("SG", "tp", 2, 4, "READ"),
    ("MG", "pairwise", 2, 2, "WRITE"),
    ("MG", "onetomany", 1, 3, "READ"),
    ("MG", "manytoone", 3, 1, "WRITE"),
    ("MG", "tp", 2, 4, "WRITE"),
]


@pytest.mark.parametrize(("mode", "scheme", "initiators", "targets", "operation"), CASES)
def test_bytes_arrive_on_every_pair(tmp_path: Path, mode, scheme, initiators, targets, operation) -> None:
    trial, setups = planned(
        tmp_path, mode=mode, scheme=scheme, initiators=initiators, targets=targets, operation=operation
    )
    assert len(setups) == (initiators if mode == "SG" else 1)
    assert moved(trial, setups) == [None, None]


@pytest.mark.parametrize("path", ["HostToDisk", "DiskToHost"])
def test_devices_share_files(tmp_path: Path, path: str) -> None:
    trial, setups = planned(tmp_path, paths=[path], scheme="onetomany", initiators=2, targets=2, files=2)
    assert (trial.lanes, trial.topology.pairs, trial.batch) == (1, 4, 8)
    assert moved(trial, setups) == [None, None]


def test_threads_have_devices_of_their_own(tmp_path: Path) -> None:
    trial, setups = planned(tmp_path, scheme="manytoone", initiators=2, threads=2)
    assert [[(target.number, target.place) for target in setup.shared] for setup in setups] == [
        [(0, 0)], [(0, 1)], [(1, 0)], [(1, 1)],
    ]  # fmt: skip
    assert len({setup.position for setup in setups}) == trial.lanes == 4


def test_a_pair_that_reaches_the_wrong_device_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, setups = planned(tmp_path, mode="MG", initiators=2, targets=2)
    right = descriptors.in_pairs
    calls: list[int] = []

    def crossed(rows: Any, pairs: int, batch: int) -> Any:
        calls.append(pairs)
        far = len(calls) % 2 == 0  # the near side is asked first
        return right(np.concatenate(np.split(rows, 2)[::-1]) if far else rows, pairs, batch)

    monkeypatch.setattr(descriptors, "in_pairs", crossed)
    wrong = moved(trial, setups)
    assert all(found and found.startswith("device 0: block 0") for found in wrong)


def test_initiators_that_write_to_one_place_are_found(tmp_path: Path) -> None:
    trial, setups = planned(tmp_path, scheme="manytoone", initiators=2, layouts=["fc"])
    (target,) = setups[1].shared
    setups[1] = dataclasses.replace(setups[1], shared=(dataclasses.replace(target, place=0),))
    assert all(found and "differs from its source" in found for found in moved(trial, setups))


def test_an_initiator_that_carries_anothers_bytes_is_found(tmp_path: Path) -> None:
    trial, setups = planned(tmp_path, scheme="manytoone", initiators=2, layouts=["ls"])
    setups[1] = dataclasses.replace(setups[1], position=0)
    assert all(moved(trial, setups))


def test_a_target_that_got_nothing_is_found(tmp_path: Path) -> None:
    trial, setups = planned(tmp_path, scheme="onetomany", targets=2)
    crew = Crew(setups, lambda: False)
    try:
        crew.prepare(0, trial.steps[0].layout, trial.batch, 1, False)
        for volley in crew._lane._steps[0].handles:
            crew._lane._release(volley.handles[1:])
            volley.handles = volley.handles[:1]
        assert (crew.verify(0, 5) or "").startswith("target 1: block 0")
    finally:
        crew.close()


def test_a_shared_target_is_asked_about_the_layout_it_got(tmp_path: Path) -> None:
    assert moved(*planned(tmp_path, scheme="manytoone", initiators=2, layouts=["ls -> fc"])) == [None]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"initiators": 2}, "scheme pairwise has 2 initiator and 1 target"),
        ({"scheme": "onetomany", "initiators": 2, "targets": 4}, "give one initiator device"),
        ({"scheme": "manytoone", "targets": 2}, "give one target device"),
        ({"scheme": "tp", "initiators": 2, "targets": 3}, "multiple of the other"),
        ({"scheme": "tp", "targets": 65}, "at most 64"),
        ({"scheme": "star"}, "scheme 'star'"),
        ({"mode": "XG"}, "mode 'XG'"),
        ({"initiators": 0}, "initiators"),
        ({"paths": ["HostToDevice"], "initiators": 2, "targets": 2}, "regions of host memory"),
        ({"paths": None, "initiators": 2, "targets": 2}, "give paths between host memory and files"),
        ({"initiators": 2, "targets": 2, "loopback": True}, "use mode MG"),
    ],
)
def test_devices_that_dont_go_together_are_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec_from_mapping({**SMALL, **changes})
    assert named in str(caught.value)


@pytest.mark.parametrize("counts", [(0, 1), (1, 0), (-1, 1)])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("storage", [True, False])
def test_fewer_than_one_device_is_refused(scheme: str, storage: bool, counts: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match="give at least 1 of either"):
        Topology(scheme, "SG", *counts, storage=storage).check()
