"""Pictures of the Traffic mode in its states and sizes; `--update-goldens` keeps new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from textual.pilot import Pilot

from kvdeck.app.tui.messages import EngineChanged
from kvdeck.app.tui.modes.traffic.document import TrafficDocument
from kvdeck.app.tui.modes.traffic.screen import TrafficScreen
from kvdeck.app.tui.state import EngineState
from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.index import SessionSummary
from tests.app.conftest import Answered, DeckOfFiles, FileRequests
from tests.support import painted
from tests.support.builders import traffic
from tests.support.painted import BIG, EVERY, SMALL, Scene, Size

GOLDENS = painted.GOLDENS / "traffic"
IDLE = EngineState("connected", "", 4242)
Deed = str | Callable[[Answered], object]
BEFORE = "20251231-120000-traffic-16ranks"


class TwoTests(FileRequests):
    """Holds two traffic tests; pattern 3 collided less in the one before."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = tuple(
            SessionSummary(name, "done", 1_767_268_790.0 - day * 86_400, None, None, None, (), (), 0, (), "", "traffic")
            for day, name in enumerate((traffic.NAME, BEFORE))
        )

    async def load_session(self, name: str) -> Session:
        return traffic.session(name, 1.1 if name == BEFORE else 1.42)


def scene(
    engine: EngineState,
    *deeds: Deed,
    sizes: Sequence[Size] = EVERY,
    themes: Sequence[str] = (),
    ascii: bool = False,
    anew: bool = False,
    waits_for: str = "",
) -> Scene:
    async def show(pilot: Pilot[None]) -> None:
        deck = cast(Answered, pilot.app)
        deck.post_message(EngineChanged(engine))
        await pilot.press("5")
        await pilot.pause(0)
        for deed in deeds:
            if isinstance(deed, str):
                await pilot.press(deed)
            else:
                deed(deck)
            await pilot.pause(0)

    return Scene(show, lambda **options: DeckOfFiles(requests=TwoTests(), **options), sizes, waits_for, themes, anew,
                 ascii)  # fmt: skip


def holds(*matrices: Matrix, changed: bool = False) -> Deed:
    """The document has these matrices."""

    def show(deck: Answered) -> None:
        screen = cast(TrafficScreen, deck.screen)
        config = TrafficConfig(tuple(map(TrafficPattern, matrices)))
        screen.document = TrafficDocument(config, "/srv/runs/patterns.yaml", changed)
        screen.refresh_from_app()

    return show


def is_refused(deck: Answered) -> None:
    screen = cast(TrafficScreen, deck.screen)
    screen.error = UsageError("/srv/runs/matrix_1.txt:3:17: '12Q' is no size", "write bytes, or 64K, 1.5M, 2G, 1T")
    screen.refresh_from_app()


LARGE = holds(traffic.large())
FIVE = (*painted.THREE, "kvdeck-contrast", "kvdeck-safe")
SCENES = {
    "empty": scene(IDLE),
    "opened": scene(IDLE, holds(traffic.matrix(0), traffic.matrix(1)), "enter", "down"),
    "refused": scene(IDLE, is_refused, sizes=(SMALL, BIG)),
    "large": scene(IDLE, LARGE, "enter", "down", "right"),
    "large-single": scene(IDLE, LARGE, "enter", "down", "enter", sizes=(SMALL, BIG)),
    "edited": scene(
        IDLE, holds(traffic.matrix(0), changed=True), "enter", "asterisk", "e", sizes=(SMALL, BIG), anew=True
    ),
    "generator": scene(IDLE, "m", sizes=(SMALL, BIG), anew=True),
    "preparing": scene(traffic.engine("planned"), sizes=(BIG,)),
    "alone": scene(traffic.engine("alone"), sizes=(SMALL, BIG)),
    "together": scene(traffic.engine("together")),
    "done": scene(traffic.engine(), "down", "down", "down", themes=FIVE),
    "done-ascii": scene(traffic.engine(), "down", "down", "down", "enter", sizes=(SMALL, BIG), ascii=True),
    "diff": scene(traffic.engine(), "d", waits_for="ratio A"),
}
test_picture, test_every_golden_has_its_picture = painted.golden_tests(SCENES, GOLDENS)
