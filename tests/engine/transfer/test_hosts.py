"""Runs between two hosts made of namespaces: what they measure, what they don't take for a measurement, and faults."""

from __future__ import annotations

import functools
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from kvdeck.engine.client.client import Client
from kvdeck.engine.host import host_facts
from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.host.nics import Carried, nic_counters, nics
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.engine.transfer.trials import room_of
from kvdeck.engine.transfer.tuning import candidates
from kvdeck.sessions.analysis.compare import compare
from kvdeck.sessions.host.documents import dump_yaml
from kvdeck.sessions.model.events import Logged, Round
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.run_state import RunState, apply
from kvdeck.sessions.store.event_log import read_events
from kvdeck.sessions.text.run_report import report_lines
from tests.engine.conftest import DEADLINE, eventually, lines_until_end
from tests.support import hosts

LINE_GB_PER_S = 0.025
"""Of the shaped link: so slow that a busy machine keeps up with it."""
BURST = 0.15
"""What its bucket lets through at once, as part of a request."""
SMALL: dict[str, Any] = {"peer": "hostb", "paths": ["HostToHost"], "blocks": 4, "batch": 2, "effort": "quick",
                         "seconds": 0.5, "peer_timeout": 20.0, "warmup_iterations": 1, "warmup_seconds": 0}  # fmt: skip


@pytest.fixture(scope="module")
def pair() -> Iterator[hosts.Pair]:
    if reason := hosts.reason_to_skip():
        pytest.skip(reason)
    with hosts.two_hosts() as made:
        made.limit("200mbit")
        yield made


class Run:
    """A worker on `hostA`, and what it has logged."""

    def __init__(self, pair: hosts.Pair, folder: Path, **changes: Any) -> None:
        self.folder = folder / "session"
        self.folder.mkdir()
        spec = spec_from_mapping({**SMALL, **changes})
        (self.folder / "run.yaml").write_text(dump_yaml(spec.to_mapping()))
        argv = (sys.executable, "-m", "kvdeck.engine.transfer.worker", "--session-dir", str(self.folder))
        with (self.folder / "engine.log").open("wb") as log:
            self.process = pair.a.popen(*argv, env=pair.environment, stdin=subprocess.PIPE, stderr=log.fileno())

    def state(self) -> RunState:
        log = self.folder / "samples.jsonl"
        return functools.reduce(apply, read_events(log) if log.exists() else (), RunState("session"))

    def until_measured(self) -> None:
        eventually(lambda: self.state().measured_t is not None)

    def end(self) -> RunState:
        assert self.process.wait(3 * DEADLINE) == 0, (self.folder / "engine.log").read_text()
        return self.state()


def test_a_run_between_two_hosts_gets_the_line(pair: hosts.Pair, tmp_path: Path):
    run = Run(pair, tmp_path)
    state = run.end()
    assert state.state == "done", (state.reason, (run.folder / "engine.log").read_text())
    assert [result.status for result in state.results] == ["ok", "ok"]
    for result in state.results:
        assert result.verified
        rounds = [event for event in read_events(run.folder / "samples.jsonl") if isinstance(event, Round)]
        quickest_ns = min(min(event.transfer_ns) for event in rounds if event.step == result.step)
        fastest = result.block_bytes * result.batch / quickest_ns
        assert 0.9 <= fastest / LINE_GB_PER_S <= 1 + BURST
        peer = result.settings["peer"]
        assert (peer["hosts"], peer["hostnames"], peer["transport"]) == (["hostb"], ["hostB"], "tcp/eth1")
        assert 1.0 <= peer["carried_part"] < 1.1
        assert peer["bound_gb_per_s"] == 1.25, "veth says 10 Gb/s"
        assert (result.reference, result.reference_is_limit) == ("TCP stream", False)
        assert result.reference_gb_per_s is not None
        assert 0 < result.reference_gb_per_s <= (1 + BURST) * LINE_GB_PER_S
    assert state.host["hostname"] == "hostA"
    (there,) = state.host["peers"]
    assert there["host"]["hostname"] == "hostB"
    assert there["environment"]["UCX_TCP_USER_TIMEOUT"] == "20s"
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def test_one_initiator_with_a_target_on_each_of_two_hosts(pair: hosts.Pair, tmp_path: Path):
    with hosts.third_host(pair, "400mbit") as third:
        run = Run(pair, tmp_path, peer=["hostb", "hostc"], reference=False)
        state = run.end()
        assert state.state == "done", (state.reason, (run.folder / "engine.log").read_text())
        eventually(lambda: not third.processes())
    assert [peer["host"]["hostname"] for peer in state.host["peers"]] == ["hostB", "hostC"]
    for result in state.results:
        assert (result.status, result.verified) == ("ok", True)
        scheme, peer = result.settings["scheme"], result.settings["peer"]
        assert (scheme["scheme"], scheme["lanes"], scheme["targets"]) == ("onetomany", 1, 2)
        assert peer["transport"] == f"tcp/{hosts.DEVICE} tcp/{hosts.SECOND_DEVICE}"
        rows = [(one["hostname"], one["transport"], one["share"]) for one in peer["each"]]
        assert rows == [("hostB", f"tcp/{hosts.DEVICE}", 0.5), ("hostC", f"tcp/{hosts.SECOND_DEVICE}", 0.5)]
        assert all(1.0 <= one["carried_part"] < 1.1 for one in peer["each"])
        assert set(peer["sent_by_nic"]) == {hosts.DEVICE, hosts.SECOND_DEVICE}
    session = replace(Session("three", "done", 0.0), host=state.host, results=tuple(state.results))
    text = "\n".join(line.text for line in report_lines(session, 120))
    assert "with hostB: " in text
    assert "with hostC: " in text
    two = replace(session, name="two", host={**state.host, "peers": state.host["peers"][:1]})
    assert "not the same hosts: hostA → hostB and hostA → hostB, hostC" in compare(two, session).differences


