"""`kvdeck session …`: the commands of Dynamo's bench_layout_transfers, and kvdeck's own."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.output import few_paths, print_json, print_lines, report_width
from kvdeck.app.cli.session.arguments import checked, find, give, local_time, store, wanted_name
from kvdeck.app.cli.session.edit import delete, import_, note, rename, tag
from kvdeck.app.cli.session.telemetry import compare_recordings, export_recording
from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.units import count_text, many, ratio_text

if TYPE_CHECKING:
    from kvdeck.sessions.store.index import SessionSummary

_NAME = click.option("-s", "--session", "name", metavar="NAME", help="Default: the active session.")
NONE_ACTIVE = "No benchmark session active. Create one: `kvdeck session init NAME`"


@click.group(epilog="Default: $DYNAMO_BENCHMARK_SESSION, else the session of the last `init`.")
def session() -> None:
    """Count transfers in other programs; store, compare and export sessions.

    Accepts the commands of Dynamo's bench_layout_transfers, and reads and writes its files.
    """


@session.command()
@click.argument("name")
def init(name: str) -> int:
    """Create or reopen a session and make it the active one."""
    from kvdeck.sessions.store import traces

    for line in traces.begin(store(), checked(name)):
        click.echo(line, err=True)
    traces.make_active(name)
    click.echo(f"Benchmark session '{name}' is ready and active.")
    click.echo("For the program you start next:")
    click.echo(f"  export DYNAMO_BENCHMARK_SESSION={shlex.quote(name)}")
    return 0


@session.command()
@_NAME
def status(name: str | None) -> int:
    """Print a session's counts on one line, and which session is active and why."""
    from kvdeck.sessions.formats import dynamo
    from kvdeck.sessions.formats.exchange import counted_session
    from kvdeck.sessions.store import trace_counts
    from kvdeck.sessions.text.trace_report import summary_text

    active = dynamo.active_session()
    wanted = name or (active.name if active else "")
    if not wanted:
        click.echo(NONE_ACTIVE if active is None else f"{active.source} names an empty session. {NONE_ACTIVE}")
        return 0
    try:
        found = find(wanted)
    except SessionError as error:
        where = f" (named by {active.source})" if active and not name else ""
        click.echo(f"No benchmark session '{wanted}'{where}: {error}")
        return 0
    click.echo(summary_text(counted_session(found)))
    folder = store().folder(wanted)
    enabled, epoch = trace_counts.control(folder)
    click.echo(f"Session enabled: {str(enabled).lower()}")
    if active is not None and active.name == wanted:
        click.echo(f"Active: named by {active.source}")
    else:
        click.echo("Archived: " + (f"active is '{active.name}', by {active.source}" if active else "none is active"))
    live = trace_counts.live(folder)
    if live:
        click.echo(f"Counting now: process {', '.join(str(process.pid) for process in live)}")
    if found.source:
        click.echo(f"File: {found.source}")
    if archived := trace_counts.archived(folder):
        click.echo(f"Resets: {count_text(epoch)}, archives: {count_text(len(archived))}, in {folder / 'recorder'}")
    return 0


@session.command()
@click.option("-f", "--format", "form", default="text", metavar="FORMAT", help="text, json (Dynamo's) or csv.")
@click.option("-o", "--output", metavar="FILE", help="Write to this file instead of stdout.")
@_NAME
def report(form: str, output: str | None, name: str | None) -> int:
    """Print the full session: all paths and layouts by name, in a stable order."""
    from kvdeck.sessions.formats import exchange
    from kvdeck.sessions.text.run_report import is_recording, report_lines

    found = find(wanted_name(name))
    if is_recording(found) and form != "text":
        return export_recording(found, form, output)
    if form in ("json", "csv"):
        return give(exchange.encode(found, form), output)
    lines = report_lines(found, report_width())
    if output is not None:
        return give("".join(f"{line.text}\n" for line in lines).encode(), output)
    print_lines(lines)
    return 0


