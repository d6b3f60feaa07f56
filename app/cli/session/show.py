"""`kvdeck session list|show|compare|export`: print stored sessions, and write them to files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import orjson

from kvdeck.app.cli.output import few_paths, print_json, print_lines, print_session, report_width
from kvdeck.app.cli.session.arguments import SESSION, find, give, local_time, store, wanted_name
from kvdeck.app.cli.standard_output import write_bytes
from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.model.encoding import encode_document
from kvdeck.sessions.units import count_text, many, ratio_text

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.store.index import SessionSummary


_LEAST_ABOUT = 24
"""Characters that a list shows of a session's paths or reason at least."""


@click.command("list")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(words: tuple[str, ...], as_json: bool) -> int:
    """List sessions, kvdeck's and Dynamo's, newest first; WORDS filter them."""
    from kvdeck.sessions.store.catalogue import catalogue, matching, row_json
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import TextColumn, fit, render, table_width

    found = matching(catalogue(store()), words)
    if as_json:
        print_json([row_json(row) for row in found])
        return 0
    if not found:
        click.echo("No session matches." if words else "No sessions yet. Start one: `kvdeck run --quick`")
        return 0
    columns = [
        TextColumn("", "session", tuple(item.name for item in found), left=True),
        TextColumn("", "kind", tuple(item.kind for item in found), left=True),
        TextColumn("", "state", tuple(item.state for item in found), left=True, rank=4),
        TextColumn("", "created", tuple(local_time(item.created) for item in found), left=True, rank=2),
        TextColumn("", "steps", tuple(count_text(item.steps) if item.kind == "run" else "" for item in found), rank=6),
        TextColumn("", "transfers", tuple(_transfers(item) for item in found), rank=3),
        TextColumn("", "tags", tuple(" ".join(item.tags) for item in found), left=True, rank=5),
    ]
    # One long reason would otherwise drop the other columns of all rows.
    room = max(_LEAST_ABOUT, report_width() - table_width(columns, 1) - 1)
    about = (item.reason or item.about or few_paths(item.paths) for item in found)
    cells = tuple(text if len(text) <= room else f"{text[: room - 1]}…" for text in about)
    columns.insert(-1, TextColumn("", "paths", cells, left=True, rank=1))
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    return 0


def _transfers(item: SessionSummary) -> str:
    return "" if item.kind in ("run", "telemetry", "traffic") else count_text(item.transfers)


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, with everything that is stored.")
@click.option("-f", "--format", "form", default="text", metavar="FORMAT", help="text, json (Dynamo's) or csv.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout.")
@SESSION
def show(name: str | None, as_json: bool, form: str, output: str | None, session: str | None) -> int:
    """Print a session, given by name or file; default: the active one."""
    from kvdeck.sessions.formats import exchange
    from kvdeck.sessions.text.run_report import is_telemetry, report_json, report_lines

    if name is not None and session not in (None, name):
        raise UsageError(f"two sessions are given: {name} and {session}", "give one")
    found = find(wanted_name(name if session is None else session))
    if as_json and form != "text":
        raise UsageError("--json and --format are two formats", "give one")
    if as_json and output is not None:
        return give(orjson.dumps(report_json(found), option=orjson.OPT_INDENT_2), output)
    if is_telemetry(found) and form != "text":
        return _export_telemetry(found, form, output)
    if form in ("json", "csv"):
        return give(exchange.encode(found, form), output)
    if output is not None:
        return give("".join(f"{line.text}\n" for line in report_lines(found, report_width())).encode(), output)
    print_session(found, as_json)
    return 0


