"""Peers reached by ssh: hosts made of namespaces, with an sshd on the second."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.app.text.peer_doctor import peer_lines
from kvdeck.engine.ranks import peer
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.peer import PeerHost, check_apart, check_protocol, differences
from kvdeck.engine.ranks.ssh import open_ssh, ssh_command, ssh_failure
from kvdeck.sessions.errors import KvdeckError, RunFailedError
from tests.engine.conftest import eventually
from tests.support import hosts

TIMEOUT_S = 20.0


@pytest.fixture(scope="module")
def pair() -> Iterator[hosts.Pair]:
    if reason := hosts.reason_to_skip():
        pytest.skip(reason)
    with hosts.two_hosts() as made:
        yield made


@pytest.fixture
def board(pair: hosts.Pair, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A rendezvous, and an `ssh` in PATH that starts on `hostA`."""
    pair.put_ssh_in_path(monkeypatch)
    hosts.write_ssh_config(pair.folder, pair.b.address)
    made = Board()
    yield made
    made.leave()
    eventually(lambda: not pair.b.processes())


def reach(board: Board, command: str = "kvdeck") -> PeerHost:
    return open_ssh(board, "hostb", "peer0", command, TIMEOUT_S)


def test_a_peer_says_what_it_is_and_which_of_its_ranks_died(pair: hosts.Pair, board: Board):
    there = reach(board)
    assert there.hostname == "hostB"
    assert [(nic["name"], nic["up"]) for nic in there.greeting["nics"]] == [(hosts.DEVICE, True)]
    first = there.counters()[hosts.DEVICE]
    assert there.counters()[hosts.DEVICE].sent > first.sent, "the first answer went over it"
    there.begin({"UCX_TCP_SYN_CNT": "2"})
    assert there.greeting["environment"]["UCX_TCP_SYN_CNT"] == "2"
    assert board.lost is None
    there.start_target()
    victims = [pid for pid in pair.b.processes() if b"ranks.target" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(victims[0], signal.SIGKILL)
    eventually(lambda: board.lost is not None)
    assert "kvdeck-target0" in (board.lost or "")
    assert "died of SIGKILL, on hostB" in (board.lost or "")
    with pytest.raises(RunFailedError, match="kvdeck-target0"):
        there.counters()
    there.close()


def test_a_peer_whose_half_dies_is_lost_with_its_ranks(pair: hosts.Pair, board: Board):
    there = reach(board)
    there.start_target()
    os.kill(int(next(pid for pid in pair.b.processes() if _is_outpost(pid))), signal.SIGKILL)
    eventually(lambda: board.lost is not None)
    assert "kvdeck on hostb" in (board.lost or "") or "hostb closed" in (board.lost or "")
    there.close()


def test_an_ssh_that_dies_takes_the_other_half_with_it(pair: hosts.Pair, board: Board):
    there = reach(board)
    there.start_target()
    for pid in pair.a.processes():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: board.lost is not None)
    assert "ssh to hostb died of SIGKILL" in (board.lost or "") or "peer0 closed" in (board.lost or "")
    eventually(lambda: not pair.b.processes())
    there.close()


def _is_outpost(pid: int) -> bool:
    return b"ranks.outpost" in Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("changed", "command", "said"),
    [
        ({"UserKnownHostsFile": "/dev/null"}, "kvdeck", "the host key of hostb is unknown"),
        ({"IdentityFile": "/dev/null"}, "kvdeck", "hostb accepts no key for this user"),
        ({"User": "nobody-here"}, "kvdeck", "hostb accepts no key for this user"),
        ({"Port": "23"}, "kvdeck", "no sshd listens on hostb"),
        ({}, "/nowhere/kvdeck", "there is no `/nowhere/kvdeck` on hostb"),
        ({}, "echo Welcome; exit 3; :", "kvdeck on hostb ended with status 3"),
    ],
)
def test_what_keeps_a_peer_away_is_said_with_its_fix(
    pair: hosts.Pair, board: Board, changed: dict[str, str], command: str, said: str
):
    hosts.write_ssh_config(pair.folder, pair.b.address, **changed)
    with pytest.raises(KvdeckError) as found:
        reach(board, command)
    assert said in found.value.what
    assert found.value.fix
    assert not pair.a.processes()


def test_doctor_tries_what_a_run_needs(pair: hosts.Pair):
    """Both hosts have one clock: the offset must be within its own error."""
    done = pair.a.run(str(hosts.KVDECK), "doctor", "--peer", "hostb", "--json", env=pair.environment)
    found = json.loads(done.stdout)
    assert (done.returncode, found["ready"], found["transport"]) == (0, True, "tcp/eth1"), done.stdout
    assert abs(found["clock_offset_s"]) <= found["clock_error_s"]
    assert [end["host"]["hostname"] for end in (found["here"], found["there"])] == ["hostA", "hostB"]
    text = [line.text for line in peer_lines(found, 80)]
    assert max(map(len, text)) <= 80
    assert text[:3] == ["hostb: ready", "  reachable      yes, by ssh", "  transports     tcp/eth1"]
    assert "  differences    none in versions and variables" in text
    eventually(lambda: not pair.a.processes() and not pair.b.processes())


def test_a_silent_peer_is_given_up(pair: hosts.Pair, board: Board, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer, "GREETING_SECONDS", 1.0)
    with pytest.raises(KvdeckError, match="did not answer within 1 s"):
        open_ssh(board, "hostb", "peer0", "cat >/dev/null; :", 1.0)
    eventually(lambda: not pair.a.processes())


def test_no_host_is_taken_for_an_option():
    words = ssh_command("user@hostb", "peer0", "uvx kvdeck", 30.0)
    assert words[-3:] == ["--", "user@hostb", "uvx kvdeck rank --stdio peer0"]
    assert "BatchMode=yes" in words


@pytest.mark.parametrize("unknown", [b"command 'rank'", b"option: --part"])
def test_an_older_kvdeck_is_said(unknown: bytes):
    written = b"kvdeck: No such " + unknown + b" \xc2\xb7 fix: see kvdeck --help\n"
    what, fix = ssh_failure(2, written, "hostb", "kvdeck")
    assert what.startswith("kvdeck on hostb is older than this one")
    assert fix == "install the same version on both hosts"
    with pytest.raises(KvdeckError, match=r"kvdeck 9\.9 on hostb and kvdeck"):
        check_protocol({"protocol": 99, "kvdeck": "9.9"}, "hostb")


def test_a_host_is_no_peer_of_itself():
    here, there = {"network": "boot net:[1]"}, {"network": "boot net:[2]"}
    check_apart(here, [("node2", there), ("node3", {"network": "other net:[1]"}), ("old", {}), ("older", {})])
    with pytest.raises(KvdeckError, match="localhost is this host"):
        check_apart(here, [("localhost", here)])
    with pytest.raises(KvdeckError, match="root@node2 is the same host as node2"):
        check_apart(here, [("node2", there), ("root@node2", there)])


def test_differences_are_said_one_by_one():
    here = {
        "kvdeck": "1.0",
        "nixl": "1.5.1",
        "ucx": "1.23.0",
        "environment": {"UCX_TLS": "tcp", "UCX_LOG_LEVEL": "info"},
    }
    there = {**here, "nixl": "1.4.0", "environment": {"UCX_NET_DEVICES": "eth1"}}
    assert differences(here, there, "hostb") == [
        "NIXL is 1.5.1 here and 1.4.0 on hostb",
        "UCX_NET_DEVICES is not set here and eth1 on hostb",
        "UCX_TLS is tcp here and not set on hostb",
    ]
    assert differences(here, here, "hostb") == []
