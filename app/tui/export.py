"""Exports from the deck: tables as Markdown or CSV, chart points, screenshots; each is written to a file too."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.widgets._toast import ToastRack

from kvdeck.engine.daemon.folders import home_folder
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.escapes import csv_text as csv_cell
from kvdeck.sessions.text.markdown import table as markdown_table
from kvdeck.sessions.units import many

if TYPE_CHECKING:
    from textual.screen import Screen

    from kvdeck.app.tui.app import Deck
    from kvdeck.app.tui.widgets.lines import Lines

FOLDER = "shared"
CLIPBOARD_MOST = 74_000
"""Maximum bytes sent to the clipboard by OSC 52: xterm's limit, which other terminals adopted."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's name, column titles and cells, as text."""

    name: str
    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def markdown(table: Table) -> str:
    """Return a GitHub Markdown table, padded so that it also reads as plain text."""
    return "\n".join(markdown_table(table.titles, table.rows)) + "\n"


def csv_text(table: Table) -> str:
    """Return CSV by RFC 4180, but with LF line ends."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.titles)
    writer.writerows([csv_cell(text.strip()) for text in row] for row in table.rows)
    return file.getvalue()


def kept(name: str, suffix: str, text: str) -> Path:
    """Write text to a new file in the home's `shared` folder and return its path; never overwrites a file.

    Raises:
        KvdeckError: It can't be written, or 1000 file names of this second are taken.
    """
    folder, name = home_folder() / FOLDER, re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(1000):
            path = folder / f"{stamp}-{name}{f'-{number}' if number else ''}.{suffix}"
            try:
                # Exclusive: two decks may export in the same second.
                with path.open("x", encoding="utf-8") as file:
                    file.write(text)
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise KvdeckError(
            f"can't write in {folder}: {error.strerror}", "free disk space, or set KVDECK_HOME"
        ) from error
    raise KvdeckError(f"too many files of the same second in {folder}", "try again")


def share(deck: Deck, what: str) -> None:
    """Export a table as `markdown` or `csv`, the points of a `chart`, a screenshot (`picture`), or the path of the
    session's `folder`; errors are shown as a toast."""
    try:
        if what == "chart":
            export_charts(deck)
        elif what == "picture":
            save_picture(deck)
        elif what == "folder":
            copy_path(deck)
        else:
            copy_table(deck, as_csv=what == "csv")
    except KvdeckError as error:
        deck.notify(str(error), severity="error", markup=False)


def copy_table(deck: Deck, as_csv: bool) -> None:
    """Copy the focused table, or the screen's first one with rows, to the operator's clipboard by OSC 52.

    A table over CLIPBOARD_MOST bytes is only written to the file.

    Raises:
        KvdeckError: The file can't be written.
    """
    table = next((found for pane in _panes(deck.screen) if (found := pane.table()) and found.rows), None)
    if table is None:
        deck.notify("this screen has no table with rows", severity="warning")
        return
    text, kind, suffix = (csv_text(table), "CSV", "csv") if as_csv else (markdown(table), "Markdown", "md")
    path = kept(table.name, suffix, text)
    rows = f"{many(len(table.rows), 'row')} as {kind}"
    # Longer sequences are dropped by terminals silently, or cut.
    if len(text.encode()) <= CLIPBOARD_MOST:
        deck.copy_to_clipboard(text)
        deck.notify(f"{rows} copied to your terminal's clipboard; also saved to {path}", markup=False)
    else:
        deck.notify(f"{rows}: too large for the clipboard; saved to {path}", markup=False)


def export_charts(deck: Deck) -> None:
    """Write every point of the charts on the screen as CSV, one file per table.

    Raises:
        KvdeckError: A file can't be written.
    """
    tables = [found for pane in _panes(deck.screen) for found in pane.charts() if found.rows]
    if not tables:
        deck.notify("this screen has no chart with points", severity="warning")
    for table in tables:
        path = kept(table.name, "csv", csv_text(table))
        deck.notify(f"{many(len(table.rows), 'point')} saved to {path}", markup=False)


def save_picture(deck: Deck) -> None:
    """Write a screenshot as SVG once the toasts, which stay unread, don't cover the screen; an error is shown as a
    toast."""
    toasts = list(deck.screen.query(ToastRack))
    for rack in toasts:
        rack.display = False

    def save() -> None:
        try:
            path = kept(deck.current_mode, "svg", deck.export_screenshot(title="kvdeck"))
            deck.notify(f"Screenshot saved to {path}", markup=False)
        except KvdeckError as error:
            deck.notify(str(error), severity="error", markup=False)
        finally:
            for rack in toasts:
                rack.display = True

    deck.screen.call_after_refresh(save)


def place_of(session: str) -> Path | None:
    """Return a session's folder, or Dynamo's file of that name; None if neither exists."""
    folder = home_folder() / "sessions" / session
    if folder.is_dir():
        return folder
    from kvdeck.sessions.formats.dynamo import session_file

    return session_file(session)


def copy_path(deck: Deck) -> None:
    """Copy the path of the session shown to the clipboard, and write it to a file.

    Raises:
        KvdeckError: The file can't be written.
    """
    session = next((name for screen in deck.deck_screens[-1:] if (name := screen.session_shown())), "")
    place = place_of(session) if session else None
    if place is None:
        reason = f"{session} has no folder yet" if session else "this screen shows no session"
        deck.notify(reason, severity="warning", markup=False)
        return
    path = kept("path", "txt", f"{place}\n")
    deck.copy_to_clipboard(str(place))
    deck.notify(f"copied to your terminal's clipboard; also saved to {path}: {place}", markup=False)


def _panes(screen: Screen[object]) -> Iterator[Lines]:
    """Return the visible panes, the focused one first."""
    from kvdeck.app.tui.widgets.lines import Lines

    panes = [pane for pane in screen.query(Lines) if pane.display and pane.size.area]
    return iter(sorted(panes, key=lambda pane: not pane.has_focus))