@click.command()
@click.argument("form", metavar="[FORMAT]", required=False)
@click.argument("target", metavar="[FILE]", required=False)
@click.option("-o", "--output", metavar="FILE", help="Same as FILE.")
@SESSION
def export(form: str | None, target: str | None, output: str | None, session: str | None) -> int:
    """Write the session to a file: `export csv F`, or `export --session S --output F`.

    FORMAT is json (exactly Dynamo's), csv, kvdeck (complete), markdown or parquet; default: by the file's name.
    For a telemetry session: csv or json (flows over time), jsonl (every sample), kvdeck or markdown.
    """
    from kvdeck.app.cli.spinner import waiting
    from kvdeck.sessions.formats import dynamo, exchange
    from kvdeck.sessions.text.run_report import is_telemetry

    if form not in (None, *exchange.FORMATS) and target is None and output is None:
        form, target = None, form
    place = output or target
    if place is None:
        raise UsageError("the output file is missing", "give --output FILE, or FORMAT FILE")
    chosen = form or exchange.format_of(Path(place))
    if chosen not in (*exchange.FORMATS, "jsonl"):
        raise SessionError(f"unsupported format {chosen!r}", f"use {', '.join(exchange.FORMATS)}")
    wanted = wanted_name(session)
    found = find(wanted)
    if is_telemetry(found):
        with waiting(f"writing {place}"):
            _export_telemetry(found, chosen, place)
        click.echo(f"Exported '{found.name}' as {chosen} to {place}", err=True)
        return 0
    if Path(place).absolute() in [path.absolute() for path in dynamo.session_paths(found.name)] and found.kind != "run":
        raise SessionError(f"{place} is the file in which Dynamo's hooks count {wanted!r}", "export to another file")
    with waiting(f"writing {place}"):
        give(exchange.encode(found, chosen), place)
    click.echo(f"Exported '{found.name}' as {chosen} to {place}", err=True)
    if left := exchange.left_out(found, chosen):
        click.echo(f"The format can't hold: {'; '.join(left)}", err=True)
    return 0


@click.command()
@click.argument("before", metavar="A")
@click.argument("after", metavar="B")
@click.argument("more", metavar="[C]...", nargs=-1)
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--markdown", is_flag=True, help="Markdown, for a ticket or a pull request.")
@click.option(
    "--fail-on-regression",
    "percent",
    metavar="PCT",
    type=click.FloatRange(0),
    help="Exit status 1 if a time for the same bytes grew by more than PCT percent, with its whole interval above 1.",
)
def compare(
    before: str,
    after: str,
    more: tuple[str, ...],
    output: str | None,
    as_json: bool,
    markdown: bool,
    percent: float | None,
) -> int:
    """Compare two sessions, given as names, files, or NAME:LAYOUT for one layout.

    Compares by path across layouts, then by path and layout; differences in setup are listed first. Of more than two
    sessions, each is compared with the first. Two telemetry sessions are compared flow by flow, two traffic tests
    pattern by pattern.
    """
    from kvdeck.sessions.analysis.compare import compare as compared
    from kvdeck.sessions.analysis.compare import key_text, regressions, undecidable
    from kvdeck.sessions.text.comparison_report import diff_lines, diff_markdown, many_lines
    from kvdeck.sessions.text.run_report import is_telemetry

    if more:
        if as_json or markdown or output is not None or percent is not None:
            raise UsageError("these options need exactly two sessions", "omit the third session, or the options")
        baseline, *others = (find(name, part=True) for name in (before, after, *more))
        if baseline.traffic is not None:
            raise UsageError("traffic tests are compared two at a time", "omit the third")
        if is_telemetry(baseline):
            raise UsageError("telemetry sessions are compared two at a time", "omit the third")
        print_lines(many_lines([compared(baseline, other) for other in others], report_width()))
        return 0
    a, b = find(before, part=True), find(after, part=True)
    if is_telemetry(a) and is_telemetry(b):
        return _compare_telemetry(a, b, output, as_json, markdown, percent)
    if a.traffic is not None and b.traffic is not None:
        return _compare_traffic(a, b, output, as_json, markdown, percent)
    diff = compared(a, b)
    worse = [] if percent is None else regressions(diff, percent)
    if as_json:
        data = {**msgspec.to_builtins(diff), "regressed": msgspec.to_builtins(worse)}
        give(encode_document(data), output)
    elif markdown:
        give(diff_markdown(diff).encode(), output)
    elif output is not None:
        give("".join(f"{line.text}\n" for line in diff_lines(diff)).encode(), output)
    else:
        print_lines(diff_lines(diff, report_width()))
    if percent is not None and (unsure := undecidable(diff)):
        click.echo(f"{many(unsure, 'row')} without an interval: regressions can't be detected there", err=True)
    if percent is not None and not (diff.keys or diff.paths):
        click.echo("no path and layout in common: regressions can't be detected", err=True)
    for row in worse:
        what = key_text(row.path, row.layout or "across layouts", row.block_bytes, row.batch)
        click.echo(f"regression: {what}: {ratio_text(row.ratio)} the time", err=True)
    return 1 if worse else 0


