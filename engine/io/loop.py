"""Measuring loop: posts and polls requests as fast as Python can, with one clock read after each post and completion.

The clock is `CLOCK_MONOTONIC`, which processes of one host share. A request's post time begins when the previous
request completes, so it includes the loop's own cost (about 0.1 µs).
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
"""Polls between two looks at the deadline and, if the core is shared, two calls of `sched_yield`.

Two sides that poll on one core without it alternate in time slices (measured: 8 ms instead of 0.035 ms a message). On
a core of one's own it gives the core for whole ticks to any busy thread of the same CPU group (measured beside two
busy loops: 4 ms instead of 0.016 ms).
"""
_LOOK_NS = 20_000_000
"""Approximate time between two deadline checks in ns, independent of the duration of a poll."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Measurements of one visit (a timed series of requests): times per request, and start and end, all in ns."""

    start_ns: int
    end_ns: int
    post_ns: tuple[int, ...]
    transfer_ns: tuple[int, ...]
    lane_ns: tuple[int, ...] = ()
    """Time of each initiator, if several ran at once; all ran the same number of requests."""
    waits_ns: tuple[int, int] | None = None
    """Time in which the initiators and the targets were runnable without a core; None if the kernel doesn't tell."""


class _Looks:
    """Schedule of deadline checks, counted in pauses of `_POLLS` polls, since a clock read costs more."""

    __slots__ = ("_last", "_step", "due")

    def __init__(self, now_ns: int) -> None:
        self.due, self._step, self._last = 1, 1, now_ns

    def look(self, pauses: int, now_ns: int) -> None:
        """Schedule the next deadline check, after one at `now_ns` and `pauses` pauses."""
        self._step = self._step * 2 if now_ns - self._last < _LOOK_NS else max(1, self._step // 2)
        self.due, self._last = pauses + self._step, now_ns


class CancelledError(KvdeckError):
    """The run was cancelled while requests were in flight."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limit of one completion, in seconds, and the callback that reports a cancelled run."""

    seconds: float
    cancelled: Callable[[], bool]

    def check(self, since_ns: int) -> None:
        """Check a wait that began at `since_ns` (`CLOCK_MONOTONIC`), and report progress to the hang watchdog.

        Raises:
            CancelledError: The run was cancelled.
            KvdeckError: The wait took longer than `seconds`.
        """
        hang.alive()
        if self.cancelled():
            raise CancelledError("cancelled during a request")
        if time.perf_counter_ns() - since_ns > self.seconds * 1e9:
            raise KvdeckError(
                f"a request did not complete within {number_text(self.seconds)} s", "check that the peer is alive"
            )


def serial_visit(
    post: Callable[[Any], Any],
    status: Callable[[Any], Any],
    handles: Sequence[Any],
    patience: Patience,
    *,
    yields: bool = True,
) -> Visit:
    """Post each request when the previous one is done, and measure post and transfer times.

    Args:
        post: The binding's `postXferReq`; its result's `value` is 0 when done, 1 when in progress.
        status: The binding's `getXferStatus`, with the same result; both raise NIXL's exceptions on errors.
        handles: Request handles, in order; at least one.
        patience: Time limit of each wait.
        yields: True if another side or thread of the run may need this core, so that polling has to give way.

    Raises:
        CancelledError: The run was cancelled.
        KvdeckError: A request didn't complete in time.
    """
    clock = time.perf_counter_ns
    post_ends: list[int] = []
    ends: list[int] = []
    # Bound once: look-ups inside the loop would be part of every request's time. So would `==` on the binding's status
    # (246 ns); its `value` takes 82 ns.
    keep_post, keep_end = post_ends.append, ends.append
    yield_core, pauses = os.sched_yield, 0
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
                if yields:
                    yield_core()
                pauses += 1
                if pauses >= looks.due:
                    looks.look(pauses, clock())
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
    *,
    yields: bool = True,
) -> Visit:
    """Measure with `depth` requests in flight; slot `s` posts handles `s`, `s + depth`, …, one after the other.

    A transfer time includes the wait while the other requests in flight are polled. Arguments and errors are those
    of `serial_visit`.
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
    idle = pauses = 0
    looks = _Looks(start)
    while flying:
        request = flying.pop(0)
        slot, handle, begin, posted = request
        if status(handle).value:
            flying.append(request)
            idle += 1
            if idle % _POLLS == 0:
                if yields:
                    os.sched_yield()
                pauses += 1
                if pauses >= looks.due:
                    looks.look(pauses, clock())
                    patience.check(posted)
            continue
        transfer_ns.append(clock() - posted)
        post_ns.append(posted - begin)
        launch(slot)
    return Visit(start, clock(), tuple(post_ns), tuple(transfer_ns))
