"""This process makes files for its user only, whatever the umask; programs that it runs get the one it was given."""

from __future__ import annotations

import os

PRIVATE = 0o077
_given: int | None = None


def make_private() -> None:
    """Make folders 0700 and files 0600 from now on."""
    global _given
    before = os.umask(PRIVATE)
    _given = before if _given is None else _given


def given() -> int:
    """The umask that this process was started with, for a program that is not kvdeck's; -1 where it was kept."""
    return -1 if _given is None else _given
