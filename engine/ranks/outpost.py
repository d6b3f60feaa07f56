"""A run's half on another host: starts ranks there, passes calls on to them, and tells rank 0 what happens to them.

`python -m kvdeck.engine.ranks.outpost --seat SCHEME:REST --rank NAME`. It ends when rank 0 says so or is gone; its
ranks end with it. It loads no backend, so no backend's fault ends it.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import platform
import select
import signal
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kvdeck.engine.host import host_facts
from kvdeck.engine.host.environment import deciding_variables
from kvdeck.engine.host.facts import GpuFacts
from kvdeck.engine.host.nics import nic_counters, nics
from kvdeck.engine.io import plugins
from kvdeck.engine.io.exit import leave, run_and_exit
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rank_process import RankProcess
from kvdeck.engine.ranks.rendezvous import RankRendezvous
from kvdeck.engine.ranks.rpc import serve
from kvdeck.engine.ranks.seat import open_seat
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError

PROTOCOL = 3
"""Version of the calls between a run and its other halves; equal on both hosts."""
SILENCE_SECONDS = 60.0
"""Time after which rank 0, which writes every few seconds, is taken for dead."""
_MODULES = {"target": "kvdeck.engine.ranks.target", "stream": "kvdeck.engine.ranks.stream_end"}
"""Programs of ranks that rank 0 may start here, by their kind."""
_LOOK_SECONDS = 1.0
_POLLRDHUP = 0x2000


class Outpost:
    """Served object: this host's facts and counters, and the ranks that rank 0 starts here."""

    busy = False

    def __init__(self, seat: RankRendezvous) -> None:
        self._board = Board()
        self._board.on_loss(lambda who: seat.lose(f"{who}, on {platform.node()}"))
        self._ranks: dict[str, RankProcess] = {}

    def begin(self, environment: dict[str, str]) -> dict[str, str]:
        """Set variables for the ranks, as far as this host's user doesn't; return those that decide transfers."""
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        return deciding_variables()

    def start_rank(self, kind: str, rank: str) -> None:
        self._ranks[rank] = RankProcess(self._board, _MODULES[kind], rank)

    def pass_on(self, rank: str, call: str, arguments: dict[str, Any]) -> Any:
        """Call a method of a rank; errors are those of `Remote.result`."""
        return self._ranks[rank].call(call, **arguments)

    def end_rank(self, rank: str) -> None:
        self._ranks.pop(rank).close()

    def counters(self) -> dict[str, tuple[int, int]]:
        """Return bytes sent and received by each interface of this host."""
        return {name: (carried.sent, carried.received) for name, carried in nic_counters().items()}

    def clock(self) -> int:
        """Return this host's Unix time in ns."""
        return time.time_ns()

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        for rank in list(self._ranks):
            self.end_rank(rank)
        self._board.leave()


def greeting() -> dict[str, Any]:
    """Return what both halves of a run compare first: versions, facts that decide results, and interfaces."""
    facts = host_facts()
    return {
        "protocol": PROTOCOL,
        "kvdeck": version("kvdeck"),
        "python": platform.python_version(),
        "nixl": plugins.nixl_version(),
        "ucx": plugins.ucx_version(),
        "host": facts.comparable(),
        "memory_available_bytes": facts.memory_available_bytes,
        "cores": sorted(os.sched_getaffinity(0)),
        "gpu": _gpus(facts.gpu),
        "plugins": sorted(plugins.plugin_files()),
        "nics": [dataclasses.asdict(nic) for nic in nics()],
        "network": _network(),
        "environment": deciding_variables(),
        "pid": os.getpid(),
    }


def _gpus(found: GpuFacts) -> dict[str, Any]:
    """Return the GPUs whose memory a target could register, and why there is none; loads no CUDA."""
    reason = found.reason
    if reason is None and importlib.util.find_spec("cupy") is None:
        reason = "GPU memory can't be reached: cupy isn't installed"
    return {"gpus": [dataclasses.asdict(gpu) for gpu in found.gpus], "reason": reason}


def _network() -> str:
    """Return what tells this host's network from that of every other: its boot, and the network's namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/net').readlink()}"
    except OSError:
        return ""


def run_outpost(seat: RankRendezvous, name: str) -> int:
    """Greet rank 0 and serve it to the end; return the exit status: 1 if rank 0 or a rank is lost."""
    try:
        serve_outpost(seat, name)
    except KvdeckError:
        return 1
    return 0


def serve_outpost(seat: RankRendezvous, name: str) -> None:
    """Greet rank 0 and serve it to the end.

    Raises:
        KvdeckError: Rank 0 or another rank is lost.
    """
    outpost = Outpost(seat)
    seat.put(f"greeting/{name}", greeting())
    serve(seat, name, outpost)
    outpost.close()
    seat.leave()


def follow_stdin() -> None:
    """End this process, and its ranks with it, when its stdin ends or brings nothing for `SILENCE_SECONDS`.

    Rank 0's end may come while a call keeps the main thread; a cut link may bring no end at all.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN | _POLLRDHUP)
    heard = time.monotonic()
    while time.monotonic() - heard < SILENCE_SECONDS:
        events = dict(poll.poll(_LOOK_SECONDS * 1000)).get(0, 0)
        if events & (_POLLRDHUP | select.POLLHUP | select.POLLERR):
            break
        if events & select.POLLIN:
            heard = time.monotonic()
            time.sleep(_LOOK_SECONDS)
    leave(1)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seat", required=True)
    parser.add_argument("--rank", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir("/")  # the ranks' Python takes modules from the folder that it starts in
    seat = open_seat(options.seat, options.rank)
    if options.seat == "stdio:":
        start_thread("stdin", follow_stdin, lambda _: leave(1))
    return run_outpost(seat, options.rank)


if __name__ == "__main__":
    run_and_exit(main)
