"""Probing UCX: within one process, between two, and to and from a GPU."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import select
import subprocess
from collections.abc import Iterator
from typing import Any

from kvdeck.engine.host.machine import kernel_switch
from kvdeck.engine.transfer import device, nixl, plugins, quiet, reasons
from kvdeck.engine.transfer.findings import PathFinding
from kvdeck.engine.transfer.probe.transfer import DEADLINE_S, SIZE, Pages, move, register
from kvdeck.sessions.documents import load_record
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.records import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, HOST_TO_HOST
from kvdeck.sessions.units import number_text

TWO_PROCESSES, LOOPBACK = "two processes", "loopback"
DEVICE_PATHS = (HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE)


def probe_ucx(peer: subprocess.Popen[bytes]) -> Iterator[PathFinding]:
    """Rows of every path that UCX serves.

    Args:
        peer: The second process, started beforehand; it is ended here.

    Raises:
        UnavailableError: The backend itself can't be created; then no row was given.
    """
    os.environ.setdefault("UCX_PROTO_INFO", "y")  # UCX then says what it moves the bytes over
    try:
        agent = nixl.make_agent("kvdeck-probe")
        nixl.create_backend(agent, "UCX")
        here, there = Pages(), Pages()
        pieces = [register(agent, (pages.address, SIZE, 0), "DRAM", "UCX") for pages in (here, there)]
        yield _row(LOOPBACK, lambda: _to_self(agent, here, there))
        yield _row(TWO_PROCESSES, lambda: _to_peer(agent, here, peer))
        yield from _device_rows(agent, here)
        for piece in pieces:
            agent.deregister_memory(piece, backends=["UCX"])
    finally:
        peer.kill()
        peer.wait()


def _row(mode: str, attempt: Any) -> PathFinding:
    row = PathFinding(HOST_TO_HOST, "UCX", mode=mode, memory=plugins.memory_of(HOST_TO_HOST))
    try:
        with quiet.captured() as words:
            attempt()
    except UnavailableError as error:
        return row.refused(error)
    transports = _transports(words.text)
    return dataclasses.replace(row, transports=transports).working(_limit_of(transports))


def _to_self(agent: Any, here: Pages, there: Pages) -> None:
    there.poison()
    move(
        agent,
        "WRITE",
        ((here.address, SIZE, 0), "DRAM"),
        ((there.address, SIZE, 0), "DRAM"),
        peer=agent.name,
        backend="UCX",
        doing="a transfer within one process",
    )
    if not there.holds(here.pattern):
        raise reasons.native_failure("a transfer within one process", "the bytes that arrived are wrong")


def _to_peer(agent: Any, here: Pages, peer: subprocess.Popen[bytes]) -> None:
    doing = "a transfer between two processes"
    assert peer.stdout is not None
    readable, _, _ = select.select([peer.stdout], [], [], DEADLINE_S)
    line = peer.stdout.readline() if readable else b""
    if not line:
        raise reasons.native_failure(doing, f"the second process isn't there after {number_text(DEADLINE_S)} s")
    told = load_record(line)
    name = agent.add_remote_agent(base64.b64decode(told["metadata"]))
    remote = ((told["address"], SIZE, 0), "DRAM")
    here.fill()
    for operation in ("WRITE", "READ"):
        if operation == "READ":
            here.poison()
        move(
            agent,
            operation,
            ((here.address, SIZE, 0), "DRAM"),
            remote,
            peer=name if isinstance(name, str) else name.decode(),
            backend="UCX",
            doing=doing,
        )
    agent.remove_remote_agent(name)
    if not here.holds(here.pattern):
        raise reasons.native_failure(doing, "the bytes that came back are wrong")


def _transports(words: str) -> tuple[str, ...]:
    """Transports of the memory writes and reads in UCX's own tables; empty where it printed none."""
    found: list[str] = []
    wanted = False
    for line in words.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 1:
            wanted = "remote memory" in cells[0] or (wanted and not cells[0].startswith(("active", "tagged")))
        elif wanted and len(cells) == 3:
            found += re.findall(r"\b[a-z_0-9]+/[\w:.]+", cells[2])
    return tuple(dict.fromkeys(found))


def _limit_of(transports: tuple[str, ...]) -> UnavailableError | None:
    """What an operator must know where bytes stay on this host and yet go over the network stack."""
    if not transports or any(not name.startswith("tcp/") for name in transports):
        return None
    return reasons.only_tcp(", ".join(transports), kernel_switch("kernel/yama/ptrace_scope") or 0)


def _device_rows(agent: Any, here: Pages) -> Iterator[PathFinding]:
    try:
        device.require()
        buffers = [device.allocate(0, SIZE) for _ in range(2)]
    except UnavailableError as error:
        for path in DEVICE_PATHS:
            yield PathFinding(path, "UCX", memory=plugins.memory_of(path)).refused(error)
        return
    pieces: list[Any] = []
    for path in DEVICE_PATHS:
        row = PathFinding(path, "UCX", memory=plugins.memory_of(path))
        try:
            if not pieces:
                pieces = [register(agent, (buffer.address, SIZE, 0), "VRAM", "UCX") for buffer in buffers]
            _with_device(agent, path, here, buffers)
        except UnavailableError as error:
            yield row.refused(error)
        else:
            yield row.working()
    for piece in pieces:
        agent.deregister_memory(piece, backends=["UCX"])
    for buffer in buffers:
        device.release(buffer)


def _with_device(agent: Any, path: str, here: Pages, buffers: list[device.DeviceBuffer]) -> None:
    """One transfer of a path with a GPU, its bytes brought back and compared."""
    first, second = buffers
    ends = {
        HOST_TO_DEVICE: ((here.address, "DRAM"), (first.address, "VRAM")),
        DEVICE_TO_HOST: ((first.address, "VRAM"), (here.address, "DRAM")),
        DEVICE_TO_DEVICE: ((first.address, "VRAM"), (second.address, "VRAM")),
    }
    (source, source_kind), (target, target_kind) = ends[path]
    here.fill()
    device.poison(second)
    if path == HOST_TO_DEVICE:
        device.poison(first)
    else:
        device.fill(first, here.address, SIZE)
        here.poison()
    doing = f"a transfer {path}"
    move(
        agent,
        "WRITE",
        ((source, SIZE, 0), source_kind),
        ((target, SIZE, 0), target_kind),
        peer=agent.name,
        backend="UCX",
        doing=doing,
    )
    if path != DEVICE_TO_HOST:
        here.poison()
        device.read(first if path == HOST_TO_DEVICE else second, here.address, SIZE)
    if not here.holds(here.pattern):
        raise reasons.native_failure(doing, "the bytes that arrived are wrong")
