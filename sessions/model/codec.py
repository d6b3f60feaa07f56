"""Type checks for records read from foreign files."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any


def check(record: Any, where: str = "") -> None:
    """Check every field against its declared type, nested records included.

    Raises:
        ValueError: A field has another type; the message names the field.
    """
    kind: type = type(record)
    hints = _hints(kind)
    for field in dataclasses.fields(record):
        _check(hints[field.name], getattr(record, field.name), f"{where}{field.name}")


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _check(hint: Any, value: Any, where: str) -> None:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if not (value is None and type(None) in arguments):
            (inner, *_) = [argument for argument in arguments if argument is not type(None)]
            _check(inner, value, where)
    elif origin is tuple:
        _check_tuple(arguments, value, where)
    elif origin is typing.Literal:
        _demand(value in arguments, where)
    elif dataclasses.is_dataclass(hint):
        _demand(dataclasses.is_dataclass(value), where)
        check(value, f"{where}.")
    elif hint is float:
        _demand(isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value), where)
    elif hint is int:
        _demand(isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64, where)
    else:
        _demand(isinstance(value, origin or hint), where)


def _check_tuple(arguments: tuple[Any, ...], value: Any, where: str) -> None:
    _demand(isinstance(value, tuple), where)
    if arguments[-1] is ...:
        for number, item in enumerate(value):
            _check(arguments[0], item, f"{where}[{number}]")
        return
    _demand(len(value) == len(arguments), where)
    for hint, item in zip(arguments, value, strict=True):
        _check(hint, item, where)


def _demand(holds: bool, where: str) -> None:
    if not holds:
        raise ValueError(f"{where!r} has the wrong type")
