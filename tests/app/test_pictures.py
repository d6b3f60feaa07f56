"""A picture of every screen in its states; `--snapshot-update` keeps new ones, to be looked at by eye."""

from __future__ import annotations

from dataclasses import replace

import pytest
from textual.pilot import Pilot

from kvdeck.app import theme
from kvdeck.app.config import Config
from kvdeck.app.link import Link
from kvdeck.app.messages import DoctorReported, SnapshotTaken
from kvdeck.app.snapshot import Snapshot

from . import a_run
from .conftest import DeckOfFiles

SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
IDLE = Snapshot("connected", "", 4242)
SCENES = {
    "run-empty": (Snapshot(), ()),
    "run-live": (a_run.live(), ()),
    "run-finished": (a_run.finished(), ()),
    "run-crashed": (a_run.crashed(), ()),
    "run-lost": (a_run.disconnected(), ()),
    "run-form": (a_run.live(), ("f",)),
    "run-cancel": (a_run.live(), ("x",)),
    "run-help": (a_run.live(), ("question_mark",)),
    "run-paused": (a_run.live(), ("p",)),
    "run-first": (IDLE, ()),
    "run-jump": (a_run.live(), ("w",)),
    "run-palette": (a_run.live(), ("colon",)),
    "run-told": (a_run.live(), ("told",)),
    "run-slow": (a_run.live(), ("slow",)),
    "sessions": (a_run.live(), ("4",)),
    "sessions-empty": (IDLE, ("4",)),
    "sessions-none-found": (IDLE, ("4", "slash", "x", "y")),
    "result": (IDLE, ("4", "enter")),
    "doctor": (IDLE, ("9",)),
    "doctor-empty": (Snapshot(), ("9",)),
    "run-too-small": (Snapshot(), ()),
}
TOLD_BY_THE_BIG_ONE = ("run-paused", "run-jump", "run-palette", "run-told", "run-too-small")
TOLD_BY_THE_SMALL_ONE = (
    "run-slow",
    "run-too-small",
    "run-form",
    "run-cancel",
    "sessions-none-found",
    "sessions-empty",
    "doctor-empty",
)
PICTURES = [
    *((scene, SMALL, theme.DEFAULT) for scene in SCENES if scene not in TOLD_BY_THE_BIG_ONE),
    *((scene, BIG, theme.DEFAULT) for scene in SCENES if scene not in TOLD_BY_THE_SMALL_ONE),
    *((scene, HUGE, theme.DEFAULT) for scene in ("run-live", "sessions", "result", "doctor")),
    *((scene, BIG, name) for scene in ("run-live", "doctor") for name in ("kvdeck-light", theme.ANSI)),
    *((scene, BIG, name) for scene in ("run-jump", "run-told") for name in ("kvdeck-light", theme.ANSI)),
    ("run-live", BIG, "kvdeck-contrast"),
    ("run-live", BIG, "kvdeck-safe"),
    *((scene, BIG, "kvdeck-ascii") for scene in ("run-live", "run-help", "run-palette", "run-told")),
    ("run-too-small", (60, 20), theme.DEFAULT),
]


@pytest.mark.parametrize(
    ("scene", "size", "name"), PICTURES, ids=[f"{scene}-{w}x{h}-{name[7:]}" for scene, (w, h), name in PICTURES]
)
def test_picture(scene: str, size: tuple[int, int], name: str, snap_compare, monkeypatch: pytest.MonkeyPatch):
    ascii_only = name == "kvdeck-ascii"
    monkeypatch.setenv("KVDECK_THEME", theme.DEFAULT if ascii_only else name)
    snapshot, keys = SCENES[scene]
    deck = DeckOfFiles(config=Config(ascii=ascii_only))
    if scene == "sessions-empty":
        deck.kept = ()

    async def set_the_scene(pilot: Pilot[None]) -> None:
        if not scene.endswith("-empty") or scene == "sessions-empty":
            deck.post_message(DoctorReported(a_run.doctor()))
        deck.post_message(SnapshotTaken(snapshot))
        await pilot.pause()
        for key in keys:
            if key == "told":
                deck.post_message(SnapshotTaken(a_run.finished()))
            elif key == "slow":
                deck.link = Link()
                deck.link.painted(0.0)
                deck.link.answered(0.8)
                deck.link.asks = False
                deck.post_message(SnapshotTaken(replace(snapshot, detail="another")))
            else:
                await pilot.press(key)
            await pilot.pause()

    assert snap_compare(deck, terminal_size=size, run_before=set_the_scene)
