"""Rendezvous of a run's ranks: a key-value store with write-once keys that a reader can wait for.

Rank 0 holds the store (`board.Board`) or reaches one like it; every other rank is a client of it (`seat.Seat`), over
a Unix socket, a stream such as ssh's, or what `seat.SCHEMES` names.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from kvdeck.engine.io.loop import CancelledError
from kvdeck.sessions.errors import RunFailedError

_LOSS_SEEN_S = 0.5
"""Wait after an error for the report of a lost rank that may have caused it."""


class Lossy(Protocol):
    """What may lose a rank."""

    @property
    def lost(self) -> str | None:
        """The first rank known to be lost and how it ended, as a message; None while none is."""


class Rendezvous(Lossy, Protocol):
    """Key-value interface between a run's ranks."""

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value under a key; from any thread."""

    def get(self, key: str, timeout: float) -> Any:
        """Wait for a key's value and return it.

        Raises:
            RunFailedError: A rank is gone.
            KvdeckError: The value didn't arrive within `timeout` seconds, or rank 0 is gone.
        """

    def lose(self, who: str) -> None:
        """Tell every rank that one is lost (`who` describes it and its end): its keys won't arrive; from any thread."""

    def leave(self) -> None:
        """Part from the other ranks, which isn't a loss to them."""


class RootRendezvous(Rendezvous, Protocol):
    """Rendezvous as rank 0 uses it."""

    def take(self, key: str, timeout: float) -> Any:
        """Wait for a key's value, return it, and forget the key, which no other rank reads; raises as `get`."""

    def on_loss(self, told: Callable[[str], None]) -> None:
        """Have every later loss reported to `told`, which gets the same words as `lose`; from any thread."""


class RankRendezvous(Rendezvous, Protocol):
    """Rendezvous as a rank uses it that serves calls: it can work between asking for a key and reading the answer."""

    def ask(self, key: str) -> None:
        """Request a key without waiting; read the value with `answer` before asking for another."""

    def answered(self) -> bool:
        """True if `answer` won't block."""

    def answer(self, timeout: float | None = None) -> Any:
        """Wait for the value requested by `ask`, without a limit by default; errors are those of `get`."""


def gather(board: Rendezvous, name: str, rank: int, ranks: Sequence[int], value: Any, timeout: float) -> list[Any]:
    """Publish this rank's value and return every rank's, in the order of `ranks`: a barrier with data.

    The first of `ranks` collects, so that the number of messages grows with the ranks and not with their square. It is
    rank 0, or all of them use a board that shows each rank's keys to every other. Use each `name` once. Waits up to
    `timeout` seconds for each rank; errors are those of `Rendezvous.get`.
    """
    if rank != ranks[0]:
        board.put(f"{name}/{rank}", value)
        return list(board.get(f"{name}/all", timeout * len(ranks)))
    values = [value, *(board.get(f"{name}/{other}", timeout) for other in ranks[1:])]
    board.put(f"{name}/all", values)
    return values


def barrier(board: Rendezvous, name: str, rank: int, ranks: Sequence[int], timeout: float) -> None:
    """Wait until each of `ranks` has called it with this `name`, which is used once; limits and errors as `gather`."""
    gather(board, name, rank, ranks, True, timeout)


def check_lost(rendezvous: Lossy | None) -> bool:
    """Return False unless a rank is lost that a transfer may wait for.

    Raises:
        RunFailedError: A rank is lost; names it and how it ended.
    """
    if rendezvous is not None and rendezvous.lost is not None:
        raise RunFailedError(f"{rendezvous.lost} during the transfers", "see the session's engine.log")
    return False


@contextlib.contextmanager
def naming_losses(boards: Callable[[], Iterable[Lossy | None]]) -> Iterator[None]:
    """Replace an error in the body by the loss of a rank, if one is reported within 0.5 s.

    A backend notices a dead connection before the rank's parent reports which rank ended.

    Raises:
        RunFailedError: A rank is lost; names it and how it ended.
    """
    try:
        yield
    except (CancelledError, RunFailedError):
        raise
    except Exception:
        present = [board for board in boards() if board is not None]
        deadline = time.monotonic() + _LOSS_SEEN_S
        while present and time.monotonic() < deadline:
            for board in present:
                check_lost(board)
            time.sleep(0.01)
        raise
