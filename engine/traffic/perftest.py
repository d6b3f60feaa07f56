"""Process of a traffic test: it starts the ranks, measures, verifies, and prints its result as JSON lines.

Lines: `{"progress": TEXT}`; at the end `{"lines": [TEXT…], "json": {…}, "status": 0 or 1}`, or
`{"error": WHAT, "fix": FIX, "status": 1 or 2}`. Options are one JSON object on stdin. The argument
is the parent's process id.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import orjson

from kvdeck.engine.children.child import die_with_parent
from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.host.machine import host_facts
from kvdeck.engine.io.exit import leave
from kvdeck.engine.traffic import perftest_text
from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern, read_config
from kvdeck.engine.traffic.figures import upstream_row
from kvdeck.engine.traffic.placement import check_memory, memories
from kvdeck.engine.traffic.ranks_here import PatternVisit, RanksHere
from kvdeck.engine.traffic.workload import WorkloadOrder
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.units import many

ITERATIONS, WARMUP, ISOLATION = 3, 30, 30
"""Upstream's constants of the sequential test."""


class PerftestOptions(msgspec.Struct, frozen=True):
    """Options of both commands."""

    config: str
    sequential: bool
    ranks: int | None = None
    processes: int | None = None
    """None: one for each rank, at most one per core."""
    iterations: int | None = None
    warmup: int | None = None
    isolation: int = ISOLATION
    memory: str | None = None
    """Memory type in place of the file's: DRAM or VRAM."""
    verify: bool = False
    print_received: bool = False


@dataclass(frozen=True, slots=True)
class RankPlacement:
    """How the ranks lie on processes."""

    ranks: int
    processes: int
    region_bytes: int
    descriptors: int
    prepare_s: float
    process_of: Callable[[int], int]


def checked_config(options: PerftestOptions) -> TrafficConfig:
    """Return the config of the options' file, with its memory types resolved.

    Raises:
        UsageError: It is invalid, or does not fit the command or the ranks.
    """
    config = read_config(Path(options.config))
    if not options.sequential and len(config.patterns) != 1:
        raise UsageError(
            f"{options.config} has {many(len(config.patterns), 'pattern')}, and ct-perftest runs one",
            "use kvdeck sequential-ct-perftest",
        )
    if options.ranks is not None and config.patterns and options.ranks != config.ranks:
        raise UsageError(
            f"--ranks is {options.ranks}, and the matrices have {many(config.ranks, 'rank')}",
            f"give --ranks {config.ranks}, or none; --processes sets how many processes play them",
        )
    return replace(config, patterns=tuple(
        _resolved(number, pattern, options.memory) for number, pattern in enumerate(config.patterns)
    ))  # fmt: skip


def _resolved(number: int, pattern: TrafficPattern, memory: str | None) -> TrafficPattern:
    wanted = memory or pattern.memory or "DRAM"
    if wanted == "VRAM":
        why = "GPU memory isn't supported here yet" if driver_present() else "this host has no NVIDIA driver"
        raise UsageError(f"pattern {number} needs GPU memory: {why}", "give --mem-type dram, or mem_type: dram")
    return replace(pattern, memory=wanted)


def run_perftest(options: PerftestOptions, progress: Callable[[str], object]) -> dict[str, Any]:
    """Run a test; return its `lines`, upstream's `json`, and `status`: 1 if bytes are wrong.

    Raises:
        UsageError: The config is invalid, or the ranks need more memory than this host has.
        RunFailedError: A rank is lost; names it.
        KvdeckError: A rank can't open its agent, or a transfer failed.
    """
    config = checked_config(options)
    if not config.patterns:
        iterations = options.iterations or config.iterations or ITERATIONS
        document = {"iterations_results": [[] for _ in range(iterations)], "metadata": {"iters": []}}
        return {"lines": ["No patterns: nothing to run."], "json": document, "status": 0}
    began = time.time()
    regions = memories(config.patterns, config.ranks)
    needed = check_memory(regions, host_facts().memory_available_bytes)
    processes = options.processes or min(config.ranks, len(os.sched_getaffinity(0)))
    progress(f"starting {many(config.ranks, 'rank')}")
    ranks = RanksHere(config.patterns, regions, processes)
    ranks.open()
    preparing = time.perf_counter()
    total = len(config.patterns)
    descriptors = ranks.prepare(lambda count: progress(f"prepared {count} of {total} patterns"))
    placement = RankPlacement(
        config.ranks, len(ranks.divided), needed, descriptors, time.perf_counter() - preparing, ranks.process_of
    )
    measure = _sequential if options.sequential else _single
    result = measure(config, options, ranks, placement, began, progress)
    wrong: list[str] = []
    if options.verify or options.print_received:
        for number in range(total):
            progress(f"verifying pattern {number}")
            wrong += ranks.verify(number)
            if options.print_received:
                result["lines"] += perftest_text.received_lines(number, ranks.heads(number))
    if options.verify:
        result["lines"] += perftest_text.verified_lines(config.patterns, wrong)
        result["status"] = int(bool(wrong))
    ranks.close()
    return result


