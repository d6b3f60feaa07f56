"""Runs another program with transfer counting enabled."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host import umask

if TYPE_CHECKING:
    from kvdeck.sessions.store.store import Store


def run_recorded(
    store: Store, name: str, command: Sequence[str], layout: str | None, descriptors_per_block: int | None
) -> int:
    """Run a command and print a summary of the transfers counted in it on stderr.

    Args:
        layout: Layout of the program's transfers, which can't be detected.
        descriptors_per_block: Descriptors that make up a block; needed to count blocks.

    Returns:
        The command's exit status, or 128 + the number of the signal that ended it.

    Raises:
        UsageError: The command can't be run.
    """
    from kvdeck.engine.children.child import Child, shell_status
    from kvdeck.engine.tracing import environment
    from kvdeck.sessions.store import traces
    from kvdeck.sessions.store.lookup import find
    from kvdeck.sessions.text.trace_report import summary_text

    variables = traces.environment(store.folder(name), name)
    variables |= environment(os.environ.get("PYTHONPATH"), layout, descriptors_per_block)
    # Ctrl-C is for the command: this process waits. A handler, unlike SIG_IGN, isn't passed on to the command.
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        child = Child(command, stdin=None, env=variables, own_group=False, umask=umask.given())
        status = child.wait()
        assert status is not None
    except OSError as error:
        raise UsageError(f"can't run {command[0]!r}: {error.strerror}", "check its name and mode") from error
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    click.echo(summary_text(find(store, name)), err=True)
    return shell_status(status)
