"""Which processes of a trial give way while they poll: those that share a core with a side or a thread of the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.host import host_facts
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.transfer.run import lane_setups, settings_of
from kvdeck.engine.transfer.trials import plan_trials, room_of


def setups_of(folder: Path, cores: int, **fields: Any) -> tuple[list[LaneSetup], dict[str, Any]]:
    room = dataclasses.replace(room_of(host_facts(folder)), cores=tuple(range(cores)), direct=4096)
    spec = spec_from_mapping({"block_size": 4096, "batch": 1, "blocks": 8, "layouts": ["fc"], **fields})
    (trial,) = plan_trials(spec, room)
    setups = lane_setups(spec, trial, room, str(folder))
    return setups, settings_of(spec, trial, setups[0], room, [])


@pytest.mark.parametrize(
    ("cores", "fields", "yields"),
    [
        (2, {}, (False, False)),
        (1, {}, (True, True)),
        (8, {"pin": False}, (True, True)),
        (8, {"progress_thread": True}, (True, True)),
        (8, {"threads": 4}, (False, False)),
        (7, {"threads": 4}, (True, True)),
        (4, {"initiators": 1, "targets": 3, "scheme": "onetomany", "mode": "MG"}, (False, False)),
        (1, {"loopback": True}, (False, False)),
        (1, {"paths": ["DiskToHost"]}, (False, False)),
        (2, {"paths": ["DiskToHost"], "api": "URING"}, (False, False)),
        (2, {"paths": ["DiskToHost"], "api": "URING", "direct": "off"}, (True, False)),
        (2, {"paths": ["HostToDisk"], "api": "POSIXAIO"}, (True, False)),
        (1, {"paths": ["HostToDisk"], "threads": 2}, (True, True)),
    ],
)
def test_only_a_shared_core_is_given_away(
    tmp_path: Path, cores: int, fields: dict[str, Any], yields: tuple[bool, bool]
) -> None:
    setups, settings = setups_of(tmp_path, cores, **{"paths": ["HostToHost"], **fields})
    assert {setup.yields for setup in setups} == {yields}
    sides = [set(side) for setup in setups for side in setup.cores[: 1 + setup.two_processes]]
    shared = any(one & other for place, one in enumerate(sides) for other in sides[:place])
    assert settings.get("shared_cores", False) == shared
