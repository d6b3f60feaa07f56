"""What leaves the deck: tables, charts, pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from kvdeck.app import sharing
from kvdeck.app.messages import SnapshotTaken
from kvdeck.app.sharing import Table, csv_text, kept, markdown
from kvdeck.app.widgets.steps import StepTable

from . import a_run
from .conftest import DeckOfFiles

BIG = (120, 40)


def files(tmp_path: Path) -> dict[str, str]:
    return {path.name[16:]: path.read_text() for path in sorted((tmp_path / "home" / sharing.FOLDER).iterdir())}


def test_markdown_and_csv_keep_their_cells_apart():
    table = Table("t", ("a|b", "µs"), (("x, y", '"1"'), ("", "2|3")))
    assert markdown(table) == '| a\\|b | µs   |\n|------|------|\n| x, y | "1"  |\n|      | 2\\|3 |\n'
    assert list(csv.reader(csv_text(table).splitlines())) == [["a|b", "µs"], ["x, y", '"1"'], ["", "2|3"]]


def test_a_name_that_is_taken_is_not_written_over(tmp_path: Path):
    paths = {kept("t", "md", text) for text in "abc"}
    assert len(paths) == 3
    assert {path.read_text() for path in paths} == {"a", "b", "c"}


async def test_the_table_in_focus_is_copied_whole_and_kept(deck: DeckOfFiles, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(SnapshotTaken(a_run.live()))
        await pilot.pause()
        deck.screen.query_one(StepTable).focus()
        await pilot.press("y")
        await pilot.pause()
        assert deck.clipboard == files(tmp_path)[f"{a_run.NAME}.md"]
        head, _, *rows = deck.clipboard.splitlines()
        assert [cell.strip() for cell in head.split("|")[1:4]] == ["path", "layout", "backend"]
        assert len(rows) == 6
        assert "LayerSeparate" in rows[1]
        await pilot.press("4")
        await pilot.pause()
        await pilot.press("Y")
        await pilot.pause()
        rows = list(csv.DictReader(deck.clipboard.splitlines()))
        assert [row["session"] for row in rows] == [row.name for row in deck.kept]
        assert files(tmp_path)["sessions.csv"] == deck.clipboard
        (told, *_) = [note.message for note in deck._notifications if "CSV" in note.message]
        assert "3 rows as CSV sent to your terminal's clipboard; if it takes none, they are in" in told


async def test_the_points_of_a_chart_are_exported(deck: DeckOfFiles, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("E")
        await pilot.pause()
        assert not (tmp_path / "home").exists()
        deck.post_message(SnapshotTaken(a_run.live()))
        await pilot.pause()
        await pilot.press("E")
        await pilot.pause()
        rows = list(csv.DictReader(files(tmp_path)["bandwidth.csv"].splitlines()))
        assert {row["layout"].split()[0] for row in rows} == {"FullyContiguous", "LayerSeparate"}
        assert all(float(row["gb_per_s"]) > 0 for row in rows)
        assert len(rows) > 10


async def test_a_picture_is_saved(deck: DeckOfFiles, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("9", "S")
        await pilot.pause()
        assert "not&#160;looked&#160;at&#160;yet" in files(tmp_path)["doctor.svg"]


async def test_a_home_that_takes_nothing_is_said(deck: DeckOfFiles, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_HOME", "/proc/kvdeck")
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("S")
        await pilot.pause()
        (note,) = deck._notifications
        assert "can't write in /proc/kvdeck/shared" in note.message
        assert "set KVDECK_HOME" in note.message
