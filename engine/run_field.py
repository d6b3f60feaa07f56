"""A field of a run as a row: its check, its option on the command line, its place in the Run form.

The rows are written as the fields of `engine.spec.RunSpec`; their order is that of run.yaml.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar

from kvdeck.engine.quantities import MOST, Range, checked_range, parse_size
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS

T = TypeVar("T")

Kind = Literal["flag", "count", "decimal", "range", "names", "pairs", "choice", "text"]
_KINDS: dict[type, Kind] = {bool: "flag", int: "count", float: "decimal", Range: "range", tuple: "names", dict: "pairs"}
BYTES = "bytes"
AUTO = "auto"
"""Text of a value that is left to the engine."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A field's place in the Run form."""

    column: str
    label: str
    hint: str
    choices: tuple[str, ...] = ()
    """Values to choose from, if the field itself takes any value, or under fewer names."""
    key: str = ""
    """Name in the saved form, if it is not the field's; of a sweep, the part before `_from` and `_to`."""


@dataclass(frozen=True, slots=True)
class RunField:
    """One field of a run. Its kind, default and choices follow from the declaration in `RunSpec`."""

    name: str
    kind: Kind
    default: Any
    optional: bool
    """True if null leaves the value to the engine."""
    option: str
    """Spellings and placeholder: `--threads N`, `--pin/--no-pin`; empty without an option."""
    group: str
    """Heading of the option in the help."""
    help: str
    doc: str
    choices: tuple[str, ...]
    zero: bool
    most: int
    unit: str
    after: str
    paths: tuple[str, ...]
    cell: Cell | None
    parse: Callable[[str], str] | None

    def read(self, text: str) -> Any:
        """Return the value that a text on the command line or in the form stands for; `checked` checks it.

        Raises:
            UsageError: The text is not a size.
        """
        if self.kind == "flag":
            return {"on": True, "off": False}.get(text, text)
        if self.kind == "decimal":
            return _decimal(text)
        if self.kind == "count":
            return parse_size(text) if self.unit == BYTES else int(text) if _WHOLE.fullmatch(text) else text
        return text

    def text(self, value: Any) -> str:
        """Return a value as `read` takes it; `auto` for null."""
        if value is None:
            return AUTO
        return ("on" if value else "off") if isinstance(value, bool) else str(value)

    def checked(self, value: Any, source: str) -> Any:
        """Return a value from YAML, JSON or an option in the field's type.

        Raises:
            UsageError: The value is invalid; the message names the field and the fix.
        """
        if value is None and self.optional:
            return None
        if value is None:
            raise UsageError(f"{self.name} in {source} is empty", "give it a value or omit it")
        return _CHECKS[self.kind](self, value, source)


def run_field(
    default: T,
    option: str,
    group: str,
    help: str,
    *,
    doc: str = "",
    choices: tuple[str, ...] = (),
    zero: bool = False,
    most: int = MOST,
    unit: str = "",
    after: str = "",
    paths: tuple[str, ...] = PATHS,
    form: Cell | None = None,
    parse: Callable[[str], str] | None = None,
) -> T:
    """Declare a field of a run, as the value of a dataclass field.

    Args:
        default: Null leaves the choice to the engine.
        option: Spellings and placeholder on the command line; empty: no option.
        group: Heading of the option in the help.
        help: Help of the option.
        doc: Description in the documentation, if the help is too short for it.
        choices: Accepted texts; those of a `Literal` follow from it.
        zero: True if a number may be 0.
        most: Largest number.
        unit: Unit of a number; `BYTES`: texts may end in K, M or G.
        after: Field that precedes this one in the help and the form, if it is not the one above.
        paths: Paths on which the field has an effect.
        form: Place in the Run form.
        parse: Returns the canonical spelling of a text, or raises UsageError.
    """
    row = {
        "option": option,
        "group": group,
        "help": help,
        "doc": doc or help,
        "choices": choices,
        "zero": zero,
        "most": most,
        "unit": unit,
        "after": after,
        "paths": paths,
        "cell": form,
        "parse": parse,
    }
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=row)
    return dataclasses.field(default=default, metadata=row)


