"""Execution of a run: open the initiators of each trial, measure, report results; report and skip failed trials."""

from __future__ import annotations

import dataclasses
import errno
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kvdeck.engine.host.nics import nics
from kvdeck.engine.io import plugins, reasons
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.io.pages import all_huge
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.ranks.initiator_setup import COMPLETION_SECONDS, LaneSetup, SharedTarget
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.topology import Topology
from kvdeck.engine.transfer.needs import check_room, needs_of
from kvdeck.engine.transfer.peer_gpus import check_path, gpu_of, nearest_gpu
from kvdeck.engine.transfer.trial import CACHE_DROPPED, TrialProgress, TrialRun, page_cache, without_result
from kvdeck.engine.transfer.trials import (
    DIRECT_ALIGNMENT,
    Room,
    Trial,
    between_processes,
    error_handling,
    smallest_piece,
)
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UnavailableError
from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.events import Event
from kvdeck.sessions.units import exact_size_text, size_text

QUICK_SECONDS = 7.5
"""All trials of a quick run together, so that the whole command ends within ten seconds: 1.5 s are the engine's start,
the loading of NIXL and the report."""
_BEYOND_SECONDS = 1.2
"""What a trial takes beyond its rounds, until one has been measured: opening, warm-up, verification, closing."""
_LEAST_SECONDS = 0.3
_NO_MATTER = ("NIXL_LOG_LEVEL", "UCX_LOG_LEVEL", "CUFILE_LOGFILE_PATH")  # no effect on results


