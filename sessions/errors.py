"""The errors that reach an operator: what is wrong, where, and the mend."""

from __future__ import annotations


class KvdeckError(Exception):
    """An error whose message may be shown as it is, in one line.

    Args:
        what: What is wrong and where, naming the thing.
        mend: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        super().__init__(f"{what} · {mend}" if mend else what)
        self.what = what
        self.mend = mend


class UsageError(KvdeckError):
    """What was asked can't be asked: exit status 2."""

    exit_code = 2


class SessionError(KvdeckError):
    """A session can't be found, read or written."""


class UnavailableError(KvdeckError):
    """A path, backend or plugin can't run on this host."""


class EngineError(KvdeckError):
    """The engine can't be reached, or refused a command."""
