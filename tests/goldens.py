"""Files that hold the exact bytes kvdeck writes: a reader of an older version must find what it knows."""

from __future__ import annotations

import os
from pathlib import Path


def check_golden(path: Path, data: bytes) -> None:
    """Compare with a golden file byte for byte; `WRITE_GOLDENS=1` writes it anew, for a new format."""
    if os.environ.get("WRITE_GOLDENS"):
        path.write_bytes(data)
    assert data == path.read_bytes(), path.name
