"""Rendezvous over TCP: ranks on other hosts meet at rank 0, which lets in only those that know the run's secret.

Rank 0 sends a nonce. A rank answers with its own, its number and a proof: the HMAC of both nonces and the number under
the secret. Rank 0 proves itself likewise. Each later line is signed with keys made of the secret and both nonces, so
nothing recorded from one connection is of use in another. Rank 0 stops listening once all ranks are there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from kvdeck.engine.launchers import SECRET_FILE_VARIABLE, SECRET_VARIABLE
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.ranks.board import JoinedBoard
from kvdeck.engine.ranks.names import described
from kvdeck.engine.ranks.private_file import read_private
from kvdeck.engine.ranks.seat import Seat
from kvdeck.engine.ranks.signed_lines import SignedLines
from kvdeck.engine.ranks.sockets import notice_a_dead_host
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

HANDSHAKE_SECONDS = 5.0
"""Time in which a rank must prove that it knows the secret."""
SILENCE_SECONDS = 30
"""Silence of a rank's host after which the rank is lost; a rank that ends is lost at once."""
MOST_STRANGERS = 64
"""Connections that may be unproven at once; one more drops the oldest."""
_LEAST_SECRET = 16
_LONGEST_HELLO = 4 << 10
_PAUSE_SECONDS = 0.2
_REFUSALS = 3
"""Times that rank 0 may close the connection after a proof before the secret counts as wrong."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def secret_of(environment: Mapping[str, str]) -> bytes:
    """Return the run's secret from the environment or a private file.

    Raises:
        UsageError: There is none, it is too short, or its file is missing or not private.
    """
    name = environment.get(SECRET_FILE_VARIABLE, "")
    text = read_private(Path(name), SECRET_FILE_VARIABLE) if name else environment.get(SECRET_VARIABLE, "").strip()
    make = f"export {SECRET_VARIABLE}=$(openssl rand -hex 32) before the launcher, so that all ranks have the same"
    if not text:
        raise UsageError("ranks that meet over TCP need a secret, and there is none", make)
    if len(text) < _LEAST_SECRET:
        raise UsageError(f"the ranks' secret has fewer than {_LEAST_SECRET} characters", make)
    return text.encode()


class PortTakenError(KvdeckError):
    """Rank 0 can't listen at its port."""


@dataclass(slots=True)
class _Stranger:
    """A connection that hasn't proven itself yet."""

    connection: socket.socket
    nonce: str
    lines: LineBuffer
    until: float


