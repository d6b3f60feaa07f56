"""`kvdeck session compare|export|report` for the Monitor's recordings."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.output import print_lines, report_width
from kvdeck.app.cli.session.arguments import give, store
from kvdeck.app.cli.standard_output import write_bytes
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.units import ratio_text

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session


def compare_recordings(
    a: Session, b: Session, output: str | None, as_json: bool, markdown: bool, percent: float | None
) -> int:
    """Print or write the comparison of two recordings.

    Args:
        percent: Report flows that take more than this many percent longer in `b` for the same bytes, with the whole
            interval of the ratio on that side of 1; None: no check.

    Returns:
        The exit status: 1 if such a flow exists, otherwise 0.
    """
    from kvdeck.sessions.analysis import compare_telemetry
    from kvdeck.sessions.model.encoding import encode_document
    from kvdeck.sessions.text.telemetry_comparison_report import watched_diff_lines, watched_diff_markdown

    diff = compare_telemetry.compare_recordings(a, b)
    worse = [] if percent is None else compare_telemetry.slower(diff, percent)
    if as_json:
        data = {**dataclasses.asdict(diff), "regressed": [dataclasses.asdict(row) for row in worse]}
        give(encode_document(data), output)
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
    """Write a recording to a file, or piece by piece to stdout; return exit status 0."""
    from kvdeck.sessions.formats import telemetry

    folder = store().folder(session.name)
    if output is not None:
        telemetry.write(session, folder, form, expanded(output))
        return 0
    for piece in telemetry.pieces(session, folder, form):
        write_bytes(piece)
    return 0