def test_bytes_past_the_link_are_no_measurement_of_it(tmp_path: Path):
    """Hosts that share PIDs and IPC: UCX copies by cma from one process to the other."""
    if reason := hosts.reason_to_skip():
        pytest.skip(reason)
    with hosts.two_hosts(1, alone=False) as near:
        state = Run(near, tmp_path, operation="READ", layouts=["FullyContiguous"]).end()
        (result,) = state.results
        assert result.status == "suspect"
        assert "did not use the NIC" in (result.reason or "")
        assert "within one host" in (result.reason or "")
        assert state.state == "failed"


def test_gpu_memory_is_refused_with_each_host_s_reason(pair: hosts.Pair, tmp_path: Path):
    """On hosts that have none; a driver that is there is told by its own reason."""
    if driver_present():
        pytest.skip("this machine has a GPU")
    state = Run(pair, tmp_path, paths=["DeviceToDevice"]).end()
    (result, _) = state.results
    assert (state.state, result.status) == ("failed", "unavailable")
    said = "DeviceToDevice needs a GPU on every host (hostA: no NVIDIA driver is loaded; hostb: no NVIDIA driver"
    assert (result.reason or "").startswith(said)
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def kill_target(pair: hosts.Pair) -> None:
    os.kill(next(pid for pid in pair.b.processes() if b"ranks.target" in words_of(pid)), signal.SIGKILL)


def kill_ssh(pair: hosts.Pair) -> None:
    os.kill(next(pid for pid in pair.a.processes() if words_of(pid).startswith(b"/usr/bin/ssh")), signal.SIGKILL)


def cut_link(pair: hosts.Pair) -> None:
    pair.b.ip("link", "set", hosts.DEVICE, "down")


def words_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (kill_target, "died of SIGKILL, on hostB"),
        (kill_ssh, "ssh to hostb died of SIGKILL"),
        (cut_link, "hostb"),
    ],
)
def test_a_fault_ends_the_run_and_says_who(
    pair: hosts.Pair, tmp_path: Path, harm: Callable[[hosts.Pair], None], said: str
):
    run = Run(pair, tmp_path, seconds=60.0, layouts=["FullyContiguous"], peer_timeout=3.0, reference=False)
    try:
        run.until_measured()
        harm(pair)
        begun = time.monotonic()
        state = run.end()
        took = time.monotonic() - begun
    finally:
        pair.b.ip("link", "set", hosts.DEVICE, "up")
        pair.wait_for_link()
    assert state.state == "failed"
    assert said in (state.reason or ""), state.reason
    assert took < DEADLINE
    assert state.measured_t is not None, "what was measured is kept"
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


FULL = (
    "for place in /tmp /dev/shm /var/tmp; do mount -t tmpfs -o size=8k full $place; "
    'echo "import platform; platform.python_version = lambda: str(9.9)" >$place/sitecustomize.py; '
    'cat /dev/zero >$place/x; done 2>/dev/null; exec "$@"'
)


def test_a_peer_may_have_a_full_disk_another_user_and_another_python(pair: hosts.Pair, tmp_path: Path):
    """Nothing of the other half is written there, and a user who may not read this one's files is one of its own."""
    others = "--reuid 65534 --regid 65534 --clear-groups --inh-caps +dac_read_search --ambient-caps +dac_read_search"
    command = f"PYTHONPATH=/tmp unshare --mount sh -c '{FULL}' sh setpriv {others} {hosts.KVDECK}"
    run = Run(pair, tmp_path, peer_command=command, layouts=["FullyContiguous"], seconds=60.0, reference=False)
    run.until_measured()
    uids = {Path(f"/proc/{pid}").stat().st_uid for pid in pair.b.processes() if b"ranks." in words_of(pid)}
    cancel(pair)
    state = run.end()
    assert uids == {65534}
    assert [result.status for result in state.results] == ["cancelled"]
    logged = [event.text for event in read_events(run.folder / "samples.jsonl") if isinstance(event, Logged)]
    assert f"Python is {platform.python_version()} here and 9.9 on hostb" in logged
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def cancel(pair: hosts.Pair) -> None:
    os.kill(next(pid for pid in pair.a.processes() if b"transfer.worker" in words_of(pid)), signal.SIGTERM)


