"""The engine's own log: bounded in size, and whatever reaches stdout or stderr is in it too."""

from __future__ import annotations

import logging
import os
from pathlib import Path

MAX_BYTES = 1 << 20
"""Size at which the log becomes `engine.log.1` and a new one begins."""


class EngineLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr, which is the log file, and starts that file anew when it is full."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if os.fstat(2).st_size > MAX_BYTES:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            point_output_at(self._path)


def point_output_at(path: Path) -> None:
    """Send this process's stdout and stderr, native libraries' too, to the end of a file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def start_log(path: Path) -> None:
    """Log to `path` from now on."""
    point_output_at(path)
    handler = EngineLog(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
