"""Tuning: finds settings that are faster on this host, by heats of two settings that are opened anew each time.

Rounds of one opening are not independent: which pages the memory got decides a disk's rate by a factor of three, and
stays until the memory is freed. So a setting raced against itself in one opening can win every round. A heat is one
opening of both settings and counts once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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

HEATS = 8
"""Heats of a race. All on one side happens by chance in one of 128 races."""
SCREENING_HEATS = 2
WORTH = 0.97
"""A setting whose time ratio may not even reach this is not raced: what it gives isn't worth a change."""
ALPHA = 0.025
"""Chance that some setting without effect is taken, over all that are raced at once."""
_LAPS = 4
"""Turns A B B A of a heat."""
_VISIT_SECONDS = 0.02

Change = dict[str, Any]
"""Fields of a RunSpec to replace; `params` is merged."""


@dataclass(slots=True)
class Contest:
    """A setting in the race against the best so far."""

    change: Change
    spec: RunSpec
    """The best spec with the change."""
    screened: list[float] = field(default_factory=list)
    """Logarithms of the time ratio, one per heat."""
    raced: list[float] = field(default_factory=list)
    """The same, of fresh heats after the screening: only these decide."""

    @property
    def ratio(self) -> Interval:
        """Time ratio to the best so far, from the fresh heats if there are any."""
        return ratio_of(self.raced or self.screened)


def tune(
    spec: RunSpec,
    path: str,
    room: Room,
    folder: str,
    emit: Callable[[events.Event], None],
    cancelled: Callable[[], bool],
) -> RunSpec:
    """Race settings against the best spec so far, adopt those that win, and emit what each gave.

    Each turn screens all settings left, races those that may be faster in fresh heats, and adopts the fastest winner.
    The other winners race again, against the new best.

    Returns:
        The spec with the best settings for this path.

    Raises:
        CancelledError: The run was cancelled.
        RunFailedError: A rank is lost, or the session can't be written.
    """
    best = dataclasses.replace(spec, paths=(path,))
    races = _Races(path, room, folder, emit, cancelled)
    left = list(candidates(best, path, room))
    while left:
        contests = [
            contest for change in left if races.screens(contest := Contest(change, changed(best, change)), best)
        ]
        hopeful = [contest for contest in contests if contest.ratio.low <= WORTH]
        winners = races.winners(hopeful, best)
        first = min(winners, key=lambda contest: contest.ratio.median, default=None)
        again = [contest for contest in winners if first is not None and contest.change.keys() != first.change.keys()]
        for contest in contests:
            if contest is first or contest not in again:
                emit(_tuned(path, contest, chosen=contest is first))
        if first is None:
            break
        best, left = first.spec, [contest.change for contest in again]
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
        # Between hosts, an initiator that only waits would never learn of a dead peer without it.
        if error_handling(spec, path) == "peer" and spec.peer is None and spec.backend in (None, "UCX"):
            yield {"error_handling": "none"}
        if spec.pin and len(room.cores) >= 2:
            yield {"pin": False}
    if spec.pipeline_depth == 1:
        yield {"pipeline_depth": 4}
    here = between_processes(spec, path) and not spec.peer
    lanes = len(room.cores) // (2 if here else 1)
    if spec.threads == 1:
        yield from ({"threads": count} for count in (2, 4, 8) if count <= lanes)


def changed(spec: RunSpec, change: Change) -> RunSpec:
    """Return the spec with a change; plugin parameters are merged."""
    return dataclasses.replace(spec, **{**change, "params": spec.params | change.get("params", {})})


def change_text(change: Change) -> str:
    """Return a change as `key=value`, several apart by commas."""
    named = {key: value for key, value in change.items() if key != "params"} | change.get("params", {})
    return ", ".join(f"{key}={value}" for key, value in named.items())


def _tuned(path: str, contest: Contest, *, chosen: bool) -> events.SettingTuned:
    name, _, value = change_text(contest.change).partition("=")
    ratio, heats = contest.ratio, len(contest.raced or contest.screened)
    return events.SettingTuned(
        time.monotonic_ns(), path, name, value, ratio.median, ratio.low, ratio.high, chosen, heats
    )


