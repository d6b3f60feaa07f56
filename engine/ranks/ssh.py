"""A peer reached by the system's ssh: the other half of kvdeck runs there, and talks over ssh's stdin and stdout."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence

from kvdeck.engine.children.child import PIPE, TAIL_BYTES, Child, exit_reason, last_line
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.ranks import peer
from kvdeck.engine.ranks.board import Board, LateError
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.engine.threads import start_thread
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.units import number_text

CONNECT_SECONDS = 10
"""Time for ssh to reach a host."""
ALIVE_SECONDS = 5
"""Time between two questions of ssh whether the host is still there."""
_END_SECONDS = 3.0
"""Time for ssh to end by itself after the request to end."""
_SETTLE_SECONDS = 1.0
_OLDER = re.compile("No such (command|option)")
"""Words of an older kvdeck about a command or an option of this one."""
_LAST_LINES_S = 0.3
_NOT_FOUND, _NO_SUCH_VERB, _SSH_ITSELF = 127, 2, 255
_REASONS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "the host key of {0} is not the one in known_hosts",
     "find out why; then `ssh-keygen -R HOST` and connect once by `ssh {0}`"),
    (r"Host key verification failed", "the host key of {0} is unknown",
     "connect once by `ssh {0}` in a terminal, and accept the key if it is right"),
    (r"Permission denied", "{0} accepts no key for this user, and a deck can't ask for a password",
     "check the user in `ssh {0}`; `ssh-copy-id {0}`, or load the key by `ssh-add`"),
    (r"Too many authentication failures", "{0} refused the login after too many keys",
     "set IdentityFile and IdentitiesOnly for it in ~/.ssh/config"),
    (r"Could not resolve hostname", "no host is called {0}", "check the name, or add it to ~/.ssh/config"),
    (r"Connection refused", "no sshd listens on {0}", "start sshd there, or set Port in ~/.ssh/config"),
    (r"timed out|No route to host|Network is unreachable", "{0} does not answer",
     "check the name and the network by `ssh {0} true`"),
    (r"not responding", "{0} stopped answering", "check the link, or give it longer by --peer-timeout"),
)  # fmt: skip
"""What ssh writes, what it means, and the fix."""


def ssh_command(host: str, rank: str, command: str, timeout: float, part: str = "") -> list[str]:
    """Return the command line that starts the other half on a host; the rest is the user's own ssh configuration.

    Args:
        host: As `spec.parse_host` returns it.
        rank: Name of the other half there.
        command: How kvdeck is called there.
        timeout: Seconds of silence after which the host is lost.
        part: What the other half does there, of `kvdeck rank --part`; empty: it serves targets.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": CONNECT_SECONDS,
        "ServerAliveInterval": ALIVE_SECONDS,
        "ServerAliveCountMax": max(1, int(timeout / ALIVE_SECONDS) - 1),
        "ControlMaster": "no",  # a master would outlive the run
        "ClearAllForwardings": "yes",
        "RequestTTY": "no",
        "EscapeChar": "none",
    }
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", *given, "--", host, f"{command} rank --stdio {rank}" + (f" --part {part}" if part else "")]


def open_ssh(
    board: Board, host: str, rank: str, command: str, timeout: float, cancelled: Callable[[], bool] = lambda: False
) -> PeerHost:
    """Start the other half on a host and wait for its greeting.

    Args:
        board: The run's rendezvous.
        rank: Name of the other half there.
        cancelled: True if the run is to end now.

    Raises:
        CancelledError: It was cancelled before the other half was there.
        KvdeckError: The host can't be reached, or has no kvdeck of this version; with the fix.
    """
    try:
        link = SshLink(ssh_command(host, rank, command, timeout), board, host, command)
    except FileNotFoundError:
        raise KvdeckError("this host has no ssh", "install the OpenSSH client (openssh-client)") from None
    board.attach(*link.ends, host, cut=link.cut, close=link.close)
    try:
        return PeerHost(board, rank, host, timeout, link.end, cancelled)
    except CancelledError:
        link.kill()
        raise
    except KvdeckError as error:
        link.settle()
        silent = f"kvdeck on {host} did not answer within {number_text(max(peer.GREETING_SECONDS, timeout))} s"
        late = (silent, f"try `ssh {host} {command} --version`") if isinstance(error, LateError) else None
        what, fix = link.failure or late or (error.what, error.fix)
        link.end()
        raise KvdeckError(what, fix) from error