class TcpBoard(JoinedBoard):
    """Rank 0's store, which ranks on other hosts join over TCP."""

    def __init__(self, address: tuple[str, int], secret: bytes, world: int, token: str = "") -> None:
        """Listen at the port of `address`, on all interfaces unless its host is the loopback.

        Args:
            token: Text that only the ranks of this run share; a rank with another one is refused.

        Raises:
            PortTakenError: The port is taken.
        """
        super().__init__()
        self.dropped = 0
        """Connections that didn't prove themselves."""
        self._secret, self._world, self._token = secret, world, token
        self._strangers: dict[socket.socket, _Stranger] = {}
        self._closing = threading.Event()
        self._wake, self._woken = socket.socketpair()
        try:
            self._door = _listening(address)
        except OSError as error:
            super().leave()
            raise PortTakenError(
                f"rank 0 can't listen at port {address[1]}: {error.strerror}", "give another port with --rendezvous"
            ) from error
        self._doorkeeper = start_thread("rendezvous-tcp", self._keep_door, self._broken)

    def wait_left(self, rank: int, timeout: float) -> bool:
        """Wait until a rank has closed its connection; False after `timeout` seconds."""
        name = described(rank, self.present.get(rank, {}))
        with self._changed:
            return self._changed.wait_for(lambda: all(stream.who != name for stream in self._streams), timeout)

    def leave(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake.send(b"!")
        self._doorkeeper.join()
        self._wake.close()
        super().leave()

    def _keep_door(self) -> None:
        """Let ranks in until all are there or `leave` is called."""
        with selectors.DefaultSelector() as selector, self._door, self._woken:
            selector.register(self._door, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._closing.is_set() and len(self.present) < self._world - 1:
                for ready, _ in selector.select(self._patience()):
                    if ready.fileobj is self._door:
                        self._admit(selector)
                    elif ready.fileobj in self._strangers:
                        self._hear(selector, self._strangers[ready.fileobj])
                now = time.monotonic()
                for stranger in [one for one in self._strangers.values() if one.until <= now]:
                    self._drop(selector, stranger)
            for stranger in list(self._strangers.values()):
                self._drop(selector, stranger)

    def _patience(self) -> float | None:
        """Return the seconds until the next stranger's time is over."""
        first = next(iter(self._strangers.values()), None)
        return None if first is None else max(0.0, first.until - time.monotonic())

    def _admit(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._door.accept()
        except OSError:  # it is gone already, or this process has no descriptor left
            if self._strangers:
                self._drop(selector, next(iter(self._strangers.values())))
            else:
                self._closing.wait(_PAUSE_SECONDS)
            return
        if len(self._strangers) >= MOST_STRANGERS:
            self._drop(selector, next(iter(self._strangers.values())))
        connection.setblocking(False)
        stranger = _Stranger(
            connection, secrets.token_hex(32), LineBuffer(_LONGEST_HELLO), time.monotonic() + HANDSHAKE_SECONDS
        )
        self._strangers[connection] = stranger
        selector.register(connection, selectors.EVENT_READ)
        with contextlib.suppress(OSError):
            connection.send(_line({"kvdeck": 1, "nonce": stranger.nonce}))

    def _hear(self, selector: selectors.BaseSelector, stranger: _Stranger) -> None:
        try:
            data = stranger.connection.recv(_LONGEST_HELLO)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        lines = stranger.lines.take(data)
        if data and not lines and not stranger.lines.dropped:
            return
        hello = self._proven(stranger, lines[0]) if len(lines) == 1 and not stranger.lines.rest() else None
        if hello is None:
            self._drop(selector, stranger)
            return
        selector.unregister(stranger.connection)
        del self._strangers[stranger.connection]
        self._welcome(stranger, hello)

    def _proven(self, stranger: _Stranger, line: bytes) -> dict[str, Any] | None:
        """Return a rank's hello if its proof is right."""
        try:
            message = load_record(line)
            hello, proof = message["hello"], message["proof"]
            right = hmac.compare_digest(proof, _proof(self._secret, "rank", stranger.nonce, hello))
            return (
                hello
                if right and isinstance(hello["rank"], int) and isinstance(hello["who"], dict) and "nonce" in hello
                else None
            )
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def _welcome(self, stranger: _Stranger, hello: dict[str, Any]) -> None:
        """Answer a rank that knows the secret, and serve it unless it belongs elsewhere."""
        connection, rank = stranger.connection, hello["rank"]
        refusal = self._refusal(hello)
        answer = {"refused": refusal, "nonce": hello["nonce"]}
        connection.setblocking(True)
        notice_a_dead_host(connection, SILENCE_SECONDS)
        try:
            connection.sendall(_line({**answer, "proof": _proof(self._secret, "rank 0", stranger.nonce, answer)}))
        except OSError:
            connection.close()
            return
        if refusal:
            connection.close()
            return
        keys = SignedLines(
            _proof(self._secret, "from rank 0", stranger.nonce, hello).encode(),
            _proof(self._secret, "to rank 0", stranger.nonce, hello).encode(),
        )
        self.attach(
            connection.fileno(),
            connection.fileno(),
            described(rank, hello["who"]),
            functools.partial(_shut, connection),
            connection.close,
            keys,
        )
        with self._changed:
            self.present[rank] = hello["who"]
            self._changed.notify_all()

    def _refusal(self, hello: dict[str, Any]) -> str:
        rank = hello["rank"]
        if hello.get("token") != self._token:
            return "it belongs to another run"
        if hello.get("world") != self._world:
            return f"it expects {hello.get('world')} ranks, and rank 0 expects {self._world}"
        if not 0 < rank < self._world:
            return f"there is no rank {rank}"
        return f"rank {rank} is there already" if rank in self.present else ""

    def _drop(self, selector: selectors.BaseSelector, stranger: _Stranger) -> None:
        self.dropped += 1
        del self._strangers[stranger.connection]
        selector.unregister(stranger.connection)
        stranger.connection.close()


def is_own(host: str) -> bool:
    """True if a host's name or address belongs to this host."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.bind(address)
    except OSError:
        return False
    return True


def tcp_seat(address: tuple[str, int], secret: bytes, rank: int, world: int, who: Mapping[str, Any], token: str = "",
             timeout: float = 60.0) -> Seat:  # fmt: skip
    """Join rank 0 as `rank`; it may begin to listen up to `timeout` seconds later.

    Raises:
        KvdeckError: Rank 0 isn't there, doesn't know the secret, or refuses this rank.
    """
    hello = {"rank": rank, "world": world, "token": token, "who": dict(who)}
    where, deadline, closed = f"{address[0]}:{address[1]}", time.monotonic() + timeout, 0
    while True:
        try:
            connection = socket.create_connection(address, timeout=HANDSHAKE_SECONDS)
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            seat = _introduced(connection, where, secret, {**hello, "nonce": secrets.token_hex(32)})
            if seat is not None:
                return seat
            closed, reason = closed + 1, "it closed the connection"
            if closed == _REFUSALS:
                raise KvdeckError(
                    f"rank 0 at {where} does not accept this rank's proof",
                    f"give all ranks the same {SECRET_VARIABLE}",
                )
        if time.monotonic() >= deadline:
            raise KvdeckError(
                f"rank 0 is not at {where} ({reason}), after {number_text(timeout)} s",
                "start rank 0, or give its address to every rank with --rendezvous",
            )
        time.sleep(_PAUSE_SECONDS)


def _introduced(connection: socket.socket, where: str, secret: bytes, hello: dict[str, Any]) -> Seat | None:
    """Return the seat after both have proven themselves; None if rank 0 closed the connection."""
    lines = LineBuffer(_LONGEST_HELLO)
    try:
        nonce = _message(connection, lines)["nonce"]
        proof = _proof(secret, "rank", nonce, hello)
        connection.sendall(_line({"hello": hello, "proof": proof}))
        answer = _message(connection, lines)
        expected = _proof(secret, "rank 0", nonce, {"refused": answer["refused"], "nonce": hello["nonce"]})
        if not hmac.compare_digest(expected, answer["proof"]):
            raise KvdeckError(f"the process at {where} does not know the run's secret", "check --rendezvous")
        if answer["refused"]:
            raise KvdeckError(f"rank 0 at {where} refused this rank: {answer['refused']}", "start the run again")
    except (EOFError, OSError):
        connection.close()
        return None
    except (KeyError, TypeError, ValueError) as error:
        connection.close()
        raise KvdeckError(f"the process at {where} is not rank 0 of a run of kvdeck", "check --rendezvous") from error
    except KvdeckError:
        connection.close()
        raise
    connection.settimeout(None)
    notice_a_dead_host(connection, SILENCE_SECONDS)
    keys = SignedLines(
        _proof(secret, "to rank 0", nonce, hello).encode(), _proof(secret, "from rank 0", nonce, hello).encode()
    )
    return Seat(
        connection.fileno(), connection.fileno(), described(hello["rank"], hello["who"]), connection.close, keys
    )


def _message(connection: socket.socket, lines: LineBuffer) -> dict[str, Any]:
    """Return the next message of the handshake.

    Raises:
        EOFError: The connection was closed.
        ValueError: It is no message.
    """
    while True:
        data = connection.recv(1)  # byte by byte: what follows the handshake belongs to the seat
        if not data:
            raise EOFError
        for line in lines.take(data):
            message = load_record(line)
            if not isinstance(message, dict):
                raise ValueError("no JSON object")
            return message
        if lines.dropped:
            raise ValueError("the line is too long")


def _proof(secret: bytes, role: str, nonce: str, said: Mapping[str, Any]) -> str:
    """Return the HMAC of rank 0's nonce and what was said, with the sayer's role, so that it can't be sent back."""
    text = orjson.dumps([role, nonce, said], option=orjson.OPT_SORT_KEYS)
    return hmac.digest(secret, text, hashlib.sha256).hex()


def _line(message: Mapping[str, Any]) -> bytes:
    return orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE)


def _listening(address: tuple[str, int]) -> socket.socket:
    host, port = address
    if host in _LOOPBACK:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=128
        )
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)
    return socket.create_server(("", port), backlog=128)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
