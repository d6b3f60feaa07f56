"""`kvdeck engine start|stop|status|log`: the background process that executes runs."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.output import few_paths, print_json, print_lines, report_width
from kvdeck.sessions.errors import EngineError
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.text.tables import TextColumn, fit, joined, render
from kvdeck.sessions.units import done_text, duration_text, many

if TYPE_CHECKING:
    from kvdeck.engine.client.client import Client


@click.group()
def engine() -> None:
    """Start, stop and inspect the background engine.

    Other commands start it when they need it.
    """


@engine.command()
def start() -> int:
    """Start the engine if it isn't running."""
    from kvdeck.engine.client.client import Client

    with Client.connect() as client:
        click.echo(f"engine {client.hello.engine_pid} stores its sessions in {client.hello.home}")
    return 0


@engine.command()
@click.option("--force", is_flag=True, help="End it within 5 s, even if it runs or hangs; results are saved.")
def stop(force: bool) -> int:
    """Stop the engine."""
    from kvdeck.engine.client.client import stop_engine

    pid = stop_engine(force)
    click.echo("no engine is running" if pid is None else f"engine {pid} has ended")
    return 0


@engine.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(as_json: bool) -> int:
    """Show the engine's state and its runs. Exit status 1 if no engine is running."""
    client = _running()
    if client is None:
        print_json({"running": False}) if as_json else click.echo("no engine is running")
        return 1
    with client:
        found = client.status()
    if as_json:
        print_json({"running": True, **found})
    else:
        print_lines(Line(text) for text in status_lines(found, report_width()))
    return 0


def status_lines(found: Mapping[str, Any], width: int) -> list[str]:
    """Return the engine's status as text lines, with its runs as a table."""
    age = duration_text(max(0.0, time.time() - found["started"]))
    clients = found["clients"]
    facts = [f"engine {found['pid']}, kvdeck {found['kvdeck']}", f"running for {age}"]
    facts.append(many(clients, "client"))
    if found.get("idle_exit_s"):
        facts.append(f"exits after {duration_text(found['idle_exit_s'])} without clients and runs")
    lines = joined(facts, width)
    lines += [f"sessions in {found['home']}", f"socket in {found['runtime']}"]
    going = [item["name"] for item in found.get("recordings", ()) if item["state"] in ("queued", "running")]
    lines += joined([f"recording {name}" for name in going], width) if going else []
    runs = found["runs"]
    if not runs:
        return [*lines, "no runs"]
    columns = [
        TextColumn("", "run", tuple(run["session"] for run in runs), left=True),
        TextColumn("", "state", tuple(_state(run) for run in runs), left=True),
        TextColumn("", "done", tuple(done_text(run["fraction"]) for run in runs)),
        TextColumn("", "paths", tuple(few_paths(run["paths"]) for run in runs), left=True, rank=1),
    ]
    return lines + render(fit(columns, width)[0], width)


def _state(run: Mapping[str, Any]) -> str:
    return f"queued, position {run['position']}" if run["position"] else str(run["state"])


@engine.command()
@click.option("-n", "lines", default=40, show_default=True, metavar="N", help="Number of last lines.")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until Ctrl-C.")
def log(lines: int, follow: bool) -> int:
    """Print the engine's log."""
    from kvdeck.engine.client.client import log_path

    path = log_path()
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in deque(file, maxlen=max(lines, 0)):
                click.echo(line, nl=False)
            while follow:
                grown = file.read()
                click.echo(grown, nl=False) if grown else time.sleep(0.25)
    except FileNotFoundError as error:
        raise EngineError(f"there is no log at {path}", "start the engine: `kvdeck engine start`") from error
    except OSError as error:
        raise EngineError(f"can't read {path}: {error.strerror}", "check its owner and mode") from error
    return 0


def _running() -> Client | None:
    """Return a connection to the engine, or None if no engine is running."""
    from kvdeck.engine.client.client import Client

    try:
        return Client.connect(start=False)
    except EngineError as error:
        if "no engine" in error.what:
            return None
        raise
