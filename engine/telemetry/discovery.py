"""Discovery of telemetry sources on this host: usual ports, ports of serving processes, files, host counters."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from kvdeck.engine.telemetry.listeners import Listener, listeners, sockets_of
from kvdeck.engine.telemetry.source import Kind, Reading, Source, SourceGone
from kvdeck.engine.telemetry.sources.cufile import cufile_source, find_gds_stats
from kvdeck.engine.telemetry.sources.devices import (
    disks_source,
    fabric_source,
    has_fabric,
    has_nvidia_fs,
    network_source,
    nvidia_fs_source,
)
from kvdeck.engine.telemetry.sources.gpu import gpu_source
from kvdeck.engine.telemetry.sources.nixl_ring import ring_source, rings_in
from kvdeck.engine.telemetry.sources.processes import Processes, Serving, process_sources
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.sources.sessions import dynamo_file_source, runs_source
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.host.user_home import expanded

NIXL_PORT = 19090
NIXL_RANKS = 64
USUAL_PORTS = (
    *(6880, 6881, 7001, 8000, 8001, 8002, 8080, 8081, 8082, 9090, 9091, 9400, 30000),
    *range(NIXL_PORT, NIXL_PORT + NIXL_RANKS),
)
"""Default metrics ports of KVBM, vLLM, Dynamo's frontend and workers, LMCache, DCGM's exporter, SGLang, and NIXL's
exporters, whose rank i listens on 19090 + i."""
SEARCH_S = 2.5
"""Longest time, s, that a search waits for the answers of all ports."""

HOST_SOURCES = ("disks", "network", "fabric", "nvidia-fs", "cufile", "gpus", "processes", "disk-tier", "runs")
"""Values of `--source` that name the host's own counters."""


@dataclass(frozen=True, slots=True)
class Search:
    """Result of a search on this host."""

    sources: tuple[Source, ...]
    silent: tuple[tuple[str, str], ...]
    """Serving processes without an endpoint: name and process id, and the reason."""


async def search(home: Path | None) -> Search:
    """Search this host; only ports that listen are contacted, each with one request, for at most SEARCH_S."""
    serving = await asyncio.to_thread(Processes().found)
    endpoints, silent = await found_endpoints(USUAL_PORTS, serving)
    return Search((*endpoints, *file_sources(), *host_sources(home)), silent)


async def found_endpoints(
    ports: Iterable[int] = USUAL_PORTS, serving: Sequence[Serving] = (), root: Path = Path("/")
) -> tuple[list[Endpoint], tuple[tuple[str, str], ...]]:
    """Return the endpoints that serve metrics, and the serving processes that have none, with the reason.

    Args:
        ports: Ports of the loopback to look at.
        serving: Processes whose own ports are looked at, whatever they are.
        root: Where /proc is.
    """
    there = listeners(root)
    wanted = frozenset(ports)
    owned = {process.pid: sockets_of(process.pid, root) for process in serving}
    inodes = frozenset().union(*(mine for mine in owned.values() if mine))
    chosen = [found for found in there if (found.loopback and found.port in wanted) or found.inode in inodes]
    # A wildcard socket and a loopback one on the same port are one endpoint.
    addresses = {(found.host, found.port): found for found in reversed(chosen)}
    endpoints = [Endpoint(f"http://{host}:{port}/metrics", SEARCH_S) for host, port in sorted(addresses, key=_by_port)]
    answers = await asyncio.gather(*(_answers(endpoint) for endpoint in endpoints))
    found = [endpoint for endpoint, reason in zip(endpoints, answers, strict=True) if not reason]
    reasons = {endpoint.url: reason for endpoint, reason in zip(endpoints, answers, strict=True)}
    silent = {process: _silence(owned[process.pid], there, reasons) for process in serving}
    # The workers of an engine have no endpoint of their own: they run in its session or container.
    heard = {where for process, reason in silent.items() if not reason for where in _places(process, root)}
    named = [
        (f"{process.name} {process.pid}", reason)
        for process, reason in silent.items()
        if reason and not heard.intersection(_places(process, root))
    ]
    return found, tuple(named)


def _places(process: Serving, root: Path) -> set[str]:
    """Return the session and, if it has one, the container or service that a process runs in."""
    places = {process.group.name} if process.group is not None else set()
    with contextlib.suppress(OSError, IndexError):
        # Fields after the program's name, which may hold blanks: state, parent, process group, session.
        fields = (root / "proc" / str(process.pid) / "stat").read_text(errors="replace").rpartition(") ")[2].split()
        places.add(f"session {fields[3]}")
    return places


def _by_port(address: tuple[str, int]) -> tuple[int, str]:
    return address[1], address[0]


def _silence(inodes: frozenset[int] | None, there: list[Listener], reasons: dict[str, str]) -> str:
    """Return why a process has no endpoint; empty if it has one."""
    if inodes is None:
        return "another user's process: its ports can't be read"
    urls = [f"http://{found.host}:{found.port}/metrics" for found in there if found.inode in inodes]
    if not urls:
        return "listens on no TCP port"
    if any(not reasons.get(url, "") for url in urls):
        return ""
    return "; ".join(f"port {urlsplit(url).port}: {reasons[url]}" for url in urls)[:300]