@dataclass(frozen=True, slots=True)
class _Races:
    """The races of one path on this host."""

    path: str
    room: Room
    folder: str
    emit: Callable[[events.Event], None]
    cancelled: Callable[[], bool]

    def screens(self, contest: Contest, best: RunSpec) -> bool:
        """Race a setting in the heats of its screening; False if this host refuses it."""
        return all(self._runs(contest, contest.screened, best) for _ in range(SCREENING_HEATS))

    def winners(self, hopeful: Sequence[Contest], best: RunSpec) -> list[Contest]:
        """Race each setting in fresh heats; return those that are faster, corrected for their number."""
        count = heats_for(len(hopeful))
        for contest in hopeful:
            while len(contest.raced) < count and _may_win(contest.raced, count, len(hopeful)):
                if not self._runs(contest, contest.raced, best):
                    break
        chances = [stats.sign_chance(contest.raced) if len(contest.raced) == count else 1.0 for contest in hopeful]
        kept = stats.holm(chances, ALPHA)
        return [contest for contest, wins in zip(hopeful, kept, strict=True) if wins and contest.ratio.low <= WORTH]

    def _runs(self, contest: Contest, heats: list[float], best: RunSpec) -> bool:
        """Add a heat to `heats`; log it and return False if this host refuses the setting, for good or just now.

        Raises:
            CancelledError: The run was cancelled.
            RunFailedError: A rank is lost.
        """
        try:
            heats.append(heat(best, contest.spec, len(heats), self.room, self.folder, self.cancelled))
        except (CancelledError, RunFailedError):
            raise
        except Exception as error:  # a setting that this host refuses must not end the run
            words = f"{self.path}: {change_text(contest.change)} can't be used: {error}"
            self.emit(events.Logged(time.monotonic_ns(), "warning", words))
            return False
        return True


def heats_for(settings: int) -> int:
    """Return the heats after which all on one side is no chance, though so many settings race at once."""
    return max(HEATS, math.ceil(math.log2(max(settings, 1) / ALPHA)))


def _may_win(raced: Sequence[float], count: int, settings: int) -> bool:
    """False if the setting can't win any more, though all heats left went its way."""
    best = [*raced, *([-1.0] * (count - len(raced)))]
    return stats.sign_chance(best) <= ALPHA / settings


def race(now: RunSpec, then: RunSpec, room: Room, folder: str, cancelled: Callable[[], bool]) -> Interval:
    """Return the time ratio `then` / `now` for the same bytes, over all layouts together, with its interval."""
    return ratio_of([heat(now, then, number, room, folder, cancelled) for number in range(HEATS)])


def ratio_of(heats: Sequence[float]) -> Interval:
    """Return the time ratio of one heat or more, given as logarithms, with the interval of its median."""
    found = stats.median_interval(heats)
    assert found is not None
    return Interval(math.exp(found.median), math.exp(found.low), math.exp(found.high))


def heat(now: RunSpec, then: RunSpec, number: int, room: Room, folder: str, cancelled: Callable[[], bool]) -> float:
    """Open both settings, visit them in turns A B B A, and return the logarithm of the time ratio `then` / `now`.

    Args:
        now: The setting to beat.
        then: The other setting.
        number: Of the heat in its race; settings take turns in being opened first, which gets the better memory.
        room: Resources of this host.
        folder: For test files.
        cancelled: Tells whether to stop.

    Raises:
        CancelledError: The run was cancelled.
        RunFailedError: A rank is lost.
    """
    crews: dict[int, tuple[Crew, Trial]] = {}
    order = (0, 1) if number % 2 == 0 else (1, 0)
    with contextlib.ExitStack() as opened:
        for which in order:
            if cancelled():
                raise CancelledError("cancelled while tuning")
            spec = dataclasses.replace((now, then)[which], reference=False, effort="quick")
            trial = plan_trials(spec, room)[0]
            crew = Crew(lane_setups(spec, trial, room, folder), cancelled, room.peers)
            opened.callback(crew.close)
            for plan in trial.steps:
                crew.prepare(plan.step, plan.layout, plan.batch, spec.pipeline_depth, spec.merge)
            crews[which] = crew, trial
        return _run_heat([crews[which] for which in order]) * (1 if order == (0, 1) else -1)


def _run_heat(crews: Sequence[tuple[Crew, Trial]]) -> float:
    """Return the logarithm of the second one's time over the first one's: the median of the turns A B B A."""
    for _ in range(2):  # the first lap is the warm-up
        slowest = max(_lap(crew, trial, 1) for crew, trial in crews)
    count = max(1, int(_VISIT_SECONDS / slowest))
    turns = []
    for _ in range(_LAPS):
        one, other, again, last = (_lap(*crews[which], count) for which in (0, 1, 1, 0))
        turns.append(math.log((other + again) / (one + last)))
    return statistics.median(turns)


def _lap(crew: Crew, trial: Trial, count: int) -> float:
    """Return seconds per request, summed over the trial's layouts; wall time over the requests of all initiators."""
    crew.attend(True)
    seconds = 0.0
    for plan in trial.steps:
        visit = crew.visit(plan.step, count)
        seconds += (visit.end_ns - visit.start_ns) / 1e9 / len(visit.post_ns)
    crew.attend(False)
    return seconds
