"""The Monitor's connection thread: subscribes to telemetry in the engine and posts each sample."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from textual.message import Message

from kvdeck.app.tui.messages import MomentSeen, RecordingsSeen
from kvdeck.app.tui.session_requests import told
from kvdeck.engine.client import client as engine
from kvdeck.engine.protocol import FromEngine, RecordingsChanged, WatchSample
from kvdeck.engine.telemetry.sample import Snapshot, from_mapping

AGAIN_S = 1.0
"""Time between two attempts to connect to an engine, in s."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A telemetry subscription; `sources` in the format of `kvdeck monitor --source`."""

    sources: tuple[str, ...]
    hz: float = 1.0
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()


class WatchFeed:
    """Posts a message per sample until stopped; the engine samples only while a client subscribes."""

    def __init__(self, post: Callable[[Message], object], wanted: Wanted, *, readonly: bool = False) -> None:
        self._post, self.wanted, self._readonly = post, wanted, readonly
        self._stopped = threading.Event()
        self._client: engine.Client | None = None
        threading.Thread(target=self._follow, name="kvdeck-watching", daemon=True).start()

    def stop(self) -> None:
        """Close the connection; the engine stops sampling unless another client subscribes."""
        self._stopped.set()
        if (client := self._client) is not None:
            client.close()

    def _follow(self) -> None:
        wanted = self.wanted
        while not self._stopped.is_set():
            try:
                with engine.Client.connect(start=not self._readonly) as client:
                    self._client = client
                    client.subscribe(readonly=True)
                    client.watch(wanted.hz, wanted.sources, wanted.block_bytes, wanted.pins)
                    for message in client.messages():
                        if self._stopped.is_set():
                            return
                        self._take(message)
            except Exception as error:
                if not self._stopped.is_set():
                    self._post(MomentSeen(Snapshot(0.0), told(error)))
            self._stopped.wait(AGAIN_S)

    def _take(self, message: FromEngine) -> None:
        if isinstance(message, WatchSample):
            # Parse and compress here: the screen's thread only draws.
            packed = zlib.compress(orjson.dumps(message.snapshot), 1)
            self._post(MomentSeen(from_mapping(message.snapshot), packed=packed))
        elif isinstance(message, RecordingsChanged):
            self._post(RecordingsSeen(message.recordings))
