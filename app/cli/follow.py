"""Follows a run to its end: progress on stderr, Ctrl-C handling, the report on stdout."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import TYPE_CHECKING

from kvdeck.app.cli.output import print_session
from kvdeck.app.cli.progress import Progress
from kvdeck.engine.protocol import EventMessage, FromEngine, RunsChanged, SampleMessage
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.model.events import StateChanged, event_from_json
from kvdeck.sessions.model.records import FINAL_STATES, Session
from kvdeck.sessions.text.run_report import trouble

if TYPE_CHECKING:
    from kvdeck.engine.client.client import Client

CANCELLED = 130
_LOOK_S = 0.2
"""Seconds between two checks for Ctrl-C while no message arrives."""


@dataclass(slots=True)
class Interrupts:
    """Number of times Ctrl-C was pressed."""

    count: int = 0


@contextlib.contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count SIGINT while the block runs, instead of raising KeyboardInterrupt."""
    interrupts = Interrupts()

    def press(_number: int, _frame: FrameType | None) -> None:
        interrupts.count += 1

    before = signal.signal(signal.SIGINT, press)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


def follow(client: Client, name: str, as_json: bool, interrupts: Interrupts) -> int:
    """Follow a run until it ends, and print its report.

    One Ctrl-C cancels the run; a second one leaves it to the engine.

    Returns:
        The exit status: 0 done, 1 failed, 130 cancelled or left to the engine.

    Raises:
        EngineError: The engine exited or the connection was lost.
    """
    progress = Progress()
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
    session = client.store.load(name)
    if session.state not in FINAL_STATES:  # on a full disk the last event is missing in the session's file
        session = replace(session, state=ended.state, reason=ended.reason)
    if ended.state in ("failed", "crashed", "interrupted") and ended.reason:
        progress.say(f"{ended.state}: {ended.reason}")
    print_session(session, as_json)
    return exit_status(session)


def exit_status(session: Session) -> int:
    """Return a session's exit status.

    0: it is done, at least one result is ok and there is no trouble; 130: cancelled; otherwise 1.
    """
    if session.state == "cancelled":
        return CANCELLED
    ran = any(result.status == "ok" for result in session.results)
    return 0 if session.state == "done" and ran and not trouble(session) else 1


def _until_end(client: Client, name: str, progress: Progress, interrupts: Interrupts) -> StateChanged | None:
    """Return the run's last event, or None if a second Ctrl-C leaves it to the engine."""
    client.subscribe(name, hz=5)
    cancelled = False
    while interrupts.count < 2:
        if interrupts.count and not cancelled:
            cancelled = True
            progress.say("cancelling; results are saved · Ctrl-C again to stop waiting")
            with contextlib.suppress(EngineError):  # it may have just ended: the next message holds its state
                client.cancel(name)
        message = client.receive(_LOOK_S)
        state = None if message is None else _show(message, name, progress)
        if state is not None:
            return state
    return None


def _show(message: FromEngine, name: str, progress: Progress) -> StateChanged | None:
    """Show a message. Return the run's last event, or None; when it arrives, the session's files are complete."""
    if isinstance(message, SampleMessage) and message.session == name:
        progress.sample(message.values)
    elif isinstance(message, EventMessage) and message.session == name:
        event = event_from_json(message.event)
        if event is not None:
            progress.event(event)
        if isinstance(event, StateChanged) and event.state in FINAL_STATES:
            return event
    elif isinstance(message, RunsChanged):
        run = next((run for run in message.runs if run.session == name), None)
        if run is not None and run.position is not None:
            progress.waiting(f"queued, position {run.position}")
    return None
