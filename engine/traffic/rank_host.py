"""Process that plays one rank of a traffic test, or several: a NIXL agent, and a registered region for each rank.

Times are ns of `CLOCK_MONOTONIC`, which the processes of one host share.
"""

from __future__ import annotations

import argparse
import base64
import gc
import os
import signal
import sys
import time
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kvdeck.engine.host.clock import clock_identity
from kvdeck.engine.io import memory, nixl, pattern
from kvdeck.engine.io.exit import leave, run_and_exit
from kvdeck.engine.io.transports import connect
from kvdeck.engine.ranks.outpost import follow_stdin, greeting
from kvdeck.engine.ranks.rendezvous import RankRendezvous
from kvdeck.engine.ranks.rpc import serve
from kvdeck.engine.ranks.seat import open_seat, take_seat
from kvdeck.engine.threads import start_thread
from kvdeck.engine.traffic.placement import CellMessage, pieces
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import count_text, number_text

_BACKEND = "UCX"
_TURNS = 8
"""Turns of the loop between two looks at the rendezvous and a yield of the core."""
_PATIENCE_S = 60.0
SLOW_BYTES_PER_S = 20e6
"""Lowest expected rate."""
_SLOW_MESSAGE_S, _SLOW_ITERATION_S = 1e-3, 0.01
"""Longest expected time of a message without bytes, and of an iteration without messages."""
PIECE_BYTES = 64 << 20
"""Most bytes of a message that are compared at once, a multiple of 8."""
_LOSS_SEEN_S = 0.5
_SPIN_NS = 300_000
_NAP_NS = 1_000_000
_HEAD_BYTES = 16
_MASK = (1 << 64) - 1


def patience_s(size: int, messages: int, count: int) -> float:
    """Return the seconds that `count` iterations of a pattern may take.

    Args:
        size: Bytes of one iteration.
        messages: Messages of one iteration.
        count: Iterations.
    """
    return _PATIENCE_S + count * (size / SLOW_BYTES_PER_S + messages * _SLOW_MESSAGE_S + _SLOW_ITERATION_S)


def seed_of(number: int, message: CellMessage) -> int:
    """Return the seed of a message's bytes, different for each pattern, source and destination.

    Mixed (the finaliser of splitmix64), as the seed's low bits alone decide on the low bytes of the words.
    """
    mixed = number << 40 | message.source << 20 | message.destination
    for factor, shift in ((0xBF58476D1CE4E5B9, 30), (0x94D049BB133111EB, 27), (1, 31)):
        mixed = (mixed ^ mixed >> shift) * factor & _MASK
    return mixed


@dataclass(slots=True)
class _PreparedPattern:
    messages: list[CellMessage]
    """Those with a source or a destination here."""
    writes: bool
    handles: dict[int, list[Any]] = field(default_factory=dict)
    """Requests of each initiator here."""
    size: int = 0


@dataclass(slots=True)
class _Sending:
    """One rank's part in a visit, as initiator."""

    visit: int
    rank: int
    at: int
    handles: list[Any]
    note: bytes
    left: int
    heard: int
    """When the visit became known here."""
    start: int = 0
    posted: int = 0
    flying: list[Any] = field(default_factory=list)


