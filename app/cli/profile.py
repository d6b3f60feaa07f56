"""`kvdeck profile`: runs a plan with the engine or with an installed nixlbench."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.folder import checked_folder
from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.app.cli.plan import SIDES, asked_parameters, header
from kvdeck.app.cli.plan_options import BENCHMARK, OVERRIDES, asked_configs, asked_model, options
from kvdeck.sessions.errors import KvdeckError, UnavailableError, UsageError
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.units import count_text, many, size_text

if TYPE_CHECKING:
    from kvdeck.engine.children.program import Signals
    from kvdeck.engine.spec import RunSpec
    from kvdeck.sessions.store.writer import External


@options(OVERRIDES, BENCHMARK)
@click.command()
@SIDES[0]
@SIDES[1]
@click.option("--exec", "tool", type=click.Choice(["nixlbench"]), help="Run this tool instead and save its rows.")
@click.option("--session", metavar="NAME", help="Session name. Default: made from the time.")
@click.option("--detach", is_flag=True, help="Queue the run and return at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run.")
def profile(tool: str | None, session: str | None, detach: bool, as_json: bool, **values: Any) -> int:
    """Run a plan: nixlbench's sweep in kvdeck's engine, with nixlbench's columns below kvdeck's report."""
    model = asked_model(values)
    asked, *others = list(asked_configs(values))
    if isinstance(asked, KvdeckError):
        raise asked
    if others:
        raise UsageError("profile runs one configuration at a time", "name one file")
    params = asked_parameters(model, asked, values, "nixlbench")
    if session is not None:
        from kvdeck.sessions.store.index import check_name

        check_name(session)
    head = () if as_json else header(asked, leading=False)
    if tool:
        return _with_nixlbench(params, head, session, as_json)
    return _natively(params, head, session, detach, as_json)


def native_runs(params: Mapping[str, Any]) -> list[RunSpec]:
    """Return a plan's validated run specs, after checking that its largest batch fits this host's free memory.

    Raises:
        UsageError: It doesn't fit (the message names the fix), or a value is invalid.
        UnavailableError: The engine can't run the plan.
    """
    import psutil

    from kvdeck.engine.planning.nixlbench_runs import bytes_needed, native_specs
    from kvdeck.engine.spec import spec_from_mapping

    folder = checked_folder(params["filepath"]) if params["filepath"] else None
    specs = [spec_from_mapping({**spec, "folder": folder}, "the plan") for spec in native_specs(params)]
    needed, there = bytes_needed(params), int(psutil.virtual_memory().available)
    if needed > there:
        raise UsageError(
            f"one batch of {count_text(params['max_batch_size'])} × {size_text(params['max_block_size'])} takes "
            f"{size_text(needed)} of memory, but {size_text(there)} are free",
            "lower --num_requests or --isl, or set --start_batch_size and --max_batch_size",
        )
    return specs


def _natively(params: Mapping[str, Any], head: Sequence[str], session: str | None, detach: bool, as_json: bool) -> int:
    from kvdeck.app.cli.follow import counted_interrupts, follow
    from kvdeck.engine.client.client import Client
    from kvdeck.engine.planning.nixlbench_runs import bytes_moved, native_specs
    from kvdeck.sessions.text.nixlbench_report import table_lines

    specs = native_runs(params)
    moved = bytes_moved(native_specs(params))
    for line in head:
        click.echo(line)
    click.echo(f"kvdeck: {count_text(specs[0].iterations)} timed and "
               f"{count_text(specs[0].warmup_iterations)} warm-up requests per step, "
               f"{size_text(moved)} in all; --num_iter changes that", err=True)  # fmt: skip
    worst = 0
    with Client.connect() as client, counted_interrupts() as interrupts:
        names = [
            client.submit(spec, f"{session}-{number}" if session and number > 1 else session)
            for number, spec in enumerate(specs, 1)
        ]
        for number, name in enumerate(names, 1):
            if len(names) > 1:
                click.echo(f"kvdeck: run {number} of {len(names)}", err=True)
            if detach:
                click.echo(f"{name}\nfollow it with `kvdeck attach {name}`")
                continue
            worst = max(worst, follow(client, name, as_json, interrupts))
            if not as_json:
                print_lines(Line(text) for text in table_lines(client.store.load(name).results, report_width()))
    return worst


def _with_nixlbench(params: Mapping[str, Any], head: Sequence[str], session: str | None, as_json: bool) -> int:
    from kvdeck.engine.children.program import noted_signals
    from kvdeck.engine.client.client import store
    from kvdeck.sessions.store.writer import External

    program = shutil.which("nixlbench")
    if program is None:
        raise UnavailableError("nixlbench is not on PATH", "install it, or omit --exec: kvdeck then measures itself")
    with noted_signals() as signals:
        kept = External.begin(store(), session, "nixlbench", {"nixlbench": dict(params)})
        try:
            for line in head:
                click.echo(line)
            status, rows = _keep_rows(program, params, kept, signals, as_json)
        except BaseException as error:
            kept.end("failed", str(error) or type(error).__name__)
            raise
        cancelled = signals.came[0] if signals.came else None
        if cancelled is not None:
            status = 128 + cancelled
            kept.end("cancelled", f"kvdeck was ended by {cancelled.name} after {many(rows, 'row')}")
        else:
            failed = None if status == 0 and rows else f"nixlbench ended with status {status} after {many(rows, 'row')}"
            kept.end("failed" if failed else "done", failed)
    how = "done" if cancelled is None else f"cancelled ({cancelled.name})"
    if as_json:
        print_json({"session": kept.name, "status": status, "rows": rows})
    else:
        click.echo(f"kvdeck: {how}, {many(rows, 'row')} saved as {kept.name}", err=True)
    return status


def _keep_rows(
    program: str, params: Mapping[str, Any], kept: External, signals: Signals, as_json: bool
) -> tuple[int, int]:
    """Run nixlbench and store its rows as they arrive; return its exit status and the number of rows."""
    from kvdeck.engine.children.program import Program
    from kvdeck.engine.planning.nixlbench import arguments
    from kvdeck.sessions.formats.nixlbench import NixlbenchReader, as_results

    reader, rows = NixlbenchReader(), 0
    if signals.came:
        return 0, rows
    child = Program([program, *arguments(params)], signals)
    try:
        for line in child.lines():
            if not as_json:
                click.echo(line)
            if row := reader.take(line):
                kept.add(as_results([row], params)[0])
                rows += 1
        return child.wait(), rows
    finally:
        child.end()
