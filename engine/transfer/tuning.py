"""Tuning: compares one setting after another in short interleaved races on this host."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.ranks.group import Crew
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer.run import lane_setups
from kvdeck.engine.transfer.trials import Room, Trial, between_processes, error_handling, plan_trials
from kvdeck.sessions import stats
from kvdeck.sessions.errors import RunFailedError
from kvdeck.sessions.model import events
from kvdeck.sessions.model.records import Interval

_ROUNDS = 12
_RACE_SECONDS = 1.2
_VISIT_SECONDS = 0.02

Change = dict[str, Any]
"""Fields of a RunSpec to replace; `params` is merged."""


def tune(
    spec: RunSpec,
    path: str,
    room: Room,
    folder: str,
    emit: Callable[[events.Event], None],
    cancelled: Callable[[], bool],
) -> RunSpec:
    """Race each setting against the best spec so far, adopt it if its whole interval is faster, and emit the result.

    Returns:
        The spec with the best settings for this path.

    Raises:
        CancelledError: The run was cancelled.
        RunFailedError: A rank is lost, or the session can't be written.
    """
    best = dataclasses.replace(spec, paths=(path,))
    for change in candidates(best, path, room):
        if cancelled():
            raise CancelledError("cancelled while tuning")
        text = ", ".join(f"{key}={value}" for key, value in change.items() if key != "params")
        text = ", ".join(part for part in (text, *(f"{k}={v}" for k, v in change.get("params", {}).items())) if part)
        name, _, value = text.partition("=")
        changed = dataclasses.replace(best, **{**change, "params": best.params | change.get("params", {})})
        try:
            ratio = race(best, changed, room, folder, cancelled)
        except (CancelledError, RunFailedError):
            raise
        except Exception as error:  # a setting that this host refuses must not end the run
            emit(events.Logged(time.monotonic_ns(), "warning", f"{path}: {text} can't be used: {error}"))
            continue
        chosen = ratio.high < 1
        emit(events.SettingTuned(time.monotonic_ns(), path, name, value, ratio.median, ratio.low, ratio.high, chosen))
        if chosen:
            best = changed
    return best


def candidates(spec: RunSpec, path: str, room: Room) -> Iterator[Change]:
    """Yield settings to try on a path; skip those that the spec already fixes.

    Buffered writes aren't tried against O_DIRECT: they would win only because write-back happens later.
    """
    if not spec.huge_pages:
        yield {"huge_pages": True}
    if path in ("HostToDisk", "DiskToHost") and spec.backend in (None, "POSIX"):
        if spec.api is None:
            yield {"api": "URING"}
            yield {"api": "POSIXAIO"}
        if "kernel_queue_size" not in spec.params:
            yield {"params": {"kernel_queue_size": "1024"}}
        if path == "DiskToHost" and spec.direct == "auto" and room.direct:
            yield {"direct": "off"}
    elif path == "HostToHost":
        if error_handling(spec, path) == "peer" and spec.backend in (None, "UCX"):
            yield {"error_handling": "none"}
        if spec.pin and len(room.cores) >= 2:
            yield {"pin": False}
    if spec.pipeline_depth == 1:
        yield {"pipeline_depth": 4}
    here = between_processes(spec, path) and not spec.peer
    lanes = len(room.cores) // (2 if here else 1)
    if spec.threads == 1:
        yield from ({"threads": count} for count in (2, 4, 8) if count <= lanes)


def race(now: RunSpec, then: RunSpec, room: Room, folder: str, cancelled: Callable[[], bool]) -> Interval:
    """Return the time ratio `then` / `now` for the same bytes, over all layouts together, with its interval."""
    crews: list[tuple[Crew, Trial]] = []
    with contextlib.ExitStack() as opened:
        for spec in (now, then):
            trial = plan_trials(dataclasses.replace(spec, reference=False, effort="quick"), room)[0]
            crew = Crew(
                lane_setups(dataclasses.replace(spec, reference=False), trial, room, folder), cancelled, room.peers
            )
            opened.callback(crew.close)
            for plan in trial.steps:
                crew.prepare(plan.step, plan.layout, plan.batch, spec.pipeline_depth, spec.merge)
            crews.append((crew, trial))
        return _run_race(crews)


def _run_race(crews: list[tuple[Crew, Trial]]) -> Interval:
    slowest = max(_lap(crew, trial, 1) for crew, trial in crews)
    slowest = max(_lap(crew, trial, 1) for crew, trial in crews)  # again: the first lap is the warm-up
    count = max(1, int(_VISIT_SECONDS / slowest))
    times: list[list[float]] = [[], []]
    deadline = time.monotonic() + _RACE_SECONDS
    number = 0
    while number < stats.LEAST_ROUNDS or (number < _ROUNDS and time.monotonic() < deadline):
        for index in (0, 1) if number % 2 == 0 else (1, 0):
            times[index].append(_lap(*crews[index], count))
        number += 1
    ratio = stats.paired_ratio(times[0], times[1])
    assert ratio is not None
    return ratio


def _lap(crew: Crew, trial: Trial, count: int) -> float:
    """Return seconds per request, summed over the trial's layouts; wall time over the requests of all initiators."""
    crew.attend(True)
    seconds = 0.0
    for plan in trial.steps:
        visit = crew.visit(plan.step, count)
        seconds += (visit.end_ns - visit.start_ns) / 1e9 / len(visit.post_ns)
    crew.attend(False)
    return seconds
