"""`kvdeck tune`: the settings that `kvdeck run --tune` found fastest, and when."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.output import print_json, print_lines, report_width

if TYPE_CHECKING:
    from kvdeck.sessions.store.tuned_settings import TunedSettings


@click.command()
@click.option("--forget", is_flag=True, help="Forget the settings of this host, for the given paths or for all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.argument("paths", nargs=-1, metavar="[PATH...]")
def tune(paths: tuple[str, ...], forget: bool, as_json: bool) -> int:
    """Show the settings that `kvdeck run --tune` found fastest, by host and path; `kvdeck run --tuned` uses them."""
    from kvdeck.engine.client.client import home
    from kvdeck.sessions.model.records import PATHS
    from kvdeck.sessions.store.tuned_settings import forget_tuned, load_tuned

    if unknown := [path for path in paths if path not in PATHS]:
        raise click.UsageError(f"there is no path {unknown[0]!r}: give {', '.join(PATHS)}")
    place = home()
    if forget:
        kept = forget_tuned(place, platform.node(), paths) if place.is_dir() else ()
    else:
        kept = tuple(item for item in load_tuned(place) if not paths or item.path in paths)
    if as_json:
        print_json(list(kept))
    elif not kept:
        click.echo("Nothing is kept. Find the fastest settings: `kvdeck run --tune --path HostToHost`")
    else:
        _print(kept, forget)
    return 0


def _print(kept: tuple[TunedSettings, ...], forgotten: bool) -> None:
    from kvdeck.sessions.text.run_report import Line
    from kvdeck.sessions.text.tables import TextColumn, fit, render
    from kvdeck.sessions.units import exact_size_text, local_time, range_text, ratio_text

    if forgotten:
        click.echo("No longer kept:")
    columns = [
        TextColumn("", "host", tuple(item.host for item in kept), left=True, rank=3),
        TextColumn(
            "", "path", tuple(item.path + (f" to {item.peer}" if item.peer else "") for item in kept), left=True
        ),
        TextColumn("", "settings", tuple(_settings(item) for item in kept), left=True),
        TextColumn("", "time", tuple(ratio_text(item.ratio.median) if item.ratio else "–" for item in kept)),
        TextColumn(
            "",
            "interval",
            tuple(range_text(item.ratio.low, item.ratio.high) if item.ratio else "–" for item in kept),
            rank=5,
        ),
        TextColumn(
            "",
            "block",
            tuple("–" if item.block_bytes is None else exact_size_text(item.block_bytes) for item in kept),
            rank=6,
        ),
        TextColumn("", "batch", tuple("–" if item.batch is None else str(item.batch) for item in kept), rank=6),
        TextColumn("", "found", tuple(local_time(item.wall) for item in kept), left=True, rank=1),
        TextColumn("", "session", tuple(item.session for item in kept), left=True, rank=2),
        TextColumn("", "NIXL", tuple(item.nixl or "–" for item in kept), left=True, rank=4),
    ]
    print_lines(Line(text) for text in render(fit(columns, report_width())[0], report_width()))


def _settings(item: TunedSettings) -> str:
    params = item.settings.get("params", {})
    named = {key: value for key, value in item.settings.items() if key != "params"}
    named |= params if isinstance(params, dict) else {"params": params}
    return ", ".join(f"{key}={value}" for key, value in named.items()) or "the defaults"
