"""`kvdeck rank`: the half of a run that ssh starts on a peer; not for people, so `--help` doesn't list it."""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.option("--stdio", is_flag=True, required=True, help="Speak with the run on stdin and stdout.")
@click.argument("name")
def rank(stdio: bool, name: str) -> None:  # noqa: ARG001 - the only way so far
    """Take part in a run of another host (started by `kvdeck run --peer`)."""
    module = "kvdeck.engine.ranks.outpost"
    os.chdir("/")  # -m takes modules from the current folder first
    os.execv(sys.executable, [sys.executable, "-m", module, "--seat", "stdio:", "--rank", name])
