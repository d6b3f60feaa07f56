"""Everything about a lane that is decided before it opens, as it crosses process boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kvdeck.engine.planning.layout import Geometry


@dataclass(frozen=True, slots=True)
class SharedTarget:
    """A target process that several lanes reach; rank 0 opens it and tells them where it is."""

    number: int
    """Which of the run's shared targets it is."""
    sharers: int
    place: int
    """This lane's place among those that share it: its run of the target's blocks."""
    position: int
    """Where in the pattern the target's first block lies, in bytes."""
    name: str = ""
    metadata: str = ""
    """The agent's, in base64."""
    places: tuple[tuple[int, int], ...] = ()
    """Address and device number of each of its regions."""


@dataclass(frozen=True, slots=True)
class LaneSetup:
    """Everything that stays the same while a lane lives."""

    path: str
    backend: str
    backend_params: dict[str, str]
    geometry: Geometry
    blocks: int
    """Blocks of this lane's working set."""
    folder: str
    files: int
    direct: bool
    durable: bool
    drop_cache: bool
    huge_pages: bool
    progress_thread: bool
    notify: bool
    two_processes: bool
    operation: str
    """NIXL's operation as the initiator sees it: WRITE from its own side, READ into it."""
    cores: tuple[tuple[int, ...], tuple[int, ...]]
    """Cores that the initiator and the target may use: one each where they are pinned."""
    reference: bool
    devices: int = 1
    """Devices of the initiator: regions of host memory of their own."""
    pairs: int = 1
    """Pairs of devices that a request serves, each with its run of the blocks."""
    targets: int = 1
    """Target processes; each has its run of the blocks."""
    target_devices: int = 1
    """Devices of each of them."""
    position: int = 0
    """Where in the pattern this lane's first block lies, in bytes, so that no two lanes carry the same."""
    shared: SharedTarget | None = None

    @property
    def bytes(self) -> int:
        """Of its working set, on one side."""
        return self.blocks * self.geometry.block_bytes


def setup_from_json(data: dict[str, Any]) -> LaneSetup:
    """A setup that crossed a process boundary."""
    initiator, target = data["cores"]
    shared = data.get("shared")
    if shared is not None:
        shared = SharedTarget(**{**shared, "places": tuple((address, device) for address, device in shared["places"])})
    changes = {
        "geometry": Geometry(**data["geometry"]),
        "cores": (tuple(initiator), tuple(target)),
        "shared": shared,
    }
    return LaneSetup(**{**data, **changes})
