"""Which method of which owner executes a client's command.

A new command is a class in `protocol` and a method marked `@answers` on its owner.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from kvdeck.engine.protocol import Command

if TYPE_CHECKING:
    from kvdeck.engine.daemon.connection import Connection

Data = dict[str, Any] | None
Handler = Callable[["Connection", Any], "Data | Awaitable[Data]"]
"""Executes a client's command and returns the reply's data; a `KvdeckError` refuses the command."""
Method = TypeVar("Method", bound=Callable[..., object])


def answers(command: type[Command]) -> Callable[[Method], Method]:
    """Mark a method `(connection, command)` as the command's handler; `handlers` finds it."""

    def mark(method: Method) -> Method:
        method.__dict__["answers"] = command
        return method

    return mark


def handlers(*owners: object) -> dict[type[Command], Handler]:
    """Return the handler of each command that these owners answer.

    Raises:
        TypeError: A command has two handlers.
    """
    found: dict[type[Command], Handler] = {}
    for owner in owners:
        for name, method in ((name, getattr(type(owner), name)) for name in dir(type(owner))):
            command = getattr(method, "answers", None)
            if isinstance(command, type) and issubclass(command, Command):
                if command in found:
                    raise TypeError(f"{command.__name__} has two handlers")
                found[command] = getattr(owner, name)
    return found
