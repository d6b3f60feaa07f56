"""Exceptions whose messages are shown to the operator: what is wrong, where, and how to fix it."""

from __future__ import annotations

MAX_TEXT = 1000
"""Maximum characters of `what`; values quoted from files can have any length."""


class KvdeckError(Exception):
    """Base of all errors whose message can be shown to the operator on one line.

    Args:
        what: What is wrong and where; text over `MAX_TEXT` characters loses its middle.
        fix: What to do, as an imperative; empty if unknown. Printed after `fix:`.
    """

    exit_code = 1

    def __init__(self, what: str, fix: str = "") -> None:
        if len(what) > MAX_TEXT:
            what = f"{what[: MAX_TEXT // 2]} … {what[-MAX_TEXT // 2 :]}"
        super().__init__(f"{what} · fix: {fix}" if fix else what)
        self.what = what
        self.fix = fix


class UsageError(KvdeckError):
    """Invalid arguments or options; exit status 2."""

    exit_code = 2


class SessionError(KvdeckError):
    """A session doesn't exist, or can't be read or written."""


class ImportedFileError(SessionError):
    """A file given by the operator can't be read as a session; exit status 2."""

    exit_code = 2


class UnavailableError(KvdeckError):
    """A path, backend or plugin can't run on this host."""


class RunFailedError(KvdeckError):
    """Ends the whole run, not only the current step: a rank is lost, or the session can't be written."""


class EngineError(KvdeckError):
    """The engine is unreachable or rejected a command."""
