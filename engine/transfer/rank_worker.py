"""Worker process of one rank of a run whose ranks are started by a launcher or by hosts' own commands.

`python -m kvdeck.engine.transfer.rank_worker --meeting JSON`. It meets the other ranks and prints one line with its
place, `{"kind":"placed",…}`. Rank 0 then reads its session's folder from stdin and measures as `worker` does; another
rank serves targets until rank 0 ends. SIGTERM or the end of stdin cancels rank 0's run, and ends another rank.
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
from kvdeck.engine.ranks.outpost import serve_outpost
from kvdeck.engine.transfer import worker
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
    _tell({"kind": "placed", "rank": rank, "world": meeting.world, "hosts": hosts})
    if isinstance(joined, OtherRank):
        stdio.claim_stdout()
        try:
            serve_outpost(joined.seat, rank_name(rank))
        except KvdeckError as error:
            _say(f"rank {rank} of {meeting.world}: {error}")
            return error.exit_code
        return 0
    die_with_parent(number=0)  # the end of stdin cancels the run, which removes its files
    try:
        folder = sys.stdin.buffer.readline().decode().rstrip("\n")
        if not folder:
            return 0  # the command has given up, and said why
        _log_to(Path(folder))
        worker.measure(Path(folder), joined)
        return 0
    finally:
        joined.board.leave()


def _log_to(session: Path) -> None:
    """Send stderr, to which native libraries write, to the session's engine.log."""
    log = os.open(session / "engine.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(log, 2)
    os.close(log)


def _say(text: str) -> None:
    os.write(2, f"kvdeck: {text}\n".encode())


def _tell(message: dict[str, object]) -> None:
    os.write(1, orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    run_and_exit(main)
