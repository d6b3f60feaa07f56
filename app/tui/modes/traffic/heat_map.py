"""A traffic matrix as a picture: ranks in groups, bytes in shades on a log scale, sums of rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter

from kvdeck.app.tui.widgets.cells import Cells
from kvdeck.app.tui.widgets.lines import Row, cell
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.sessions.units import count_text, many, plain_text, size_text

MOST_CELLS = 32
"""More ranks than this are shown in groups, at most so many each way."""
SHADES, ASCII_SHADES = "·░▒▓█", ".-+#@"
_TONES = ("rule", "dim", "", "run", "!run")
_BARS, _ASCII_BARS = " ▁▂▃▄▅▆▇█", " .:-=+*#@"
_STEP = 4.0
"""Ratio of the bounds of two neighbouring shades; the lightest holds all below."""
LABEL, SUM = 6, 10
"""Columns of the labels at the left and of the sums at the right."""
FRAME = 3
"""Rows around the cells: the columns' labels, their sums, and what is under the cursor."""
Group = tuple[int, ...]


def groups(ranks: Sequence[int], most: int) -> tuple[Group, ...]:
    """Return the ranks in groups of 1, 2, 4, 8 … consecutive ones, so that there are at most `most` groups."""
    size = 1
    while len(ranks) > size * max(1, most):
        size *= 2
    return tuple(tuple(ranks[at : at + size]) for at in range(0, len(ranks), size))


