"""Checks of values from model files."""

from __future__ import annotations

import re
from decimal import Decimal

from kvdeck.sessions.errors import UsageError

MOST_LAYERS = 10_000
MAX_COUNT = 2**63 - 1
LONGEST = 48
"""Characters of a value that a message quotes."""


def cut(value: object) -> str:
    """Return a value's `repr`, cut to `LONGEST` characters on one line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def checked_count(name: str, value: object, source: str) -> int:
    """Return a whole number above 0; text such as `116.8e9` or `116_800_000_000` is accepted.

    Raises:
        UsageError: The value is not such a number or exceeds 64 bits; the message names the key.
    """
    text = str(value).replace("_", "") if isinstance(value, (str, float, int)) else ""
    if isinstance(value, (str, float)) and re.fullmatch(
        r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?", text
    ):  # YAML reads 671e9 as text
        exact = Decimal(text)
        value = int(exact) if exact == exact.to_integral_value() else value
    number = value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"{name} in {source} is {cut(value)}", "give a whole number above 0")
    if number > MAX_COUNT:
        raise UsageError(f"{name} in {source} does not fit in 64 bits: {text[:30]}", "give a smaller number")
    return number


def checked_layers(name: str, value: object, source: str) -> int:
    """Return a number of layers.

    Raises:
        UsageError: The value is not a whole number above 0, or above `MOST_LAYERS`.
    """
    layers = checked_count(name, value, source)
    if layers > MOST_LAYERS:
        raise UsageError(f"{name} in {source} is {layers}", f"give at most {MOST_LAYERS}")
    return layers
