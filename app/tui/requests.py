"""Requests of the screens: each is awaited, and its answer or error goes to who asked.

A screen asks in a Textual worker of its own (`DeckScreen.ask`), which is cancelled when the screen goes.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvdeck.app.tui.errors import error_text
from kvdeck.app.tui.threads import WorkThread, in_thread
from kvdeck.sessions.errors import KvdeckError

if TYPE_CHECKING:
    from kvdeck.app.tui.bandwidth import BandwidthHistory, BandwidthReader
    from kvdeck.app.tui.connection import EngineConnection, Post, TelemetryRequest
    from kvdeck.app.tui.source_search import FoundSources, Progress
    from kvdeck.app.tui.state import Doctor, PeerState
    from kvdeck.engine.protocol import Command, Reply
    from kvdeck.sessions.analysis.histograms import Histogram, Key
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.model.run_state import RunState
    from kvdeck.sessions.store.index import SessionSummary

T = TypeVar("T")
Request = Callable[[], Coroutine[Any, Any, None]]
"""What a worker awaits: a function, so that a worker that is cancelled at once leaves nothing behind."""


def _expected(work: Callable[[], T]) -> Callable[[], T]:
    """Return `work`, with an error that is unexpected as a KvdeckError, so that every asker can show it."""

    def run() -> T:
        try:
            return work()
        except KvdeckError:
            raise
        except Exception as error:
            raise KvdeckError(error_text(error)) from error

    return run


class Requests:
    """What the screens ask of the engine and of the stored sessions. Every request raises KvdeckError if it fails.

    Sessions are read in one thread, one after another; what takes seconds has a thread of its own.
    """

    def __init__(self, readonly: bool = False, tick_s: float = 0.5, live: bool = True) -> None:
        self.live = live
        """Whether there is an engine to be asked."""
        self._readonly, self._tick_s = readonly, tick_s
        self._connection: EngineConnection | None = None
        self._files = WorkThread("kvdeck-files")
        self._bandwidth: BandwidthReader | None = None

    # --- the engine ---

    async def run(self, post: Post) -> None:
        """Keep the connection to the engine until cancelled; `post` receives EngineChanged."""
        await self._engine().run(post)

    def _engine(self) -> EngineConnection:
        if not self.live:
            raise KvdeckError("this deck has no engine")
        if self._connection is None:
            from kvdeck.app.tui.connection import EngineConnection

            self._connection = EngineConnection(readonly=self._readonly, tick_s=self._tick_s)
        return self._connection

    async def command(self, command: Command, start: bool = False) -> Reply:
        """Send the engine a command and return its reply; `start`: start an engine if none runs."""
        return await (await self._engine().connected(start)).request(command)

    async def submit(self, spec: Mapping[str, Any], kind: str | None = None) -> str:
        """Queue a job, and follow it unless another one runs; starts an engine if none runs. Returns its session."""
        from kvdeck.engine.client.client import submission
        from kvdeck.engine.protocol import TRANSFER

        command = submission(spec, kind=kind or TRANSFER)
        session = str((await self.command(command, start=True)).data["session"])
        # A short run may end before the queue's change arrives, so follow it at once.
        if not any(info.state == "running" for info in self._engine().state.runs):
            await self.follow(session)
        return session

    async def cancel(self, session: str) -> None:
        """Cancel a queued or running run; its results so far are saved."""
        from kvdeck.engine.protocol import Cancel

        await self.command(Cancel(0, session))

    async def follow(self, session: str) -> None:
        """Follow another run of the queue."""
        await self._engine().follow(session)

    async def watch(self, request: TelemetryRequest | None, post: Post) -> None:
        """Post telemetry samples and the engine's recordings to `post` from now on; None ends the samples."""
        await self._engine().watch(request, post)

    async def browse(self, request: TelemetryRequest, post: Post) -> None:
        """Post telemetry samples to `post` until cancelled, beside those of `watch`."""
        await self._engine().browse(request, post)

    async def start_recording(self, name: str, request: TelemetryRequest) -> None:
        """Start a telemetry recording in the engine."""
        from kvdeck.engine.protocol import StartRecording

        watched = request.hz, request.sources, request.block_bytes, request.pins
        limits = dict(request.limits) or None
        await self.command(StartRecording(0, name, *watched, stuck_s=request.stuck_s, limits=limits), start=True)

    async def stop_recording(self, name: str) -> None:
        """End a telemetry recording."""
        from kvdeck.engine.protocol import StopRecording

        await self.command(StopRecording(0, name))

    async def annotate(self, name: str, text: str, kind: str, t: float) -> None:
        """Add an annotation to a telemetry recording, at Unix time `t`."""
        from kvdeck.engine.protocol import Annotate

        await self.command(Annotate(0, name, text, kind, t))

    # --- stored sessions ---

    async def read(self, work: Callable[[], T]) -> T:
        """Return the result of blocking work on files."""
        return await self._files.do(_expected(work))

    async def list_sessions(self) -> tuple[SessionSummary, ...]:
        """Return the stored sessions, newest first."""
        from kvdeck.sessions.store.catalogue import catalogue

        return await self.read(lambda: tuple(catalogue(self._store())))

    async def fingerprint(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Return a value that changes when another process changes one of these sessions, or adds one."""
        return await self.read(lambda: self._store().mark(names))

    async def load_session(self, name: str) -> Session:
        """Return one session."""
        from kvdeck.sessions.store.lookup import find

        return await self.read(lambda: find(self._store(), name))

    async def load_run(self, name: str) -> RunState:
        """Return the state of a stored run, folded from its log.

        Raises:
            KvdeckError: There is no such session, or it has no log.
        """
        return await in_thread(_expected(lambda: self._folded(name)), "kvdeck-run")

    def _folded(self, name: str) -> RunState:
        from msgspec.structs import replace

        from kvdeck.sessions.model.run_state import RunState, apply
        from kvdeck.sessions.store.event_log import read_events

        session = self._store().load(name)
        state = RunState(name)
        for event in read_events(self._store().samples_path(name)):
            state = apply(state, event)
        # A worker that was killed wrote no last line.
        return replace(state, state=session.state, reason=session.reason)

    async def load_parts(self, names: tuple[str, ...]) -> tuple[Session, ...]:
        """Return sessions, or parts of them (`name:layout`)."""
        from kvdeck.sessions.store.lookup import find_part

        return await self.read(lambda: tuple(find_part(self._store(), name) for name in names))

    async def load_histograms(self, session: Session) -> dict[Key, Histogram]:
        """Return a session's histograms of request times."""
        from kvdeck.sessions.analysis.histograms import histograms

        return await in_thread(_expected(lambda: dict(histograms(session, self._samples(session)))))

    async def change_session(self, what: str, name: str, value: str = "", before: str = "") -> str:
        """Rename, tag, note, export or delete a session, and return what was done, as one line."""
        from kvdeck.app.tui.session_changes import change_session

        return await self.read(lambda: change_session(what, name, value, before))

    async def load_bandwidth(self, hostname: str) -> BandwidthHistory:
        """Return the bandwidth that the host's sessions have measured."""
        from kvdeck.app.tui.bandwidth import BandwidthReader

        if self._bandwidth is None:
            self._bandwidth = BandwidthReader(self._store())
        reader = self._bandwidth
        return await self.read(lambda: reader.read(hostname))

    def plans_folder(self) -> Path:
        """Return the folder of the saved plans."""
        from kvdeck.engine.client.client import home

        return home() / "plans"

    @staticmethod
    def _store() -> Any:
        from kvdeck.engine.client.client import store

        return store()

    def _samples(self, session: Session) -> Path | None:
        try:
            path: Path | None = self._store().samples_path(session.name)
        except KvdeckError:
            return None
        return path if session.kind == "run" and not session.source else None

    # --- this host ---

    async def try_peer(self, host: str, command: str) -> PeerState:
        """Return whether a run with a peer works; takes seconds."""
        from kvdeck.app.tui.state import PeerState
        from kvdeck.engine.children.doctor_report import peer_report

        found = await in_thread(_expected(lambda: peer_report(host, command)), "kvdeck-peer")
        transport, reason, fix = (str(found.get(name) or "") for name in ("transport", "reason", "fix"))
        return PeerState(host, bool(found.get("ready")), transport, reason, fix)

    async def run_doctor(self) -> Doctor:
        """Return doctor's report on this host; takes seconds."""
        from kvdeck.app.tui.state import doctor_from_json
        from kvdeck.engine.client.client import doctor_report

        return await in_thread(_expected(lambda: doctor_from_json(doctor_report(None))), "kvdeck-doctor")

    async def find_sources(self, progress: Progress) -> FoundSources:
        """Return the telemetry sources on this host; `progress` gets those known so far, until all are."""
        from kvdeck.app.tui.source_search import find_sources

        return await find_sources(progress)
