"""Messages between the engine and its clients: one JSON object per line, `{"v": 1, "type": …}`.

A client sends commands; the `reply` echoes the command's `id`. The engine sends `hello` first, then replies, and
`event`, `sample`, `runs` and `recordings` to subscribers. Both sides ignore messages of unknown type.
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
"""Longest line that either side accepts, in bytes."""


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Queue entry of one run, identified by its session's name."""

    session: str
    state: RunState
    created: float
    position: int | None = None
    """Position in the queue, starting at 1; null if not queued."""
    pid: int | None = None
    fraction: float = 0.0
    eta_s: float | None = None
    seq: int = 0
    """Number of lines in its samples.jsonl so far."""
    paths: tuple[str, ...] = ()
    reason: str | None = None


# --- from the engine ---


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of the engine on every connection."""

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
    """Reply to the command with the same `id`. If `ok` is false, `error` is set and `mend` holds the fix, if any."""

    type: ClassVar[str] = "reply"
    id: int
    ok: bool
    data: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    mend: str | None = None
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class RunsChanged:
    """The complete queue, sent after a change."""

    type: ClassVar[str] = "runs"
    runs: tuple[RunInfo, ...]


@dataclass(frozen=True, slots=True)
class EventMessage:
    """A line of a run's samples.jsonl, except rounds, which are sent as samples. `seq` is its line number from 0."""

    type: ClassVar[str] = "event"
    session: str
    seq: int
    event: dict[str, Any]


@dataclass(frozen=True, slots=True)
class SampleMessage:
    """A round's counters in the order of `hello.counters`; `t` is the worker's clock in ns. Samples may be dropped."""

    type: ClassVar[str] = "sample"
    session: str
    seq: int
    t: int
    values: tuple[float | None, ...]
    missed: int = 0
    """Samples dropped before this one because the client or its `hz` is slower."""


@dataclass(frozen=True, slots=True)
class WatchSample:
    """A telemetry sample, as `kvdeck monitor --json` prints it. A slow client gets only the newest."""

    type: ClassVar[str] = "watch_sample"
    snapshot: dict[str, Any]
    missed: int = 0
    """Telemetry samples dropped before this one."""


@dataclass(frozen=True, slots=True)
class RecordingState:
    """State of a telemetry recording of this engine, running or ended."""

    name: str
    state: RunState
    """`queued` until its first sample is due."""
    begin: float | None = None
    """Unix time of its first sample, in seconds."""
    bytes: int = 0
    """Size on disk in bytes."""
    reason: str | None = None
    """Why it ended, if known."""


@dataclass(frozen=True, slots=True)
class RecordingsChanged:
    """The engine's telemetry recordings, sent after `subscribe` and after each change."""

    type: ClassVar[str] = "recordings"
    recordings: tuple[RecordingState, ...]


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Last message before the engine closes the connection."""

    type: ClassVar[str] = "goodbye"
    reason: str


# --- from a client ---


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Subscribe to the queue and, if `session` is set, to that run from line `from_seq` on.

    `hz` limits live samples per second; 0 sends every line. With `hz` above 0, history is sent completely, live
    samples are thinned to the newest of each step, and live reference rounds are dropped. Once `readonly`, the client's
    later commands that change state are refused. A new `subscribe` replaces the previous one.
    Reply: `{session, live_from}`; `live_from` is the first line after the history. Empty without `session`.
    """

    type: ClassVar[str] = "subscribe"
    id: int
    session: str | None = None
    from_seq: int = 0
    hz: float = 10.0
    readonly: bool = False


@dataclass(frozen=True, slots=True)
class Submit:
    """Queue a run. `spec` is a `RunSpec` mapping; without `session` the engine chooses the name. Reply: `{session}`."""

    type: ClassVar[str] = "submit"
    id: int
    spec: dict[str, Any]
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Cancel:
    """End a queued or running run, or a telemetry recording; saved data remains. Reply: `{session}`."""

    type: ClassVar[str] = "cancel"
    id: int
    session: str


@dataclass(frozen=True, slots=True)
class Status:
    """Request the status. Reply: `{pid, started, kvdeck, home, runtime, clients, idle_exit_s, runs, recordings}`."""

    type: ClassVar[str] = "status"
    id: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Send telemetry samples, `hz` per second, until `hz` is 0. Without sources: those discovered on this host.

    Clients with equal requests share one sampling child. Read-only clients may send this too.
    """

    type: ClassVar[str] = "watch"
    id: int
    hz: float = 1.0
    sources: tuple[str, ...] = ()
    """Sources as `kvdeck monitor --source` accepts them; paths must be absolute."""
    block_bytes: float | None = None
    """Bytes of one KVBM block, if known."""
    pins: tuple[str, ...] = ()
    """Metrics to include even without a metric definition."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record telemetry to a new session, `hz` samples per second, until `stop_recording`. Reply: `{session}`.

    The other fields are those of `watch`; clients and recordings with equal fields share one sampling child.
    """

    type: ClassVar[str] = "record"
    id: int
    name: str
    hz: float = 1.0
    sources: tuple[str, ...] = ()
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()
    limit_bytes: int | None = None
    """Size limit on disk in bytes; above it, old samples are thinned. Null: the default limit."""


@dataclass(frozen=True, slots=True)
class StopRecording:
    """End a telemetry recording. The reply comes at once; `recordings` reports the end. Reply: `{session}`."""

    type: ClassVar[str] = "stop_recording"
    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Annotate:
    """Add an annotation to a telemetry recording, at Unix time `t`, or when the engine receives it."""

    type: ClassVar[str] = "annotate"
    id: int
    name: str
    text: str
    kind: str = "note"
    t: float | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """End the engine. Refused while a run or recording is active, unless `force`, which ends them within a few seconds.

    This message is the same in every protocol version, so that any client can stop any engine: see `shutdown`.
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
    """Return the message as one line, newline included."""
    return orjson.dumps({"v": VERSION, "type": message.type, **to_json(message)}, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Message | None:
    """Return the message on a line, or None if its type is unknown to this version.

    Raises:
        ValueError: The line is not a JSON object, or a field is missing or invalid.
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
