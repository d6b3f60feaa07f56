"""The real deck without an engine: its requests are answered from files, and tests post what the engine would."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from kvdeck.app.tui.app import Deck
from kvdeck.app.tui.bandwidth import BandwidthHistory
from kvdeck.app.tui.connection import TelemetryRequest
from kvdeck.app.tui.pacing import TerminalLink
from kvdeck.app.tui.requests import Requests
from kvdeck.app.tui.source_search import FoundSource, FoundSources, Progress
from kvdeck.app.tui.state import Doctor, PeerState
from kvdeck.sessions.analysis.histograms import Histogram, Key
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.index import SessionSummary
from tests.support.builders import run as a_run

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


def a_slow_link() -> TerminalLink:
    """A terminal that has answered once, after 0.8 s, and is asked no more."""
    link = TerminalLink()
    link.painted(1.0)
    link.answered(link._place, 1.8)
    link.asks = link.paces = False
    return link


class FileRequests(Requests):
    """Answers of files and fixed values; notes what it was asked for."""

    def __init__(self) -> None:
        super().__init__(live=False)
        self.kept: tuple[SessionSummary, ...] = KEPT
        self.asked: list[tuple[str, object]] = []
        self.unreadable = ""
        """Why the list of sessions can't be read."""
        self.plans = Path("/nowhere/plans")
        self.found: tuple[FoundSource, ...] = ()

    async def submit(self, spec: Mapping[str, Any], kind: str | None = None) -> str:
        if not spec:
            await asyncio.Event().wait()  # still on its way to the queue
        self.asked.append((kind or "run", spec))
        return "new"

    async def cancel(self, session: str) -> None:
        self.asked.append(("cancel", session))

    async def follow(self, session: str) -> None:
        self.asked.append(("follow", session))

    async def watch(self, request: TelemetryRequest | None, post: object) -> None:
        pass

    async def browse(self, request: TelemetryRequest, post: object) -> None:
        pass

    async def start_recording(self, name: str, request: TelemetryRequest) -> None:
        self.asked.append(("record", (name, request)))

    async def stop_recording(self, name: str) -> None:
        self.asked.append(("stop_recording", name))

    async def annotate(self, name: str, text: str, kind: str, t: float) -> None:
        self.asked.append(("annotate", (name, text, kind, t)))

    async def list_sessions(self) -> tuple[SessionSummary, ...]:
        if self.unreadable:
            raise KvdeckError(self.unreadable)
        return self.kept

    async def fingerprint(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return ()

    async def load_session(self, name: str) -> Session:
        return a_run.session(name)

    async def load_parts(self, names: tuple[str, ...]) -> tuple[Session, ...]:
        self.asked.append(("compare", names))
        return tuple(a_run.compared(name) for name in names)

    async def load_histograms(self, session: Session) -> dict[Key, Histogram]:
        return a_run.spreads(session)

    async def change_session(self, what: str, name: str, value: str = "", before: str = "") -> str:
        self.asked.append((what, (name, value)))
        return f"{what} {name}"

    async def load_bandwidth(self, hostname: str) -> BandwidthHistory:
        return a_run.measured()

    def plans_folder(self) -> Path:
        return self.plans

    async def run_doctor(self) -> Doctor:
        return a_run.doctor()

    async def try_peer(self, host: str, command: str) -> PeerState:
        self.asked.append(("try_peer", (host, command)))
        return PeerState(host, ready=True, transport="tcp/eth1")

    async def find_sources(self, progress: Progress) -> FoundSources:
        if not self.found:
            await asyncio.Event().wait()  # still searching
        return FoundSources(self.found, done=True)


class Answered(Deck):
    """The deck's type in tests: what its requests are, for the type checker."""

    requests: FileRequests


def DeckOfFiles(**options: Any) -> Answered:
    """Return the real deck, with requests that are answered from files."""
    deck = Deck(requests=options.pop("requests", None) or FileRequests(), **options)
    deck.host = "dgx-01"
    return cast(Answered, deck)


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
def deck() -> Answered:
    return DeckOfFiles()