def execute(
    planned: tuple[tuple[RunSpec, Trial], ...],
    room: Room,
    folder: str,
    emit: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> records.RunState:
    """Measure every trial with its spec; return `done`, `failed` if a step failed, or `cancelled`.

    A path that can't run here counts as failed only if the spec names its paths.

    Raises:
        RunFailedError: A rank is lost, or the session can't be written: no further step can be measured.
    """
    progress = TrialProgress(emit, cancelled, total_seconds=sum(trial.seconds for _, trial in planned) or 1.0)
    state: records.RunState = "done"
    for spec, trial in planned:  # report paths that can't run at once, not when their turn comes
        refusal = _refusal(trial, room, folder)
        if refusal is not None:
            _tell_none(spec, trial, emit, "unavailable", refusal)
            state = state if spec.paths is None else "failed"
    able = [(spec, trial) for spec, trial in planned if _refusal(trial, room, folder) is None]
    run_began = time.monotonic()
    for index, (spec, trial) in enumerate(able):
        if cancelled():
            _tell_none(spec, trial, emit, "cancelled", "not run")
            state = "cancelled"
            continue
        progress.trials_left = len(able) - index - 1
        began = time.monotonic()
        paced = paced_seconds(spec, trial.seconds, began - run_began, progress)
        progress.total_seconds -= trial.seconds - paced
        trial = dataclasses.replace(trial, seconds=paced)
        outcome = _take(spec, trial, room, folder, progress)
        progress.overheads.append(max(0.0, time.monotonic() - began - trial.seconds))
        progress.done_seconds += trial.seconds
        if outcome == "cancelled" or (outcome == "failed" and state == "done"):
            state = outcome
    return state


def paced_seconds(spec: RunSpec, planned: float, gone: float, progress: TrialProgress) -> float:
    """Return the seconds of the next trial: as planned, but a quick run keeps to `QUICK_SECONDS` on a slow host too.

    Args:
        spec: The run; what it says of its length goes first.
        planned: The trial's share of the effort's time.
        gone: Seconds since the first trial began.
        progress: Of the trials so far, which tell what each takes beyond its rounds.
    """
    if spec.effort != "quick" or spec.seconds is not None or spec.iterations is not None:
        return planned
    beyond = statistics.fmean(progress.overheads) if progress.overheads else _BEYOND_SECONDS
    each = (QUICK_SECONDS - gone) / (progress.trials_left + 1) - beyond
    return min(planned, max(_LEAST_SECONDS, each))


def _refusal(trial: Trial, room: Room, folder: str) -> str | None:
    """Return why a trial's path can't run here with its backend; None if it can."""
    try:
        check_path(trial, room, Path(folder))
    except UnavailableError as error:
        return str(error)
    return None


def _take(spec: RunSpec, trial: Trial, room: Room, folder: str, progress: TrialProgress) -> records.RunState:
    """Measure one trial and emit its results; return its state."""
    emit = progress.emit
    for note in trial.notes:
        emit(events.Logged(time.monotonic_ns(), "info", f"{trial.path}: {note}"))
    crew: Crew | None = None
    run: TrialRun | None = None
    try:
        check_trial(spec, trial, room, folder)
        setups = lane_setups(spec, trial, room, folder)
        crew = Crew(setups, progress.cancelled, room.peers)
        run = TrialRun(spec, trial, crew, progress, room.peers)
        run.measure()
    except CancelledError:
        _tell_cancelled(spec, trial, run, emit)
        return "cancelled"
    except UnavailableError as error:
        _tell_none(spec, trial, emit, "unavailable", str(error))
        return "done" if spec.paths is None else "failed"
    except RunFailedError:
        raise
    except Exception as error:  # NIXL raises arbitrary types; one trial's failure must not end the run
        reason = _reason_of(error, trial, folder)
        emit(events.Logged(time.monotonic_ns(), "error", f"{trial.path}: {reason}"))
        _tell_none(spec, trial, emit, "failed", reason)
        return "failed"
    finally:
        if crew is not None:
            _close(crew, trial, emit)
    results = run.results(settings_of(spec, trial, setups[0], room, run.pages))
    for result in results:
        if result.status == "suspect":
            emit(events.Logged(time.monotonic_ns(), "warning", f"{trial.path} {result.layout}: {result.reason}"))
    for result in results:
        emit(events.StepFinished(time.monotonic_ns(), result))
    for comparison in run.comparisons():
        emit(events.Compared(time.monotonic_ns(), comparison))
    return "failed" if any(result.status in ("failed", "suspect") for result in results) else "done"


def _reason_of(error: Exception, trial: Trial, folder: str) -> str:
    """Return why a trial failed, as a message with a fix if one is known."""
    base = str(Path(folder).parent)
    if isinstance(error, OSError) and (full := reasons.no_room(base, error)) is not None:
        return str(full)
    if isinstance(error, KvdeckError):
        return str(error)
    text = str(error) or type(error).__name__
    if trial.path in records.FILE_PATHS and _is_full(folder, trial):  # NIXL doesn't pass on the kernel's error code
        return f"{text}: {reasons.no_room(base, OSError(errno.ENOSPC, ''))}"
    return str(reasons.step_failed(trial.backend, text))


def _is_full(folder: str, trial: Trial) -> bool:
    """True if the folder's disk has less free space than one block; False if it can't be read."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < trial.geometry.block_bytes


def _close(crew: Crew, trial: Trial, emit: Callable[[Event], None]) -> None:
    try:
        crew.close()
    except Exception as error:  # the results are still valid
        emit(events.Logged(time.monotonic_ns(), "warning", f"{trial.path}: freeing memory failed: {error}"))


def _tell_cancelled(spec: RunSpec, trial: Trial, run: TrialRun | None, emit: Callable[[Event], None]) -> None:
    measured = run.results({}, cancelled=True) if run else []
    for result in measured:
        emit(events.StepFinished(time.monotonic_ns(), result))
    for plan in trial.steps[len(measured) :]:
        result = without_result(plan, spec, "cancelled", "not run")
        emit(events.StepFinished(time.monotonic_ns(), result))


def _tell_none(
    spec: RunSpec, trial: Trial, emit: Callable[[Event], None], status: records.ResultStatus, reason: str
) -> None:
    for plan in trial.steps:
        emit(events.StepFinished(time.monotonic_ns(), without_result(plan, spec, status, reason)))


def check_trial(spec: RunSpec, trial: Trial, room: Room, folder: str) -> None:
    """Check a trial before anything is allocated.

    Raises:
        KvdeckError: O_DIRECT is required but not supported, sizes don't suit it, or the needs exceed this host.
    """
    if trial.direct and room.direct is None and room.host.folder is not None:
        refusal = reasons.no_direct(str(Path(folder).parent), room.host.folder.filesystem)
        raise KvdeckError(refusal.what, refusal.fix)
    alignment = room.direct or DIRECT_ALIGNMENT
    piece = smallest_piece(trial.geometry, trial.pairs)
    if trial.direct and piece % alignment:
        raise KvdeckError(
            f"pieces of {exact_size_text(piece)} are not a multiple of {size_text(alignment)}, which O_DIRECT needs",
            "choose a geometry with aligned regions, or --no-direct",
        )
    try:
        check_room(needs_of(spec, trial), room.host)
    except UnavailableError as error:  # the path itself can run; only this run doesn't fit
        raise KvdeckError(error.what, error.fix) from error


def backend_params(spec: RunSpec, trial: Trial) -> dict[str, str]:
    """Return the plugin's parameters: those derived from settings, overridden by the spec's `params`."""
    params: dict[str, str] = {}
    if trial.backend == "UCX":
        params["ucx_error_handling_mode"] = error_handling(spec, trial.path)
    if trial.api is not None:
        params |= {name: str(api == trial.api).lower() for api, name in plugins.POSIX_PARAMS.items()}
    return params | spec.params


def lane_setups(spec: RunSpec, trial: Trial, room: Room, folder: str) -> list[LaneSetup]:
    """Return one setup per initiator process, with its share of the working set and, if there are enough, a core."""
    two = between_processes(spec, trial.path)
    reads = trial.path in ("DiskToHost", "DiskToDevice")
    pulls = trial.path in (records.HOST_TO_HOST, records.DEVICE_TO_DEVICE)
    topology = trial.topology
    setup = dict[str, Any](
        path=trial.path,
        backend=trial.backend,
        backend_params=backend_params(spec, trial),
        geometry=trial.geometry,
        blocks=trial.blocks // trial.lanes,
        folder=folder,
        files=trial.files,
        direct=bool(trial.direct),
        durable=spec.durable and trial.path in ("HostToDisk", "DeviceToDisk"),
        drop_cache=page_cache(trial, spec) == CACHE_DROPPED,
        huge_pages=spec.huge_pages,
        progress_thread=spec.progress_thread,
        notify=spec.notify,
        two_processes=two,
        operation=spec.operation if pulls else "READ" if reads else "WRITE",
        reference=spec.reference and spec.peer is None,
        stream=spec.reference and spec.peer is not None,
        yields=_yields(spec, trial, room, two),
        devices=topology.own_devices,
        pairs=topology.lane_pairs,
        gpu=nearest_gpu(room.host.gpu.gpus, nics()) if spec.peer is not None else 0,
        targets=topology.lane_targets,
        target_devices=topology.target_devices,
        patience_s=spec.peer_timeout if spec.peer else COMPLETION_SECONDS,
    )
    size = trial.blocks // trial.lanes * trial.geometry.block_bytes
    return [
        LaneSetup(
            **setup,
            cores=_cores(spec, room, lane, two, topology),
            position=lane * size,
            shared=_shared(spec, room, trial.path, lane, size, topology) if two else (),
        )
        for lane in range(trial.lanes)
    ]


def _shared(spec: RunSpec, room: Room, path: str, lane: int, size: int, topology: Topology) -> tuple[SharedTarget, ...]:
    """Return the targets that rank 0 opens for an initiator: a shared one, and all that are on a peer.

    Each initiator moves `size` bytes.
    """
    sharers, count = topology.sharers, topology.lane_targets
    if sharers == 1 and spec.peer is None:
        return ()
    group, on_gpu = lane // sharers, path == records.DEVICE_TO_DEVICE
    return tuple(
        SharedTarget(
            group * count + number,
            sharers,
            lane % sharers,
            position=group * sharers * size + number * size // count,
            cores=() if spec.peer is None else _cores_there(spec, room, group * count + number, topology),
            gpu=gpu_of(room.peers[(group * count + number) % len(room.peers)]) if on_gpu else None,
        )
        for number in range(count)
    )


Cores = tuple[int, ...]


def _cores(spec: RunSpec, room: Room, lane: int, two: bool, topology: Topology) -> tuple[Cores, Cores]:
    """Return the cores of an initiator and of its targets: one per process, or all cores if unpinned or too few."""
    cores = room.cores
    if spec.peer is not None:
        return _cores_between(spec, room, lane, topology)
    lanes, targets = _sides(spec, two, topology)
    if not spec.pin or len(cores) < max(2, lanes + targets):
        return cores, cores
    if targets in (0, lanes):  # put each pair on adjacent cores, which share a cache
        width = 2 if targets else 1
        return (cores[lane * width],), (cores[lane * width + width - 1],)
    first = lanes + lane // topology.sharers * topology.lane_targets
    return (cores[lane],), cores[first : first + topology.lane_targets]


def _cores_between(spec: RunSpec, room: Room, lane: int, topology: Topology) -> tuple[Cores, Cores]:
    """Return the cores of an initiator here, and those of its first target on its peer."""
    lanes, own = spec.threads * topology.lanes, room.cores
    first = lane // topology.sharers * topology.lane_targets
    return (own[lane],) if spec.pin and len(own) >= lanes else own, _cores_there(spec, room, first, topology)


def _cores_there(spec: RunSpec, room: Room, number: int, topology: Topology) -> Cores:
    """Return the cores of a target on its peer: of the peer's last cores, one for each of its targets."""
    there = tuple(room.peers[number % len(room.peers)].greeting["cores"])
    most = -(-_sides(spec, True, topology)[1] // len(room.peers))
    return (there[-1 - number // len(room.peers)],) if spec.pin and len(there) >= most else there


def _sides(spec: RunSpec, two: bool, topology: Topology) -> tuple[int, int]:
    """Return the number of initiator processes and of target processes."""
    lanes = spec.threads * topology.lanes
    return lanes, lanes * topology.lane_targets // topology.sharers if two else 0


def shared_cores(spec: RunSpec, room: Room, two: bool, topology: Topology) -> tuple[bool, bool]:
    """Return whether an initiator, and whether a target, may run on a core of another process of the trial."""
    lanes, targets = _sides(spec, two, topology)
    if spec.peer is None:
        shared = lanes + targets > 1 and (not spec.pin or len(room.cores) < lanes + targets)
        return shared, shared
    own = [set(_cores_between(spec, room, lane, topology)[0]) for lane in range(lanes)]
    there: dict[int, list[set[int]]] = {}
    for number in range(targets):
        there.setdefault(number % len(room.peers), []).append(set(_cores_there(spec, room, number, topology)))
    here = [side for place, sides in there.items() if not room.peers[place].elsewhere for side in sides]
    on_this = _overlap([*own, *here])
    return on_this, (on_this and bool(here)) or any(_overlap(sides) for sides in there.values())


def _overlap(sides: Sequence[set[int]]) -> bool:
    return any(one & other for place, one in enumerate(sides) for other in sides[:place])


def _yields(spec: RunSpec, trial: Trial, room: Room, two: bool) -> tuple[bool, bool]:
    """Return whether initiators and targets give way while they poll: to another side, or to threads of a library."""
    own, far = shared_cores(spec, room, two, trial.topology)
    helped = spec.progress_thread or "num_threads" in spec.params
    alone = trial.path not in records.FILE_PATHS or trial.api == "AIO" or (trial.api == "URING" and trial.direct)
    return own or helped or not alone, far or helped


def settings_of(spec: RunSpec, trial: Trial, setup: LaneSetup, room: Room, pages: Sequence[str]) -> dict[str, Any]:
    """Return the other settings that affect a trial's results, with the values used rather than requested."""
    on_file = trial.path in records.FILE_PATHS
    return {
        "threads": trial.threads,
        "pipeline_depth": spec.pipeline_depth,
        "files": trial.files if on_file else None,
        "huge_pages": all_huge(pages) if pages else spec.huge_pages,
        "pages": pages,
        "error_handling": error_handling(spec, trial.path) if trial.backend == "UCX" else None,
        "progress_thread": spec.progress_thread,
        "notify": setup.notify and setup.two_processes,
        "processes": (trial.topology.processes if setup.two_processes else 1) * trial.threads,
        "operation": setup.operation,
        **({"shared_cores": True} if any(shared_cores(spec, room, setup.two_processes, trial.topology)) else {}),
        **(
            {"gpus": [setup.gpu, *(one.gpu for one in setup.shared)]}
            if setup.shared and setup.shared[0].gpu is not None
            else {}
        ),
        "cores": [list(cores) for cores in setup.cores[: 2 if setup.two_processes else 1]],
        "params": setup.backend_params,
        **_scheme_settings(trial),
        "environment": {
            key: value
            for key, value in os.environ.items()
            if key.startswith(("UCX_", "NIXL_", "CUFILE_")) and key not in _NO_MATTER
        },
    }


def _scheme_settings(trial: Trial) -> dict[str, Any]:
    """Return how several devices were paired; {} for the plain topology."""
    topology = trial.topology
    if topology.plain:
        return {}
    return {
        "scheme": {
            **dataclasses.asdict(topology),
            "pairs": topology.pairs,
            "lanes": topology.lanes,
            "batch": trial.batch // topology.lane_pairs,
            "device": "a region of host memory, registered under a number of its own",
        }
    }
