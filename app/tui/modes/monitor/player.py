"""Playback of a recording in the Monitor; samples are read in another thread."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from kvdeck.app.tui.modes.monitor.replay import Replay
from kvdeck.sessions.errors import KvdeckError

if TYPE_CHECKING:
    from kvdeck.app.tui.modes.monitor.screen import MonitorScreen

PLAY_S = 0.5
"""Seconds between two updates during playback."""


class Player:
    """Moves the screen's timeline through its recording."""

    def __init__(self, screen: MonitorScreen) -> None:
        self._screen = screen
        self._wish: float | None = None
        self._reading = False
        self._played = 0.0

    async def open(self, name: str) -> None:
        """Open a recording at its begin.

        Raises:
            KvdeckError: No recording has that name, or it can't be read.
        """
        from kvdeck.engine.client.client import home
        from kvdeck.engine.telemetry.recording import TelemetrySession

        recording = await asyncio.to_thread(TelemetrySession.open, home(), name)
        timeline = self._screen.timeline
        timeline.live()
        timeline.replay = Replay(recording)
        await self._stand(recording.begin)

    def step(self, seconds: float) -> None:
        """Move by seconds (negative: back), from the pending position if there is one."""
        replay = self._screen.timeline.replay
        if replay is not None:
            at = replay.position if self._wish is None else self._wish
            self._screen.run_worker(self._stand(max(replay.begin, min(replay.end, at + seconds))))

    def play(self) -> None:
        """Advance by the time since the last call times the speed; called every `PLAY_S`.

        Does nothing if frozen, while a read runs, or after a gap over 5 `PLAY_S`, as when the clock was paused.
        """
        now, replay = time.monotonic(), self._screen.timeline.replay
        passed, self._played = now - self._played, now
        if replay is None or self._screen.app.paused or self._reading or passed > 5 * PLAY_S:
            return
        if replay.position < replay.end or replay.recording.live:
            self.step(passed * replay.speed)

    async def _stand(self, t: float) -> None:
        """Read and draw the sample at Unix time `t`; of the positions requested meanwhile, only the newest is read."""
        self._wish = t
        if self._reading:
            return
        self._reading, timeline = True, self._screen.timeline
        try:
            while (wish := self._wish) is not None and (replay := timeline.replay) is not None:
                seen = await asyncio.to_thread(replay.go, wish)
                if self._wish == wish:
                    self._wish = None
                if timeline.replay is replay:
                    timeline.seen, timeline.error = seen, ""
                    self._screen.draw()
        except KvdeckError as error:
            timeline.error = str(error)
            self._screen.draw()
        finally:
            self._wish, self._reading = None, False
