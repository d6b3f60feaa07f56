"""The options of `kvdeck run`, made from the table of a run's fields, and their parsing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from kvdeck.engine.run_field import RunField, in_order
from kvdeck.sessions.errors import UsageError

_STRUCTURE = ("layers", "outer_dims", "page_size", "inner_dim", "dtype")


def options_of(fields: tuple[RunField, ...]) -> list[click.Option]:
    """Return a click option per field. Click passes their text through: `spec_from_mapping` checks all values."""
    return [_option(row) for row in in_order(fields) if row.option]


def headings_of(fields: tuple[RunField, ...]) -> dict[str, str]:
    """Return the heading of each field's option, by the field's name."""
    return {row.name: row.group for row in fields if row.option}


def _option(row: RunField) -> click.Option:
    spelling, _, metavar = row.option.partition(" ")
    if "/--no-" in spelling:
        return click.Option([spelling, row.name], default=None, help=row.help)
    if row.kind == "flag":
        value = not spelling.startswith("--no-")
        return click.Option([spelling, row.name], is_flag=True, flag_value=value, default=None, help=row.help)
    many = row.kind in ("names", "pairs")
    return click.Option([*spelling.split("/"), row.name], multiple=many, metavar=metavar, help=row.help)


def asked_mapping(values: Mapping[str, Any], fields: tuple[RunField, ...]) -> dict[str, Any]:
    """Return the options that were given, as a mapping for `spec_from_mapping`.

    Raises:
        UsageError: An option's text can't be parsed, or two options contradict each other.
    """
    given = [row for row in in_order(fields) if values.get(row.name) not in (None, ())]
    mapping = {row.name: _read(row, values[row.name]) for row in given if row.option}
    structure = [row for row in given if row.name in _STRUCTURE]
    if "block_size" in mapping and structure:
        raise UsageError(f"--block-size and {structure[0].option} both set the block size", "give only one of them")
    return mapping


def over_file(asked: Mapping[str, Any], from_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's spec overridden by the options; plugin parameters are merged key by key."""
    merged = dict(from_file)
    if any(key in asked for key in _STRUCTURE):
        merged["block_size"] = None
    if "params" in asked:
        merged["params"] = {**merged.get("params", {}), **asked["params"]}
    return {**merged, **{key: value for key, value in asked.items() if key != "params"}}


def _read(row: RunField, value: Any) -> Any:
    if isinstance(value, bool):
        return value if row.kind == "flag" else row.text(value)
    if row.kind == "names":
        return [name for text in value for name in text.split(",")]
    if row.kind == "pairs":
        return dict(_pair(row, text) for text in value)
    try:
        read = row.read(value)
        return row.checked(read, "the options") if row.kind == "range" else read
    except UsageError as error:
        raise UsageError(f"{_spelling(row)}: {error.what}", error.fix) from error


def _pair(row: RunField, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{_spelling(row)} {text!r} is not KEY=VALUE", "write it like --param num_threads=4")
    return key, value


def _spelling(row: RunField) -> str:
    return row.option.split("/")[0].split()[0]
