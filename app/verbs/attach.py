"""`kvdeck attach`, `cancel`, `report` and `sessions`: come back to a run and to what was measured."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kvdeck.app.verbs.printing import few_paths, print_json, print_lines, print_session, report_width
from kvdeck.sessions.records import FINAL_STATES
from kvdeck.sessions.report import Line
from kvdeck.sessions.tables import Column, fit, render

if TYPE_CHECKING:
    from kvdeck.sessions.listing import SessionSummary

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the report.")


@click.command()
@click.argument("name")
@_JSON
def attach(name: str, as_json: bool) -> int:
    """Follow a run, or print the report of a finished one."""
    from kvdeck.app.following import counted_interrupts, exit_status, follow
    from kvdeck.engine.client import Client, store

    session = store().load(name)
    if session.state not in FINAL_STATES and session.kind != "watched":
        with Client.connect() as client, counted_interrupts() as interrupts:
            return follow(client, name, as_json, interrupts)
    print_session(session, as_json)
    return exit_status(session)


@click.command()
@click.argument("name")
def cancel(name: str) -> int:
    """End a queued or running run, or a recording; what there is of it is kept."""
    from kvdeck.engine.client import Client
    from kvdeck.sessions.listing import check_name

    check_name(name)
    with Client.connect(start=False) as client:
        client.cancel(name)
    click.echo(f"{name} is being cancelled; `kvdeck report {name}` prints what it measured")
    return 0


@click.command()
@click.argument("name")
@_JSON
def report(name: str, as_json: bool) -> int:
    """Print a session's report, as far as it has come."""
    from kvdeck.engine.client import store

    print_session(store().load(name), as_json)
    return 0


@click.command()
@_JSON
def sessions(as_json: bool) -> int:
    """List the sessions, newest first."""
    from kvdeck.engine.client import store

    found = store().summaries()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No sessions yet: `kvdeck run --quick` makes one.")
    else:
        columns = [
            Column("", "session", tuple(item.name for item in found), left=True),
            Column("", "state", tuple(_state(item) for item in found), left=True),
            Column("", "created", tuple(_local(item.created) for item in found), left=True, rank=2),
            Column("", "steps", tuple(str(item.steps) for item in found), rank=3),
            Column("", "paths", tuple(item.about or few_paths(item.paths) for item in found), left=True, rank=1),
        ]
        print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    return 0


def _state(item: SessionSummary) -> str:
    """The state; what an engine that died left open is read from the samples."""
    from kvdeck.engine.client import store

    return item.state if item.state in FINAL_STATES else store().load(item.name).state


def _local(created: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
