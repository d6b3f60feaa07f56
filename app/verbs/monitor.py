"""`kvdeck monitor`: what moves between the tiers now, as a report, a line a tick, or JSON."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click
import orjson

from kvdeck.app.verbs.printing import print_json, print_lines, report_width
from kvdeck.sessions.errors import UsageError

if TYPE_CHECKING:
    from kvdeck.engine.watch.snapshot import Snapshot


@click.command()
@click.option("--once", is_flag=True, help="One snapshot, then end; with --seconds it has rates.")
@click.option("--json", "as_json", is_flag=True, help="JSON: one object with --once, else one a line.")
@click.option(
    "--source", "sources", multiple=True, metavar="S", help="An address, a folder of rings, a session file, or a name."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="End after so long; without end by default.")
@click.option("--hz", type=click.FloatRange(0.05, 10), default=1.0, show_default=True, help="Snapshots a second.")
@click.option("--list-sources", is_flag=True, help="Say what there is to watch on this host, and end.")
@click.option(
    "--block-bytes", "block", metavar="N|PLAN", help="Bytes of a KVBM block: a number, plan:NAME, or a plan's file."
)
@click.option("--pin", "pins", multiple=True, metavar="METRIC", help="Also show this metric, known or not.")
@click.option(
    "--prometheus", type=click.IntRange(0, 65535), metavar="PORT", help="Serve what is known, as an endpoint."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address for --prometheus.")
def monitor(
    once: bool,
    as_json: bool,
    sources: tuple[str, ...],
    seconds: float | None,
    hz: float,
    list_sources: bool,
    block: str | None,
    pins: tuple[str, ...],
    prometheus: int | None,
    bind: str,
) -> int:
    """Watch KV bytes move between the tiers, from what engines, NIXL and the host say."""
    from kvdeck.engine.client import home
    from kvdeck.engine.watch import monitor as watch
    from kvdeck.engine.watch.blocks import told

    if once and prometheus is not None:
        raise UsageError("--prometheus serves until it is ended, --once ends at once", "leave one out")
    if list_sources:
        return _list(watch.found(home()), as_json)
    size = None if block is None else told(block, home() / "plans")
    watching = watch.Watching(
        sources=sources,
        hz=hz,
        seconds=seconds,
        block_bytes=None if size is None else size.bytes,
        block_claim="" if size is None else size.claim,
        pins=pins,
        home=home(),
        prometheus=None if prometheus is None else (bind, prometheus),
    )
    if once:
        _print(watch.once(watching), as_json)
    else:
        watch.stream(watching, _print_line_json if as_json else _print_line)
    return 0


def _list(found: list[tuple[str, str]], as_json: bool) -> int:
    if as_json:
        print_json({"sources": [{"name": name, "kind": kind} for name, kind in found]})
    else:
        for name, kind in found:
            click.echo(f"{kind:<10} {name}")
    return 0


def _print(snapshot: Snapshot, as_json: bool) -> None:
    from kvdeck.engine.watch.report import monitor_lines
    from kvdeck.engine.watch.snapshot import to_mapping

    if as_json:
        print_json(to_mapping(snapshot))
    else:
        print_lines(monitor_lines(snapshot, report_width()))


def _print_line_json(snapshot: Snapshot) -> None:
    from kvdeck.engine.watch.snapshot import to_mapping

    click.echo(orjson.dumps(to_mapping(snapshot)).decode())


def _print_line(snapshot: Snapshot) -> None:
    from kvdeck.engine.watch.report import one_line

    click.echo(f"{time.strftime('%H:%M:%S', time.localtime(snapshot.t))} {one_line(snapshot)}")
