"""Where each rank and each message lies: ranks on processes, and messages as prefix sums of rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import exact_size_text, many, size_text

_ALIGNED = 4096


@dataclass(frozen=True, slots=True)
class RankMemory:
    """A rank's one region: what it sends first, then what it receives; in bytes."""

    sent: int
    """Largest row sum over the patterns."""
    received: int
    """Largest column sum over the patterns."""

    @property
    def receive_offset(self) -> int:
        """Offset of the received bytes from the region's base."""
        return -(-self.sent // _ALIGNED) * _ALIGNED

    @property
    def size(self) -> int:
        return self.receive_offset + self.received


@dataclass(frozen=True, slots=True)
class CellMessage:
    """One cell of a matrix that isn't 0; offsets are from the base of the source's and the destination's region."""

    source: int
    destination: int
    size: int
    source_offset: int
    destination_offset: int


def memories(patterns: Sequence[TrafficPattern], ranks: int) -> tuple[RankMemory, ...]:
    """Return each rank's region, sized for the largest of the patterns, which share it."""
    return tuple(
        RankMemory(
            max(pattern.matrix.sent[rank] for pattern in patterns),
            max(pattern.matrix.received[rank] for pattern in patterns),
        )
        for rank in range(ranks)
    )


def check_memory(regions: Sequence[RankMemory], available: int, host: str = "this host") -> int:
    """Return the bytes of the regions of a host's ranks.

    Raises:
        UsageError: They need more than `available` bytes.
    """
    needed = sum(region.size for region in regions)
    if needed > available:
        raise UsageError(
            f"the regions of {many(len(regions), 'rank')} need {exact_size_text(needed)} on {host}, "
            f"which has {size_text(available)} available",
            "give smaller cells, or fewer ranks",
        )
    return needed


def messages(pattern: TrafficPattern, regions: Sequence[RankMemory]) -> list[CellMessage]:
    """Return a pattern's messages, in the order of sources and destinations.

    A source's messages follow one another in the order of their destinations, those that a rank receives in the order
    of their sources: nothing has to be exchanged to know where a message lies.
    """
    found = []
    columns = [0] * pattern.matrix.ranks
    for source, row in enumerate(pattern.matrix.rows):
        begins = accumulate(row, initial=0)
        for destination, (size, begin) in enumerate(zip(row, begins, strict=False)):
            if size:
                to = regions[destination].receive_offset + columns[destination]
                found.append(CellMessage(source, destination, size, begin, to))
                columns[destination] += size
    return found


def pieces(size: int, shards: int) -> list[tuple[int, int]]:
    """Return offset and bytes of each of `shards` pieces of a message; fewer if it has fewer bytes."""
    count = min(size, shards)
    bounds = [size * number // count for number in range(count + 1)]
    return [(begin, end - begin) for begin, end in pairwise(bounds)]


def divide(ranks: int, processes: int) -> list[range]:
    """Return the ranks of each process: consecutive, and as even as possible."""
    count = max(1, min(ranks, processes))
    bounds = [ranks * number // count for number in range(count + 1)]
    return [range(begin, end) for begin, end in pairwise(bounds)]


def process_name(ranks: range) -> str:
    """Return the name of a process by its ranks: `rank3`, or `ranks0-127`."""
    return f"rank{ranks[0]}" if len(ranks) == 1 else f"ranks{ranks[0]}-{ranks[-1]}"
