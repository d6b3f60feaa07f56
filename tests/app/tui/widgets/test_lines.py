"""Only the cells that differ are painted again."""

from __future__ import annotations

import pytest
from rich.cells import cell_len
from textual.app import App, ComposeResult

from kvdeck.app.tui import theme
from kvdeck.app.tui.widgets.lines import CURSOR, Lines, Row, cell, heading, window


class Sample(Lines):
    """Shows the rows it is given, and notes which regions it has marked."""

    shown: tuple[Row, ...] = ()

    def rows(self, width: int, height: int) -> list[Row]:
        return list(self.shown)

    def refresh(self, *regions, **options):
        self.marked = [*getattr(self, "marked", []), *regions]
        return super().refresh(*regions, **options)


class SampleApp(App[None]):
    def on_load(self) -> None:
        self.register_theme(theme.load(theme.DEFAULT))
        self.theme = theme.DEFAULT

    def compose(self) -> ComposeResult:
        yield Sample()


async def marked(before: tuple[Row, ...], after: tuple[Row, ...]) -> list[tuple[int, int, int, int]]:
    app = SampleApp()
    async with app.run_test(size=(40, 10)) as pilot:
        pane = app.query_one(Sample)
        pane.shown = before
        pane.redraw()
        await pilot.pause()
        pane.marked = []
        pane.shown = after
        pane.redraw()
        return [tuple(region) for region in pane.marked]


async def test_nothing_is_marked_when_nothing_changed():
    rows: tuple[Row, ...] = ((("same", ""),), (("rows", "dim"),))
    assert await marked(rows, rows) == []


async def test_only_the_changed_figures_are_marked():
    before: tuple[Row, ...] = ((("GB/s ", "dim"), ("1.23", "")), (("still", ""),))
    after: tuple[Row, ...] = ((("GB/s ", "dim"), ("1.48", "")), (("still", ""),))
    assert await marked(before, after) == [(7, 0, 2, 1)]


@pytest.mark.parametrize(
    ("before", "after", "region"),
    [
        (("\u1100\u1161 ab",), ("\u1100\u1161 aX",), (4, 0, 1, 1)),
        (("漢字ab",), ("漢文ab",), (2, 0, 2, 1)),
        (("1\ufe0f\u20e3 ab",), ("1\ufe0f\u20e3 Xb",), (3, 0, 1, 1)),
        (("a漢b",), ("漢bb",), (0, 0, 3, 1)),
        (("ae", "\u0301b"), ("ae", "b"), (1, 0, 1, 1)),
    ],
)
async def test_columns_are_counted_as_the_terminal_draws_them(before, after, region):
    found = await marked((tuple((text, "") for text in before),), (tuple((text, "") for text in after),))
    assert found == [region]


async def test_a_style_alone_is_a_change():
    assert await marked(((("word", ""),),), ((("word", "bad"),),)) == [(0, 0, 4, 1)]


async def test_a_row_that_went_away_is_blanked():
    assert await marked(((("gone", ""),),), ()) == [(0, 0, 4, 1)]


async def test_a_cursor_marks_the_whole_row():
    row: Row = (("x", ""),)
    assert await marked((row,), ((CURSOR, *row),)) == [(0, 0, 40, 1)]


def test_cells_have_exactly_their_width():
    for text in ("", "short", "far too long for this", "全角文字列です", "two\nlines"):
        for right in (False, True):
            assert cell_len(cell(text, 9, right=right)[0]) == 9
    assert cell("far too long", 6)[0] == "far t…"
    assert [cell_len(cell("漢字", width)[0]) for width in range(4)] == [0, 1, 2, 3]


def test_a_heading_fills_its_width():
    row = heading("Steps", 40, focused=True, note="3 more")
    assert cell_len("".join(text for text, _ in row)) == 40


def test_the_window_keeps_the_cursor_in_sight():
    assert window(0, 0, 100, 10) == 0
    assert window(0, 10, 100, 10) == 1
    assert window(50, 40, 100, 10) == 40
    assert window(95, 99, 100, 10) == 90
    assert window(5, 0, 3, 10) == 0
