"""`--record SOURCE...`: telemetry of the time of a run or of a traced command."""

from __future__ import annotations

import click

RECORD = click.option(
    "--record",
    "sources",
    metavar="SOURCE",
    multiple=True,
    help="Record telemetry of that time in the session: a source as for `kvdeck monitor --source`, or `all`.",
)


def sources_to_record(given: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the sources to record, checked before anything is started; empty for all, None for no recording.

    The engine has another working folder, so a path is absolute.

    Raises:
        UsageError: There is no such source.
    """
    if not given:
        return None
    from kvdeck.engine.telemetry.address import source_address

    return () if "all" in given else tuple(source_address(text).text for text in given)
