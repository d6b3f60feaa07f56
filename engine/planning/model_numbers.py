"""Numbers from files: whole, above 0, and in proportion."""

from __future__ import annotations

import re
from decimal import Decimal

from kvdeck.sessions.errors import UsageError

MOST_LAYERS = 10_000
MAX_COUNT = 2**63 - 1


def checked_count(name: str, value: object, source: str) -> int:
    """A whole number above 0; `116.8e9` and `116_800_000_000` count as one.

    Raises:
        UsageError: It is none; the message names the key.
    """
    text = str(value).replace("_", "")
    if isinstance(value, (str, float)) and re.fullmatch(
        r"[0-9]+(\.[0-9]+)?([eE]\+?[0-9]{1,2})?", text
    ):  # YAML reads 671e9 as text
        exact = Decimal(text)
        value = int(exact) if exact == exact.to_integral_value() else value
    number = value
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise UsageError(f"{name} in {source} is {value!r}", "give a whole number above 0")
    if number > MAX_COUNT:
        raise UsageError(f"{name} in {source} does not fit in 64 bits: {text[:30]}", "give a smaller number")
    return number


def checked_layers(name: str, value: object, source: str) -> int:
    """A count of layers that a model may have.

    Raises:
        UsageError: It is none, or out of all proportion.
    """
    layers = checked_count(name, value, source)
    if layers > MOST_LAYERS:
        raise UsageError(f"{name} in {source} is {layers}", f"give at most {MOST_LAYERS}")
    return layers
