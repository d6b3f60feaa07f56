"""Sampling process of the engine: `python -m kvdeck.engine.telemetry`, settings and commands on stdin.

The first line on stdin is a JSON object such as `{"hz": 1, "sources": [], "home": "…"}`. Each further line is a JSON
command: `{"record": NAME}`, `{"stop": NAME, "reason": …}`, or `{"mark": NAME, "text": …, "kind": …, "t": …}`.
On stdout it prints one sample per line as JSON, and the state of telemetry sessions as `{"recording": {…}}`.
It exits at the end of stdin, because then the process that started it has ended: the engine, or the `owner` that the
settings name.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import orjson

from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.telemetry.checks import STUCK_S
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.engine.telemetry.recorders import TelemetryRecorders
from kvdeck.engine.telemetry.sample import Check, Snapshot, to_mapping
from kvdeck.engine.telemetry.session import SamplingSettings, stream
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record

ENGINE = "the engine"
"""Who started this process, if the settings don't say."""


def _obey(recorders: TelemetryRecorders, ended: str) -> None:
    """Execute commands from stdin; at its end, close all telemetry sessions and exit the process."""
    with open(0, "rb", buffering=0, closefd=False) as commands:
        buffer = LineBuffer()
        while data := commands.read(65536):
            for line in buffer.take(data):
                recorders.obey(line)
    recorders.close("interrupted", ended)
    os._exit(0)


def _write(line: bytes) -> None:
    os.write(1, line)


def _first_line() -> bytes:
    """Return the settings line; reads single bytes, so that `_obey` gets all commands that follow."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def main() -> int:
    """Sample until stdin ends; return the exit code."""
    asked = load_record(_first_line())
    home = Path(asked["home"])
    ended = f"{asked.get('owner') or ENGINE} ended during the recording"
    recorders = TelemetryRecorders(home, _write)

    def say(snapshot: Snapshot) -> None:
        raw = orjson.dumps(to_mapping(snapshot))
        recorders.take(snapshot.t, raw)
        recorders.say(b'{"at_ns":%d,"since_ns":%d,%s\n' % (snapshot.at_ns, snapshot.since_ns, raw[1:]))

    def deaf(error: Exception) -> None:
        # No command could end a recording any more: end them all, and let the engine start another process.
        recorders.close("failed", f"commands can't be read: {error}")
        os._exit(1)

    start_thread("commands", lambda: _obey(recorders, ended), deaf)
    watching = SamplingSettings(
        tuple(asked["sources"]),
        asked["hz"],
        block_bytes=asked.get("block_bytes"),
        pins=tuple(asked.get("pins") or ()),
        home=home,
        wait=True,
        stuck_s=asked.get("stuck_s", STUCK_S),
        limits=ServiceLimits.of(dict(asked.get("limits") or ())),
    )
    try:
        stream(watching, say)
    except KvdeckError as error:
        # A check shows the error on the screen; the engine restarts this process, which reports it again.
        recorders.refuse(str(error))
        recorders.say(orjson.dumps(to_mapping(_wrong(error)), option=orjson.OPT_APPEND_NEWLINE))
        return error.exit_code
    except BrokenPipeError:
        recorders.close("interrupted", ended)
    return 0


def _wrong(error: KvdeckError) -> Snapshot:
    return Snapshot(time.time(), checks=(Check("sources", "warning", error.what, error.fix),))


if __name__ == "__main__":
    sys.exit(main())
