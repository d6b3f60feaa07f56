"""The rendezvous over TCP: ranks with the secret are let in, and strangers are dropped while the run goes on."""

from __future__ import annotations

import contextlib
import hmac
import socket
import struct
import threading
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvdeck.engine.ranks import tcp
from kvdeck.engine.ranks.rendezvous import gather
from kvdeck.engine.ranks.signed_lines import SignedLines
from kvdeck.engine.ranks.tcp import MOST_STRANGERS, TcpBoard, is_own, secret_of, tcp_seat
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UsageError
from tests.engine.conftest import DEADLINE, eventually
from tests.support.programs.etcd import free_port

SECRET = b"a secret of thirty-two characters"
WHO = {"host": "here", "pid": 1}


class Meeting:
    """Rank 0's board with its address, and the seats taken at it."""

    def __init__(self, world: int) -> None:
        self.address = ("127.0.0.1", free_port())
        self.world = world
        self.board = TcpBoard(self.address, SECRET, world, "run7")
        self.seats: dict[int, Any] = {}

    def sit(self, rank: int, secret: bytes = SECRET, **options: Any) -> Any:
        given = {"world": self.world, "token": "run7", "timeout": DEADLINE, **options}
        self.seats[rank] = tcp_seat(self.address, secret, rank, given.pop("world"), WHO, **given)
        return self.seats[rank]

    def stranger(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=DEADLINE)


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    made = Meeting(3)
    yield made
    for seat in made.seats.values():
        seat.leave()
    made.board.leave()


def closed(stranger: socket.socket) -> bool:
    """True once the other end has closed the connection, whatever it had sent before."""
    try:
        while stranger.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_ranks_meet_and_the_door_is_closed_behind_them(meeting: Meeting):
    meeting.sit(2)
    assert not meeting.board.wait_for(3, 0.0)
    meeting.sit(1)
    assert meeting.board.wait_for(3, DEADLINE)
    assert meeting.board.present == {1: WHO, 2: WHO}
    found: dict[int, Any] = {}
    ranks = {0: meeting.board, **meeting.seats}

    def share(rank: int) -> None:
        found[rank] = gather(ranks[rank], "names", rank, range(3), rank, DEADLINE)

    threads = [threading.Thread(target=share, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert found == {rank: [0, 1, 2] for rank in range(3)}
    eventually(lambda: _refused(meeting))


def _refused(meeting: Meeting) -> bool:
    try:
        meeting.stranger().close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_rank_that_comes_before_rank_0_waits_for_it():
    address = ("127.0.0.1", free_port())
    seats: list[Any] = []
    early = threading.Thread(target=lambda: seats.append(tcp_seat(address, SECRET, 1, 2, WHO, timeout=DEADLINE)))
    early.start()
    board = TcpBoard(address, SECRET, 2)
    early.join(DEADLINE)
    board.put("there", 1)
    assert seats[0].get("there", DEADLINE) == 1
    seats[0].leave()
    board.leave()


def test_a_silent_stranger_is_dropped_when_its_time_is_over(meeting: Meeting, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tcp, "HANDSHAKE_SECONDS", 0.1)
    with meeting.stranger() as stranger:
        assert closed(stranger)
    monkeypatch.undo()
    meeting.sit(1).put("after", 1)
    assert meeting.board.get("after", DEADLINE) == 1


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b'{"hello":{"rank":1},"proof":"0"}\n',
        b'{"hello":1,"proof":1}\n',
        b"[1]\n",
        b'"x"\n',
        b"\xff\n",
        b'{"hello":{"rank":1,"nonce":"","world":3,"token":"run7"},"proof":"' + b"0" * 64 + b'"}\n',
        b"[" * 4000 + b"\n",
        b'{"proof":"\xc3\xa9","hello":{}}\n',
    ],
)
def test_a_wrong_answer_is_dropped(meeting: Meeting, sent: bytes):
    with meeting.stranger() as stranger:
        stranger.sendall(sent)
        assert closed(stranger)
    meeting.sit(1).put("after", 1)
    assert meeting.board.get("after", DEADLINE) == 1
    assert meeting.board.dropped == 1


