"""A run made up line by line, the same every time: what the engine would send of it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import msgspec
import orjson

from kvdeck.app.tui.bandwidth import BandwidthHistory, BandwidthPoint, LayoutComparison
from kvdeck.app.tui.state import Doctor, EngineState, doctor_from_json
from kvdeck.engine.client.run_log import entry_of
from kvdeck.engine.planning.layout import FULLY_CONTIGUOUS, LAYER_SEPARATE
from kvdeck.engine.protocol import EventMessage, RunInfo, SampleMessage
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import (
    COUNTERS,
    Compared,
    Event,
    Logged,
    RunStarted,
    StateChanged,
    StepFinished,
    StepStarted,
)
from kvdeck.sessions.model.records import Comparison, Interval, Percentiles, Session, StepPlan, StepResult
from kvdeck.sessions.model.run_state import RunState, advance_all
from kvdeck.sessions.store.lookup import part

NAME = "20260101-120000-run"
BLOCK = 2 << 20
ROUNDS = 24
PATHS = (
    ("HostToHost", "UCX", None, None, 9.0),
    ("HostToDisk", "POSIX", "AIO", True, 1.4),
    ("DiskToHost", "POSIX", "AIO", True, 2.6),
)
LAYOUTS = ((str(FULLY_CONTIGUOUS), 1, 1.0), (str(LAYER_SEPARATE), 64, 1.31))


def plans() -> tuple[StepPlan, ...]:
    found = []
    for trial, (path, backend, api, direct, _) in enumerate(PATHS):
        for layout, count, _ in LAYOUTS:
            found.append(StepPlan(len(found), trial, path, layout, backend, api, direct, BLOCK, 16, 128, count))
    return tuple(found)


def micros(plan: StepPlan, round_: int = 0) -> float:
    """Request time of a step in µs, swinging a little from round to round."""
    speed, slower = PATHS[plan.trial][4], {name: factor for name, _, factor in LAYOUTS}[plan.layout]
    return plan.batch * BLOCK / speed / 1e3 * slower * (1 + 0.06 * math.sin(round_ * 0.9 + plan.step))


def values(plan: StepPlan, round_: int, fraction: float) -> tuple[float | None, ...]:
    requests = (round_ + 1) * 8
    busy = sum(micros(plan, r) * 8e3 for r in range(round_ + 1))
    middle, baseline = micros(plan), plan.step % 2 == 0
    row = {
        "step": plan.step,
        "round": round_ + 1,
        "iterations": requests,
        "blocks": requests * plan.batch,
        "bytes": requests * plan.batch * BLOCK,
        "descriptors": requests * plan.batch * plan.descriptors_per_block,
        "busy_ns": busy,
        "post_p50_ns": 2_400 * math.sqrt(plan.descriptors_per_block),
        "transfer_p50_ns": middle * 1e3 - 2_400,
        "request_p50_ns": middle * 1e3,
        "request_p90_ns": middle * 1.04e3,
        "request_p95_ns": middle * 1.06e3,
        "request_p99_ns": middle * 1.12e3,
        "request_max_ns": middle * 1.4e3,
        "reference_gb_per_s": PATHS[plan.trial][4] * 1.1,
        "ratio": None if baseline else 1.31,
        "ratio_low": None if baseline else 1.28,
        "ratio_high": None if baseline else 1.35,
        "fraction": fraction,
        "eta_s": 30 * (1 - fraction),
    }
    return tuple(row[counter.name] for counter in COUNTERS)


def result(plan: StepPlan) -> StepResult:
    middle = micros(plan)
    times = Percentiles(middle, middle * 1.04, middle * 1.06, middle * 1.12, middle * 1.4, middle * 1.01)
    post = Percentiles(*(2.4 * math.sqrt(plan.descriptors_per_block) * x for x in (1, 1.1, 1.2, 1.5, 4, 1.05)))
    rate = plan.batch * BLOCK / middle / 1e3
    disk = plan.direct is not None
    return StepResult(
        plan.step,
        plan.trial,
        plan.path,
        plan.layout,
        plan.backend,
        plan.api,
        plan.direct,
        "bypassed" if disk else None,
        False if plan.path == "HostToDisk" else None,
        BLOCK,
        plan.batch,
        plan.descriptors_per_block,
        plan.batch * plan.descriptors_per_block,
        False,
        plan.blocks,
        ROUNDS * 8,
        16,
        ROUNDS * 8 * plan.batch * BLOCK,
        Percentiles(*[1.0] * 6),
        post,
        times,
        times,
        Interval(rate, rate * 0.98, rate * 1.02),
        PATHS[plan.trial][4] * 1.1,
        "memcpy" if not disk else "pread",
        rate / (PATHS[plan.trial][4] * 1.1),
        True,
        "ok",
        None,
    )


def comparison(trial: int) -> Comparison:
    path = PATHS[trial][0]
    return Comparison(trial, path, LAYOUTS[0][0], LAYOUTS[1][0], BLOCK, 16, 1.31, 1.28, 1.35, "slower")


def stream(end: str | None = "done", reason: str | None = None) -> Iterator[EventMessage | SampleMessage]:
    """Every message of the run, in order; without an end it stops in the middle of the second trial."""
    seq, t = 0, 5_000_000_000

    def event(happened: Event) -> EventMessage:
        nonlocal seq
        seq += 1
        return EventMessage(NAME, seq - 1, orjson.loads(encode_line(happened)))

    steps = plans()
    total = len(steps) * ROUNDS
    done = 0
    yield event(RunStarted(t, 1_767_268_800.0, steps))
    yield event(Logged(t, "info", "2 MiB blocks, 128 in the working set: 256 MiB a side"))
    for trial in range(len(PATHS)):
        pair = [plan for plan in steps if plan.trial == trial]
        if trial == 1:
            yield event(Logged(t, "warning", "the filesystem takes O_DIRECT at 4 KiB: page cache bypassed"))
        for plan in pair:
            yield event(StepStarted(t, plan.step))
        for round_ in range(ROUNDS):
            for plan in pair:
                t += round(micros(plan, round_) * 8e3) + 150_000_000
                done += 1
                seq += 1
                yield SampleMessage(NAME, seq - 1, t, values(plan, round_, done / total))
            if end is None and trial == 1 and round_ == ROUNDS // 2:
                return
        for plan in pair:
            yield event(StepFinished(t, result(plan)))
        yield event(Compared(t, comparison(trial)))
        if end not in ("done", None):
            break
    words = ("malloc(): corrupted top size", "Aborted") if end == "crashed" else ()
    signal = "SIGABRT" if end == "crashed" else None
    assert end is not None
    yield event(StateChanged(t, 1_767_268_830.0, end, reason, signal, words))  # type: ignore[arg-type]


def view(end: str | None = "done", reason: str | None = None) -> RunState:
    """The run folded."""
    return advance_all(RunState(NAME), map(entry_of, stream(end, reason)))


QUEUED = RunInfo("20260101-120500-sweep", "queued", 1_767_268_900.0, position=1, paths=("HostToHost",))


def live() -> EngineState:
    run = view(None)
    info = RunInfo(NAME, "running", 1_767_268_800.0, pid=4243, fraction=run.fraction, eta_s=run.eta_s, seq=run.next_seq)
    return EngineState("connected", "", 4242, 0, (info, QUEUED), run)


def finished() -> EngineState:
    return EngineState("connected", "", 4242, 0, (), view())


def crashed() -> EngineState:
    return EngineState("connected", "", 4242, 0, (), view("crashed", "the worker ended by SIGABRT"))


def disconnected() -> EngineState:
    return EngineState("lost", "no engine is running", None, 0, (), view(None))


def session(name: str = NAME) -> Session:
    results = tuple(result(plan) for plan in plans())
    return Session(
        name,
        "done",
        1_767_268_790.0,
        1_767_268_800.0,
        1_767_268_830.0,
        kvdeck="0.1.0",
        nixl="1.5.1",
        host={"hostname": "dgx-01", "cpu": "a processor", "kernel": "6.8.0"},
        results=results,
        comparisons=tuple(comparison(trial) for trial in range(len(PATHS))),
    )


def measured() -> BandwidthHistory:
    """A sweep of block sizes between host memories, and one step to disk."""
    sizes = [4096 << (2 * step) for step in range(7)]
    sweep = [
        BandwidthPoint("HostToHost", layout, size, 11.0 * size / (size + half), "sweep", "UCX")
        for layout, half in (("fc", 120_000), ("ls", 480_000))
        for size in sizes
    ]
    compared = [
        LayoutComparison(fc.path, fc.block_bytes, ratio, 0.99 * ratio, 1.01 * ratio, "slower", "sweep", "UCX")
        for fc, ls in zip(sweep, sweep[len(sizes) :], strict=False)
        for ratio in [fc.gb_per_s / ls.gb_per_s]
    ]
    to_disk = BandwidthPoint("HostToDisk", "fc", BLOCK, 1.4, NAME, "POSIX")
    return BandwidthHistory((*sweep, to_disk), comparisons=tuple(compared))


def compared(name: str) -> Session:
    """A session to compare: a part of the run, a slower one of another host, or a sweep."""
    name, _, layout = name.partition(":")
    kept = session(name)
    if layout:
        return part(kept, layout)
    if name == NAME:
        return kept
    slower = 1.0 if name.startswith("before") else 1.22
    host = {**kept.host, "hostname": "dgx-02"}
    if "sweep" in name:
        return msgspec.structs.replace(kept, results=tuple(_sweep()), comparisons=(), host=host)
    return msgspec.structs.replace(
        kept, results=tuple(_at(r, r.block_bytes, 1 / slower) for r in kept.results), comparisons=()
    )


def swept(name: str, slower: float = 1.0) -> Session:
    """Both layouts of one path at nine block sizes."""
    return msgspec.structs.replace(session(name), results=tuple(_sweep(slower)), comparisons=())


def _sweep(slower: float = 1.0) -> Iterator[StepResult]:
    for plan in plans()[:2]:
        for power in range(9):
            size = BLOCK >> (8 - power)
            yield _at(result(plan), size, 1 / (1 + 3 * 2.0 ** (-power)) / slower)


def _at(found: StepResult, block_bytes: int, times: float) -> StepResult:
    assert found.gb_per_s is not None
    rate = found.gb_per_s.median * times
    return msgspec.structs.replace(found, block_bytes=block_bytes, gb_per_s=Interval(rate, rate * 0.97, rate * 1.03))


def spreads(of: Session) -> dict[tuple[str, str, int, int], tuple[tuple[float, int], ...]]:
    """A hump around each step's mean time, with a tail."""
    found = {}
    for r in of.results:
        assert r.gb_per_s is not None
        middle = r.batch * r.block_bytes / r.gb_per_s.median / 1e9
        hump = (
            (middle * 2 ** (k / 16), round(900 * math.exp(-((k / 3) ** 2))) + (6 if k > 0 else 0))
            for k in range(-8, 20)
        )
        found[r.path, r.layout, r.block_bytes, r.batch] = tuple(hump)
    return found


