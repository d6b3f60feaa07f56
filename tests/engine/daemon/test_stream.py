"""Lines of samples.jsonl as messages, without decoding what nobody reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from kvdeck.engine import protocol
from kvdeck.engine.daemon import log
from kvdeck.engine.daemon.stream import KEPT_LINES, RunStream, to_line
from kvdeck.engine.protocol import EventMessage, SampleMessage
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import ReferenceRound, Round, RunStarted, StateChanged

ROUND = Round(12, 3, 4, (1, 2), (3, 4), 9, (3.0, 4.0, None, 1e-9))


@pytest.mark.parametrize(
    "spell", [lambda line: line, lambda line: orjson.dumps(dict(reversed(orjson.loads(line).items())))]
)
def test_a_round_becomes_a_sample_however_it_is_spelled(spell):
    raw = spell(encode_line(ROUND).rstrip(b"\n"))
    if not raw.startswith(b'{"kind":"round"'):
        raw = b'{"kind":"round", ' + raw[1:].replace(b',"kind":"round"', b"")
    line = to_line("s", 7, raw)
    assert protocol.decode(line.encode(5)) == SampleMessage("s", 7, 12, ROUND.values, 5)
    assert (line.kind, line.step) == ("sample", b"3.0")


@pytest.mark.parametrize(
    "event", [RunStarted(1, 2.0, ()), StateChanged(1, 2.0, "done"), ReferenceRound(1, 0, 0, "memcpy", 1, 1)]
)
def test_other_lines_become_events(event):
    line = to_line("s", 0, encode_line(event).rstrip(b"\n"))
    message = protocol.decode(line.encode(0))
    assert isinstance(message, EventMessage)
    assert message.event == orjson.loads(encode_line(event))
    assert line.kind == ("reference" if isinstance(event, ReferenceRound) else "event")


@pytest.mark.parametrize("raw", [b"", b"noise", b"[1]", b'{"kind":"round","t":12', b'{"kind":"round","t":1,"val'])
def test_damaged_lines_are_counted_and_not_sent(raw: bytes):
    assert to_line("s", 0, raw).encode(0) == b""


def test_a_feed_keeps_the_newest_lines_only():
    feed, heard = RunStream("s", Path("nowhere")), []
    feed.listeners.add(heard.append)
    feed.push([encode_line(ROUND).rstrip(b"\n")] * (KEPT_LINES + 10))
    feed.push([encode_line(RunStarted(1, 2.0, ())).rstrip(b"\n")])
    assert (feed.next_seq, feed.first_kept) == (KEPT_LINES + 11, 11)
    assert [line.seq for line in feed.since(KEPT_LINES + 8)] == [KEPT_LINES + 8, KEPT_LINES + 9, KEPT_LINES + 10]
    assert heard == [False, True]


def test_the_engines_log_is_bounded(tmp_path: Path):
    """In a process of its own: the log takes its stdout and stderr."""
    path = tmp_path / "engine.log"
    code = (
        "import logging, os, pathlib, sys\n"
        "from kvdeck.engine.daemon import log as enginelog\n"
        "enginelog.MAX_BYTES = 2000\n"
        "enginelog.start_log(pathlib.Path(sys.argv[1]))\n"
        "for number in range(100): logging.getLogger('x').info('line %d', number)\n"
        "os.write(1, b'from a native library\\n')"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    text = path.with_name("engine.log.1").read_text() + path.read_text()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 5000
    assert text.endswith("line 99\nfrom a native library\n")
    assert log.MAX_BYTES == 1 << 20
    assert sorted(file.name for file in tmp_path.iterdir()) == ["engine.log", "engine.log.1"]
