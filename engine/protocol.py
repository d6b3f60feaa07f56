"""The messages between the engine and its clients: one JSON object a line, `{"v": 1, "type": …}`.

A client sends commands; each has an `id` that its `reply` echoes. The engine sends `hello` first, then
replies, and to subscribers `event`, `sample`, `runs` and `recordings`. Unknown types are ignored by both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import orjson

from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.events import COUNTERS, Counter
from kvdeck.sessions.model.records import RunState, from_json, to_json

VERSION = 1
MAX_LINE = 8 << 20
"""Longest line either side accepts, in bytes."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """One run as the queue shows it; runs are known by their session's name."""

    session: str
    state: RunState
    created: float
    position: int | None = None
    """Place in the queue, 1 is next; null when not queued."""
    pid: int | None = None
    fraction: float = 0.0
    eta_s: float | None = None
    seq: int = 0
    """Lines in its samples.jsonl so far."""
    paths: tuple[str, ...] = ()
    reason: str | None = None


# --- from the engine ---


@dataclass(frozen=True, slots=True)
class Hello:
    """First line on every connection."""

    type: ClassVar[str] = "hello"
    version: int
    engine_pid: int
    kvdeck: str
    started: float
    monotonic_ns: int
    home: str
    counters: tuple[Counter, ...] = COUNTERS
    runs: tuple[RunInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to the command with the same `id`. `error` and `mend` are set when `ok` is false."""

    type: ClassVar[str] = "reply"
    id: int
    ok: bool
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    mend: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class RunsChanged:
    """The queue, whole, after anything in it changed."""

    type: ClassVar[str] = "runs"
    runs: tuple[RunInfo, ...]


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A line of a run's samples.jsonl, rounds apart (those come as samples). `seq` is its line number from 0."""

    type: ClassVar[str] = "event"
    session: str
    seq: int
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleMessage:
    """A round's counters in the order of `hello.counters`, with the worker's clock. Old ones may be dropped."""

    type: ClassVar[str] = "sample"
    session: str
    seq: int
    t: int
    values: tuple[float | None, ...]
    missed: int = 0
    """Samples left out before this one because the client or its `hz` was slower."""


@dataclass(frozen=True, slots=True)
class WatchSample:
    """What is watched at one moment, as `kvdeck monitor --json` prints it. A slow client gets the newest."""

    type: ClassVar[str] = "watch_sample"
    snapshot: dict[str, Any]
    missed: int = 0
    """Moments left out before this one."""


@dataclass(frozen=True, slots=True)
class RecordingState:
    """A recording that the engine makes or made."""

    name: str
    state: RunState
    """`queued` until its first moment is due."""
    begin: float | None = None
    """Unix time in seconds of its first moment."""
    bytes: int = 0
    """On the disk."""
    reason: str | None = None
    """Why it ended."""


@dataclass(frozen=True, slots=True)
class RecordingsChanged:
    """The engine's recordings, after one of them changed; with `subscribe` as they are."""

    type: ClassVar[str] = "recordings"
    recordings: tuple[RecordingState, ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Last line on a connection whose engine ends."""

    type: ClassVar[str] = "goodbye"
    reason: str


# --- from a client ---


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Follow the queue and, if named, one run from a line on; `hz` bounds live samples, 0 is every one.

    With `hz` above 0, history is sent whole and live samples are thinned to the newest of each step, so many
    times a second; live reference rounds are left out. A `readonly` client's later commands that change anything
    are refused. A new `subscribe` replaces the one before. Reply: `{session, live_from}`, the second the first
    line that is no history.
    """

    type: ClassVar[str] = "subscribe"
    id: int
    session: str | None = None
    from_seq: int = 0
    hz: float = 10.0
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a run. `spec` is a `RunSpec` mapping; without a name the engine makes one. Reply: `{session}`."""

    type: ClassVar[str] = "submit"
    id: int
    spec: dict[str, Any]
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a queued or running run, or a recording; what there is of it is kept."""

    type: ClassVar[str] = "cancel"
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class Status:
    """Reply: `{pid, started, kvdeck, home, runtime, clients, idle_exit_s, runs, recordings}`."""

    type: ClassVar[str] = "status"
    id: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Send what is watched, `hz` times a second, until `hz` is 0. Without sources: what is found on this host.

    Clients that ask for the same share one child that samples. Any client may watch, a read-only one too.
    """

    type: ClassVar[str] = "watch"
    id: int
    hz: float = 1.0
    sources: tuple[str, ...] = ()
    """As `kvdeck monitor --source` takes them; paths in full."""
    block_bytes: float | None = None
    """Bytes of one KVBM block, where known."""
    pins: tuple[str, ...] = ()
    """Metrics to give whether their meaning is known or not."""


@dataclass(frozen=True, slots=True)
class Record:
    """Keep what is watched in a new session, `hz` moments a second, until `stop_recording`. Reply: `{session}`.

    The other fields are as of `watch`: where they are alike, watchers and recordings share one child.
    """

    type: ClassVar[str] = "record"
    id: int
    name: str
    hz: float = 1.0
    sources: tuple[str, ...] = ()
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()
    limit_bytes: int | None = None
    """On the disk; beyond it old moments are thinned."""


@dataclass(frozen=True, slots=True)
class StopRecording:
    """End a recording; it has ended when `recordings` says so."""

    type: ClassVar[str] = "stop_recording"
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotate:
    """Set a mark in a recording, with the time at which the engine hears of it."""

    type: ClassVar[str] = "annotate"
    id: int
    name: str
    text: str
    kind: str = "note"


@dataclass(frozen=True, slots=True)
class Stop:
    """End the engine. Refused while a run goes on unless `force`, which cancels it and leaves it little time.

    Every version sends and takes it as it is here, whatever becomes of the other messages: see `shutdown`.
    """

    type: ClassVar[str] = "stop"
    id: int
    force: bool = False


FromEngine = Hello | Reply | RunsChanged | EventMessage | SampleMessage | WatchSample | RecordingsChanged | Goodbye
FromClient = Subscribe | Submit | Cancel | Status | Watch | Record | StopRecording | Annotate | Stop
Message = FromEngine | FromClient

_TYPES: dict[str, type[Message]] = {
    message.type: message
    for message in (
        Hello,
        Reply,
        RunsChanged,
        EventMessage,
        SampleMessage,
        WatchSample,
        RecordingsChanged,
        Goodbye,
        Subscribe,
        Submit,
        Cancel,
        Status,
        Watch,
        Record,
        StopRecording,
        Annotate,
        Stop,
    )
}


def encode(message: Message) -> bytes:
    """The message as one line, newline included."""
    return orjson.dumps({"v": VERSION, "type": message.type, **to_json(message)}, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Message | None:
    """The message a line holds, or None for a type that this version doesn't know.

    Raises:
        ValueError: The line is no JSON object, or a field is missing.
    """
    data = load_record(line)
    if not isinstance(data, dict):
        raise ValueError("a message is a JSON object")
    name = data.get("type", "")
    cls = _TYPES.get(name) if isinstance(name, str) else None
    if cls is None:
        return None
    try:
        return from_json(cls, data)
    except TypeError as error:
        raise ValueError(f"{cls.type}: {error}") from error
