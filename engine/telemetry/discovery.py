"""Discovery of telemetry sources on this host: usual ports, ports of serving processes, files, host counters."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kvdeck.engine.telemetry.address import is_path, source_address, source_path
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
from kvdeck.engine.telemetry.sources.sessions import dynamo_file_source, runs_source
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.formats import dynamo

if TYPE_CHECKING:
    from kvdeck.engine.telemetry.sources.prometheus import Endpoint

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
LEAST_S = 0.5
"""Time, s, that a port is given which is known late in a search."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search on this host has found so far."""

    sources: tuple[Source, ...]
    silent: tuple[tuple[str, str], ...] = ()
    """Serving processes without an endpoint: name and process id, and the reason."""
    awaited: tuple[str, ...] = ()
    """Addresses that were asked and haven't answered; empty once the search has ended."""
    unanswered: tuple[str, ...] = ()
    """Addresses that accepted a connection and didn't answer in the time of the search: a slow exporter, perhaps."""


Show = Callable[[Search], None]


async def search(home: Path | None, show: Show | None = None) -> Search:
    """Search this host; only ports that listen are contacted, each with one request, for at most SEARCH_S in all.

    Args:
        home: kvdeck's home folder; None leaves out its own runs.
        show: Gets what is known whenever that changes, the first time before any port is contacted.
    """
    local = (*file_sources(), *host_sources(home))

    def changed() -> None:
        if show is not None:
            show(Search((*probes.found, *local), (), probes.awaited, probes.unanswered))

    probes = _Probes(asyncio.get_running_loop().time() + SEARCH_S, changed)
    changed()

    async def of_processes() -> list[Serving]:
        serving = await asyncio.to_thread(Processes().found)
        await probes.ask(_addresses((), serving, Path("/")))
        return serving

    _, serving = await asyncio.gather(probes.ask(_addresses(USUAL_PORTS, (), Path("/"))), of_processes())
    silent = _silent(serving, probes.reasons, Path("/"))
    return Search((*probes.found, *local), silent, (), probes.unanswered)


async def found_endpoints(
    ports: Iterable[int] = USUAL_PORTS, serving: Sequence[Serving] = (), root: Path = Path("/")
) -> tuple[list[Endpoint], tuple[tuple[str, str], ...]]:
    """Return the endpoints that serve metrics, and the serving processes that have none, with the reason.

    Args:
        ports: Ports of the loopback to look at.
        serving: Processes whose own ports are looked at, whatever they are.
        root: Where /proc is.
    """
    probes = _Probes(asyncio.get_running_loop().time() + SEARCH_S)
    await probes.ask(_addresses(ports, serving, root))
    return probes.found, _silent(serving, probes.reasons, root)


def _addresses(ports: Iterable[int], serving: Sequence[Serving], root: Path) -> set[tuple[str, int]]:
    """Return host and port of the sockets that listen on these ports of the loopback, or that the processes own."""
    wanted = frozenset(ports)
    inodes = frozenset().union(*(sockets_of(process.pid, root) or () for process in serving))
    # A wildcard socket and a loopback one on the same port are one endpoint.
    return {
        (found.host, found.port)
        for found in listeners(root)
        if (found.loopback and found.port in wanted) or found.inode in inodes
    }


class _Probes:
    """Requests to addresses, each asked once; what they answered.

    Args:
        deadline: Time of the event loop at which every request ends.
        changed: Called when a request is sent or answered.
    """

    def __init__(self, deadline: float, changed: Callable[[], None] = lambda: None) -> None:
        self._deadline, self._changed = deadline, changed
        self._asked: dict[tuple[str, int], Endpoint] = {}
        self.reasons: dict[str, str] = {}
        """Why an address serves no metrics, by URL; empty if it does."""
        self._late: set[str] = set()

    @property
    def found(self) -> list[Endpoint]:
        """The endpoints that answered with metrics, by port."""
        return [self._asked[at] for at in self._in_order() if self.reasons.get(self._asked[at].url) == ""]

    @property
    def awaited(self) -> tuple[str, ...]:
        """The URLs that haven't answered, by port."""
        return tuple(self._asked[at].url for at in self._in_order() if self._asked[at].url not in self.reasons)

    @property
    def unanswered(self) -> tuple[str, ...]:
        """The URLs that let their time pass, by port."""
        return tuple(self._asked[at].url for at in self._in_order() if self._asked[at].url in self._late)

    def _in_order(self) -> list[tuple[str, int]]:
        return sorted(self._asked, key=lambda at: (at[1], at[0]))

    async def ask(self, addresses: Iterable[tuple[str, int]]) -> None:
        """Ask the addresses that weren't asked yet."""
        # Imported late: it takes longer than to find the host's own sources, which can be shown meanwhile.
        from kvdeck.engine.telemetry.sources.prometheus import Endpoint

        left = max(LEAST_S, self._deadline - asyncio.get_running_loop().time())
        fresh = {at: Endpoint(f"http://{at[0]}:{at[1]}/metrics", left) for at in addresses if at not in self._asked}
        self._asked |= fresh
        self._changed()
        await asyncio.gather(*(self._ask(endpoint) for endpoint in fresh.values()))

    async def _ask(self, endpoint: Endpoint) -> None:
        now = asyncio.get_running_loop().time
        end = now() + (endpoint.patience_s or 0.0)
        reason = self.reasons[endpoint.url] = await _answers(endpoint)
        if reason and now() >= end:
            self._late.add(endpoint.url)
        self._changed()


