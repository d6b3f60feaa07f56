"""The stream of a run's lines to clients: the newest in memory, all of them in `samples.jsonl`."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
from msgspec import Struct

from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.encoding import decode
from kvdeck.sessions.model.events import ReferenceRound, decode_event
from kvdeck.sessions.model.run_state import RunState, apply

KEPT_LINES = 2048

_ROUND = b'{"kind":"round","t":'
_VALUES = b'"values":['
_REFERENCE = ReferenceRound.__struct_config__.tag


class StreamLine(NamedTuple):
    """A line of `samples.jsonl` as a message without its end; `message` is None if there is nothing to send."""

    seq: int
    kind: Literal["event", "sample", "reference"]
    """`reference`: a reference round, an event as frequent as samples."""
    message: bytes | None
    step: bytes = b""
    """Index of a sample's step, as text."""

    @property
    def is_sample(self) -> bool:
        return self.kind == "sample"

    def encode(self, missed: int) -> bytes:
        """Return the complete message with newline; a sample includes `missed`, the samples dropped before it."""
        if self.message is None:
            return b""
        return self.message + (b',"missed":%d}\n' % missed if self.is_sample else b"}\n")


class _RoundLine(Struct):
    t: int
    values: list[Any]


class RunStream:
    """The newest lines of a run, and the listeners for further ones.

    Memory is bounded: a client that is more than `KEPT_LINES` behind reads from the file.
    """

    def __init__(self, session: str, path: Path, next_seq: int = 0) -> None:
        self.session = session
        self._run = RunState(session)
        self._newest_round: bytes | None = None
        """A round that `_run` doesn't hold yet."""
        self.path = path
        self.next_seq = next_seq
        self.listeners: set[Callable[[bool], None]] = set()
        """Called after new lines; the argument is True if one is an event (no round)."""
        self._newest: deque[StreamLine] = deque(maxlen=KEPT_LINES)

    @property
    def first_kept(self) -> int:
        """Seq of the oldest line in memory."""
        return self.next_seq - len(self._newest)

    def push(self, lines: list[bytes]) -> list[StreamLine]:
        """Append the next lines (without newlines), notify the listeners, and return the lines as messages."""
        made = []
        for raw in lines:
            made.append(to_line(self.session, self.next_seq, raw))
            self._newest.append(made[-1])
            self.next_seq += 1
            self._fold(made[-1], raw)
        urgent = any(line.kind == "event" for line in made)
        for listener in tuple(self.listeners):
            listener(urgent)
        return made

    @property
    def run(self) -> RunState:
        """State of the run after the lines pushed so far; its steps hold only a few of their samples."""
        # Folded when someone looks, and before each event: rounds come hundreds of times per second.
        if self._newest_round is not None:
            self._run = _applied(self._run, self._newest_round)
            self._newest_round = None
        return self._run

    def _fold(self, line: StreamLine, raw: bytes) -> None:
        # Counters are cumulative, so the newest round replaces those before it; decoding each would cost the most.
        if line.is_sample:
            self._newest_round = raw
        elif line.kind == "event":
            self._run = _applied(self.run, raw)

    def since(self, seq: int) -> list[StreamLine]:
        """Return the lines from `seq` on, which must be in memory."""
        return list(itertools.islice(self._newest, seq - self.first_kept, None))


def to_line(session: str, seq: int, raw: bytes) -> StreamLine:
    """Return a line of `samples.jsonl` as a message."""
    # Put together as bytes: a line is passed on as it was written, and is not parsed and encoded again.
    head = b'{"v":1,"type":"%%s","session":"%s","seq":%d,' % (session.encode(), seq)
    parts = _split_round(raw)
    if parts is not None:
        message = head % b"sample" + b'"t":%s,"values":%s' % parts
        return StreamLine(seq, "sample", message, parts[1][1:].partition(b",")[0])
    try:
        data = load_record(raw)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return StreamLine(seq, "event", None)
    kind: Literal["event", "reference"] = "reference" if data.get("kind") == _REFERENCE else "event"
    return StreamLine(seq, kind, head % b"event" + b'"event":' + raw)


def _split_round(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return a round's `t` and `values` as encoded in the line; None for other lines.

    Rounds are frequent and hold a time per request: slicing two fields out costs a hundredth of decoding the line.
    """
    if not raw.startswith(b'{"kind":"round"'):
        return None
    comma, values = raw.find(b",", len(_ROUND)), raw.rfind(_VALUES)
    time = raw[len(_ROUND) : comma]
    if raw.startswith(_ROUND) and time.isdigit() and values > 0 and raw.endswith(b"]}"):
        return time, raw[values + len(_VALUES) - 1 : -1]
    return _decode_round(raw)


def _decode_round(raw: bytes) -> tuple[bytes, bytes] | None:
    """Return the same as `_split_round` for JSON with different spacing or field order."""
    try:
        line = decode(_RoundLine, raw)
    except ValueError:
        return None
    return b"%d" % line.t, orjson.dumps(line.values)


def _applied(run: RunState, raw: bytes) -> RunState:
    event = decode_event(raw)
    return run if event is None else apply(run, event)
