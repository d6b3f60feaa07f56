"""Transfer counts as a Parquet file, one row per path and layout; needs pyarrow."""

from __future__ import annotations

import importlib
import importlib.util
import typing
from collections.abc import Sequence
from typing import Any

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.encoding import convert
from kvdeck.sessions.model.records import TransferCounts

MAGIC = b"PAR1"


def encode(name: str, transfer_counts: Sequence[TransferCounts]) -> bytes:
    """Return the file's bytes. Counts are unsigned 64-bit; histograms are lists of two-field structs.

    Raises:
        SessionError: pyarrow is not installed.
    """
    arrow, parquet = _library()
    columns: dict[str, list[Any]] = {"session": [name] * len(transfer_counts)}
    for field in TransferCounts.__struct_fields__:
        columns[field] = [getattr(counts, field) for counts in transfer_counts]
    for histogram, first in _HISTOGRAMS.items():
        columns[histogram] = [[{first: value, "count": n} for value, n in pairs] for pairs in columns[histogram]]
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.table(columns, schema=_schema(arrow)), sink)
    return bytes(sink.getvalue().to_pybytes())


def decode(data: bytes) -> tuple[str, list[TransferCounts]]:
    """Return the session's name and its transfer counts; unknown columns are ignored.

    Raises:
        SessionError: pyarrow is not installed.
        ValueError: The data is not Parquet, or has other columns.
    """
    arrow, parquet = _library()
    try:
        rows = parquet.read_table(arrow.BufferReader(data)).to_pylist()
    except (OSError, arrow.ArrowException) as error:
        raise ValueError(str(error)) from error
    transfer_counts = []
    for row in rows:
        histograms = {name: _pairs(row.get(name), first) for name, first in _HISTOGRAMS.items()}
        transfer_counts.append(convert(TransferCounts, {**row, **histograms}))
    return str(rows[0].get("session") or "") if rows else "", transfer_counts


def _pairs(items: Any, first: str) -> list[tuple[Any, Any]]:
    return [(item[first], item["count"]) for item in items or ()]


_HISTOGRAMS = {"sizes": "bytes", "times": "seconds"}


def _schema(arrow: Any) -> Any:
    plain = {str: arrow.string(), int: arrow.uint64(), float: arrow.float64()}
    fields = [("session", arrow.string())]
    for name, hint in typing.get_type_hints(TransferCounts).items():
        if name in _HISTOGRAMS:
            kind = arrow.uint64() if name == "sizes" else arrow.float64()
            pair = arrow.struct([(_HISTOGRAMS[name], kind), ("count", arrow.uint64())])
            fields.append((name, arrow.list_(pair)))
        else:
            fields.append((name, next(plain[kind] for kind in (hint, *typing.get_args(hint)) if kind in plain)))
    return arrow.schema(fields)


def _library() -> tuple[Any, Any]:
    if importlib.util.find_spec("pyarrow") is None:
        raise SessionError("Parquet needs pyarrow, which is not installed", "install `kvdeck[parquet]`, or use csv")
    return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
