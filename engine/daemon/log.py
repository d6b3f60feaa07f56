"""The engine's log file, limited in size, which also receives its stdout and stderr."""

from __future__ import annotations

import logging
import os
from pathlib import Path

MAX_BYTES = 1 << 20
"""Size in bytes above which the log is renamed to `engine.log.1` and a new one starts."""


class EngineLog(logging.StreamHandler):  # type: ignore[type-arg]
    """Write to stderr, which is the log file, and rotate that file when it exceeds `MAX_BYTES`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        # The file behind stderr and not the path's: native libraries write to it, too.
        if os.fstat(2).st_size > MAX_BYTES:
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            point_output_at(self._path)


def point_output_at(path: Path) -> None:
    """Append this process's stdout and stderr, including native libraries', to a file."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def start_log(path: Path) -> None:
    """Start logging to `path` at level INFO, with stdout and stderr redirected there."""
    point_output_at(path)
    handler = EngineLog(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
