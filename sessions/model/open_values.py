"""The types of those values in a record's open mappings that texts and comparisons use; other keys may hold anything."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

Number = int | float
Unset = UnsetType


class SchemeValues(Struct):
    """`settings.scheme` of a result: how several devices were paired."""

    scheme: str
    mode: str
    initiators: int
    targets: int
    storage: bool
    pairs: int
    lanes: int
    batch: int
    device: str


class SettingValues(Struct):
    """`settings` of a result."""

    threads: int | None | Unset = UNSET
    pipeline_depth: int | None | Unset = UNSET
    files: int | None | Unset = UNSET
    processes: int | None | Unset = UNSET
    rounds: int | None | Unset = UNSET
    cores: list[list[int] | int] | None | Unset = UNSET
    params: dict[str, Any] | None | Unset = UNSET
    environment: dict[str, str] | None | Unset = UNSET
    scheme: SchemeValues | None | Unset = UNSET
    lanes_gb_per_s: list[Number] | None | Unset = UNSET
    measured_by: str | None | Unset = UNSET


class SpecValues(Struct):
    """`spec` of a session."""

    hz: Number | None | Unset = UNSET
    block_bytes: Number | None | Unset = UNSET
    limit_bytes: Number | None | Unset = UNSET
    params: dict[str, Any] | None | Unset = UNSET


def check_open(values: dict[str, Any], kind: type[Struct], name: str) -> None:
    """Check the known keys of an open mapping.

    Args:
        values: The mapping.
        kind: The struct that types them.
        name: Of the mapping in the record, for the message.

    Raises:
        ValueError: A value has another type; the message names its key.
    """
    try:
        msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$")
        raise ValueError(f"{name}{path.removesuffix('`')}: {what[:1].lower()}{what[1:]}") from error
