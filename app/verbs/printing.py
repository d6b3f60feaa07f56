"""Printing on stdout: reports in the terminal's width, JSON as one object."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson

from kvdeck.sessions.records import Session
from kvdeck.sessions.report import Line, Tone, report_json, report_lines

WIDEST = 100
_STYLES: dict[Tone, dict[str, Any]] = {
    "plain": {},
    "heading": {"bold": True},
    "bad": {"fg": "red"},
    "warning": {"fg": "yellow"},
}


def report_width() -> int:
    """Columns for a report: the terminal's, and 100 at most or where stdout is none."""
    if sys.stdout is None or not sys.stdout.isatty():
        return WIDEST
    return min(WIDEST, shutil.get_terminal_size().columns)


def print_lines(lines: Iterable[Line]) -> None:
    """Lines in one write; click takes colours out where stdout is no terminal."""
    click.echo("\n".join(click.style(line.text, **_STYLES[line.tone]) if line.text else "" for line in lines))


def print_json(data: Any) -> None:
    click.echo(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode())


def print_session(session: Session, as_json: bool) -> None:
    """A session's report on stdout, in the form that was asked for."""
    if as_json:
        print_json(report_json(session))
    else:
        print_lines(report_lines(session, report_width()))


def few_paths(paths: Sequence[str]) -> str:
    """The first two paths and how many more there are, for a table's cell."""
    more = f" +{len(paths) - 2}" if len(paths) > 2 else ""
    return (" ".join(paths[:2]) + more) or "–"
