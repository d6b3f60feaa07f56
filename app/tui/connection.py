"""Threads that talk to the engine and post snapshots of its state to the app.

One thread owns the connection and folds the message stream. Commands, which wait for replies, and doctor, which takes
seconds, have their own threads. No thread waits for the screen.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual.message import Message

from kvdeck.app.tui.messages import CommandRefused, DoctorReported, PathsMeasured, RunSubmitted, SnapshotTaken
from kvdeck.app.tui.modes.plan.bandwidth import Measured, Reader
from kvdeck.app.tui.session_requests import told
from kvdeck.app.tui.state import Doctor, Snapshot, doctor_from_json
from kvdeck.engine.client import client as engine
from kvdeck.engine.client.run_log import entry_of
from kvdeck.engine.protocol import EventMessage, FromEngine, Hello, RunInfo, RunsChanged, SampleMessage
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.model.run_state import RunState, advance

TICK_S = 0.5
"""Minimum time between two snapshots, in s."""
SAMPLES_HZ = 5.0
"""Samples per second and step. Counters are cumulative, so dropping samples keeps rates exact."""
AGAIN_S = 1.0
"""Time between two attempts to connect to an engine, in s."""


def followed(runs: tuple[RunInfo, ...], run: RunState | None, wanted: str | None) -> str | None:
    """Return the session to follow: the requested one, else the running one, else the current run, else the first
    queued one.

    None if there is no run.
    """
    if wanted is not None:
        return wanted
    known = {info.session for info in runs}
    if run is not None and run.state == "running" and run.session in known:
        return run.session
    running = next((info.session for info in runs if info.state == "running"), None)
    if running is not None:
        return running
    if run is not None:
        return run.session
    return next((info.session for info in runs if info.state == "queued"), None)


class Feed:
    """Posts engine state to the app until stopped. `post` is called from several threads."""

    def __init__(self, post: Callable[[Message], object], *, readonly: bool = False, tick_s: float = TICK_S) -> None:
        self._post = post
        self._readonly = readonly
        self._tick_s = tick_s
        self._stopped = threading.Event()
        self._client: engine.Client | None = None
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wanted: str | None = None
        self._looking = threading.Lock()
        self._snapshot = Snapshot()

    def start(self) -> None:
        """Start the connection and command threads, and run doctor."""
        for name, work in (("feed", self._read), ("commands", self._command)):
            threading.Thread(target=work, name=f"kvdeck-{name}", daemon=True).start()
        self.look()

    def stop(self) -> None:
        """Close the connection to the engine; its runs continue."""
        self._stopped.set()
        if (client := self._client) is not None:
            client.close()

    # --- commands: each returns at once; the reply is posted as a message ---

    def submit(self, spec: dict[str, Any]) -> None:
        """Submit a run, starting an engine if none runs (unless read-only). Posts RunSubmitted or CommandRefused."""
        self._commands.put(lambda: self._submit(spec))

    def cancel(self, session: str) -> None:
        """Cancel a queued or running run."""
        self._commands.put(lambda: self._with_client(lambda client: client.cancel(session)))

    def follow(self, session: str) -> None:
        """Follow this run from now on."""
        self._wanted = session
        self._commands.put(lambda: self._with_client(self._subscribe))

    def cancel_submitted(self) -> None:
        """Cancel the run submitted last. Commands run in order, so its submission is handled first."""
        self._commands.put(self._cancel_submitted)

    def measure_paths(self, hostname: str, post: Callable[[Message], object]) -> None:
        """Read this host's measured bandwidth from its sessions, and post it as PathsMeasured."""
        self._commands.put(lambda: self._measure_paths(hostname, post))

    def do(self, work: Callable[[], None], apart: bool = False) -> None:
        """Run `work` on the command thread, or on a new thread if `apart`."""
        if apart:
            threading.Thread(target=self._guarded, args=(work,), name="kvdeck-reader", daemon=True).start()
        else:
            self._commands.put(work)

    def ask(self, work: Callable[[engine.Client], object]) -> None:
        """Send the engine another command; a refusal is posted as CommandRefused."""
        self._commands.put(lambda: self._with_client(work))

    def look(self) -> None:
        """Run doctor on this host, unless it is already running."""
        threading.Thread(target=self._look, name="kvdeck-doctor", daemon=True).start()

    def _command(self) -> None:
        while not self._stopped.is_set():
            self._guarded(self._commands.get())

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run `work`; post an exception as CommandRefused, so that it doesn't end the thread."""
        try:
            work()
        except KvdeckError as error:
            self._post(CommandRefused(error.what, error.fix))
        except Exception as error:
            self._post(CommandRefused(told(error), ""))

    def _with_client(self, work: Callable[[engine.Client], object]) -> None:
        client = self._client
        if client is not None:
            work(client)
            return
        with engine.Client.connect(start=not self._readonly) as fresh:
            work(fresh)

    def _submit(self, spec: dict[str, Any]) -> None:
        self._with_client(lambda client: self._post_submitted(client.submit(spec)))

    def _cancel_submitted(self) -> None:
        if self._submitted is not None:
            session = self._submitted
            self._with_client(lambda client: client.cancel(session))

    _submitted: str | None = None

    def _post_submitted(self, session: str) -> None:
        self._submitted = session
        self._post(RunSubmitted(session))
        # A short run may end before the queue's change arrives, so follow it at once.
        if not any(info.state == "running" for info in self._snapshot.runs):
            self.follow(session)

    def _measure_paths(self, hostname: str, post: Callable[[Message], object]) -> None:
        if self._measured is None:
            self._measured = Reader(engine.store())
        try:
            post(PathsMeasured(self._measured.read(hostname)))
        except Exception as error:
            post(PathsMeasured(Measured((), told(error))))

    _measured: Reader | None = None

    def _look(self) -> None:
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._post(DoctorReported(replace(self._doctor, looking=True, error="")))
            self._doctor = doctor_from_json(engine.doctor_report(None))
        except Exception as error:
            self._doctor = replace(self._doctor, looking=False, error=told(error))
        finally:
            self._looking.release()
        self._post(DoctorReported(self._doctor))

    _doctor = Doctor()

    # --- the stream ---

    def _read(self) -> None:
        start = not self._readonly
        while not self._stopped.is_set():
            try:
                with engine.Client.connect(start=start) as client:
                    self._client = client
                    self._attach(client)
                    self._stream(client)
            except Exception as error:  # without this thread the deck shows nothing: retry after any error
                self._change(link="lost", detail=told(error), engine_pid=None)
                self._publish()
            finally:
                self._client = None
            # Don't restart an engine the user stopped; submitting a run does.
            start = False
            self._stopped.wait(AGAIN_S)

    def _attach(self, client: engine.Client) -> None:
        hello: Hello = client.hello
        before = self._last_pid
        again = before is not None and before != hello.engine_pid
        self._last_pid = hello.engine_pid
        self._change(
            link="connected",
            detail="",
            engine_pid=hello.engine_pid,
            restarts=self._snapshot.restarts + again,
            runs=hello.runs,
        )
        self._subscribe(client)
        self._publish()

    _last_pid: int | None = None
    _session: str | None = None

    def _subscribe(self, client: engine.Client) -> None:
        run = self._snapshot.run
        session = followed(self._snapshot.runs, run, self._wanted)
        self._session = session
        from_seq = run.next_seq if run is not None and run.session == session else 0
        try:
            client.subscribe(session, from_seq, SAMPLES_HZ, self._readonly)
        except KvdeckError:
            self._wanted = None  # the requested session may be the one that can't be followed
            raise

    def _stream(self, client: engine.Client) -> None:
        due = 0.0
        while not self._stopped.is_set():
            message = client.receive()
            # Let messages collect in the socket for a tick: handling each on arrival would cost more than drawing.
            self._stopped.wait(max(0.0, due - time.monotonic()))
            until, dirty = time.monotonic() + self._tick_s, False
            while message is not None:
                dirty = self._take(client, message) or dirty
                message = client.receive(0.0) if time.monotonic() < until else None
            if dirty:
                self._publish()
            due = time.monotonic() + self._tick_s

    def _take(self, client: engine.Client, message: FromEngine) -> bool:
        """Fold a message into the snapshot; return whether the snapshot changed."""
        if isinstance(message, RunsChanged):
            self._change(runs=message.runs)
            if followed(message.runs, self._snapshot.run, self._wanted) != self._session:
                self._subscribe(client)
            return True
        if not isinstance(message, (EventMessage, SampleMessage)) or message.session != self._session:
            return False
        run = self._snapshot.run
        if run is None or run.session != message.session:
            run = RunState(message.session)
        self._change(run=advance(run, entry_of(message)))
        if self._wanted == message.session and self._snapshot.run and self._snapshot.run.state in FINAL_STATES:
            self._wanted = None
        return True

    def _change(self, **changes: Any) -> None:
        self._snapshot = replace(self._snapshot, **changes)

    def _publish(self) -> None:
        self._post(SnapshotTaken(self._snapshot))
