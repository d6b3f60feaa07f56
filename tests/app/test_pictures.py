"""A picture of every screen in its states; `--snapshot-update` keeps new ones, to be looked at by eye."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
from textual.pilot import Pilot

from kvdeck.app.config import Config
from kvdeck.app.tui import theme
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.state import EngineState

from . import a_run
from .conftest import Answered, DeckOfFiles

Picture = tuple[str, tuple[int, int], str]
Scenery = Callable[[Pilot[None]], Awaitable[None]]
SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
IDLE = EngineState("connected", "", 4242)
SCENES = {
    "run-empty": (EngineState(), ()),
    "run-live": (a_run.live(), ()),
    "run-finished": (a_run.finished(), ()),
    "run-crashed": (a_run.crashed(), ()),
    "run-lost": (a_run.disconnected(), ()),
    "run-form": (a_run.live(), ("f",)),
    "run-cancel": (a_run.live(), ("x",)),
    "run-help": (a_run.live(), ("question_mark",)),
    "run-paused": (a_run.live(), ("p",)),
    "plan": (IDLE, ("1",)),
    "plan-mixed": (IDLE, ("1", "m", *"gpt-oss-120b", "enter", "plus", "plus", "plus", "down", "plus", "plus")),
    "plan-latent": (IDLE, ("1", "m", *"r1", "enter", "plus", "down", *["plus"] * 4, "g", "right", "right", "plus")),
    "plan-hybrid": (
        IDLE,
        ("1", "m", *"qwen3-next", "enter", *["plus"] * 3, "down", "enter", "5", "enter", "down", "plus"),
    ),
    "plan-wrong": (IDLE, ("1", "enter", "3", "enter")),
    "plan-models": (IDLE, ("1", "m", "q", "w", "e", "n", "down")),
    "sessions": (a_run.live(), ("4",)),
    "sessions-empty": (IDLE, ("4",)),
    "sessions-none-found": (IDLE, ("4", "slash", "x", "y")),
    "result": (IDLE, ("4", "enter")),
    "sessions-marked": (IDLE, ("4", "space", "space")),
    "sessions-rename": (IDLE, ("4", "n")),
    "diff": (IDLE, ("4", "space", "down", "d")),
    "diff-layouts": (IDLE, ("4", "d")),
    "diff-sweep": (IDLE, ("4", "d")),
    "versus": (IDLE, ("4", "space", "space", "space", "d")),
    "doctor": (IDLE, ("9",)),
    "doctor-empty": (EngineState(), ("9",)),
}
TOLD_BY_THE_SMALL_ONE = (
    "sessions-rename",
    "versus",
    "run-form",
    "run-cancel",
    "plan-wrong",
    "plan-models",
    "sessions-none-found",
    "sessions-empty",
    "doctor-empty",
)
PICTURES = [
    *((scene, SMALL, theme.DEFAULT) for scene in SCENES if scene != "run-paused"),
    *((scene, BIG, theme.DEFAULT) for scene in SCENES if scene not in TOLD_BY_THE_SMALL_ONE),
    *((scene, HUGE, theme.DEFAULT) for scene in ("run-live", "plan-mixed", "sessions", "result", "diff", "doctor")),
    *(
        (scene, BIG, name)
        for scene in ("run-live", "plan-latent", "diff", "doctor")
        for name in ("kvdeck-light", theme.ANSI)
    ),
]


def named(pictures: Sequence[Picture]) -> pytest.MarkDecorator:
    """A test for each picture, called by its scene, size and theme."""
    ids = [f"{scene}-{w}x{h}-{name[7:]}" for scene, (w, h), name in pictures]
    return pytest.mark.parametrize(("scene", "size", "name"), pictures, ids=ids)


def a_deck(scene: str, snapshot: EngineState, keys: Sequence[str], ascii: bool = False) -> tuple[Answered, Scenery]:
    """A deck, and what shows the scene in it."""
    deck = DeckOfFiles(config=Config(ascii=ascii))
    if scene == "sessions-empty":
        deck.requests.kept = ()

    async def set_the_scene(pilot: Pilot[None]) -> None:
        if not scene.endswith("-empty") or scene == "sessions-empty":
            deck.doctor = a_run.doctor()
        deck.post_message(EngineChanged(snapshot))
        await pilot.pause()
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.2 if scene.startswith(("sessions", "diff")) else None)

    return deck, set_the_scene


@named(PICTURES)
def test_picture(scene: str, size: tuple[int, int], name: str, snap_compare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_THEME", name)
    if scene == "diff-sweep":
        monkeypatch.setattr(a_run, "compared", lambda name: a_run.swept(name, 1.3 if name.endswith("ls") else 1.0))
    deck, set_the_scene = a_deck(scene, *SCENES[scene])
    assert snap_compare(deck, terminal_size=size, run_before=set_the_scene)
