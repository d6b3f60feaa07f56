"""Types of those values in a record's open mappings that texts and comparisons use; other keys may hold anything."""

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


class NixlbenchValues(Struct):
    """`settings.nixlbench` of a result: the row that nixlbench printed."""

    block_bytes: int
    batch: int
    gb_per_s: Number
    latency_us: Number | None = None
    prep_us: Number | None = None
    prep_p99_us: Number | None = None
    post_us: Number | None = None
    post_p99_us: Number | None = None
    transfer_us: Number | None = None
    transfer_p99_us: Number | None = None
    aggregate_gb_per_s: Number | None = None
    network_percent: Number | None = None
    more: dict[str, Number] = {}


class SettingValues(Struct):
    """`settings` of a result."""

    threads: int | Unset | None = UNSET
    pipeline_depth: int | Unset | None = UNSET
    files: int | Unset | None = UNSET
    processes: int | Unset | None = UNSET
    rounds: int | Unset | None = UNSET
    cores: list[list[int] | int] | Unset | None = UNSET
    params: dict[str, Any] | Unset | None = UNSET
    environment: dict[str, str] | Unset | None = UNSET
    scheme: SchemeValues | Unset | None = UNSET
    lanes_gb_per_s: list[Number] | Unset | None = UNSET
    wall_s: Number | Unset | None = UNSET
    lanes_wall_s: list[Number] | Unset | None = UNSET
    prep_lists_us: Number | Unset | None = UNSET
    measured_by: str | Unset | None = UNSET
    nixlbench: NixlbenchValues | Unset | None = UNSET
    assumed: dict[str, str] | Unset | None = UNSET
    pages: list[str] | Unset | None = UNSET
    plain_pages_gb_per_s: Number | Unset | None = UNSET
    disk_bound_gb_per_s: Number | Unset | None = UNSET
    disk_bound: str | Unset | None = UNSET


class SpecValues(Struct):
    """`spec` of a session."""

    hz: Number | Unset | None = UNSET
    block_bytes: Number | Unset | None = UNSET
    limit_bytes: Number | Unset | None = UNSET
    params: dict[str, Any] | Unset | None = UNSET


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
