"""Ranks on two hosts made of namespaces, over ssh; verified to the byte, on clocks that are compared."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from kvdeck.engine.host import host_facts
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import parse_matrix
from kvdeck.engine.traffic.rank_seats import seat_ranks
from kvdeck.engine.traffic.rank_set import Seated
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.run_state import RunState, apply
from kvdeck.sessions.store.event_log import read_events
from tests.engine.conftest import DEADLINE, eventually
from tests.support import hosts

SEED = parse_matrix("0 0 1M 1M\n0 0 1M 1M\n0 0 0 5K\n0 0 0 5K", "seed")
BOTH = (TrafficPattern(SEED), TrafficPattern(SEED, "READ", shards=3))


@pytest.fixture(scope="module")
def pair() -> Iterator[hosts.Pair]:
    if reason := hosts.reason_to_skip():
        pytest.skip(reason)
    with hosts.two_hosts() as made:
        yield made


class Work:
    """A worker on `hostA`, and what it has logged."""

    def __init__(self, pair: hosts.Pair, folder: Path, spec: TrafficSpec) -> None:
        self.folder = folder
        (folder / "run.yaml").write_text(spec.to_yaml())
        argv = (sys.executable, "-m", "kvdeck.engine.traffic.worker", "--session-dir", str(folder))
        with (folder / "engine.log").open("wb") as log:
            self.process = pair.a.popen(*argv, env=pair.environment, stdin=subprocess.PIPE, stderr=log.fileno())

    def state(self) -> RunState:
        log = self.folder / "samples.jsonl"
        return functools.reduce(apply, read_events(log) if log.exists() else (), RunState("session"))

    def moving(self) -> bool:
        traffic = self.state().traffic
        return traffic is not None and bool(traffic.spans)

    def end(self) -> RunState:
        assert self.process.wait(3 * DEADLINE) == 0, (self.folder / "engine.log").read_text()
        return self.state()


def test_ranks_on_two_hosts_are_verified_to_the_byte(pair: hosts.Pair, tmp_path: Path) -> None:
    spec = TrafficSpec(
        BOTH, processes=1, iterations=2, warmup=1, isolation=2, verify=True, peer=("hostb",), peer_timeout=20.0
    )
    run = Work(pair, tmp_path, spec)
    state = run.end()
    assert state.state == "done", (state.reason, (tmp_path / "engine.log").read_text())
    assert state.traffic is not None
    result = state.traffic.result
    assert (result.hosts, result.processes, result.verified) == (("hostb",), 2, True)
    assert [(one.rank, one.host) for one in result.rank_results] == [(0, ""), (1, ""), (2, "hostb"), (3, "hostb")]
    assert all(one.together_ms is not None and one.together_ms.median > 0 for one in result.patterns)
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def test_a_rank_killed_on_the_other_host_ends_all_by_name(pair: hosts.Pair, tmp_path: Path) -> None:
    spec = TrafficSpec(BOTH[:1], processes=1, iterations=1_000_000, warmup=0, isolation=1, peer=("hostb",))
    run = Work(pair, tmp_path, spec)
    eventually(run.moving)
    (rank,) = (pid for pid in pair.b.processes() if b"kvdeck.engine.traffic.rank_host" in words_of(pid))
    os.kill(rank, signal.SIGKILL)
    state = run.end()
    assert state.state == "failed"
    assert "hostb" in (state.reason or "")
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def test_a_test_that_is_ended_leaves_nothing_on_the_other_host(pair: hosts.Pair, tmp_path: Path) -> None:
    spec = TrafficSpec(BOTH, processes=2, iterations=1_000_000, warmup=0, isolation=1, peer=("hostb",))
    run = Work(pair, tmp_path, spec)
    eventually(run.moving)
    assert run.process.stdin is not None
    run.process.stdin.close()  # as if the supervisor were gone
    assert run.end().state == "interrupted"
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


@pytest.fixture
def seats(pair: hosts.Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Seated]]]:
    """Seats the ranks of a matrix, whose second half is on `hostB`."""
    pair.put_ssh_in_path(monkeypatch)
    board = Board()

    with ExitStack() as opened:
        seated: list[Seated] = []

        def seat(matrix: str, command: str = "kvdeck") -> list[Seated]:
            spec = TrafficSpec((TrafficPattern(parse_matrix(matrix, "m")),), peer=("hostb",), peer_command=command)
            seated.extend(seat_ranks(spec, board, opened, None))
            return seated

        yield seat
        for one in seated:
            one.member.close()
    board.leave()
    eventually(lambda: not pair.b.processes())


def test_a_peer_has_as_many_processes_as_its_own_cores(seats: Callable[..., list[Seated]]) -> None:
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        pytest.skip("this host has one core")
    *here, there = seats("0 1 0 0\n0 0 0 0\n0 0 0 1\n0 0 0 0", f"taskset -c {own[-1]} kvdeck")
    assert [(one.ranks, one.host) for one in here] == [(range(1), ""), (range(1, 2), "")]
    assert (there.ranks, there.host) == (range(2, 4), "hostb")


def test_a_peer_s_processes_are_pinned_to_cores_that_are_free(seats: Callable[..., list[Seated]]) -> None:
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        pytest.skip("this host has one core")
    here, there = seats("0 1\n1 0")
    assert (here.core, there.core) == (own[0], own[1])


def test_a_peer_needs_memory_for_its_own_ranks(seats: Callable[..., list[Seated]]) -> None:
    with pytest.raises(UsageError, match=r"1 rank need .* on hostb, which has"):
        seats(f"0 0\n0 {2 * host_facts().memory_available_bytes}")


def test_ranks_on_two_hosts_may_need_more_than_one_has(seats: Callable[..., list[Seated]]) -> None:
    cell = host_facts().memory_available_bytes * 3 // 10  # sent and received: each rank needs six tenths
    assert [one.host for one in seats(f"{cell} 0\n0 {cell}")] == ["", "hostb"]


def words_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
