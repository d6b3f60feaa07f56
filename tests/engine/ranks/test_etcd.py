"""Ranks that meet over a real etcd: places, losses, restarts, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.ranks import etcd
from kvdeck.engine.ranks.etcd import EtcdBoard, EtcdSeat
from kvdeck.engine.ranks.etcd_gateway import EtcdGateway, etcd_access
from kvdeck.engine.ranks.etcd_place import EtcdMeeting, EtcdPlace, meet
from kvdeck.engine.ranks.rendezvous import barrier, gather
from kvdeck.engine.ranks.rpc import Remote, serve
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UsageError
from tests.engine.conftest import DEADLINE, eventually
from tests.support.programs.etcd import EtcdServer, etcd_server, needs_etcd

pytestmark = needs_etcd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdServer]:
    with etcd_server(tmp_path_factory.mktemp("etcd")) as running:
        yield running


@pytest.fixture
def ended() -> Iterator[list[EtcdPlace]]:
    """Places that the test leaves to its end."""
    places: list[EtcdPlace] = []
    yield places
    for place in places:
        place.rendezvous.leave()


def who(name: str = "host") -> dict[str, Any]:
    return {"host": name, "pid": os.getpid(), "at": 0.0}


def meet_all(server: EtcdServer, meetings: list[EtcdMeeting], said: list[str] | None = None) -> list[EtcdPlace]:
    """Meet in as many threads, and return the places in the order of the meetings."""
    places: dict[int, EtcdPlace] = {}
    note: Callable[[str], object] = (lambda _: None) if said is None else said.append

    def one(index: int) -> None:
        places[index] = meet(server.access(), meetings[index], who(f"host{index}"), note, DEADLINE)

    together([lambda index=index: one(index) for index in range(len(meetings))])
    return [places[index] for index in range(len(meetings))]


def together(works: list[Callable[[], object]]) -> None:
    errors: list[BaseException] = []

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def keys(server: EtcdServer, prefix: str = "/kvdeck/") -> list[str]:
    entries, _ = EtcdGateway(server.access()).read(prefix, below=True)
    return [entry.key for entry in entries]


def test_ranks_by_arrival_agree_on_a_run_and_leave_nothing(server: EtcdServer):
    places = meet_all(server, [EtcdMeeting("n", "arrival", 3)] * 3)
    assert sorted(place.rank for place in places) == [0, 1, 2]
    assert len({place.token for place in places}) == 1
    found: dict[int, list[Any]] = {}

    def share(place: EtcdPlace) -> None:
        found[place.rank] = gather(place.rendezvous, "names", place.rank, range(3), place.rank * 10, DEADLINE)
        barrier(place.rendezvous, "end", place.rank, range(3), DEADLINE)

    together([lambda place=place: share(place) for place in places])
    assert found == {rank: [0, 10, 20] for rank in range(3)}
    for place in sorted(places, key=lambda place: -place.rank):
        place.rendezvous.leave()
    assert keys(server, "/kvdeck/n/arrival/") == []


def test_two_runs_of_one_group_stay_apart(server: EtcdServer, ended: list[EtcdPlace]):
    first = meet_all(server, [EtcdMeeting("n", "twice", 2)] * 2)
    second = meet_all(server, [EtcdMeeting("n", "twice", 2)] * 2)
    ended += first + second
    assert first[0].token != second[0].token
    for run, value in ((first, 1), (second, 2)):
        board = next(place.rendezvous for place in run if place.rank == 0)
        board.put("value", value)
    for run, value in ((first, 1), (second, 2)):
        seat = next(place.rendezvous for place in run if place.rank == 1)
        assert seat.get("value", DEADLINE) == value


def test_roles_decide_the_rank_and_not_the_arrival(server: EtcdServer, ended: list[EtcdPlace]):
    target = threading.Thread(
        target=lambda: ended.append(
            meet(server.access(), EtcdMeeting("n", "roles", 2, None, (1,)), who(), lambda _: None, DEADLINE)
        )
    )
    target.start()
    eventually(lambda: any(key.endswith("/up/1/alive") for key in keys(server, "/kvdeck/n/roles/")))
    ended.append(meet(server.access(), EtcdMeeting("n", "roles", 2, None, (0,)), who(), lambda _: None, DEADLINE))
    target.join(DEADLINE)
    assert sorted(place.rank for place in ended) == [0, 1]


def test_groups_that_disagree_on_their_size_are_refused(server: EtcdServer):
    seen = threading.Event()

    def first() -> None:
        seen.set()
        with pytest.raises(KvdeckError, match="rank 1 of 2 did not come"):
            meet(server.access(), EtcdMeeting("n", "sizes", 2), who("early"), lambda _: None, 1.0)

    waiting = threading.Thread(target=first)
    waiting.start()
    seen.wait(DEADLINE)
    eventually(lambda: "/kvdeck/n/sizes/gathering" in keys(server))
    with pytest.raises(UsageError, match=r"gathers 2 ranks for .*early.* asks for 4"):
        meet(server.access(), EtcdMeeting("n", "sizes", 4), who("late"), lambda _: None, DEADLINE)
    waiting.join(DEADLINE)


def test_a_place_that_a_living_process_holds_is_refused(server: EtcdServer, ended: list[EtcdPlace]):
    ended += meet_all(server, [EtcdMeeting("n", "taken", 2, "job7", (0,)), EtcdMeeting("n", "taken", 2, "job7", (1,))])
    said: list[str] = []
    with pytest.raises(UsageError, match=r"rank 1 on host1 \(process \d+\).* is in this run already"):
        meet(server.access(), EtcdMeeting("n", "taken", 2, "job7", (1,)), who("twin"), said.append, DEADLINE)
    assert "alive" in said[0]


def test_calls_and_what_is_stored_for_them_stays_small(server: EtcdServer, ended: list[EtcdPlace]):
    class Adder:
        busy = False

        def poll(self) -> None:
            """Nothing to do."""

        def add(self, one: int, other: int) -> int:
            return one + other

    ended += meet_all(server, [EtcdMeeting("n", "calls", 2, "c", (0,)), EtcdMeeting("n", "calls", 2, "c", (1,))])
    board, seat = (place.rendezvous for place in ended)
    assert isinstance(board, EtcdBoard)
    assert isinstance(seat, EtcdSeat)
    serving = threading.Thread(target=lambda: serve(seat, "far", Adder()))
    serving.start()
    remote = Remote(board, "far")
    assert [remote.call("add", one=number, other=1) for number in range(30)] == list(range(1, 31))
    assert len(keys(server, "/kvdeck/n/calls/")) < 10
    with pytest.raises(KvdeckError, match="no attribute"):
        remote.call("subtract")
    remote.close()
    serving.join(DEADLINE)
    assert not serving.is_alive()


def test_a_rank_that_leaves_is_no_loss(server: EtcdServer, ended: list[EtcdPlace]):
    places = meet_all(server, [EtcdMeeting("n", "leaving", 2, "l", (0,)), EtcdMeeting("n", "leaving", 2, "l", (1,))])
    ended.append(places[0])
    places[1].rendezvous.leave()
    eventually(lambda: not any("/up/1/" in key for key in keys(server, "/kvdeck/n/leaving/")))
    places[0].rendezvous.put("after", 1)
    assert places[0].rendezvous.lost is None


LONELY = """
import os, sys, time
from kvdeck.engine.ranks.etcd_gateway import etcd_access
from kvdeck.engine.ranks import etcd
from kvdeck.engine.ranks.etcd_place import EtcdMeeting, meet
where, token, rank, lease = sys.argv[1:]
etcd.LEASE_SECONDS = int(lease)
meeting = EtcdMeeting("n", "deaths", 2, token or None, (int(rank),) if rank else None)
place = meet(etcd_access([where], {}), meeting, {"host": "mortal", "pid": os.getpid(), "at": time.time()}, print, 60.0)
print("there", flush=True)
place.rendezvous.get("never", 600.0)
"""


def mortal(server: EtcdServer, token: str, rank: str, lease: int = 4) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LONELY, server.endpoint, token, rank, str(lease)], stdout=subprocess.PIPE, text=True
    )


def test_a_rank_that_dies_or_stops_is_named(server: EtcdServer, ended: list[EtcdPlace]):
    """All at once, since each is found out by the end of a lease."""
    processes = [mortal(server, "first", "0"), mortal(server, "second", "1"), mortal(server, "stopped", "1")]
    meetings = [
        EtcdMeeting("n", "deaths", 2, token, (rank,)) for token, rank in (("first", 1), ("second", 0), ("stopped", 0))
    ]
    ended += meet_all(server, meetings)
    for process, number in zip(processes, (signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP), strict=True):
        process.send_signal(number)
    for place, process in zip(ended, processes, strict=True):
        with pytest.raises(RunFailedError, match=rf"rank {1 - place.rank} on mortal \(process {process.pid}\) is gone"):
            place.rendezvous.get("never", 60.0)
        assert place.rendezvous.lost
    processes[2].send_signal(signal.SIGCONT)
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode != 0, "a rank that was stopped learns that its lease has ended"


def test_what_dead_processes_left_is_told_at_once_and_not_waited_for(server: EtcdServer, ended: list[EtcdPlace]):
    """The next run of a group, and a pod that comes back with the same index, begin when the lease has ended."""
    processes = [mortal(server, "", "", 12), mortal(server, "pod", "1", 12)]  # the next ranks come before it ends
    eventually(lambda: {f"/kvdeck/n/deaths/{key}" for key in ("gathering", "pod/up/1/alive")} <= set(keys(server)))
    for process in processes:
        process.kill()
        process.communicate()
    said: list[str] = []
    by_token = [EtcdMeeting("n", "deaths", 2, "pod", (rank,)) for rank in (0, 1)]
    ended += meet_all(server, [EtcdMeeting("n", "deaths", 2), EtcdMeeting("n", "deaths", 2), *by_token], said)
    assert sorted(place.rank for place in ended[:2]) == [0, 1]
    assert [place.rank for place in ended[2:]] == [0, 1]
    for process in processes:
        assert any(f"mortal (process {process.pid})" in text for text in said), said


def test_keys_of_others_are_never_touched(server: EtcdServer):
    gateway = EtcdGateway(server.access())
    lease = gateway.grant(600)
    others = ["xferbench/default/rank/0", "/kvdeck/n/mine/other/up/1/alive", "/kvdeck/n/minery", "/kvdeck/n/min"]
    for key in others:
        gateway.put(key, b'{"host":"x"}', lease)
    for place in meet_all(server, [EtcdMeeting("n", "mine", 2)] * 2)[::-1]:
        place.rendezvous.leave()
    assert all(gateway.read(key)[0] for key in others)
    gateway.revoke(lease)


def test_a_barrier_of_64_ranks_costs_each_of_them_one_key(server: EtcdServer, ended: list[EtcdPlace]):
    world = 64
    ended += meet_all(server, [EtcdMeeting("n", "many", world, "b", (rank,)) for rank in range(world)])
    before = [place.rendezvous._rank.gateway.requests for place in ended]
    together(
        [lambda place=place: barrier(place.rendezvous, "b", place.rank, range(world), DEADLINE) for place in ended]
    )
    assert [place.rendezvous._rank.gateway.requests - count for place, count in zip(ended, before, strict=True)] == (
        [1] * world
    )


def test_etcd_restarted_goes_on_and_etcd_gone_ends(
    tmp_path: Path, ended: list[EtcdPlace], monkeypatch: pytest.MonkeyPatch
):
    with etcd_server(tmp_path) as server:
        ended += meet_all(server, [EtcdMeeting("n", "g", 2, "r", (0,)), EtcdMeeting("n", "g", 2, "r", (1,))])
        board, seat = (place.rendezvous for place in ended)
        server.kill()
        server.start()
        board.put("after", "the restart")
        assert seat.get("after", DEADLINE) == "the restart"
        seat.put("back", 1)
        assert board.get("back", DEADLINE) == 1
        assert board.lost is None
        monkeypatch.setattr(etcd, "PATIENCE_SECONDS", 1.0)
        ended += meet_all(server, [EtcdMeeting("n", "g", 2, "s", (0,)), EtcdMeeting("n", "g", 2, "s", (1,))])
        server.kill()
        for place in ended[2:]:
            with pytest.raises(RunFailedError, match=r"etcd at 127\.0\.0\.1:\d+ has not answered for 1 s"):
                place.rendezvous.get("never", 60.0)


def test_the_next_endpoint_is_asked_if_one_is_gone(server: EtcdServer):
    dead = "127.0.0.1:1"
    gateway = EtcdGateway(etcd_access([f"{dead},{server.endpoint}"], {}))
    lease = gateway.grant(4)
    gateway.put("/kvdeck/failover", b"1", lease)
    assert gateway.read("/kvdeck/failover")[0][0].value == b"1"
    gateway.revoke(lease)
    assert gateway.read("/kvdeck/failover")[0] == []
