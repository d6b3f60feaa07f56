"""What leaves the deck: tables, charts, pictures."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from msgspec.structs import replace

from kvdeck.app.tui import export
from kvdeck.app.tui.export import Table, csv_text, kept, markdown
from kvdeck.app.tui.export_tables import result_table
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.run.steps import StepTable
from kvdeck.sessions.model.records import TransferCounts
from tests.app.conftest import Answered
from tests.support.builders import run as a_run

BIG = (120, 40)


def files(tmp_path: Path) -> dict[str, str]:
    return {path.name[16:]: path.read_text() for path in sorted((tmp_path / "home" / export.FOLDER).iterdir())}


def test_markdown_and_csv_keep_their_cells_apart():
    table = Table("t", ("a|b", "µs"), (("x, y", '"1"'), ("", "2|3")))
    assert markdown(table) == '| a\\|b | µs   |\n|------|------|\n| x, y | "1"  |\n|      | 2\\|3 |\n'
    assert list(csv.reader(csv_text(table).splitlines())) == [["a|b", "µs"], ["x, y", '"1"'], ["", "2|3"]]


def test_a_name_that_is_taken_is_not_written_over(tmp_path: Path):
    paths = {kept("t", "md", text) for text in "abc"}
    assert len(paths) == 3
    assert {path.read_text() for path in paths} == {"a", "b", "c"}


async def test_the_table_in_focus_is_copied_whole_and_kept(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
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
        assert [row["session"] for row in rows] == [row.name for row in deck.requests.kept]
        assert files(tmp_path)["sessions.csv"] == deck.clipboard
        (told, *_) = [note.message for note in deck._notifications if "CSV" in note.message]
        assert "3 rows as CSV copied to your terminal's clipboard; also saved to" in told


async def test_the_points_of_a_chart_are_exported(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("E")
        await pilot.pause()
        assert not (tmp_path / "home").exists()
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        await pilot.press("E")
        await pilot.pause()
        rows = list(csv.DictReader(files(tmp_path)["bandwidth.csv"].splitlines()))
        assert {row["layout"].split()[0] for row in rows} == {"FullyContiguous", "LayerSeparate"}
        assert all(float(row["gb_per_s"]) > 0 for row in rows)
        assert len(rows) > 10


async def test_a_result_is_copied_and_its_times_exported(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("4", "enter")
        await pilot.pause(0.2)
        await pilot.press("Y", "E")
        await pilot.pause()
        rows = list(csv.DictReader(deck.clipboard.splitlines()))
        assert [row["path"] for row in rows] == [result.path for result in a_run.session().results]
        assert float(rows[0]["GB/s"]) == pytest.approx(9.0, rel=0.01)
        found = files(tmp_path)
        percentiles = list(csv.DictReader(found[f"{a_run.NAME}-percentiles.csv"].splitlines()))
        assert {row["phase"] for row in percentiles} == {"prep", "post", "transfer", "request"}
        assert all(float(row["p50_us"]) <= float(row["max_us"]) for row in percentiles)
        times = list(csv.DictReader(found[f"{a_run.NAME}-request-times.csv"].splitlines()))
        expected = sum(count for spread in a_run.spreads(a_run.session()).values() for _, count in spread)
        assert sum(int(row["requests"]) for row in times) == expected
        assert f"{a_run.NAME}-bandwidth.csv" in found


async def test_counted_sessions_are_copied_as_they_were_counted():
    counted = replace(
        a_run.session(), results=(), transfer_counts=(TransferCounts("HostToDisk", "FullyContiguous", 3, 300, 30),)
    )
    table = result_table(counted)
    assert dict(zip(table.titles, table.rows[0], strict=True))["transfers"] == "3"


async def test_a_diffs_distributions_and_curves_are_exported(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("4", "d")
        await pilot.pause(0.3)
        await pilot.press("E")
        await pilot.pause()
        found = {name.removeprefix(a_run.NAME): text for name, text in files(tmp_path).items()}
        (times,) = [text for name, text in found.items() if name.endswith("request-times.csv")]
        assert {row["layout"].split()[0] for row in csv.DictReader(times.splitlines())} == {
            "FullyContiguous",
            "LayerSeparate",
        }
        assert any(name.endswith("bandwidth.csv") for name in found)


async def test_a_plan_and_its_sweep_are_copied_and_exported(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("1", "Y")
        await pilot.pause()
        plan = {row["figure"]: row for row in csv.DictReader(deck.clipboard.splitlines())}
        assert plan["descriptors per block"]["FullyContiguous"] == "1"
        assert plan["descriptors per block"]["LayerSeparate"] == "64"
        await pilot.press("E")
        await pilot.pause()
        rows = list(csv.DictReader(files(tmp_path)["block-sizes.csv"].splitlines()))
        one = next(row for row in rows if (row["tp"], row["page_size"]) == ("1", "16"))
        assert int(one["block_bytes"]) == int(one["region_bytes"]) * int(one["regions"])


async def test_doctors_paths_and_facts_are_copied(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.doctor = a_run.doctor()
        await pilot.press("9")
        await pilot.pause()
        await pilot.press("Y")
        await pilot.pause()
        assert "HostToHost,UCX ✓,ready" in deck.clipboard
        await pilot.press("tab", "tab", "Y")
        await pilot.pause()
        assert "cpu model,a processor" in deck.clipboard


async def test_a_picture_is_saved(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("9", "S")
        await pilot.pause()
        assert "not&#160;checked&#160;yet" in files(tmp_path)["doctor.svg"]


async def test_a_picture_shows_no_toast_and_leaves_those_unread_ones_there(deck: Answered, tmp_path: Path):
    async with deck.run_test(size=BIG, notifications=True) as pilot:
        deck.notify("still unread", severity="error", timeout=600)
        await pilot.pause()
        assert "still&#160;unread" in deck.export_screenshot()
        await pilot.press("S")
        await pilot.pause()
        assert "still&#160;unread" not in files(tmp_path)["run.svg"]
        assert [note.message.partition(" saved")[0] for note in deck._notifications] == ["still unread", "Screenshot"]
        await pilot.pause()
        assert "still&#160;unread" in deck.export_screenshot()


async def test_a_home_that_takes_nothing_is_said(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_HOME", "/proc/kvdeck")
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("S")
        await pilot.pause()
        (note,) = deck._notifications
        assert "can't write in /proc/kvdeck/shared" in note.message
        assert "set KVDECK_HOME" in note.message
