"""Rendezvous over etcd: rank 0's store and the other ranks' clients, each rank's keys under a lease that dies with it.

A run's keys begin with `/kvdeck/NAMESPACE/GROUP/TOKEN/`; no other key is written or deleted, except that the first rank
of a run without a token from its launcher holds `/kvdeck/NAMESPACE/GROUP/gathering` until all ranks are there:

- `down/alive`, `up/RANK/alive`: a rank's host, process and facts; the key is gone when the rank is.
- `down/k/KEY`: a value of rank 0 for every other; `up/RANK/k/KEY`: a value of another rank for rank 0.
- `down/lost`, `up/RANK/lost`: a rank that is reported as lost; `down/left`, `up/RANK/left`: it left in order.

Rank 0 watches `up/`, and the others `down/`: a message costs one event, whatever the number of ranks.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import threading
from collections.abc import Callable
from typing import Any

import orjson

from kvdeck.engine.ranks.board import Board, JoinedBoard, late, plain_key
from kvdeck.engine.ranks.etcd_gateway import EtcdAccess, EtcdEntry, EtcdGateway, EtcdGoneError
from kvdeck.engine.ranks.names import described
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from kvdeck.sessions.host.documents import load_record

LEASE_SECONDS = 4
"""Lease of a rank's keys: a dead rank is noticed when it ends, at most half a second later."""
RENEWAL_SECONDS = 1.0
PATIENCE_SECONDS = 9.0
"""Time without an answer from etcd after which a rank gives up, so that the run ends within 10 s."""
_LEAVING_SECONDS = 1.0
_NUMBERED = re.compile(r"(.*/)([0-9]+)")


class EtcdRank:
    """A rank's lease, its keys and its watch; the threads of both end with `end`."""

    def __init__(self, access: EtcdAccess) -> None:
        self.access = access
        self.lost: str | None = None
        """Why this rank must end: etcd is gone, or its lease has ended."""
        self.gateway = EtcdGateway(access, PATIENCE_SECONDS)
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._watching: Any = None
        self._told: Callable[[str], object] = lambda _: None
        self.lease = self.gateway.grant(LEASE_SECONDS)
        start_thread("etcd-lease", self._renew, lambda error: self._fail(str(error)))

    def put(self, key: str, value: Any) -> None:
        """Store a JSON value; a numbered key replaces its predecessor, so that the number of keys stays small."""
        numbered = _NUMBERED.fullmatch(key)
        without = f"{numbered[1]}{int(numbered[2]) - 1}" if numbered and int(numbered[2]) else ""
        with self._sending:
            self.gateway.put(key, orjson.dumps(value), self.lease, without=without)

    def on_loss(self, told: Callable[[str], object]) -> None:
        """Have `told` called, once, when this rank must end."""
        self._told = told
        if self.lost is not None:
            told(self.lost)

    def follow(self, prefix: str, take: Callable[[EtcdEntry], object]) -> None:
        """Pass every entry below `prefix`, present and to come, to `take`, in a thread of its own.

        The present ones are passed before this returns. A watch that ends is opened again where it ended.
        """
        with self._sending:
            entries, revision = self.gateway.read(prefix, below=True)
        for entry in sorted(entries, key=lambda entry: entry.revision):
            take(entry)
        watch = functools.partial(self._watch, prefix, revision + 1, take)
        start_thread("etcd-watch", watch, lambda error: self._fail(str(error)))

    def end(self, left: str = "") -> None:
        """Stop the threads, store the key `left` for the others, and delete this rank's keys by ending its lease."""
        self._ended.set()
        if self._watching is not None:
            self._watching.close()
        with contextlib.suppress(KvdeckError), self._sending:
            self.gateway.patience = _LEAVING_SECONDS
            if self.lost is None:
                if left:
                    self.gateway.put(left, b"true", self.lease)
                self.gateway.revoke(self.lease)
        self.gateway.close()

    def _renew(self) -> None:
        """Renew the lease until `end`."""
        gateway = EtcdGateway(self.access, PATIENCE_SECONDS)
        try:
            while not self._ended.wait(RENEWAL_SECONDS):
                if not gateway.keep_alive(self.lease) and not self._ended.is_set():
                    self._fail("this rank's lease in etcd has ended: it was suspended, or etcd lost its data")
                    return
        except KvdeckError as error:
            self._fail(error.what)
        finally:
            gateway.close()

    def _watch(self, prefix: str, revision: int, take: Callable[[EtcdEntry], object]) -> None:
        gateway = EtcdGateway(self.access, PATIENCE_SECONDS)
        while not self._ended.is_set():
            try:
                watch = gateway.watch(prefix, revision)
            except EtcdGoneError as error:
                self._fail(error.what)
                return
            self._watching = watch
            if self._ended.is_set():
                watch.close()
            try:
                for entries, seen in watch.changes():
                    for entry in entries:
                        take(entry)
                    revision = max(revision, seen + 1)
            except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
                pass  # as if it had ended: opened again, unless etcd is gone
            finally:
                watch.free()
            if watch.compacted:
                self._fail("etcd was compacted while it could not be reached, and keys of this run are missing")
                return

    def _fail(self, reason: str) -> None:
        if self.lost is None and not self._ended.is_set():
            self.lost = reason
            self._told(reason)


