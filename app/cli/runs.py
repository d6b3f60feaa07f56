"""`kvdeck attach` and `cancel`: commands on existing runs."""

from __future__ import annotations

import os
import signal

import click

from kvdeck.app.cli.output import print_session
from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.records import FINAL_STATES


@click.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the report.")
def attach(name: str, as_json: bool) -> int:
    """Follow a run, or print the report of a finished one."""
    from kvdeck.app.cli.follow import counted_interrupts, exit_status, follow
    from kvdeck.engine.client.client import Client, store

    session = store().load(name)
    if session.state not in FINAL_STATES and session.kind != "telemetry":
        with Client.connect() as client, counted_interrupts() as interrupts:
            return follow(client, name, as_json, interrupts)
    print_session(session, as_json)
    return exit_status(session)


@click.command()
@click.argument("name")
def cancel(name: str) -> int:
    """Cancel a queued or running run, or stop a telemetry session. Results so far are saved."""
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
