"""Print the budget table, or the parts of it that are named."""

from __future__ import annotations

import importlib
import os
import sys

from kvdeck.engine.io.exit import run_and_exit
from tests.benchmarks.table import Row, print_markdown

PARTS = ("terminal", "screens", "engine", "transfers", "traffic", "plans", "sessions", "watching")


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # a warm disk has the compiled modules too
    wanted = sys.argv[1:] or list(PARTS)
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        raise SystemExit(f"unknown part {unknown[0]!r} · use {', '.join(PARTS)}")
    rows: list[Row] = []
    for part in wanted:
        print(f"measuring {part} …", file=sys.stderr)
        rows += importlib.import_module(f"tests.benchmarks.{part}").measure()
    print_markdown(rows)


run_and_exit(main)
