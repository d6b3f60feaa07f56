"""Settings of the paths with a GPU, decided on any host; what they give on a GPU is in docs/gpu.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdeck.engine.host import GpuFacts, host_facts
from kvdeck.engine.io import reasons
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from kvdeck.engine.transfer.needs import needs_of
from kvdeck.engine.transfer.run import backend_params, lane_setups
from kvdeck.engine.transfer.trials import Room, Trial, plan_trials, room_of


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return room_of(host_facts(tmp_path, gpu=GpuFacts(reason="not checked")))


def planned(room: Room, path: str, **changes: object) -> tuple[RunSpec, Trial]:
    spec = spec_from_mapping({"paths": [path], "layouts": ["FullyContiguous"], "blocks": 32, **changes})
    (trial,) = plan_trials(spec, room)
    return spec, trial


@pytest.mark.parametrize(
    ("path", "changes", "mode", "two"),
    [
        ("HostToHost", {}, "peer", True),
        ("HostToHost", {"loopback": True}, "peer", False),
        ("HostToDevice", {}, "none", False),
        ("DeviceToHost", {}, "none", False),
        ("DeviceToDevice", {}, "peer", True),
        ("DeviceToDevice", {"loopback": True}, "none", False),
        ("HostToDevice", {"error_handling": "peer"}, "peer", False),
        ("HostToHost", {"error_handling": "none"}, "none", True),
    ],
)
def test_ucx_goes_without_error_handling_where_it_would_lose_the_cuda_copy(
    room: Room, tmp_path: Path, path: str, changes: dict[str, object], mode: str, two: bool
) -> None:
    spec, trial = planned(room, path, **changes)
    assert backend_params(spec, trial)["ucx_error_handling_mode"] == mode
    (setup,) = lane_setups(spec, trial, room, str(tmp_path))
    assert setup.two_processes is two
    warned = any("bytes go over TCP" in note for note in trial.notes)
    assert warned is ("Device" in path and mode == "peer" and not two)


def test_a_pull_between_gpus_is_what_was_asked_for(room: Room, tmp_path: Path) -> None:
    spec, trial = planned(room, "DeviceToDevice", operation="READ")
    assert lane_setups(spec, trial, room, str(tmp_path))[0].operation == "READ"


def test_the_reference_between_two_processes_needs_a_third_buffer(room: Room) -> None:
    counts = [
        needs_of(*planned(room, "DeviceToDevice", **changes)).device[0].count
        for changes in ({}, {"reference": False}, {"loopback": True})
    ]
    assert counts == [3, 2, 2]


def test_what_cufile_s_log_says_of_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "cufile.log"
    monkeypatch.setenv("CUFILE_LOGFILE_PATH", str(log))
    assert reasons.cufile_limit() is None
    log.write_text("NOTICE  cufio-drv:851 running in compatible mode\n")
    limit = reasons.cufile_limit()
    assert limit is not None
    assert "compatibility mode" in limit.what
