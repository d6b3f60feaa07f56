"""Errors as one line for the operator."""

from __future__ import annotations

import logging

from kvdeck.sessions.errors import KvdeckError

log = logging.getLogger("kvdeck.app")


def error_text(error: BaseException) -> str:
    """Return an exception in one line; unexpected ones with their type, and the traceback in the log."""
    if isinstance(error, (KvdeckError, OSError)):
        return str(error)
    log.error("unexpected", exc_info=error)
    return f"unexpected {type(error).__name__}: {error}"
