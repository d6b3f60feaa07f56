"""Settings of one initiator, fixed before it opens and sent to its process as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kvdeck.engine.planning.layout import Geometry
from kvdeck.sessions.host.processes import ProcessIdentity
from kvdeck.sessions.model.encoding import convert


def local_pid(process: dict[str, Any]) -> int | None:
    """Return the pid of a process from the fields of its `ProcessIdentity`; None if it isn't on this host."""
    found = convert(ProcessIdentity, process) if process else None
    return found.pid if found is not None and found.alive else None


COMPLETION_SECONDS = 30.0
"""Time limit of one completion within a host."""


@dataclass(frozen=True, slots=True)
class SharedTarget:
    """A target process that rank 0 opens, since several initiators share it or since it is on another host.

    Rank 0 fills in name, metadata and places.
    """

    number: int
    """Index among the run's shared targets."""
    sharers: int
    """Number of initiators that share the target; 1 if one initiator has several targets."""
    place: int
    """This initiator's index among the sharers, which selects its range of the target's blocks."""
    position: int
    """Offset of the target's first block in the pattern, in bytes."""
    name: str = ""
    """Name of the target's NIXL agent."""
    metadata: str = ""
    """Metadata of the target's NIXL agent, in base64."""
    places: tuple[tuple[int, int], ...] = ()
    """Address and device number of each of the target's regions."""
    pages: str | None = None
    """Kinds of its pages."""
    gpu: int | None = None
    """GPU of its memory; None: memory of its host."""
    cores: tuple[int, ...] = ()
    """CPU cores allowed for it; empty: those of its initiator's setup."""
    process: dict[str, Any] = field(default_factory=dict)
    """Fields of the target's `ProcessIdentity`."""


@dataclass(frozen=True, slots=True)
class LaneSetup:
    """Settings of one initiator, constant while it is open."""

    path: str
    backend: str
    backend_params: dict[str, str]
    geometry: Geometry
    blocks: int
    """Blocks in this initiator's working set."""
    folder: str
    files: int
    direct: bool
    """Open the files with O_DIRECT."""
    durable: bool
    """Sync the files at the end of each visit, inside its time."""
    drop_cache: bool
    """Drop the files' page cache before each visit."""
    huge_pages: bool
    progress_thread: bool
    notify: bool
    two_processes: bool
    operation: str
    """NIXL's operation from the initiator's view: WRITE from its own endpoint, READ into it."""
    cores: tuple[tuple[int, ...], tuple[int, ...]]
    """CPU cores allowed for the initiator and for its targets; one core per process if pinned."""
    reference: bool
    """Open the reference within this host."""
    yields: tuple[bool, bool] = (True, True)
    """Whether the initiator and its targets give way while they poll, because another side or thread of the run may
    need the same core."""
    devices: int = 1
    """Devices of the initiator, each a separate region of host memory."""
    pairs: int = 1
    """Device pairs per request, each with its own range of the blocks."""
    gpu: int = 0
    """The initiator's GPU, on a path with one."""
    targets: int = 1
    """Target processes, each with its own range of the blocks."""
    target_devices: int = 1
    """Devices of each target."""
    position: int = 0
    """Offset of this initiator's first block in the pattern, in bytes; different for each initiator."""
    shared: tuple[SharedTarget, ...] = ()
    """The targets that rank 0 opens for this initiator, in the order of its blocks; either one or `targets`."""
    stream: bool = False
    """Compare with a plain TCP stream to the targets, where the bytes go by TCP."""
    patience_s: float = COMPLETION_SECONDS
    """Time limit of one completion, in seconds."""

    @property
    def bytes(self) -> int:
        """Size of the working set on one endpoint."""
        return self.blocks * self.geometry.block_bytes
