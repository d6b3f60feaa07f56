"""Redirection of file descriptors 1 and 2, which native libraries write to directly."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(slots=True)
class Words:
    """Text written to stdout and stderr during `captured`; set when the capture ends."""

    text: str = ""


def claim_stdout() -> int:
    """Return a new descriptor for stdout and point descriptor 1 at stderr, so that only this program writes to stdout.

    UCX, GUSLI and NIXL's Python logger write to descriptor 1. The new descriptor is not inherited by children.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.set_inheritable(own, False)
    os.dup2(2, 1)
    return own


@contextlib.contextmanager
def captured() -> Iterator[Words]:
    """Capture what native code writes to descriptors 1 and 2, and copy it to stderr afterwards.

    Only one thread may capture at a time: both descriptors belong to the whole process.
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