@session.command()
@click.argument("form", metavar="[FORMAT]", required=False)
@click.argument("target", metavar="[FILE]", required=False)
@click.option("-o", "--output", metavar="FILE", help="Same as FILE.")
@_NAME
def export(form: str | None, target: str | None, output: str | None, name: str | None) -> int:
    """Write the session to a file: `export csv F`, or `export --session S --output F`.

    FORMAT is json (exactly Dynamo's), csv, kvdeck (complete), markdown or parquet; default: by the file's name.
    For a recording of the Monitor: csv or json (flows over time), jsonl (every sample), kvdeck or markdown.
    """
    from kvdeck.app.cli.spinner import waiting
    from kvdeck.sessions.formats import dynamo, exchange
    from kvdeck.sessions.text.run_report import is_recording

    if form not in (None, *exchange.FORMATS) and target is None and output is None:
        form, target = None, form
    place = output or target
    if place is None:
        raise UsageError("the output file is missing", "give --output FILE, or FORMAT FILE")
    chosen = form or exchange.format_of(Path(place))
    if chosen not in (*exchange.FORMATS, "jsonl"):
        raise SessionError(f"unsupported format {chosen!r}", f"use {', '.join(exchange.FORMATS)}")
    wanted = wanted_name(name)
    found = find(wanted)
    if is_recording(found):
        with waiting(f"writing {place}"):
            export_recording(found, chosen, place)
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


@session.command()
@_NAME
def reset(name: str | None) -> int:
    """Archive the counts and restart from zero, also in processes that are still counting."""
    from kvdeck.sessions.store import traces

    wanted = wanted_name(name)
    for line in traces.reset(store(), wanted):
        click.echo(line)
    return 0


@session.command()
@_NAME
def enable(name: str | None) -> int:
    """Resume counting, also in running processes."""
    return _switch(name, True)


@session.command()
@_NAME
def disable(name: str | None) -> int:
    """Stop counting, also in running processes; counts so far are preserved."""
    return _switch(name, False)


def _switch(name: str | None, enabled: bool) -> int:
    from kvdeck.sessions.store import traces

    wanted = wanted_name(name)
    traces.switch(store(), wanted, enabled)
    click.echo(f"Session '{wanted}' {'counts again' if enabled else 'no longer counts'}, in every process within 1 s")
    return 0


@session.command()
@click.option("-c", "--count", default=100, show_default=True, type=click.IntRange(0, 10_000_000), help="Transfers.")
def test(count: int) -> int:
    """Count synthetic transfers, to check that counting works."""
    from kvdeck.sessions.formats import dynamo
    from kvdeck.sessions.recorder import Recorder
    from kvdeck.sessions.store import trace_counts, traces
    from kvdeck.sessions.text.trace_report import summary_text

    active = dynamo.active_session()
    name = checked(active.name) if active and active.name else "test_session"
    traces.begin(store(), name)
    if active is None:
        traces.make_active(name)
    recorder = Recorder(store().folder(name))
    for path, layout, size, blocks in dynamo.synthetic(count):
        recorder.record(path, layout, size, blocks, None)
    recorder.close()
    enabled, _ = trace_counts.control(store().folder(name))
    click.echo(f"Recorded {count} test transfers" + ("" if enabled else "; the session is disabled and ignores them"))
    click.echo(summary_text(find(name)))
    return 0


