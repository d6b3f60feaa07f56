"""The report of a session: the object of `--json`, and the text report.

The text consists of lines with a tone, which the caller may show as a colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from msgspec import UnsetType

from kvdeck.sessions import units
from kvdeck.sessions.model.peers import link_of, peers_of
from kvdeck.sessions.model.records import KIND_V1, Comparison, Percentiles, Session, StepResult, Tuned
from kvdeck.sessions.model.references import against_text, exceeded_text
from kvdeck.sessions.model.step_pages import pages_said
from kvdeck.sessions.stats import LEAST_BLOCKS
from kvdeck.sessions.text.peer_report import each_text, link_text, peer_facts, peer_text
from kvdeck.sessions.text.sweep_report import is_grid, shape_text, sweep_grid, sweep_ratios
from kvdeck.sessions.text.tables import TextColumn, fit, joined, render, table_width, wrapped
from kvdeck.sessions.units import (
    count_text,
    duration_text,
    figure,
    interval_text,
    layout_name,
    many,
    range_text,
    ratio_text,
    short_layout_name,
    size_text,
    time_text,
)

Tone = Literal["plain", "heading", "bad", "warning"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a report. The text of a `bad` or `warning` line is clear without its colour."""

    text: str
    tone: Tone = "plain"


def report_json(session: Session) -> dict[str, Any]:
    """Return the object of `kvdeck run --json`; docs/formats.md describes it."""
    data = msgspec.to_builtins(session)
    return {"session": data.pop("name"), **data, "kind_v1": KIND_V1.get(session.kind, session.kind)}


def report_lines(session: Session, width: int = 100) -> list[Line]:
    """Return the text report, at most `width` characters wide; 80 is enough for all important columns."""
    if is_telemetry(session):
        from kvdeck.sessions.text.telemetry_report import telemetry_lines

        return telemetry_lines(session, width)
    if session.traffic is not None:
        from kvdeck.sessions.text.traffic_report import traffic_text

        rows = [Line(text, "bad" if text == "Wrong bytes:" else "plain") for text in traffic_text(session.traffic)]
        return [*_head(session, width), Line(""), *rows, *telemetry_inside(session, width)]
    if session.kind not in ("run", "traffic"):
        from kvdeck.sessions.text.trace_report import trace_lines  # it imports this module

        if not session.results:
            return trace_lines(session, width)
    lines = _head(session, width)
    measured = [result for result in session.results if _has_figures(result)]
    for path in dict.fromkeys(result.path for result in measured):
        lines += [Line(""), *_path_lines(session, path, width)]
    lines += _without_interval(measured, width)
    lines += _without_figures([result for result in session.results if not _has_figures(result)], width)
    lines += _tuned_lines(session.tuned, width)
    lines += telemetry_inside(session, width)
    return [*lines, Line(""), Line("GB = 1e9 bytes, GiB = 2^30 bytes. Intervals are 95 % intervals of the median.")]


def telemetry_inside(session: Session, width: int) -> list[Line]:
    """Return what was recorded during a run or a trace, as a part of its report; empty if nothing was."""
    if session.telemetry is None:
        return []
    from kvdeck.sessions.text.telemetry_report import inside_lines  # it imports this module

    return [Line(""), *inside_lines(session.telemetry, width)]


def has_samples(session: Session) -> bool:
    """True if telemetry can be replayed: of a telemetry session, or of a run or trace that was recorded."""
    return session.kind == "telemetry" or (session.telemetry is not None and session.kind != "imported")


def is_telemetry(session: Session) -> bool:
    """True if the session holds telemetry recorded by the Monitor."""
    imported = session.kind == "imported" and not session.results and not session.transfer_counts
    return session.kind == "telemetry" or (imported and session.telemetry is not None)


def trouble(session: Session) -> bool:
    """True if a step failed, bytes differed, or the run failed, crashed or was interrupted."""
    if session.traffic is not None and session.traffic.verified is False:
        return True
    return session.state in ("failed", "crashed", "interrupted") or any(
        result.status in ("failed", "suspect") or result.verified is False for result in session.results
    )


def _has_figures(result: StepResult) -> bool:
    return result.gb_per_s is not None or result.request_us is not None


