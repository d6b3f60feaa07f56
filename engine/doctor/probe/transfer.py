"""One transfer of a probe, for any backend, and the memory to verify it with."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from typing import Any

from kvdeck.engine.io import nixl, reasons
from kvdeck.sessions.units import number_text

SIZE = 256 * 1024
"""Bytes of a probe's transfer."""
DEADLINE_S = 5.0


class Pages:
    """Page-aligned host memory of `size` bytes, filled with a random pattern."""

    def __init__(self, size: int = SIZE) -> None:
        # Anonymous memory of its own pages: O_DIRECT and registration need whole ones.
        self.memory = mmap.mmap(-1, size)
        self.size = size
        self._view = (ctypes.c_char * size).from_buffer(self.memory)
        self.address = ctypes.addressof(self._view)
        self.pattern = os.urandom(size)
        self.fill()

    def fill(self) -> None:
        self.memory[:] = self.pattern

    def poison(self) -> None:
        self.memory[:] = bytes(self.size)

    def holds(self, pattern: bytes) -> bool:
        return self.memory[:] == pattern


Descriptor = tuple[int, int, int]


def move(
    agent: Any,
    operation: str,
    local: tuple[Descriptor, str],
    remote: tuple[Descriptor, str],
    *,
    peer: str,
    backend: str,
    doing: str,
) -> None:
    """Create one request, post it, and poll until it is done.

    Raises:
        UnavailableError: It was rejected, failed, or took longer than `DEADLINE_S` seconds.
    """
    try:
        handle = agent.initialize_xfer(
            operation,
            agent.get_xfer_descs([local[0]], local[1]),
            agent.get_xfer_descs([remote[0]], remote[1]),
            peer,
            b"",
            [backend],
        )
        state = agent.transfer(handle)
        deadline = time.monotonic() + DEADLINE_S
        while state == "PROC" and time.monotonic() < deadline:
            state = agent.check_xfer_state(handle)
        if state == "DONE":
            agent.release_xfer_handle(handle)
    except Exception as error:  # NIXL's exceptions share no base below Exception
        raise reasons.native_failure(doing, str(error)) from error
    if state != "DONE":
        why = f"not done after {number_text(DEADLINE_S)} s" if state == "PROC" else f"NIXL reports {state}"
        raise reasons.native_failure(doing, why)


def register(agent: Any, descriptor: Descriptor, kind: str, backend: str) -> Any:
    """Register one memory region or file with a backend, and return the registration.

    Raises:
        UnavailableError: The backend rejects it.
    """
    return nixl.register(agent, backend, kind, [descriptor])
