"""`kvdeck ct-perftest` and `kvdeck sequential-ct-perftest`: traffic patterns between ranks."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.follow import exit_status
from kvdeck.app.cli.output import print_json
from kvdeck.app.cli.rank_options import rank_options, taken
from kvdeck.app.cli.standard_output import echo_own
from kvdeck.engine.launchers import placement_of
from kvdeck.engine.meeting import MeetingOptions, meeting_of
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.host.files import write_output
from kvdeck.sessions.model.run_state import RunState
from kvdeck.sessions.units import many

if TYPE_CHECKING:
    from kvdeck.engine.traffic.spec import TrafficSpec

MOST_COUNT = 1_000_000


def _both(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that both commands have."""
    count = click.IntRange(1, 4096)
    memory = click.Choice(["dram", "cpu", "vram", "cuda"], case_sensitive=False)
    played = "Processes that play the ranks. Default: one for each rank, at most one per core."
    received = "Print how each received message begins, and its CRC-32."
    options = (
        click.argument("config"),
        click.option("--ranks", type=count, help="Ranks; must be as many as the matrix has, the default."),
        click.option("--processes", type=count, help=played),
        click.option("--iterations", type=click.IntRange(1, MOST_COUNT), help="In place of the file's `iters`."),
        click.option("--warmup", type=click.IntRange(0, MOST_COUNT), help="In place of the file's `warmup_iters`."),
        click.option("--mem-type", type=memory, help="In place of the file's mem_type."),
        click.option("--verify-buffers/--no-verify-buffers", help="Move each pattern once more; compare every byte."),
        click.option("--print-recv-buffers/--no-print-recv-buffers", help=received),
        click.option("--json-output-path", metavar="FILE", help="Write the result as JSON."),
        click.option("--peer", metavar="HOST", multiple=True, help="Ranks also on another host, by ssh; repeatable."),
        click.option("--peer-command", default="kvdeck", help="How kvdeck is called there. Default: kvdeck."),
        click.option("--peer-timeout", type=click.FloatRange(1), default=30.0, help="Silence after which it is lost."),
        click.option("--session", metavar="NAME", help="Session name. Default: made from the time."),
        click.option("--detach", is_flag=True, help="Queue the test and return at once."),
        click.option("--foreground", is_flag=True, help="Measure in this process's own child, without the engine."),
        click.option("--json", "as_json", is_flag=True, help="Print the session as one JSON object, without tables."),
    )
    for option in reversed(options):
        command = option(command)
    return rank_options(command, count=False)


@click.command(name="ct-perftest")
@_both
def ct_perftest(**values: Any) -> int:
    """Measure one traffic pattern between ranks, in successive iterations.

    CONFIG is a YAML file with `traffic_pattern`, `iters` and `warmup_iters`. A cell [i, j] of its matrix is the bytes
    that rank i sends to rank j.
    """
    return _run(values, single=True)


@click.command(name="sequential-ct-perftest")
@_both
@click.option(
    "--isolation-iterations",
    type=click.IntRange(0, MOST_COUNT),
    default=30,
    help="Runs of each pattern alone. Default: 30.",
)
def sequential_ct_perftest(**values: Any) -> int:
    """Measure traffic patterns each alone and then in sequence, where those with different senders overlap.

    CONFIG is a YAML file with `traffic_patterns`, such as `kvdeck matgen generate` writes. The JSON is that of NIXL's
    own tool. Without --iterations and --warmup they are the file's, or 3 and 30.
    """
    return _run(values, single=False)


def asked_spec(values: dict[str, Any], *, single: bool, launched: bool = False) -> TrafficSpec:
    """Return the spec of a command's values, validated before anything is started or written.

    Args:
        launched: A launcher has started the ranks, so this host may play any part of them.

    Raises:
        UsageError: A value or the file is invalid; the message names it and the fix.
    """
    from kvdeck.engine.host import host_facts
    from kvdeck.engine.spec import parse_host
    from kvdeck.engine.traffic.config import read_config
    from kvdeck.engine.traffic.needs import region_bytes, resolved
    from kvdeck.engine.traffic.spec import spec_of_config

    memory = values["mem_type"]
    path = Path(values["config"])
    config = read_config(path)
    if values["ranks"] is not None and config.patterns and values["ranks"] != config.ranks:
        raise UsageError(
            f"--ranks is {values['ranks']}, and the matrices have {many(config.ranks, 'rank')}",
            f"give --ranks {config.ranks}, or none; --processes sets how many processes play them",
        )
    if memory is not None:
        kind = "VRAM" if memory.lower() in ("vram", "cuda") else "DRAM"
        config = replace(config, patterns=tuple(replace(one, memory=kind) for one in config.patterns))
    spec = spec_of_config(
        config,
        "single" if single else "sequential",
        source=str(path.absolute()),
        processes=values["processes"],
        iterations=values["iterations"],
        warmup=values["warmup"],
        isolation=values.get("isolation_iterations"),
        verify=values["verify_buffers"],
        print_received=values["print_recv_buffers"],
        peer=tuple(map(parse_host, values["peer"])),
        peer_command=values["peer_command"],
        peer_timeout=values["peer_timeout"],
    )
    needed = resolved(spec)  # refused now, before there is a session
    if not launched:
        region_bytes(needed, host_facts().memory_available_bytes)
    return spec


