"""Probes of UCX: within one process, between two, and to and from GPU memory."""

from __future__ import annotations

import base64
import dataclasses
import os
import re
import select
from collections.abc import Iterator
from typing import Any

from kvdeck.engine.children.child import Child
from kvdeck.engine.doctor.probe.transfer import DEADLINE_S, SIZE, Pages, move, register
from kvdeck.engine.host.machine import kernel_switch
from kvdeck.engine.io import cuda, nixl, plugins, reasons, stdio
from kvdeck.engine.io.findings import PathFinding
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.records import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, HOST_TO_HOST
from kvdeck.sessions.units import number_text

TWO_PROCESSES, LOOPBACK = "two processes", "loopback"
DEVICE_ROWS = (
    (HOST_TO_DEVICE, None),
    (DEVICE_TO_HOST, None),
    (DEVICE_TO_DEVICE, TWO_PROCESSES),
    (DEVICE_TO_DEVICE, LOOPBACK),
)
"""Paths with a GPU endpoint, and the mode of each probe (None: one process)."""
_PULLS = "read .*cuda.*cuda"
_HEADINGS = {
    HOST_TO_DEVICE: ("write .* from host.* to cuda",),
    DEVICE_TO_HOST: ("write .* from cuda.* to host",),
    DEVICE_TO_DEVICE: ("write .*cuda.*cuda", _PULLS),
}
"""Patterns of UCX's table headings, for the tables with the transports of each path."""


def probe_ucx(peer: Child) -> Iterator[PathFinding]:
    """Yield rows of every path that UCX serves.

    Args:
        peer: The second process, started by the caller; it is killed here.

    Raises:
        UnavailableError: The backend can't be created, or host memory not registered; no row was yielded then.
    """
    os.environ.setdefault("UCX_PROTO_INFO", "y")  # UCX then prints the transports that it uses
    try:
        agent = nixl.make_agent("kvdeck-probe")
        nixl.create_backend(agent, "UCX")
        here, there = Pages(), Pages()
        pieces = [register(agent, (pages.address, SIZE, 0), "DRAM", "UCX") for pages in (here, there)]
        yield _row(LOOPBACK, lambda: _to_self(agent, here, there))
        yield _row(TWO_PROCESSES, lambda: _to_peer(agent, here, peer))
        yield from _device_rows(agent, here, peer)
        for piece in pieces:
            agent.deregister_memory(piece, backends=["UCX"])
    finally:
        peer.kill()
        peer.close()


def _row(mode: str, attempt: Any) -> PathFinding:
    row = PathFinding(HOST_TO_HOST, "UCX", mode=mode, memory=plugins.memory_of(HOST_TO_HOST))
    try:
        with stdio.captured() as words:
            attempt()
    except UnavailableError as error:
        return row.refused(error)
    transports = transports_in(words.text)
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
        raise reasons.native_failure("a transfer within one process", "the received bytes are wrong")


def _to_peer(agent: Any, here: Pages, peer: Child) -> None:
    doing = "a transfer between two processes"
    told = _told_by(peer, doing)
    name = agent.add_remote_agent(base64.b64decode(told["metadata"]))
    remote = ((told["address"], SIZE, 0), "DRAM")
    here.fill()
    for operation in ("WRITE", "READ"):
        if operation == "READ":
            # Otherwise the pattern that was written would still be here, however the read went.
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
        raise reasons.native_failure(doing, "the returned bytes are wrong")


def _told_by(peer: Child, doing: str) -> dict[str, Any]:
    """Return the second process's next JSON line.

    Raises:
        UnavailableError: There is none within `DEADLINE_S` seconds.
    """
    readable, _, _ = select.select([peer.stdout], [], [], DEADLINE_S)
    line = peer.stdout.readline() if readable else b""
    if not line:
        raise reasons.native_failure(doing, f"the second process did not start within {number_text(DEADLINE_S)} s")
    told: dict[str, Any] = load_record(line)
    return told


def transports_in(words: str, heading: str = "") -> tuple[str, ...]:
    """Return the transports of memory writes and reads in UCX's tables; empty if it printed none.

    Args:
        words: What UCX printed.
        heading: Pattern of the headings to read, which name the operation and both memory types; empty: all.
    """
    found: list[str] = []
    wanted = False
    for line in words.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) == 1 and "remote memory" in cells[0]:
            wanted = re.search(heading, cells[0]) is not None
        elif len(cells) == 1:
            wanted = wanted and not cells[0].startswith(("active", "tagged"))
        elif wanted and len(cells) == 3:
            found += re.findall(r"\b[a-z_0-9]+/[\w:.]+", cells[2])
    return tuple(dict.fromkeys(found))


def _limit_of(transports: tuple[str, ...]) -> UnavailableError | None:
    """Return the limitation that transfers within this host use TCP only; None if they use another transport."""
    if not transports or any(not name.startswith("tcp/") for name in transports):
        return None
    return reasons.only_tcp(", ".join(transports), kernel_switch("kernel/yama/ptrace_scope") or 0)


