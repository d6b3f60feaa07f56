"""The sampling child: `python -m kvdeck.engine.watch '{"hz":1,"sources":[],"home":"…"}'`, a snapshot a line on stdout.

It ends when its stdin does: then the engine that started it is gone.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import orjson

from kvdeck.engine.watch.monitor import Watching, stream
from kvdeck.engine.watch.snapshot import Check, Snapshot, to_mapping
from kvdeck.sessions.errors import KvdeckError


def _end_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _say(snapshot: Snapshot) -> None:
    os.write(1, orjson.dumps(to_mapping(snapshot), option=orjson.OPT_APPEND_NEWLINE))


def main() -> int:
    """Sample until stdin ends."""
    asked = orjson.loads(sys.argv[1])
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        stream(Watching(tuple(asked["sources"]), asked["hz"], home=Path(asked["home"])), _say)
    except KvdeckError as error:
        # Whoever watches is told on the screen, and again as often as the engine tries.
        _say(Snapshot(time.time(), checks=(Check("sources", "look", error.what, error.mend),)))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
