"""Follows a run to its end: progress on stderr, Ctrl-C handling, the report on stdout."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from kvdeck.app.cli.output import print_session
from kvdeck.app.cli.progress import Progress
from kvdeck.engine.client.run_log import JoinedLog, SocketLog
from kvdeck.engine.protocol import FromEngine, RecordingsChanged, RunsChanged
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.model.run_state import RunState as Run
from kvdeck.sessions.store.event_log import FileLog
from kvdeck.sessions.store.telemetry.session import INSIDE
from kvdeck.sessions.text.run_report import trouble

if TYPE_CHECKING:
    from kvdeck.engine.client.client import Client

CANCELLED = 130
_WRITTEN_S = 5.0
_HZ = 5
"""Live samples per second and step."""


@dataclass(slots=True)
class Interrupts:
    """Number of times Ctrl-C was pressed."""

    count: int = 0


@contextlib.contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count SIGINT while the block runs, instead of raising KeyboardInterrupt."""
    interrupts = Interrupts()

    def press(_number: int, _frame: FrameType | None) -> None:
        # Only counted: the loop that follows acts on it, and no call into the engine is cut in the middle.
        interrupts.count += 1

    before = signal.signal(signal.SIGINT, press)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def follow(
    client: Client,
    name: str,
    as_json: bool,
    interrupts: Interrupts,
    before: Callable[[Run], object] = lambda _: None,
) -> int:
    """Follow a run until it ends, and print its report; `before` is called first, with the state folded of its log.

    One Ctrl-C cancels the run; a second one leaves it to the engine.

    Returns:
        The exit status: 0 done, 1 failed, 130 cancelled or left to the engine.

    Raises:
        EngineError: The engine exited or the connection was lost.
    """
    progress = Progress(name)
    progress.say(f"session {name}")
    try:
        ended = _until_end(client, name, progress, interrupts)
    except EngineError as error:
        raise EngineError(
            f"the engine ended during the run; results are saved in {client.store.folder(name)}",
            f"see `kvdeck session show {name}`",
        ) from error
    finally:
        progress.clear()
    if ended is None:
        progress.say(f"the run continues in the engine · follow it with `kvdeck attach {name}`")
        return CANCELLED
    # A recording ends after its run; without the wait, the report would lack its last samples.
    _wait_for_telemetry(client, name)
    session = client.store.load(name)
    if session.state not in FINAL_STATES:  # on a full disk the last event is missing in the session's file
        session = replace(session, state=ended.state, reason=ended.reason)
    if ended.state in ("failed", "crashed", "interrupted") and ended.reason:
        progress.say(f"{ended.state}: {ended.reason}")
    before(ended)
    print_session(session, as_json)
    return exit_status(session)


def _wait_for_telemetry(client: Client, name: str) -> None:
    """Wait until the recording inside a run that has ended is written, at most `_WRITTEN_S`."""
    inside = client.store.inside(name)
    if not inside.exists(INSIDE) or inside.read(INSIDE).state in FINAL_STATES:
        return
    deadline = time.monotonic() + _WRITTEN_S
    with contextlib.suppress(EngineError):  # what is written so far is in the report
        client.subscribe()
        while (left := deadline - time.monotonic()) > 0:
            message = client.receive(left)
            states = message.recordings if isinstance(message, RecordingsChanged) else ()
            if any(one.name == f"{name}/{INSIDE}" and one.state in FINAL_STATES for one in states):
                return


def exit_status(session: Session) -> int:
    """Return a session's exit status.

    0: it is done, at least one result is ok (or traffic was measured) and there is no trouble; 130: cancelled;
    otherwise 1.
    """
    if session.state == "cancelled":
        return CANCELLED
    ran = session.traffic is not None or any(result.status == "ok" for result in session.results)
    return 0 if session.state == "done" and ran and not trouble(session) else 1


def _until_end(client: Client, name: str, progress: Progress, interrupts: Interrupts) -> Run | None:
    """Return the run's final state, or None if a second Ctrl-C leaves it to the engine.

    When the final state arrives, the session's files are complete.
    """
    cancelled = False

    def going() -> bool:
        nonlocal cancelled
        if interrupts.count and not cancelled:
            cancelled = True
            progress.say("cancelling; results are saved · Ctrl-C again to stop waiting")
            with contextlib.suppress(EngineError):  # it may have just ended: the next message holds its state
                client.cancel(name)
        return interrupts.count < 2

    def queued(message: FromEngine) -> None:
        if isinstance(message, RunsChanged):
            run = next((run for run in message.runs if run.session == name), None)
            if run is not None and run.position is not None:
                progress.waiting(f"queued, position {run.position}")

    live = SocketLog(client, name, _HZ, going=going, other=queued)
    for entry in JoinedLog(FileLog(client.store.samples_path(name)), live).follow():
        progress.take(entry)
    return progress.run if progress.run.over else None