class EtcdBoard(JoinedBoard):
    """Rank 0's store, in etcd as well: what it stores is there for all ranks, and what these store arrives here."""

    def __init__(self, rank: EtcdRank, prefix: str) -> None:
        super().__init__()
        self._rank, self._prefix, self._parted = rank, prefix, set[int]()
        rank.on_loss(self._cut_off)
        rank.follow(f"{prefix}up/", self._arrived)

    def put(self, key: str, value: Any) -> None:
        super().put(key, value)
        self._rank.put(f"{self._prefix}down/k/{key}", value)

    def lose(self, who: str) -> None:
        super().lose(who)
        if self._rank.lost is None:
            with contextlib.suppress(KvdeckError):
                self._rank.put(f"{self._prefix}down/lost", who)

    def leave(self) -> None:
        super().leave()
        self._rank.end(f"{self._prefix}down/left")

    def wait_left(self, rank: int, timeout: float) -> bool:
        """Wait until a rank has left in order; False after `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: rank in self._parted or self.lost is not None, timeout)

    def _cut_off(self, reason: str) -> None:
        Board.lose(self, reason)

    def _arrived(self, entry: EtcdEntry) -> None:
        number, _, key = entry.key.removeprefix(f"{self._prefix}up/").partition("/")
        if not number.isdigit():
            return
        rank = int(number)
        if entry.value is None:
            if key == "alive" and rank not in self._parted:
                self.lose(f"{described(rank, self.present.get(rank, {}))} is gone (its lease in etcd has ended)")
            return
        value = load_record(entry.value)
        if key.startswith("k/"):
            Board.put(self, key[2:], value)
        elif key == "alive":
            with self._changed:
                self.present[rank] = value
                self._changed.notify_all()
        elif key == "left":
            with self._changed:
                self._parted.add(rank)
                self._changed.notify_all()
        elif key == "lost":
            self.lose(str(value))


class EtcdSeat:
    """Client of another rank than 0. One thread asks; any may put and lose."""

    def __init__(self, rank: EtcdRank, prefix: str, number: int) -> None:
        self._rank, self._prefix = rank, prefix
        self._own = f"{prefix}up/{number}/"
        self._values: dict[str, Any] = {}
        self._changed = threading.Condition()
        self._key = ""
        self._lost: str | None = None
        self._first: dict[str, Any] = {}
        self._parted = False
        rank.on_loss(self._lose)
        rank.follow(f"{prefix}down/", self._arrived)

    @property
    def lost(self) -> str | None:
        return self._lost

    def put(self, key: str, value: Any) -> None:
        self._rank.put(f"{self._own}k/{key}", value)

    def get(self, key: str, timeout: float) -> Any:
        self.ask(key)
        return self.answer(timeout)

    def lose(self, who: str) -> None:
        self._rank.put(f"{self._own}lost", who)

    def ask(self, key: str) -> None:
        self._key = key

    def answered(self) -> bool:
        return self._key in self._values or self._lost is not None

    def answer(self, timeout: float | None = None) -> Any:
        with self._changed:
            if not self._changed.wait_for(self.answered, timeout):
                raise late(self._key, timeout or 0.0)
            if self._key in self._values:
                return self._values[self._key]
        raise RunFailedError(f"{self._lost} during the wait for {plain_key(self._key)}")

    def leave(self) -> None:
        self._rank.end(f"{self._own}left")

    def _arrived(self, entry: EtcdEntry) -> None:
        key = entry.key.removeprefix(f"{self._prefix}down/")
        if entry.value is None:
            if key == "alive" and not self._parted:
                self._lose(f"{described(0, self._first)} is gone (its lease in etcd has ended)")
            elif key == "alive":
                self._lose(f"{described(0, self._first)} has left")
            return
        value = load_record(entry.value)
        if key.startswith("k/"):
            with self._changed:
                self._values[key[2:]] = value
                self._changed.notify_all()
        elif key == "alive":
            self._first = value
        elif key == "left":
            self._parted = True
        elif key == "lost":
            self._lose(str(value))

    def _lose(self, reason: str) -> None:
        with self._changed:
            self._lost = self._lost or reason
            self._changed.notify_all()
