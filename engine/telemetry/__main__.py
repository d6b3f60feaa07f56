"""The sampling child: `python -m kvdeck.engine.telemetry '{"hz":1,"sources":[],"home":"…"}'`.

It prints a snapshot a line on stdout.

On stdin it takes commands, a JSON object a line: `{"record": NAME}`, `{"stop": NAME, "reason": …}`, `{"mark": NAME,
"text": …, "kind": …, "t": …}`. What becomes of recordings it says in lines `{"recording": {…}}`. It ends when its
stdin does: then the engine that started it is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import orjson

from kvdeck.engine.telemetry.recorders import Recorders
from kvdeck.engine.telemetry.sample import Check, Snapshot, to_mapping
from kvdeck.engine.telemetry.session import Watching, stream
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.documents import load_record

ENGINE_ENDED = "the engine ended during the recording"


def _obey(recorders: Recorders) -> None:
    """Carry out what stdin says until it ends, and then end everything."""
    with open(0, "rb", buffering=0, closefd=False) as commands:
        rest = b""
        while data := commands.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                recorders.obey(line)
    recorders.close("interrupted", ENGINE_ENDED)
    os._exit(0)


def _write(line: bytes) -> None:
    os.write(1, line)


def _first_line() -> bytes:
    """What to sample, byte by byte: what follows it on stdin are commands for another reader."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def main() -> int:
    """Sample until stdin ends."""
    asked = load_record(_first_line())
    home = Path(asked["home"])
    recorders = Recorders(home, _write)

    def say(snapshot: Snapshot) -> None:
        raw = orjson.dumps(to_mapping(snapshot))
        recorders.take(snapshot.t, raw)
        recorders.say(raw + b"\n")

    threading.Thread(target=_obey, args=(recorders,), daemon=True).start()
    watching = Watching(
        tuple(asked["sources"]),
        asked["hz"],
        block_bytes=asked.get("block_bytes"),
        pins=tuple(asked.get("pins") or ()),
        home=home,
        wait=True,
    )
    try:
        stream(watching, say)
    except KvdeckError as error:
        # Whoever watches is told on the screen, and again as often as the engine tries.
        recorders.refuse(str(error))
        recorders.say(orjson.dumps(to_mapping(_wrong(error)), option=orjson.OPT_APPEND_NEWLINE))
        return error.exit_code
    except BrokenPipeError:
        recorders.close("interrupted", ENGINE_ENDED)
    return 0


def _wrong(error: KvdeckError) -> Snapshot:
    return Snapshot(time.time(), checks=(Check("sources", "look", error.what, error.mend),))


if __name__ == "__main__":
    sys.exit(main())
