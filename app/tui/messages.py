"""All Textual messages of the app. A message that carries a state may be replaced by a newer one of its type."""

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
    """A newer snapshot of the engine and its runs."""

    snapshot: Snapshot

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotTaken)


@dataclass
class DoctorReported(Message):
    """Doctor is running, has a report, or has failed."""

    doctor: Doctor

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, DoctorReported)


@dataclass
class SessionsListed(Message, bubble=False):
    """The stored sessions, or why they can't be listed."""

    rows: tuple[SessionSummary, ...]
    error: str = ""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionsListed)


@dataclass
class SessionRead(Message, bubble=False):
    """A session, or why it can't be read."""

    name: str
    session: Session | None
    error: str = ""


@dataclass
class MomentSeen(Message, bubble=False):
    """The newest telemetry sample, or why there is none."""

    moment: Moment
    error: str = ""
    packed: bytes = b""
    """The sample compressed for the history, if that is done already."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, MomentSeen)


@dataclass
class RecordingsSeen(Message, bubble=False):
    """The telemetry recordings of the engine."""

    recordings: tuple[RecordingState, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, RecordingsSeen)


@dataclass(frozen=True, slots=True)
class Found:
    """A telemetry source on this host."""

    name: str
    kind: str


@dataclass
class SourcesFound(Message, bubble=False):
    """The telemetry sources on this host, or why the search failed."""

    found: tuple[Found, ...]
    error: str = ""


@dataclass
class ReplayAsked(Message, bubble=False):
    """Request to open a recording in the Monitor."""

    name: str


@dataclass
class RunSubmitted(Message):
    """The engine has queued a run."""

    session: str


@dataclass
class CommandRefused(Message):
    """A command was refused or has failed; `fix` says how to fix it, if known."""

    what: str
    fix: str = ""


@dataclass
class PlanChanged(Message):
    """A field of the plan has changed."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PlanChanged)


@dataclass
class PathsMeasured(Message, bubble=False):
    """Bandwidth of each path, measured by sessions of this host."""

    measured: Measured

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, PathsMeasured)


@dataclass
class StepChosen(Message):
    """A step was picked for the plot; None follows the running step."""

    step: int | None


@dataclass
class RowOpened(Message):
    """Enter was pressed on a list row with this key."""

    key: str


@dataclass
class RowMoved(Message):
    """A list's cursor is on another row; None if the list is empty."""

    key: str | None


@dataclass
class FilterTyped(Message):
    """A list's filter text; `ended` if the operator has left the filter line."""

    text: str
    ended: bool


@dataclass
class SessionPreviewed(Message, bubble=False):
    """The session under the cursor, or why it can't be read."""

    name: str
    session: Session | None
    error: str = ""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionPreviewed)


@dataclass
class SessionsCompared(Message, bubble=False):
    """Two or more sessions to compare, the baseline first, or why they can't be read."""

    sessions: tuple[Session, ...]
    error: str = ""


@dataclass
class SpreadsRead(Message, bubble=False):
    """Request-time histograms of two sessions."""

    a: Mapping[Any, Any]
    b: Mapping[Any, Any]


@dataclass
class SessionsStirred(Message, bubble=False):
    """Fingerprint of the watched sessions on disk: a different `mark` means one was written, created or renamed."""

    mark: tuple[int, ...]

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SessionsStirred)


@dataclass
class SessionChanged(Message, bubble=False):
    """A session was renamed, tagged, given a note, exported or deleted, or the change failed."""

    text: str
    error: str = ""