def _head(session: Session, width: int) -> list[Line]:
    title = f"kvdeck session {session.name}: {session.state}"
    if session.ended is not None and session.started is not None:
        title += f" after {duration_text(session.ended - session.started)}"
    tone: Tone = {"done": "heading", "cancelled": "warning"}.get(session.state, "bad")  # type: ignore[assignment]
    lines = [Line(text, tone) for text in wrapped(title, width)]
    if session.reason:
        lines += [Line(text, tone) for text in wrapped(f"  {session.reason}", width, "  ")]
    host = session.host
    facts = [str(host[key]) for key in ("hostname", "cpu") if host.get(key)]
    if host.get("cores"):
        facts.append(many(host["cores"], "core") if isinstance(host["cores"], int) else f"{host['cores']} cores")
    if isinstance(host.get("memory_bytes"), int):
        facts.append(f"{size_text(host['memory_bytes'])} of memory")
    facts += [f"{name} {version}" for name, version in (("NIXL", session.nixl), ("kvdeck", session.kvdeck)) if version]
    lines += [Line(text) for text in joined(facts, width) if facts]
    return lines + [Line(text) for peer in peers_of(host) for text in joined(peer_facts(peer), width)]


def _path_lines(session: Session, path: str, width: int) -> list[Line]:
    results = [result for result in session.results if result.path == path and _has_figures(result)]
    comparisons = [item for item in session.comparisons if item.path == path]
    shapes = dict.fromkeys((result.block_bytes, result.batch) for result in results)
    lines = [Line(text, "heading") for text in joined(_path_facts(path, results), width)]
    if all(result.settings.get("nixlbench") for result in results):
        from kvdeck.sessions.text.nixlbench_report import imported_lines

        return [*lines, *(Line(text) for text in imported_lines(results, width))]
    lines += [Line(text) for text in joined(_work_facts(results, session.spec.get("params") or {}), width, "  ")]
    if is_grid(shapes):
        lines += [Line(text) for text in sweep_grid(results, comparisons, width)]
        lines += _odd_steps(results, width)
        return lines + _limit_lines(results, True, width) + _disturbed(results, True, width)
    lines += _table(results, len(shapes) > 1, width)
    lines += _limit_lines(results, len(shapes) > 1, width)
    lines += _disturbed(results, len(shapes) > 1, width)
    lines += _lanes(results, len(shapes) > 1, width)
    lines += _links(results, len(shapes) > 1, width)
    if len(shapes) > 1:
        return lines + [Line(text) for text in sweep_ratios(comparisons, width)]
    return lines + [Line(text) for item in comparisons for text in wrapped(f"  {verdict_text(item)}", width, "    ")]


def _lanes(results: Sequence[StepResult], sweep: bool, width: int) -> list[Line]:
    """Return each initiator's rate over its own time, for steps with several; the table shows their total."""
    lines: list[Line] = []
    for result in results:
        if lanes := result.settings.get("lanes_gb_per_s"):
            name = f"{layout_name(result.layout)}, {shape_text(result)}" if sweep else layout_name(result.layout)
            text = f"  {name}: per initiator {', '.join(map(figure, lanes))} GB/s, each over its own time"
            lines += [Line(piece) for piece in wrapped(text, width, "    ")]
    return lines


def _links(results: Sequence[StepResult], sweep: bool, width: int) -> list[Line]:
    """Return what each step with a peer took of the link between the hosts, and what its interfaces carried."""
    lines: list[Line] = []
    for result in results:
        if link := link_of(result):
            name = f"{layout_name(result.layout)}, {shape_text(result)}" if sweep else layout_name(result.layout)
            texts = [f"  {name}: {link_text(result, link)}", *(f"    {text}" for text in each_text(link))]
            lines += [Line(piece, _tone(result)) for text in texts for piece in wrapped(text, width, "      ")]
    return lines


def _limit_lines(results: Sequence[StepResult], sweep: bool, width: int) -> list[Line]:
    """Return what plain pages give to the limit, and a sentence per step that exceeded its limit."""
    lines: list[Line] = []
    if text := next(filter(None, map(plain_pages_text, results)), ""):
        lines += [Line(piece) for piece in wrapped(f"  {text}", width, "    ")]
    for result in results:
        if text := exceeded_text(result.reference, result.block_bytes, result.reference_ratio):
            name = f"{layout_name(result.layout)}, {shape_text(result)}" if sweep else layout_name(result.layout)
            lines += [Line(piece, "warning") for piece in wrapped(f"  {name}: {text}", width, "    ")]
    return lines


def plain_pages_text(result: StepResult) -> str:
    """Return what memory on plain pages gives to the limit of a step on huge pages; empty if it wasn't measured."""
    plain, huge = result.settings.get("plain_pages_gb_per_s"), result.reference_gb_per_s
    if not isinstance(plain, float) or not huge:
        return ""
    return (
        f"memory on plain pages: {result.reference} reaches {figure(plain)} GB/s, {ratio_text(plain / huge)} its rate "
        "with these"
    )


