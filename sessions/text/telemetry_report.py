"""The text report of a telemetry session: duration, sources, flows, gauges, counters, annotations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import UNSET

from kvdeck.sessions import units
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.model.telemetry import CounterTotals, FlowTotals, GaugeTotals, SourceSeen, Spread, TelemetryTotals
from kvdeck.sessions.text.run_report import Line, Tone
from kvdeck.sessions.text.tables import TextColumn, fit, joined, render, table_width, wrapped
from kvdeck.sessions.units import (
    UNKNOWN,
    count_text,
    duration_text,
    exact_size_text,
    many,
    number_text,
    percent_text,
    quantity_text,
    rate_interval_text,
    size_text,
)

SHOWN_MARKS = 20
NOTE = (
    "Rates are medians over the samples with transfers, with a 95 % interval over blocks of neighbouring samples: "
    "consecutive samples are not independent. The mean is over the whole session, idle time included. "
    "≈: blocks times the given block size. GB = 1e9 bytes, GiB = 2^30 bytes."
)


def telemetry_lines(session: Session, width: int = 100) -> list[Line]:
    """Return the report of a telemetry session, at most `width` characters wide."""
    totals = session.telemetry or TelemetryTotals()
    lines = _head(session, totals, width)
    if not totals.moments:
        return [*lines, Line(""), Line("No samples yet." if session.reason is None else "No samples.")]
    return [*lines, *_totals(totals, width), Line(""), *(Line(text) for text in wrapped(NOTE, width))]


def inside_lines(totals: TelemetryTotals, width: int) -> list[Line]:
    """Return what was recorded inside a run, as a part of the run's report."""
    facts = ["Telemetry of that time", duration_text(totals.duration_s), many(totals.moments, "sample")]
    if totals.failure is not UNSET:
        why = f"  The recording did not end well: {totals.failure}"
        trouble = [Line(text, "warning") for text in wrapped(why, width, "  ")]
    else:
        trouble = []
    if not totals.moments:
        return [Line("Telemetry of that time: no samples", "heading"), *trouble]
    return [*(Line(text, "heading") for text in joined(facts, width)), *trouble, *_totals(totals, width)]


def _totals(totals: TelemetryTotals, width: int) -> list[Line]:
    lines = [Line(""), Line("Sources", "heading"), *_sources(totals, width)]
    moved = [flow for flow in totals.flows if flow.rate is not None or flow.bytes_moved or flow.blocks_moved]
    if moved:
        lines += [Line(""), Line("Transfers", "heading"), *_flows(moved, width)]
    still = [flow for flow in totals.flows if flow not in moved]
    if still:
        names = dict.fromkeys(f"{arrow(flow)} {flow.name}" for flow in still)
        lines += [Line(text) for text in wrapped(f"  no transfers: {'; '.join(names)}", width, "    ")]
    if totals.gauges:
        lines += [Line(""), Line("Queues and caches", "heading"), *_gauges(totals.gauges, width)]
    counters = [counter for counter in totals.counters if counter.gained]
    if counters:
        lines += [Line(""), Line("Counted", "heading"), *_counters(counters, width)]
    if totals.marks:
        lines += [Line(""), Line("Marks", "heading"), *_marks(totals, width)]
    return lines


def about(totals: TelemetryTotals) -> str:
    """Return a telemetry session's summary for a list: its moving flows' tiers, duration and number of sources."""
    moves = dict.fromkeys(arrow(flow) for flow in totals.flows if flow.bytes_moved or flow.blocks_moved)
    count = many(len(totals.sources), "source")
    return f"{', '.join(moves) or 'no transfers'} · {duration_text(totals.duration_s)} of {count}"


def arrow(flow: FlowTotals) -> str:
    """Return a flow's tiers as `G1 → G2`; `?` for a tier that its source doesn't report."""
    return f"{flow.source_tier or '?'} → {flow.target_tier or '?'}"


def moved_text(flow: FlowTotals) -> str:
    """Return the bytes a flow moved (`≈` if computed from blocks), or its blocks if the bytes are unknown."""
    if flow.bytes_moved is not None:
        return ("≈ " if flow.bytes_from_blocks else "") + quantity_text(flow.bytes_moved, "B")
    return quantity_text(flow.blocks_moved, "blocks")


def rate_text(spread: Spread | None, unit: str) -> str:
    """Return a rate's median, with its interval if it has one."""
    if spread is None:
        return UNKNOWN
    if spread.low is None or spread.high is None:
        return quantity_text(spread.median, unit)
    return rate_interval_text(spread.median, spread.low, spread.high, unit)


def p95_text(flow: FlowTotals) -> str:
    """Return the 95th percentile of a flow's rate over the samples in which it moved."""
    return quantity_text(flow.rate.p95 if flow.rate else None, flow.unit)


def _head(session: Session, totals: TelemetryTotals, width: int) -> list[Line]:
    state = {"done": "", "running": ", still recording", "queued": ", about to begin"}.get(
        session.state, f", {session.state}"
    )
    bad = session.state in ("failed", "interrupted", "crashed")
    tone: Tone = "warning" if bad else "heading"
    title = f"kvdeck session {session.name}: telemetry of {duration_text(totals.duration_s)}{state}"
    lines = [Line(text, tone) for text in wrapped(title, width)]
    if session.reason:
        lines += [Line(text, tone) for text in wrapped(f"  {session.reason}", width, "  ")]
    facts = [units.local_time(totals.begin or session.created, "%Y-%m-%d %H:%M:%S")]
    facts += [str(session.host["hostname"])] if session.host.get("hostname") else []
    if session.spec.get("hz"):
        facts.append(f"{number_text(session.spec['hz'])} samples/s requested")
    facts.append(f"{many(totals.moments, 'sample')}, {size_text(totals.bytes)} on disk")
    if session.spec.get("block_bytes"):
        facts.append(f"KVBM blocks of {exact_size_text(session.spec['block_bytes'])}")
    facts += [f"tags {', '.join(session.tags)}"] if session.tags else []
    lines += [Line(text) for text in joined(facts, width)]
    lines += [Line(text) for text in joined([session.note], width)] if session.note else []
    for begin, end, every in totals.thinned:
        text = f"thinned: one sample in {count_text(every)} remains from {_clock(begin)} to {_clock(end)}"
        lines.append(Line(text, "warning"))
    return lines


