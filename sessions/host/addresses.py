"""Checks that an address has no credential in it, because addresses are shown, stored and shared."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from kvdeck.sessions.errors import UsageError

_SECRET = re.compile(
    r"token|secret|passw|pwd|api_?key|^key$|auth|bearer|credential|^sig(nature)?$|jwt|session_?id|access_?key|^code$",
    re.IGNORECASE,
)
_LOOKS_SECRET = re.compile(r"eyJ[A-Za-z0-9_-]{10,}|(sk|hf|ghp|glpat|xox[bp])[-_][A-Za-z0-9_-]{10,}")
FIX = "set KVDECK_MONITOR_TOKENS_FILE to a file of mode 0600 with lines `http://host:port=TOKEN`"


def refuse_credentials(address: str, what: str = "the address", fix: str = FIX) -> str:
    """Return the address if it has no credential: no user or password, no token in its query, fragment or path.

    Raises:
        UsageError: It has one; the message repeats only the host.
    """
    text = address if "://" in address else f"//{address}"
    rest = text.partition("//")[2]
    # Not `urlsplit`: it refuses some addresses that a user could still type with a password.
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    found = "a user or password" if at and user else _secret_in(text)
    if found:
        raise UsageError(f"{what} of {host[:80] or 'a host'} must not carry {found}", fix)
    return address


def carries_credentials(address: str) -> bool:
    """True if `refuse_credentials` rejects the address."""
    try:
        refuse_credentials(address)
    except UsageError:
        return True
    return False


def _secret_in(text: str) -> str:
    if "?" not in text and "#" not in text and ";" not in text:
        return "a token" if "://" in text and _LOOKS_SECRET.search(text) else ""
    try:
        parts = urlsplit(text)
    except ValueError:
        return ""
    given = [*parse_qsl(parts.query, keep_blank_values=True), *parse_qsl(parts.fragment, keep_blank_values=True)]
    for segment in parts.path.split("/"):
        given += parse_qsl("&".join(segment.split(";")[1:]), keep_blank_values=True)
    for name, value in given:
        if _SECRET.search(name) or _LOOKS_SECRET.search(value):
            return f"{name[:40]!r}" if _SECRET.search(name) else "a token"
    return "a token" if _LOOKS_SECRET.search(text) else ""
