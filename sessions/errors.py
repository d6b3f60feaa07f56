"""The errors that reach an operator: what is wrong, where, and the mend."""

from __future__ import annotations

MAX_TEXT = 1000
"""Characters of what is wrong; a value from a file can have any length."""


class KvdeckError(Exception):
    """An error whose message may be shown as it is, in one line.

    Args:
        what: What is wrong and where, naming the thing; the middle of a very long one is left out.
        mend: What to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, mend: str = "") -> None:
        if len(what) > MAX_TEXT:
            what = f"{what[: MAX_TEXT // 2]} … {what[-MAX_TEXT // 2 :]}"
        super().__init__(f"{what} · {mend}" if mend else what)
        self.what = what
        self.mend = mend


class UsageError(KvdeckError):
    """What was asked can't be asked: exit status 2."""

    exit_code = 2


class SessionError(KvdeckError):
    """A session can't be found, read or written."""


class ImportedFileError(SessionError):
    """A file that was named can't be read as a session: exit status 2."""

    exit_code = 2


class UnavailableError(KvdeckError):
    """A path, backend or plugin can't run on this host."""


class RunFailedError(KvdeckError):
    """Ends the whole run, not only one step: a rank is lost, or the session can't be written."""


class EngineError(KvdeckError):
    """The engine can't be reached, or refused a command."""