def test_an_endless_line_is_dropped(meeting: Meeting):
    with meeting.stranger() as stranger, contextlib.suppress(ConnectionError):
        while True:
            stranger.sendall(b"a" * 65536)
    meeting.sit(1).put("after", 1)
    assert meeting.board.get("after", DEADLINE) == 1
    assert meeting.board.dropped == 1


class Eavesdropper:
    """Passes one connection on to rank 0, and keeps what each side sent."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.rank, self.board = b"", b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listening.getsockname()
        self.to_board: socket.socket = socket.create_connection(address)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        self.to_rank, _ = self._listening.accept()
        self._listening.close()
        threading.Thread(target=self._back, daemon=True).start()
        while data := self.to_rank.recv(65536):
            self.rank += data
            self.to_board.sendall(data)
        with contextlib.suppress(OSError):
            self.to_board.shutdown(socket.SHUT_RDWR)

    def _back(self) -> None:
        while data := self.to_board.recv(65536):
            self.board += data
            self.to_rank.sendall(data)
        self.to_rank.shutdown(socket.SHUT_RDWR)


def test_a_replayed_connection_is_dropped(meeting: Meeting):
    ear = Eavesdropper(meeting.address)
    seat = tcp_seat(ear.address, SECRET, 1, 3, WHO, "run7", DEADLINE)
    seat.put("said", 1)
    assert meeting.board.get("said", DEADLINE) == 1
    with meeting.stranger() as stranger:
        stranger.sendall(ear.rank)
        assert closed(stranger)
    assert meeting.board.lost is None
    assert SECRET not in ear.rank + ear.board
    seat.leave()


@pytest.mark.parametrize("what", ["again", "changed", "added"])
def test_a_line_put_into_a_rank_s_connection_ends_the_run(meeting: Meeting, what: str):
    """Who can write into the connection can end it, but not make a rank say what it didn't."""
    ear = Eavesdropper(meeting.address)
    seat = tcp_seat(ear.address, SECRET, 1, 3, WHO, "run7", DEADLINE)
    seat.put("first", 1)
    assert meeting.board.get("first", DEADLINE) == 1
    line = ear.rank.splitlines(keepends=True)[-1]
    forged = {"again": line, "changed": line.replace(b"first", b"other"), "added": b'{"put":"other","value":2}\n'}
    ear.to_board.sendall(forged[what])
    with pytest.raises(RunFailedError, match="not signed by the rank"):
        meeting.board.get("other", DEADLINE)
    with pytest.raises(KvdeckError):
        seat.get("never", DEADLINE)


def test_a_rank_refuses_lines_that_rank_0_did_not_sign(meeting: Meeting):
    ear = Eavesdropper(meeting.address)
    seat = tcp_seat(ear.address, SECRET, 1, 3, WHO, "run7", DEADLINE)
    ear.to_rank.sendall(b'{"key":"order","value":"mine"}\n')
    with pytest.raises(RunFailedError, match="can't be trusted"):
        seat.get("order", DEADLINE)