def _silent(serving: Sequence[Serving], reasons: Mapping[str, str], root: Path) -> tuple[tuple[str, str], ...]:
    """Return the serving processes without an endpoint, and the reason."""
    there = listeners(root)
    silent = {process: _silence(sockets_of(process.pid, root), there, reasons) for process in serving}
    # The workers of an engine have no endpoint of their own: they run in its session or container.
    heard = {where for process, reason in silent.items() if not reason for where in _places(process, root)}
    return tuple(
        (f"{process.name} {process.pid}", reason)
        for process, reason in silent.items()
        if reason and not heard.intersection(_places(process, root))
    )


def _places(process: Serving, root: Path) -> set[str]:
    """Return the session and, if it has one, the container or service that a process runs in."""
    places = {process.group.name} if process.group is not None else set()
    with contextlib.suppress(OSError, IndexError):
        # Fields after the program's name, which may hold blanks: state, parent, process group, session.
        fields = (root / "proc" / str(process.pid) / "stat").read_text(errors="replace").rpartition(") ")[2].split()
        places.add(f"session {fields[3]}")
    return places


def _silence(inodes: frozenset[int] | None, there: list[Listener], reasons: Mapping[str, str]) -> str:
    """Return why a process has no endpoint; empty if it has one."""
    if inodes is None:
        return "another user's process: its ports can't be read"
    urls = [f"http://{found.host}:{found.port}/metrics" for found in there if found.inode in inodes]
    if not urls:
        return "listens on no TCP port"
    if any(reasons.get(url) == "" for url in urls):
        return ""
    return "; ".join(f"port {urlsplit(url).port}: {reasons.get(url, 'opened during the search')}" for url in urls)[:300]


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
        texts: What `source_address` takes: addresses, paths, names of the host's sources, names that a search lists.
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
            of_text = _named(text, home, timeout_s)
        except UsageError as error:
            refused.append((text, error))
            continue
        for source in of_text:
            found.setdefault(source.name, source)  # a source named twice must not be counted twice
    if refused and not (wait and found):
        raise refused[0][1]
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
                said = f"{source_path(self.name)} does not exist yet; checked at each sample"
                raise SourceGone(said if is_path(self.name) else error.what) from error
        return await self._source.read()

    async def close(self) -> None:
        """Close the source if it was opened."""
        if self._source is not None:
            await self._source.close()


def _named(text: str, home: Path | None, timeout_s: float | None = None) -> list[Source]:
    address = source_address(text)
    if address.form == "host":
        return [_host_source(address.text, home)]
    if address.form == "endpoint":
        from kvdeck.engine.telemetry.sources.prometheus import Endpoint

        return [Endpoint(address.text, timeout_s)]
    if address.form == "session":
        return [dynamo_file_source(address.path)]
    rings = rings_in(address.path) if address.form == "rings" else [address.path]
    return [ring_source(ring) for ring in rings]


def _host_source(name: str, home: Path | None) -> Source:
    io, tier = process_sources()
    make: dict[str, Callable[[], Source]] = {
        "disks": disks_source,
        "network": network_source,
        "fabric": fabric_source,
        "nvidia-fs": nvidia_fs_source,
        "cufile": cufile_source,
        "gpus": gpu_source,
        "processes": lambda: io,
        "disk-tier": lambda: tier,
    }
    if name == "runs":
        if home is None:
            raise UsageError("the source 'runs' needs kvdeck's home folder", "set KVDECK_HOME")
        return runs_source(home)
    return make[name]()
