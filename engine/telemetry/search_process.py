"""Search for sources as a process: `python -m kvdeck.engine.telemetry.search_process HOME`.

It prints what is known as one JSON object per line, whenever that changes: `sources` with `name` and `kind`, `silent`
with `process` and `reason`, `awaited` and `unanswered` addresses, and `done`, which is true in the last line.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import orjson

from kvdeck.engine.telemetry.discovery import Search, search


def to_line(found: Search, done: bool) -> bytes:
    """Return what a search has found as a line of JSON."""
    row = {
        "sources": [{"name": source.name, "kind": source.kind} for source in found.sources],
        "silent": [{"process": process, "reason": reason} for process, reason in found.silent],
        "awaited": found.awaited,
        "unanswered": found.unanswered,
        "done": done,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def main() -> None:
    """Search, and print each change."""
    found = asyncio.run(search(Path(sys.argv[1]), lambda so_far: _write(to_line(so_far, False))))
    _write(to_line(found, True))


def _write(line: bytes) -> None:
    try:
        os.write(1, line)
    except BrokenPipeError:  # who asked has gone
        os._exit(0)


if __name__ == "__main__":
    main()
