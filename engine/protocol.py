"""Messages between the engine and its clients: one JSON object per line, `{"v": 1, "type": …}`.

A client sends commands; the `reply` echoes the command's `id`. The engine sends `hello` first, then replies, and
`event`, `sample`, `runs` and `recordings` to subscribers. Both sides ignore messages of unknown type.

A new message is a subclass of `Command` or `FromEngine` with its own tag, and its owner in the engine: a method marked
`@answers(...)`, or a `Topic` that subscribers receive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec
import orjson
from msgspec import Struct

from kvdeck.sessions.host.documents import check_record
from kvdeck.sessions.model.encoding import RecordError, fields_of
from kvdeck.sessions.model.events import COUNTERS, Counter
from kvdeck.sessions.model.records import RunState

VERSION = 1
TRANSFER = "transfer"
"""The kind of a job if a client or an engine of an earlier version names none."""
MAX_LINE = 8 << 20
"""Longest line that either side accepts, in bytes."""


class Message(Struct, frozen=True, tag_field="type"):
    """Base of all messages; a subclass with its own `tag` is a message of that type, known to both sides."""

    @property
    def type(self) -> str:
        return str(self.__struct_config__.tag)


class FromEngine(Message, frozen=True):
    """A message from the engine."""


class Command(Message, frozen=True):
    """A message from a client; the reply echoes its `id`. The engine's method marked `@answers(...)` executes it."""

    changes_state: ClassVar[bool] = True
    """Refused from a read-only client, and while the engine is stopping."""

    id: int


class RunInfo(Struct, frozen=True):
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
    kind: str = TRANSFER
    """Kind of the job, a key of `job_kinds.JOB_KINDS`."""


# --- from the engine ---


class Hello(FromEngine, frozen=True, tag="hello"):
    """First message of the engine on every connection."""

    version: int
    engine_pid: int
    kvdeck: str
    started: float
    monotonic_ns: int
    home: str
    counters: tuple[Counter, ...] = COUNTERS
    runs: tuple[RunInfo, ...] = ()


class Reply(FromEngine, frozen=True, tag="reply"):
    """Reply to the command with the same `id`. If `ok` is false, `error` is set and `fix` says what to do, if known."""

    id: int
    ok: bool
    data: dict[str, Any] = {}
    error: str | None = None
    fix: str | None = None
    mend: str | None = None
    """Same as `fix`; clients of kvdeck 0.1 read this field."""
    exit_code: int = 0


class RunsChanged(FromEngine, frozen=True, tag="runs"):
    """The complete queue, sent after a change."""

    runs: tuple[RunInfo, ...]


class EventMessage(FromEngine, frozen=True, tag="event"):
    """A line of a run's samples.jsonl, except rounds, which are sent as samples. `seq` is its line number from 0."""

    session: str
    seq: int
    event: dict[str, Any]


class SampleMessage(FromEngine, frozen=True, tag="sample"):
    """A round's counters in the order of `hello.counters`; `t` is the worker's clock in ns. Samples may be dropped."""

    session: str
    seq: int
    t: int
    values: tuple[float | None, ...]
    missed: int = 0
    """Samples dropped before this one because the client or its `hz` is slower."""


class WatchSample(FromEngine, frozen=True, tag="watch_sample"):
    """A telemetry sample, as `kvdeck monitor --json` prints it. A slow client gets only the newest.

    It also has its monotonic time, `at_ns`, and that at which its process began to sample, `since_ns`.
    """

    snapshot: dict[str, Any]
    missed: int = 0
    """Telemetry samples dropped before this one."""
    request: int = 0
    """Number of the client's request that it answers."""


class WatchPast(FromEngine, frozen=True, tag="watch_past"):
    """A sample from before the subscription, sent before the live ones, oldest first; see `watch.after_ns`.

    At most one per second, of the last two minutes.
    """

    at_ns: int
    """Monotonic time of the sample."""
    packed: str
    """The snapshot as JSON, compressed by zlib, in base64."""
    left: int = 0
    """Number of past samples that follow."""


class RecordingState(Struct, frozen=True):
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


class RecordingsChanged(FromEngine, frozen=True, tag="recordings"):
    """The engine's telemetry recordings, sent after `subscribe` and after each change."""

    recordings: tuple[RecordingState, ...]


class Goodbye(FromEngine, frozen=True, tag="goodbye"):
    """Last message before the engine closes the connection."""

    reason: str


# --- from a client ---


class Subscribe(Command, frozen=True, tag="subscribe"):
    """Subscribe to the queue and, if `session` is set, to that run from line `from_seq` on.

    `hz` limits live samples per second; 0 sends every line. With `hz` above 0, history is sent completely, live
    samples are thinned to the newest of each step, and live reference rounds are dropped. Once `readonly`, the client's
    later commands that change state are refused. A new `subscribe` replaces the previous one.
    Reply: `{session, live_from}`; `live_from` is the first line after the history. Empty without `session`.
    """

    changes_state = False

    session: str | None = None
    from_seq: int = 0
    hz: float = 10.0
    readonly: bool = False


