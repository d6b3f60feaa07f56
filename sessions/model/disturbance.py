"""Disturbed rounds of a step: those in which one of its processes was runnable, but another program had its core."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, Struct, UnsetType

DISTURBED_PART = 0.05
"""Part of a round that a side waited for a core, above which the round counts as disturbed: as large as the smallest
change of a rate that is reported."""


class Disturbance(Struct, frozen=True):
    """How often and how long the processes of a step waited for a core."""

    rounds: int
    """Rounds in which a side waited for more than `DISTURBED_PART` of the time."""
    of_rounds: int
    """All rounds of the step in which the kernel counted the waits."""
    initiator_ms: float
    """Sum over these rounds and all initiators."""
    target_ms: float


def is_disturbed(waits_ns: tuple[int, int], busy_ns: int) -> bool:
    """True if the initiators or the targets waited for a core for more than `DISTURBED_PART` of a round."""
    return max(waits_ns) > busy_ns * DISTURBED_PART


def disturbance_of(rounds: Iterable[tuple[tuple[int, int] | UnsetType, int]]) -> Disturbance | UnsetType:
    """Return the disturbance of rounds, each (waits of initiators and targets, busy time) in ns; unset without any."""
    told = [(waits, busy) for waits, busy in rounds if not isinstance(waits, UnsetType)]
    disturbed = sum(is_disturbed(waits, busy) for waits, busy in told)
    if not disturbed:
        return UNSET
    own, far = (round(sum(waits[side] for waits, _ in told) / 1e6, 3) for side in (0, 1))
    return Disturbance(disturbed, len(told), own, far)
