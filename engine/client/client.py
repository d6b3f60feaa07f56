"""The client that the command line and user interface use to connect to the engine and send commands."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kvdeck.engine import protocol
from kvdeck.engine.children.doctor_report import doctor_report as doctor_report
from kvdeck.engine.client import shutdown
from kvdeck.engine.client.launch import TRY_SECONDS, attach, reap, start_and_attach
from kvdeck.engine.daemon import runtime
from kvdeck.engine.daemon.folders import home_folder
from kvdeck.engine.lines import LineBuffer
from kvdeck.engine.protocol import MAX_LINE, Command, FromEngine, Goodbye, Hello, Reply
from kvdeck.sessions.errors import EngineError, UsageError
from kvdeck.sessions.host.processes import identity
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.store.store import Store

if TYPE_CHECKING:
    from kvdeck.engine.spec import RunSpec

CONNECT_SECONDS = 10.0
REPLY_SECONDS = 30.0


def home() -> Path:
    """Return the folder of sessions and logs; it may not exist yet."""
    return home_folder()


def store() -> Store:
    """Return the session store in `home()`; reading it needs no engine."""
    return Store(home())


def engine_pid() -> int | None:
    """Return the pid of this user's engine; None if none runs."""
    record = runtime.read_record(runtime.runtime_folder())
    return record.process.pid if record is not None and record.process.alive else None


def stop_engine(force: bool = False) -> int | None:
    """Stop this user's engine, of any version, and return its pid; see `shutdown.stop_engine`."""
    return shutdown.stop_engine(runtime.runtime_folder(), force)


def log_path() -> Path:
    """Return the path of the engine's log."""
    return runtime.log_path(home())


class EngineGone(EngineError):
    """The engine ended or closed the connection; connect again."""


def encoded(command: Command, number: int) -> bytes:
    """Return the line that sends a command with this id."""
    return protocol.encode(replace(command, id=number))


def submission(
    spec: RunSpec | Mapping[str, Any], session: str | None = None, kind: str = protocol.TRANSFER
) -> protocol.Submit:
    """Return the command that queues a job; a relative `folder` in it is resolved against the current directory."""
    mapping = dict(spec) if isinstance(spec, Mapping) else spec.to_mapping()
    if isinstance(mapping.get("folder"), str):
        # The engine's own current folder is `/`.
        mapping["folder"] = str(expanded(mapping["folder"]).absolute())
    if not mapping.get("peer"):
        return protocol.Submit(0, mapping, session, kind)
    environment = {name: os.environ[name] for name in protocol.CARRIED if name in os.environ}
    return protocol.Submit(0, mapping, session, kind, environment)


def checked(reply: Reply | None, command: Command, home: Path) -> Reply:
    """Return the reply if it reports success.

    Raises:
        EngineError: The engine refused the command, or there is no reply.
        UsageError: The engine rejected the command as invalid.
    """
    if reply is None:
        raise EngineError(f"the engine doesn't answer ({command.type})", f"see {runtime.log_path(home)}")
    if not reply.ok:
        error = UsageError if reply.exit_code == UsageError.exit_code else EngineError
        raise error(reply.error or f"{command.type} was refused", reply.fix or reply.mend or "")
    return reply


def gone(farewell: str) -> EngineGone:
    """Return the error for a lost connection; `farewell` is the reason in the engine's `goodbye`, if it sent one."""
    why = f": {farewell}" if farewell else ""
    return EngineGone(
        f"the connection to the engine is lost{why}", f"attach again; see {runtime.log_path(home())} for the reason"
    )


