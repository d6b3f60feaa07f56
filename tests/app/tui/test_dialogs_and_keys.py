"""What makes the deck a place to live in: own keys, jumps, memory, endings, questions before a loss."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from msgspec import structs
from rich.cells import cell_len
from textual.binding import Binding

from kvdeck.app.config import Config
from kvdeck.app.tui import notifications, theme
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.bindings import OPENING
from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.dialogs.confirm import Ask
from kvdeck.app.tui.dialogs.help import KEYS, Help, HelpPane
from kvdeck.app.tui.dialogs.jump import Jump, places
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.base import DeckScreen
from kvdeck.app.tui.modes.run.form_fields import COLUMNS
from kvdeck.app.tui.modes.run.form_pane import FormPane
from kvdeck.app.tui.modes.run.log_pane import LogPane
from kvdeck.app.tui.modes.run.progress_pane import ProgressPane, host_text
from kvdeck.app.tui.modes.run.queue_pane import QueuePane
from kvdeck.app.tui.modes.run.steps import StepTable
from kvdeck.app.tui.state import EngineState
from kvdeck.app.tui.submissions import Submissions
from kvdeck.app.tui.widgets import status_bar
from kvdeck.app.tui.widgets.filter_bar import FilterBar
from kvdeck.app.tui.widgets.key_bar import KeyBar
from kvdeck.app.tui.widgets.status_bar import StatusBar
from tests.app.conftest import Answered, DeckOfFiles, a_slow_link
from tests.support.builders import run as a_run

BIG, SMALL = (120, 40), (80, 24)
IDLE = EngineState("connected", "", 4242)


def notes(deck: Deck) -> list[str]:
    return [note.message for note in deck._notifications]


async def test_keys_of_ones_own_replace_the_decks():
    deck = DeckOfFiles(config=Config(keymap={"deck.pause": "P", "form.down": "n,down"}))
    async with deck.run_test(size=BIG) as pilot:
        form = deck.screen.query_one(FormPane)
        await pilot.press("n", "j")
        assert form.line == 1
        await pilot.press("p")
        assert not deck.paused
        await pilot.press("P")
        assert deck.paused
        assert "P pause" in deck.screen.query_one(KeyBar).plain


async def test_a_letter_jumps_to_its_pane_and_any_other_key_stays(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        found = places(deck.screen)
        assert [type(pane) for pane in found.values()] == [StepTable, QueuePane]
        await pilot.press("apostrophe")
        await pilot.pause()
        assert isinstance(deck.screen, Jump)
        await pilot.press("s")
        await pilot.pause()
        assert deck.screen.query_one(QueuePane).has_focus
        for key in ("escape", "x", "apostrophe"):
            await pilot.press("apostrophe", key)
            await pilot.pause()
            assert not isinstance(deck.screen, (Jump, Ask))
            assert deck.screen.query_one(QueuePane).has_focus


async def test_view_and_hidden_panes_are_remembered():
    memory: dict = {"view": "run"}
    deck = DeckOfFiles(memory=memory)
    async with deck.run_test(size=BIG) as pilot:
        commands = {command.title: command for command in deck.get_system_commands(deck.screen)}
        commands["panes: hide log"].callback()
        await pilot.pause()
        assert not deck.screen.query_one(LogPane).display
        await pilot.press("9")
        await pilot.pause()
    assert memory == {"view": "doctor", "hidden": ["log"]}
    again = DeckOfFiles(memory=memory)
    async with again.run_test(size=BIG) as pilot:
        await pilot.pause()
        assert again.current_mode == "doctor"
        await pilot.press("2")
        await pilot.pause()
        assert not again.screen.query_one(LogPane).display
        commands = {command.title: command for command in again.get_system_commands(again.screen)}
        commands["panes: show log"].callback()
        await pilot.pause()
        assert again.screen.query_one(LogPane).display


@pytest.mark.parametrize("mode", OPENING, ids=lambda binding: binding.description)
async def test_each_pane_that_may_be_hidden_stays_so_until_the_next_time(mode: Binding):
    memory: dict = {}
    deck = DeckOfFiles(memory=memory)
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press(mode.key)
        await pilot.pause()
        screen = deck.screen_stack[0]  # a dialog may lie on it
        assert isinstance(screen, DeckScreen)
        panes = {pane: name for pane, name in screen.PANES.items() if screen.query_one(f"#{pane}").display}
        assert bool(panes) == bool(screen.PANES)
        for name in panes.values():
            commands = {command.title: command for command in deck.get_system_commands(screen)}
            commands[f"panes: hide {name}"].callback()
    again = DeckOfFiles(memory=memory)
    async with again.run_test(size=BIG) as pilot:
        await pilot.pause()
        assert f"switch_mode('{again.current_mode}')" == mode.action
        assert not [pane for pane in panes if again.screen_stack[0].query_one(f"#{pane}").display]


@pytest.mark.parametrize(
    ("mode", "size"),
    [*((mode, BIG) for mode in OPENING), (OPENING[1], (60, 15))],
    ids=lambda item: item.description if isinstance(item, Binding) else f"{item[0]}x{item[1]}",
)
async def test_esc_goes_back_and_never_out(mode: Binding, size: tuple[int, int], deck: Answered):
    async with deck.run_test(size=size) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
        for key in (mode.key, "question_mark", "apostrophe", "colon", "x", "slash", "enter"):
            await pilot.press(key)
            await pilot.pause()
            await pilot.press("escape", "escape", "escape")
            await pilot.pause()
            assert deck.is_running
            assert deck.screen is deck.deck_screens[0]
            assert f"switch_mode('{deck.current_mode}')" == mode.action


async def test_the_order_of_the_sessions_is_remembered():
    memory: dict = {}
    for pressed in ("s", ""):
        deck = DeckOfFiles(memory=memory)
        async with deck.run_test(size=BIG) as pilot:
            await pilot.press("4", *pressed)
            await pilot.pause()
            assert "by name" in deck.screen.query_one(FilterBar).plain
    assert memory["sort"] == "name"


async def test_the_form_is_remembered_and_can_be_what_it_was_at_first():
    memory: dict = {}
    deck = DeckOfFiles(memory=memory)
    async with deck.run_test(size=SMALL) as pilot:
        deck.doctor = a_run.doctor()
        await pilot.press("v", "right", *["down"] * 3, "enter", "8", "enter", "v", "v")
        await pilot.pause()
        assert deck.screen.query_one(FormPane).columns == COLUMNS
    assert memory["run"] == {"pipeline_depth": 8}
    again = DeckOfFiles(memory=memory)
    async with again.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert again.screen.query_one(FormPane).form.spec.pipeline_depth == 8
        assert "depth 8" in again.screen.query_one(FormPane).plain
        await pilot.press("r")
        await pilot.pause()
        assert again.requests.asked[-1][1]["pipeline_depth"] == 8
        await pilot.press("R")
        await pilot.pause()
        assert again.screen.query_one(FormPane).form.spec.pipeline_depth == 1
    assert memory["run"] == {}


@pytest.mark.parametrize("keys", [("question_mark",), ("colon",), ("x",), ("4", "enter")])
async def test_what_stands_under_another_screen_is_not_painted_and_is_new_when_it_comes_back(
    keys: tuple[str, ...], deck: Answered, monkeypatch: pytest.MonkeyPatch
):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.press(*keys)
        await pilot.pause(0.3)
        painted = []
        draw = deck._display
        monkeypatch.setattr(deck, "_display", lambda screen, what: (painted.append(what), draw(screen, what)))
        for state in ("queued", "running"):
            deck.post_message(EngineChanged(replace(a_run.live(), run=structs.replace(a_run.view(None), state=state))))
            deck.deck_screens[0].query_one(StatusBar).refresh()
            await pilot.pause(0.2)
        assert [type(what).__name__ for what in painted if type(what).__name__ == "LayoutUpdate"] == []
        await pilot.resize_terminal(*SMALL)
        await pilot.pause(0.2)
        assert deck.deck_screens[0].size == SMALL
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.press("escape", "2")
        await pilot.pause(0.2)
        assert "done" in deck.screen.query_one(ProgressPane).plain


async def test_a_view_that_is_no_more_is_not_opened():
    deck = DeckOfFiles(memory={"view": "teapot", "hidden": 3})
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.pause()
        assert deck.current_mode == "run"


def test_what_has_ended_is_news_once_and_only_if_it_was_seen_going():
    assert notifications.ended({}, {"a": "done"}) == []
    assert notifications.ended({"a": "running", "b": "queued"}, {"a": "done", "b": "running"}) == [("a", "done")]
    assert notifications.ended({"a": "done"}, {"a": "done"}) == []
    assert notifications.title({"a": "done", "b": "running"}) == "kvdeck: b running"
    assert notifications.title({"a": "done"}) == "kvdeck: a done"
    assert notifications.title({}) == "kvdeck"


async def test_a_finished_run_tells_even_while_the_picture_is_held():
    deck = DeckOfFiles(config=Config(bell=True))
    rung, told = [], []
    deck.bell = lambda: rung.append(1)  # type: ignore[method-assign]
    deck.write_sequence = told.append  # type: ignore[method-assign]
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        assert (notes(deck), rung) == ([], [])
        await pilot.press("p")
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.pause()
        assert notes(deck) == [f"{a_run.NAME} is done"]
        assert rung == [1]
        assert [text for text in told if "done" in text] == [f"\x1b]2;kvdeck: {a_run.NAME} done\x07"]
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.pause()
        assert rung == [1]


async def test_q_asks_only_if_something_would_be_lost(deck: Answered, monkeypatch: pytest.MonkeyPatch):
    async with deck.run_test(size=BIG) as pilot:
        monkeypatch.setattr(DeckScreen, "would_lose", lambda self: "The note is not saved.")
        await pilot.press("q")
        assert isinstance(deck.screen, Ask)
        await pilot.press("n")
        assert deck.is_running
        monkeypatch.undo()
        monkeypatch.setattr(Submissions, "pending", True)
        await pilot.press("q")
        assert isinstance(deck.screen, Ask)
        await pilot.press("y")
        await pilot.pause()
    assert not deck.is_running


async def test_a_newcomer_reads_what_the_host_can_do_and_starts_with_one_key(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("f")
        deck.doctor = a_run.doctor()
        await pilot.pause()
        line, offers = deck.screen.query_one(ProgressPane).plain.splitlines()
        assert line.startswith(" Ready here: ")
        assert line.endswith("(9 shows why)")
        assert offers.startswith(" a run the quick A/B")
        assert ("plan a model" in offers) == ("plan" in Deck.MODES)
        assert ("engine" in offers) == ("monitor" in Deck.MODES)
        await pilot.press("a")
        await pilot.pause()
        ((kind, spec),) = deck.requests.asked
        assert (kind, spec["effort"]) == ("run", "quick")
        assert len(spec["layouts"]) == 2


def test_the_hosts_line_has_a_word_for_every_case():
    doctor = a_run.doctor()
    none = replace(doctor, paths=tuple(replace(row, state="unavailable") for row in doctor.paths))
    every = replace(doctor, paths=tuple(replace(row, state="ready") for row in doctor.paths))
    assert host_text(none).startswith("No path can run on this host yet · press 9")
    assert "not" not in host_text(every)
    assert "no python" in host_text(replace(doctor, error="no python"))
    assert max(map(len, map(host_text, (doctor, none, every)))) < 80


async def test_a_slow_link_is_said_in_the_header(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.link = a_slow_link()
        deck.post_message(EngineChanged(EngineState("connected", "", 4242)))
        await pilot.pause()
        assert "slow link 0.8 s" in deck.screen.query_one(StatusBar).plain


@pytest.mark.parametrize(("size", "titled"), [(SMALL, 1), (BIG, 8)])
async def test_where_the_modes_titles_have_no_room_only_the_open_one_keeps_its_own(
    size: tuple[int, int], titled: int, deck: Answered, monkeypatch: pytest.MonkeyPatch
):
    later = {"load": "6", "suite": "7"}
    bindings = [Binding(key, f"switch_mode('{mode}')", mode.title(), id=f"mode.{mode}") for mode, key in later.items()]
    monkeypatch.setattr(status_bar, "OPENING", (*status_bar.OPENING, *bindings))
    monkeypatch.setattr(Deck, "MODES", {**Deck.MODES, **dict.fromkeys(later, Deck.MODES["run"])})
    async with deck.run_test(size=size) as pilot:
        deck.post_message(EngineChanged(replace(IDLE, engine_pid=1234567)))
        await pilot.pause()
        line = deck.screen.query_one(StatusBar).plain
        assert len(line) <= size[0]
        assert "engine: idle" in line
        titles = [binding.description for binding in status_bar.OPENING]
        assert sum(f" {title} " in line for title in titles) == titled
        assert " 2 Run " in line
        assert all(f" {binding.key} " in line for binding in status_bar.OPENING)


async def test_nothing_in_the_header_is_cut_however_much_is_to_be_said(deck: Answered):
    deck.readonly = True
    async with deck.run_test(size=SMALL) as pilot:
        deck.link = a_slow_link()
        deck.post_message(EngineChanged(IDLE))
        await pilot.press("p")
        await pilot.pause()
        line = deck.screen.query_one(StatusBar).plain
        assert len(line) <= SMALL[0]
        assert all(word in line for word in ("PAUSED", "slow link", "read-only", "idle"))


async def test_a_broken_config_is_said_on_the_screen():
    deck = DeckOfFiles(config=Config(problems=("config.yaml, line 2: unknown key 'thme'",)))
    async with deck.run_test(size=BIG) as pilot:
        await pilot.pause()
        assert notes(deck) == ["config.yaml, line 2: unknown key 'thme'"]


def test_sixteen_colours_want_the_terminals_own_palette():
    assert theme.few_colours({"TERM": "xterm"})
    assert theme.few_colours({"TERM": "screen"})
    assert theme.few_colours({})
    assert not theme.few_colours({"TERM": "tmux-256color"})
    assert not theme.few_colours({"TERM": "xterm", "COLORTERM": "truecolor"})


async def test_the_mouse_opens_modes_in_the_header_and_presses_keys_in_the_footer(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.pause()
        header = deck.screen.query_one(StatusBar)
        await pilot.click(StatusBar, offset=(header.plain.index("Doctor"), 0))
        await pilot.pause()
        assert deck.current_mode == "doctor"
        footer = deck.screen.query_one(KeyBar)
        await pilot.click(KeyBar, offset=(footer.plain.index("help"), 0))
        await pilot.pause()
        assert isinstance(deck.screen, Help)


@pytest.mark.parametrize("width", [1, 5, 11, 15, 40])
async def test_the_help_opens_at_any_width(width: int):
    deck = DeckOfFiles()
    async with deck.run_test(size=(width, 20)) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        pane = deck.screen.query_one(HelpPane)
        assert all(cell_len(line) <= max(KEYS + 1, pane.size.width) for line in pane.plain.splitlines())
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(deck.screen, Help)


async def test_the_help_says_how_to_paint_the_screen_again(deck: Answered):
    async with deck.run_test(size=SMALL) as pilot:
        await pilot.press("question_mark")
        await pilot.pause()
        pane = deck.screen.query_one(HelpPane)
        await pilot.press(*["down"] * 60)
        assert "repaint" in " ".join(pane.plain.split())
        assert "deck: repaint" in {command.title for command in deck.get_system_commands(deck.screen)}


async def test_a_click_is_not_typed_into_the_field_that_takes_text(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("right", "right", "enter", "2")
        footer = deck.screen.query_one(KeyBar)
        await pilot.click(KeyBar, offset=(footer.plain.index("help"), 0))
        await pilot.pause()
        assert isinstance(deck.screen, Help)
        await pilot.press("escape")
        await pilot.pause()
        assert deck.screen.query_one(FormPane).typing == "2"
        await pilot.press("escape", "4", "slash", "a")
        await pilot.pause()
        header = deck.screen.query_one(StatusBar)
        filtered = deck.screen.query_one(FilterBar)
        await pilot.click(StatusBar, offset=(header.plain.index("Doctor"), 0))
        await pilot.pause()
        assert deck.current_mode == "doctor"
        assert filtered.text == "a"


async def test_a_run_that_starts_takes_no_field_from_who_types_in_it(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("right", "right", "enter", "2")
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        await pilot.press("4", "enter", "r")
        assert deck.requests.asked[0][1]["blocks"] == 24


async def test_tab_goes_through_a_forms_fields_and_then_to_the_next_pane(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        form = deck.screen.query_one(FormPane)
        await pilot.press("tab")
        assert (form.column, form.line) == (0, 1)
        await pilot.press("shift+tab")
        assert (form.column, form.line) == (0, 0)
        fields = sum(map(len, form.columns))
        await pilot.press(*["tab"] * fields)
        assert not form.has_focus


async def test_an_entry_says_why_it_is_not_taken_and_stays(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        form = deck.screen.query_one(FormPane)
        await pilot.press("right", *["down"] * 3, "enter", "x")
        assert "layers takes a whole number" in form.plain
        await pilot.press("0", "enter")
        assert "layers: 0 is not a whole number from 1 to" in form.plain
        assert form.form.spec.layers == 32
        await pilot.press("backspace", "8", "enter")
        assert form.form.spec.layers == 8
        assert "whole number" not in form.plain


async def test_enter_opens_the_report_of_a_run_that_ended(deck: Answered):
    async with deck.run_test(size=BIG) as pilot:
        deck.post_message(EngineChanged(a_run.finished()))
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(deck.screen, ResultScreen)
        await pilot.press("escape")
        await pilot.pause()
        assert deck.current_mode == "run"
        assert not deck.screen.query_one(FormPane).display
        await pilot.press("e")
        await pilot.pause()
        assert deck.screen.query_one(FormPane).has_focus


async def test_a_theme_is_shown_under_the_cursor_and_kept_only_by_enter(deck: Answered):
    async def until_theme(name: str) -> None:
        deadline = time.monotonic() + 30
        while deck.theme != name:
            assert time.monotonic() < deadline, deck.theme
            await pilot.pause(0.02)

    async with deck.run_test(size=BIG) as pilot:
        before = deck.theme
        for last, kept in (("escape", before), ("enter", "kvdeck-light")):
            await pilot.press("colon", *"theme light")
            await until_theme("kvdeck-light")
            await pilot.press(last)
            await until_theme(kept)
