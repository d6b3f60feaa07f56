"""Arguments of a hooked call, whether passed by position or by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def arguments(args: Sequence[Any], named: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the values of the call's first parameters.

    Args:
        args: Positional arguments without `self`.
        named: Keyword arguments.
        names: Names of the parameters, in order.

    Raises:
        KeyError: One of them was not passed.
    """
    return [args[index] if index < len(args) else named[name] for index, name in enumerate(names)]