def _compare_telemetry(
    a: Session, b: Session, output: str | None, as_json: bool, markdown: bool, percent: float | None
) -> int:
    """Print or write the comparison of two telemetry sessions.

    Args:
        percent: Report flows that take more than this many percent longer in `b` for the same bytes, with the whole
            interval of the ratio on that side of 1; None: no check.

    Returns:
        The exit status: 1 if such a flow exists, otherwise 0.
    """
    from kvdeck.sessions.analysis import compare_telemetry
    from kvdeck.sessions.text.telemetry_comparison_report import telemetry_diff_lines, telemetry_diff_markdown

    diff = compare_telemetry.compare_flows(a, b)
    worse = [] if percent is None else compare_telemetry.slower(diff, percent)
    if as_json:
        data = {**msgspec.to_builtins(diff), "regressed": msgspec.to_builtins(worse)}
        give(encode_document(data), output)
    elif markdown:
        give(telemetry_diff_markdown(diff).encode(), output)
    elif output is not None:
        give("".join(f"{line.text}\n" for line in telemetry_diff_lines(diff)).encode(), output)
    else:
        print_lines(telemetry_diff_lines(diff, report_width()))
    for row in worse:
        click.echo(f"regression: {row.a.name} of {row.a.source}: {ratio_text(row.ratio)} the rate", err=True)
    return 1 if worse else 0


def _compare_traffic(
    a: Session, b: Session, output: str | None, as_json: bool, markdown: bool, percent: float | None
) -> int:
    """Print or write the comparison of two traffic tests; arguments and exit status as `_compare_telemetry`'s."""
    from kvdeck.sessions.analysis.compare_traffic import compare_traffic, grown
    from kvdeck.sessions.text.traffic_comparison_report import traffic_diff_lines, traffic_diff_markdown

    diff = compare_traffic(a, b)
    worse = [] if percent is None else grown(diff, percent)
    if as_json:
        data = {**dataclasses.asdict(diff), "regressed": [dataclasses.asdict(row) for row in worse]}
        give(encode_document(data), output)
    elif markdown:
        give(traffic_diff_markdown(diff).encode(), output)
    elif output is not None:
        give("".join(f"{line.text}\n" for line in traffic_diff_lines(diff)).encode(), output)
    else:
        print_lines(traffic_diff_lines(diff, report_width()))
    if percent is not None and not diff.rows:
        click.echo("no pattern in common: regressions can't be detected", err=True)
    if percent is not None and (unsure := sum(row.latency is None or not row.latency.known for row in diff.rows)):
        click.echo(f"{many(unsure, 'pattern')} without an interval: regressions can't be detected there", err=True)
    for row in worse:
        found = row.latency or row.ratio
        click.echo(
            f"regression: pattern {row.pattern}: {ratio_text(None if found is None else found.median)} the time",
            err=True,
        )
    return 1 if worse else 0


def _export_telemetry(session: Session, form: str, output: str | None) -> int:
    """Write a telemetry session to a file, or piece by piece to stdout; return exit status 0."""
    from kvdeck.sessions.formats import telemetry

    folder = store().folder(session.name)
    if output is not None:
        telemetry.write(session, folder, form, expanded(output))
        return 0
    for piece in telemetry.pieces(session, folder, form):
        write_bytes(piece)
    return 0
