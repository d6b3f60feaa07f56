"""Pictures of what lies over every screen: the first run, jumps, the palette, toasts, a slow link, ASCII, no room."""

from __future__ import annotations

import pytest
from textual.pilot import Pilot

from kvdeck.app.config import Config
from kvdeck.app.tui import theme
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.state import EngineState

from . import a_run
from .conftest import DeckOfFiles, a_slow_link

SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
IDLE = EngineState("connected", "", 4242)
ASCII = "kvdeck-ascii"
LIGHT, CONTRAST, SAFE = "kvdeck-light", "kvdeck-contrast", "kvdeck-safe"
SCENES = {
    "first": (IDLE, ()),
    "jump": (a_run.live(), ("w",)),
    "palette": (a_run.live(), ("colon",)),
    "told": (a_run.live(), ("told",)),
    "slow": (a_run.live(), ("slow",)),
    "live": (a_run.live(), ()),
    "help": (a_run.live(), ("question_mark",)),
    "no-log": (a_run.live(), ("no log",)),
    "closing": (a_run.live(), ("unsent", "q")),
    "too-small": (EngineState(), ()),
}
PICTURES = [
    *(("first", size, theme.DEFAULT) for size in (SMALL, BIG, HUGE)),
    *((scene, BIG, name) for scene in ("jump", "told", "palette") for name in (theme.DEFAULT, LIGHT, theme.ANSI)),
    *((scene, SMALL, theme.DEFAULT) for scene in ("slow", "closing", "jump")),
    *(("live", BIG, name) for name in (CONTRAST, SAFE, ASCII)),
    *((scene, BIG, ASCII) for scene in ("help", "palette", "told")),
    ("no-log", BIG, theme.DEFAULT),
    ("live", HUGE, theme.ANSI),
    ("too-small", (60, 20), theme.DEFAULT),
]


@pytest.mark.parametrize(
    ("scene", "size", "name"), PICTURES, ids=[f"{scene}-{w}x{h}-{name[7:]}" for scene, (w, h), name in PICTURES]
)
def test_picture(scene: str, size: tuple[int, int], name: str, snap_compare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_THEME", theme.DEFAULT if name == ASCII else name)
    snapshot, deeds = SCENES[scene]
    deck = DeckOfFiles(config=Config(ascii=name == ASCII))

    async def set_the_scene(pilot: Pilot[None]) -> None:
        if scene == "slow":
            deck.link = a_slow_link()
        deck.doctor = a_run.doctor()
        deck.post_message(EngineChanged(snapshot))
        await pilot.pause()
        for deed in deeds:
            if deed == "told":
                deck.post_message(EngineChanged(a_run.finished()))
            elif deed == "no log":
                deck.deck_screens[0].switch_pane("log")
            elif deed == "unsent":
                deck.submissions.submit({})
            elif deed != "slow":
                await pilot.press(deed)
            await pilot.pause()

    assert snap_compare(deck, terminal_size=size, run_before=set_the_scene)
