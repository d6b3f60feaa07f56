"""Where messages lie: the prefix sums of rows and columns, pieces that cover a message, ranks on processes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.placement import check_memory, divide, memories, messages, pieces, process_name
from kvdeck.sessions.errors import UsageError

MATRICES = st.integers(1, 6).flatmap(
    lambda ranks: st.tuples(*[st.tuples(*[st.integers(0, 9) for _ in range(ranks)]) for _ in range(ranks)])
)


@given(MATRICES, MATRICES)
def test_messages_fill_rows_and_columns_without_gap_or_overlap(
    rows: tuple[tuple[int, ...], ...], others: tuple[tuple[int, ...], ...]
) -> None:
    patterns = [TrafficPattern(Matrix(one)) for one in (rows, others) if len(one) == len(rows)]
    regions = memories(patterns, len(rows))
    for pattern in patterns:
        found = messages(pattern, regions)
        assert sum(one.size for one in found) == pattern.matrix.total
        for one in found:
            region = regions[one.destination]
            assert one.destination_offset == region.receive_offset + pattern.matrix.offset(one.source, one.destination)
            assert one.source_offset == sum(pattern.matrix.rows[one.source][: one.destination])
            assert one.destination_offset + one.size <= region.size
            assert one.source_offset + one.size <= regions[one.source].sent


@given(st.integers(1, 100), st.integers(1, 100))
def test_pieces_cover_a_message_and_none_is_empty(size: int, shards: int) -> None:
    found = pieces(size, shards)
    assert len(found) == min(size, shards)
    assert [at for at, _ in found] == [sum(length for _, length in found[:number]) for number in range(len(found))]
    assert sum(length for _, length in found) == size
    assert all(length for _, length in found)


def test_ranks_are_divided_evenly_and_named() -> None:
    assert divide(5, 2) == [range(2), range(2, 5)]
    assert divide(2, 8) == [range(1), range(1, 2)]
    assert [process_name(ranks) for ranks in divide(3, 2)] == ["rank0", "ranks1-2"]


def test_more_than_the_memory_is_refused_with_the_sum() -> None:
    regions = memories([TrafficPattern(Matrix(((0, 8192), (8192, 0))))], 2)
    assert check_memory(regions, 32768) == 32768
    with pytest.raises(UsageError, match=r"2 ranks need 32,768 B = 32 KiB"):
        check_memory(regions, 32767)
