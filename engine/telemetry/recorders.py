"""The recordings that one sampling child writes, as the engine tells it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kvdeck.engine.telemetry.recording import Mark, Recorder
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.records import RunState

SAY_SECONDS = 2.0
"""Between two lines that say how large a recording has become."""


class Recorders:
    """Moments come from the sampling thread, commands from another.

    Args:
        say: Writes a line where the engine reads.
    """

    def __init__(self, home: Path, say: Callable[[bytes], None]) -> None:
        self._home, self._say = home, say
        self._lock = threading.Lock()
        self._open: dict[str, Recorder] = {}
        self._said: dict[str, float] = {}
        self._refused = ""

    def say(self, line: bytes) -> None:
        """Write a line that no other thread's line cuts in two."""
        with self._lock:
            self._say(line)

    def take(self, t: float, raw: bytes) -> None:
        """Keep a moment in every recording; one that can't be written ends, and the others go on."""
        with self._lock:
            for name, recorder in list(self._open.items()):
                try:
                    recorder.take_json(t, raw)
                except KvdeckError as error:
                    self._end(name, "failed", str(error))
                else:
                    self._tell_size(name, recorder)

    def obey(self, line: bytes) -> None:
        """Carry out a command; one that can't be read is passed over."""
        try:
            command = load_record(line)
        except ValueError:
            return
        with self._lock:
            if "record" in command:
                self._begin(command["record"])
            elif "stop" in command and command["stop"] in self._open:
                self._end(command["stop"], "done", command.get("reason"))
            elif "mark" in command and command["mark"] in self._open:
                self._mark(command)

    def close(self, state: RunState, reason: str | None) -> None:
        """End every recording."""
        with self._lock:
            for name in list(self._open):
                self._end(name, state, reason)

    def refuse(self, reason: str) -> None:
        """End every recording, also those that are still to begin: nothing can be watched."""
        with self._lock:
            self._refused = reason
            for name in list(self._open):
                self._end(name, "failed", reason)
            self._tell("", "failed", reason=reason)

    def _begin(self, name: str) -> None:
        if self._refused:
            return  # the engine was told, and writes it into the session
        try:
            self._open[name] = Recorder(self._home, name)
        except KvdeckError as error:
            self._tell(name, "failed", reason=str(error))
        else:
            self._tell(name, "running", bytes=self._open[name].size)

    def _mark(self, command: dict[str, Any]) -> None:
        name = command["mark"]
        try:
            self._open[name].mark(Mark(command["t"], command["text"], command["kind"]))
        except KvdeckError as error:
            self._tell(name, "running", bytes=self._open[name].size, reason=str(error))

    def _end(self, name: str, state: RunState, reason: str | None) -> None:
        recorder = self._open.pop(name)
        try:
            recorder.close(state, reason)
        except KvdeckError as error:
            state, reason = "failed", reason or str(error)
        self._tell(name, state, bytes=recorder.size, reason=reason)

    def _tell_size(self, name: str, recorder: Recorder) -> None:
        now = time.monotonic()
        if now - self._said.get(name, float("-inf")) >= SAY_SECONDS:
            self._said[name] = now
            self._tell(name, "running", begin=recorder.first, bytes=recorder.size)

    def _tell(self, name: str, state: RunState, **more: Any) -> None:
        line = orjson.dumps({"recording": {"name": name, "state": state, **more}}, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._say(line)
        except OSError:  # the engine is gone: nobody to tell, and the recording's files say it too
            return