class RankHost:
    """Served object; `open`, `connect` and `prepare` come first, then `run` for each series of visits."""

    busy = False

    def __init__(self, seat: RankRendezvous, name: str) -> None:
        self._seat, self._name = seat, name
        self._agent: Any = None
        self._memory: dict[int, memory.HostBuffer] = {}
        self._receive_offset: dict[int, int] = {}
        self._places: dict[int, tuple[str, int, int]] = {}
        self._patterns: dict[int, _PreparedPattern] = {}
        self._registered: list[Any] = []

    def greet(self) -> dict[str, Any]:
        """Return the versions and facts of this host."""
        return greeting()

    def open(self, ranks: list[tuple[int, int, int]], core: int | None) -> dict[str, Any]:
        """Allocate and register a region for each rank.

        Args:
            ranks: Rank, bytes of its region, and offset of the bytes received in it.
            core: Core to run on; None leaves it to the kernel.

        Returns:
            The agent's `name`, its `metadata` in base64, `records`: rank, base address, bytes and device; and which
            `clock` this process reads.
        """
        if core is not None:
            os.sched_setaffinity(0, {core})
        agent_name = f"{self._name}-{os.getpid()}"
        self._agent = nixl.make_agent(agent_name)
        nixl.create_backend(self._agent, _BACKEND)
        records = []
        for rank, size, offset in ranks:
            self._receive_offset[rank] = offset
            if size:
                self._memory[rank] = buffer = memory.allocate(size)
                self._registered.append(nixl.register(self._agent, _BACKEND, "DRAM", [(buffer.address, size, 0)]))
                records.append((rank, buffer.address, size, 0))
        metadata = base64.b64encode(self._agent.get_agent_metadata()).decode()
        return {"name": agent_name, "metadata": metadata, "records": records, "clock": clock_identity()}

    def connect(self, opened: list[dict[str, Any]]) -> None:
        """Add the other processes' agents; `opened` is what `open` returned in each process."""
        for other in opened:
            for rank, address, _, device in other["records"]:
                self._places[rank] = other["name"], address, device
            if not other["records"] or other["records"][0][0] in self._memory:
                continue
            connect(self._agent, _BACKEND, other["metadata"])

    def prepare(self, number: int, operation: str, shards: int, messages: list[list[int]]) -> int:
        """Create the requests of a pattern; return the number of descriptors of one side."""
        writes = operation == "WRITE"
        made = self._patterns[number] = _PreparedPattern([CellMessage(*one) for one in messages], writes)
        descriptors = 0
        for message in made.messages:
            made.size += message.size
            initiator = message.source if writes else message.destination
            if initiator not in self._memory:
                continue
            parts = pieces(message.size, shards)
            ends = (message.source, message.source_offset), (message.destination, message.destination_offset)
            near, far = ends if writes else (ends[1], ends[0])
            rows = [
                np.array([(self._places[rank][1] + offset + at, size, self._places[rank][2]) for at, size in parts],
                         np.uint64)
                for rank, offset in (near, far)
            ]  # fmt: skip
            handle = self._agent.initialize_xfer(
                operation,
                self._agent.get_xfer_descs(rows[0], "DRAM"),
                self._agent.get_xfer_descs(rows[1], "DRAM"),
                self._places[far[0]][0],
                b"",
                [_BACKEND],
            )
            made.handles.setdefault(initiator, []).append(handle)
            descriptors += len(parts)
        return descriptors

    def fill(self, number: int) -> None:
        """Write a pattern's bytes into what the ranks here send."""
        for message in self._patterns[number].messages:
            if message.source in self._memory:
                begin = message.source_offset
                pattern.fill(self._memory[message.source].array[begin : begin + message.size], seed_of(number, message))

    def poison(self) -> None:
        """Overwrite what the ranks here have received with a constant."""
        for rank, buffer in self._memory.items():
            buffer.array[self._receive_offset[rank] :] = pattern.POISON

    def check(self, number: int) -> list[str]:
        """Compare what the ranks here have received in a pattern; return a message for each wrong cell."""
        found = []
        for message in self._patterns[number].messages:
            if message.destination not in self._memory:
                continue
            got, seed = self._received(message), seed_of(number, message)
            wrong, first = 0, ""
            for begin in range(0, message.size, PIECE_BYTES):  # a whole message's bytes once more might not fit
                piece = got[begin : begin + PIECE_BYTES]
                right = pattern.expected(begin, piece.size, seed)
                differ = piece != right
                if not differ.any():
                    continue
                wrong += int(np.count_nonzero(differ))
                at = int(differ.argmax())
                first = first or f"{begin + at}: {piece[at]:#04x} in place of {right[at]:#04x}"
            if wrong:
                found.append(
                    f"pattern {number}: {wrong} of the {count_text(message.size)} bytes from rank "
                    f"{message.source} to rank {message.destination} differ, the first at byte {first}"
                )
        return found

    def heads(self, number: int) -> list[tuple[int, int, int, str, str]]:
        """Return destination, source, bytes, the first bytes in hex and the CRC-32 of each message received here."""
        return [
            (message.destination, message.source, message.size, self._received(message)[:_HEAD_BYTES].tobytes().hex(),
             f"{zlib.crc32(self._received(message).data):08x}")
            for message in self._patterns[number].messages
            if message.destination in self._memory
        ]  # fmt: skip

    def _received(self, message: CellMessage) -> pattern.Bytes:
        begin = message.destination_offset
        return self._memory[message.destination].array[begin : begin + message.size]

    def run(self, series: str) -> None:
        """Carry out visits, as the keys `SERIES/NAME/0`, `…/1` give them, until one is null.

        `["visit", …]` has the pattern's number, the visit's, its start and its count; `["over", visit]` says that
        no rank reads from here for a visit any more; `["clock"]` asks for the time.
        Reports are the keys `report/SERIES/NAME/0`, …: `["sent", visit, rank, heard, start, posted, done]` once an
        initiator's requests are done, `["arrived", visit, source, time]` once all notifications of a source have
        arrived here, `["clock", time]`, and null as the last.

        Raises:
            RunFailedError: A rank is lost.
            KvdeckError: A request failed, or didn't complete in time.
        """
        loop = _Loop(self._seat, self._name, series, self._agent.agent, self._patterns, frozenset(self._memory))
        gc.disable()
        try:
            loop.run()
        except Exception as error:
            loop.raise_loss()
            self._seat.lose(f"{self._name} failed ({error})")
            raise
        finally:
            gc.enable()

    def poll(self) -> None:
        """Nothing to do between calls."""

    def close(self) -> None:
        """Release requests and regions, before the agent ends."""
        for made in self._patterns.values():
            for handles in made.handles.values():
                for handle in handles:
                    self._agent.release_xfer_handle(handle)
        self._patterns.clear()
        for registered in self._registered:
            self._agent.deregister_memory(registered)
        self._registered.clear()
        self._agent = None


