"""Every message of the app. Those that carry a state may be replaced by a newer one of their kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvdeck.app.tui.modes.plan.bandwidth import Measured
    from kvdeck.app.tui.state import Doctor, Snapshot
    from kvdeck.engine.protocol import RecordingState
    from kvdeck.engine.telemetry.sample import Snapshot as Moment
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.store.index import SessionSummary


@dataclass
class SnapshotTaken(Message):
    """There is a newer picture of the engine and its runs."""

    snapshot: Snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotTaken)


@dataclass
class DoctorReported(Message):
    """Doctor has looked at this host, or could not."""

    doctor: Doctor

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, DoctorReported)


@dataclass
class SessionsListed(Message, bubble=False):
    """The sessions that are kept."""

    rows: tuple[SessionSummary, ...]
    error: str = ""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionsListed)


@dataclass
class SessionRead(Message, bubble=False):
    """A session's results, or why they can't be read."""

    name: str
    session: Session | None
    error: str = ""


@dataclass
class MomentSeen(Message, bubble=False):
    """What is watched, as it is now, or why nothing is."""

    moment: Moment
    error: str = ""
    packed: bytes = b""
    """The moment as the history keeps it, where it is made already."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, MomentSeen)


@dataclass
class RecordingsSeen(Message, bubble=False):
    """What the engine records of what is watched."""

    recordings: tuple[RecordingState, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RecordingsSeen)


@dataclass(frozen=True, slots=True)
class Found:
    """Something on this host that can be watched."""

    name: str
    kind: str


@dataclass
class SourcesFound(Message, bubble=False):
    """What there is to watch on this host, or why that is not known."""

    found: tuple[Found, ...]
    error: str = ""


@dataclass
class ReplayAsked(Message, bubble=False):
    """The operator wants a recording in the Monitor."""

    name: str


@dataclass
class RunSubmitted(Message):
    """The engine has taken a run into its queue."""

    session: str


@dataclass
class CommandRefused(Message):
    """The engine didn't do what was asked."""

    what: str
    mend: str = ""


@dataclass
class PlanChanged(Message):
    """A field of the plan has another value."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PlanChanged)


@dataclass
class PathsMeasured(Message, bubble=False):
    """What sessions of this host say of each path."""

    measured: Measured

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PathsMeasured)


@dataclass
class StepChosen(Message):
    """The step whose trial is plotted has been picked; None follows the run."""

    step: int | None


@dataclass
class RowOpened(Message):
    """Enter on a row of a list, by its key."""

    key: str


@dataclass
class RowMoved(Message):
    """The cursor of a list stands on another row."""

    key: str | None


@dataclass
class FilterTyped(Message):
    """The words that a list is filtered by."""

    text: str
    ended: bool


@dataclass
class SessionPreviewed(Message, bubble=False):
    """What the session under the cursor holds, or why it can't be read."""

    name: str
    session: Session | None
    error: str = ""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionPreviewed)


@dataclass
class SessionsCompared(Message, bubble=False):
    """Two sessions or more have been read to be compared, the baseline first."""

    sessions: tuple[Session, ...]
    error: str = ""


@dataclass
class SpreadsRead(Message, bubble=False):
    """How the request times of two sessions spread."""

    a: Mapping[Any, Any]
    b: Mapping[Any, Any]


@dataclass
class SessionsStirred(Message, bubble=False):
    """Another mark means that some process has written to the sessions that are watched, or made or renamed one."""

    mark: tuple[int, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionsStirred)


@dataclass
class SessionChanged(Message, bubble=False):
    """A session was renamed, tagged, exported or deleted, or could not be."""

    text: str
    error: str = ""