def test_a_board_without_the_secret_is_refused():
    """A stranger who took rank 0's port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def pretend() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b'{"kvdeck":1,"nonce":"00"}\n')
                hello = orjson.loads(connection.makefile("rb").readline())
                proof = hmac.digest(b"guess", b"", sha256).hex()
                connection.sendall(
                    orjson.dumps({"refused": "", "nonce": hello["hello"]["nonce"], "proof": proof}) + b"\n"
                )
                connection.recv(1)

        pretending = threading.Thread(target=pretend)
        pretending.start()
        with pytest.raises(KvdeckError, match="does not know the run's secret"):
            tcp_seat(listening.getsockname(), SECRET, 1, 2, WHO, timeout=DEADLINE)
        pretending.join(DEADLINE)


def test_what_is_no_board_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
                connection.recv(1)

        greeting = threading.Thread(target=greet)
        greeting.start()
        with pytest.raises(KvdeckError, match="is not rank 0 of a run of kvdeck"):
            tcp_seat(listening.getsockname(), SECRET, 1, 2, WHO, timeout=DEADLINE)
        greeting.join(DEADLINE)


def test_thousands_of_connections_leave_room_for_a_rank(meeting: Meeting):
    """Silent ones and ones that are reset at once; few are open at a time, whoever opens them."""
    kept: list[socket.socket] = []
    for number in range(2_000):
        stranger = meeting.stranger()
        if number % 10:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            stranger.close()
        else:
            kept.append(stranger)
        if number % 100 == 0:
            assert len(meeting.board._strangers) <= MOST_STRANGERS
    meeting.sit(1).put("after", 1)
    assert meeting.board.get("after", DEADLINE) == 1
    assert meeting.board.lost is None
    assert len(meeting.board._strangers) <= MOST_STRANGERS
    for stranger in kept:
        stranger.close()


@pytest.mark.parametrize(
    ("rank", "options", "words"),
    [
        (1, {"secret": b"another secret of some length"}, "does not accept this rank's proof"),
        (1, {"token": "run8"}, "it belongs to another run"),
        (1, {"world": 4}, "it expects 4 ranks, and rank 0 expects 3"),
        (3, {}, "there is no rank 3"),
        (0, {}, "there is no rank 0"),
        (2, {}, "rank 2 is there already"),
    ],
)
def test_a_rank_that_does_not_belong_is_told_why(meeting: Meeting, rank: int, options: dict[str, Any], words: str):
    second = meeting.sit(2)
    with pytest.raises(KvdeckError, match=words):
        meeting.sit(rank, **options)
    meeting.seats[2] = second
    assert meeting.board.lost is None


def test_a_port_that_is_taken_and_a_board_that_never_comes(meeting: Meeting):
    with pytest.raises(KvdeckError, match="can't listen at port"):
        TcpBoard(meeting.address, SECRET, 2)
    with pytest.raises(KvdeckError, match=r"rank 0 is not at 127.0.0.1:\d+ \(Connection refused\), after 0.3 s"):
        tcp_seat(("127.0.0.1", free_port()), SECRET, 1, 2, WHO, timeout=0.3)


def test_a_rank_that_closes_its_connection_is_lost(meeting: Meeting):
    seat = meeting.sit(1)
    seat._close()
    with pytest.raises(RunFailedError, match=r"rank 1 on here \(process 1\) closed its connection"):
        meeting.board.get("never", DEADLINE)
    del meeting.seats[1]


def test_whose_host_an_address_is():
    assert is_own("127.0.0.1")
    assert is_own(socket.gethostname())
    assert not is_own("192.0.2.1")
    assert not is_own("no-such-host.invalid")


def test_the_secret_comes_from_the_environment_or_a_private_file(tmp_path: Path):
    assert secret_of({"KVDECK_RENDEZVOUS_SECRET": "x" * 32}) == b"x" * 32
    path = tmp_path / "secret"
    path.write_text("y" * 32 + "\n")
    path.chmod(0o600)
    assert secret_of({"KVDECK_RENDEZVOUS_SECRET_FILE": str(path)}) == b"y" * 32
    path.chmod(0o640)
    with pytest.raises(UsageError, match="other users can read"):
        secret_of({"KVDECK_RENDEZVOUS_SECRET_FILE": str(path)})
    for environment in ({}, {"KVDECK_RENDEZVOUS_SECRET": "short"}, {"KVDECK_RENDEZVOUS_SECRET": " "}):
        with pytest.raises(UsageError, match=r"export KVDECK_RENDEZVOUS_SECRET=\$\(openssl rand -hex 32\)"):
            secret_of(environment)


def test_signed_lines_are_of_one_direction_and_in_order():
    board, rank = SignedLines(b"down", b"up"), SignedLines(b"up", b"down")
    first, second = board.seal(b"one\n"), board.seal(b"two\n")
    assert rank.unseal(first.rstrip()) == b"one"
    for line in (first, second.replace(b"two", b"six"), rank.seal(b"two\n"), b"", b" ", b"two"):
        with pytest.raises(ValueError, match="not signed"):
            rank.unseal(line.rstrip())
    assert rank.unseal(second.rstrip()) == b"two"
