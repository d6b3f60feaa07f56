"""The measuring loop: requests posted and polled as fast as Python can, one clock read at each step's end.

The clock is `CLOCK_MONOTONIC`, which processes of one host share. A request's post time begins where the
request before it was seen done, so the loop's own cost (about 0.1 µs) is inside the figure, never beside it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kvdeck.engine.io import hang
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import number_text

_POLLS = 8
"""Polls between two offers of the core to the kernel: messages over tcp/lo may need a thread of its own there, and a
poller that never yields can make each of them wait for a time slice (measured: 8 ms instead of 0.05 ms)."""
_LOOK_NS = 20_000_000
"""About the time between two looks at the deadline, however long a poll takes."""


@dataclass(frozen=True, slots=True)
class Visit:
    """What one visit measured: one time a request, in ns, and when the visit began and ended."""

    start_ns: int
    end_ns: int
    post_ns: tuple[int, ...]
    transfer_ns: tuple[int, ...]
    lane_ns: tuple[int, ...] = ()
    """Where several lanes were visited at once, what each of them took; every one did as many requests."""


class _Looks:
    """When to look at the deadline: counted in offers, since a clock read at each would cost more than a poll."""

    __slots__ = ("_last", "_step", "due")

    def __init__(self, now_ns: int) -> None:
        self.due, self._step, self._last = 1, 1, now_ns

    def look(self, offers: int, now_ns: int) -> None:
        """A look was taken after so many offers: find when the next is due."""
        self._step = self._step * 2 if now_ns - self._last < _LOOK_NS else max(1, self._step // 2)
        self.due, self._last = offers + self._step, now_ns


class CancelledError(KvdeckError):
    """The run was told to stop while requests were under way."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for one completion, and who may ask for an earlier end."""

    seconds: float
    cancelled: Callable[[], bool]

    def check(self, since_ns: int) -> None:
        """Raise when the wait that began at `since_ns` should end."""
        hang.alive()
        if self.cancelled():
            raise CancelledError("cancelled while a request was under way")
        if time.perf_counter_ns() - since_ns > self.seconds * 1e9:
            raise KvdeckError(f"a request did not complete within {number_text(self.seconds)} s", "is the peer alive?")


def serial_visit(
    post: Callable[[Any], Any], status: Callable[[Any], Any], handles: Sequence[Any], patience: Patience
) -> Visit:
    """Post each request when the one before it is done.

    Args:
        post: The binding's `postXferReq`; its result's `value` is 0 when done, 1 when in progress.
        status: The binding's `getXferStatus`, likewise; both raise on errors.
        handles: Request handles, in order.
        patience: The limit of each wait.
    """
    clock = time.perf_counter_ns
    post_ends: list[int] = []
    ends: list[int] = []
    keep_post, keep_end = post_ends.append, ends.append
    yield_core, offers = os.sched_yield, 0
    start = clock()
    looks = _Looks(start)
    for handle in handles:
        pending = post(handle).value
        keep_post(clock())
        while pending:
            for _ in range(_POLLS):
                if not status(handle).value:
                    pending = 0
                    break
            else:
                yield_core()
                offers += 1
                if offers >= looks.due:
                    looks.look(offers, clock())
                    patience.check(post_ends[-1])
        keep_end(clock())
    begins = [start, *ends[:-1]]
    return Visit(
        start,
        ends[-1],
        tuple(posted - begin for posted, begin in zip(post_ends, begins, strict=True)),
        tuple(end - posted for end, posted in zip(ends, post_ends, strict=True)),
    )


def pipelined_visit(
    post: Callable[[Any], Any],
    status: Callable[[Any], Any],
    handles: Sequence[Any],
    depth: int,
    patience: Patience,
) -> Visit:
    """Keep `depth` requests in flight; slot `s` posts handles `s`, `s + depth`, …, so none is posted twice at once.

    With requests beside each other a transfer time includes waiting for the poll of its neighbours.
    """
    clock = time.perf_counter_ns
    queues = [iter(handles[slot::depth]) for slot in range(depth)]
    post_ns: list[int] = []
    transfer_ns: list[int] = []
    flying: list[tuple[int, Any, int, int]] = []

    def launch(slot: int) -> None:
        for handle in queues[slot]:
            begin = clock()
            pending = post(handle).value
            posted = clock()
            if pending:
                flying.append((slot, handle, begin, posted))
                return
            post_ns.append(posted - begin)
            transfer_ns.append(0)

    start = clock()
    for slot in range(depth):
        launch(slot)
    idle = offers = 0
    looks = _Looks(start)
    while flying:
        request = flying.pop(0)
        slot, handle, begin, posted = request
        if status(handle).value:
            flying.append(request)
            idle += 1
            if idle % _POLLS == 0:
                os.sched_yield()
                offers += 1
                if offers >= looks.due:
                    looks.look(offers, clock())
                    patience.check(posted)
            continue
        transfer_ns.append(clock() - posted)
        post_ns.append(posted - begin)
        launch(slot)
    return Visit(start, clock(), tuple(post_ns), tuple(transfer_ns))
