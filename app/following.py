"""Following a run to its end: progress on stderr, Ctrl-C, the report on stdout."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvdeck.app.progress import Progress
from kvdeck.app.verbs.printing import print_session
from kvdeck.engine.protocol import EventMessage, Message, RunInfo, RunsChanged, SampleMessage
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.records import FINAL_STATES, RunState, Session, StateChanged, event_from_json
from kvdeck.sessions.report import trouble
from kvdeck.sessions.store import Store

if TYPE_CHECKING:
    from kvdeck.engine.client import Client

CANCELLED = 130


@dataclass(slots=True)
class Interrupts:
    """How often Ctrl-C was pressed; `pressed` is set at each press."""

    count: int
    pressed: asyncio.Event


@contextlib.contextmanager
def counted_interrupts() -> Iterator[Interrupts]:
    """Count SIGINT instead of being ended by it."""
    loop = asyncio.get_running_loop()
    interrupts = Interrupts(0, asyncio.Event())

    def press() -> None:
        interrupts.count += 1
        interrupts.pressed.set()

    loop.add_signal_handler(signal.SIGINT, press)
    try:
        yield interrupts
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def follow(client: Client, name: str, as_json: bool) -> int:
    """Follow a run until it ends, and print its report.

    Returns:
        The exit status: 0 done, 1 failed, 130 cancelled or left to the engine.
    """
    progress = Progress()
    with counted_interrupts() as interrupts:
        try:
            ended = await _until_end(client, name, progress, interrupts)
        finally:
            progress.clear()
    if ended is None:
        progress.say(f"left to the engine, which is ending it · come back with `kvdeck attach {name}`")
        return CANCELLED
    session = Store(Path(client.hello.home)).load(name)
    print_session(session, as_json)
    return exit_status(session)


def exit_status(session: Session) -> int:
    """The exit status that a session's state and results stand for."""
    if session.state == "cancelled":
        return CANCELLED
    ran = any(result.status == "ok" for result in session.results)
    return 0 if session.state == "done" and ran and not trouble(session) else 1


async def _until_end(client: Client, name: str, progress: Progress, interrupts: Interrupts) -> RunState | None:
    """The run's final state, or None when a second Ctrl-C leaves it to the engine.

    Raises:
        EngineError: The engine went away.
    """
    await client.subscribe(name, hz=5)
    messages = client.messages()
    pending: asyncio.Task[Message | None] = asyncio.ensure_future(_next(messages))
    cancelled = False
    try:
        while True:
            pressed = asyncio.ensure_future(interrupts.pressed.wait())
            await asyncio.wait((pending, pressed), return_when=asyncio.FIRST_COMPLETED)
            pressed.cancel()
            if interrupts.count > 1:
                return None
            if interrupts.count == 1 and not cancelled:
                cancelled = True
                interrupts.pressed.clear()
                progress.say("cancelling, what was measured is kept · Ctrl-C again leaves that to the engine")
                await client.cancel(name)
            if pending.done():
                message = pending.result()
                if message is None:
                    raise EngineError(
                        "the engine ended during the run",
                        f"what was measured is kept: the next engine closes the session, then `kvdeck report {name}`",
                    )
                state = _show(message, name, progress)
                if state is not None:
                    return state
                pending = asyncio.ensure_future(_next(messages))
    finally:
        pending.cancel()


async def _next(messages: AsyncIterator[Message]) -> Message | None:
    async for message in messages:
        return message
    return None


def _show(message: Message, name: str, progress: Progress) -> RunState | None:
    """Put a message on the screen; the run's final state, once it is there."""
    if isinstance(message, SampleMessage) and message.session == name:
        progress.sample(message.values)
    elif isinstance(message, EventMessage) and message.session == name:
        event = event_from_json(message.event)
        if event is not None:
            progress.event(event)
        if isinstance(event, StateChanged) and event.state in FINAL_STATES:
            return event.state
    elif isinstance(message, RunsChanged):
        return _show_queue(message.runs, name, progress)
    return None


def _show_queue(runs: tuple[RunInfo, ...], name: str, progress: Progress) -> RunState | None:
    run = next((run for run in runs if run.session == name), None)
    if run is None:
        return None
    if run.state == "queued" and run.position is not None:
        progress.waiting(f"queued as {name}, place {run.position}")
    return run.state if run.state in FINAL_STATES else None
