"""Discovery of telemetry sources on this host; only ports that already listen are contacted."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

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
from kvdeck.engine.telemetry.sources.processes import process_sources
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.sources.sessions import dynamo_file_source, runs_source
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.formats import dynamo
from kvdeck.sessions.host.user_home import expanded

USUAL_PORTS = (6880, 6881, 7001, 8000, 8001, 8002, 8080, 8081, 8082, 9090, 9091, 9400, 19090)
"""Default metrics ports of KVBM, vLLM, Dynamo's frontend and workers, LMCache, and NIXL's and DCGM's exporters."""
_LOOPBACK = {"0100007F", "00000000"}
_ONLY_6 = "00000000000000000000000001000000"
_LOOPBACK_6 = {"0" * 32, _ONLY_6, "0000000000000000FFFF00000100007F"}
_LISTEN = "0A"
"""TCP_LISTEN in /proc/net/tcp."""
_LOOK_S = 0.5
"""HTTP timeout while probing a port, s."""

HOST_SOURCES = ("disks", "network", "fabric", "nvidia-fs", "cufile", "gpus", "processes", "disk-tier", "runs")
"""Values of `--source` that name the host's own counters."""


def listening(root: Path = Path("/")) -> dict[int, str]:
    """Map each TCP port that listens on loopback to its loopback address, from /proc/net/tcp and tcp6."""
    ports: dict[int, str] = {}
    for name, own in (("tcp6", _LOOPBACK_6), ("tcp", _LOOPBACK)):
        try:
            lines = (root / "proc/net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == _LISTEN and address in own:
                ports[int(port, 16)] = "[::1]" if address == _ONLY_6 else "127.0.0.1"
    return ports


async def found_endpoints(ports: Iterable[int] = USUAL_PORTS) -> list[Endpoint]:
    """Return the endpoints on `ports` of the loopback that serve metrics; sends one request to each listening port."""
    there = listening()
    candidates = [Endpoint(f"http://{there[port]}:{port}/metrics", _LOOK_S) for port in ports if port in there]
    answers = await asyncio.gather(*(_answers(endpoint) for endpoint in candidates))
    return [endpoint for endpoint, answered in zip(candidates, answers, strict=True) if answered]


async def _answers(endpoint: Endpoint) -> bool:
    try:
        endpoint.kind = (await endpoint.read()).kind or endpoint.kind
    except SourceGone:
        return False
    finally:
        await endpoint.close()
    return True


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
    """Return all sources that discovery detects: endpoints, files and host counters."""
    return [*await found_endpoints(), *file_sources(), *host_sources(home)]


def named(texts: Iterable[str], home: Path | None, wait: bool = False) -> list[Source]:
    """Return the sources that `--source` names, without duplicates.

    Args:
        texts: Addresses, paths, names in `HOST_SOURCES`, or source names as `--list-sources` prints them.
        wait: If at least one source exists, represent missing ones by `Awaited`, unreachable until they appear:
            for example a saved ring whose agent isn't running.

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