def _count(*choices: int | None) -> int:
    return next(choice for choice in choices if choice is not None)


def _single(
    config: TrafficConfig,
    options: PerftestOptions,
    ranks: RanksHere,
    placement: RankPlacement,
    began: float,
    progress: Callable[[str], object],
) -> dict[str, Any]:
    """Measure one pattern in successive iterations, without a barrier between them."""
    iterations = _count(options.iterations, config.iterations, 1)
    warmup = _count(options.warmup, config.warmup, 0)
    visit = None
    if config.patterns[0].initiators:
        ranks.start_series()
        if warmup:
            progress("warm-up")
            ranks.visit(0, warmup)
        progress("measuring")
        visit = ranks.visit(0, iterations)
        ranks.end_series()
    lines = perftest_text.single_lines(config.patterns[0], visit, iterations, placement)
    document = perftest_text.single_json(config.patterns[0], visit, iterations)
    return {"lines": lines, "json": {**document, "metadata": {"ts": began, "prepare_time": placement.prepare_s}},
            "status": 0}  # fmt: skip


def _sequential(
    config: TrafficConfig,
    options: PerftestOptions,
    ranks: RanksHere,
    placement: RankPlacement,
    began: float,
    progress: Callable[[str], object],
) -> dict[str, Any]:
    """Measure each pattern alone, and then all in sequence, `iterations` times."""
    patterns = config.patterns
    moving = [number for number, pattern in enumerate(patterns) if pattern.initiators]
    isolated: list[list[PatternVisit]] = [[] for _ in patterns]
    ranks.start_series()
    for number in moving:
        progress(f"pattern {number} alone")
        for _ in range(_count(options.warmup, config.warmup, WARMUP)):
            ranks.visit(number)
        isolated[number] = [ranks.visit(number) for _ in range(options.isolation)]
    isolated_at = time.time()
    epoch_ns = time.time_ns() - time.perf_counter_ns()
    starts: list[float] = []
    passes: list[dict[int, PatternVisit]] = []
    iterations = _count(options.iterations, config.iterations, ITERATIONS)
    for iteration in range(iterations):
        progress(f"workload {iteration + 1} of {iterations}")
        starts.append(time.time())
        passes.append(workload_pass(patterns, ranks))
    ranks.end_series()
    rows = [
        [upstream_row(pattern, isolated[number], one.get(number), epoch_ns) for number, pattern in enumerate(patterns)]
        for one in passes
    ]
    document = {
        "iterations_results": rows,
        "metadata": {
            "ts": began,
            "iters": [
                {
                    "start_ts": start,
                    "tps_start_ts": [_of_rank_0(one.get(number), "start", epoch_ns) for number in range(len(patterns))],
                    "tps_end_ts": [_of_rank_0(one.get(number), "end", epoch_ns) for number in range(len(patterns))],
                }
                for start, one in zip(starts, passes, strict=True)
            ],
            "prepare_tp_time": placement.prepare_s,
            "sol_calculation_ts": isolated_at,
            "finished_ts": time.time(),
        },
    }
    lines = perftest_text.sequential_lines(patterns, rows, isolated, passes, placement)
    return {"lines": lines, "json": document, "status": 0}


def workload_pass(patterns: Sequence[TrafficPattern], ranks: RanksHere) -> dict[int, PatternVisit]:
    """Carry out all patterns once, in sequence for each rank; return the visit of each that has initiators."""
    order = WorkloadOrder(patterns, time.perf_counter_ns())
    found: dict[int, PatternVisit] = {}
    while not order.finished:
        for number, earliest in order.ready():
            ranks.begin(number, earliest_ns=earliest)
        _, visit, rank = ranks.next_done()
        found[visit.pattern] = visit
        order.end(visit.pattern, rank, visit.ranks[rank].free)
    return found


def _of_rank_0(visit: PatternVisit | None, name: str, epoch_ns: int) -> float | None:
    if visit is None or 0 not in visit.ranks:
        return None
    return float(getattr(visit.ranks[0], name) + epoch_ns) / 1e9


def _print(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def main() -> NoReturn:
    die_with_parent(int(sys.argv[1]) if len(sys.argv) > 1 else None)
    try:
        options = msgspec.json.decode(sys.stdin.buffer.read(), type=PerftestOptions)
        result = run_perftest(options, lambda text: _print({"progress": text}))
    except KvdeckError as error:
        # The ranks end with this process, also those that wait for a lost one.
        _print({"error": error.what, "fix": error.fix, "status": error.exit_code})
        leave(error.exit_code)
    _print(result)
    leave(result["status"])


if __name__ == "__main__":
    main()
