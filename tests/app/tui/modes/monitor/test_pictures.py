"""Pictures of the Monitor in its states and sizes, as text and some in colour; `--update-goldens` keeps new ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from textual.pilot import Pilot

from kvdeck.app.tui import theme
from kvdeck.app.tui.messages import EngineChanged, RecordingsSeen, TelemetrySampled
from kvdeck.app.tui.modes.monitor.panes.header import MonitorBar
from kvdeck.app.tui.modes.monitor.screen import MonitorScreen
from kvdeck.app.tui.source_search import FoundSource
from kvdeck.app.tui.state import EngineState
from kvdeck.engine.protocol import RecordingState
from kvdeck.engine.telemetry.sample import Snapshot as Moment
from kvdeck.sessions.store.telemetry.annotations import Mark
from tests.app.conftest import Answered, DeckOfFiles
from tests.app.tui.modes.monitor.test_live import record_course, until
from tests.support import painted
from tests.support.builders import monitor as a_monitor
from tests.support.builders import run as a_run
from tests.support.painted import BIG, EVERY, HUGE, SMALL, THREE, Scene, Size

GOLDENS = painted.GOLDENS / "monitor"
IDLE = EngineState("connected", "", 4242)
FOUND = (
    FoundSource("http://127.0.0.1:6880/metrics", "kvbm"),
    FoundSource("http://127.0.0.1:8000/metrics", "vllm"),
    FoundSource("disks", "disk"),
    FoundSource("network", "network"),
    FoundSource("processes", "process"),
    FoundSource("disk tier", "process"),
)
WATCHING: dict[str, Any] = {"sources": list(a_monitor.KINDS), "known": [found.name for found in FOUND]}
PINNED = {**WATCHING, "pins": [a_monitor.PIN]}
SIZED = {**PINNED, "block_bytes": a_monitor.BLOCK_BYTES, "block_from": "from the plan"}
NOTHING = {**WATCHING, "sources": []}
SMALLER = (SMALL, BIG)


def scene(
    *keys: str,
    moments: Callable[[], Sequence[Moment]] = a_monitor.all_moments,
    settings: dict[str, Any] = WATCHING,
    then: Callable[[MonitorScreen], None] | None = None,
    replay: bool = False,
    found: tuple[FoundSource, ...] = (),
    engine: EngineState = IDLE,
    sizes: Sequence[Size] = (BIG,),
    themes: Sequence[str] = (),
    ascii: bool = False,
    anew: bool = False,
) -> Scene:
    """A Monitor that has seen moments; then something else comes to pass, and keys are pressed."""

    async def show(pilot: Pilot[None]) -> None:
        deck = cast(Answered, pilot.app)
        deck.post_message(EngineChanged(engine))
        await pilot.pause(0)
        screen = deck.screen_stack[0]
        assert isinstance(screen, MonitorScreen)
        for moment in moments():
            screen.note_sample(TelemetrySampled(moment))
        if then is not None:
            then(screen)
        await pilot.pause(0)
        screen.draw()
        if replay:
            record_course(Path(os.environ["KVDECK_HOME"]))
            deck.paused = True
            await deck.replay("course")
            await until(pilot, lambda: screen.timeline.seen is not None)
            await pilot.press("end", "left_curly_bracket", "plus", "plus")
            await until(pilot, lambda: "12:01:59" in screen.query_one(MonitorBar).plain)
        deck.requests.found = found
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0)

    memory = {"view": "monitor", "monitor": settings}
    return Scene(show, partial(DeckOfFiles, memory=memory), sizes, "", themes, anew, ascii)


def none() -> tuple[Moment, ...]:
    return ()


def unspoken() -> tuple[Moment, ...]:
    return tuple(replace(moment, flows=(), gauges=()) for moment in a_monitor.all_moments()[:5])


def marks(screen: MonitorScreen) -> None:
    screen.timeline.marks.add(Mark(a_monitor.BEGIN + 41, "load started"))


def records(screen: MonitorScreen) -> None:
    marks(screen)
    screen.note_recordings(RecordingsSeen((RecordingState("cold", "running", a_monitor.BEGIN, 12_345_678),)))


def loses_the_engine(screen: MonitorScreen) -> None:
    screen.note_sample(TelemetrySampled(Moment(0.0), "the engine has gone · attach again"))


SEEK = ("left_curly_bracket", "left_square_bracket")
SCENES = {
    "live": scene(settings=PINNED, then=marks, sizes=EVERY, themes=THREE),
    "live-ascii": scene(settings=PINNED, then=marks, ascii=True),
    "sized": scene(settings=SIZED, moments=a_monitor.sized_moments),
    "looked-at": scene(moments=a_monitor.troubled_moments, sizes=EVERY, themes=(theme.DEFAULT,)),
    "paused": scene("p"),
    "sought": scene(*SEEK, settings=PINNED, then=marks, sizes=EVERY),
    "sought-ascii": scene(*SEEK, settings=PINNED, then=marks, ascii=True),
    "empty": scene(settings=NOTHING, moments=none, sizes=EVERY),
    "unspoken": scene(moments=unspoken),
    "lost": scene(engine=a_run.disconnected(), then=loses_the_engine, sizes=EVERY),
    "replay": scene(moments=none, replay=True, sizes=EVERY),
    "recording": scene(then=records, sizes=SMALLER),
    "zoomed": scene("tab", "z", sizes=SMALLER, anew=True),
    "tiers-alone": scene("z", sizes=(HUGE,)),
    "threshold": scene("tab", "down", "t", *"> 1 GB/s", themes=(theme.DEFAULT,)),
    "chooser": scene("r", settings={}, moments=none, found=FOUND, sizes=SMALLER, anew=True),
    "series": scene("b"),
    "series-found": scene("b", "slash", *"external", "enter", "space", sizes=(SMALL,)),
    "help": scene("question_mark"),
}
test_picture, test_every_golden_has_its_picture = painted.golden_tests(SCENES, GOLDENS)
