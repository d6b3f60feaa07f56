"""A run's lines on their way to the clients: the newest in memory, all of them in `samples.jsonl`."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.model.events import ReferenceRound

KEPT_LINES = 2048

_ROUND = b'{"kind":"round","t":'
_VALUES = b'"values":['


class Line(NamedTuple):
    """One line as the message it becomes, up to where a sample's `missed` goes; null: nothing to send."""

    seq: int
    kind: Literal["event", "sample", "reference"]
    """`reference`: a reference round, an event of which there are as many as samples."""
    message: bytes | None
    step: bytes = b""
    """Of a sample: which step's counters these are."""

    @property
    def is_sample(self) -> bool:
        return self.kind == "sample"

    def encode(self, missed: int) -> bytes:
        """The message with its newline; `missed` counts the samples left out before a sample."""
        if self.message is None:
            return b""
        return self.message + (b',"missed":%d}\n' % missed if self.is_sample else b"}\n")


class Feed:
    """What a run has written so far, and who wants to hear of more.

    Memory is bounded: a client that is further behind than `KEPT_LINES` goes on from the file.
    """

    def __init__(self, session: str, path: Path, next_seq: int = 0) -> None:
        self.session = session
        self.path = path
        self.next_seq = next_seq
        self.listeners: set[Callable[[bool], None]] = set()
        """Called after lines came, with whether there was more among them than rounds."""
        self._newest: deque[Line] = deque(maxlen=KEPT_LINES)

    @property
    def first_kept(self) -> int:
        """Seq of the oldest line in memory."""
        return self.next_seq - len(self._newest)

    def push(self, lines: list[bytes]) -> list[Line]:
        """Take the lines that come next, without their newlines."""
        made = []
        for raw in lines:
            made.append(to_line(self.session, self.next_seq, raw))
            self._newest.append(made[-1])
            self.next_seq += 1
        urgent = any(line.kind == "event" for line in made)
        for listener in tuple(self.listeners):
            listener(urgent)
        return made

    def since(self, seq: int) -> list[Line]:
        """Lines from `seq` on, which must be in memory."""
        return list(itertools.islice(self._newest, seq - self.first_kept, None))


def to_line(session: str, seq: int, raw: bytes) -> Line:
    """The message for a line of `samples.jsonl`."""
    head = b'{"v":1,"type":"%%s","session":"%s","seq":%d,' % (session.encode(), seq)
    parts = _split_round(raw)
    if parts is not None:
        message = head % b"sample" + b'"t":%s,"values":%s' % parts
        return Line(seq, "sample", message, parts[1][1:].partition(b",")[0])
    try:
        data = load_record(raw)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return Line(seq, "event", None)
    kind: Literal["event", "reference"] = "reference" if data.get("kind") == ReferenceRound.kind else "event"
    return Line(seq, kind, head % b"event" + b'"event":' + raw)


def _split_round(raw: bytes) -> tuple[bytes, bytes] | None:
    """A round's `t` and `values` as they are written; null for another kind of line.

    A round holds a time for each request and comes many times a second: cutting two pieces out of it costs
    a hundredth of decoding it.
    """
    if not raw.startswith(b'{"kind":"round"'):
        return None
    comma, values = raw.find(b",", len(_ROUND)), raw.rfind(_VALUES)
    time = raw[len(_ROUND) : comma]
    if raw.startswith(_ROUND) and time.isdigit() and values > 0 and raw.endswith(b"]}"):
        return time, raw[values + len(_VALUES) - 1 : -1]
    return _decode_round(raw)


def _decode_round(raw: bytes) -> tuple[bytes, bytes] | None:
    """As `_split_round`, for a writer that spells its JSON another way."""
    try:
        data = load_record(raw)
        return b"%d" % data["t"], orjson.dumps(data["values"])
    except (ValueError, TypeError, KeyError):
        return None


def sample_values(line: Line) -> list[Any]:
    """The counters of a sample; empty for another line, and for a damaged one."""
    if not line.is_sample or line.message is None:
        return []
    try:
        values = load_record(line.message[line.message.rfind(_VALUES) + len(_VALUES) - 1 :])
    except ValueError:  # a round's line is cut and not read, so that the damage shows only here
        return []
    return values if isinstance(values, list) else []


def event_data(line: Line) -> dict[str, Any]:
    """The event of a line that isn't a sample; empty where it holds none."""
    if line.is_sample or line.message is None:
        return {}
    data = load_record(line.message[line.message.find(b'"event":') + len(b'"event":') :])
    return data if isinstance(data, dict) else {}
