"""`kvdeck attach`, `cancel`, `report` and `sessions`: commands on existing runs and their results."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.output import few_paths, print_json, print_lines, print_session, report_width
from kvdeck.sessions import units
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.records import FINAL_STATES
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.text.tables import Column, fit, render

if TYPE_CHECKING:
    from kvdeck.sessions.store.index import SessionSummary

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the report.")


@click.command()
@click.argument("name")
@_JSON
def attach(name: str, as_json: bool) -> int:
    """Follow a run, or print the report of a finished one."""
    from kvdeck.app.cli.follow import counted_interrupts, exit_status, follow
    from kvdeck.engine.client.client import Client, store

    session = store().load(name)
    if session.state not in FINAL_STATES and session.kind != "watched":
        with Client.connect() as client, counted_interrupts() as interrupts:
            return follow(client, name, as_json, interrupts)
    print_session(session, as_json)
    return exit_status(session)


@click.command()
@click.argument("name")
def cancel(name: str) -> int:
    """Cancel a queued or running run, or stop a recording. Results so far are saved."""
    from kvdeck.engine.client.client import Client, store
    from kvdeck.sessions.store.index import check_name
    from kvdeck.sessions.store.owners import read_owner

    check_name(name)
    kept = store()
    before = kept.read(name).state
    if before in FINAL_STATES:
        raise SessionError(f"{name} is already {before}", "nothing to cancel")
    session = kept.settle(name)
    if session.state in FINAL_STATES:
        click.echo(f"{name} is {session.state}" + (f": {session.reason}" if session.reason else ""))
        return 0
    owner = read_owner(kept.folder(name))
    if owner is not None and owner.alive and not _is_engine(owner.pid):
        os.kill(owner.pid, signal.SIGINT)
    else:
        with Client.connect(start=False) as client:
            client.cancel(name)
    click.echo(f"cancelling {name}; see `kvdeck session show {name}` for its results")
    return 0


def _is_engine(pid: int) -> bool:
    from kvdeck.engine.client.client import engine_pid

    return engine_pid() == pid


@click.command()
@click.argument("name")
@_JSON
def report(name: str, as_json: bool) -> int:
    """Print a session's report, with the results so far."""
    from kvdeck.engine.client.client import store

    print_session(store().load(name), as_json)
    return 0


@click.command()
@_JSON
def sessions(as_json: bool) -> int:
    """List the sessions, newest first."""
    from kvdeck.engine.client.client import store

    found = store().summaries()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No sessions yet. Start one: `kvdeck run --quick`")
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
    """Return a session's state. If it isn't final, load the session: its engine may have died since."""
    from kvdeck.engine.client.client import store
    from kvdeck.sessions.store.index import UNREADABLE

    if item.state in (*FINAL_STATES, UNREADABLE):
        return item.state
    try:
        return store().load(item.name).state
    except SessionError:  # one unreadable session must not end the list
        return item.state


def _local(created: float) -> str:
    return units.local_time(created)
