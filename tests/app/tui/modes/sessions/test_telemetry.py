"""Recordings on the Sessions screen: shown as what they are, and set against each other."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec
import orjson
import pytest

from kvdeck.app.cli.main import main
from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.comparison.diff import DiffScreen
from kvdeck.app.tui.comparison.report import ResultScreen
from kvdeck.app.tui.modes.sessions.diff_telemetry import RecordingsScreen
from kvdeck.app.tui.modes.sessions.screen import SessionsScreen
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.widgets.lines import Lines
from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.model.encoding import encode_document
from kvdeck.sessions.model.records import TransferCounts
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.store.telemetry.session import INSIDE
from kvdeck.sessions.store.trace_counts import Process
from kvdeck.sessions.store.traces import begin
from tests.app.tui.modes.sessions.test_screen import until
from tests.sessions.store.test_telemetry_summary import rates, recorded


def deck_of_recordings(home: Path, count: int = 2) -> Deck:
    """The deck on real recordings in a home of the test's own, without an engine."""
    store = Store(home)
    store.sessions.mkdir(parents=True)
    for number in range(count):
        recorded(store, ("before", "after", "later")[number], rates(1e9 * (1 + number), number))
    return Deck(requests=Requests(live=False))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    return tmp_path


def is_diff(deck: Deck) -> bool:
    return isinstance(deck.screen, DiffScreen) and deck.screen.ready


def plain(deck: Deck, selector: str) -> str:
    return deck.screen.query_one(selector, Lines).plain


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
async def test_before_and_after_on_the_screen(home: Path, size: tuple[int, int]) -> None:
    deck = deck_of_recordings(home)
    async with deck.run_test(size=size) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "after" in plain(deck, "#list"))
        row = next(line for line in plain(deck, "#list").splitlines() if "after" in line)
        assert "0:59" in row
        if size[0] != 120:  # there the preview takes the room
            assert "telemetry" in row
        await pilot.press("down", "space", "up", "up", "space", "d")
        await until(pilot, lambda: isinstance(deck.screen, RecordingsScreen))
        shown = plain(deck, "#recordings")
        assert "A = before (59 s) · B = after (59 s)" in shown
        assert "B moves at" in shown
        assert "faster" in shown
        await pilot.press("X")
        assert "slower" in plain(deck, "#recordings")
        await pilot.press("escape")
        assert isinstance(deck.screen, SessionsScreen)


async def test_the_preview_says_what_moved(home: Path) -> None:
    deck = deck_of_recordings(home)
    async with deck.run_test(size=(120, 40)) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "telemetry of 59 s" in plain(deck, "#preview"))
        shown = plain(deck, "#preview")
        assert "while moving" in shown
        assert "load started" in shown


async def test_three_recordings_are_too_many(home: Path) -> None:
    deck = deck_of_recordings(home, 3)
    async with deck.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("4")
        await until(pilot, lambda: "later" in plain(deck, "#list"))
        await pilot.press("space", "space", "space", "d")
        await until(pilot, lambda: any("two at a time" in n.message for n in deck._notifications))
        assert isinstance(deck.screen, SessionsScreen)


def store_with_runs(home: Path) -> Store:
    """Two traces with telemetry of their time, and one without."""
    store = Store(home)
    store.sessions.mkdir(parents=True)
    for number, name in enumerate(("before", "after")):
        begin(store, name)
        recorded(store.inside(name), INSIDE, rates(1e9 * (1 + number), number))
        counts = TransferCounts("HostToDisk", "FullyContiguous", transfers=3, bytes=3 << 20, blocks=3)
        process = Process(0, "host", 1, 1.0, 2.0, True, (counts,))
        (store.folder(name) / "recorder" / f"0-host-1-{number}.json").write_bytes(encode_document(process))
    begin(store, "alone")
    return store


@pytest.mark.parametrize("opened", [False, True])
async def test_a_trace_s_telemetry_is_shown_and_replayed(home: Path, opened: bool) -> None:
    store_with_runs(home)
    deck = Deck(requests=Requests(live=False))
    async with deck.run_test(size=(200, 60)) as pilot:
        await pilot.press("4", "slash", *"after", "enter")
        await until(pilot, lambda: "Telemetry of that time" in plain(deck, "#preview"))
        if opened:
            await pilot.press("enter")
            await until(pilot, lambda: isinstance(deck.screen, ResultScreen) and deck.screen.ready)
            assert "v replays the telemetry in the Monitor" in plain(deck, "#result")
        await pilot.press("v")
        await until(pilot, lambda: deck.current_mode == "monitor" and "replay after" in plain(deck, "#bar"))
        await pilot.pause()
        assert len(deck.screen_stack) == 1, "no source dialog over it"


async def test_a_session_without_telemetry_has_none_to_replay(home: Path) -> None:
    store_with_runs(home)
    deck = Deck(requests=Requests(live=False))
    async with deck.run_test(size=(120, 40), notifications=True) as pilot:
        await pilot.press("4", "slash", *"alone", "enter", "v")
        await until(pilot, lambda: any("alone holds no telemetry" in toast.message for toast in deck._notifications))
        assert deck.current_mode == "sessions"


async def test_the_diff_of_two_traces_shows_their_telemetry_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with_runs(home)
    copied: list[str] = []
    monkeypatch.setattr(Deck, "copy_to_clipboard", lambda _, text: copied.append(text))
    deck = Deck(requests=Requests(live=False))
    async with deck.run_test(size=(120, 40)) as pilot:
        deck.push_screen(DiffScreen(store.load("before"), store.load("after")))
        await until(pilot, lambda: is_diff(deck))
        await pilot.press("v")
        shown = plain(deck, "#telemetry")
        assert shown.splitlines()[0].strip("▌ ─").startswith("Telemetry of that time")
        assert "faster" in shown
        await pilot.press("X")
        assert "slower" in plain(deck, "#telemetry")
        await pilot.press("y")
        assert "## Telemetry of that time: A = after" in copied[0]
        assert "### Flows" in copied[0]
        await pilot.press("v")
        assert deck.screen.query_one("#rows").has_focus
        assert not deck.screen.query_one("#telemetry").display


def test_compare_writes_telemetry_in_every_form(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store_with_runs(home)

    def compared(*arguments: str) -> str:
        with contextlib.suppress(SystemExit):
            main(["session", "compare", "before", "after", *arguments])
        return capsys.readouterr().out

    assert "Telemetry of that time" in compared()
    assert "### Flows" in compared("--markdown")
    found = orjson.loads(compared("--json"))["telemetry"]
    assert [row["trend"] for row in found["flows"]] == ["faster"]
    with contextlib.suppress(SystemExit):
        main(["session", "compare", "before", "alone", "--json"])
    assert orjson.loads(capsys.readouterr().out)["telemetry"] is None


def test_two_layouts_of_one_run_have_the_same_telemetry(home: Path) -> None:
    session = store_with_runs(home).load("before")
    assert compare(session, msgspec.structs.replace(session, transfer_counts=())).telemetry is None


async def test_a_diff_with_nothing_but_telemetry_shows_it(home: Path) -> None:
    store = store_with_runs(home)
    sessions = [msgspec.structs.replace(store.load(name), transfer_counts=()) for name in ("before", "after")]
    deck = Deck(requests=Requests(live=False))
    async with deck.run_test(size=(80, 24)) as pilot:
        deck.push_screen(DiffScreen(*sessions))
        await until(pilot, lambda: is_diff(deck) and "faster" in plain(deck, "#telemetry"))
        assert deck.screen.query_one("#telemetry").has_focus
