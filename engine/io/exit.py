"""The end of a process that has loaded UCX: its wheel's libnl-route crashes in a destructor, so none is run."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(main: Callable[[], object]) -> NoReturn:
    """Run a process's main function, flush what it printed, and leave without destructors.

    The exit status is the function's where it returns a number, that of `SystemExit`, 1 after an error, else 0.
    """
    try:
        result = main()
        status = result if isinstance(result, int) else 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    leave(status)


def leave(status: int) -> NoReturn:
    """Flush what was printed, and leave with that status."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
