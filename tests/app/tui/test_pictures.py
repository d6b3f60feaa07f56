"""Pictures of every screen but the Monitor's, in its states and sizes; `--update-goldens` keeps new ones.

What is on the screen is kept as text, that of a size once for all themes; a few pictures are kept with their colours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

from msgspec import structs
from textual.pilot import Pilot

from kvdeck.app.tui import theme
from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.state import Doctor, EngineState
from kvdeck.sessions.model.records import Session
from tests.app.conftest import Answered, DeckOfFiles, FileRequests, a_slow_link
from tests.support import painted
from tests.support.builders import run as a_run
from tests.support.painted import BIG, EVERY, SMALL, THREE, Scene, Size

GOLDENS = painted.GOLDENS / "deck"
Deed = str | Callable[[Answered], object]
NOTHING, LIVE = EngineState(), a_run.live()
IDLE = EngineState("connected", "", 4242)
LOST = replace(IDLE, connection="lost", detail="no engine is running", engine_pid=None)
QUEUED = replace(LIVE, runs=(a_run.QUEUED,), run=None)
DARK = (theme.DEFAULT,)
SMALLER = (SMALL, BIG)


class Swept(FileRequests):
    """Compares sessions that swept over sizes."""

    async def load_parts(self, names: tuple[str, ...]) -> tuple[Session, ...]:
        return tuple(a_run.swept(name, 1.3 if name.endswith("ls") else 1.0) for name in names)


class Crashed(FileRequests):
    """Reads sessions whose worker crashed half way."""

    async def load_session(self, name: str) -> Session:
        whole = a_run.session(name)
        reason = "the worker ended by SIGABRT"
        return structs.replace(whole, state="crashed", reason=reason, results=whole.results[:2], comparisons=())


def no_sessions() -> FileRequests:
    requests = FileRequests()
    requests.kept = ()
    return requests


def scene(
    engine: EngineState,
    *deeds: Deed,
    sizes: Sequence[Size] = EVERY,
    themes: Sequence[str] = (),
    waits_for: str = "",
    doctor: bool = True,
    ascii: bool = False,
    anew: bool = False,
    requests: Callable[[], FileRequests] = FileRequests,
) -> Scene:
    """A deck that is told of the engine, and of what the doctor found; then keys are pressed, and other deeds done."""

    async def show(pilot: Pilot[None]) -> None:
        opened = cast(Answered, pilot.app)
        if doctor:
            opened.doctor = a_run.doctor()
        opened.post_message(EngineChanged(engine))
        await pilot.pause(0)
        for deed in deeds:
            if isinstance(deed, str):
                await pilot.press(deed)
            else:
                deed(opened)
            await pilot.pause(0)

    def open_deck(**options: Any) -> Answered:
        return DeckOfFiles(requests=requests(), **options)

    return Scene(show, open_deck, sizes, waits_for, themes, anew, ascii)


def reports(doctor: Doctor) -> Deed:
    return lambda deck: setattr(deck, "doctor", doctor)


def ends(deck: Answered) -> None:
    deck.post_message(EngineChanged(a_run.finished()))


def fails_to_list(deck: Answered) -> None:
    deck.requests.unreadable = "can't read /mnt/home/sessions: Stale file handle"
    deck.screen.action_reread()


def slows(deck: Answered) -> None:
    deck.link = a_slow_link()
    deck.post_message(EngineChanged(LIVE))


def hides_the_log(deck: Answered) -> None:
    deck.deck_screens[0].switch_pane("log")


def submits(deck: Answered) -> None:
    deck.submissions.submit({})


UP = ("plus",)
SCENES = {
    "first": scene(IDLE),
    "run-empty": scene(NOTHING, doctor=False),
    "run-live": scene(LIVE, themes=(*THREE, "kvdeck-contrast", "kvdeck-safe"), anew=True),
    "run-live-ascii": scene(LIVE, sizes=(BIG,), ascii=True),
    "run-finished": scene(a_run.finished(), anew=True),
    "run-crashed": scene(a_run.crashed(), themes=DARK, anew=True),
    "run-lost": scene(a_run.disconnected(), anew=True),
    "run-paused": scene(LIVE, "p", anew=True),
    "run-queued": scene(QUEUED),
    "run-more": scene(IDLE, "v", "down", "down", "enter", *"16k", "enter", "down"),
    "run-form": scene(LIVE, "f", sizes=(SMALL,)),
    "run-cancel": scene(LIVE, "x", sizes=SMALLER, anew=True),
    "run-help": scene(LIVE, "question_mark", sizes=SMALLER, themes=DARK, anew=True),
    "run-help-ascii": scene(LIVE, "question_mark", sizes=(BIG,), ascii=True),
    "run-no-log": scene(LIVE, hides_the_log, sizes=(BIG,)),
    "run-slow": scene(NOTHING, slows, sizes=(SMALL,)),
    "run-jump": scene(LIVE, "apostrophe", sizes=SMALLER, anew=True),
    "run-closing": scene(LIVE, submits, "q", sizes=(SMALL,)),
    "run-told": scene(LIVE, ends, sizes=(BIG,), waits_for="is done", themes=DARK),
    "run-told-ascii": scene(LIVE, ends, sizes=(BIG,), waits_for="is done", ascii=True),
    "palette": scene(LIVE, "colon", sizes=(BIG,), waits_for="Search", themes=DARK),
    "palette-ascii": scene(LIVE, "colon", sizes=(BIG,), waits_for="Search", ascii=True),
    "too-small": scene(NOTHING, sizes=((60, 20),)),
    "plan": scene(IDLE, "1"),
    "plan-paused": scene(IDLE, "1", "p"),
    "plan-lost": scene(LOST, "1"),
    "plan-wrong": scene(IDLE, "1", "enter", "3", "enter"),
    "plan-models": scene(IDLE, "1", "m", *"qwen", "down", sizes=SMALLER, anew=True),
    "plan-mixed": scene(IDLE, "1", "m", *"gpt-oss-120b", "enter", *UP * 3, "down", *UP * 2),
    "plan-latent": scene(
        *(IDLE, "1", "m", *"r1", "enter", *UP, "down", *UP * 4, "g", "right", "right", *UP), sizes=SMALLER, themes=THREE
    ),
    "plan-hybrid": scene(
        *(IDLE, "1", "m", *"qwen3-next", "enter", *UP * 3, "down", "enter", "5", "enter", "down", *UP), sizes=SMALLER
    ),
    "sessions": scene(LIVE, "4", waits_for="done after", themes=THREE),
    "sessions-empty": scene(IDLE, "4", requests=no_sessions),
    "sessions-none-found": scene(IDLE, "4", "slash", "x", "y", sizes=SMALLER),
    "sessions-marked": scene(IDLE, "4", "space", "space", waits_for="kvdeck session before"),
    "sessions-paused": scene(LIVE, "4", "p", waits_for="done after"),
    "sessions-lost": scene(LOST, "4", waits_for="done after"),
    "sessions-error": scene(IDLE, "4", fails_to_list),
    "sessions-rename": scene(IDLE, "4", "N", sizes=SMALLER, waits_for="done after", anew=True),
    "result": scene(IDLE, "4", "enter", themes=THREE),
    "result-crashed": scene(IDLE, "4", "enter", requests=Crashed),
    "diff": scene(IDLE, "4", "space", "down", "d", themes=THREE),
    "diff-layouts": scene(IDLE, "4", "d", sizes=SMALLER),
    "diff-sweep": scene(IDLE, "4", "d", sizes=SMALLER, requests=Swept),
    "versus": scene(IDLE, "4", "space", "space", "space", "d", themes=DARK),
    "doctor": scene(IDLE, "9", themes=THREE),
    "doctor-empty": scene(NOTHING, "9", doctor=False),
    "doctor-looking": scene(NOTHING, "9", reports(Doctor(looking=True))),
    "doctor-error": scene(IDLE, "9", reports(Doctor(error="doctor did not answer within 60 s: its log says why"))),
    "doctor-lost": scene(LOST, "9"),
}
test_picture, test_every_golden_has_its_picture = painted.golden_tests(SCENES, GOLDENS)