class Client:
    """A connection to the engine. Thread-safe: one waiting thread reads the socket for all."""

    def __init__(self, connected: socket.socket, timeout: float = CONNECT_SECONDS) -> None:
        """Take over a connected socket and wait for the engine's `hello`, at most `timeout` seconds.

        Raises:
            EngineError: The engine doesn't answer, or uses another protocol version.
        """
        self._socket = connected
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._lines = LineBuffer(16 * MAX_LINE)
        self._inbox: deque[FromEngine] = deque()
        self._replies: dict[int, Reply] = {}
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._reading = False
        self._gone = False
        self._farewell = ""
        """Reason in the engine's `goodbye`."""
        self._closed = False
        self._last_id = 0
        connected.settimeout(REPLY_SECONDS)
        try:
            self.hello = self._wait_for_hello(timeout)
        except BaseException:
            connected.close()
            raise

    @classmethod
    def connect(cls, start: bool = True, timeout: float = CONNECT_SECONDS) -> Client:
        """Connect to this user's engine.

        Args:
            start: Start an engine if none runs.
            timeout: Seconds until the engine's `hello` must have arrived.

        Raises:
            EngineError: No engine runs, it doesn't start, or its home differs from `KVDECK_HOME`.
        """
        deadline = time.monotonic() + timeout
        folder = runtime.prepare_runtime(runtime.runtime_folder())
        while True:
            connected = attach(folder)
            if connected is None and not start:
                raise EngineError("no engine is running", "start it with `kvdeck engine start`")
            connected = connected or start_and_attach(folder, home(), deadline)
            try:
                client = cls(connected, max(1.0, deadline - time.monotonic()))
                break
            except EngineGone:
                # An ending engine still accepts connections for a moment.
                if time.monotonic() > deadline:
                    raise
                time.sleep(TRY_SECONDS)
        if os.environ.get("KVDECK_HOME") and client.home != home():
            client.close()
            raise EngineError(
                f"the engine stores its sessions in {client.home}, but KVDECK_HOME is {home()}",
                "stop the engine, or also set KVDECK_RUNTIME to start a second engine",
            )
        return client

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def home(self) -> Path:
        """Home folder of the engine."""
        return Path(self.hello.home)

    @property
    def store(self) -> Store:
        """Session store of the engine."""
        return Store(self.home)

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def fileno(self) -> int:
        """Return the descriptor for `select`; first call `receive(0)` until None, as messages may be buffered."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the connection; calls waiting in other threads return at once. The engine and its runs continue."""
        with self._changed:
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._reading, timeout=1.0)
        self._socket.close()

    def hand_over(self) -> tuple[socket.socket, list[FromEngine], LineBuffer]:
        """Return the socket and what was read from it so far; this client is of no use afterwards."""
        with self._changed:
            self._closed = True
            return self._socket, list(self._inbox), self._lines

    # --- commands ---

    def request(self, command: Command, timeout: float = REPLY_SECONDS) -> Reply:
        """Send a command with a new id and return its reply.

        Raises:
            EngineError: The engine refused the command, ended, or doesn't reply within `timeout` seconds.
            UsageError: The engine rejected the command as invalid.
        """
        # Ids go up in the order of the lines: both under one lock.
        with self._sending:
            self._last_id += 1
            number = self._last_id
            self._send(encoded(command, number))
        return checked(self._wait(lambda: self._replies.pop(number, None), timeout), command, self.home)

    def submit(
        self, spec: RunSpec | Mapping[str, Any], session: str | None = None, kind: str = protocol.TRANSFER
    ) -> str:
        """Queue a job; a relative `folder` in it is resolved against the current directory.

        Returns:
            The session's name.
        """
        return str(self.request(submission(spec, session, kind)).data["session"])

    def cancel(self, session: str) -> None:
        """Cancel a queued or running run, or a telemetry recording; returns before it has ended."""
        self.request(protocol.Cancel(0, session))

    def status(self) -> dict[str, Any]:
        """Return `{pid, started, kvdeck, home, runtime, clients, idle_exit_s, runs, recordings}`."""
        return self.request(protocol.Status(0)).data

    def stop(self, force: bool = False, timeout: float = 60.0) -> None:
        """Stop the engine and wait at most `timeout` seconds until it has ended.

        Raises:
            EngineError: A run or recording is active and `force` is false, or the engine doesn't end in time.
        """
        self.request(protocol.StopEngine(0, force))
        deadline = time.monotonic() + timeout
        engine = identity(self.hello.engine_pid)
        while engine is not None and engine.alive:
            reap()
            if time.monotonic() > deadline:
                raise EngineError(f"engine {engine.pid} has not exited", f"see {runtime.log_path(self.home)}")
            time.sleep(TRY_SECONDS)

    def subscribe(
        self, session: str | None = None, from_seq: int = 0, hz: float = 10.0, readonly: bool = False
    ) -> Reply:
        """Subscribe to the queue and, if named, a run from a line on. Reply data: `{session, live_from}`."""
        return self.request(protocol.Subscribe(0, session, from_seq, hz, readonly))

    def watch(
        self,
        hz: float = 1.0,
        sources: Sequence[str] = (),
        block_bytes: float | None = None,
        pins: Sequence[str] = (),
        stuck_s: float | None = None,
        after_ns: int | None = None,
        quiet: bool = False,
        request: int = 0,
    ) -> None:
        """Request `hz` `WatchSample` messages per second; 0 ends them. Without sources: those discovered.

        Requests of different numbers are answered side by side.
        """
        watched = hz, tuple(sources), block_bytes, tuple(pins), stuck_s, after_ns, quiet, request
        self.request(protocol.WatchTelemetry(0, *watched))

    def record(
        self,
        name: str,
        hz: float = 1.0,
        sources: Sequence[str] = (),
        block_bytes: float | None = None,
        pins: Sequence[str] = (),
        limit_bytes: int | None = None,
        stuck_s: float | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> Reply:
        """Start a telemetry recording in the engine; it continues after this client disconnects.

        Raises:
            UsageError: The name is invalid or taken, or a number is invalid.
            EngineError: The session can't be written.
        """
        recorded = hz, tuple(sources), block_bytes, tuple(pins), limit_bytes, stuck_s
        return self.request(protocol.StartRecording(0, name, *recorded, limits=None if not limits else dict(limits)))

    def stop_recording(self, name: str) -> None:
        """End a telemetry recording; `RecordingsChanged` reports the end."""
        self.request(protocol.StopRecording(0, name))

    def annotate(self, name: str, text: str, kind: str = "note") -> None:
        """Add an annotation to a telemetry recording, stamped with the current time."""
        self.request(protocol.Annotate(0, name, text, kind))

    # --- messages ---

    def receive(self, timeout: float | None = None) -> FromEngine | None:
        """Return the next message other than a reply; None after `timeout` seconds or once this client is closed.

        Raises:
            EngineGone: The engine ended or closed the connection.
        """
        message: FromEngine | None = self._wait(self._next_message, timeout)
        return message

    def _next_message(self) -> FromEngine | None:
        return self._inbox.popleft() if self._inbox else None

    def messages(self, timeout: float | None = None) -> Iterator[FromEngine]:
        """Yield messages until none arrives for `timeout` seconds or this client is closed.

        Raises:
            EngineGone: The engine ended or closed the connection.
        """
        while (message := self.receive(timeout)) is not None:
            yield message

    def _send(self, line: bytes) -> None:
        try:
            self._socket.sendall(line)
        except OSError as error:
            raise self._lost() from error

    def _lost(self) -> EngineGone:
        return gone(self._farewell)

    def _wait_for_hello(self, timeout: float) -> Hello:
        hello = self.receive(timeout)
        if not isinstance(hello, Hello):
            record = runtime.read_record(runtime.runtime_folder())
            who = f"engine {record.process.pid}" if record is not None else "the engine"
            raise EngineError(f"{who} doesn't answer", f"see {log_path()}; if it hangs: `kvdeck engine stop --force`")
        if hello.version != protocol.VERSION:
            raise EngineError(
                f"the engine of kvdeck {hello.kvdeck} uses protocol {hello.version}, not {protocol.VERSION}",
                "run `kvdeck engine stop`; the next command starts a new engine",
            )
        return hello

    def _wait(self, take: Callable[[], Any], timeout: float | None) -> Any:
        """Return the first result of `take` other than None; meanwhile read, unless another thread does.

        None on timeout or close; raises EngineGone if the engine has gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        tried = False
        with self._changed:
            while (found := take()) is None and not self._closed:
                if self._gone:
                    raise self._lost()
                left = None if deadline is None else deadline - time.monotonic()
                if tried and left is not None and left <= 0:
                    break
                tried = True
                if self._reading:
                    self._changed.wait(left)
                else:
                    self._read(left)
        return found

    def _read(self, timeout: float | None) -> None:
        """Read the socket once. Call with the condition held; it is released during the read."""
        self._reading = True
        self._changed.release()
        data: bytes | None = None
        try:
            ready = self._poll.poll(None if timeout is None else max(0.0, timeout * 1000))
            # Polled before: a blocking `recv` would hold a thread that `close` must be able to release.
            data = self._socket.recv(1 << 18, socket.MSG_DONTWAIT) if ready else None
        except BlockingIOError:
            data = None
        except (OSError, ValueError):
            data = b""
        finally:
            self._changed.acquire()
            self._reading = False
            self._changed.notify_all()
        if data is not None:
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._gone = not data
        for line in self._lines.take(data):
            try:
                message = protocol.decode(line)
            except ValueError:
                continue
            if isinstance(message, Goodbye):
                self._farewell = message.reason
            elif isinstance(message, Reply):
                self._replies[message.id] = message
            elif isinstance(message, FromEngine):
                self._inbox.append(message)