def _run(values: dict[str, Any], *, single: bool) -> int:
    path = None if values["json_output_path"] is None else Path(values["json_output_path"])
    if path is not None and not path.absolute().parent.is_dir():
        raise UsageError(f"the folder of {path} doesn't exist", "give another --json-output-path")
    session, as_json = values["session"], values["as_json"]
    if session is not None:
        from kvdeck.sessions.store.index import check_name

        check_name(session)
    meeting = meeting_options(values)
    if meeting.given and values["processes"] is not None:
        raise UsageError("--processes is not for ranks that are started elsewhere", "omit it")
    spec = asked_spec(values, single=single, launched=meeting.given)

    def show_result(run: RunState) -> None:
        _give_upstream(run, path, as_json=as_json)

    if meeting.given:
        return _as_rank(spec, meeting, session, show_result, detach=values["detach"], as_json=as_json)
    if values["foreground"]:
        if values["detach"]:
            raise UsageError("--foreground and --detach exclude each other", "give only one of them")
        from kvdeck.app.cli.foreground import run_here

        return run_here(spec, "traffic", "kvdeck.engine.traffic.worker", session, show_result, as_json=as_json)
    return _submit(spec, session, show_result, detach=values["detach"], as_json=as_json)


def meeting_options(values: dict[str, Any]) -> MeetingOptions:
    """Return how this process meets others; by default as a launcher tells it, if it names more than one rank."""
    options = taken({**values, "ranks": None})
    if options.given or values["peer"]:
        return options
    try:
        placement = placement_of(os.environ, "auto")
    except UsageError:  # no complete set of variables
        return options
    return replace(options, launcher="auto") if placement.world > 1 else options


def _as_rank(
    spec: TrafficSpec,
    options: MeetingOptions,
    session: str | None,
    show_result: Callable[[RunState], object],
    *,
    detach: bool,
    as_json: bool,
) -> int:
    """Measure as the launcher's rank 0, or play ranks as another."""
    from kvdeck.app.cli.foreground import followed, started_session
    from kvdeck.app.cli.ranks import RankChild
    from kvdeck.engine.children.program import noted_signals
    from kvdeck.engine.client.client import store

    if detach or spec.peer:
        raise UsageError("--detach and --peer are not for ranks that are started elsewhere", "omit them")
    meeting = meeting_of(options, os.environ)
    with (
        noted_signals() as signals,
        contextlib.closing(RankChild(meeting, signals, "kvdeck.engine.traffic.rank_worker")) as child,
    ):
        placed = child.placed()
        if placed is None or placed["rank"]:
            for _ in child.lines():
                pass
            return child.end()
        kept = store()
        made = started_session(kept, spec, "traffic", session)
        child.measure(kept.folder(made.name))
        return exit_status(followed(child, kept, made, show_result, as_json=as_json))


def _submit(
    spec: TrafficSpec, session: str | None, show_result: Callable[[RunState], object], *, detach: bool, as_json: bool
) -> int:
    from kvdeck.app.cli.follow import counted_interrupts, follow
    from kvdeck.engine.client.client import Client
    from kvdeck.engine.traffic.spec import too_large
    from kvdeck.sessions.model.traffic import TRAFFIC

    if why := too_large(spec):
        raise UsageError(why, "measure with --foreground")
    with Client.connect() as client, counted_interrupts() as interrupts:
        name = client.submit(spec.to_mapping(), session, TRAFFIC)
        if not detach:
            return follow(client, name, as_json, interrupts, show_result)
    if as_json:
        print_json({"session": name})
    else:
        click.echo(f"{name}\nfollow it with `kvdeck attach {name}`")
    return 0


def _give_upstream(run: RunState, path: Path | None, *, as_json: bool) -> None:
    """Print upstream's tables and what was received, and write upstream's JSON file."""
    from kvdeck.sessions.text.traffic_report import received_text, upstream_text

    traffic = run.traffic
    if traffic is None or traffic.upstream is None:
        return
    if not as_json:
        for lines in (upstream_text(traffic.upstream), received_text(traffic.received)):
            if lines:
                echo_own("\n".join(map(visible, [*lines, ""])))
    if path is not None:
        import orjson

        try:
            write_output(path, orjson.dumps(traffic.upstream), mode=0o644)
        except OSError as error:
            raise KvdeckError(f"can't write {path}: {error.strerror}", "give another --json-output-path") from error
