"""`kvdeck session init|status|enable|disable|reset|test`: the verbs of Dynamo's bench_layout_transfers for traces."""

from __future__ import annotations

import shlex

import click

from kvdeck.app.cli.session.arguments import SESSION, checked, find, store, wanted_name
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.units import count_text

NONE_ACTIVE = "No benchmark session active. Create one: `kvdeck session init NAME`"


@click.command()
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


@click.command()
@SESSION
def status(session: str | None) -> int:
    """Print a session's counts on one line, and which session is active and why."""
    from kvdeck.sessions.formats import dynamo
    from kvdeck.sessions.formats.exchange import counted_session
    from kvdeck.sessions.store import trace_counts
    from kvdeck.sessions.text.trace_report import summary_text

    active = dynamo.active_session()
    wanted = session or (active.name if active else "")
    if not wanted:
        click.echo(NONE_ACTIVE if active is None else f"{active.source} names an empty session. {NONE_ACTIVE}")
        return 0
    try:
        found = find(wanted)
    except SessionError as error:
        where = f" (named by {active.source})" if active and not session else ""
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


@click.command()
@SESSION
def reset(session: str | None) -> int:
    """Archive the counts and restart from zero, also in processes that are still counting."""
    from kvdeck.sessions.store import traces

    wanted = wanted_name(session)
    for line in traces.reset(store(), wanted):
        click.echo(line)
    return 0


@click.command()
@SESSION
def enable(session: str | None) -> int:
    """Resume counting, also in running processes."""
    return _switch(session, True)


@click.command()
@SESSION
def disable(session: str | None) -> int:
    """Stop counting, also in running processes; counts so far are preserved."""
    return _switch(session, False)


def _switch(session: str | None, enabled: bool) -> int:
    from kvdeck.sessions.store import traces

    wanted = wanted_name(session)
    traces.switch(store(), wanted, enabled)
    click.echo(f"Session '{wanted}' {'counts again' if enabled else 'no longer counts'}, in every process within 1 s")
    return 0


@click.command()
@click.option("-c", "--count", default=100, show_default=True, type=click.IntRange(0, 10_000_000), help="Transfers.")
def test(count: int) -> int:
    """Count synthetic transfers, to check that counting works."""
    from kvdeck.sessions.formats import dynamo
    from kvdeck.sessions.recorder import TransferCounter
    from kvdeck.sessions.store import trace_counts, traces
    from kvdeck.sessions.text.trace_report import summary_text

    active = dynamo.active_session()
    name = checked(active.name) if active and active.name else "test_session"
    traces.begin(store(), name)
    if active is None:
        traces.make_active(name)
    recorder = TransferCounter(store().folder(name))
    for path, layout, size, blocks in dynamo.synthetic(count):
        recorder.record(path, layout, size, blocks, None)
    recorder.close()
    enabled, _ = trace_counts.control(store().folder(name))
    click.echo(f"Recorded {count} test transfers" + ("" if enabled else "; the session is disabled and ignores them"))
    click.echo(summary_text(find(name)))
    return 0
