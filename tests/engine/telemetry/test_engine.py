"""Watching through the engine: a child samples, clients share it, and it goes when they go."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import WatchSample
from kvdeck.engine.telemetry.sample import Snapshot, from_mapping
from kvdeck.sessions.errors import UsageError
from tests.engine.conftest import DEADLINE, eventually
from tests.engine.daemon.test_supervision import engine_of, listens
from tests.support.programs.metrics_server import metrics_server, sample, says

COLD, REPEAT = sample("dynamo_kvbm_metrics_host_cold.prom"), sample("dynamo_kvbm_metrics_host_repeat.prom")


def samplers(client: Client) -> list[int]:
    """Process ids of the engine's sampling children."""
    found = []
    for child in psutil.Process(client.hello.engine_pid).children():
        try:
            if "kvdeck.engine.telemetry" in child.cmdline():
                found.append(child.pid)
        except psutil.ZombieProcess:
            found.append(child.pid)  # it has ended, and the engine is to notice
        except psutil.NoSuchProcess:
            continue
    return found


def next_snapshot(client: Client) -> Snapshot:
    for message in client.messages(DEADLINE):
        if isinstance(message, WatchSample):
            return from_mapping(message.snapshot)
    raise AssertionError("nothing came")


def onboarded(snapshot: Snapshot) -> float | None:
    return next((flow.blocks_total for flow in snapshot.flows if flow.metric == "kvbm_onboard_blocks_h2d"), None)


def test_two_clients_share_one_child(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server, Client.connect() as other:
        other.subscribe(readonly=True)
        for one in (client, other):
            one.watch(10, [server.url()])
        first = next_snapshot(client)
        assert onboarded(first) == 0
        assert [source.kind for source in first.sources] == ["kvbm"]
        assert onboarded(next_snapshot(other)) == 0
        assert len(samplers(client)) == 1
        server.handlers["/metrics"] = says(REPEAT)
        eventually(lambda: onboarded(next_snapshot(client)) == 28)
        client.watch(0)
        assert len(samplers(client)) == 1, "the other still watches"
        other.close()
        eventually(lambda: not samplers(client))


def test_two_requests_of_one_client_are_answered_side_by_side(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server:
        client.watch(10, [server.url()])
        client.watch(10, ["disks"], request=7)
        kinds: dict[int, str] = {}
        for message in client.messages(DEADLINE):
            if isinstance(message, WatchSample):
                kinds[message.request] = message.snapshot["sources"][0]["kind"]
            if len(kinds) == 2:
                break
        assert kinds == {0: "kvbm", 7: "disk"}
        client.watch(10, ["network"], request=7)
        eventually(lambda: len(samplers(client)) == 2)  # the one before with this number has ended
        client.watch(0)
        eventually(lambda: len(samplers(client)) == 1)
        for message in client.messages(DEADLINE):
            if isinstance(message, WatchSample) and message.snapshot["sources"][0]["kind"] == "network":
                assert message.request == 7
                break
        client.watch(0, request=7)
        eventually(lambda: not samplers(client))


def test_a_client_has_so_many_requests_and_no_more(client: Client) -> None:
    for number in range(16):
        client.watch(1, ["disks"], request=number)
    assert len(samplers(client)) == 1, "equal requests share a child"
    with pytest.raises(UsageError, match="more than 16 telemetry requests"):
        client.watch(1, ["disks"], request=16)
    client.watch(0, request=3)
    client.watch(1, ["disks"], request=16)


def test_a_child_that_dies_is_replaced_and_the_engine_lives(client: Client) -> None:
    with metrics_server({"/metrics": says(COLD)}) as server:
        client.watch(10, [server.url()])
        next_snapshot(client)
        (pid,) = samplers(client)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: bool(next_snapshot(client)) and samplers(client) not in ([], [pid]))
        assert client.status()["pid"] == client.hello.engine_pid


def test_a_child_goes_with_its_engine(client: Client) -> None:
    client.watch(10, ["disks"])
    next_snapshot(client)
    (pid,) = samplers(client)
    os.kill(client.hello.engine_pid, signal.SIGKILL)
    eventually(lambda: not psutil.pid_exists(pid))


def test_sources_that_cannot_be_are_said_on_the_screen(client: Client, tmp_path: Path) -> None:
    client.watch(1, [str(tmp_path / "nothing")])
    (check,) = next_snapshot(client).checks
    assert "nothing does not exist" in check.evidence


@pytest.mark.parametrize("hz", [-1, 50, "fast"])
def test_an_impossible_pace_is_refused(client: Client, hz: float) -> None:
    with pytest.raises(UsageError, match=r"can't sample at|expected float"):
        client.watch(hz)


def test_a_child_that_keeps_dying_is_given_up_and_clients_are_told(folders: Path) -> None:
    changes = """
from kvdeck.engine.children import restarts
from kvdeck.engine.daemon import samplers
restarts.FIRST_PAUSE_S = 0.01
command, samplers.COMMAND = samplers.COMMAND, (sys.executable, "-c", "import os; os.kill(os.getpid(), 11)")
from pathlib import Path
child = samplers.Child
def repaired(argv, **more):
    return child(command if Path(%r).exists() else argv, **more)
samplers.Child = repaired
"""
    flag = folders / "repaired"
    with engine_of(folders, changes % str(flag)):
        eventually(lambda: listens(folders))
        with Client.connect(start=False) as client:
            client.subscribe()
            client.record("one", 10, ["disks"])
            client.watch(10, ["disks"])
            (check,) = next_snapshot(client).checks
            assert check.evidence == "the sampling process died of SIGSEGV (5 times; not tried again)"
            eventually(lambda: client.status()["recordings"][0]["state"] == "failed")
            assert client.status()["recordings"][0]["reason"] == check.evidence
            session = client.store.load("one")
            assert (session.state, session.reason) == ("failed", check.evidence)
            flag.touch()
            client.watch(10, ["disks"])
            assert [source.name for source in next_snapshot(client).sources] == ["disks"], (
                "asked for, it is tried again"
            )


def test_how_long_an_engine_may_stand_still_is_the_client_s_to_say(client: Client) -> None:
    hung = b"# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total 5\nvllm:num_requests_running 3\n"
    with metrics_server({"/metrics": says(hung)}) as server:
        client.watch(10, [server.url()])
        assert [check.id for check in next_snapshot(client).checks] == []
        client.watch(10, [server.url()], stuck_s=0.5)
        eventually(lambda: [check.id for check in next_snapshot(client).checks] == ["stuck"])
        for odd in (0.0, -1.0):
            with pytest.raises(UsageError, match="an engine can't be stuck after"):
                client.watch(10, [server.url()], stuck_s=odd)
