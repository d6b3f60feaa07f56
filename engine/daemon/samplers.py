"""Telemetry sampling children: one child per distinct request, shared by clients and recordings.

The child loads the libraries for sampling (HTTP, NVML), so the engine stays small and survives the child's death.
The child writes a sample to its recordings before it forwards it, so a slow client never costs a recording a sample.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from kvdeck.engine.daemon.connection import Connection
from kvdeck.engine.protocol import MAX_LINE, Record, Watch
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import refuse_credentials
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

MAX_HZ = 10.0
RESTART_SECONDS = 2.0
RECORDING = b'{"recording":'
"""Start of a child's line that reports on a recording; other lines are samples."""

log = logging.getLogger("kvdeck.engine")


class Asked(NamedTuple):
    """Parameters of a sampling child; equal parameters share one child."""

    hz: float
    sources: tuple[str, ...]
    block_bytes: float | None
    pins: tuple[str, ...]


def asked(command: Watch | Record) -> Asked:
    """Return the sampling parameters of a command.

    Raises:
        UsageError: A number or text is invalid, or a source contains credentials.
    """
    hz, block_bytes = command.hz, command.block_bytes
    if not _is_number(hz) or not 0 <= hz <= MAX_HZ:
        raise UsageError(f"can't sample at {hz!r} Hz", f"give a number from 0 to {number_text(MAX_HZ)}")
    if block_bytes is not None and not (_is_number(block_bytes) and 0 < block_bytes < math.inf):
        raise UsageError(f"a block can't have {block_bytes!r} bytes", "give a number above 0, or omit it")
    sources = _texts(command.sources, "source")
    for source in sources:
        refuse_credentials(source, "the source")
    return Asked(float(hz), sources, block_bytes, _texts(command.pins, "pin"))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _texts(values: Sequence[object], what: str) -> tuple[str, ...]:
    texts = tuple(value for value in values if isinstance(value, str))
    if len(texts) != len(values):
        raise UsageError(f"a {what} is not a string", "give addresses and paths" if "source" in what else "give names")
    return texts


class Sampling:
    """A running sampling child, restarted when it dies, until `close`.

    Args:
        said: Called with the child's reports on recordings.
    """

    def __init__(self, home: Path, what: Asked, said: Callable[[Asked, dict[str, Any]], None]) -> None:
        self._home, self._what, self._said = home, what, said
        self.clients: set[Connection] = set()
        self.recordings: set[str] = set()
        self._ending: dict[str, str | None] = {}
        """Recordings to end, and the reason; passed to a new child if the child dies before it ends them."""
        self._child: asyncio.subprocess.Process | None = None
        self._task = asyncio.ensure_future(self._sample())

    @property
    def wanted(self) -> bool:
        return bool(self.clients or self.recordings)

    @property
    def works(self) -> bool:
        """True if a child runs; False for a moment after one died."""
        return self._child is not None

    def close(self) -> None:
        """Stop the child and don't restart it."""
        self._task.cancel()

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command to the child, if one runs; a new child receives the recordings when it starts."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.write(orjson.dumps(command, option=orjson.OPT_APPEND_NEWLINE))

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

    async def _sample(self) -> None:
        while True:
            try:
                await self._sample_on()
            except Exception:  # a child may print anything; start the next one
                log.exception("sampling failed")
            await asyncio.sleep(RESTART_SECONDS)

    async def _sample_on(self) -> None:
        what = orjson.dumps({**self._what._asdict(), "home": str(self._home)})
        while True:
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "kvdeck.engine.telemetry"),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=MAX_LINE,
                )
            except OSError as error:
                log.warning("can't start the sampler: %s", error)
            else:
                assert child.stdin is not None
                child.stdin.write(what + b"\n")  # not as an argument: every user of the host can read those
                await self._pass_on(child)
                log.warning("the sampler ended with status %s", child.returncode)
            await asyncio.sleep(RESTART_SECONDS)

    async def _pass_on(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        self._child = child
        try:
            for name in sorted(self.recordings):
                self.tell({"record": name})
                if name in self._ending:
                    self.tell({"stop": name, "reason": self._ending[name]})
            while line := await child.stdout.readline():
                if line.startswith(RECORDING):
                    self._said(self._what, load_record(line)["recording"])
                    continue
                for connection in self.clients:
                    connection.watched(line.rstrip(b"\n"))
            await child.wait()
        except ValueError:
            log.warning("the sampler sent a sample longer than %d bytes", MAX_LINE)
        finally:
            self._child = None
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()


class Watching:
    """The sampling children, and the clients that receive their samples."""

    def __init__(self, home: Path, said: Callable[[Asked, dict[str, Any]], None]) -> None:
        self._home, self._said = home, said
        self._samplings: dict[Asked, Sampling] = {}

    def watch(self, connection: Connection, command: Watch) -> None:
        """Start, change or (at 0 Hz) end a client's telemetry.

        Raises:
            UsageError: A number, source or pin is invalid.
        """
        what = asked(command)
        if what.hz:
            self.sampling(what).clients.add(connection)
        for other, sampling in list(self._samplings.items()):
            if other != what or not what.hz:
                sampling.clients.discard(connection)
                self.let_go(other)

    def leave(self, connection: Connection) -> None:
        """End a client's telemetry."""
        for what, sampling in list(self._samplings.items()):
            sampling.clients.discard(connection)
            self.let_go(what)

    def sampling(self, what: Asked) -> Sampling:
        """Return the child for these parameters, started if there is none."""
        if what not in self._samplings:
            self._samplings[what] = Sampling(self._home, what, self._said)
        return self._samplings[what]

    def let_go(self, what: Asked) -> None:
        """Stop the child if no client and no recording uses it."""
        sampling = self._samplings.get(what)
        if sampling is not None and not sampling.wanted:
            self._samplings.pop(what).close()

    def close(self) -> None:
        """Stop all children."""
        for sampling in self._samplings.values():
            sampling.close()