async def _answers(endpoint: Endpoint) -> str:
    """Return why an address serves no metrics; empty if it does."""
    try:
        endpoint.kind = (await endpoint.read()).kind or endpoint.kind
    except SourceGone as error:
        return error.what
    finally:
        await endpoint.close()
    endpoint.patience_s = None
    return ""


def host_sources(home: Path | None) -> list[Source]:
    """Return the sources of the host's own counters that exist on this host."""
    found: list[Source] = [disks_source(), network_source()]
    if has_fabric():
        found.append(fabric_source())
    if has_nvidia_fs():
        found.append(nvidia_fs_source())
    if find_gds_stats() is not None:
        found.append(cufile_source())
    if any(Path("/dev").glob("nvidia[0-9]*")):
        found.append(gpu_source())
    found += process_sources()
    if home is not None:
        found.append(runs_source(home))
    return found


def file_sources() -> list[Source]:
    """Return the telemetry rings in `NIXL_TELEMETRY_DIR` and the active session of Dynamo's benchmark."""
    found: list[Source] = []
    folder = os.environ.get("NIXL_TELEMETRY_DIR")
    if folder:
        found += [ring_source(path) for path in rings_in(Path(folder))]
    active = dynamo.active_session()
    path = dynamo.session_file(active.name) if active and active.name else None
    if path is not None:
        found.append(dynamo_file_source(path))
    return found


async def everything(home: Path | None) -> list[Source]:
    """Return all sources that a search finds: endpoints, files and host counters."""
    return list((await search(home)).sources)


def named(texts: Iterable[str], home: Path | None, wait: bool = False, timeout_s: float | None = None) -> list[Source]:
    """Return the sources that `--source` names, without duplicates.

    Args:
        texts: Addresses, paths, names in `HOST_SOURCES`, or source names as `--list-sources` prints them.
        wait: If at least one source exists, represent missing ones by `Awaited`, unreachable until they appear:
            for example a saved ring whose agent isn't running.
        timeout_s: Timeout of an endpoint, in seconds; None follows the pace of its answers.

    Raises:
        UsageError: A text names no source; with `wait`, none of them does.
    """
    found: dict[str, Source] = {}
    refused: list[tuple[str, UsageError]] = []
    for text in texts:
        try:
            of_text = _named(text, home)
        except UsageError as error:
            refused.append((text, error))
            continue
        for source in of_text:
            found.setdefault(source.name, source)  # a source named twice must not be counted twice
    if refused and not (wait and found):
        raise refused[0][1]
    for source in found.values():
        if isinstance(source, Endpoint):
            source.patience_s = timeout_s
    return [*found.values(), *(Awaited(text, home) for text, _ in refused)]


class Awaited:
    """A source that doesn't exist yet: each read looks for it, and reads it once it exists."""

    least_period_s = 1.0

    def __init__(self, text: str, home: Path | None) -> None:
        self.name = text
        self.kind: Kind = "session" if text.endswith(".json") else "ring"
        self._home = home
        self._source: Source | None = None

    async def read(self) -> Reading:
        """Read the source.

        Raises:
            SourceGone: It doesn't exist yet, or can't be read.
        """
        if self._source is None:
            try:
                self._source, *_ = _named(self.name, self._home)
            except UsageError as error:
                path = _path(self.name)
                said = f"{path} does not exist yet; checked at each sample" if path.is_absolute() else error.what
                raise SourceGone(said) from error
        return await self._source.read()

    async def close(self) -> None:
        """Close the source if it was opened."""
        if self._source is not None:
            await self._source.close()


def _named(text: str, home: Path | None) -> list[Source]:
    io, tier = process_sources()
    own: dict[str, Source] = {
        "disks": disks_source(),
        "network": network_source(),
        "fabric": fabric_source(),
        "nvidia-fs": nvidia_fs_source(),
        "cufile": cufile_source(),
        "gpus": gpu_source(),
        "processes": io,
        "disk-tier": tier,
    }
    if home is not None:
        own["runs"] = runs_source(home)
    for name, source in own.items():
        if text in (name, source.name):
            return [source]
    if text.startswith(("http://", "https://")):
        return [Endpoint(text)]
    path = _path(text)
    if path.is_dir():
        rings: list[Source] = [ring_source(ring) for ring in rings_in(path)]
        if not rings:
            raise UsageError(f"{path} has no telemetry ring", "start the agent with NIXL_TELEMETRY_ENABLE=y first")
        return rings
    if path.is_file():
        return [dynamo_file_source(path) if path.suffix == ".json" else ring_source(path)]
    if text.startswith(":") and text[1:].isdigit():
        return [Endpoint(f"127.0.0.1{text}")]
    with contextlib.suppress(UsageError):
        host, _, port = text.partition("/")[0].rpartition(":")
        if host and port.isdigit():
            return [Endpoint(text)]
    raise UsageError(
        f"the source {text!r} is not an address, a file or one of {', '.join(HOST_SOURCES)}",
        "see `kvdeck monitor --list-sources`",
    )


def _path(text: str) -> Path:
    """Return the path in `text`, without the prefix of a listed source (`ring /path`, `session /path`)."""
    return expanded(text.removeprefix("ring ").removeprefix("session "))
