"""Planning of a run's trials: paths, sizes and settings that fit this host, from the spec."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kvdeck.engine.host.facts import HostFacts
from kvdeck.engine.io import plugins
from kvdeck.engine.planning.layout import Geometry, LayoutPair
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.topology import Topology
from kvdeck.sessions.model.records import DEVICE_TO_DEVICE, FILE_PATHS, HOST_TO_HOST, StepPlan
from kvdeck.sessions.units import count_text, exact_size_text, many, size_text

DEFAULT_BACKENDS = {path: backends[0] for path, backends in plugins.SERVES.items()}
DIRECT_ALIGNMENT = 4096
"""Assumed O_DIRECT alignment in bytes if the filesystem reports none."""
DEFAULT_BATCH = 16
_DESCRIPTORS_KEPT = 1 << 18  # longer prepared lists need more memory than the blocks they describe
_EFFORT_SECONDS = {"quick": (6.6, 2.2), "normal": (40.0, 12.0), "thorough": (1e9, 40.0)}
"""Seconds of each effort: for all trials together, and at most for one."""


@dataclass(frozen=True, slots=True)
class Room:
    """Host resources that determine sizes; all sizes in bytes."""

    cache: int
    """Last-level cache."""
    memory: int
    """Available memory."""
    disk: int
    """Free space in the target folder."""
    direct: int | None
    """O_DIRECT alignment of the target folder's filesystem; None if it doesn't support O_DIRECT."""
    cores: tuple[int, ...]
    """CPU cores that this process may use."""
    host: HostFacts
    peers: tuple[PeerHost, ...] = ()
    """Hosts of the targets; empty: this one."""


@dataclass(frozen=True, slots=True)
class StandIn:
    """Backend that replaces a path's default, and the reason."""

    backend: str
    why: str


def between_processes(spec: RunSpec, path: str) -> bool:
    """True if a path's source and destination are in different processes."""
    return path in (HOST_TO_HOST, DEVICE_TO_DEVICE) and not spec.loopback


def error_handling(spec: RunSpec, path: str) -> Literal["peer", "none"]:
    """Return UCX's error handling mode on a path, with `auto` resolved."""
    if spec.error_handling != "auto":
        return spec.error_handling
    return "none" if plugins.uses_device(path) and not between_processes(spec, path) else "peer"


