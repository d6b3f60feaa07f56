"""Tasks that belong to a group: `TaskGroup` for every Python, and the failure of a part of the engine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

if sys.version_info >= (3, 11):
    from asyncio import TaskGroup as TaskGroup
    from builtins import BaseExceptionGroup as BaseExceptionGroup
else:
    from exceptiongroup import BaseExceptionGroup as BaseExceptionGroup
    from taskgroup import TaskGroup as TaskGroup


class PartFailedError(Exception):
    """A part of a process died of an unexpected error."""


async def _part(name: str, work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        raise failure_of(name, error) from error


def start_part(group: TaskGroup, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Start a task that belongs to `group`; an error that ends it ends the group, with the part's name."""
    return group.create_task(_part(name, work), name=name)


def failure_of(name: str, error: BaseException) -> PartFailedError:
    """Return the failure of a part, which names it and the error; a failure that has a name already stays."""
    if isinstance(error, PartFailedError):
        return error
    return PartFailedError(f"its {name} failed: {type(error).__name__}: {error}")


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
