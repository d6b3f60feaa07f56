"""`kvdeck attach`, `report` and `sessions`: come back to what was measured."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import click
from kvdeck.app.verbs.printing import print_json, print_lines, print_session, report_width
from kvdeck.sessions.records import FINAL_STATES
from kvdeck.sessions.report import Line
from kvdeck.sessions.tables import Column, fit, render

if TYPE_CHECKING:
    from kvdeck.sessions.store import Store

_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout instead of the report.")


@click.command()
@click.argument("name")
@_JSON
def attach(name: str, as_json: bool) -> int:
    """Follow a run, or print the report of a finished one."""
    from kvdeck.app.following import exit_status

    session = _store().load(name)
    if session.state in FINAL_STATES:
        print_session(session, as_json)
        return exit_status(session)
    return asyncio.run(_attach(name, as_json))


async def _attach(name: str, as_json: bool) -> int:
    from kvdeck.app.following import follow
    from kvdeck.engine.client import connect_or_start

    async with await connect_or_start() as client:
        return await follow(client, name, as_json)


@click.command()
@click.argument("name")
@_JSON
def report(name: str, as_json: bool) -> int:
    """Print a session's report, as far as it has come."""
    print_session(_store().load(name), as_json)
    return 0


@click.command()
@_JSON
def sessions(as_json: bool) -> int:
    """List the sessions, newest first."""
    found = _store().list()
    if as_json:
        print_json(found)
    elif not found:
        click.echo("No sessions yet: `kvdeck run --quick` makes one.")
    else:
        columns = [
            Column("", "session", tuple(item.name for item in found), left=True),
            Column("", "state", tuple(item.state for item in found), left=True),
            Column("", "created", tuple(_local(item.created) for item in found), left=True, rank=2),
            Column("", "steps", tuple(str(item.steps) for item in found), rank=3),
            Column("", "paths", tuple(" ".join(item.paths) or "–" for item in found), left=True, rank=1),
        ]
        print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))
    return 0


def _local(created: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))


def _store() -> Store:
    from kvdeck.engine.runtime import home_folder
    from kvdeck.sessions.store import Store

    return Store(home_folder())