def _disturbed(results: Sequence[StepResult], sweep: bool, width: int) -> list[Line]:
    """Return a sentence per step with rounds in which a side waited for its core."""
    lines: list[Line] = []
    for result in results:
        if text := disturbance_text(result):
            name = f"{layout_name(result.layout)}, {shape_text(result)}" if sweep else layout_name(result.layout)
            lines += [Line(piece, "warning") for piece in wrapped(f"  {name}: {text}", width, "    ")]
    return lines


def disturbance_text(result: StepResult) -> str:
    """Return how many rounds were disturbed, and for how long each side had no core; empty without any."""
    found = result.disturbance
    if isinstance(found, UnsetType):
        return ""
    sides = (("the initiator", found.initiator_ms), ("the target", found.target_ms))
    waited = " and ".join(f"{side} waited {time_text(ms * 1e3)}" for side, ms in sides if ms)
    return f"{count_text(found.rounds)} of {many(found.of_rounds, 'round')} were disturbed: {waited} for a core"


def verdict_text(item: Comparison) -> str:
    """Return a comparison as a sentence: the ratio of times, its 95 % interval, and the verdict."""
    return (
        f"{layout_name(item.candidate)} takes {ratio_text(item.ratio)} the time of {layout_name(item.baseline)} "
        f"(95 % interval {range_text(item.low, item.high)}): {item.verdict}"
    )


def _path_facts(path: str, results: Sequence[StepResult]) -> list[str]:
    backends = dict.fromkeys(f"{r.backend} ({r.api})" if r.api else r.backend for r in results)
    facts = [f"{path} over {', '.join(backends)}"]
    facts += _said(_cache_text(r) for r in results)
    facts += ["bytes verified"] if _all_verified(results) else []
    facts += _said({None: "", True: "durable", False: "not fsynced"}[r.durable] for r in results)
    return facts


def _cache_text(result: StepResult) -> str:
    if result.direct is None:
        return ""
    if result.direct and result.page_cache == "bypassed":
        return "O_DIRECT"
    cache = f", page cache {result.page_cache}" if result.page_cache else ""
    return ("O_DIRECT" if result.direct else "buffered") + cache


def _work_facts(results: Sequence[StepResult], asked: Mapping[str, Any]) -> list[str]:
    first = results[0]
    facts = []
    if len({(r.block_bytes, r.batch) for r in results}) == 1:
        request = size_text(first.block_bytes * first.batch)
        facts.append(f"{size_text(first.block_bytes)} per block, {many(first.batch, 'block')} per request ({request})")
        facts.append(f"working set {size_text(first.block_bytes * first.blocks)} ({many(first.blocks, 'block')})")
        if first.reference_gb_per_s is not None:
            facts.append(f"{_reference_word(results)} {first.reference or ''} {figure(first.reference_gb_per_s)} GB/s")
    else:
        facts += _said(f"working set {many(r.blocks, 'block')}" for r in results)
        facts += _said(f"{_reference_word(results)} {r.reference}" if r.reference else "" for r in results)
    return facts + _said(", ".join(_settings_texts(r, asked)) for r in results)


def _settings_texts(result: StepResult, asked: Mapping[str, Any]) -> Iterable[str]:
    """Yield the settings that affect the result and aren't the usual ones.

    Args:
        asked: The spec's plugin parameters; parameters that the spec doesn't set are left out.
    """
    settings = result.settings
    for key, words in _COUNTED.items():
        if (settings.get(key) or 1) > 1:
            yield f"{count_text(settings[key])} {words}"
    between = (settings.get("processes") or 1) > (settings.get("threads") or 1)
    for key, unusual, words in _UNUSUAL:
        if settings.get(key) == unusual and (between or key not in _BETWEEN):
            yield words
    if pages := pages_said(settings):
        yield pages
    link = link_of(result)
    if link is not None:
        yield peer_text(link)
    if scheme := settings.get("scheme"):
        yield _scheme_text(scheme, result)
    elif "processes" in settings and result.direct is None and link is None:
        yield "between two processes" if between else "within one process"
    if settings.get("shared_cores"):
        yield "the sides share their cores"
    places = settings.get("cores") or ()
    if link is not None and len(places) == 2:
        yield f"{_cores_text(places[:1])} here, {_cores_text(places[1:])} there"
    elif places:
        yield _cores_text(places)
    environment, params = settings.get("environment") or {}, settings.get("params") or {}
    yield from (f"{key}={value}" for key, value in environment.items() if "_LOG" not in key)
    yield from (f"{key}={value}" for key, value in params.items() if key in asked)


