"""File descriptors 1 and 2, which native libraries write to as they please."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Words:
    """What was written to stdout and stderr while captured."""

    text: str = ""


def claim_stdout() -> int:
    """Keep stdout for this program's own lines: a new descriptor for it; whatever else writes to 1 goes to stderr.

    UCX, GUSLI and NIXL's Python logger write to stdout.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.set_inheritable(own, False)
    os.dup2(2, 1)
    return own


@contextlib.contextmanager
def captured() -> Iterator[Words]:
    """Catch what native code writes meanwhile, and pass it on to stderr afterwards.

    Not for several threads at once: descriptors 1 and 2 belong to the whole process.
    """
    words = Words()
    _flush()
    kept = os.dup(1), os.dup(2)
    file = os.memfd_create("kvdeck-words")
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        yield words
    finally:
        _flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        data = os.pread(file, os.fstat(file).st_size, 0)
        for descriptor in (*kept, file):
            os.close(descriptor)
        words.text = data.decode(errors="replace")
        if data:
            os.write(2, data)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ctypes.CDLL(None).fflush(None)
