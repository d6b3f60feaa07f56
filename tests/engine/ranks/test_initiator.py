"""Lanes over real NIXL: the bytes arrive under every layout, and a byte that doesn't is found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import pattern
from kvdeck.engine.io.endpoints import Origin
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.planning.layout import Geometry
from kvdeck.engine.ranks import initiator as lanes
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.ranks.initiator import Lane
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.ranks.second_core import SecondCore
from kvdeck.sessions.errors import KvdeckError

with_driver = pytest.mark.skipif(not driver_present(), reason="no NVIDIA driver is loaded")
GEOMETRY = Geometry(layers=3, outer_dims=2, page_size=4, inner_dim=512, dtype="bf16")  # 4 KiB regions
BLOCKS, BATCH = 8, 4
FC, LS, OUTER = (
    "FullyContiguous",
    "LayerSeparate { outer_contiguous: false }",
    "LayerSeparate { outer_contiguous: true }",
)
PAIRS = [FC, LS, OUTER, f"{LS} -> {FC}", f"{FC} -> {OUTER}"]


def setup(folder: Path, path: str, **changes: Any) -> LaneSetup:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    values: dict[str, Any] = {
        "path": path, "backend": "POSIX" if "Disk" in path else "UCX", "backend_params": {},
        "geometry": GEOMETRY, "blocks": BLOCKS, "folder": str(folder), "files": 1, "direct": False,
        "durable": False, "drop_cache": False, "huge_pages": False, "progress_thread": False, "notify": True,
        "two_processes": path == "HostToHost", "operation": "READ" if path.startswith("Disk") else "WRITE",
        "cores": (cores, cores), "reference": True,
    }  # fmt: skip
    return LaneSetup(**(values | changes))


@pytest.fixture(autouse=True)
def affinity() -> Iterator[None]:
    """Lanes move the process to their cores; the tests after them want all."""
    cores = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture
def open_lane(tmp_path: Path) -> Iterator[Any]:
    opened: list[Lane] = []

    def open_one(path: str, **changes: Any) -> Lane:
        opened.append(Lane(setup(tmp_path, path, **changes), f"test-{len(opened)}", lambda: False))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()
    assert not list(tmp_path.iterdir()), "a lane left files behind"


CASES: list[tuple[str, dict[str, Any]]] = [
    ("HostToHost", {}),
    ("HostToHost", {"operation": "READ", "backend_params": {"ucx_error_handling_mode": "none"}}),
    ("HostToHost", {"two_processes": False}),
    ("HostToDisk", {"backend_params": {"use_aio": "true"}}),
    ("HostToDisk", {"backend_params": {"use_uring": "true"}, "direct": True, "durable": True}),
    ("HostToDisk", {"files": 2}),
    ("DiskToHost", {"backend_params": {"use_posix_aio": "true"}}),
    ("DiskToHost", {"files": 4, "drop_cache": True}),
]


NO_ERRORS = {"ucx_error_handling_mode": "none"}
ON_GPU: list[tuple[str, dict[str, Any]]] = [
    ("HostToDevice", {"backend_params": NO_ERRORS}),
    ("DeviceToHost", {"backend_params": NO_ERRORS}),
    ("DeviceToHost", {"backend_params": {"ucx_error_handling_mode": "peer"}}),
    ("DeviceToDevice", {"backend_params": NO_ERRORS}),
    ("DeviceToDevice", {"two_processes": True}),
    ("DeviceToDevice", {"two_processes": True, "operation": "READ"}),
    ("DeviceToDisk", {"backend": "staged:POSIX"}),
    ("DiskToDevice", {"backend": "staged:POSIX"}),
]
ON_GPU = [pytest.param(*case, marks=[pytest.mark.gpu, with_driver]) for case in ON_GPU]  # type: ignore[misc]


@pytest.mark.parametrize(("path", "changes"), [*CASES, *ON_GPU])
def test_bytes_arrive_under_every_layout(open_lane: Any, path: str, changes: dict[str, Any]) -> None:
    lane = open_lane(path, **changes)
    for step, layout in enumerate(PAIRS):
        prepared = lane.prepare(step, layout, BATCH, depth=1, merge=False)
        assert prepared["descriptors"] == BATCH * (1 if layout == FC else GEOMETRY.regions)
        assert len(prepared["prep_ns"]) >= 32
        assert lane.verify(step, seed=step + 1) is None, layout
        lane.attend(True)
        visit = lane.visit(step, 5)
        lane.attend(False)
        assert len(visit.post_ns) == len(visit.transfer_ns) == 5
        assert sum(visit.post_ns) + sum(visit.transfer_ns) <= visit.end_ns - visit.start_ns
        assert min(visit.post_ns) > 0


def test_requests_in_flight_beside_each_other(open_lane: Any) -> None:
    lane = open_lane("HostToDisk")
    lane.prepare(0, LS, 1, depth=4, merge=False)
    visit = lane.visit(0, 16)
    assert len(visit.post_ns) == 16
    assert lane.verify(0, seed=3) is None


def test_merging_is_counted_and_moves_the_same_bytes(open_lane: Any) -> None:
    lane = open_lane("HostToHost")
    assert lane.prepare(0, FC, BATCH, 1, merge=True)["descriptors"] == 1
    assert lane.prepare(1, LS, BATCH, 1, merge=True)["descriptors"] == GEOMETRY.layers * BATCH
    assert lane.prepare(2, OUTER, BATCH, 1, merge=True)["descriptors"] == GEOMETRY.regions * BATCH
    assert [lane.verify(step, seed=9) for step in range(3)] == [None] * 3


@pytest.mark.gpu
@with_driver
@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("HostToDevice", {"backend_params": NO_ERRORS}),
        ("DeviceToHost", {"backend_params": NO_ERRORS}),
        ("DeviceToDevice", {"two_processes": True}),
    ],
)
def test_verification_finds_bytes_that_never_came_to_or_from_a_gpu(
    open_lane: Any, path: str, changes: dict[str, Any]
) -> None:
    lane = open_lane(path, **changes)
    lane.prepare(0, LS, BATCH, 1, merge=False)
    lane._steps[0].handles.pop()
    wrong = lane.verify(0, seed=5)
    assert wrong is not None
    assert "block 4 of 8" in wrong
    begin, end = lane.reference(BATCH, BLOCKS // BATCH, 1)
    assert end > begin


@pytest.mark.parametrize("path", ["HostToHost", "HostToDisk", "DiskToHost"])
def test_verification_finds_bytes_that_never_came(open_lane: Any, path: str) -> None:
    lane = open_lane(path)
    lane.prepare(0, LS, BATCH, 1, merge=False)
    lane._steps[0].handles.pop()  # the last request is never posted: half the blocks stay poisoned
    wrong = lane.verify(0, seed=5)
    assert wrong is not None
    assert "block 4 of 8" in wrong


def test_verification_finds_misplaced_bytes(open_lane: Any) -> None:
    lane = open_lane("HostToHost", two_processes=False)
    lane.prepare(0, f"{LS} -> {FC}", BATCH, 1, merge=False)
    assert lane.verify(0, seed=5) is None
    layout = lanes.parse_layout_pair(LS).source
    assert lane._others[0].check(layout, Origin(layout, 1, 5)) is not None
    contiguous = lanes.parse_layout_pair(FC).source
    assert lane._others[0].check(contiguous, Origin(layout, 1, 6)) is not None, "another seed's bytes pass"


DIRECT = {"direct": True}
REFERENCES: list[tuple[str, dict[str, Any], str]] = [
    ("HostToHost", {"backend_params": {"ucx_error_handling_mode": "peer"}}, "process_vm_writev"),
    ("HostToHost", {"operation": "READ"}, "process_vm_readv"),
    ("HostToHost", {"two_processes": False}, "memcpy"),
    ("HostToHost", {"two_processes": False, "operation": "READ"}, "memcpy"),
    ("HostToDisk", DIRECT, "io_submit"),
    ("DiskToHost", {**DIRECT, "files": 2}, "io_submit"),
    ("HostToDisk", {"durable": True}, "pwrite"),
    ("DiskToHost", {"drop_cache": True}, "pread"),
]


@pytest.mark.parametrize(("path", "changes", "name"), REFERENCES)
def test_the_reference_moves_the_same_bytes(open_lane: Any, path: str, changes: dict[str, Any], name: str) -> None:
    lane = open_lane(path, **changes)
    assert lane.reference_name == name
    lane.ready(seed=3)
    begin, end = lane.reference(3, 3, 1)  # every block, in groups that don't divide their number
    assert end > begin
    layout = lanes.parse_layout_pair(FC).source
    (destination,) = lane._destinations
    assert destination.check(layout, Origin(layout, changes.get("files", 1), 3)) is None
    assert destination.check(layout, Origin(layout, changes.get("files", 1), 4)) is not None


def test_memcpy_of_what_another_process_gets_goes_to_scratch_memory(open_lane: Any) -> None:
    lane = open_lane("HostToHost", backend_params=NO_ERRORS)
    assert lane.reference_name == "memcpy"
    lane.reference(BATCH, BLOCKS // BATCH, 1)
    size = GEOMETRY.block_bytes * BLOCKS
    assert lane._reference._scratch.array.tobytes() == pattern.expected(0, size, 0).tobytes()


def test_memcpy_by_both_cores_moves_every_byte_and_lets_the_target_poll_again(open_lane: Any) -> None:
    lane = open_lane("HostToHost", backend_params=NO_ERRORS)
    lane._reference._helper = SecondCore(max(os.sched_getaffinity(0)))
    assert lane._reference.target_core
    lane.attend(True)
    lane.reference(BATCH, BLOCKS // BATCH, 1)
    assert lane._polled
    lane.attend(False)
    lane.reference(BATCH, BLOCKS // BATCH, 1)
    assert not lane._polled
    size = GEOMETRY.block_bytes * BLOCKS
    assert lane._reference._scratch.array.tobytes() == pattern.expected(0, size, 0).tobytes()


@pytest.mark.parametrize("path", ["HostToDisk", "DiskToHost"])
def test_memory_on_plain_pages_stands_beside(open_lane: Any, path: str) -> None:
    lane = open_lane(path, huge_pages=True, **DIRECT)
    begin, end = lane.reference(BATCH, 3, 0, plain=True)
    assert end > begin
    assert lane._on_plain._plain.pages.plain == GEOMETRY.block_bytes * BATCH


def test_a_reference_that_the_system_refuses_is_an_error(open_lane: Any, tmp_path: Path) -> None:
    lane = open_lane("DiskToHost", **DIRECT)
    (file,) = tmp_path.iterdir()
    os.truncate(file, 0)
    with pytest.raises(KvdeckError, match="the reference failed: an operation moved 0 of 24 KiB"):
        lane.reference(BATCH, 1, 0)


def test_a_crew_of_two_begins_together(tmp_path: Path) -> None:
    crew = Crew([setup(tmp_path, "HostToHost")] * 2, lambda: False)
    try:
        crew.prepare(0, LS, BATCH, 1, False)
        crew.attend(True)
        visit = crew.visit(0, 6)
        crew.attend(False)
        assert len(visit.post_ns) == 12
        assert crew.verify(0, 4) is None
        assert crew.reference(BATCH, 1, 0) > 0
    finally:
        crew.close()


def test_a_dead_peer_is_said_and_not_waited_for(open_lane: Any) -> None:
    lane = open_lane("HostToHost")
    lane.prepare(0, LS, BATCH, 1, merge=False)
    lane._targets[0]._process.kill()
    with pytest.raises(Exception, match=r"target|ended|DISCONNECT|BACKEND"):
        lane.verify(0, seed=1)


def test_a_cancel_ends_a_wait(tmp_path: Path) -> None:
    told = [False]
    lane = Lane(setup(tmp_path, "HostToDisk"), "cancelled", lambda: told[0])
    try:
        lane.prepare(0, FC, BATCH, 1, merge=False)
        told[0] = True
        with pytest.raises(CancelledError):
            lane._patience.check(0)
    finally:
        lane.close()
