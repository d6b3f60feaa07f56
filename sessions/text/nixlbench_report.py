"""kvdeck's results in nixlbench's columns, counted as nixlbench counts them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from kvdeck.sessions.formats.nixlbench import SAME_RATE, NixlbenchRow
from kvdeck.sessions.model.records import StepResult
from kvdeck.sessions.text.markdown import table
from kvdeck.sessions.text.tables import TextColumn, fit, render, wrapped
from kvdeck.sessions.units import count_text, figure, many

LINK_GB_PER_S = 50.0
"""Bandwidth of a link that nixlbench assumes for its network utilisation, on any network."""


def as_row(result: StepResult) -> NixlbenchRow | None:
    """Return a result as a nixlbench row: nixlbench's own, or kvdeck's counted as nixlbench counts.

    nixlbench (`xferBenchUtils::printStats` in benchmark/nixlbench/src/utils/utils.cpp at nixl's commit 8770b655) prints

        B/W      = block · batch · N / T in 1e9 bytes/s, N iterations of all threads
        Avg Lat. = T / (N / threads · batch), so per descriptor

    where T is the wall time of the whole timed region: `execTransfer` in nixl_worker.cpp starts its clock before the
    threads, and stops it when all have created their request, run their iterations and released it. Here T is the wall
    time of all rounds, and the time to make lists and request once. A median over rounds would be another figure: it
    leaves out the stalls that T includes.

    None if there is no total time (a session of an earlier version), or if nixlbench prints no row for these devices.
    """
    if theirs := result.settings.get("nixlbench"):
        return NixlbenchRow(
            **{field.name: theirs[field.name] for field in dataclasses.fields(NixlbenchRow) if field.name in theirs}
        )
    wall = _wall_s(result, result.settings.get("wall_s"))
    if not wall or not result.bytes:
        return None
    times: dict[str, Any] = {
        f"{name}{suffix}_us": statistic
        for name, found in (("prep", result.prep_us), ("post", result.post_us), ("transfer", result.transfer_us))
        if found is not None
        for suffix, statistic in (("", found.mean), ("_p99", found.p99))
    }
    if scheme := result.settings.get("scheme"):
        return _paired_row(result, scheme, wall, times)
    threads = result.settings.get("threads") or 1
    latency = wall * 1e6 * threads / (result.iterations * result.batch)
    return NixlbenchRow(result.block_bytes, result.batch, result.bytes / wall / 1e9, latency, **times)


def _wall_s(result: StepResult, rounds_s: float | None) -> float | None:
    """Return nixlbench's total time in s for the wall time of the rounds."""
    if rounds_s is None:
        return None
    once_us = (result.settings.get("prep_lists_us") or 0.0) + (result.prep_us.mean if result.prep_us else 0.0)
    return rounds_s + once_us / 1e6


def _paired_row(
    result: StepResult, scheme: Mapping[str, Any], wall: float, times: Mapping[str, Any]
) -> NixlbenchRow | None:
    """Return the row that nixlbench's first initiator prints for several devices, or None if it prints none.

    nixlbench divides one pair's bytes by that process's wall time. It counts the bytes of all initiator devices if they
    share a process and the scheme is pairwise, or if they transfer to files. Each process measures its own time, so
    with several processes the rate is that of initiator 0.

    Args:
        result: The step's result.
        scheme: How devices are paired: `settings.scheme`.
        wall: Total time of the step in s.
        times: Prep, post and transfer times by field.
    """
    threads, several = result.settings.get("threads") or 1, scheme["lanes"] > 1
    if _unpaired(scheme):
        return None
    rates = _lane_rates(result, scheme["lanes"]) if several else [result.bytes / wall / 1e9]
    served = scheme["pairs"] // scheme["lanes"]
    counted = scheme["initiators"] if not several and scheme["scheme"] == "pairwise" else 1
    latency = result.block_bytes * served * threads / rates[0] / 1e3 / counted
    row = NixlbenchRow(result.block_bytes, scheme["batch"], rates[0] / served * counted, latency, **times)
    if not (several and scheme["scheme"] == "pairwise"):
        return row
    whole, pairs_of_processes = sum(rates), (scheme["initiators"] + scheme["targets"]) // 2
    percent = whole / (pairs_of_processes * LINK_GB_PER_S) * 100
    return dataclasses.replace(row, aggregate_gb_per_s=whole, network_percent=percent)


def _lane_rates(result: StepResult, lanes: int) -> list[float]:
    """Return the GB/s of each initiator over its own total time: that of its slowest thread."""
    walls = result.settings.get("lanes_wall_s") or [result.settings["wall_s"]] * lanes
    own = [max(_wall_s(result, wall) or 0.0 for wall in walls[lane::lanes]) for lane in range(lanes)]
    return [result.bytes / lanes / wall / 1e9 for wall in own]


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
    note = (
        "B/W and avg lat. are of the step's whole wall time, as nixlbench counts; avg lat. is per descriptor. The "
        "request's time, at the right, is from post to completion."
    )
    head = "In nixlbench's columns:"
    requests = [
        TextColumn("request", f"{name} (µs)", tuple("–" if result.request_us is None else figure(
            getattr(result.request_us, name)) for result, _ in pairs))
        for name in ("p50", "p99")
    ] if any(result.request_us for result, _ in pairs) else []  # fmt: skip
    body = render(fit([*nixlbench_columns(pairs), *requests], width)[0], width)
    return ["", head, *body, *wrapped(note, width), *_scheme_lines(results, width)]


def imported_lines(results: Sequence[StepResult], width: int = 100) -> list[str]:
    """Return rows that nixlbench printed, in its columns; what the output doesn't have is a dash."""
    pairs = [(result, row) for result in results if (row := as_row(result)) is not None]
    kept, dropped = fit(nixlbench_columns(pairs), width)
    lines = [text[:width] for text in render(kept, width)]
    if dropped:
        left_out = ", ".join(f"{column.over} {column.head}".strip() for column in reversed(dropped))
        lines += wrapped(f"  (more columns when wider: {left_out})", width, "  ")
    assumed = next((result.settings["assumed"] for result in results if result.settings.get("assumed")), None)
    if assumed:
        names = ", ".join(f"{name} {value}" for name, value in assumed.items())
        lines += wrapped(f"  assumed, because the output doesn't have its configuration: {names}", width, "    ")
    return lines


def nixlbench_table(results: Sequence[StepResult]) -> list[str]:
    """Return nixlbench's rows as a Markdown table, after the path of each."""
    pairs = [(result, row) for result in results if (row := as_row(result)) is not None]
    columns = nixlbench_columns(pairs)
    titles = ("path", *(f"{column.over} {column.head}".strip() for column in columns))
    cells = zip([result.path for result, _ in pairs], *(column.cells for column in columns), strict=True)
    return table(titles, cells, right=len(columns))


def nixlbench_columns(pairs: Sequence[tuple[StepResult, NixlbenchRow]]) -> list[TextColumn]:
    """Return nixlbench's columns, with a dash for what a row doesn't have."""
    rows = [row for _, row in pairs]

    def column(over: str, head: str, field: str, rank: int = 0) -> TextColumn:
        return TextColumn(over, head, tuple(figure(getattr(row, field)) for row in rows), rank=rank)

    paired = all(result.settings.get("scheme") for result, _ in pairs)
    many = any(row.aggregate_gb_per_s is not None for row in rows)
    others = dict.fromkeys(name for row in rows for name in row.more if name not in SAME_RATE)
    return [
        TextColumn("block", "size (B)", tuple(count_text(row.block_bytes) for row in rows)),
        TextColumn("batch", "size", tuple(count_text(row.batch) for row in rows)),
        column("B/W", "(GB/s)", "gb_per_s"),
        *([column("aggr. B/W", "(GB/s)", "aggregate_gb_per_s"),
           column("network", "util (%)", "network_percent", rank=4)] if many else []),
        *([TextColumn("all pairs", "(GB/s)", tuple(figure(result.gb_per_s.median if result.gb_per_s else None)
                                                   for result, _ in pairs))] if paired else []),
        column("avg lat.", "(µs/desc)", "latency_us"),
        *(
            column(f"{word} (µs)", statistic, f"{field}{suffix}_us", rank=rank)
            for word, field, rank in (("prep", "prep", 2), ("post", "post", 1), ("tx", "transfer", 0))
            for statistic, suffix in (("avg", ""), ("p99", "_p99"))
        ),
        *(TextColumn("", name[:24], tuple(figure(row.more.get(name)) for row in rows), rank=3) for name in others),
    ]  # fmt: skip
