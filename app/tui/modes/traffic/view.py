"""A test's state, or the patterns of a file that wasn't measured, as the panes show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kvdeck.app.tui.modes.traffic.figures import PatternLine, RankRow, Stretch, TrafficView
from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.sessions.model.run_state import RunState
from kvdeck.sessions.model.traffic import PatternPlan, PatternResult, VisitRecord
from kvdeck.sessions.model.traffic_state import PatternState, TrafficState
from kvdeck.sessions.stats import percentile
from kvdeck.sessions.units import count_text, many, seconds_text, size_text, time_text


def config_view(config: TrafficConfig, about: str) -> TrafficView:
    """Return the view of patterns that aren't measured."""
    rows = tuple(
        PatternLine(number, one.matrix.total, operation=one.operation, shards=one.shards)
        for number, one in enumerate(config.patterns)
    )
    return TrafficView(about, rows)


def plan_config(traffic: TrafficState) -> TrafficConfig | None:
    """Return a test's patterns and counts, to be edited and measured again; None if it doesn't name its cells."""
    patterns = []
    for plan in (pattern.plan for pattern in traffic.patterns):
        if plan.cells is None:
            return None
        rows = [[0] * plan.ranks for _ in range(plan.ranks)]
        for source, destination, size in plan.cells:
            rows[source][destination] = size
        memory = plan.memory if plan.memory in ("DRAM", "VRAM") else None
        patterns.append(TrafficPattern(
            Matrix(tuple(map(tuple, rows))), plan.operation, memory, plan.shards,
            plan.sleep_before_s, plan.sleep_after_s, plan.metadata or None,
        ))  # fmt: skip
    return TrafficConfig(tuple(patterns), traffic.iterations or None, traffic.warmup)


class RunView:
    """Makes views of a run's states; a pattern's row is reused until something of it is measured."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[PatternState, PatternLine]] = {}

    def make(self, run: RunState, about: str = "") -> TrafficView:
        """Return the view of a run of a traffic test."""
        traffic = run.traffic or TrafficState()
        visits = last_sequence(traffic)
        hosts = hosts_of(traffic)
        rows = tuple(self._row(traffic, pattern) for pattern in traffic.patterns)
        plans = {pattern.plan.pattern: pattern.plan for pattern in traffic.patterns}
        stretches = tuple(stretches_of(visits.values(), plans))
        wrong = next((pattern.wrong[0] for pattern in traffic.patterns if pattern.wrong), "")
        reason = run.reason or ""
        if run.state in ("failed", "crashed") and not reason:
            reason = f"the run {run.state}"
        return TrafficView(
            about or run.session,
            rows,
            tuple(ranks_of(visits.get(number), hosts, rows[number].last) for number in range(len(rows))),
            stretches,
            tuple((pattern.alone, pattern.together) for pattern in traffic.patterns),
            measured_text(traffic),
            run.state,
            doing_text(run, traffic),
            traffic.verified,
            (reason if run.state in ("failed", "crashed", "interrupted") else "") or wrong,
            processes=len(traffic.processes),
            hosts=hosts if any(hosts) else (),
        )

    def _row(self, traffic: TrafficState, pattern: PatternState) -> PatternLine:
        number = pattern.plan.pattern
        running = any(visit.pattern == number for visit in traffic.current)
        before = self._rows.get(number)
        if before is None or before[0] is not pattern or before[1].running != running:
            before = self._rows[number] = pattern, pattern_row(pattern.result, running)
        return before[1]


def pattern_row(result: PatternResult, running: bool = False) -> PatternLine:
    """Return a pattern's row of its figures."""
    ratio, straggler = result.ratio, result.straggler
    return PatternLine(
        result.pattern,
        result.bytes,
        None if result.alone_ms is None else result.alone_ms.median,
        None if result.together_ms is None else result.together_ms.median,
        None if ratio is None else ratio.median,
        ratio if ratio is not None and ratio.known else None,
        result.gb_per_s,
        None if straggler is None else straggler.rank,
        (0, 0) if straggler is None else (straggler.times, straggler.of),
        result.operation,
        result.shards,
        running,
    )


