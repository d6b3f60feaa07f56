"""Measurement of one trial: layouts and reference in turn, A B R R B A …, until a time, count or interval limit."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType
from msgspec.structs import asdict

from kvdeck.engine.host.nics import nics
from kvdeck.engine.io.loop import CancelledError, Visit
from kvdeck.engine.io.pages import all_huge
from kvdeck.engine.ranks.group import Crew, PeerLink, Prepared
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer.link import LinkWatch, to_settings
from kvdeck.engine.transfer.trials import Trial
from kvdeck.sessions import stats
from kvdeck.sessions.model import events, records
from kvdeck.sessions.model.disturbance import Disturbance, disturbance_of
from kvdeck.sessions.model.records import FILE_PATHS, HOST_TO_HOST, Comparison, Interval, StepPlan, StepResult
from kvdeck.sessions.model.references import IO_SUBMIT

_VISIT_SECONDS = 0.02
_MOST_SAMPLES = 60_000  # of one step, if the spec sets neither count nor time
_LEAST_ROUNDS = 16  # before an interval's width may end the trial
_MOST_ROUNDS = 400
_LIVE_SECONDS = 0.2  # between two updates of a step's summaries
_PLAIN_ROUNDS = 7
_ENOUGH_WIDTH = 0.01  # of the interval, as a fraction of its median


@dataclass(slots=True)
class TrialProgress:
    """Progress of the whole run, updated by `run.execute` between trials."""

    emit: Callable[[events.Event], None]
    cancelled: Callable[[], bool]
    total_seconds: float = 1.0
    """Expected time of all trials together."""
    done_seconds: float = 0.0
    """Expected time of the finished trials."""
    plain_paths: set[str] = field(default_factory=set)
    """Paths on which memory on plain pages was measured."""
    trials_left: int = 0
    """Number of trials after the current one."""
    overheads: list[float] = field(default_factory=list)
    """Seconds that each finished trial took beyond its rounds: opening, warm-up, verification."""

    def state(self, share: float, trial_seconds: float) -> tuple[float, float]:
        """Return the fraction of the run done and the seconds left, overhead of later trials included.

        `share` is the part of the current trial that is done, 0 to 1.
        """
        done = self.done_seconds + share * trial_seconds
        overhead = statistics.fmean(self.overheads) if self.overheads else 0.0
        return done / self.total_seconds, self.total_seconds - done + overhead * self.trials_left


@dataclass(slots=True)
class _Step:
    """Measurements of one step so far; times in ns."""

    plan: StepPlan
    prepared: Prepared
    post: list[int] = field(default_factory=list)
    transfer: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    lane_busy: list[tuple[int, ...]] = field(default_factory=list)
    waits: list[tuple[int, int] | UnsetType] = field(default_factory=list)
    warmup: int = 0
    verified: bool | None = None
    wrong: str | None = None
    gauges: tuple[float | None, ...] = (None,) * 7
    ratio: Interval | None = None
    fresh: float = 0.0

    @property
    def seconds_per_request(self) -> list[float]:
        """Time per request in each round, over wall time; in ns, as only ratios are used."""
        return [busy / count for busy, count in zip(self.busy, self.counts, strict=True)]

    def take(self, visit: Visit) -> None:
        self.post += visit.post_ns
        self.transfer += visit.transfer_ns
        self.busy.append(visit.end_ns - visit.start_ns)
        self.counts.append(len(visit.post_ns))
        self.lane_busy.append(visit.lane_ns)
        self.waits.append(waits_of(visit))

    def disturbance(self) -> Disturbance | UnsetType:
        """Return how often and how long the sides waited for a core; unset if no round was disturbed by it."""
        return disturbance_of(zip(self.waits, self.busy, strict=True))

    def request_bytes(self) -> int:
        return self.plan.block_bytes * self.plan.batch

    def lane_rates(self) -> list[float]:
        """Return the median GB/s of each initiator by its own time, since ends differ; [] for a single initiator."""
        size, lanes = self.request_bytes(), len(self.lane_busy[0]) if self.lane_busy else 0
        return [
            round(statistics.median(
                count // lanes * size / busy[lane] for busy, count in zip(self.lane_busy, self.counts, strict=True)), 4)
            for lane in range(lanes)
        ] if lanes > 1 else []  # fmt: skip

    def walls(self) -> dict[str, Any]:
        """Return the wall time of all rounds in s, as a setting; with several initiators, also each one's own."""
        lanes = len(self.lane_busy[0]) if self.lane_busy else 0
        own = {"lanes_wall_s": [sum(busy[lane] for busy in self.lane_busy) / 1e9 for lane in range(lanes)]}
        return {"wall_s": sum(self.busy) / 1e9, **(own if lanes > 1 else {})}

    def rates(self) -> list[float]:
        """Return the GB/s of each round."""
        size = self.request_bytes()
        return [count * size / busy for busy, count in zip(self.busy, self.counts, strict=True)]


