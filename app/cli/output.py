"""Printing on stdout: reports at the terminal's width, and JSON."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import click

from kvdeck.app.cli.standard_output import echo_json, echo_own
from kvdeck.app.tui import hyperlinks
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.text.run_report import Line, Tone, report_json, report_lines

WIDEST = 100
_STYLES: dict[Tone, dict[str, Any]] = {
    "plain": {},
    "heading": {"bold": True},
    "bad": {"fg": "red"},
    "warning": {"fg": "yellow"},
}


def report_width() -> int:
    """Return the columns for a report: the terminal's width, at most 100; 100 if stdout is not a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return WIDEST
    return min(WIDEST, shutil.get_terminal_size().columns)


def print_lines(lines: Iterable[Line]) -> None:
    """Print lines in one write, without colours if stdout is not a terminal."""
    # In one write, so that lines of other programs on the terminal don't come between.
    echo_own("\n".join(map(_styled, lines)))


def _styled(line: Line, link: tuple[str, str] | None = None) -> str:
    """Return a line with its colour, control characters escaped first, and `link` (text, URI) on its first match."""
    text = visible(line.text)
    if link is not None:
        text = text.replace(link[0], hyperlinks.linked(*link), 1)
    return text if line.tone == "plain" or not text else click.style(text, **_STYLES[line.tone])


def print_json(data: Any) -> None:
    """Print data as indented JSON."""
    echo_json(data, indent=True)


def print_session(session: Session, as_json: bool) -> None:
    """Print a session's report, as text or as one JSON object."""
    if as_json:
        print_json(report_json(session))
    else:
        heading, *lines = report_lines(session, report_width())
        echo_own("\n".join([_styled(heading, _link(session.name)), *map(_styled, lines)]))


def _link(session: str) -> tuple[str, str] | None:
    """Return a session's name and its folder's URI, or None if stdout is not a terminal that shows links."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    from kvdeck.app import config
    from kvdeck.app.tui import export

    plain = not sys.stdout.encoding.lower().startswith("utf")
    settings = config.load()
    wanted = hyperlinks.wanted(replace(settings, ascii=plain) if settings.ascii is None else settings)
    place = export.place_of(session) if wanted else None
    return None if place is None else (session, hyperlinks.uri(place))


def few_paths(paths: Sequence[str]) -> str:
    """Return the first two paths and the number of others, for a table cell; `–` without paths."""
    more = f" +{len(paths) - 2}" if len(paths) > 2 else ""
    return (" ".join(paths[:2]) + more) or "–"