def _cores_text(places: Sequence[Any]) -> str:
    cores = sorted({core for part in places for core in (part if isinstance(part, list) else [part])})
    return f"on core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"


def _scheme_text(scheme: Mapping[str, Any], result: StepResult) -> str:
    far = "files" if scheme["storage"] else str(scheme["targets"])
    near = f"{scheme['initiators']} device{'s' * (scheme['initiators'] > 1)}"
    several = f"{result.settings.get('processes')} processes" if not scheme["storage"] else "one process"
    return f"{scheme['scheme']} {scheme['mode']}: {near} to {far}, {many(scheme['pairs'], 'pair')}, {several}"


_LONGEST_NAME = 10
_COUNTED = {"threads": "threads", "pipeline_depth": "requests in flight", "files": "files"}
_UNUSUAL = (
    ("error_handling", "none", "UCX error handling none"),
    ("progress_thread", True, "progress thread"),
    ("operation", "READ", "pulled by READ"),
    ("notify", False, "without notification"),
)
_BETWEEN = ("operation", "notify")
"""Settings that only apply between two processes."""


def _said(texts: Iterable[str]) -> list[str]:
    """Return the distinct non-empty texts as one item, joined by slashes; [] without any."""
    distinct = [text for text in dict.fromkeys(texts) if text]
    return [" / ".join(distinct)] if distinct else []


def _table(results: Sequence[StepResult], sweep: bool, width: int) -> list[Line]:
    kept, dropped = fit(_columns(results, sweep, layout_name), width)
    if table_width(kept, 1) > width:
        kept, dropped = fit(_columns(results, sweep, short_layout_name), width)
    lines = render(kept, width)
    header = len(lines) - len(results)
    out = [Line(text[:width]) for text in lines[:header]]
    out += [Line(text[:width], _tone(r)) for text, r in zip(lines[header:], results, strict=True)]
    if dropped:
        left_out = ", ".join(f"{column.over} {column.head}".strip() for column in reversed(dropped))
        out += [Line(text) for text in wrapped(f"  (more columns when wider: {left_out})", width, "  ")]
    return out + _odd_steps(results, width)


def _columns(results: Sequence[StepResult], sweep: bool, name: Callable[[str], str]) -> list[TextColumn]:
    def column(over: str, head: str, cells: Iterable[str], left: bool = False, rank: int = 0) -> TextColumn:
        return TextColumn(over, head, tuple(cells), left, rank)

    columns = []
    if sweep:
        columns.append(column("block", "× batch", (units.shape_text(r.block_bytes, r.batch) for r in results)))
    references = {r.reference_gb_per_s for r in results}
    columns += [
        column("", "layout", (name(r.layout) for r in results), left=True),
        column("desc. per", "block/req", (_descriptors(r) for r in results)),
        column("prep", "p50", (time_text(_p50(r.prep_us)) for r in results), rank=6),
        column("post", "p50", (time_text(_p50(r.post_us)) for r in results)),
        column("transfer", "p50", (time_text(_p50(r.transfer_us)) for r in results)),
        column("transfer", "p99", (time_text(_p99(r.transfer_us)) for r in results), rank=2),
        column("GB/s", "(interval)", (interval_text(r.gb_per_s) for r in results)),
    ]
    if references != {None}:
        named = next((r.reference for r in results if r.reference), "reference")
        if sweep:
            columns.append(column(named, "GB/s", (figure(r.reference_gb_per_s) for r in results), rank=3))
        against = (against_text(r.reference_ratio, r.reference_is_limit) for r in results)
        head = named if len(named) <= _LONGEST_NAME else "limit"  # the line above has the whole name
        columns.append(column("of" if _reference_word(results) == "limit" else "against", head, against, rank=1))
    verified = {None: "–", True: "yes", False: "NO"}
    if not _all_verified(results):
        columns.append(column("veri-", "fied", (verified[r.verified] for r in results)))
    return columns


def _p50(times: Percentiles | None) -> float | None:
    return None if times is None else times.p50


def _p99(times: Percentiles | None) -> float | None:
    return None if times is None else times.p99


