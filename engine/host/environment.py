"""Environment variables that configure UCX, NIXL, CUDA, cuFile, libfabric and Dynamo."""

from __future__ import annotations

import os
import re

_DECIDING = re.compile(r"(UCX|NIXL|CUDA|FI|CUFILE|DYN|DYNAMO)_[A-Z0-9_]+")
# Set by doctor's own probes.
_OWN = ("CUFILE_LOGFILE_PATH",)
_HARMLESS = re.compile(r"CUDA_(HOME|VERSION|PATH|ROOT|BIN_PATH|TOOLKIT\w*)|\w*LOG\w*")
"""Variables of install locations and logging, which don't affect transfers."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|_KEY$|AUTH", re.IGNORECASE)


def deciding_variables() -> dict[str, str]:
    """Return those variables, sorted by name; values are hidden if the name suggests a secret."""
    return {
        name: "(not shown)" if _SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if _DECIDING.fullmatch(name) and name not in _OWN
    }


def blamed(prefixes: tuple[str, ...]) -> str:
    """Return text that lists the set variables with these prefixes, for an error message; empty without any."""
    found = [
        f"{name}={value}"
        for name, value in deciding_variables().items()
        if name.startswith(prefixes) and not _HARMLESS.fullmatch(name)
    ]
    return f" · set in its environment: {', '.join(found)}" if found else ""
