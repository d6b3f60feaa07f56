"""A deck without an engine: tests post what a feed would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from textual.message_pump import MessagePump

from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.messages import (
    DoctorReported,
    Found,
    PathsMeasured,
    SessionChanged,
    SessionPreviewed,
    SessionRead,
    SessionsCompared,
    SessionsListed,
    SourcesFound,
    SpreadsRead,
)
from kvdeck.app.tui.pacing import Link
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.index import SessionSummary

from . import a_run

KEPT = tuple(
    SessionSummary(
        name,
        state,
        1_767_268_790.0 - 3600 * age,
        1_767_268_800.0,
        1_767_268_800.0 + took,
        None,
        paths,
        layouts,
        steps,
        (),
        "",
    )
    for age, (name, state, took, paths, layouts, steps) in enumerate(
        [
            (a_run.NAME, "done", 30, tuple(p[0] for p in a_run.PATHS), tuple(x[0] for x in a_run.LAYOUTS), 6),
            ("nvme-sweep", "crashed", 95, ("HostToDisk", "DiskToHost"), ("FullyContiguous",), 3),
            ("before-the-driver", "cancelled", 4, ("HostToHost",), ("FullyContiguous",), 1),
        ]
    )
)


def a_slow_link() -> Link:
    """A terminal that has answered once, after 0.8 s, and is asked no more."""
    link = Link()
    link.painted(1.0)
    link.answered(link._place, 1.8)
    link.asks = link.paces = False
    return link


class Commanded:
    """Stands where the engine's client does, and notes what it is told."""

    def __init__(self, asked: list[tuple[str, object]]) -> None:
        self._asked = asked

    def __getattr__(self, name: str):
        return lambda *arguments: self._asked.append((name, arguments))


class DeckOfFiles(Deck):
    """Reads the same sessions every time, and notes what it was asked for."""

    def __init__(self, **options: object) -> None:
        super().__init__(connect=False, **options)
        self.host = "dgx-01"
        self.kept: tuple[SessionSummary, ...] = KEPT
        self.asked: list[tuple[str, object]] = []
        self.plans = Path("/nowhere/plans")
        self.found: tuple[Found, ...] = ()
        self.engine = Commanded(self.asked)

    def list_sessions(self, asker: MessagePump) -> None:
        asker.post_message(SessionsListed(self.kept))

    def preview_session(self, asker: MessagePump, name: str) -> None:
        asker.post_message(SessionPreviewed(name, a_run.session(name)))

    def compare_sessions(self, asker: MessagePump, names: tuple[str, ...]) -> None:
        self.asked.append(("compare", names))
        asker.post_message(SessionsCompared(tuple(a_run.compared(name) for name in names)))

    def read_spreads(self, asker: MessagePump, a: Session, b: Session) -> None:
        asker.post_message(SpreadsRead(a_run.spreads(a), a_run.spreads(b)))

    def change_session(self, asker: MessagePump, what: str, name: str, value: str = "", before: str = "") -> None:
        self.asked.append((what, (name, value)))
        asker.post_message(SessionChanged(f"{what} {name}"))

    def read_session(self, asker: MessagePump, name: str) -> None:
        asker.post_message(SessionRead(name, a_run.session(name)))

    def submit(self, spec):
        self.asked.append(("run", spec))

    def cancel(self, session: str) -> None:
        self.asked.append(("cancel", session))

    def follow(self, session: str) -> None:
        self.asked.append(("follow", session))

    def measure_paths(self, asker: MessagePump) -> None:
        asker.post_message(PathsMeasured(a_run.measured()))

    def plans_folder(self) -> Path:
        return self.plans

    def look(self) -> None:
        self.post_message(DoctorReported(a_run.doctor()))

    def find_sources(self, asker: MessagePump) -> None:
        if self.found:
            asker.post_message(SourcesFound(self.found))

    def command(self, work) -> None:
        if self.may_command():
            work(self.engine)


@pytest.fixture(autouse=True)
def the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KVDECK_CONFIG", str(tmp_path / "config.yaml"))
    for name in ("NO_COLOR", "KVDECK_ASCII", "KVDECK_HZ", "KVDECK_BELL", "KVDECK_THEME", "KVDECK_LINKS", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def deck() -> DeckOfFiles:
    return DeckOfFiles()
