"""The matrix as a picture: groups, shades, sums, and what the cursor tells."""

from __future__ import annotations

import pytest

from kvdeck.app.tui.modes.traffic.heat_map import HeatMap, groups, heat_rows, short_size, shown_ranks
from kvdeck.engine.traffic.matrix import Matrix
from tests.support.builders import traffic


def heat(matrix: Matrix, rows: int = 32, columns: int = 32, everyone: bool = False) -> HeatMap:
    down, across = shown_ranks(matrix, everyone)
    return HeatMap(matrix, groups(down, rows), groups(across, columns))


def drawn(
    of: HeatMap, at: tuple[int, int], width: int, height: int = 40, focused: bool = True, ascii: bool = False
) -> str:
    rows = heat_rows(of, at, (0, 0), width, height, focused, ascii)
    return "\n".join("".join(text for text, _ in row).rstrip() for row in rows)


SMALL = Matrix(((0, 0, 1 << 30, 1 << 28), (0, 0, 1 << 26, 1000), (0, 0, 0, 0), (0, 0, 0, 0)))


def test_a_small_matrix_shows_senders_receivers_shades_and_sums():
    assert drawn(heat(SMALL), (0, 1), 60) == (
        "   to   2    3        sum\n"
        "   ▸0   █   [▓]  1.25 GiB\n"
        "    1   ▒    ░   64.0 MiB\n"
        "  sum  1.1G 256M 1.31 GiB\n"
        " r0 → r3  256 MiB            ░ ≤16M  ▒ ≤64M  ▓ ≤256M  █ ≤1G"
    )


@pytest.mark.parametrize("width", [30, 38, 50, 90])
def test_the_sums_of_the_rows_are_the_sum_of_the_matrix(width: int):
    of = heat(traffic.large(), 7, 13)
    assert sum(map(sum, of.values)) == traffic.large().total
    assert all(len(line) <= width for line in drawn(of, (0, 0), width).split("\n"))


def test_all_ranks_are_shown_when_asked_for_or_when_none_sends():
    assert shown_ranks(SMALL, everyone=False) == ((0, 1), (2, 3))
    assert shown_ranks(SMALL, everyone=True) == ((0, 1, 2, 3), (0, 1, 2, 3))
    nothing = Matrix(((0, 0), (0, 0)))
    assert shown_ranks(nothing, everyone=False) == ((0, 1), (0, 1))
    assert drawn(heat(nothing), (1, 1), 40).split("\n")[2].split() == ["▸1", "·", "[·]", "0", "B"]


def test_groups_are_powers_of_two_and_hold_every_rank_once():
    ranks = tuple(range(128, 256))
    for most in (1, 3, 32, 100, 200):
        made = groups(ranks, most)
        assert sum(made, ()) == ranks
        assert len(made) <= most
        assert len(made[0]).bit_count() == 1
    assert groups((5,), 32) == ((5,),)


def test_a_group_tells_its_largest_cell_if_there_is_room():
    matrix = traffic.large()
    of = heat(matrix, 4, 8)
    value = of.values[0][0]
    whole = of.told(0, 0, 200)
    assert whole.startswith("r0–31 → r128–143  ")
    assert "most r" in whole
    assert "most" not in of.told(0, 0, 45)
    assert value == sum(matrix.rows[a][b] for a in range(32) for b in range(128, 144))


def test_256_ranks_fit_in_a_small_pane_and_differ_by_shade():
    text = drawn(heat(traffic.large(), 8, 22), (1, 2), 40, 12)
    rows = text.split("\n")
    assert len(rows) == 11
    assert {"░", "▒", "▓", "█", "·"} <= set(text)
    assert "×" in rows[2], "the cursor is seen without colour"


def test_shades_are_on_a_log_scale_and_their_bounds_are_told():
    powers = Matrix(tuple(tuple(4**n if to == 5 else 0 for to in range(6)) for n in range(6)))
    of = heat(powers)
    assert [of.level(4**n) for n in range(6)] == [1, 1, 1, 2, 3, 4]
    assert of.level(0) == 0
    assert of.bounds == (16, 64, 256, 1024)


def test_ascii_shades_all_differ():
    text = drawn(heat(traffic.large(), 8, 22), (0, 0), 40, ascii=True)
    cells = {letter for line in text.split("\n")[1:9] for letter in line[6:28]}
    assert {".", "-", "+", "#", "@"} <= cells
    assert not {"░", "▒", "▓", "█"} & cells


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (512, "512B"), (1000, "1.0K"), (1023, "1.0K"), (1 << 30, "1G"), (int(1.06 * (1 << 30)), "1.1G"),
     (264 << 20, "264M"), (75_776, "74K"), (2**63, "8E")],
)  # fmt: skip
def test_short_sizes_have_four_characters_at_most(size: int, text: str):
    assert short_size(size) == text
    assert len(text) <= 4
