"""Variables of the environment that decide what UCX, NIXL, CUDA and libfabric do, whoever set them."""

from __future__ import annotations

import os
import re

_DECIDING = re.compile(r"(UCX|NIXL|CUDA|FI|CUFILE|DYN|DYNAMO)_[A-Z0-9_]+")
_OWN = ("CUFILE_LOGFILE_PATH",)
_HARMLESS = re.compile(r"CUDA_(HOME|VERSION|PATH|ROOT|BIN_PATH|TOOLKIT\w*)|\w*LOG\w*")
"""Where things lie and what is printed: they decide no transfer."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|_KEY$|AUTH", re.IGNORECASE)


def deciding_variables() -> dict[str, str]:
    """Name to value, by name; a value that is secret by its name is not shown."""
    return {
        name: "(not shown)" if _SECRET.search(name) else value
        for name, value in sorted(os.environ.items())
        if _DECIDING.fullmatch(name) and name not in _OWN
    }


def blamed(prefixes: tuple[str, ...]) -> str:
    """The variables with these prefixes in words, to be named where what they decide has failed; empty without any."""
    found = [
        f"{name}={value}"
        for name, value in deciding_variables().items()
        if name.startswith(prefixes) and not _HARMLESS.fullmatch(name)
    ]
    return f" · set in its environment: {', '.join(found)}" if found else ""