@session.command()
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
    help="Exit status 1 if a time for the same bytes grew by more than PCT percent.",
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
    sessions, each is compared with the first. Two recordings of the Monitor are compared flow by flow.
    """
    import orjson

    from kvdeck.sessions.analysis.compare import compare as compared
    from kvdeck.sessions.analysis.compare import key_text, regressions
    from kvdeck.sessions.text.comparison_report import diff_lines, diff_markdown, many_lines
    from kvdeck.sessions.text.run_report import is_recording

    if more:
        if as_json or markdown or output is not None or percent is not None:
            raise UsageError("these options need exactly two sessions", "omit the third session, or the options")
        baseline, *others = (find(name, part=True) for name in (before, after, *more))
        if is_recording(baseline):
            raise UsageError("only two recordings can be compared", "omit the third")
        print_lines(many_lines([compared(baseline, other) for other in others], report_width()))
        return 0
    a, b = find(before, part=True), find(after, part=True)
    if is_recording(a) and is_recording(b):
        return compare_recordings(a, b, output, as_json, markdown, percent)
    diff = compared(a, b)
    worse = [] if percent is None else regressions(diff, percent)
    if as_json:
        data = {**dataclasses.asdict(diff), "regressed": [dataclasses.asdict(row) for row in worse]}
        give(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), output)
    elif markdown:
        give(diff_markdown(diff).encode(), output)
    elif output is not None:
        give("".join(f"{line.text}\n" for line in diff_lines(diff)).encode(), output)
    else:
        print_lines(diff_lines(diff, report_width()))
    if percent is not None and (unsure := sum(row.ratio is not None and row.low is None for row in diff.keys)):
        click.echo(f"{many(unsure, 'row')} without an interval: regressions can't be detected there", err=True)
    for row in worse:
        what = key_text(row.path, row.layout or "across layouts", row.block_bytes, row.batch)
        click.echo(f"regression: {what}: {ratio_text(row.ratio)} the time", err=True)
    return 1 if worse else 0


@session.command("list")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def list_(words: tuple[str, ...], as_json: bool) -> int:
    """List sessions, kvdeck's and Dynamo's, newest first; WORDS filter them."""
    from kvdeck.sessions.store.catalogue import catalogue, matching
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import Column, fit, render

    found = matching(catalogue(store()), words)
    if as_json:
        print_json(found)
        return 0
    if not found:
        click.echo("No session matches." if words else "No sessions yet. Start one: `kvdeck run --quick`")
        return 0
    columns = [
        Column("", "session", tuple(item.name for item in found), left=True),
        Column("", "kind", tuple(item.kind for item in found), left=True),
        Column("", "state", tuple(item.state for item in found), left=True, rank=4),
        Column("", "created", tuple(local_time(item.created) for item in found), left=True, rank=2),
        Column("", "transfers", tuple(_transfers(item) for item in found), rank=3),
        Column(
            "", "paths", tuple(item.reason or item.about or few_paths(item.paths) for item in found), left=True, rank=1
        ),
        Column("", "tags", tuple(" ".join(item.tags) for item in found), left=True, rank=5),
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    return 0


def _transfers(item: SessionSummary) -> str:
    return "" if item.kind in ("run", "watched") else count_text(item.transfers)


@session.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> int:
    """Print one session, given by name or file."""
    from kvdeck.app.cli.output import print_session

    print_session(find(name), as_json)
    return 0


@session.command()
@click.argument("name")
@click.option("--layout", metavar="LAYOUT", help="Layout of the program's transfers; it can't be detected.")
@click.option(
    "--descriptors-per-block",
    metavar="N",
    type=click.IntRange(1),
    help="Descriptors per block, to count blocks.",
)
@click.argument("command", metavar="-- COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def record(name: str, layout: str | None, descriptors_per_block: int | None, command: tuple[str, ...]) -> int:
    """Run a command and count the NIXL transfers of all its Python processes.

    The exit status is the command's. A program without NIXL runs unchanged.
    """
    from kvdeck.app.cli.trace import run_recorded
    from kvdeck.engine.planning.layout import parse_layout_pair
    from kvdeck.sessions.store import traces

    text = str(parse_layout_pair(layout)) if layout is not None else None
    for line in traces.begin(store(), checked(name)):
        click.echo(line, err=True)
    return run_recorded(store(), name, command, text, descriptors_per_block)


for verb in (rename, delete, import_, tag, note):
    session.add_command(verb)
