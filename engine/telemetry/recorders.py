"""Telemetry sessions that a sampling process writes on commands from the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from kvdeck.engine.telemetry.recording import Mark, TelemetryRecorder
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.records import RunState

SAY_SECONDS = 2.0
"""Minimum time between two size reports of a telemetry session."""


class TelemetryRecorders:
    """The open telemetry sessions of a sampling process. Thread-safe: samples and commands come from different threads.

    Args:
        home: kvdeck's home folder, which holds the sessions.
        say: Writes a line to the engine.
    """

    def __init__(self, home: Path, say: Callable[[bytes], None]) -> None:
        self._home, self._say = home, say
        self._lock = threading.Lock()
        self._open: dict[str, TelemetryRecorder] = {}
        self._said: dict[str, float] = {}
        self._refused = ""

    def say(self, line: bytes) -> None:
        """Write a line to the engine without interleaving with lines of other threads."""
        with self._lock:
            self._say(line)

    def take(self, t: float, raw: bytes) -> None:
        """Append a sample to every open session; one that can't be written ends as failed, the others continue."""
        with self._lock:
            for name, recorder in list(self._open.items()):
                try:
                    recorder.take_json(t, raw)
                except KvdeckError as error:
                    self._end(name, "failed", str(error))
                else:
                    self._tell_size(name, recorder)

    def obey(self, line: bytes) -> None:
        """Execute a JSON command of the engine: record, stop or mark; ignores one that isn't valid JSON."""
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
        """End every telemetry session with `state`."""
        with self._lock:
            for name in list(self._open):
                self._end(name, state, reason)

    def refuse(self, reason: str) -> None:
        """End every telemetry session as failed and begin no more, because no source can be sampled."""
        with self._lock:
            self._refused = reason
            for name in list(self._open):
                self._end(name, "failed", reason)
            self._tell("", "failed", reason=reason)

    def _begin(self, name: str) -> None:
        if self._refused:
            return  # `refuse` has reported it, and the engine sets the session's state
        try:
            self._open[name] = TelemetryRecorder(self._home, name)
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

    def _tell_size(self, name: str, recorder: TelemetryRecorder) -> None:
        now = time.monotonic()
        if now - self._said.get(name, float("-inf")) >= SAY_SECONDS:
            self._said[name] = now
            self._tell(name, "running", begin=recorder.first, bytes=recorder.size)

    def _tell(self, name: str, state: RunState, **more: Any) -> None:
        line = orjson.dumps({"recording": {"name": name, "state": state, **more}}, option=orjson.OPT_APPEND_NEWLINE)
        try:
            self._say(line)
        except OSError:  # the engine is gone; the telemetry session's files hold the state too
            return
