"""The text of a matrix: every spelling of a size, and where a wrong one stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdeck.engine.traffic.matrix import Matrix, matrix_text, parse_matrix, read_matrix, square
from kvdeck.sessions.errors import UsageError


@pytest.mark.parametrize(
    ("cell", "size"),
    [
        ("0", 0), ("12", 12), ("12b", 12), ("12.5B", 12), ("5K", 5120), ("5k", 5120), ("5KB", 5120), ("5KiB", 5120),
        ("1M", 1 << 20), ("1.5G", 3 << 29), ("2T", 2 << 40), ("1e6", 1_000_000), ("1e3k", 1_024_000), (".5M", 1 << 19),
        ("1_000", 1000), ("727.95M", 763_310_899), ("9223372036854775807", (1 << 63) - 1),
    ],
)  # fmt: skip
def test_a_cell_is_bytes_or_has_a_unit(cell: str, size: int) -> None:
    assert parse_matrix(cell, "m").rows == ((size,),)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("1 2\n3 x", "m:2:3"), ("# all\n\n 1  -2\n3 4", "m:3:5"), ("1 2\n3", "m:2:1"), ("1 2", "m: 1 row"),
        ("", "m: 0 rows"), ("# nothing", "m: 0 rows"), ("nan", "m:1:1"), ("inf", "m:1:1"), ("1e400", "m:1:1"),
        ("9" * 5000, "m:1:1"), ("1E", "m:1:1"), ("5KX", "m:1:1"), ("٣", "m:1:1"), ("9223372036854775808", "m:1:1"),
        ("9223372036854775807 1\n0 0", "64 bits"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line_and_column(text: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_matrix(text, "m")
    assert place in caught.value.what
    assert len(caught.value.what) < 120


def test_the_seed_s_example() -> None:
    matrix = parse_matrix("0 0 1M 1M\n0 0 1M 1M\n0 0 0 5K\n0 0 0 5K\n", "m")
    assert matrix.senders == (0, 1, 2, 3)
    assert matrix.receivers == (2, 3)
    assert matrix.sent == (2 << 20, 2 << 20, 5120, 5120)
    assert matrix.received == (0, 0, 2 << 20, (2 << 20) + 10240)
    assert [matrix.offset(source, 3) for source in range(4)] == [0, 1 << 20, 2 << 20, (2 << 20) + 5120]
    assert matrix.total == sum(matrix.received)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.integers(0, 1 << 50), min_size=n, max_size=n), min_size=n, max_size=n)))  # fmt: skip # noqa: E501
def test_the_text_is_read_back(rows: list[list[int]]) -> None:
    matrix = Matrix(tuple(map(tuple, rows)))
    assert parse_matrix(matrix_text(matrix), "m") == matrix


def test_a_file_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"1\xff")
    for name in ("missing", "latin", "."):
        with pytest.raises(UsageError, match="can't read the matrix"):
            read_matrix(tmp_path / name)


def test_more_ranks_than_a_spec_may_have_are_refused() -> None:
    with pytest.raises(UsageError, match="4,097 ranks are more than 4096"):
        square(((0,) * 4097,) * 4097, "m")
