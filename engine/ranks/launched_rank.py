"""Process of one rank, of a job whose ranks a launcher started, or the same command on each host.

`python -m MODULE --meeting JSON --parent PID`, where the module of each kind of job calls `run_rank`. It meets the
other ranks and prints one line with its place, `{"kind":"placed",…}`. Rank 0 then reads its session's folder from stdin
and measures; another rank serves until rank 0 ends. SIGTERM or the end of stdin cancels rank 0's job, and ends another
rank.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

import orjson

from kvdeck.engine.children.child import die_with_parent
from kvdeck.engine.io import stdio
from kvdeck.engine.meeting import Meeting
from kvdeck.engine.ranks.join import OtherRank, RankZero, join, rank_name
from kvdeck.engine.ranks.rendezvous import RankRendezvous
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.encoding import decode


def run_rank(serve: Callable[[RankRendezvous, str], None], measure: Callable[[Path, RankZero], object]) -> int:
    """Take this process's part in a job; return its exit status.

    Args:
        serve: What a rank other than 0 does, given its seat and its name, until rank 0 ends. May raise KvdeckError.
        measure: What rank 0 does, given its session's folder and the ranks.
    """
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
            serve(joined.seat, rank_name(rank))
        except KvdeckError as error:
            _say(f"rank {rank} of {meeting.world}: {error}")
            return error.exit_code
        return 0
    die_with_parent(number=0)  # the end of stdin cancels the job, which removes its files
    try:
        folder = sys.stdin.buffer.readline().decode().rstrip("\n")
        if folder:  # else the command has given up, and said why
            _log_to(Path(folder))
            measure(Path(folder), joined)
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