class _Loop:
    """Posts and polls the visits of one series; a rank that receives polls all the time, so that senders get on."""

    def __init__(
        self,
        seat: RankRendezvous,
        name: str,
        series: str,
        bound: Any,
        patterns: dict[int, _PreparedPattern],
        ranks: frozenset[int],
    ) -> None:
        self._seat, self._name, self._series = seat, name, series
        self._post, self._status, self._notes = bound.postXferReq, bound.getXferStatus, bound.getNotifs
        self._patterns, self._ranks = patterns, ranks
        self._events = self._reports = 0
        self._scheduled: list[_Sending] = []
        self._active: list[_Sending] = []
        self._awaited: dict[tuple[int, int], int] = {}
        self._arrived: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._last: dict[tuple[int, int], int] = {}
        self._begins: dict[int, int] = {}
        """Start of each visit in which others write to the ranks here, or read from them."""
        self._deadlines: dict[int, int] = {}
        """Latest end of each visit that has parts here."""

    def run(self) -> None:
        clock = time.perf_counter_ns
        self._ask()
        turn, napped = 0, False
        while True:
            turn += 1
            if napped or turn % _TURNS == 0:
                if self._seat.answered():
                    event = self._seat.answer()
                    if event is None:
                        self._put_report(None)
                        return
                    self._ask()
                    if event[0] == "clock":
                        self._report("clock", clock())
                    elif event[0] == "over":
                        self._begins.pop(event[1], None)
                        self._deadlines.pop(event[1], None)
                    else:
                        self._schedule(clock(), *event[1:])
                self._check_deadlines(clock())
                os.sched_yield()
            napped = bool(self._scheduled) and not self._active and self._spin(self._scheduled[0].at)
            while self._scheduled and clock() >= self._scheduled[0].at:
                self._start(self._scheduled.pop(0))
            for sending in tuple(self._active):
                self._look(sending)
            for notes in self._notes({}, []).values():
                now = clock()
                for note in notes:
                    self._take(note, now)

    def _spin(self, at: int) -> bool:
        """Do nothing else right before a start, so that processes start together; return True if it slept.

        Long before it, sleep if nothing is in progress, here or in what others write here or read from here: a process
        that has slept gets its core back at once, one that has spun for a time slice loses it.
        """
        clock = time.perf_counter_ns
        left = at - clock()
        if left < _SPIN_NS:
            while clock() < at:
                pass
        elif all(begin >= at for begin in self._begins.values()):
            time.sleep(min(left - _SPIN_NS, _NAP_NS) / 1e9)
            return True
        return False

    def raise_loss(self) -> None:
        """Raise RunFailedError if a rank is reported as lost within 0.5 s: its peers fail before the report comes."""
        deadline = time.monotonic() + _LOSS_SEEN_S
        while time.monotonic() < deadline:
            if self._seat.answered():
                self._seat.answer()
            time.sleep(0.01)

    def _ask(self) -> None:
        self._seat.ask(f"{self._series}/{self._name}/{self._events}")
        self._events += 1

    def _report(self, *values: Any) -> None:
        self._put_report(values)

    def _put_report(self, value: Any) -> None:
        self._seat.put(f"report/{self._series}/{self._name}/{self._reports}", value)
        self._reports += 1

    def _schedule(self, heard: int, number: int, visit: int, at: int, count: int) -> None:
        made = self._patterns[number]
        self._deadlines[visit] = at + int(patience_s(made.size, len(made.messages), count) * 1e9)
        for rank, handles in made.handles.items():
            note = f"{visit} {rank}".encode() if made.writes else b""
            self._scheduled.append(_Sending(visit, rank, at, [one._handle for one in handles], note, count, heard))
        self._scheduled.sort(key=lambda sending: sending.at)
        if made.writes:
            expected: defaultdict[int, int] = defaultdict(int)
            for message in made.messages:
                if message.destination in self._ranks:
                    expected[message.source] += count
            for source, messages in expected.items():
                self._awaited[visit, source] = messages
                self._begins[visit] = at
                self._check_arrived((visit, source))
        elif any(one.source in self._ranks and one.destination not in self._ranks for one in made.messages):
            self._begins[visit] = at

    def _start(self, sending: _Sending) -> None:
        sending.start = time.perf_counter_ns()
        self._launch(sending)
        sending.posted = time.perf_counter_ns()
        self._active.append(sending)

    def _launch(self, sending: _Sending) -> None:
        post, note = self._post, sending.note
        sending.flying = [handle for handle in sending.handles if post(handle, note).value]

    def _look(self, sending: _Sending) -> None:
        status = self._status
        sending.flying = [handle for handle in sending.flying if status(handle).value]
        if sending.flying:
            return
        sending.left -= 1
        if sending.left:
            self._launch(sending)
            return
        done = time.perf_counter_ns()
        self._active.remove(sending)
        self._report("sent", sending.visit, sending.rank, sending.heard, sending.start, sending.posted, done)
        self._settle(sending.visit)

    def _take(self, note: bytes, now: int) -> None:
        visit, source = map(int, note.split())
        self._arrived[visit, source] += 1
        self._last[visit, source] = now
        self._check_arrived((visit, source))

    def _check_arrived(self, key: tuple[int, int]) -> None:
        if self._awaited.get(key) == self._arrived[key]:
            self._report("arrived", *key, self._last.pop(key))
            del self._awaited[key], self._arrived[key]
            if all(visit != key[0] for visit, _ in self._awaited):
                self._begins.pop(key[0], None)
            self._settle(key[0])

    def _settle(self, visit: int) -> None:
        """Forget a visit's deadline once it has no open part here."""
        parts = (*self._active, *self._scheduled)
        if all(one.visit != visit for one in parts) and all(key[0] != visit for key in self._awaited):
            self._deadlines.pop(visit, None)

    def _check_deadlines(self, now: int) -> None:
        for visit, deadline in self._deadlines.items():
            if now > deadline:
                open_here = any(one.visit == visit for one in (*self._active, *self._scheduled))
                awaited = sorted(source for number, source in self._awaited if number == visit)
                if open_here or awaited:
                    senders = ", ".join(map(str, awaited[:5]))
                    missing = f"notifications of rank {senders} are missing" if senders else "requests are in progress"
                    raise KvdeckError(
                        f"a pattern is not done after {number_text(_PATIENCE_S)} s and more: {missing}",
                        "check that the ranks aren't stopped",
                    )


def serve_ranks(seat: RankRendezvous, name: str) -> None:
    """Play ranks until rank 0 requests the end.

    Raises:
        KvdeckError: Rank 0 or another rank is lost.
    """
    host = RankHost(seat, name)
    serve(seat, name, host)
    host.close()
    seat.leave()


def main() -> int:
    if "stdio:" not in sys.argv:
        serve_ranks(*take_seat())
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("--seat", required=True)
    parser.add_argument("--rank", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    seat = open_seat(options.seat, options.rank)
    start_thread("stdin", follow_stdin, lambda _: leave(1))
    try:
        serve_ranks(seat, options.rank)
    except KvdeckError:
        return 1
    return 0


if __name__ == "__main__":
    run_and_exit(main)