def room_of(host: HostFacts, peers: tuple[PeerHost, ...] = ()) -> Room:
    """Return the resources of a host; its facts include the target folder's. Of memory, what the peers have too."""
    folder = host.folder
    return Room(
        cache=host.last_level_cache_bytes or 32 << 20,
        memory=min(host.memory_available_bytes, *(peer.greeting["memory_available_bytes"] for peer in peers))
        if peers
        else host.memory_available_bytes,
        disk=folder.free_bytes if folder else 0,
        direct=folder.direct_alignment if folder else None,
        cores=tuple(sorted(os.sched_getaffinity(0))),
        host=host,
        peers=peers,
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """Steps measured interleaved: one path, block size and batch, with one step per layout."""

    index: int
    path: str
    backend: str
    api: str | None
    direct: bool | None
    geometry: Geometry
    batch: int
    """Blocks per request, over all device pairs of the request."""
    blocks: int
    """Blocks in the whole working set, over all initiators."""
    threads: int
    topology: Topology
    files: int
    pairs: tuple[LayoutPair, ...]
    """Layouts of source and destination, one pair per step."""
    first_step: int
    seconds: float
    in_memory: bool
    """True if the files are on an in-memory filesystem, where no cache can be dropped."""
    notes: tuple[str, ...]

    @property
    def lanes(self) -> int:
        """Number of initiator processes."""
        return self.threads * self.topology.lanes

    @property
    def steps(self) -> tuple[StepPlan, ...]:
        """One step per layout, numbered across the run."""
        return tuple(
            StepPlan(
                step=self.first_step + index,
                trial=self.index,
                path=self.path,
                layout=str(pair),
                backend=self.backend,
                api=self.api,
                direct=self.direct,
                block_bytes=self.geometry.block_bytes,
                batch=self.batch,
                blocks=self.blocks,
                descriptors_per_block=pair.descriptors_per_block(self.geometry),
            )
            for index, pair in enumerate(self.pairs)
        )


def plan_trials(
    spec: RunSpec,
    room: Room,
    tuned: Mapping[str, RunSpec] | None = None,
    stand_ins: Mapping[str, StandIn] | None = None,
) -> tuple[Trial, ...]:
    """Return all trials of a run in the order of measurement: by path, then block size, then batch.

    Args:
        spec: The requested run.
        room: Resources of this host.
        tuned: Specs that replace `spec` on single paths.
        stand_ins: Backends that replace the default on single paths if the spec names no backend.
    """
    combinations = [
        (path, geometry, batch) for path in spec.moved for geometry in _geometries(spec) for batch in _batches(spec)
    ]
    trials: list[Trial] = []
    step = 0
    for path, geometry, batch in combinations:
        stand_in = (stand_ins or {}).get(path)
        trial = _trial((tuned or {}).get(path, spec), room, path, geometry, batch, len(trials), step, stand_in)
        trials.append(trial)
        step += len(trial.pairs)
    return tuple(trials)


def share_time(spec: RunSpec, trials: tuple[Trial, ...], can_run: Callable[[Trial], bool]) -> tuple[Trial, ...]:
    """Set each trial's seconds: the spec's `seconds`, else an equal share of the effort's time; 0 if it can't run."""
    total, most = _EFFORT_SECONDS[spec.effort]
    able = [can_run(trial) for trial in trials]
    each = spec.seconds or max(0.3, min(most, total / max(sum(able), 1)))
    return tuple(
        dataclasses.replace(trial, seconds=each if runs else 0.0) for trial, runs in zip(trials, able, strict=True)
    )


def _geometries(spec: RunSpec) -> list[Geometry]:
    if spec.sweep_block_sizes is None:
        return [spec.geometry]
    return [_resized(spec, size) for size in spec.sweep_block_sizes.values()]


def _resized(spec: RunSpec, size: int) -> Geometry:
    """Return the spec's geometry at another block size in bytes: change the page size, or use one plain block."""
    if spec.block_size is not None or spec.plain:
        return Geometry(1, 1, 1, size, "int8")
    token = spec.geometry.block_bytes // spec.page_size
    return dataclasses.replace(spec.geometry, page_size=size // token)


def _batches(spec: RunSpec) -> tuple[int, ...]:
    if spec.sweep_batches is not None:
        return spec.sweep_batches.values()
    return (spec.batch or min(DEFAULT_BATCH, spec.blocks or DEFAULT_BATCH),)


def _trial(spec: RunSpec, room: Room, path: str, geometry: Geometry, batch: int, index: int, step: int,
           stand_in: StandIn | None) -> Trial:  # fmt: skip
    pairs = spec.layout_pairs
    if geometry.regions == 1:
        pairs = tuple(pair for pair in pairs if pair.descriptors_per_block(geometry) == 1)[:1]
    on_file, between = path in FILE_PATHS, between_processes(spec, path)
    topology = dataclasses.replace(spec.topology, storage=on_file)
    batch *= topology.lane_pairs
    replaced = stand_in if spec.backend is None else None
    backend = spec.backend or (replaced.backend if replaced else DEFAULT_BACKENDS[path])
    blocks, notes = _blocks(spec, room, geometry, batch, pairs, spec.threads * topology.lanes, on_file=on_file)
    in_memory = on_file and room.host.folder is not None and room.host.folder.in_memory
    if in_memory:
        notes += ("the files are in memory: no disk is measured · fix: give a folder on a disk with --folder",)
    direct, why = _direct(spec, room, geometry, pairs) if on_file else (None, ())
    if backend == "UCX" and error_handling(spec, path) == "peer" and plugins.uses_device(path) and not between:
        notes += ("with --error-handling peer, UCX can't copy by CUDA within one process: bytes go over TCP",)
    return Trial(
        index=index,
        path=path,
        backend=backend,
        api=(spec.api or "AIO") if backend.removeprefix(plugins.STAGED) == "POSIX" else None,
        direct=direct,
        geometry=geometry,
        batch=batch,
        blocks=blocks,
        threads=spec.threads,
        topology=topology,
        files=spec.files if on_file else 1,
        pairs=pairs,
        first_step=step,
        seconds=0.0,
        in_memory=in_memory,
        notes=(*notes, *why, *((replaced.why,) if replaced else ())),
    )


def _direct(
    spec: RunSpec, room: Room, geometry: Geometry, pairs: tuple[LayoutPair, ...]
) -> tuple[bool, tuple[str, ...]]:
    """Return whether to use O_DIRECT and, if `auto` resolves to no, a note that explains why."""
    if spec.direct != "auto":
        return spec.direct == "on", ()
    if room.direct is None:
        return False, ("buffered: the folder's filesystem doesn't support O_DIRECT",)
    if (piece := smallest_piece(geometry, pairs)) % room.direct:
        pieces = f"buffered: pieces of {exact_size_text(piece)}"
        return False, (f"{pieces} are not a multiple of {size_text(room.direct)}, which O_DIRECT needs",)
    return True, ()


def smallest_piece(geometry: Geometry, pairs: tuple[LayoutPair, ...]) -> int:
    """Return the size in bytes of the smallest descriptor of the given layouts."""
    fine = any(pair.descriptors_per_block(geometry) > 1 for pair in pairs)
    return geometry.region_bytes if fine else geometry.block_bytes


def _blocks(spec: RunSpec, room: Room, geometry: Geometry, batch: int, pairs: tuple[LayoutPair, ...],
            lanes: int, *, on_file: bool) -> tuple[int, tuple[str, ...]]:  # fmt: skip
    """Return the blocks in the working set, and notes about it.

    The number is a multiple of whole requests on every initiator and file; by default the working set is larger than
    the last-level cache, if memory and disk allow.
    """
    unit = math.lcm(batch, spec.files if on_file else 1) * lanes
    if spec.blocks is not None:
        blocks = -(-spec.blocks // unit) * unit
        grown = f"from {count_text(spec.blocks)} to {many(blocks, 'block')}"
        rounded = (f"working set rounded up {grown}: whole requests on every initiator",)
        return blocks, rounded if blocks != spec.blocks else ()
    size = geometry.block_bytes
    wanted = max(room.cache * (2 if spec.effort == "quick" else 4), 64 << 20)
    most = min(room.memory // 16, room.disk // 8) if on_file else room.memory // 16
    finest = max(pair.descriptors_per_block(geometry) for pair in pairs)
    count = min(-(-wanted // size), max(most // size, 1), _DESCRIPTORS_KEPT // finest)
    blocks = max(2 * unit if count >= 2 * unit else unit, count // unit * unit)
    if blocks * size <= room.cache:
        return blocks, (
            f"the working set of {size_text(blocks * size)} fits into the last-level cache of {size_text(room.cache)}",
        )
    return blocks, ()
