"""The threads that talk to the engine, and turn what it says into one snapshot at a time.

One thread owns the connection and folds the stream; commands, which wait for replies, and doctor, which
takes seconds, have threads of their own. Nothing here waits for the screen.
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
from kvdeck.app.tui.run_state import RunView, fold
from kvdeck.app.tui.session_requests import told
from kvdeck.app.tui.state import Doctor, Snapshot, doctor_from_json
from kvdeck.engine.client import client as engine
from kvdeck.engine.protocol import EventMessage, FromEngine, Hello, RunInfo, RunsChanged, SampleMessage
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import FINAL_STATES

TICK_S = 0.5
"""Least time between two snapshots."""
SAMPLES_HZ = 5.0
"""Newest sample of each step, so many times a second; the line's rates are exact whatever is left out."""
AGAIN_S = 1.0
"""Between two tries to reach an engine that is gone."""


def followed(runs: tuple[RunInfo, ...], run: RunView | None, wanted: str | None) -> str | None:
    """The session to look at: the one asked for, else the running one, else the one at hand, else the next in line."""
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
    """Posts to the app until it is stopped. `post` may be called from any thread."""

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
        """Begin to connect, and let doctor look."""
        for name, work in (("feed", self._read), ("commands", self._command)):
            threading.Thread(target=work, name=f"kvdeck-{name}", daemon=True).start()
        self.look()

    def stop(self) -> None:
        """Let go of the engine; its runs go on."""
        self._stopped.set()
        if (client := self._client) is not None:
            client.close()

    # --- commands: each returns at once, its answer is a message ---

    def submit(self, spec: dict[str, Any]) -> None:
        """Queue a run; an engine that is gone is started for it."""
        self._commands.put(lambda: self._submit(spec))

    def cancel(self, session: str) -> None:
        """End a queued or running run."""
        self._commands.put(lambda: self._with_client(lambda client: client.cancel(session)))

    def follow(self, session: str) -> None:
        """Look at this run from now on."""
        self._wanted = session
        self._commands.put(lambda: self._with_client(self._subscribe))

    def cancel_submitted(self) -> None:
        """End the run that was queued last; whoever asks has asked for it before."""
        self._commands.put(self._cancel_submitted)

    def measure_paths(self, hostname: str, post: Callable[[Message], object]) -> None:
        """Read what was measured on this host, and post it."""
        self._commands.put(lambda: self._measure_paths(hostname, post))

    def do(self, work: Callable[[], None], apart: bool = False) -> None:
        """Let `work` run on the command thread, or on one of its own."""
        if apart:
            threading.Thread(target=self._guarded, args=(work,), name="kvdeck-reader", daemon=True).start()
        else:
            self._commands.put(work)

    def ask(self, work: Callable[[engine.Client], object]) -> None:
        """Give the engine another command; what it refuses is posted."""
        self._commands.put(lambda: self._with_client(work))

    def look(self) -> None:
        """Let doctor look at this host, unless it does so already."""
        threading.Thread(target=self._look, name="kvdeck-doctor", daemon=True).start()

    def _command(self) -> None:
        while not self._stopped.is_set():
            self._guarded(self._commands.get())

    def _guarded(self, work: Callable[[], None]) -> None:
        """No work, whatever becomes of it, ends the thread that it runs on."""
        try:
            work()
        except KvdeckError as error:
            self._post(CommandRefused(error.what, error.mend))
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
        # A short run may be over before the queue is seen to change.
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
            except Exception as error:  # this thread is the deck's eyes: it looks again whatever happened
                self._change(link="lost", detail=told(error), engine_pid=None)
                self._publish()
            finally:
                self._client = None
            # Who stopped the engine meant it: only a run that is asked for starts it again.
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
            self._wanted = None  # it may be what can't be followed
            raise

    def _stream(self, client: engine.Client) -> None:
        due = 0.0
        while not self._stopped.is_set():
            message = client.receive()
            # The rest of a tick gathers in the socket: reading line by line would cost more than drawing.
            self._stopped.wait(max(0.0, due - time.monotonic()))
            until, dirty = time.monotonic() + self._tick_s, False
            while message is not None:
                dirty = self._take(client, message) or dirty
                message = client.receive(0.0) if time.monotonic() < until else None
            if dirty:
                self._publish()
            due = time.monotonic() + self._tick_s

    def _take(self, client: engine.Client, message: FromEngine) -> bool:
        """Fold a message in; whether the picture has changed."""
        if isinstance(message, RunsChanged):
            self._change(runs=message.runs)
            if followed(message.runs, self._snapshot.run, self._wanted) != self._session:
                self._subscribe(client)
            return True
        if not isinstance(message, (EventMessage, SampleMessage)) or message.session != self._session:
            return False
        run = self._snapshot.run
        if run is None or run.session != message.session:
            run = RunView(message.session)
        self._change(run=fold(run, message))
        if self._wanted == message.session and self._snapshot.run and self._snapshot.run.state in FINAL_STATES:
            self._wanted = None
        return True

    def _change(self, **changes: Any) -> None:
        self._snapshot = replace(self._snapshot, **changes)

    def _publish(self) -> None:
        self._post(SnapshotTaken(self._snapshot))
