"""Every screen in its states, from one table: dark at three sizes, light and the terminal's own colours at one or two.

What `test_pictures` has is left out here. `--snapshot-update` keeps new ones, to be looked at by eye.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from kvdeck.app.tui import theme
from kvdeck.app.tui.state import Doctor

from . import a_run, test_pictures
from .test_pictures import BIG, HUGE, IDLE, SCENES, SMALL, EngineState, Picture, a_deck, named

DARK, LIGHT, ANSI = theme.DEFAULT, "kvdeck-light", theme.ANSI
LOST = replace(IDLE, connection="lost", detail="no engine is running", engine_pid=None)
MORE = {
    "run-more": (IDLE, ("m", "down", "down", "enter", *"16k", "enter", "down")),
    "run-queued": (replace(a_run.live(), runs=(a_run.QUEUED,), run=None), ()),
    "plan-paused": (IDLE, ("1", "p")),
    "plan-lost": (LOST, ("1",)),
    "sessions-paused": (a_run.live(), ("4", "p")),
    "sessions-lost": (LOST, ("4",)),
    "sessions-error": (IDLE, ("4",)),
    "result-crashed": (IDLE, ("4", "enter")),
    "doctor-looking": (EngineState(), ("9",)),
    "doctor-error": (IDLE, ("9",)),
    "doctor-lost": (LOST, ("9",)),
}
ALL = {**SCENES, **MORE}
STATES = {
    "run": ("empty", "live", "paused", "crashed", "lost", "finished", "more", "queued"),
    "plan": ("", "paused", "wrong", "lost"),
    "sessions": ("empty", "", "paused", "error", "lost", "marked"),
    "result": ("", "crashed"),
    "doctor": ("empty", "looking", "", "error", "lost"),
    "versus": ("",),
}
"""The states of each screen, in the order: empty, live, paused, error, disconnected, and what it has beside."""
OVER = ("run-help", "run-cancel", "sessions-rename", "sessions-none-found", "plan-models")
SCREENS = [f"{screen}-{state}".rstrip("-") for screen, states in STATES.items() for state in states]
MAIN = [next(name for name in (f"{screen}-live", screen) if name in ALL) for screen in STATES]
TABLE: list[Picture] = [
    *product(SCREENS, (SMALL, BIG, HUGE), (DARK,)),
    *product([*SCREENS, *OVER], (BIG,), (LIGHT, ANSI)),
    *product(MAIN, (SMALL,), (LIGHT, ANSI)),
    *product(OVER, (SMALL, BIG), (DARK,)),
]
PICTURES = [picture for picture in TABLE if picture not in test_pictures.PICTURES]


@named(PICTURES)
def test_picture(scene: str, size: tuple[int, int], name: str, snap_compare, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_THEME", name)
    deck, set_the_scene = a_deck(scene, *ALL[scene])
    if scene == "result-crashed":
        whole = a_run.session()
        ended = replace(whole, state="crashed", reason="the worker ended by SIGABRT", results=whole.results[:2])
        monkeypatch.setattr(a_run, "session", lambda name: replace(ended, name=name, comparisons=()))

    async def show(pilot) -> None:
        await set_the_scene(pilot)
        if scene == "doctor-looking":
            deck.doctor = Doctor(looking=True)
        elif scene == "doctor-error":
            deck.doctor = Doctor(error="doctor did not answer within 60 s: its log says why")
        elif scene == "sessions-error":
            deck.requests.unreadable = "can't read /mnt/home/sessions: Stale file handle"
            deck.screen.action_reread()
        await pilot.pause()

    assert snap_compare(deck, terminal_size=size, run_before=show)
