"""What the keys do, and what is shown."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.dialogs.confirm import Ask
from kvdeck.app.tui.dialogs.help import Help, HelpPane
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.doctor.screen import Advice
from kvdeck.app.tui.modes.run.form_pane import FormPane
from kvdeck.app.tui.modes.run.log_pane import LogPane
from kvdeck.app.tui.modes.run.percentile_pane import PercentilePane
from kvdeck.app.tui.modes.run.progress_pane import ProgressPane
from kvdeck.app.tui.modes.run.queue_pane import QueuePane
from kvdeck.app.tui.modes.run.steps import StepTable
from kvdeck.app.tui.widgets.charts import Plot
from kvdeck.app.tui.widgets.filter_bar import FilterBar
from kvdeck.app.tui.widgets.key_bar import KeyBar
from kvdeck.app.tui.widgets.list import Listing, Page
from kvdeck.app.tui.widgets.status_bar import StatusBar
from tests.app.conftest import Answered, DeckOfFiles
from tests.support.builders import run as a_run

BIG = (120, 40)
SMALL = (80, 24)


async def show(pilot: Pilot[None], snapshot) -> None:
    pilot.app.doctor = a_run.doctor()
    pilot.app.post_message(EngineChanged(snapshot))
    await pilot.pause()


def text(deck: Answered, pane) -> str:
    return deck.screen.query_one(pane).plain


async def test_r_asks_for_what_the_form_says(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.finished())
        await pilot.press("f", "space", "right", "down", "down", "space", "right", "up", "plus", "r")
        ((kind, spec),) = deck.requests.asked
        assert kind == "run"
        assert spec["paths"] == ["HostToDisk", "DiskToHost"]
        assert len(spec["layouts"]) == 3
        assert spec["batch"] == 1


async def test_a_number_is_typed(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("right", "right", "enter", "2", "4", "9", "backspace", "enter", "r")
        assert deck.requests.asked == [("run", deck.screen.query_one(FormPane).form.to_mapping())]
        assert deck.requests.asked[0][1]["blocks"] == 24
        assert deck.current_mode == "run"


async def test_a_peer_is_typed_tried_at_once_and_remembered(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("v", "v", "right", *["down"] * 4, "enter", *"root@node2", "enter")
        await pilot.pause()
        shown = text(deck, FormPane)
        assert "root@node2 is ready, over tcp/eth1" in shown
        await pilot.press("r")
        (tried, (kind, spec)) = deck.requests.asked
        assert tried == ("try_peer", ("root@node2", "kvdeck"))
        assert (kind, spec["peer"], spec["paths"]) == ("run", ["root@node2"], ["HostToHost"])
        await pilot.press("R", "space")
        await pilot.pause()
        assert "peer        root@node2" in text(deck, FormPane)


async def test_a_path_that_can_not_run_says_why_and_stays_out(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.finished())
        await pilot.press("e", *["down"] * 7, "space")
        form = deck.screen.query_one(FormPane)
        assert form.at.key == "DiskToDevice"
        assert not form.form.chosen("DiskToDevice")
        assert "no GPU: the NVIDIA driver is not loaded · fix: load the driver" in form.plain


async def test_a_live_run_is_shown_whole(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        assert f"{a_run.NAME}" in text(deck, ProgressPane)
        assert "51 %" in text(deck, ProgressPane)
        assert "0:15 to go" in text(deck, ProgressPane)
        steps = text(deck, StepTable).splitlines()
        assert [line.split()[0] for line in steps[1:7]] == ["✓", "✓", "▸", "▸", "·", "·"]
        assert "≈1.31× 1.28–1.35" in steps[4]
        assert "0.91× pwrite" in text(deck, PercentilePane)
        assert "GB/s HostToDisk" in text(deck, Plot)
        assert "fc" in text(deck, Plot)
        assert "page cache bypassed" in " ".join(text(deck, LogPane).split())
        assert "now 20260101-120000-run" in text(deck, QueuePane)
        assert "  1 20260101-120500-sweep" in text(deck, QueuePane)
        assert "running, pid 4242" in text(deck, StatusBar)


async def test_the_same_picture_again_paints_nothing(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        painted = []
        deck.post_display_hook = lambda: painted.append(1)  # type: ignore[method-assign]
        await show(pilot, a_run.live())
        assert painted == []


async def test_a_step_is_picked_and_followed_again(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        deck.screen.query_one(StepTable).focus()
        await pilot.press("g")
        assert "GB/s HostToHost" in text(deck, Plot)
        await pilot.press("escape")
        assert "GB/s HostToDisk" in text(deck, Plot)


async def test_cancel_asks_first(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        await pilot.press("x")
        assert isinstance(deck.screen, Ask)
        await pilot.press("n")
        assert deck.requests.asked == []
        await pilot.press("x", "y")
        await pilot.pause()
        assert deck.requests.asked == [("cancel", a_run.NAME)]


async def test_a_queued_run_is_cancelled_from_the_queue(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        deck.screen.query_one(QueuePane).focus()
        await pilot.press("down", "enter", "x", "y")
        await pilot.pause()
        assert deck.requests.asked == [("follow", a_run.QUEUED.session), ("cancel", a_run.QUEUED.session)]


async def test_pause_holds_the_picture_and_not_the_data(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        await pilot.press("p")
        assert "PAUSED" in text(deck, StatusBar)
        await show(pilot, a_run.finished())
        assert "51 %" in text(deck, ProgressPane)
        await pilot.press("p")
        assert "100 %" in text(deck, ProgressPane)
        assert "PAUSED" not in text(deck, StatusBar)


async def test_a_lost_engine_is_a_state_on_the_screen(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await show(pilot, a_run.disconnected())
        assert "✗ no engine" in text(deck, StatusBar)
        assert "no engine is running · retrying" in text(deck, ProgressPane)
        assert "HostToHost" in text(deck, StepTable)


async def test_a_crash_shows_its_signal_and_last_words(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.crashed())
        assert "the worker ended by SIGABRT" in text(deck, ProgressPane)
        assert "malloc(): corrupted top size" in text(deck, LogPane)


async def test_small_terminals_show_form_or_live_view(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        assert deck.screen.query_one(FormPane).display
        assert not deck.screen.query_one(StepTable).display
        await show(pilot, a_run.live())
        assert not deck.screen.query_one(FormPane).display
        assert deck.screen.query_one(StepTable).has_focus
        await pilot.press("f")
        assert deck.screen.query_one(FormPane).has_focus
        await pilot.press("f")
        await pilot.press("escape")
        assert deck.screen.query_one(FormPane).has_focus


async def test_too_small_a_terminal_gets_a_kind_word(deck: Answered):
    async with deck.run_test(size=(60, 20)) as pilot:
        assert "kvdeck needs 80×24" in deck.screen.query_one("#small").plain
        assert not deck.screen.query_one(FormPane).display
        await pilot.resize_terminal(80, 24)
        await pilot.pause()
        assert deck.screen.query_one(FormPane).display


async def test_sessions_are_filtered_sorted_and_opened(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("4")
        await pilot.pause()
        listing = deck.screen.query_one(Listing)
        assert [row.name for row in listing.items] == [row.name for row in deck.requests.kept]
        await pilot.press("s")
        assert [row.name for row in listing.items] == sorted(row.name for row in deck.requests.kept)
        await pilot.press("slash", *"disk crash", "enter")
        assert [row.name for row in listing.items] == ["nvme-sweep"]
        assert "1 of 3" in text(deck, FilterBar)
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(deck.screen, ResultScreen)
        page = " ".join(text(deck, Page).split())
        assert "LayerSeparate 64/1,024 19.2 µs 5.13 ms" in page
        assert "bytes verified" in page
        await pilot.press("j", "j", "j", "j", "j")
        page = " ".join(text(deck, Page).split())
        assert "LayerSeparate takes 1.31× the time of FullyContiguous" in page
        await pilot.press("escape")
        await pilot.pause()
        await pilot.press("escape")
        await pilot.pause()
        assert len(listing.items) == 3


async def test_no_sessions_teach_how_to_make_one(deck: Answered):
    deck.requests.kept = ()
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("4")
        await pilot.pause()
        assert "no session yet · 2, then r, starts a run" in text(deck, Listing)


async def test_doctor_shows_reason_and_mend(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("9")
        await pilot.pause()
        assert "not checked yet" in text(deck, Listing)
        await pilot.press("r")
        await pilot.pause()
        assert "dgx-01" in text(deck, Page)
        assert "ext4" in text(deck, Page)
        await pilot.press("G")
        await pilot.pause()
        assert "fix: load the driver" in text(deck, Advice)


async def test_every_fix_of_doctors_can_be_read_on_a_small_terminal(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("9")
        deck.doctor = a_run.doctor()
        await pilot.pause()
        advice = deck.screen.query_one(Advice)
        assert "more lines" in advice.plain
        await pilot.press("tab")
        assert advice.has_focus
        read = []
        for _ in range(20):
            read.append(advice.plain)
            await pilot.press("down")
        for fix in ("install a driver", "choose a folder on a disk", "load the driver (nvidia-smi must list a GPU)"):
            assert any(f"fix: {fix}" in text for text in read), fix
        assert "more lines" not in advice.plain
        assert "POSIX AIO" in advice.plain or "UCX" in advice.plain, "the reasons stand below the fixes"


@pytest.mark.parametrize("mode", ["2", "4", "9"])
async def test_every_key_in_the_help_has_a_meaning(deck: Answered, mode: str):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press(mode)
        await pilot.pause()
        for active in deck.screen.active_bindings.values():
            binding = active.binding
            if binding.group is not None:
                assert binding.id, binding
                assert binding.tooltip, binding
                allowed = binding.key in ("ctrl+c", "ctrl+p") or "ctrl" not in binding.key
                assert allowed, binding
        await pilot.press("question_mark")
        assert isinstance(deck.screen, Help)
        shown = text(deck, HelpPane)
        assert "Close the deck; runs continue in the" in shown
        await pilot.press("escape")
        assert not isinstance(deck.screen, Help)


async def test_escape_never_quits_and_q_does(deck: Answered, capfd: pytest.CaptureFixture[str]):
    async with deck.run_test(size=SMALL) as pilot:
        for mode in ("2", "4", "9"):
            await pilot.press(mode, "escape", "escape")
            assert deck.is_running
        await show(pilot, a_run.live())
        await pilot.press("q")
    assert not deck.is_running
    assert "2 runs continue in the engine; `kvdeck` shows them again" in capfd.readouterr().err


async def test_a_readonly_deck_says_that_it_is_one():
    deck = DeckOfFiles(readonly=True)
    async with deck.run_test(size=BIG) as pilot:
        await show(pilot, a_run.live())
        assert "read-only" in text(deck, StatusBar)


@pytest.mark.parametrize("size", [SMALL, BIG, (200, 60)])
async def test_the_key_bar_names_the_keys_that_matter(deck: Answered, size):
    async with deck.run_test(size=size) as pilot:
        await pilot.pause()
        assert "r run" in text(deck, KeyBar)
        assert "? help" in text(deck, KeyBar) or size == SMALL


async def test_the_palette_lists_what_is_valid_now_and_does_it(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        commands = {command.title: command for command in deck.get_system_commands(deck.screen)}
        assert "run: cancel" in commands
        assert "sessions: filter" not in commands
        await commands["modes: doctor"].callback()
        await pilot.pause()
        assert deck.current_mode == "doctor"
        commands["theme: light"].callback()
        await pilot.pause()
        assert deck.theme == "kvdeck-light"
        await pilot.press("colon", *"deck: pause")
        await deck.workers.wait_for_complete()
        await pilot.pause()
        await pilot.press("down", "enter")
        await pilot.pause()
        assert deck.paused
