"""The thread that has the engine watch, and posts each moment to the Monitor screen."""

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
"""Between two tries to reach an engine that is gone."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the engine is asked to watch; `sources` as `kvdeck monitor --source` takes them."""

    sources: tuple[str, ...]
    hz: float = 1.0
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()


class WatchFeed:
    """Posts a message for each moment until it is stopped; the engine samples only meanwhile."""

    def __init__(self, post: Callable[[Message], object], wanted: Wanted, *, readonly: bool = False) -> None:
        self._post, self.wanted, self._readonly = post, wanted, readonly
        self._stopped = threading.Event()
        self._client: engine.Client | None = None
        threading.Thread(target=self._follow, name="kvdeck-watching", daemon=True).start()

    def stop(self) -> None:
        """Let go; the engine ends its sampling where nobody else watches."""
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
            # Parsed and packed here: the screen's thread only draws.
            packed = zlib.compress(orjson.dumps(message.snapshot), 1)
            self._post(MomentSeen(from_mapping(message.snapshot), packed=packed))
        elif isinstance(message, RecordingsChanged):
            self._post(RecordingsSeen(message.recordings))
