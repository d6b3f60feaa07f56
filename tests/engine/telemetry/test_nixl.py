"""NIXL's own telemetry from a real agent that moves real bytes: the ring and the Prometheus exporter."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.listeners import listeners
from kvdeck.engine.telemetry.sample import Flow, Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import Reading, SourceGone
from kvdeck.engine.telemetry.sources.nixl_ring import Ring, ring_source, rings_in
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from tests.support.programs.metrics_server import sample

PROGRAM = Path(__file__).parents[3] / "tests" / "support/programs/nixl_traffic.py"
MIB = 1 << 20
HEADER = struct.Struct("<QQiiQQ")


class Traffic:
    """The program, ready to move."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.until("ready")

    def until(self, word: str) -> None:
        """Wait for a line; NIXL's own log is passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.strip() == word:
                return
        raise AssertionError("the program ended")

    def move(self, transfers: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{transfers}\n")
        self._process.stdin.flush()
        self.until("moved")


@contextmanager
def traffic(**environment: str) -> Iterator[Traffic]:
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "NIXL_TELEMETRY_ENABLE": "y", **environment},
    ) as process:
        guard = threading.Timer(25, process.kill)
        guard.start()
        try:
            yield Traffic(process)
        finally:
            guard.cancel()
            process.communicate(timeout=10)


def sent(snapshot: Snapshot) -> Flow | None:
    return next((flow for flow in snapshot.flows if flow.name in ("nixl tx", "nixl ring tx")), None)


async def until_sent(sampler: Sampler, total: int) -> Flow:
    deadline = time.monotonic() + 10
    flow = None
    async for snapshot in sampler.snapshots():
        flow = sent(snapshot)
        if flow is not None and flow.bytes_total == total:
            return flow
        assert time.monotonic() < deadline, (flow, snapshot.sources)
    raise AssertionError


async def test_a_ring_is_read_to_the_byte_and_left_as_it_is(tmp_path: Path) -> None:
    with traffic(NIXL_TELEMETRY_DIR=str(tmp_path)) as program:
        program.move(5)
        (path,) = rings_in(tmp_path)
        sampler = Sampler([ring_source(path)], hz=10)
        await sampler.start()
        try:
            flow = await until_sent(sampler, 5 * MIB)
            assert flow.transfers_total == 5
            program.move(3)
            flow = await until_sent(sampler, 8 * MIB)
            assert flow.bytes_gained is not None
            assert flow.bytes_gained <= 8 * MIB
        finally:
            await sampler.close()
        assert HEADER.unpack(path.read_bytes()[: HEADER.size])[1] == 0, "nobody's read position was moved"


async def test_a_full_ring_says_so(tmp_path: Path) -> None:
    with traffic(NIXL_TELEMETRY_DIR=str(tmp_path), NIXL_TELEMETRY_BUFFER_SIZE="64") as program:
        (path,) = rings_in(tmp_path)
        source = ring_source(path)
        sampler = Sampler([source], hz=10)
        await sampler.start()
        try:
            deadline = time.monotonic() + 10
            async for snapshot in sampler.snapshots():
                (status,) = snapshot.sources
                if status.state == "partial":
                    break
                program.move(30)
                assert time.monotonic() < deadline, status
            assert status.reason.startswith("full: no longer live")
            assert "ring-full" in [found.id for found in snapshot.checks]
        finally:
            await sampler.close()


async def test_the_exporter_of_a_real_agent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with traffic(
        NIXL_TELEMETRY_EXPORTER="prometheus",
        NIXL_TELEMETRY_PROMETHEUS_PORT=str(port),
        NIXL_TELEMETRY_PROMETHEUS_LOCAL="y",
    ) as program:
        program.move(4)
        assert port in [one.port for one in listeners()]
        (found,), _ = await discovery.found_endpoints([port])
        assert found.kind == "nixl"
        sampler = Sampler([Endpoint(found.url)], hz=10)
        await sampler.start()
        try:
            await until_sent(sampler, 4 * MIB)
            program.move(2)
            flow = await until_sent(sampler, 6 * MIB)
            assert flow.bytes_gained in (2 * MIB, 6 * MIB), "NIXL tells late: the first reading may still have been 0"
            assert (flow.source_tier, flow.target_tier) == (None, None)
        finally:
            await sampler.close()


def write_ring(path: Path, events: list[tuple[int, int]], read: int = 0, version: int = 4, capacity: int = 8) -> None:
    slots = [(0, 0)] * capacity
    for position, event in enumerate(events):
        slots[position % capacity] = event
    body = b"".join(struct.pack("<I4xQ", *slot) for slot in slots)
    write = len(events) % capacity
    path.write_bytes(HEADER.pack(write, read, version, version, capacity, capacity - 1) + body)


def totals(reading: Reading) -> dict[str, float]:
    return {series.name: value for series, value in reading.values.items() if value}


def test_a_ring_that_is_drained_goes_round(tmp_path: Path) -> None:
    path = tmp_path / "agent"
    write_ring(path, [(0, 10)] * 6)
    ring = Ring(path)
    assert totals(ring.look()) == {"ring_tx_bytes": 60}
    write_ring(path, [(0, 10)] * 6 + [(1, 7)] * 4, read=6)
    reading = ring.look()
    assert totals(reading) == {"ring_tx_bytes": 60, "ring_rx_bytes": 28}
    assert "another process drains" in reading.missing
    write_ring(path, [(0, 10)] * 6 + [(1, 7)] * 4 + [(9, 1)], read=6)
    assert totals(ring.look())["ring_errors"] == 1


def test_the_sample_was_drained_before_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "telA"
    path.write_bytes(sample("nixl_ring_telA.bin"))
    reading = Ring(path).look()
    assert reading.values == {}, "what was drained is not known: missing, not zero"
    assert "another process drains" in reading.missing


@pytest.mark.parametrize("what", ["version", "short", "capacity"])
def test_what_is_no_ring_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "agent"
    write_ring(path, [], version=9 if what == "version" else 4)
    if what == "short":
        path.write_bytes(b"x" * 10)
    if what == "capacity":
        path.write_bytes(HEADER.pack(0, 0, 4, 4, 1 << 60, (1 << 60) - 1))
    with pytest.raises(SourceGone):
        Ring(path).look()
