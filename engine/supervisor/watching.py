"""Who watches what: one sampling child for all clients that ask for the same, ended when the last one leaves.

The child loads what watching needs (HTTP, NVML), so the supervisor stays small, and lives on if the child does not.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path

import orjson

from kvdeck.engine.protocol import MAX_LINE, Watch
from kvdeck.engine.supervisor.connection import Connection
from kvdeck.sessions.errors import UsageError

MAX_HZ = 10.0
RESTART_SECONDS = 2.0
_Key = tuple[float, tuple[str, ...]]

log = logging.getLogger("kvdeck.engine")


class Watching:
    """The sampling children and the clients of each."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._clients: dict[_Key, set[Connection]] = {}
        self._children: dict[_Key, asyncio.Task[None]] = {}

    def watch(self, connection: Connection, command: Watch) -> None:
        """Begin, change or end what a client watches.

        Raises:
            UsageError: The command's numbers or sources can't be.
        """
        hz, sources = command.hz, command.sources
        if not isinstance(hz, (int, float)) or not 0 <= hz <= MAX_HZ:
            raise UsageError(f"can't watch at {hz!r} Hz", f"give a number from 0 to {MAX_HZ:g}")
        if not all(isinstance(source, str) for source in sources):
            raise UsageError("a source to watch is no text", "give addresses and paths")
        self.leave(connection)
        if hz:
            key = (float(hz), tuple(sources))
            self._clients.setdefault(key, set()).add(connection)
            if key not in self._children:
                self._children[key] = asyncio.ensure_future(self._sample(key))

    def leave(self, connection: Connection) -> None:
        """A client watches no more."""
        for key, clients in list(self._clients.items()):
            clients.discard(connection)
            if not clients:
                del self._clients[key]
                self._children.pop(key).cancel()

    def close(self) -> None:
        """End every child."""
        for task in self._children.values():
            task.cancel()

    async def _sample(self, key: _Key) -> None:
        """Keep a child at work and pass its lines on; one that dies is started again."""
        hz, sources = key
        what = orjson.dumps({"hz": hz, "sources": sources, "home": str(self._home)}).decode()
        while True:
            try:
                child = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "kvdeck.engine.watch", what),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    limit=MAX_LINE,
                )
            except OSError as error:
                log.warning("can't start watching: %s", error)
            else:
                await self._pass_on(child, key)
                log.warning("watching ended with status %s", child.returncode)
            await asyncio.sleep(RESTART_SECONDS)

    async def _pass_on(self, child: asyncio.subprocess.Process, key: _Key) -> None:
        assert child.stdout is not None
        try:
            while line := await child.stdout.readline():
                for connection in self._clients.get(key, ()):
                    connection.watched(line.rstrip(b"\n"))
            await child.wait()
        except ValueError:
            log.warning("watching: a moment is longer than %d bytes", MAX_LINE)
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):
                    child.kill()
