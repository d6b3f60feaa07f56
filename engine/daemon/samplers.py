"""Telemetry sampling children: one child per distinct request, shared by clients and recordings.

The child loads the libraries for sampling (HTTP, NVML), so the engine stays small and survives the child's death.
The child writes a sample to its recordings before it forwards it, so a slow client never costs a recording a sample.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from kvdeck.engine.children.child import PIPE, Child, exit_reason
from kvdeck.engine.children.pipes import PipeLines, exit_of, started
from kvdeck.engine.children.restarts import Restarts
from kvdeck.engine.daemon.connection import Connection
from kvdeck.engine.daemon.dispatch import answers
from kvdeck.engine.daemon.past_samples import PastSamples, messages
from kvdeck.engine.daemon.watcher import Watcher
from kvdeck.engine.protocol import StartRecording, WatchTelemetry
from kvdeck.engine.tasks import TaskGroup, start_part
from kvdeck.engine.telemetry.checks import STUCK_S
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.engine.telemetry.sample import Check, Snapshot, to_mapping
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import refuse_credentials
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

MAX_HZ = 10.0
COMMAND = (sys.executable, "-m", "kvdeck.engine.telemetry")
RECORDING = b'{"recording":'
"""Start of a child's line that reports on a recording; other lines are samples."""

LAST_LINES_SECONDS = 1.0
"""Time from a child's end to that of its output, or the other way round."""

log = logging.getLogger("kvdeck.engine")


class SamplingRequest(NamedTuple):
    """Parameters of a sampling child; equal parameters share one child."""

    hz: float
    sources: tuple[str, ...]
    block_bytes: float | None
    pins: tuple[str, ...]
    stuck_s: float = STUCK_S
    limits: tuple[tuple[str, float], ...] = ()


def asked(command: WatchTelemetry | StartRecording) -> SamplingRequest:
    """Return the sampling parameters of a command.

    Raises:
        UsageError: A number is out of range, or a source contains credentials.
    """
    hz, block_bytes = command.hz, command.block_bytes
    if not 0 <= hz <= MAX_HZ:
        raise UsageError(f"can't sample at {hz!r} Hz", f"give a number from 0 to {number_text(MAX_HZ)}")
    if block_bytes is not None and block_bytes <= 0:
        raise UsageError(f"a block can't have {block_bytes!r} bytes", "give a number above 0, or omit it")
    stuck_s = STUCK_S if command.stuck_s is None else command.stuck_s
    if not 0 < stuck_s < math.inf:
        raise UsageError(f"an engine can't be stuck after {stuck_s!r} seconds", "give a number above 0, or omit it")
    limits = command.limits or {}
    ServiceLimits.of(limits)
    for source in command.sources:
        refuse_credentials(source, "the source")
    return SamplingRequest(hz, command.sources, block_bytes, command.pins, stuck_s, tuple(sorted(limits.items())))