def _clock(t: float) -> str:
    return units.local_time(t, "%H:%M:%S")


def _sources(totals: TelemetryTotals, width: int) -> Iterable[Line]:
    for source in totals.sources:
        bad = set(source.states) & {"unreachable", "stale", "reset", "partial"}
        text = f"  {source.kind:<9}  {source.name}: {states_text(source)}"
        yield from (Line(piece, "warning" if bad else "plain") for piece in wrapped(text, width, " " * 13))


def states_text(source: SourceSeen) -> str:
    """Return each state's share of a source's samples; only the state's name if there is one."""
    total = sum(source.states.values())
    if len(source.states) == 1:
        return next(iter(source.states))
    return ", ".join(f"{state} {percent_text(count / total)}" for state, count in source.states.items())


def _flows(flows: Sequence[FlowTotals], width: int) -> list[Line]:
    columns = _flow_columns(flows)
    if table_width(fit(columns, width)[0], 1) > width:
        return [line for flow in flows for line in _flow_lines(flow, width)]
    return _table(columns, width)


def _flow_lines(flow: FlowTotals, width: int) -> Iterable[Line]:
    """Yield a flow's lines, used if the table doesn't fit the width."""
    yield from (Line(text) for text in wrapped(f"  {arrow(flow)}  {flow.name}", width, "    "))
    said = [moved_text(flow)]
    said += [f"{rate_text(flow.rate, flow.unit)} while moving"] if flow.rate else []
    said += [f"mean {quantity_text(flow.mean, flow.unit)}"] if flow.mean is not None else []
    said += [f"{quantity_text(flow.failures, '')} failed"] if flow.failures else []
    yield from (Line(text) for text in joined(said, width, "    "))


def _flow_columns(flows: Sequence[FlowTotals]) -> list[TextColumn]:
    return [
        TextColumn("", "move", tuple(arrow(flow) for flow in flows), left=True),
        TextColumn("", "flow", tuple(flow.name for flow in flows), left=True),
        TextColumn("", "moved", tuple(moved_text(flow) for flow in flows)),
        TextColumn("median rate", "while moving", tuple(rate_text(flow.rate, flow.unit) for flow in flows)),
        TextColumn("", "p95", tuple(p95_text(flow) for flow in flows), rank=2),
        TextColumn("", "mean", tuple(quantity_text(flow.mean, flow.unit) for flow in flows), rank=1),
        TextColumn("", "moving", tuple(duration_text(flow.moving_s) for flow in flows), rank=3),
        TextColumn("", "failed", tuple(quantity_text(flow.failures, "") for flow in flows), rank=5),
        TextColumn("", "source", tuple(flow.source for flow in flows), left=True, rank=4),
    ]


def _gauges(gauges: Sequence[GaugeTotals], width: int) -> list[Line]:
    return _table(
        [
            TextColumn("", "gauge", tuple(named(gauge) for gauge in gauges), left=True),
            TextColumn("", "median", tuple(quantity_text(gauge.value.median, gauge.unit) for gauge in gauges)),
            TextColumn("", "least", tuple(quantity_text(gauge.value.least, gauge.unit) for gauge in gauges), rank=2),
            TextColumn("", "p95", tuple(quantity_text(gauge.value.p95, gauge.unit) for gauge in gauges), rank=1),
            TextColumn(
                "", "greatest", tuple(quantity_text(gauge.value.greatest, gauge.unit) for gauge in gauges), rank=3
            ),
            TextColumn("", "source", tuple(gauge.source for gauge in gauges), left=True, rank=4),
        ],
        width,
    )


def _counters(counters: Sequence[CounterTotals], width: int) -> list[Line]:
    return _table(
        [
            TextColumn("", "counter", tuple(named(counter) for counter in counters), left=True),
            TextColumn("", "gained", tuple(quantity_text(counter.gained, counter.unit) for counter in counters)),
            TextColumn("", "source", tuple(counter.source for counter in counters), left=True, rank=1),
        ],
        width,
    )


_DULL = ("engine", "model_name", "served_model_name", "dynamo_namespace", "hostname", "worker_id", "inode", "model")


def named(number: GaugeTotals | CounterTotals) -> str:
    """Return a metric's name, with the values of its series' distinguishing labels in brackets."""
    shown = ", ".join(value for key, value in number.labels.items() if key not in _DULL)
    return f"{number.name} ({shown})" if shown else number.name


def _marks(totals: TelemetryTotals, width: int) -> Iterable[Line]:
    for t, text, kind in totals.marks[-SHOWN_MARKS:]:
        said = f"  {_clock(t)}  {text}" if kind in ("note", "end") else f"  {_clock(t)}  {kind}: {text}"
        yield from (Line(piece) for piece in wrapped(said, width, " " * 12))
    if len(totals.marks) > SHOWN_MARKS:
        yield Line(f"  and {count_text(len(totals.marks) - SHOWN_MARKS)} before these")


def _table(columns: Sequence[TextColumn], width: int) -> list[Line]:
    kept, _ = fit(columns, width)
    return [Line(text[:width]) for text in render(kept, width)]