def doctor() -> Doctor:
    gpu = ("unavailable", "no GPU: the NVIDIA driver is not loaded", "load the driver (nvidia-smi must list a GPU)")
    rows = [
        ("HostToHost", "UCX", "ready", "", ""),
        ("HostToDisk", "POSIX", "ready", "", ""),
        ("HostToDisk", "GDS", "unavailable", "cuFile doesn't start: err 5033", "install a driver"),
        (
            "DiskToHost",
            "POSIX",
            "degraded",
            "tmpfs takes no O_DIRECT: reads come from memory",
            "choose a folder on a disk",
        ),
        *((path, "UCX", *gpu) for path in ("HostToDevice", "DeviceToHost", "DeviceToDevice")),
        *((path, "GDS", *gpu) for path in ("DeviceToDisk", "DiskToDevice")),
    ]
    keys = ("path", "backend", "state", "reason", "fix")
    return doctor_from_json(
        {
            "kvdeck": "0.1.0",
            "host": {
                "hostname": "dgx-01",
                "cpu": {"model": "a processor", "cores": 2, "numa_nodes": 1},
                "memory_bytes": 8 << 30,
                "gpus": [],
                "driver": None,
                "nixl": "1.5.1",
                "memlock_bytes": 64 << 20,
                "huge_pages": 0,
                "folder": {"path": "/var/tmp", "filesystem": "ext4", "o_direct": True, "free_bytes": 50 << 30},
            },
            "paths": [dict(zip(keys, row, strict=True)) for row in rows],
            "plugins": [
                {"name": "UCX", "present": True, "loads": True, "creates": True, "memory_types": ["DRAM", "VRAM"]},
                {"name": "POSIX", "present": True, "loads": True, "creates": True, "memory_types": ["DRAM", "FILE"]},
                {
                    "name": "GDS",
                    "present": True,
                    "loads": False,
                    "creates": False,
                    "reason": "libcufile.so.0 is missing",
                },
            ],
            "ready": True,
        }
    )
