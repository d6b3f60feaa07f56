"""A rank's process on this host: started here, watched, and reported as lost if it ends before it should."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading

from kvdeck.engine.children.child import DEVNULL, PIPE, TAIL_BYTES, Child, exit_reason, last_line
from kvdeck.engine.ranks.board import Board
from kvdeck.engine.ranks.rpc import Remote
from kvdeck.engine.threads import start_thread

CLOSE_SECONDS = 5.0
_LAST_LINES_S = 0.3
"""Time to wait for the end of a dead rank's stderr, since a child of that rank may hold it open."""


class RankProcess(Remote):
    """Calls to a rank in a child process, which it starts and ends."""

    def __init__(self, board: Board, module: str, rank: str) -> None:
        super().__init__(board, rank)
        # In this process's group, so that killing the worker's group ends its ranks too.
        self._process = Child(
            [sys.executable, "-m", module, "--seat", board.address, "--rank", rank, "--parent", str(os.getpid())],
            stdout=DEVNULL,
            stderr=PIPE,
            own_group=False,
        )
        self._closing = False
        self._ended = threading.Event()
        self._tail = b""
        self._stderr = start_thread(f"stderr-{rank}", self._copy_stderr)
        start_thread(f"watch-{rank}", self._watch, self._unwatched)

    def _copy_stderr(self) -> None:
        """Copy the child's stderr to this process's, which is the session's engine.log, and store its tail."""
        with self._process.stderr as stream:
            while data := os.read(stream.fileno(), 65536):
                self._tail = (self._tail + data)[-TAIL_BYTES:]
                with contextlib.suppress(OSError):  # a log on a full disk must not block the rank
                    os.write(2, data)

    def _watch(self) -> None:
        """Report the rank as lost if its process ends before `close`, even if it never connected."""
        status = self._process.wait()
        assert status is not None
        if not self._closing:
            self._stderr.join(_LAST_LINES_S)
            words = last_line(self._tail)[:300]
            how = exit_reason(status) + (f" ({words})" if words else "")
            self._rendezvous.lose(f"{self.rank} (process {self._process.pid}) {how}")
        self._ended.set()

    def _unwatched(self, error: Exception) -> None:
        self._rendezvous.lose(f"{self.rank} (process {self._process.pid}) can't be watched: {error}")
        self._ended.set()

    def close(self) -> None:
        """Request the process to end; kill it after 5 s."""
        self._closing = True
        super().close()
        if not self._ended.wait(CLOSE_SECONDS):
            self._process.signal(signal.SIGKILL)
            self._ended.wait()
