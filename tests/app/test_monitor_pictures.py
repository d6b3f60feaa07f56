"""Pictures of the Monitor in its states, at every size, and some in light and in the terminal's own palette."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from kvdeck.app.config import Config
from kvdeck.app.tui import theme
from kvdeck.app.tui.messages import EngineChanged, RecordingsSeen, TelemetrySampled
from kvdeck.app.tui.modes.monitor.panes.header import MonitorBar
from kvdeck.app.tui.modes.monitor.screen import MonitorScreen
from kvdeck.app.tui.source_search import FoundSource
from kvdeck.app.tui.state import EngineState
from kvdeck.engine.protocol import RecordingState
from kvdeck.engine.telemetry.sample import Snapshot as Moment
from kvdeck.sessions.store.telemetry.annotations import Mark

from . import a_monitor, a_run
from .conftest import DeckOfFiles
from .test_monitor_live import record_course, until

SMALL, BIG, HUGE = (80, 24), (120, 40), (200, 60)
LIGHT, ASCII = "kvdeck-light", "kvdeck-ascii"
IDLE = EngineState("connected", "", 4242)
FOUND = (
    FoundSource("http://127.0.0.1:6880/metrics", "kvbm"),
    FoundSource("http://127.0.0.1:8000/metrics", "vllm"),
    FoundSource("disks", "disk"),
    FoundSource("network", "network"),
    FoundSource("processes", "process"),
    FoundSource("disk tier", "process"),
)
SCENES: dict[str, tuple[str, ...]] = {
    "live": (),
    "sized": (),
    "looked-at": (),
    "paused": ("p",),
    "sought": ("left_curly_bracket", "left_square_bracket"),
    "empty": (),
    "unspoken": (),
    "lost": (),
    "replay": (),
    "recording": (),
    "zoomed": ("tab", "z"),
    "tiers-alone": ("z",),
    "threshold": ("tab", "down", "t", *"> 1 GB/s"),
    "chooser": ("s",),
    "series": ("b",),
    "series-found": ("b", "slash", *"external", "enter", "space"),
    "help": ("question_mark",),
}
STATES = ("live", "sought", "empty", "lost", "replay", "looked-at")
PICTURES = [
    *((scene, size, theme.DEFAULT) for scene in STATES for size in (SMALL, BIG, HUGE)),
    *((scene, BIG, name) for scene in ("live", "sought") for name in (LIGHT, theme.ANSI, ASCII)),
    *(
        (scene, BIG, theme.DEFAULT)
        for scene in ("sized", "paused", "unspoken", "recording", "zoomed", "threshold", "chooser", "series", "help")
    ),
    *((scene, SMALL, theme.DEFAULT) for scene in ("recording", "chooser", "series-found", "zoomed")),
    ("tiers-alone", HUGE, theme.DEFAULT),
]


@pytest.mark.parametrize(
    ("scene", "size", "name"), PICTURES, ids=[f"{scene}-{w}x{h}-{name[7:]}" for scene, (w, h), name in PICTURES]
)
def test_picture(
    scene: str, size: tuple[int, int], name: str, snap_compare: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("KVDECK_THEME", theme.DEFAULT if name == ASCII else name)
    settings: dict[str, Any] = {"sources": list(a_monitor.KINDS), "known": [f.name for f in FOUND]}
    if scene in ("live", "sized", "sought"):
        settings["pins"] = [a_monitor.PIN]
    if scene == "empty":
        settings["sources"] = []
    if scene == "sized":
        settings |= {"block_bytes": a_monitor.BLOCK_BYTES, "block_from": "from the plan"}
    memory = {"view": "monitor", "monitor": {} if scene == "chooser" else settings}
    deck = DeckOfFiles(config=Config(ascii=name == ASCII), memory=memory)
    if scene == "replay":
        record_course(tmp_path / "home")

    async def set_the_scene(pilot: Pilot[None]) -> None:
        await pilot.pause()
        deck.post_message(EngineChanged(a_run.disconnected() if scene == "lost" else IDLE))
        screen = deck.screen_stack[0]
        assert isinstance(screen, MonitorScreen)
        for moment in moments(scene):
            screen.note_sample(TelemetrySampled(moment))
        if scene in ("live", "sought", "recording"):
            screen.timeline.marks.add(Mark(a_monitor.BEGIN + 41, "load started"))
        if scene == "recording":
            screen.note_recordings(RecordingsSeen((RecordingState("cold", "running", a_monitor.BEGIN, 12_345_678),)))
        if scene == "lost":
            screen.note_sample(TelemetrySampled(Moment(0.0), "the engine has gone · attach again"))
        await pilot.pause()
        screen.draw()
        if scene == "replay":
            deck.paused = True
            await deck.replay("course")
            await until(pilot, lambda: screen.timeline.seen is not None)
            await pilot.press("end", "left_curly_bracket", "plus", "plus")
            await until(pilot, lambda: "12:01:59" in screen.query_one(MonitorBar).plain)
        deck.requests.found = FOUND if scene == "chooser" else ()
        for key in SCENES[scene]:
            await pilot.press(key)
            await pilot.pause()

    assert snap_compare(deck, terminal_size=size, run_before=set_the_scene)


def moments(scene: str) -> tuple[Moment, ...]:
    """What was seen until the picture is taken."""
    if scene in ("empty", "chooser", "replay"):
        return ()
    if scene == "sized":
        return a_monitor.sized_moments()
    if scene == "looked-at":
        return a_monitor.troubled_moments()
    if scene == "unspoken":
        return tuple(replace(m, flows=(), gauges=()) for m in a_monitor.all_moments()[:5])
    return a_monitor.all_moments()
