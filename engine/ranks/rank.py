"""Process of a further initiator, driven by rank 0."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

from kvdeck.engine.io.exit import run_and_exit
from kvdeck.engine.ranks.initiator import Lane
from kvdeck.engine.ranks.initiator_setup import LaneSetup
from kvdeck.engine.ranks.rendezvous import naming_losses
from kvdeck.engine.ranks.rpc import serve
from kvdeck.engine.ranks.seat import take_seat
from kvdeck.sessions.model.encoding import convert


class Rank:
    """Served object that opens an initiator on `open` and forwards every other call to it."""

    busy = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._lane: Lane | None = None

    def open(self, setup: dict[str, Any]) -> None:
        self._lane = Lane(convert(LaneSetup, setup), self._name, lambda: False)

    def __getattr__(self, method: str) -> Any:
        if method.startswith("_") or self._lane is None:
            raise AttributeError(method)
        return functools.partial(self._call, getattr(self._lane, method))

    def _call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        with naming_losses(lambda: [None if self._lane is None else self._lane.board]):
            return method(**arguments)

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        if self._lane is not None:
            self._lane.close()
            self._lane = None


def main() -> None:
    seat, rank = take_seat()
    served = Rank(f"{rank}-{os.getpid()}")
    serve(seat, rank, served)
    served.close()
    seat.leave()


if __name__ == "__main__":
    run_and_exit(main)
