"""A status line on stderr for work without countable steps: the activity, the seconds so far, the time limit."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from kvdeck.app.cli.standard_output import echo_own
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.units import count_text, size_text

PATIENCE_S = 0.5
"""Work that ends within this many seconds shows no status line."""
REDRAW_S = 0.5


def waiting_text(what: str, seconds: float, most_s: float | None) -> str:
    """Return the status line: `checking this host · 3 s, at most 120 s`."""
    return f"{what} · {count_text(int(seconds))} s{'' if most_s is None else f', at most {count_text(most_s)} s'}"


def size_of(path: Path) -> str:
    """Return a file's size as ` (12 MiB)`, to explain a long wait; empty if the file can't be read."""
    try:
        return f" ({size_text(path.stat().st_size)})"
    except OSError:
        return ""


@contextlib.contextmanager
def waiting(what: str, most_s: float | None = None) -> Iterator[None]:
    """Show a status line on stderr while the block runs.

    On a terminal it counts seconds and is erased at the end; otherwise it is printed once.

    Args:
        what: The activity, such as `checking this host`.
        most_s: The timeout in seconds, if there is one. It is shown instead of an estimate, which would be a guess.
    """
    done = threading.Event()
    thread = threading.Thread(target=_say, args=(what, most_s, done), name="kvdeck-waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _say(what: str, most_s: float | None, done: threading.Event) -> None:
    begin, live = time.monotonic(), sys.stderr is not None and sys.stderr.isatty()
    if done.wait(PATIENCE_S):
        return
    if not live:
        click.echo(f"{what} …", err=True)
        return
    while True:
        echo_own(f"\r{visible(waiting_text(what, time.monotonic() - begin, most_s))}\x1b[K", newline=False, err=True)
        if done.wait(REDRAW_S):
            break
    echo_own("\r\x1b[K", newline=False, err=True)
