"""`kvdeck session compare|export|report` of recordings of the Monitor's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click
import orjson

from kvdeck.app.output import write_bytes
from kvdeck.app.verbs.named import give, store
from kvdeck.app.verbs.printing import print_lines, report_width
from kvdeck.sessions.units import ratio_text
from kvdeck.sessions.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.sessions.records import Session


def compare_recordings(
    a: Session, b: Session, output: str | None, as_json: bool, markdown: bool, percent: float | None
) -> int:
    """Print or write the comparison; 1 if a flow moves so many percent slower than it did."""
    from kvdeck.sessions.watched import compare
    from kvdeck.sessions.watched.compare_report import watched_diff_lines, watched_diff_markdown

    diff = compare.compare_recordings(a, b)
    worse = [] if percent is None else compare.slower(diff, percent)
    if as_json:
        data = {**dataclasses.asdict(diff), "regressed": [dataclasses.asdict(row) for row in worse]}
        give(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), output)
    elif markdown:
        give(watched_diff_markdown(diff).encode(), output)
    elif output is not None:
        give("".join(f"{line.text}\n" for line in watched_diff_lines(diff)).encode(), output)
    else:
        print_lines(watched_diff_lines(diff, report_width()))
    for row in worse:
        click.echo(f"regression: {row.a.name} of {row.a.source}: {ratio_text(row.ratio)} the rate", err=True)
    return 1 if worse else 0


def export_recording(session: Session, form: str, output: str | None) -> int:
    """Write a recording to a file, or to stdout, as it is read."""
    from kvdeck.sessions.watched import export

    folder = store().folder(session.name)
    if output is not None:
        export.write(session, folder, form, expanded(output))
        return 0
    for piece in export.pieces(session, folder, form):
        write_bytes(piece)
    return 0
