"""`kvdeck rank`: the half of a run that ssh starts on a peer; not for people, so `--help` doesn't list it."""

from __future__ import annotations

import os
import sys

import click

MODULES = {"targets": "kvdeck.engine.ranks.outpost", "traffic": "kvdeck.engine.traffic.rank_host"}


@click.command()
@click.option("--stdio", is_flag=True, required=True, help="Speak with the run on stdin and stdout.")
@click.option("--part", type=click.Choice(sorted(MODULES)), default="targets", help="What it does here.")
@click.argument("name")
def rank(stdio: bool, part: str, name: str) -> None:  # noqa: ARG001 - the only way so far
    """Take part in a run of another host (started by its `--peer`)."""
    module = MODULES[part]
    os.chdir("/")  # -m takes modules from the current folder first
    os.execv(sys.executable, [sys.executable, "-m", module, "--seat", "stdio:", "--rank", name])