def waits_of(visit: Visit) -> tuple[int, int] | UnsetType:
    """Return a visit's waits for a core as a round's record holds them."""
    return UNSET if visit.waits_ns is None else visit.waits_ns


class TrialRun:
    """A running trial: its rank group, prepared steps and rounds so far."""

    def __init__(
        self, spec: RunSpec, trial: Trial, crew: Crew, progress: TrialProgress, peers: tuple[PeerHost, ...] = ()
    ) -> None:
        self._peers = peers
        self.spec, self.trial, self.crew, self.progress = spec, trial, crew, progress
        self.steps: list[_Step] = []
        self.reference_busy: list[int] = []
        self.reference_bytes: list[int] = []
        self.began = 0.0
        self.reference_name: str | None = None
        self.pages: list[str] = []
        self.links: dict[str, PeerLink] = {}
        self.plain_pages: float | None = None
        """GB/s of the limit with memory on plain pages; None if not measured."""
        self.link = (
            LinkWatch(peers, nics(), pushes=spec.operation == "WRITE" or trial.path != HOST_TO_HOST)
            if peers and all(peer.elsewhere for peer in peers)
            else None
        )

    def measure(self) -> None:
        """Prepare, warm up, visit in turn, and verify; measurements remain available after a cancellation.

        Raises:
            CancelledError: The run was cancelled.
        """
        self.reference_name, self.pages = self.crew.reference_name, self.crew.pages()
        self.links = self.crew.links()
        for plan in self.trial.steps:
            prepared = self.crew.prepare(plan.step, plan.layout, plan.batch, self.spec.pipeline_depth, self.spec.merge)
            self.steps.append(_Step(plan, prepared))
            self.progress.emit(events.StepStarted(time.monotonic_ns(), plan.step, self.reference_name))
        if self.link is not None:
            self.link.rest()
        self.crew.attend(True)
        try:
            self._rounds(self._warm_up())
        finally:
            self.crew.attend(False)
        if self.trial.path not in self.progress.plain_paths and self.pages and all_huge(self.pages):
            self.progress.plain_paths.add(self.trial.path)
            self._measure_plain_pages()
        if self.spec.verify:
            self._verify()

    def _warm_up(self) -> int:
        """Run every step until both warm-up count and time are reached; return the number of requests per visit."""
        quick = self.spec.effort == "quick"
        least = 8 if self.spec.warmup_iterations is None else self.spec.warmup_iterations
        seconds = (0.1 if quick else 0.25) if self.spec.warmup_seconds is None else self.spec.warmup_seconds
        slowest = 0.0
        for step in self.steps:
            begin, last = time.monotonic(), 0.01
            while step.warmup < max(least, 1) or time.monotonic() - begin < seconds:
                self._stop_if_cancelled()
                visit = self.crew.visit(step.plan.step, max(1, min(256, int(0.01 / last))))
                count = len(visit.post_ns)
                last = (visit.end_ns - visit.start_ns) / 1e9 / (count / self.trial.lanes)
                step.warmup += count
            slowest = max(slowest, last)
        if self.reference_name:
            self.crew.reference(self._group, 2, 0)
        return self._visit_count(slowest)

    def _visit_count(self, slowest: float) -> int:
        count = max(1, int(_VISIT_SECONDS / slowest))
        if self.spec.iterations is not None:  # at least eight rounds, where the count allows it
            count = max(1, min(count, -(-self.spec.iterations // self.trial.lanes // 8)))
        requests = self.trial.blocks // self.trial.lanes // self.trial.batch
        if self.trial.path in ("DiskToHost", "DiskToDevice") and not self.trial.direct:
            count = min(count, requests)  # don't read a page twice in one round: it would come from the page cache
        return count

    def _rounds(self, count: int) -> None:
        """Visit steps and reference in turn, reversing the order each round, with garbage collection disabled."""
        self.began = time.monotonic()
        turn: list[_Step | None] = [*self.steps, *([None] if self.reference_name else [])]
        number = 0
        gc.collect()
        gc.disable()
        try:
            while not self._enough(number):
                for member in turn if number % 2 == 0 else reversed(turn):
                    self._stop_if_cancelled()
                    if member is None:
                        self._visit_reference(number, count)
                    else:
                        self._visit(member, number, count)
                number += 1
        finally:
            gc.enable()

    def _stop_if_cancelled(self) -> None:
        if self.progress.cancelled():
            raise CancelledError("cancelled")

    def _visit(self, step: _Step, number: int, count: int) -> None:
        if self.spec.iterations is not None:
            left = self.spec.iterations - sum(step.counts)
            count = min(count, max(1, -(-left // self.trial.lanes)))
        if self.link is not None:
            self.link.begin()
        visit = self.crew.visit(step.plan.step, count)
        if self.link is not None:
            requests = len(visit.post_ns)
            self.link.end(step.plan.step, requests * step.request_bytes(), requests * step.prepared.descriptors)
        step.take(visit)
        self._refresh(step)
        self.progress.emit(
            events.Round(
                time.monotonic_ns(),
                step.plan.step,
                number,
                visit.post_ns,
                visit.transfer_ns,
                visit.end_ns - visit.start_ns,
                self._values(step, number),
                waits_of(visit),
            )
        )

    def _visit_reference(self, number: int, count: int) -> None:
        assert self.reference_name is not None
        busy, moved = self._reference_visit(number, count)
        self.reference_busy.append(busy)
        self.reference_bytes.append(moved)
        self.progress.emit(
            events.ReferenceRound(time.monotonic_ns(), self.trial.index, number, self.reference_name, moved, busy)
        )

    @property
    def _group(self) -> int:
        """Blocks that one initiator has in flight: those of a request times the pipeline's depth."""
        requests = self.trial.blocks // self.trial.lanes // self.trial.batch
        return self.trial.batch * min(self.spec.pipeline_depth, requests)

    def _reference_visit(self, number: int, count: int, plain: bool = False) -> tuple[int, int]:
        """Move about as many bytes as `count` requests by the reference; return its time in ns and the bytes."""
        groups = max(1, round(count * self.trial.batch / self._group))
        busy = self.crew.reference(self._group, groups, number * groups, plain)
        return busy, groups * self._group * self.trial.lanes * self.trial.geometry.block_bytes

    def _measure_plain_pages(self) -> None:
        """Measure what memory on plain pages gives to the limit of an O_DIRECT path; nothing on other paths."""
        if self.reference_name != IO_SUBMIT:
            return
        count = max(1, round(statistics.median(self.steps[0].counts) / self.trial.lanes))
        found = [self._reference_visit(number, count, plain=True) for number in range(_PLAIN_ROUNDS)]
        self.plain_pages = statistics.median(moved / busy for busy, moved in found[1:])  # the first warms up

    def _refresh(self, step: _Step) -> None:
        """Update the step's live summaries, at most every 0.2 s, which is enough for a display."""
        now = time.monotonic()
        if now - step.fresh < _LIVE_SECONDS and len(step.busy) > 1:
            return
        step.fresh = now
        post, transfer = np.array(step.post), np.array(step.transfer)
        request = np.percentile(post + transfer, (50, 90, 95, 99, 100))
        step.gauges = tuple(float(value) for value in (np.median(post), np.median(transfer), *request))
        first = self.steps[0]
        if step is not first and first.busy:
            step.ratio = stats.paired_ratio(first.seconds_per_request, step.seconds_per_request)

    def _values(self, step: _Step, number: int) -> tuple[float | None, ...]:
        iterations = sum(step.counts)
        blocks = iterations * step.plan.batch
        ratio = step.ratio
        fraction, eta = self.progress.state(self._share(number), self.trial.seconds)
        return (
            step.plan.step,
            number,
            iterations,
            blocks,
            blocks * step.plan.block_bytes,
            iterations * step.prepared.descriptors,
            sum(step.busy),
            *step.gauges,
            self.reference_rate(),
            ratio.median if ratio else None,
            ratio.low if ratio else None,
            ratio.high if ratio else None,
            round(fraction, 4),
            round(eta, 1),
        )

    def _share(self, number: int) -> float:
        """Return the part of this trial that is done, 0 to 1."""
        if self.spec.iterations is not None:
            return min(1.0, sum(self.steps[0].counts) / self.spec.iterations)
        return min(1.0, max((time.monotonic() - self.began) / self.trial.seconds, number / _MOST_ROUNDS))

    def _enough(self, rounds: int) -> bool:
        spec, elapsed = self.spec, time.monotonic() - self.began
        if spec.iterations is not None and all(sum(step.counts) >= spec.iterations for step in self.steps):
            return True
        if rounds < stats.LEAST_ROUNDS:
            return False
        if spec.seconds is not None and elapsed >= spec.seconds:
            return True
        if spec.interval_width is not None and rounds >= _LEAST_ROUNDS and self._width() <= spec.interval_width:
            return True
        if spec.iterations is not None or spec.seconds is not None:
            return False
        if elapsed >= self.trial.seconds or rounds >= _MOST_ROUNDS:
            return True
        settled = rounds >= _LEAST_ROUNDS and elapsed >= self.trial.seconds / 3
        return settled and (len(self.steps[0].post) >= _MOST_SAMPLES or self._width() <= _ENOUGH_WIDTH)

    def _width(self) -> float:
        """Return the widest interval of the steps' GB/s, as a fraction of its median."""
        found = [stats.median_interval(step.rates()) for step in self.steps]
        return max((one.high - one.low) / one.median for one in found if one)

    def _verify(self) -> None:
        for step in self.steps:
            self._stop_if_cancelled()
            step.wrong = self.crew.verify(step.plan.step, seed=1 + step.plan.step + 1000 * len(step.busy))
            step.verified = step.wrong is None

    def reference_rate(self) -> float | None:
        """Return the median GB/s of the reference's rounds; None without rounds."""
        pairs = zip(self.reference_bytes, self.reference_busy, strict=True)
        return statistics.median([moved / busy for moved, busy in pairs]) if self.reference_busy else None

    def results(self, settings: dict[str, Any], *, cancelled: bool = False) -> list[StepResult]:
        """Return a result for each prepared step."""
        return [self._result(step, settings, cancelled) for step in self.steps]

    def _result(self, step: _Step, settings: dict[str, Any], cancelled: bool) -> StepResult:
        rate, reference = stats.median_interval(step.rates()), self.reference_rate()
        iterations = sum(step.counts)
        use = None
        if self.link is not None:
            use = self.link.use(step.plan.step, rate.median if rate else None, self.links)
        doubt = use.doubt if use else None
        status: records.ResultStatus = (
            "cancelled" if cancelled else "failed" if step.wrong else "suspect" if doubt else "ok"
        )
        return StepResult(
            **asdict(step.plan),
            page_cache=page_cache(self.trial, self.spec),
            durable=self.spec.durable if self.trial.path in ("HostToDisk", "DeviceToDisk") else None,
            descriptors_per_request=step.prepared.descriptors,
            merged=self.spec.merge,
            iterations=iterations,
            warmup_iterations=step.warmup,
            bytes=iterations * step.request_bytes(),
            prep_us=stats.summarise(step.prepared.prep_ns),
            post_us=stats.summarise(step.post),
            transfer_us=stats.summarise(step.transfer),
            request_us=stats.summarise([a + b for a, b in zip(step.post, step.transfer, strict=True)]),
            gb_per_s=rate,
            reference_gb_per_s=reference,
            reference=self.reference_name,
            efficiency=rate.median / reference if rate and reference else None,
            verified=step.verified,
            status=status,
            reason="cancelled before it finished" if cancelled else step.wrong or doubt,
            disturbance=step.disturbance(),
            settings={
                **settings,
                "prep_lists_us": step.prepared.list_ns / 1e3,
                "rounds": len(step.busy),
                **({} if self.plain_pages is None else {"plain_pages_gb_per_s": round(self.plain_pages, 4)}),
                **step.walls(),
                **({"lanes_gb_per_s": lanes} if (lanes := step.lane_rates()) else {}),
                **(
                    {"peer": to_settings(use, self._peers, self.links, rate.median if rate else None, lanes)}
                    if self._peers
                    else {}
                ),
                **({"no_reference": self.crew.no_reference} if self.crew.no_reference else {}),
            },
        )

    def comparisons(self) -> list[Comparison]:
        """Return a comparison of each further layout with the trial's first."""
        first, found = self.steps[0], []
        for step in self.steps[1:]:
            ratio = stats.paired_ratio(first.seconds_per_request, step.seconds_per_request)
            if ratio is not None:
                plan = step.plan
                found.append(
                    Comparison(
                        trial=plan.trial,
                        path=plan.path,
                        baseline=first.plan.layout,
                        candidate=plan.layout,
                        block_bytes=plan.block_bytes,
                        batch=plan.batch,
                        ratio=ratio.median,
                        low=ratio.low,
                        high=ratio.high,
                        verdict=stats.verdict(ratio, min(len(first.busy), len(step.busy))),
                    )
                )
        return found


def without_result(plan: StepPlan, spec: RunSpec, status: records.ResultStatus, reason: str) -> StepResult:
    """Return the result of a step without measurements, with its status and reason."""
    return StepResult(
        **asdict(plan),
        page_cache=None,
        durable=None,
        descriptors_per_request=plan.descriptors_per_block * plan.batch,
        merged=spec.merge,
        iterations=0,
        warmup_iterations=0,
        bytes=0,
        prep_us=None,
        post_us=None,
        transfer_us=None,
        request_us=None,
        gb_per_s=None,
        reference_gb_per_s=None,
        reference=None,
        efficiency=None,
        verified=None,
        status=status,
        reason=reason,
    )


CACHE_DROPPED = "dropped before each round"


def page_cache(trial: Trial, spec: RunSpec) -> str | None:
    """Return the page cache's role: `bypassed`, `dropped before each round` or `in use`; None without files."""
    if trial.path not in FILE_PATHS:
        return None
    if trial.direct and not trial.in_memory:
        return "bypassed"
    reads = trial.path in ("DiskToHost", "DiskToDevice")
    return CACHE_DROPPED if reads and spec.page_cache == "drop" and not trial.in_memory else "in use"