CARRIED = ("SSH_AUTH_SOCK", "KRB5CCNAME")
"""Variables of a client by which ssh finds its keys; the engine may have been started in another login."""


class Submit(Command, frozen=True, tag="submit"):
    """Queue a job. `spec` is a mapping that the parser of its kind accepts: for a transfer, one of `RunSpec`.

    Without `session` the engine chooses the name. Reply: `{session}`.
    """

    spec: dict[str, Any]
    session: str | None = None
    kind: str = TRANSFER
    environment: dict[str, str] = {}
    """The client's variables that the job's ssh needs, of `CARRIED`; not stored."""


class Cancel(Command, frozen=True, tag="cancel"):
    """End a queued or running run, or a telemetry recording; saved data remains. Reply: `{session}`."""

    session: str


class Status(Command, frozen=True, tag="status"):
    """Request the status. Reply: `{pid, started, kvdeck, home, runtime, clients, idle_exit_s, runs, recordings}`."""

    changes_state = False


class WatchTelemetry(Command, frozen=True, tag="watch"):
    """Send telemetry samples, `hz` per second, until `hz` is 0. Without sources: those discovered on this host.

    Clients with equal requests share one sampling child. Read-only clients may send this too.
    """

    changes_state = False

    hz: float = 1.0
    sources: tuple[str, ...] = ()
    """Sources as `kvdeck monitor --source` accepts them; paths must be absolute."""
    block_bytes: float | None = None
    """Bytes of one KVBM block, if known."""
    pins: tuple[str, ...] = ()
    """Metrics to include even without a metric definition."""
    stuck_s: float | None = None
    """Seconds without progress after which an engine with running requests counts as stuck. Null: 30."""
    after_ns: int | None = None
    """Send the engine's past samples of these sources first, those after this monotonic time. Null: none."""
    quiet: bool = False
    """Send no samples, but let the engine sample, so that there are past ones when the client comes back."""
    request: int = 0
    """Number of the request, chosen by the client. It replaces the client's request of that number; samples of
    different requests come side by side, each with its number. Past samples have none: ask for them in one request."""
    limits: dict[str, float] | None = None
    """Limits of the checks on latencies, queues and the like, by name. Null, or one left out: the default."""


class StartRecording(Command, frozen=True, tag="record"):
    """Record telemetry to a new session, `hz` samples per second, until `stop_recording`. Reply: `{session}`.

    The other fields are those of `watch`; clients and recordings with equal fields share one sampling child.
    """

    name: str
    hz: float = 1.0
    sources: tuple[str, ...] = ()
    block_bytes: float | None = None
    pins: tuple[str, ...] = ()
    limit_bytes: int | None = None
    """Size limit on disk in bytes; above it, old samples are thinned. Null: the default limit."""
    stuck_s: float | None = None
    limits: dict[str, float] | None = None


class StopRecording(Command, frozen=True, tag="stop_recording"):
    """End a telemetry recording. The reply comes at once; `recordings` reports the end. Reply: `{session}`."""

    name: str


class Annotate(Command, frozen=True, tag="annotate"):
    """Add an annotation to a telemetry recording, at Unix time `t`, or when the engine receives it."""

    name: str
    text: str
    kind: str = "note"
    t: float | None = None


class StopEngine(Command, frozen=True, tag="stop"):
    """End the engine. Refused while a run or recording is active, unless `force`, which ends them within a few seconds.

    This message is the same in every protocol version, so that any client can stop any engine: see `shutdown`.
    """

    force: bool = False


class _Head(Struct):
    type: Any = None
    id: Any = 0


class MessageError(RecordError):
    """A line is not a valid message; the text names the field."""

    id = 0
    """Id of the command, if the line has one."""


_decoders: dict[str, Callable[[bytes], Message]] = {}


def _decoder(name: object) -> Callable[[bytes], Message] | None:
    """Return the decoder of a message type; None if it is unknown to this version."""
    if not isinstance(name, str):
        return None
    if name not in _decoders:
        known = (*FromEngine.__subclasses__(), *Command.__subclasses__())
        _decoders.update({str(cls.__struct_config__.tag): msgspec.json.Decoder(cls).decode for cls in known})
    return _decoders.get(name)


def encode(message: Message) -> bytes:
    """Return the message as one line, newline included."""
    return orjson.dumps({"v": VERSION, **fields_of(message)}, default=fields_of, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Message | None:
    """Return the message on a line, or None if its type is unknown to this version.

    Raises:
        MessageError: The line is not a JSON object, or a field is missing or invalid.
    """
    head = _Head()
    try:
        check_record(line)
        head = msgspec.json.decode(line, type=_Head)
        decoded = _decoder(head.type)
        return None if decoded is None else decoded(line)
    except (ValueError, RecursionError) as error:
        refused = MessageError(error)
        refused.id = head.id if type(head.id) is int else 0
        raise refused from error
