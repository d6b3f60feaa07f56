"""Printing on stdout: reports in the terminal's width, JSON as one object."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
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
        lines = report_lines(session, report_width())
        lines[0] = replace(lines[0], text=with_link(lines[0].text, session.name))
        print_lines(lines)


def with_link(text: str, session: str) -> str:
    """The text with the session's name in it as a link to its folder, where stdout is a terminal that takes links."""
    if sys.stdout is None or not sys.stdout.isatty():
        return text
    from kvdeck.app import config, hyperlinks, sharing

    plain = not sys.stdout.encoding.lower().startswith("utf")
    settings = config.load()
    wanted = hyperlinks.wanted(replace(settings, ascii=plain) if settings.ascii is None else settings)
    place = sharing.place_of(session) if wanted else None
    return text if place is None else text.replace(session, hyperlinks.linked(session, hyperlinks.uri(place)), 1)


def few_paths(paths: Sequence[str]) -> str:
    """The first two paths and how many more there are, for a table's cell."""
    more = f" +{len(paths) - 2}" if len(paths) > 2 else ""
    return (" ".join(paths[:2]) + more) or "–"
