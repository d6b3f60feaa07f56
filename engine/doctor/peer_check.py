"""`python -m kvdeck.engine.doctor.peer_check HOST`: whether a run with a peer works, and over what; as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import os
from typing import Any

import orjson

from kvdeck.engine.host.environment import deciding_variables
from kvdeck.engine.io import nixl, stdio
from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.io.transports import connect
from kvdeck.engine.planning.layout import Geometry
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.outpost import greeting
from kvdeck.engine.ranks.peer import PeerHost, check_apart, differences
from kvdeck.engine.ranks.ssh import open_ssh
from kvdeck.sessions.errors import KvdeckError

_SMALL = Geometry(1, 1, 1, 4096, "int8")


def check_peer(host: str, command: str, timeout: float) -> dict[str, Any]:
    """Return what a run with a peer would find, as JSON values; `reason` and `fix` if it would fail.

    `here` and `there` are both halves' greetings; `transport` is what UCX takes between them; `clock_offset_s` is how
    far the peer's clock is ahead, with its error.
    """
    own = deciding_variables()
    os.environ.setdefault("UCX_LOG_LEVEL", "info")  # at which it names its transports
    # A host that drops packets without an answer is given up after seconds, and not after minutes.
    os.environ.setdefault("UCX_TCP_SYN_CNT", "2")
    found: dict[str, Any] = {"peer": host, "reachable": False, "ready": False, "there": None}
    found["here"] = {**greeting(), "environment": own}
    found |= {"differences": [], "transport": None, "clock_offset_s": None, "clock_error_s": None}
    board = Board()
    try:
        peer = open_ssh(board, host, "peer0", command, timeout)
        found |= {"reachable": True, "there": peer.greeting}
        check_apart(found["here"], [(host, peer.greeting)])
        found["differences"] = differences(found["here"], peer.greeting, host)
        try:
            offset = peer.clock_offset()
            found |= {"clock_offset_s": offset.seconds, "clock_error_s": offset.error_s}
            found["transport"] = _transport(peer)
            found["ready"] = True
        finally:
            peer.close()
    except KvdeckError as error:
        found |= {"reason": error.what, "fix": error.fix}
    finally:
        board.leave()
    return found


def _transport(peer: PeerHost) -> str:
    """Connect a small target there with an agent here; return the transports that UCX takes, empty if unknown."""
    target = peer.start_target()
    try:
        opened = target.call(
            "open",
            geometry=dataclasses.asdict(_SMALL),
            blocks=1,
            huge_pages=False,
            backend="UCX",
            params={},
            progress_thread=False,
            cores=peer.greeting["cores"],
        )
        agent = nixl.make_agent(f"kvdeck-peer-check-{os.getpid()}")
        nixl.create_backend(agent, "UCX")
        return connect(agent, "UCX", opened["metadata"])
    finally:
        target.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("--command", default="kvdeck")
    parser.add_argument("--timeout", type=float, default=20.0)
    options = parser.parse_args()
    out = stdio.claim_stdout()
    os.write(
        out, orjson.dumps(check_peer(options.host, options.command, options.timeout), option=orjson.OPT_APPEND_NEWLINE)
    )


if __name__ == "__main__":
    run_and_exit(main)
