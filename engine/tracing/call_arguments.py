"""A call's arguments by name, however the program gave them: a hook must take every form that the call itself takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def arguments(args: Sequence[Any], named: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """The values of the call's first parameters.

    Args:
        args: What came by position, the object itself left out.
        named: What came by name.
        names: The parameters in order.

    Raises:
        KeyError: One of them was not given.
    """
    return [args[index] if index < len(args) else named[name] for index, name in enumerate(names)]