@pytest.mark.parametrize("command", ["cat >/dev/null; :", "kvdeck"])
def test_a_run_is_cancelled_at_once_while_a_peer_starts_and_while_it_measures(
    pair: hosts.Pair, tmp_path: Path, command: str
):
    begun = time.monotonic()
    run = Run(pair, tmp_path, peer_command=command, peer_timeout=600.0, seconds=600.0, layouts=["FullyContiguous"])
    if command == "kvdeck":
        run.until_measured()
    else:
        eventually(lambda: any(words_of(pid).startswith(b"cat") for pid in pair.b.processes()))
    cancel(pair)
    state = run.end()
    assert state.state == "cancelled"
    assert time.monotonic() - begun < 600, "no limit of the run's own ended it"
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def test_ssh_has_the_agent_of_who_asked(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The engine may have been started in another login. An `ssh` of the test's own notes what it was given."""
    monkeypatch.delenv("KVDECK_WORKER")
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    ssh = tmp_path / "bin/ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\necho "$SSH_AUTH_SOCK $*" >{tmp_path}/given\necho Permission denied >&2\nexit 255\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    with Client.connect() as client:
        monkeypatch.setenv("SSH_AUTH_SOCK", "/the/agent")
        session = client.submit({**SMALL, "peer_command": "uvx kvdeck"})
        client.subscribe(session, hz=1)
        lines_until_end(client)
        kept = client.store.load(session)
        text = client.store.folder(session) / "run.yaml"
        assert "/the/agent" not in text.read_text()
    agent, *words = (tmp_path / "given").read_text().split()
    assert agent == "/the/agent"
    assert words[-7:] == ["--", "hostb", "uvx", "kvdeck", "rank", "--stdio", "peer0"]
    assert "hostb accepts no key for this user" in (kept.reason or "")
    assert "ssh-copy-id hostb" in (kept.reason or "")


def test_tuning_between_hosts_keeps_the_error_handling_that_sees_a_dead_peer():
    room = room_of(host_facts())
    for peer, tried in ((None, True), (("hostb",), False)):
        changes = list(candidates(spec_from_mapping({"peer": peer, "paths": ["HostToHost"]}), "HostToHost", room))
        assert ({"error_handling": "none"} in changes) == tried, peer


def test_interfaces_of_a_cluster_s_host(tmp_path: Path):
    """A host with an InfiniBand port, an EFA device, and a bond over an Ethernet device."""

    def write(name: str, text: str) -> None:
        file = tmp_path / "sys/class" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    for name, text in {
        "infiniband/mlx5_0/ports/1/state": "4: ACTIVE",
        "infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)",
        "infiniband/mlx5_0/ports/1/counters/port_xmit_data": "1000",
        "infiniband/mlx5_0/ports/1/counters/port_rcv_data": "2000",
        "infiniband/mlx5_0/device/numa_node": "1",
        "infiniband/rdmap0/ports/1/state": "1: DOWN",
        "infiniband/rdmap0/ports/1/rate": "100 Gb/sec (4X EDR)",
        "infiniband/rdmap0/ports/1/hw_counters/tx_bytes": "5",
        "infiniband/rdmap0/ports/1/hw_counters/rx_bytes": "6",
        "net/eth0/operstate": "up",
        "net/eth0/speed": "25000",
        "net/eth0/mtu": "9000",
        "net/eth0/statistics/tx_bytes": "7",
        "net/eth0/statistics/rx_bytes": "8",
        "net/bond0/operstate": "up",
        "net/bond0/statistics/tx_bytes": "7",
        "net/bond0/statistics/rx_bytes": "8",
        "net/bond0/lower_eth0": "",
        "net/lo/statistics/tx_bytes": "9",
        "net/lo/statistics/rx_bytes": "9",
    }.items():
        write(name, text)
    assert [(nic.name, nic.up, nic.bits_per_s, nic.numa_node) for nic in nics(tmp_path)] == [
        ("mlx5_0:1", True, 400e9, 1),
        ("rdmap0:1", False, 100e9, None),
        ("eth0", True, 25e9, None),
    ]
    assert nic_counters(tmp_path) == {
        "mlx5_0:1": Carried(4000, 8000),
        "rdmap0:1": Carried(5, 6),
        "eth0": Carried(7, 8),
    }
