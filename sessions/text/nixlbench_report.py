"""kvdeck's results in nixlbench's columns, counted as nixlbench counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kvdeck.sessions.formats.nixlbench import NixlbenchRow
from kvdeck.sessions.model.records import StepResult
from kvdeck.sessions.text.tables import TextColumn, fit, render, wrapped
from kvdeck.sessions.units import count_text, figure, many

LINK_GB_PER_S = 50.0
"""Bandwidth of a link that nixlbench assumes for its network utilisation, on any network."""


def as_row(result: StepResult) -> NixlbenchRow | None:
    """Return a kvdeck result as a nixlbench row.

    None if there is no rate, or if nixlbench prints no row for these devices.
    """
    if theirs := result.settings.get("nixlbench"):
        return NixlbenchRow(**theirs)
    if result.gb_per_s is None:
        return None
    times = {
        f"{name}{suffix}_us": statistic
        for name, found in (("prep", result.prep_us), ("post", result.post_us), ("transfer", result.transfer_us))
        if found is not None
        for suffix, statistic in (("", found.mean), ("_p99", found.p99))
    }
    if scheme := result.settings.get("scheme"):
        return _paired_row(result, scheme, times)
    # nixlbench prints wall time × threads / descriptors; here at the median rate.
    latency = result.block_bytes / result.gb_per_s.median / 1e3 * (result.settings.get("threads") or 1)
    return NixlbenchRow(result.block_bytes, result.batch, result.gb_per_s.median, latency, **times)


def _paired_row(result: StepResult, scheme: Mapping[str, Any], times: Mapping[str, float]) -> NixlbenchRow | None:
    """Return the row that nixlbench's first initiator prints for several devices, or None if it prints none.

    nixlbench divides one pair's bytes by that process's wall time. It counts the bytes of all initiator devices if they
    share a process and the scheme is pairwise, or if they transfer to files. Each process measures its own time, so
    with several processes the rate is that of initiator 0.
    """
    assert result.gb_per_s is not None
    threads, several = result.settings.get("threads") or 1, scheme["lanes"] > 1
    if _unpaired(scheme):
        return None
    lanes = result.settings.get("lanes_gb_per_s") or [result.gb_per_s.median]
    own = sum(lanes[:: scheme["lanes"]]) if several else result.gb_per_s.median
    served = scheme["pairs"] // scheme["lanes"]
    counted = scheme["initiators"] if not several and scheme["scheme"] == "pairwise" else 1
    latency = result.block_bytes * served * threads / own / 1e3 / counted
    row = NixlbenchRow(result.block_bytes, scheme["batch"], own / served * counted, latency, **times)
    if not (several and scheme["scheme"] == "pairwise"):
        return row
    whole, pairs_of_processes = sum(lanes), (scheme["initiators"] + scheme["targets"]) // 2
    percent = whole / (pairs_of_processes * LINK_GB_PER_S) * 100
    return dataclasses.replace(row, aggregate_gb_per_s=whole, network_percent=percent)


def _unpaired(scheme: Mapping[str, Any]) -> bool:
    """True if nixlbench's processes find no peer: except in pairwise and manytoone, it pairs only ranks 0 and 1."""
    one_process = scheme["storage"] or scheme["mode"] == "MG"
    return not one_process and scheme["scheme"] not in ("pairwise", "manytoone")


def _scheme_lines(results: Sequence[StepResult], width: int) -> list[str]:
    """Return notes on what counts as a device and how nixlbench counts several; [] without a scheme."""
    found = next((scheme for result in results if (scheme := result.settings.get("scheme"))), None)
    if found is None:
        return []
    lines: list[str] = []
    if found["lanes"] == 1:
        together = found["storage"] or found["mode"] == "MG"
        said = "One request moves all pairs" if together else "An iteration is one request to each target"
        lines += wrapped(f"{said}: a pair's rate is its share of the total, not measured separately.", width)
    return [*lines, *wrapped(_counting(found), width), *wrapped(f"A device here is {found['device']}.", width)]


def _counting(scheme: Mapping[str, Any]) -> str:
    if _unpaired(scheme):
        return (
            f"nixlbench has no row for {scheme['scheme']} in mode SG: its processes beyond ranks 0 and 1 have no peer."
        )
    if scheme["lanes"] > 1:
        if scheme["scheme"] == "pairwise":
            return "nixlbench's B/W is that of its first initiator; its aggregate is the sum of all."
        return (
            "nixlbench's B/W is that of its first initiator, without a sum; released versions hang here (nixl "
            "pull request 2242 fixes it)."
        )
    if scheme["scheme"] == "pairwise":
        return "nixlbench counts all devices of the process here."
    pairs = many(scheme["pairs"], "pair")
    return f"nixlbench counts the bytes of one pair of {pairs} here."


def table_lines(results: Sequence[StepResult], width: int = 100) -> list[str]:
    """Return kvdeck's results in nixlbench's columns, with the request times beside them and notes below."""
    pairs = [(result, row) for result in results if (row := as_row(result)) is not None]
    if not pairs:
        said = _scheme_lines(results, width)
        return ["", *said] if said else []

    def times(field: str) -> tuple[str, ...]:
        return tuple(figure(getattr(row, field)) for _, row in pairs)

    paired = all(result.settings.get("scheme") for result, _ in pairs)
    many = any(row.aggregate_gb_per_s is not None for _, row in pairs)
    columns = [
        TextColumn("block", "size (B)", tuple(count_text(row.block_bytes) for _, row in pairs)),
        TextColumn("batch", "size", tuple(count_text(row.batch) for _, row in pairs)),
        TextColumn("B/W", "(GB/s)", times("gb_per_s")),
        *([TextColumn("aggr. B/W", "(GB/s)", times("aggregate_gb_per_s")),
           TextColumn("network", "util (%)", times("network_percent"), rank=3)] if many else []),
        *([TextColumn("all pairs", "(GB/s)", tuple(figure(result.gb_per_s.median) for result, _ in pairs
                                             if result.gb_per_s))] if paired else []),
        TextColumn("avg lat.", "(µs/desc)", times("latency_us")),
        *(
            TextColumn(f"{word} (µs)", statistic, times(f"{field}{suffix}_us"), rank=rank)
            for word, field, rank in (("prep", "prep", 2), ("post", "post", 1), ("tx", "transfer", 0))
            for statistic, suffix in (("avg", ""), ("p99", "_p99"))
        ),
        *(
            TextColumn("request", f"{name} (µs)", tuple("–" if result.request_us is None else figure(
                getattr(result.request_us, name)) for result, _ in pairs))
            for name in ("p50", "p99")
        ),
    ]  # fmt: skip
    note = (
        "nixlbench's avg lat. is per descriptor: wall time over the descriptors moved. The request's "
        "time, at the right, is from post to completion."
    )
    head = "In nixlbench's columns:"
    body = render(fit(columns, width)[0], width)
    return ["", head, *body, *wrapped(note, width), *_scheme_lines(results, width)]
