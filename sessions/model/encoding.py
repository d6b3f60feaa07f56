"""Records as JSON: how they are written, and read with every field's type checked.

orjson writes, because files keep its spelling of numbers (`1e+16`); msgspec reads.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import msgspec
import orjson

from kvdeck.sessions.host.documents import check_record

Record = TypeVar("Record")


class RecordError(ValueError):
    """Data is not the expected record; the message names the field: `$.results[3].step: expected int, got str`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(_text(error))


def _text(error: Exception) -> str:
    what, _, path = str(error).partition(" - at `")
    if isinstance(error, msgspec.ValidationError):
        return f"{path.removesuffix('`') or '$'}: {what[:1].lower()}{what[1:]}".replace("`", "")
    return f"no valid JSON: {error}" if isinstance(error, msgspec.DecodeError) else str(error)


def fields_of(record: Any) -> dict[str, Any]:
    """Return a record's JSON fields, without unset ones, those of records inside unconverted.

    Raises:
        TypeError: It is no record.
    """
    if not isinstance(record, msgspec.Struct):
        raise TypeError(f"no record: {type(record).__name__}")
    config = record.__struct_config__
    cls = type(record)
    if _renames(cls):
        names = zip(cls.__struct_encode_fields__, cls.__struct_fields__, strict=True)
        fields = {key: getattr(record, name) for key, name in names}
    else:
        fields = msgspec.structs.asdict(record)
    fields = {name: value for name, value in fields.items() if value is not msgspec.UNSET}
    return fields if config.tag_field is None else {config.tag_field: config.tag, **fields}


def json_form(record: Any) -> dict[str, Any] | tuple[Any, ...]:
    """Return a record's JSON fields as `fields_of`, or its values if its JSON form is an array.

    This is the `default` of `orjson.dumps`.
    """
    if isinstance(record, msgspec.Struct) and record.__struct_config__.array_like:
        return msgspec.structs.astuple(record)
    return fields_of(record)


@functools.cache
def _renames(cls: type[msgspec.Struct]) -> bool:
    """True if a field's name in JSON, which files keep, is not its name in code; `structs.asdict` knows only that."""
    return cls.__struct_encode_fields__ != cls.__struct_fields__


def encode_line(record: Any) -> bytes:
    """Return the record as one line, newline included."""
    return orjson.dumps(record, default=json_form, option=orjson.OPT_APPEND_NEWLINE)


def encode_document(record: Any) -> bytes:
    """Return the record as an indented document, newline included."""
    return orjson.dumps(record, default=json_form, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def decode(cls: type[Record], data: bytes) -> Record:
    """Build a record from JSON text; unknown fields are ignored, so newer files can be read.

    Raises:
        RecordError: The text is not JSON, or not that record; the message names the field.
    """
    try:
        check_record(data)
        return msgspec.json.decode(data, type=cls)
    except (ValueError, RecursionError) as error:
        raise RecordError(error) from error


def convert(cls: type[Record], data: Any) -> Record:
    """Build a record from its JSON fields, as `decode` does from text.

    Raises:
        RecordError: A required field is missing or has another type; the message names the field.
    """
    try:
        return msgspec.convert(data, cls)
    except (ValueError, RecursionError) as error:
        raise RecordError(error) from error


def checked(record: Record) -> Record:
    """Return a record made from foreign data, as it comes back from its file.

    Raises:
        RecordError: It can't be written: a number is not finite or has more than 64 bits, or a type is wrong.
    """
    try:
        return decode(type(record), orjson.dumps(record, default=json_form))
    except TypeError as error:
        raise RecordError(error) from error