def hosts_of(traffic: TrafficState) -> tuple[str, ...]:
    """Return each rank's host; empty for this one."""
    hosts = {rank: place.host for place in traffic.processes for rank in range(place.first, place.last + 1)}
    return tuple(hosts.get(rank, "") for rank in range(len(traffic.ranks)))


def last_sequence(traffic: TrafficState) -> Mapping[int, VisitRecord]:
    """Return the visits of the newest sequence, by pattern; before the first, the newest visits alone."""
    together = [visit for visit in traffic.visits if visit.phase == "together"]
    if not together:
        return {visit.pattern: visit for visit in traffic.visits}
    newest = max(visit.iteration for visit in together)
    found = {visit.pattern: visit for visit in together if visit.iteration == newest}
    # While it isn't complete, the one before it shows more.
    moving = sum(bool(pattern.plan.bytes) for pattern in traffic.patterns)
    if len(found) < moving and newest > 0:
        before = {visit.pattern: visit for visit in together if visit.iteration == newest - 1}
        return before if len(before) >= len(found) else found
    return found


def stretches_of(visits: Iterable[VisitRecord], plans: Mapping[int, PatternPlan]) -> Iterable[Stretch]:
    """Yield what ranks do in a sequence: a sleep before, the movement, a sleep after. Nothing of visits alone."""
    together = [visit for visit in visits if visit.phase == "together"]
    if not together:
        return
    sleeps = {visit.pattern: plans[visit.pattern].sleep_before_s * 1e9 for visit in together}
    begin = min(visit.start - sleeps[visit.pattern] for visit in together)
    for visit in together:
        plan = plans[visit.pattern]
        for part in visit.parts:
            start, end = (part.start - begin) / 1e6, (part.end - begin) / 1e6
            if plan.sleep_before_s:
                yield Stretch(part.rank, visit.pattern, max(0.0, start - plan.sleep_before_s * 1e3), start, "sleeps")
            yield Stretch(part.rank, visit.pattern, start, end)
            if plan.sleep_after_s:
                yield Stretch(part.rank, visit.pattern, end, end + plan.sleep_after_s * 1e3, "sleeps")


def ranks_of(visit: VisitRecord | None, hosts: tuple[str, ...], straggler: int | None) -> tuple[RankRow, ...]:
    """Return the initiators of a visit with their own bytes over their own time."""
    if visit is None:
        return ()
    return tuple(
        RankRow(
            part.rank,
            hosts[part.rank] if any(hosts) and part.rank < len(hosts) else "",
            part.bytes / (part.end - part.start) if part.end > part.start else None,
            part.rank == straggler,
        )
        for part in visit.parts
    )


def measured_text(traffic: TrafficState) -> str:
    """Return skew, preparation and iterations, in one line."""
    parts = []
    if traffic.skews:
        parts.append(f"start skew p99 {time_text(percentile(sorted(traffic.skews), 0.99) / 1e3)}")
    if traffic.prepared_s is not None:
        parts.append(f"prepared in {seconds_text(traffic.prepared_s)}")
    if traffic.spans:
        parts.append(f"{len(traffic.spans)} of {many(traffic.iterations, 'iteration')}")
    return " · ".join(parts)


def doing_text(run: RunState, traffic: TrafficState) -> str:
    """Return what a run that isn't over does now."""
    if run.state != "running":
        return ""
    total = len(traffic.patterns)
    if not total:
        return "Starting the ranks."
    if traffic.prepared < total:
        return (
            f"Preparing: {traffic.prepared} of {many(total, 'pattern')}, {count_text(traffic.descriptors)} descriptors."
        )
    if any(pattern.verified is not None for pattern in traffic.patterns):
        done = sum(pattern.verified is not None for pattern in traffic.patterns)
        return f"Comparing every byte: {done} of {many(total, 'pattern')}."
    if not traffic.current and traffic.visits:
        return "Warming up."
    if not traffic.current:
        return f"Prepared {size_text(traffic.region_bytes)} of memory; measuring begins."
    last = traffic.current[-1]
    if last.phase == "alone":
        return f"Measuring pattern {last.pattern} alone."
    return f"Measuring all in sequence: iteration {last.iteration + 1} of {traffic.iterations}, pattern {last.pattern}."
