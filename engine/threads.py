"""Threads that report what kills them."""

from __future__ import annotations

import threading
from collections.abc import Callable


def start_thread(
    name: str, work: Callable[[], object], failed: Callable[[Exception], object] | None = None
) -> threading.Thread:
    """Start a daemon thread that runs `work`, and log the error that ends it, if any.

    Args:
        failed: Called in the thread with that error, after it was logged.

    Raises:
        RuntimeError: No thread can be started.
    """
    thread = threading.Thread(target=_guarded, args=(name, work, failed), name=name, daemon=True)
    thread.start()
    return thread


def _guarded(name: str, work: Callable[[], object], failed: Callable[[Exception], object] | None) -> None:
    try:
        work()
    except Exception as error:
        import logging  # the processes that start threads early load it only if they need it

        logging.getLogger("kvdeck.engine").critical("thread %s died", name, exc_info=error)
        if failed is not None:
            failed(error)
