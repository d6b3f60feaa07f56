"""Text reports of a telemetry sample, for `kvdeck monitor`."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence

from kvdeck.app.text.monitor_names import source_name
from kvdeck.app.text.served_text import served_lines, transfer_bandwidth, unknown_text
from kvdeck.engine.telemetry.sample import Flow, Number, Snapshot
from kvdeck.sessions.text.run_report import Line, Tone
from kvdeck.sessions.text.tables import TextColumn, fit, render
from kvdeck.sessions.units import UNKNOWN, exact_size_text, many, quantity_text

_DULL = frozenset(
    [
        "engine",
        "model_name",
        "served_model_name",
        "hostname",
        "worker_id",
        "inode",
        "router_id",
        "policy_class",
        "phase",
        "dynamo_namespace",
        "dynamo_component",
    ]
)
OTHER_COLUMNS = 38
"""Columns reserved beside a metric's name for its value and rate."""
LEAST_NAME = 40
"""Columns that a metric's name and labels have at least."""
_BAD = ("stale", "unreachable", "reset")


def arrow(flow: Flow) -> str:
    """Return a flow's tiers as `G1 → G2`; `?` for a tier that its source doesn't report."""
    return f"{flow.source_tier or '?'} → {flow.target_tier or '?'}"


def flow_total(flow: Flow) -> str:
    """Return the bytes moved in total (`≈` if computed from blocks), or the blocks if the bytes are unknown."""
    if flow.bytes_total is not None:
        return ("≈ " if flow.bytes_from_blocks else "") + quantity_text(flow.bytes_total, "B")
    return quantity_text(flow.blocks_total, "blocks")


def flow_before(flow: Flow) -> str:
    """Return what the source had counted before watching began, in the unit of `flow_total`."""
    return _amount(flow, flow.bytes_before, flow.blocks_before)


def flow_gained(flow: Flow) -> str:
    """Return what moved since watching began, in the unit of `flow_total`; `–` after a single reading."""
    return _amount(flow, flow.bytes_gained, flow.blocks_gained)


def _amount(flow: Flow, size: float | None, blocks: float | None) -> str:
    if flow.bytes_total is None:
        return quantity_text(blocks, "blocks")
    about = "≈ " if flow.bytes_from_blocks and size is not None else ""
    return about + quantity_text(size, "B")


def flow_rate(flow: Flow) -> str:
    """Return the current rate in bytes per second, or in blocks per second if the bytes are unknown."""
    if flow.bytes_total is not None:
        return quantity_text(flow.bytes_per_s, "B/s")
    return quantity_text(flow.blocks_per_s, "blocks/s")


def one_line(snapshot: Snapshot) -> str:
    """Return the moving flows with their rates, the number of sources per state, and the number of warnings."""
    moving = [f"{arrow(f)} {flow_rate(f)} ({f.name})" for f in snapshot.flows if f.bytes_per_s or f.blocks_per_s]
    states = Counter(source.state for source in snapshot.sources)
    sources = ", ".join(f"{count} {state}" for state, count in states.items()) or "no sources"
    looks = sum(found.verdict == "warning" for found in snapshot.checks)
    parts = [" · ".join(moving) or "no transfers", sources, *([many(looks, "warning")] if looks else [])]
    return " · ".join(parts)


def monitor_lines(snapshot: Snapshot, width: int) -> list[Line]:
    """Return the report of `kvdeck monitor --once`, at most `width` columns wide."""
    lines = [Line("Sources", "heading"), *_sources(snapshot, width), *served_lines(snapshot, width)]
    if snapshot.flows:
        lines += [Line(""), Line("Flows", "heading"), *_flows(snapshot, width), *_block_sizes(snapshot, width)]
    for title, numbers in (("Counters", snapshot.counters), ("Gauges", snapshot.gauges), ("Pinned", snapshot.pinned)):
        shown = [number for number in numbers if number.group != "model" and (number.value or number.group != "errors")]
        if shown:
            lines += [Line(""), Line(title, "heading"), *_numbers(shown, width)]
    if snapshot.checks:
        lines += [Line(""), Line("Checks", "heading")]
        for found in snapshot.checks:
            tone: Tone = "warning" if found.verdict == "warning" else "plain"
            lines += [Line(text, tone) for text in _wrapped(f"{found.verdict}: {found.evidence}", width)]
            if found.advice:
                lines += [Line(text) for text in _wrapped(f"  {found.advice_text}", width)]
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="      ")


def _sources(snapshot: Snapshot, width: int) -> list[Line]:
    if not snapshot.sources:
        return [Line("no source found · fix: name one with --source")]
    lines = []
    for row in snapshot.sources:
        lines.append(
            Line(f"  {row.state:<11}  {row.kind:<10}  {row.name}", "warning" if row.state in _BAD else "plain")
        )
        if row.unknown:
            lines.append(Line(f"{' ' * 27}{unknown_text(row)}: --pin NAME shows any, --pin '*' all"))
        if row.reason:
            lines += [Line(f"{' ' * 27}{text}") for text in textwrap.wrap(row.reason, max(20, width - 27))]
    return lines


