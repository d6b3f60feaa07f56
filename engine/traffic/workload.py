"""Order of the workload pass: a pattern begins once each of its initiators has ended its earlier patterns."""

from __future__ import annotations

from collections.abc import Sequence

from kvdeck.engine.traffic.config import TrafficPattern


class WorkloadOrder:
    """Which patterns may begin, and when; patterns with disjoint initiators overlap. Times in ns."""

    def __init__(self, patterns: Sequence[TrafficPattern], start_ns: int) -> None:
        self._patterns = patterns
        self._free = {rank: start_ns for pattern in patterns for rank in pattern.initiators}
        self._next = {rank: list[int]() for rank in self._free}
        """Each rank's patterns, in order; those that it has ended are removed."""
        for number, pattern in enumerate(patterns):
            for rank in pattern.initiators:
                self._next[rank].append(number)
        self._begun: set[int] = set()

    @property
    def finished(self) -> bool:
        return not any(self._next.values())

    def ready(self) -> list[tuple[int, int]]:
        """Return the patterns that can begin now, each once, with the earliest time for it."""
        found = []
        for number in sorted({queue[0] for queue in self._next.values() if queue} - self._begun):
            pattern = self._patterns[number]
            if all(self._next[rank][0] == number for rank in pattern.initiators):
                self._begun.add(number)
                free = max(self._free[rank] for rank in pattern.initiators)
                found.append((number, free + round(pattern.sleep_before_s * 1e9)))
        return found

    def end(self, number: int, rank: int, free_ns: int) -> None:
        """Record that an initiator has ended its part in a pattern that `ready` returned."""
        assert self._next[rank][0] == number
        self._next[rank].pop(0)
        self._free[rank] = free_ns + round(self._patterns[number].sleep_after_s * 1e9)