def run_fields(spec: type[Any]) -> tuple[RunField, ...]:
    """Return the rows of a dataclass whose fields are declared by `run_field`, in its order."""
    types = typing.get_type_hints(spec)
    return tuple(_row(item, types[item.name]) for item in dataclasses.fields(spec))


def _row(item: dataclasses.Field[Any], hint: Any) -> RunField:
    members = [member for member in typing.get_args(hint) if member is not NoneType]
    optional = NoneType in typing.get_args(hint)
    base = members[0] if optional else hint
    literal = typing.get_origin(base) is Literal
    row = {**item.metadata, **({"choices": typing.get_args(base)} if literal else {})}
    kind = _KINDS.get(typing.get_origin(base) or base) or ("choice" if row["choices"] else "text")
    default = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return RunField(name=item.name, kind=kind, default=default, optional=optional, **row)


def in_order(settings: tuple[RunField, ...]) -> tuple[RunField, ...]:
    """Return the rows in the order of the help and the form: each after the one that its `after` names."""
    following: dict[str, list[RunField]] = {}
    for row in settings:
        following.setdefault(row.after, []).append(row)

    def walk(name: str) -> Iterator[RunField]:
        for row in following.get(name, ()):
            yield row
            yield from walk(row.name)

    return tuple(walk(""))


_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")


def _decimal(text: str) -> float | str:
    """Return the number of `0.02` or `2%`; the text itself if it is neither."""
    part = text.removesuffix("%")
    try:
        value = float(part)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return value / 100 if part != text else value


def _number(row: RunField, value: Any, source: str) -> int | float:
    whole = row.kind == "count"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not _is_finite(value):
        raise UsageError(f"{row.name} in {source} is {value!r}", f"give a {'whole ' * whole}number")
    if value < 0 or (value == 0 and not row.zero):
        raise UsageError(
            f"{row.name} in {source} is {value}", f"give a number {'from 0 up' if row.zero else 'above 0'}"
        )
    if value > row.most:
        raise UsageError(f"{row.name} in {source} is {value}", f"give at most {row.most}")
    return value


def _is_finite(value: int | float) -> bool:
    return isinstance(value, int) or math.isfinite(value)


def _flag(row: RunField, value: Any, source: str) -> bool:
    if not isinstance(value, bool):
        raise UsageError(f"{row.name} in {source} is {value!r}", "use true or false")
    return value


def _names(row: RunField, value: Any, source: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise UsageError(f"{row.name} in {source} is empty", f"give at least one of the {row.name}")
    return tuple(dict.fromkeys(row.parse(str(name)) if row.parse else str(name) for name in names))


def _pairs(row: RunField, value: Any, source: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f"{row.name} in {source} is not a mapping", f"write `{row.name}: {{key: value}}`")
    return {str(name): str(item) for name, item in value.items()}


def _choice(row: RunField, value: Any, source: str) -> str:
    if isinstance(value, bool) and "on" in row.choices:  # YAML 1.1 reads `on` and `off` as booleans
        value = row.text(value)
    text = row.parse(str(value)) if row.parse else str(value)
    text = text.upper() if row.choices[0].isupper() else text
    if text not in row.choices:
        raise UsageError(f"{row.name} {text!r} in {source} is unknown", f"use {', '.join(row.choices)}")
    return text


_CHECKS: dict[Kind, Callable[[RunField, Any, str], Any]] = {
    "flag": _flag,
    "count": _number,
    "decimal": _number,
    "range": lambda row, value, source: checked_range(row.name, value, source),
    "names": _names,
    "pairs": _pairs,
    "choice": _choice,
    "text": lambda _row, value, _source: str(value),
}