def open_part(board: Board, host: str, rank: str, command: str, timeout: float, part: str) -> SshLink:
    """Start a rank on a host that serves calls at the board itself, and return what leads to it; arguments as above.

    Raises:
        KvdeckError: This host has no ssh.
    """
    try:
        link = SshLink(ssh_command(host, rank, command, timeout, part), board, host, command)
    except FileNotFoundError:
        raise KvdeckError("this host has no ssh", "install the OpenSSH client (openssh-client)") from None
    board.attach(*link.ends, f"{rank} on {host}", cut=link.cut, close=link.close)
    return link


class SshLink:
    """A running ssh, whose end is reported to the rendezvous with what it means."""

    def __init__(self, argv: Sequence[str], board: Board, host: str, command: str) -> None:
        self._board, self._host, self._command = board, host, command
        # In this process's group, so that killing the worker's group ends it too.
        self._child = Child(argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, own_group=False)
        self.ends = self._child.stdout.fileno(), self._child.stdin.fileno()
        self.failure: tuple[str, str] | None = None
        """What went wrong and the fix, once ssh has ended by itself."""
        self._tail, self._closing = b"", False
        self._ended = threading.Event()
        self._stderr = start_thread("stderr-ssh", self._copy_stderr)
        start_thread("watch-ssh", self._watch, lambda error: board.lose(f"ssh to {host} can't be watched: {error}"))

    def _copy_stderr(self) -> None:
        """Copy what ssh and the other half write to this process's stderr, the session's log; keep its tail."""
        while data := os.read(self._child.stderr.fileno(), 65536):
            self._tail = (self._tail + data)[-TAIL_BYTES:]
            os.write(2, b"".join(self._host.encode() + b": " + line for line in data.splitlines(keepends=True)))

    def _watch(self) -> None:
        status = self._child.wait()
        assert status is not None
        if not self._closing:
            self._stderr.join(_LAST_LINES_S)
            self.failure = ssh_failure(status, self._tail, self._host, self._command)
            self._board.lose(self.failure[0])
        self._ended.set()

    def settle(self) -> None:
        """Give an ssh that has closed its output a moment to end, so that `failure` is known."""
        if self._board.lost is not None:
            self._ended.wait(_SETTLE_SECONDS)

    def cut(self) -> None:
        """Kill an ssh that has closed its output and doesn't end."""
        if not self._ended.wait(_SETTLE_SECONDS):
            self._child.kill()

    def end(self) -> None:
        """End ssh, if it doesn't end by itself soon, which the other half was asked for."""
        self._closing = True
        if not self._ended.wait(0 if self._board.lost else _END_SECONDS):
            self._child.kill()
            self._ended.wait()

    def kill(self) -> None:
        """End ssh at once."""
        self._closing = True
        self._child.kill()
        self._ended.wait()

    def close(self) -> None:
        self._child.close()


def ssh_failure(status: int, written: bytes, host: str, command: str) -> tuple[str, str]:
    """Return why ssh ended and the fix, from its exit status and the last lines of its stderr."""
    text = written.decode(errors="replace")
    words = last_line(written)[:300]
    if status == _SSH_ITSELF:
        for pattern, what, fix in _REASONS:
            if re.search(pattern, text):
                return f"{what.format(host)} ({words})", fix.format(host)
        if words:
            return f"ssh to {host} failed ({words})", f"try `ssh {host} true`"
        return f"kvdeck on {host}, or the connection to it, was killed", "see the other host's system log"
    if status == _NOT_FOUND:
        fix = f"install it there, or say where it is: --peer-command /path/to/kvdeck, or --peer-command 'uvx {command}'"
        return f"there is no `{command}` on {host} ({words})", fix
    if status == _NO_SUCH_VERB and _OLDER.search(text):
        return f"kvdeck on {host} is older than this one ({words})", "install the same version on both hosts"
    how = exit_reason(status) + (f" ({words})" if words else "")
    if status < 0:
        return f"ssh to {host} {how}", "see engine.log"
    return f"kvdeck on {host} {how}", f"try `ssh {host} {command} --version`"
