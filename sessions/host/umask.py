"""A private umask for this process; other programs that it runs get the original umask."""

from __future__ import annotations

import os

PRIVATE = 0o077
_given: int | None = None


def make_private() -> None:
    """Create folders with mode 0700 and files with 0600 from now on."""
    global _given
    before = os.umask(PRIVATE)
    _given = before if _given is None else _given


def given() -> int:
    """Return the umask this process started with, for child programs other than kvdeck; -1 if it was not changed."""
    return -1 if _given is None else _given