class Sampling:
    """A sampling child, restarted when it dies, until `close`, or until it has failed too often.

    Args:
        group: Owner of its task.
        said: Called with the child's reports on recordings, and with its failure, which is without a name.
        past: Receives the samples too.
    """

    def __init__(
        self,
        group: TaskGroup,
        home: Path,
        what: SamplingRequest,
        said: Callable[[SamplingRequest, dict[str, Any]], None],
        past: PastSamples,
    ) -> None:
        self._home, self._what, self._said, self._past = home, what, said, past
        self.clients: set[Watcher] = set()
        self.quiet: set[Watcher] = set()
        """Clients that only want past samples when they come back."""
        self.recordings: set[str] = set()
        self._ending: dict[str, str | None] = {}
        """Recordings to end, and the reason; passed to a new child if the child dies before it ends them."""
        self._refused = ""
        """Why the child samples nothing, in its own words."""
        self._restarts = Restarts()
        self._stdin: asyncio.WriteTransport | None = None
        self._wanted_again = asyncio.Event()
        self._task = start_part(group, f"sampling of {', '.join(what.sources) or 'this host'}", self._keep_sampling())

    @property
    def wanted(self) -> bool:
        return bool(self.clients or self.quiet or self.recordings)

    @property
    def works(self) -> bool:
        """True if a child runs; False for a moment after one died, and after it has failed too often."""
        return self._stdin is not None

    def add(self, watcher: Watcher, quiet: bool) -> None:
        """Send samples to a client, or, if it is quiet, only sample for it."""
        self.drop(watcher)
        (self.quiet if quiet else self.clients).add(watcher)

    def drop(self, watcher: Watcher) -> None:
        """Sample no more for a client."""
        self.clients.discard(watcher)
        self.quiet.discard(watcher)

    def close(self) -> None:
        """Stop the child and don't restart it."""
        self._past.leave(self._what)
        self._restarts.stop()
        self._task.cancel()

    def revive(self) -> None:
        """Start a child once more that has failed too often, at a client's request."""
        if self._restarts.again():
            self._wanted_again.set()

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command to the child, if one runs; a new child receives the recordings when it starts."""
        if self._stdin is not None:
            self._stdin.write(orjson.dumps(command, option=orjson.OPT_APPEND_NEWLINE))

    def record(self, name: str) -> None:
        self.recordings.add(name)
        self.tell({"record": name})

    def end_recording(self, name: str, reason: str | None) -> None:
        """Request the child, or the next one if none runs, to end a recording."""
        self._ending[name] = reason
        self.tell({"stop": name, "reason": reason})

    def forget(self, name: str) -> None:
        """Drop an ended recording."""
        self.recordings.discard(name)
        self._ending.pop(name, None)

    async def _keep_sampling(self) -> None:
        loop, restarts = asyncio.get_running_loop(), self._restarts
        while True:
            reason = await self._sample()
            pause = restarts.ended(loop.time(), reason)
            log.warning("sampling ended: %s", reason)
            if pause is not None:
                await asyncio.sleep(pause)
                restarts.due()
            else:
                self._fail()
                self._wanted_again.clear()
                await self._wanted_again.wait()

    async def _sample(self) -> str:
        """Run one child from its start to its end, and return how it ended."""
        try:
            # In the engine's group, so that ending a hanging engine's group ends it too.
            child = await started(lambda: Child(COMMAND, stdin=PIPE, stdout=PIPE, own_group=False))
        except OSError as error:
            return f"it can't be started: {error}"
        loop = asyncio.get_running_loop()
        self._restarts.started(loop.time())
        lines = PipeLines(child.stdout, self._take)
        stdin: asyncio.WriteTransport | None = None
        try:
            stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, child.stdin)
            # Not as an argument: every user of the host can read those.
            stdin.write(orjson.dumps({**self._what._asdict(), "home": str(self._home)}) + b"\n")
            self._stdin = stdin
            for name in sorted(self.recordings):
                self.tell({"record": name})
                if name in self._ending:
                    self.tell({"stop": name, "reason": self._ending[name]})
            await self._end_of(child, lines)
        finally:
            self._stdin = None
            if stdin is not None and not stdin.is_closing():
                stdin.abort()
            lines.close()
            status = child.kill()
            child.close()
        if lines.broken is not None:
            raise lines.broken
        if lines.dropped:
            log.warning("sampling: %d lines were too long", lines.dropped)
        return "was killed and does not end" if status is None else exit_reason(status)

    async def _end_of(self, child: Child, lines: PipeLines) -> None:
        """Wait until the child has ended and its last lines are read, or until it closes its output."""
        async with TaskGroup() as tasks:
            exited = tasks.create_task(exit_of(child))
            closed = tasks.create_task(lines.ended.wait())
            await asyncio.wait((exited, closed), return_when=asyncio.FIRST_COMPLETED)
            if lines.broken is None:
                await asyncio.wait((exited, closed), timeout=LAST_LINES_SECONDS)
            exited.cancel()
            closed.cancel()

    def _take(self, lines: list[bytes]) -> None:
        for line in lines:
            if not line.startswith(RECORDING):
                self._past.add(line, self._what)
                for watcher in self.clients:
                    watcher.sampled(line)
                continue
            try:
                said = load_record(line)["recording"]
                if not said["name"]:
                    self._refused = str(said["reason"])
                self._said(self._what, said)
            except (ValueError, TypeError, KeyError) as error:  # a child may print anything
                log.warning("a sampling child's report can't be read: %s", error)

    def _fail(self) -> None:
        """Tell clients and recordings that there will be no more samples."""
        how = self._refused or f"the sampling process {self._restarts.reason}"
        what = f"{how} ({self._restarts.failures} times; not tried again)"
        log.error("sampling failed: %s", what)
        self._said(self._what, {"name": "", "state": "failed", "reason": what})
        check = Check("sources", "warning", what, "see the engine's log; leave the Monitor and come back to try again")
        sample = orjson.dumps(to_mapping(Snapshot(time.time(), checks=(check,))))
        for watcher in self.clients:
            watcher.sampled(sample)


class Samplers:
    """The sampling children, and the clients that receive their samples. `start` comes first."""

    def __init__(self, home: Path, said: Callable[[SamplingRequest, dict[str, Any]], None]) -> None:
        self._home, self._said = home, said
        self._group: TaskGroup | None = None
        self._samplings: dict[SamplingRequest, Sampling] = {}
        self._past: dict[Hashable, PastSamples] = {}
        """Past samples by what they show: samplings of the same sources share them."""

    def start(self, group: TaskGroup) -> None:
        """Let the children's tasks belong to `group`."""
        self._group = group

    @answers(WatchTelemetry)
    def watch(self, connection: Connection, command: WatchTelemetry) -> None:
        """Start, change or (at 0 Hz) end a telemetry request of a client.

        Raises:
            UsageError: A number, source or pin is invalid, or the client has too many requests.
        """
        what = asked(command)
        watcher = connection.watcher(command.request)
        if what.hz:
            sampling = self.sampling(what)
            sampling.add(watcher, command.quiet)
            sampling.revive()
        else:
            connection.unwatch(command.request)
        watcher.clear()
        if what.hz and command.after_ns is not None:
            watcher.catch_up(messages(self._past[_shown(what)].after(command.after_ns)))
        for other in list(self._samplings):
            if other != what or not what.hz:
                self._drop(other, watcher)

    def leave(self, connection: Connection) -> None:
        """End a client's telemetry."""
        for watcher in connection.watchers:
            for what in list(self._samplings):
                self._drop(what, watcher)

    def _drop(self, what: SamplingRequest, watcher: Watcher) -> None:
        self._samplings[what].drop(watcher)
        self.let_go(what)

    def sampling(self, what: SamplingRequest) -> Sampling:
        """Return the child for these parameters, started if there is none."""
        if what not in self._samplings:
            assert self._group is not None
            past = self._past.setdefault(_shown(what), PastSamples())
            self._samplings[what] = Sampling(self._group, self._home, what, self._said, past)
        return self._samplings[what]

    def writer(self, what: SamplingRequest, recording: str) -> Sampling | None:
        """Return the child that writes a recording; None if none runs now, or the recording has not begun."""
        sampling = self._samplings.get(what)
        return sampling if sampling is not None and sampling.works and recording in sampling.recordings else None

    def release(self, what: SamplingRequest, recording: str) -> None:
        """Drop an ended recording, and its child if nothing else uses it."""
        if what in self._samplings:
            self._samplings[what].forget(recording)
            self.let_go(what)

    def let_go(self, what: SamplingRequest) -> None:
        """Stop the child if no client and no recording uses it."""
        sampling = self._samplings.get(what)
        if sampling is not None and not sampling.wanted:
            self._samplings.pop(what).close()
            if not any(_shown(other) == _shown(what) for other in self._samplings):
                del self._past[_shown(what)]

    def close(self) -> None:
        """Stop all children."""
        for what in list(self._samplings):
            self._samplings.pop(what).close()


def _shown(what: SamplingRequest) -> Hashable:
    """Return what decides the values in a sampling's samples, other than its rate, pins and checks."""
    return what.sources, what.block_bytes
