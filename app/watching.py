"""The thread that has the engine watch, and posts each moment to the Monitor screen."""

from __future__ import annotations

import threading
from collections.abc import Callable

from kvdeck.app.messages import MomentSeen
from kvdeck.engine import client as engine
from kvdeck.engine.protocol import WatchSample
from kvdeck.engine.watch.snapshot import Snapshot, from_mapping
from kvdeck.sessions.errors import KvdeckError

AGAIN_S = 1.0
"""Between two tries to reach an engine that is gone."""


class WatchFeed:
    """Posts a message for each moment until it is stopped; the engine samples only meanwhile."""

    def __init__(self, post: Callable[[MomentSeen], object], hz: float = 1.0, sources: tuple[str, ...] = ()) -> None:
        self._post, self._hz, self._sources = post, hz, sources
        self._stopped = threading.Event()
        self._client: engine.Client | None = None
        threading.Thread(target=self._follow, name="kvdeck-watching", daemon=True).start()

    def stop(self) -> None:
        """Let go; the engine ends its sampling where nobody else watches."""
        self._stopped.set()
        if (client := self._client) is not None:
            client.close()

    def _follow(self) -> None:
        while not self._stopped.is_set():
            try:
                with engine.Client.connect() as client:
                    self._client = client
                    client.subscribe(readonly=True)
                    client.watch(self._hz, self._sources)
                    for message in client.messages():
                        if isinstance(message, WatchSample) and not self._stopped.is_set():
                            self._post(MomentSeen(from_mapping(message.snapshot)))
            except KvdeckError as error:
                if not self._stopped.is_set():
                    self._post(MomentSeen(Snapshot(0.0), str(error)))
            self._stopped.wait(AGAIN_S)