def _device_rows(agent: Any, here: Pages, peer: Child) -> Iterator[PathFinding]:
    """Yield rows of the paths with a GPU: within one process, and for GPU to GPU also between two.

    Within one process UCX's error handling is off, as in a run: with it on, UCX has no CUDA copy there.
    """
    try:
        cuda.require()
        buffers = [cuda.allocate(0, SIZE) for _ in range(2)]
    except UnavailableError as error:
        for path, mode in DEVICE_ROWS:
            yield PathFinding(path, "UCX", mode=mode, memory=plugins.memory_of(path)).refused(error)
        return
    own = nixl.make_agent("kvdeck-probe-device")
    pieces: list[tuple[Any, Any]] = []
    for path, mode in DEVICE_ROWS:
        row = PathFinding(path, "UCX", mode=mode, memory=plugins.memory_of(path))
        try:
            if not pieces:
                nixl.create_backend(own, "UCX", {"ucx_error_handling_mode": "none"})
                ends = [("DRAM", here.address), *(("VRAM", buffer.address) for buffer in buffers)]
                for kind, address in ends:
                    pieces.append((own, register(own, (address, SIZE, 0), kind, "UCX")))
                pieces.append((agent, register(agent, (buffers[0].address, SIZE, 0), "VRAM", "UCX")))
            with stdio.captured() as words:
                if mode == TWO_PROCESSES:
                    _device_to_peer(agent, here, buffers[0], peer)
                else:
                    _with_device(own, path, here, buffers)
        except UnavailableError as error:
            yield row.refused(error)
        else:
            ways = {heading: transports_in(words.text, heading) for heading in _HEADINGS[path]}
            over_tcp = [heading for heading, names in ways.items() if names and all("tcp/" in name for name in names)]
            transports = tuple(dict.fromkeys(name for names in ways.values() for name in names))
            row = dataclasses.replace(row, transports=transports)
            if over_tcp == [_PULLS]:  # a run writes by default, so slow reads don't degrade the row
                pulls = reasons.pulls_over_tcp(", ".join(ways[_PULLS]))
                yield dataclasses.replace(row.working(), reason=pulls.what, fix=pulls.fix)
            else:
                yield row.working(reasons.device_over_tcp(", ".join(ways[over_tcp[0]])) if over_tcp else None)
    for owner, piece in pieces:
        owner.deregister_memory(piece, backends=["UCX"])
    for buffer in buffers:
        cuda.release(buffer)


def _device_to_peer(agent: Any, here: Pages, buffer: cuda.DeviceBuffer, peer: Child) -> None:
    """Write to the second process's GPU memory, read back, and compare.

    Raises:
        UnavailableError: The second process has no GPU memory, or the transfer failed.
    """
    doing = "a transfer between two processes' GPU memory"
    told = _told_by(peer, doing)
    if "failed" in told:
        raise UnavailableError(told["failed"]["what"], told["failed"]["fix"])
    name = agent.add_remote_agent(base64.b64decode(told["metadata"]))
    here.fill()
    cuda.fill(buffer, here.address, SIZE)
    for operation in ("WRITE", "READ"):
        if operation == "READ":
            cuda.poison(buffer)
        move(
            agent,
            operation,
            ((buffer.address, SIZE, 0), "VRAM"),
            ((told["address"], SIZE, told["device"]), "VRAM"),
            peer=name if isinstance(name, str) else name.decode(),
            backend="UCX",
            doing=doing,
        )
    agent.remove_remote_agent(name)
    here.poison()
    cuda.read(buffer, here.address, SIZE)
    if not here.holds(here.pattern):
        raise reasons.native_failure(doing, "the returned bytes are wrong")


def _with_device(agent: Any, path: str, here: Pages, buffers: list[cuda.DeviceBuffer]) -> None:
    """Run one transfer of a path with a GPU within one process, and compare the bytes.

    Raises:
        UnavailableError: The transfer failed.
    """
    first, second = buffers
    ends = {
        HOST_TO_DEVICE: ((here.address, "DRAM"), (first.address, "VRAM")),
        DEVICE_TO_HOST: ((first.address, "VRAM"), (here.address, "DRAM")),
        DEVICE_TO_DEVICE: ((first.address, "VRAM"), (second.address, "VRAM")),
    }
    (source, source_kind), (target, target_kind) = ends[path]
    here.fill()
    cuda.poison(second)
    if path == HOST_TO_DEVICE:
        cuda.poison(first)
    else:
        cuda.fill(first, here.address, SIZE)
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
        cuda.read(first if path == HOST_TO_DEVICE else second, here.address, SIZE)
    if not here.holds(here.pattern):
        raise reasons.native_failure(doing, "the received bytes are wrong")
