"""Worker process of a traffic test whose processes a launcher started, or the same command on each host.

`python -m kvdeck.engine.traffic.rank_worker --meeting JSON`. It meets the others and prints one line with its place,
`{"kind":"placed",…}`. Rank 0 then reads its session's folder from stdin and measures as `worker` does; another plays
ranks until rank 0 ends. SIGTERM or the end of stdin cancels rank 0's test, and ends another process.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import orjson

from kvdeck.engine.children.child import die_with_parent
from kvdeck.engine.io import stdio
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.meeting import Meeting
from kvdeck.engine.ranks.join import OtherRank, RankZero, join, rank_name
from kvdeck.engine.traffic import worker
from kvdeck.engine.traffic.rank_host import serve_ranks
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.encoding import decode


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--meeting", required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args()
    die_with_parent(options.parent)
    meeting = decode(Meeting, options.meeting.encode())
    try:
        joined = join(meeting, _say)
    except KvdeckError as error:
        _say(str(error))
        return error.exit_code
    rank = joined.rank if isinstance(joined, OtherRank) else 0
    hosts = joined.hosts if isinstance(joined, RankZero) else ()
    placed = {"kind": "placed", "rank": rank, "world": meeting.world, "hosts": hosts}
    os.write(1, orjson.dumps(placed, option=orjson.OPT_APPEND_NEWLINE))
    if isinstance(joined, OtherRank):
        stdio.claim_stdout()
        try:
            serve_ranks(joined.seat, rank_name(rank))
        except KvdeckError as error:
            _say(f"rank {rank} of {meeting.world}: {error}")
            return error.exit_code
        return 0
    die_with_parent(number=0)  # the end of stdin cancels the test
    try:
        folder = sys.stdin.buffer.readline().decode().rstrip("\n")
        if folder:
            log = os.open(Path(folder) / "engine.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.dup2(log, 2)
            os.close(log)
            worker.measure(Path(folder), joined)
        return 0
    finally:
        joined.board.leave()


def _say(text: str) -> None:
    os.write(2, f"kvdeck: {text}\n".encode())


if __name__ == "__main__":
    run_and_exit(main)
