"""Workers that await a request: an error is shown as a toast."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from kvdeck.sessions.errors import KvdeckError

if TYPE_CHECKING:
    from textual.app import App
    from textual.screen import Screen
    from textual.worker import WorkType

    from kvdeck.app.tui.requests import Request


def worker_of(asker: App[None] | Screen[None], work: Request) -> WorkType[None]:
    """Return what a worker of `asker` runs to await `work`."""
    job: WorkType[None] = partial(_run, asker, work)
    return job


async def _run(asker: App[None] | Screen[None], work: Request) -> None:
    try:
        await work()
    except KvdeckError as error:
        asker.notify(str(error), severity="error", markup=False)
