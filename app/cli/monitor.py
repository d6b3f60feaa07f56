"""`kvdeck monitor`: live telemetry of transfers between tiers, as a report, one line per sample, or JSON."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.config import config_of
from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.app.cli.standard_output import echo_json
from kvdeck.sessions import units
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.units import number_text

if TYPE_CHECKING:
    from kvdeck.engine.telemetry.discovery import Search
    from kvdeck.engine.telemetry.sample import Snapshot
    from kvdeck.engine.telemetry.session import SamplingSettings
    from kvdeck.sessions.model.records import RunState


@click.command()
@click.option("--once", is_flag=True, help="Print one sample and exit; with --seconds it has rates.")
@click.option("--json", "as_json", is_flag=True, help="JSON: one object with --once, else one per line.")
@click.option(
    "--source", "sources", multiple=True, metavar="S", help="Address, folder of telemetry rings, session file or name."
)
@click.option("--seconds", type=click.FloatRange(min=0), help="Exit after this time. Default: never.")
@click.option("--hz", type=click.FloatRange(0.05, 10), default=1.0, show_default=True, help="Samples per second.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    metavar="S",
    help="Seconds an endpoint may take to answer.  [default: four times its usual answer, 2 to 10]",
)
@click.option("--list-sources", is_flag=True, help="List the sources on this host and exit.")
@click.option(
    "--block-bytes", "block", metavar="N|PLAN", help="Size of a KVBM block: bytes, plan:NAME, or a plan's file."
)
@click.option("--pin", "pins", multiple=True, metavar="METRIC", help="Also show this metric, even if unknown.")
@click.option(
    "--prometheus", type=click.IntRange(0, 65535), metavar="PORT", help="Serve the samples as a Prometheus endpoint."
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address for --prometheus.")
@click.option("--record", metavar="NAME", help="Record every sample into a new session of this name.")
@click.option(
    "--record-limit",
    metavar="SIZE",
    help="Size limit, such as 64M; beyond it old samples are thinned.  [default: 256 MB]",
)
@click.option("--replay", "replayed", metavar="NAME", help="Replay a telemetry session instead of live sources.")
@click.option(
    "--speed",
    type=click.FloatRange(0, 10_000),
    metavar="X",
    help="With --replay: X times as fast; 0: no waiting.  [default: 1, with --json 0]",
)
@click.pass_context
def monitor(
    context: click.Context,
    once: bool,
    as_json: bool,
    sources: tuple[str, ...],
    seconds: float | None,
    hz: float,
    timeout: float | None,
    list_sources: bool,
    block: str | None,
    pins: tuple[str, ...],
    prometheus: int | None,
    bind: str,
    record: str | None,
    record_limit: str | None,
    replayed: str | None,
    speed: float | None,
) -> int:
    """Show KV bytes moving between tiers, from the metrics of engines, NIXL and this host."""
    if replayed is not None:
        from kvdeck.app.cli.monitor_replay import replay

        _refuse_beside_replay(context)
        return replay(replayed, once, as_json, speed, seconds)
    if speed is not None:
        raise UsageError("--speed needs --replay", "add --replay NAME")
    if record_limit is not None and record is None:
        raise UsageError("--record-limit needs --record", "add --record NAME")
    if record is not None and (once or list_sources):
        raise UsageError("--record can't be combined with --once or --list-sources",
                         "give only one of them")  # fmt: skip
    from kvdeck.engine.client.client import home
    from kvdeck.engine.telemetry import session as watch
    from kvdeck.engine.telemetry.block_size import told
    from kvdeck.engine.telemetry.limits import ServiceLimits

    if once and prometheus is not None:
        raise UsageError("--prometheus can't be combined with --once", "give only one of them")
    if list_sources:
        return _list(watch.found(home()), as_json)
    size = None if block is None else told(block, home() / "plans")
    watching = watch.SamplingSettings(
        sources=sources,
        hz=hz,
        seconds=seconds,
        block_bytes=None if size is None else size.bytes,
        block_claim="" if size is None else size.claim,
        pins=pins,
        home=home(),
        timeout_s=timeout,
        stuck_s=config_of(context).stuck_s,
        limits=ServiceLimits.of(config_of(context).limits),
        prometheus=None if prometheus is None else (bind, prometheus),
    )
    show = _print_line_json if as_json else print_line
    if once:
        _print(watch.once(watching), as_json)
    elif record is not None:
        with _recorded(record, watching, record_limit, show) as show_recorded:
            watch.stream(watching, show_recorded)
    else:
        watch.stream(watching, show)
    return 0


_WITH_REPLAY = {"replayed", "once", "as_json", "speed", "seconds"}


def _refuse_beside_replay(context: click.Context) -> None:
    """Raise UsageError for an option that only applies to live telemetry."""
    given = click.core.ParameterSource.DEFAULT
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in _WITH_REPLAY and context.get_parameter_source(name) not in (given, None):
            raise UsageError(
                f"{parameter.opts[0]} can't be combined with --replay", "a telemetry session has its own sources"
            )


@contextlib.contextmanager
def _recorded(
    name: str, watching: SamplingSettings, limit: str | None, show: Callable[[Snapshot], None]
) -> Iterator[Callable[[Snapshot], None]]:
    """Yield a function that records a sample, then shows it. The session is closed however the block ends.

    Raises:
        KvdeckError: A source, the name or the limit is invalid.
    """
    from kvdeck.engine.quantities import parse_size
    from kvdeck.engine.telemetry.discovery import named
    from kvdeck.engine.telemetry.recording import TelemetryRecorder
    from kvdeck.sessions.store.telemetry.writer import DEFAULT_LIMIT

    assert watching.home is not None
    named(watching.sources, watching.home)  # an invalid source is refused before a session is created
    recorder = TelemetryRecorder.begin(
        watching.home,
        name,
        hz=watching.hz,
        sources=watching.sources,
        block_bytes=watching.block_bytes,
        limit=DEFAULT_LIMIT if limit is None else parse_size(limit),
    )

    def keep_and_show(snapshot: Snapshot) -> None:
        recorder.take(snapshot)
        show(snapshot)

    # SIGTERM and SIGHUP must also reach the `finally` below, which closes the telemetry session.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    state: RunState = "done"
    reason: str | None = None
    try:
        yield keep_and_show
    except KeyboardInterrupt:
        raise
    except BrokenPipeError:
        reason = "stdout was closed"
        raise
    except BaseException as error:
        state, reason = "failed", str(error) if isinstance(error, KvdeckError) else f"{type(error).__name__}: {error}"
        raise
    finally:
        recorder.close(state, reason)
        click.echo(f"Recorded as '{name}': `kvdeck monitor --replay {name}`", err=True)


def _list(found: Search, as_json: bool) -> int:
    from kvdeck.engine.telemetry.discovery import SEARCH_S

    if as_json:
        sources = [{"name": source.name, "kind": source.kind} for source in found.sources]
        silent = [{"process": name, "reason": why} for name, why in found.silent]
        print_json({"sources": sources, "silent": silent, "unanswered": found.unanswered})
    else:
        for source in found.sources:
            click.echo(f"{source.kind:<10} {source.name}")
        for name, why in found.silent:
            click.echo(f"{'–':<10} {name}: no endpoint ({why})")
        for address in found.unanswered:
            click.echo(f"{'–':<10} {address}: no answer in {number_text(SEARCH_S)} s; --source can read it")
    return 0


def _print(snapshot: Snapshot, as_json: bool) -> None:
    from kvdeck.app.text.monitor_report import monitor_lines
    from kvdeck.engine.telemetry.sample import to_mapping

    if as_json:
        print_json(to_mapping(snapshot))
    else:
        print_lines(monitor_lines(snapshot, report_width()))


def _print_line_json(snapshot: Snapshot) -> None:
    from kvdeck.engine.telemetry.sample import to_mapping

    echo_json(to_mapping(snapshot))


def print_line(snapshot: Snapshot) -> None:
    """Print a sample on one line."""
    from kvdeck.app.text.monitor_report import one_line

    click.echo(f"{clock(snapshot.t)} {one_line(snapshot)}")


def clock(t: float) -> str:
    """Return a Unix time as HH:MM:SS in this host's time zone."""
    return units.local_time(t, "%H:%M:%S")
