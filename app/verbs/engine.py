"""`kvdeck engine start|stop|status|log`: the background process that runs live in."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import click
from kvdeck.sessions.errors import EngineError


@click.group()
def engine() -> None:
    """Start, stop and look at the background engine.

    Other verbs start it when they need it.
    """


@engine.command()
def start() -> int:
    """Start the engine, if it doesn't run."""
    return asyncio.run(_start())


@engine.command()
@click.option("--force", is_flag=True, help="Even while a run goes on, which is cancelled.")
def stop(force: bool) -> int:
    """End the engine."""
    return asyncio.run(_stop(force))


@engine.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def status(as_json: bool) -> int:
    """Say whether the engine runs, and what it does. Exit status 1 when it doesn't run."""
    return asyncio.run(_status(as_json))


@engine.command()
@click.option("-n", "lines", default=40, show_default=True, metavar="N", help="Lines from the end.")
@click.option("-f", "--follow", is_flag=True, help="Go on as it grows, until Ctrl-C.")
def log(lines: int, follow: bool) -> int:
    """Print the engine's log."""
    from kvdeck.engine.runtime import home_folder, log_path

    path = log_path(home_folder())
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in deque(file, maxlen=max(lines, 0)):
                click.echo(line, nl=False)
            while follow:
                grown = file.read()
                click.echo(grown, nl=False) if grown else time.sleep(0.25)
    except FileNotFoundError as error:
        raise EngineError(f"there is no log at {path}", "the engine has not run yet: `kvdeck engine start`") from error
    except OSError as error:
        raise EngineError(f"can't read {path}: {error.strerror}", "check its owner and mode") from error
    return 0


async def _start() -> int:
    return 0


async def _stop(force: bool) -> int:
    return 0


async def _status(as_json: bool) -> int:
    return 0
