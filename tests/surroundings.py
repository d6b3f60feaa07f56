"""The environment that tests run in: folders of their own, and no variable that decides what kvdeck, NIXL, UCX, CUDA,
libfabric or a terminal library does. What the tests were started with is kept, for what has to be fetched or built."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

GIVEN = dict(os.environ)
"""The environment as it was when the tests were started: uv's settings and caches are found by it."""
CHOICES = ("KVDECK_HEAVY", "KVDECK_BROWSER", "KVDECK_VLLM_PYTHON", "KVDECK_KILLS_QUICK")
"""Variables that choose which tests run, and how; they stay."""
PREFIXES = (
    *(
        "KVDECK_",
        "DYNAMO_",
        "DYN_",
        "NIXL_",
        "NIXLBENCH_",
        "UCX_",
        "CUDA_",
        "CUFILE_",
        "NVIDIA_",
        "FI_",
        "VLLM_",
        "ETCD_",
    ),
    *("LMCACHE_", "XDG_", "TEXTUAL", "RICH_", "LC_", "SSH_"),
)
NAMES = (
    *("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLORTERM", "COLUMNS", "LINES", "TMUX", "STY"),
    *("PYTHONWARNINGS", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "VTE_VERSION", "WT_SESSION", "TZ", "LANGUAGE"),
)
SET = {"TERM": "xterm-256color", "LANG": "C.UTF-8"}


def default_signals() -> None:
    """Let programs started from here end by their signals: a shell that starts us in the background, or nohup, has us
    ignore them, and every program that we start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def clear(environ: MutableMapping[str, str], root: Path) -> None:
    """Take away every variable that decides something, and put the home and the temp dir below `root`.

    Args:
        root: A short path: sockets lie below it, and theirs have 107 characters at most.
    """
    for name in [name for name in environ if name.startswith(PREFIXES) or name in NAMES]:
        if name not in CHOICES:
            del environ[name]
    environ.update(SET, **folders(root))


def folders(root: Path) -> dict[str, str]:
    """A home and a temp dir below `root`, made, as the variables that name them."""
    found = {"HOME": root / "h", "TMPDIR": root / "t"}
    for folder in found.values():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {name: str(folder) for name, folder in found.items()}


def short_root() -> Path:
    """A folder for all tests of a session, with a short path; whoever makes it removes it."""
    given = Path(tempfile.gettempdir())
    return Path(tempfile.mkdtemp(prefix="kt", dir=given if len(str(given)) < 30 else "/tmp"))