def _descriptors(result: StepResult) -> str:
    per_block, per_request = count_text(result.descriptors_per_block), count_text(result.descriptors_per_request)
    return f"{per_block}/{per_request}{'m' if result.merged else ''}"


def _all_verified(results: Sequence[StepResult]) -> bool:
    return all(result.verified for result in results)


def _reference_word(results: Sequence[StepResult]) -> str:
    """Return `limit` if the reference is an upper bound for all results compared with it, or `compared with`."""
    found = {r.reference_is_limit for r in results if r.reference_ratio is not None}
    return "limit" if found == {True} else "compared with"


def _tone(result: StepResult) -> Tone:
    if result.status in ("failed", "suspect") or result.verified is False:
        return "bad"
    return "warning" if result.status == "cancelled" else "plain"


def _odd_steps(results: Sequence[StepResult], width: int) -> list[Line]:
    """Return a sentence per step that has results but differing bytes or a status other than ok."""
    lines = []
    for result in results:
        name = f"{layout_name(result.layout)}, {shape_text(result)}"
        if result.verified is False:
            text = f"  {name}: the received bytes differ from the sent bytes"
            lines += [Line(piece, "bad") for piece in wrapped(text, width, "    ")]
        if result.status != "ok":
            text = f"  {name}: {result.status} after {many(result.iterations, 'request')}"
            text += f": {result.reason}" if result.reason else ""
            lines += [Line(piece, _tone(result)) for piece in wrapped(text, width, "    ")]
    return lines


def _without_interval(results: Sequence[StepResult], width: int) -> list[Line]:
    """Return the reasons why rates have no interval, each once."""
    alone = [result for result in results if result.gb_per_s is not None and not result.gb_per_s.known]
    said = dict.fromkeys(why_no_interval(result) for result in alone)
    return [Line(text) for why in said for text in wrapped(f"  {why}", width, "    ")]


def why_no_interval(result: StepResult) -> str:
    """Return why a result's rate has no interval."""
    program = result.settings.get("measured_by")
    if program:
        return f"no interval: {program} prints one figure per step"
    return "no interval: one round, or identical rounds"


def _without_figures(results: Sequence[StepResult], width: int) -> list[Line]:
    """Return the steps without results, grouped by status and reason."""
    groups: dict[tuple[str, str], list[StepResult]] = {}
    for result in results:
        groups.setdefault((result.status, result.reason or "no reason given"), []).append(result)
    lines = []
    for (status, reason), steps in groups.items():
        paths = ", ".join(dict.fromkeys(step.path for step in steps))
        layouts = dict.fromkeys(layout_name(step.layout) for step in steps)
        whole = status == "unavailable" or len(layouts) > 1
        subject = paths if whole else f"{paths}, {', '.join(layouts)}"
        tone: Tone = "bad" if status == "failed" else "warning" if status == "cancelled" else "plain"
        lines += [Line(text, tone) for text in wrapped(f"{subject}: {status}: {reason}", width, "    ")]
    return [Line(""), *lines] if lines else []


def tuned_text(tuned: Tuned) -> str:
    """Return a setting's time ratio with its interval, or with its heats if they are too few for one."""
    if not isinstance(tuned.heats, UnsetType) and tuned.heats < LEAST_BLOCKS:
        return f"≈ {ratio_text(tuned.ratio)} ({many(tuned.heats, 'heat')})"
    return ratio_text(tuned.ratio, tuned.low, tuned.high)


def _bounds(tuned: Tuned) -> str:
    few = not isinstance(tuned.heats, UnsetType) and tuned.heats < LEAST_BLOCKS
    return "too few heats" if few else range_text(tuned.low, tuned.high)


def _tuned_lines(tuned: Sequence[Tuned], width: int) -> list[Line]:
    lines = []
    for path in dict.fromkeys(item.path for item in tuned):
        rows = [item for item in tuned if item.path == path]
        columns = [
            TextColumn("", "setting", tuple(f"{i.setting}={i.value}" for i in rows), left=True),
            TextColumn("", "time", tuple(ratio_text(i.ratio) for i in rows)),
            TextColumn("", "interval", tuple(_bounds(i) for i in rows)),
            TextColumn(
                "", "heats", tuple("–" if isinstance(i.heats, UnsetType) else str(i.heats) for i in rows), rank=1
            ),
            TextColumn("", "", tuple("kept" if i.chosen else "" for i in rows), left=True),
        ]
        lines += [Line(""), Line(f"{path}: settings tried, each against the previous best", "heading")]
        lines += [Line(text[:width]) for text in render(columns, width)]
    return lines