def shown_ranks(matrix: Matrix, everyone: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ranks of the rows and of the columns: all, or those that send and those that receive."""
    whole = tuple(range(matrix.ranks))
    if everyone or not matrix.senders:
        return whole, whole
    return matrix.senders, matrix.receivers


@dataclass(frozen=True)
class HeatMap:
    """A matrix of bytes with its ranks in groups."""

    matrix: Matrix
    rows: tuple[Group, ...]
    columns: tuple[Group, ...]

    @cached_property
    def values(self) -> tuple[tuple[int, ...], ...]:
        """Bytes from each group of rows to each group of columns."""
        pick = [_picker(group) for group in self.columns]
        return tuple(
            tuple(sum(sum(take(self.matrix.rows[rank])) for rank in group) for take in pick) for group in self.rows
        )

    @cached_property
    def bounds(self) -> tuple[float, ...]:
        """Upper bounds of the shades, the lightest first; empty if nothing moves."""
        most = max((value for row in self.values for value in row), default=0)
        return tuple(most / _STEP**power for power in (3, 2, 1, 0)) if most else ()

    def level(self, value: int) -> int:
        """Return the shade of a number of bytes: 0 for none, 4 for the most."""
        if not value:
            return 0
        return next((level for level, bound in enumerate(self.bounds, 1) if value <= bound), 4)

    @property
    def note(self) -> str:
        """What a cell stands for, if for more than two ranks."""
        down, across = (max(map(len, groups_), default=1) for groups_ in (self.rows, self.columns))
        return "" if down == across == 1 else f"a cell = {count_text(down)} × {count_text(across)} ranks"

    def place(self, source: int, destination: int) -> tuple[int, int]:
        """Return the row and the column that hold a rank's cell; the nearest if they aren't shown."""
        return _holding(self.rows, source), _holding(self.columns, destination)

    def told(self, row: int, column: int, width: int) -> str:
        """Return what is under the cursor, in as many words as fit."""
        one, other = self.rows[row], self.columns[column]
        value = self.values[row][column]
        what = f"{_named(one)} → {_named(other)}  {size_text(value)}"
        if len(one) == len(other) == 1 or not value:
            return what
        cells = [(self.matrix.rows[a][b], a, b) for a in one for b in other if self.matrix.rows[a][b]]
        most, source, destination = max(cells)
        longer = f"{what} in {many(len(cells), 'cell')}"
        longest = f"{longer}, most r{source} → r{destination} {size_text(most)}"
        return next((text for text in (longest, longer) if len(text) <= width), what)


def _picker(group: Group) -> Callable[[Sequence[int]], Sequence[int]]:
    if len(group) > 1:
        return itemgetter(*group)
    only = group[0]
    return lambda row: (row[only],)


def _holding(of: Sequence[Group], rank: int) -> int:
    return min(range(len(of)), key=lambda at: 0 if of[at][0] <= rank <= of[at][-1] else abs(of[at][0] - rank) + 1)


def _named(group: Group) -> str:
    return f"r{group[0]}" if len(group) == 1 else f"r{group[0]}–{group[-1]}"


def short_size(size: int) -> str:
    """Return bytes in at most four characters: `512B`, `1.3G`, `264M`."""
    if 999 < size < 1024:
        return "1.0K"
    number, _, unit = size_text(size).partition(" ")
    if len(number) <= 3:
        return f"{number}{unit[:1]}"
    value = float(number)
    return plain_text(value, 1 if value < 9.95 else 0) + unit[0]


def cell_width(columns: int, width: int) -> int:
    """Return the width of a cell; 1 if not all fit."""
    return max(1, min(5, (width - LABEL - SUM) // max(1, columns)))


def columns_shown(columns: int, width: int) -> int:
    """Return how many columns of cells fit."""
    return max(1, min(columns, (width - LABEL - SUM) // cell_width(columns, width)))


def heat_rows(
    heat: HeatMap, at: tuple[int, int], corner: tuple[int, int], width: int, height: int, focused: bool, ascii: bool
) -> list[Row]:
    """Return the picture in at most `height` rows.

    Args:
        heat: The map.
        at: Row and column of the cursor.
        corner: The first row and column shown.
        width: Columns of the terminal.
        height: Rows of the terminal.
        focused: Draw the cursor.
        ascii: Use shades that differ in ASCII.
    """
    size = cell_width(len(heat.columns), width)
    columns = range(corner[1], corner[1] + columns_shown(len(heat.columns) - corner[1], width))
    rows = range(corner[0], min(len(heat.rows), corner[0] + max(1, height - FRAME)))
    found = [_labels(heat, columns, size, width, at[1] if focused else None)]
    for row in rows:
        canvas = Cells(width)
        here = focused and row == at[0]
        canvas.right(LABEL - 1, f"{'▸' if here else ''}{heat.rows[row][0]}", "key" if here else "")
        for number, column in enumerate(columns):
            _draw(canvas, heat.level(heat.values[row][column]), LABEL + number * size, size, ascii,
                  here and column == at[1])  # fmt: skip
        canvas.right(LABEL + len(columns) * size + SUM - 1, size_text(sum(heat.values[row])))
        found.append(canvas.row())
    found.append(_sums(heat, columns, size, width, ascii))
    said = heat.told(*at, width - 2)
    legend = _legend(heat, ascii)
    room = width - 1 - len(legend)
    found.append((cell(f" {said}", room if room >= len(said) + 2 else width, "key" if focused else ""),
                  *([(legend, "dim")] if room >= len(said) + 2 else [])))  # fmt: skip
    return found[:height]


def _labels(heat: HeatMap, columns: range, size: int, width: int, at: int | None) -> Row:
    canvas = Cells(width)
    canvas.right(LABEL - 1, "to", "dim")
    free = 0
    for number, column in enumerate(columns):
        text, x = str(heat.columns[column][0]), LABEL + number * size + (size - 1) // 2
        x = max(LABEL, x - (len(text) - 1) // 2 if size > 2 else x)
        if x >= free and column != at:
            canvas.put(x, text, "dim")
            free = x + len(text) + 1
    if at is not None and at in columns:
        text = str(heat.columns[at][0])
        x = max(LABEL, LABEL + (at - columns.start) * size + (size - 1) // 2 - (len(text) - 1) // 2)
        canvas.put(x - 1, f" {text} ", "key")
    canvas.right(LABEL + len(columns) * size + SUM - 1, "sum", "dim")
    return canvas.row()


def _draw(canvas: Cells, level: int, x: int, size: int, ascii: bool, here: bool) -> None:
    shade = (ASCII_SHADES if ascii else SHADES)[level]
    wide = 2 if size == 4 else 1
    x += (size - wide) // 2
    canvas.put(x, shade * wide, _TONES[level])
    if not here:
        return
    if size >= 3:
        canvas.put(x - 1, "[", "key")
        canvas.put(x + wide, "]", "key")
    elif size == 2:
        canvas.put(x + 1, "◂", "key")
    else:
        canvas.put(x, "×", "key")


def _sums(heat: HeatMap, columns: range, size: int, width: int, ascii: bool) -> Row:
    sums = [sum(row[column] for row in heat.values) for column in range(len(heat.columns))]
    most = max(sums, default=0)
    canvas = Cells(width)
    canvas.right(LABEL - 1, "sum", "dim")
    for number, column in enumerate(columns):
        x = LABEL + number * size
        if size >= 5:
            canvas.right(x + size, short_size(sums[column]), "dim")
        else:
            part = -(-8 * sums[column] // most) if most else 0
            wide = 2 if size == 4 else 1
            canvas.put(x + (size - wide) // 2, (_ASCII_BARS if ascii else _BARS)[part] * wide, "dim")
    canvas.right(LABEL + len(columns) * size + SUM - 1, size_text(sum(sums)))
    return canvas.row()


def _legend(heat: HeatMap, ascii: bool) -> str:
    shades = ASCII_SHADES if ascii else SHADES
    used = {heat.level(value) for row in heat.values for value in row} - {0}
    parts = [f"{shades[level]} ≤{short_size(round(heat.bounds[level - 1]))}" for level in sorted(used)]
    return "  ".join(parts)