def _flows(snapshot: Snapshot, width: int) -> list[Line]:
    rows = snapshot.flows
    sources = tuple(source_name(row.source) for row in rows)
    return _table(
        [
            TextColumn("", "move", tuple(arrow(row) for row in rows), left=True),
            TextColumn("", "flow", tuple(row.name for row in rows), left=True),
            TextColumn("", "before", tuple(flow_before(row) for row in rows)),
            TextColumn("", "watched", tuple(flow_gained(row) for row in rows)),
            TextColumn("", "now", tuple(flow_rate(row) for row in rows)),
            TextColumn(
                "", "per transfer s", tuple(quantity_text(transfer_bandwidth(row), "B/s") for row in rows), rank=4
            ),
            TextColumn("", "transfers", tuple(quantity_text(row.transfers_total, "") for row in rows), rank=2),
            TextColumn("", "failures", tuple(quantity_text(row.failures_total, "") for row in rows), rank=3),
            TextColumn("", "source", sources, left=True, rank=0 if len(set(sources)) > 1 else 1),
        ],
        width,
    )


def _block_sizes(snapshot: Snapshot, width: int) -> list[Line]:
    """Return the block sizes used to compute bytes from blocks, with their provenance."""
    claims = dict.fromkeys(
        f"≈ blocks of {exact_size_text(round(flow.bytes_total / flow.blocks_total))}, {flow.bytes_claim}"
        for flow in snapshot.flows
        if flow.bytes_from_blocks and flow.bytes_total and flow.blocks_total
    )
    return [Line(text) for claim in claims for text in _wrapped(claim, width)]


def _numbers(rows: list[Number], width: int) -> list[Line]:
    sources = tuple(source_name(row.source) for row in rows)
    # Which of several sources a number is of is known only by this column, so names are cut before it is dropped.
    beside = max(map(len, sources)) + 2 if len(set(sources)) > 1 else 0
    most = max(LEAST_NAME, width - OTHER_COLUMNS - beside)
    names = tuple(
        _cut(row.name, name[len(row.name) :], most) for row, name in zip(rows, distinct_names(rows), strict=True)
    )
    columns = [
        TextColumn("", "metric", names, left=True),
        TextColumn("", "value", tuple(number_value(row) for row in rows)),
        TextColumn("", "now", tuple(quantity_text(row.per_s, _per_second(row.unit)) for row in rows), rank=2),
        TextColumn("", "source", sources, left=True, rank=1 if beside else 3),
    ]
    if all(row.per_s is None for row in rows):  # gauges have no rate
        del columns[2]
    return _table(columns, width)


def number_value(number: Number) -> str:
    """Return a number in its unit; a dash for a ratio outside 0 to 1, by which an exporter says that it has none."""
    if number.unit == "ratio" and not 0 <= number.value <= 1:
        return UNKNOWN
    return quantity_text(number.value, number.unit)


def _per_second(unit: str) -> str:
    return "B/s" if unit == "bytes" else f"{unit}/s"


def _cut(name: str, labels: str, most: int) -> str:
    """Return name and labels in at most `most` columns. The name loses its end first: the labels tell rows apart."""
    if len(name) + len(labels) <= most:
        return name + labels
    left = max(most // 3, most - len(labels))
    name = name if len(name) <= left else f"{name[: left - 1]}…"
    text = name + labels
    return text if len(text) <= most else f"{text[: most - 1]}…"


def labels_text(number: Number) -> str:
    """Return the values of a series' distinguishing labels, in brackets; empty without any."""
    shown = ", ".join(value for key, value in number.labels.items() if value and key not in _DULL)
    return f" ({shown})" if shown else ""


def distinct_names(rows: Sequence[Number]) -> list[str]:
    """Return each series' name and labels; labels that usually tell nothing are added where two rows need them."""
    names = [row.name + labels_text(row) for row in rows]
    alike = Counter((row.source, name) for row, name in zip(rows, names, strict=True))
    differing: dict[tuple[str, str], list[str]] = {}
    for place, row in enumerate(rows):
        if alike[row.source, names[place]] > 1:
            key = row.source, row.name
            if key not in differing:
                same = [other.labels for other in rows if (other.source, other.name) == key]
                differing[key] = [label for label in row.labels if len({labels.get(label) for labels in same}) > 1]
            shown = ", ".join(f"{label} {row.labels.get(label, UNKNOWN)}" for label in differing[key])
            names[place] = f"{row.name} ({shown})"
    return names


def _table(columns: list[TextColumn], width: int) -> list[Line]:
    return [Line(text) for text in render(fit(columns, width)[0], width)]
