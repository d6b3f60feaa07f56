"""Exit without destructors, for processes that have loaded UCX: its wheel's libnl-route crashes in a destructor."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(main: Callable[[], object]) -> NoReturn:
    """Run a process's main function, flush its output, and exit without destructors.

    The exit status is the function's int result (else 0), the status of `SystemExit`, or 1 after any other error.
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
    """Flush stdout and stderr, and exit at once with `status`."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
