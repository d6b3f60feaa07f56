"""`kvdeck profile`: runs a plan with the engine or with an installed nixlbench."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.folder import checked_folder
from kvdeck.app.cli.output import print_json, print_lines, report_width
from kvdeck.app.cli.plan import SIDES, asked_parameters, beside_lines, header
from kvdeck.app.cli.plan_options import BENCHMARK, OVERRIDES, UpstreamCommand, asked_configs, asked_model, options
from kvdeck.engine.planning.nixlbench_flags import BY_NAME, RENDEZVOUS
from kvdeck.engine.planning.nixlbench_rendezvous import rendezvous_of
from kvdeck.sessions.errors import KvdeckError, UnavailableError, UsageError
from kvdeck.sessions.text.run_report import Line
from kvdeck.sessions.units import count_text, many, size_text

if TYPE_CHECKING:
    from kvdeck.engine.children.program import Signals
    from kvdeck.engine.meeting import MeetingOptions
    from kvdeck.engine.planning.nixlbench_processes import NixlbenchProcesses
    from kvdeck.engine.spec import RunSpec
    from kvdeck.sessions.model.records import RunState
    from kvdeck.sessions.store.writer import External

_BY_SIGNAL = 128
"""Statuses above it stand for signals."""
_FIRST_S = 3.0
"""Seconds after which the other processes of nixlbench start if the first has printed no rank."""


@options(OVERRIDES, BENCHMARK)
@click.command(cls=UpstreamCommand)
@SIDES[0]
@SIDES[1]
@click.option("--exec", "tool", type=click.Choice(["nixlbench"]), help="Run this tool instead and save its rows.")
@click.option(
    "--peer",
    metavar="HOST",
    multiple=True,
    help="Put the targets on another host, reached by ssh, as in `kvdeck run`; repeatable.",
)
@click.option("--peer-command", metavar="COMMAND", help="How kvdeck is called on the peer.")
@click.option("--peer-timeout", metavar="SECONDS", type=float, help="Silence after which a peer is lost. Default: 30.")
@click.option("--session", metavar="NAME", help="Session name. Default: made from the time.")
@click.option("--detach", is_flag=True, help="Queue the run and return at once.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per run.")
def profile(tool: str | None, session: str | None, detach: bool, as_json: bool, peer: tuple[str, ...],
            peer_command: str | None, peer_timeout: float | None, **values: Any) -> int:  # fmt: skip
    """Run a plan: nixlbench's sweep in kvdeck's engine, with nixlbench's columns below kvdeck's report."""
    model = asked_model(values)
    asked, *others = list(asked_configs(values))
    if isinstance(asked, KvdeckError):
        raise asked
    if others:
        raise UsageError("profile runs one configuration at a time", "name one file")
    params = asked_parameters(model, asked, values, "nixlbench")
    if session is not None:
        from kvdeck.sessions.store.index import check_name

        check_name(session)
    head = () if as_json else header(asked, leading=False)
    for line in () if as_json else beside_lines(model, asked.config, bool(values["compat"])):
        click.echo(f"kvdeck: {line}", err=True)
    named = any(values.get(name) is not None for name in RENDEZVOUS) or any(
        BY_NAME[name].changed(params) for name in RENDEZVOUS
    )
    peers = asked_peers(params, peer, {"peer_command": peer_command, "peer_timeout": peer_timeout})
    for option, given in (("--exec", tool), ("nixlbench's --runtime_type and --etcd_endpoints", named)):
        if peers and given:
            raise UsageError(f"--peer and {option} exclude each other", "give only one of them")
    if tool:
        return _with_nixlbench(params, head, session, as_json, named)
    if (meeting := rendezvous_of(params, named)) is not None:
        if detach:
            raise UsageError("--detach is not for a run by processes that are started elsewhere", "omit --detach")
        return _between_hosts(params, meeting, head, session, as_json)
    return _natively(params, head, session, detach, as_json, peers)


def asked_peers(params: Mapping[str, Any], hosts: tuple[str, ...], others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a run's spec about its peers; {} without one.

    Raises:
        UsageError: There are more peers than the plan has target devices, or options about no peer.
    """
    given = {name: value for name, value in others.items() if value is not None}
    if not hosts:
        if given:
            raise UsageError(f"--{next(iter(given)).replace('_', '-')} is about a peer", "give --peer HOST too")
        return {}
    names = [name for text in hosts for name in text.split(",")]
    targets = params["num_target_dev"] * params["num_threads"]
    if len(names) > targets:
        raise UsageError(
            f"{len(names)} peers for {many(targets, 'target')}",
            f"give --num_target_dev {len(names)} with --scheme onetomany, or fewer peers",
        )
    return {"peer": names, **given}


def native_runs(params: Mapping[str, Any], peers: Mapping[str, Any] = MappingProxyType({})) -> list[RunSpec]:
    """Return a plan's validated run specs, after checking that its largest batch fits this host's free memory.

    Args:
        params: nixlbench's parameters.
        peers: Further fields of each spec, from `asked_peers`.

    Raises:
        UsageError: It doesn't fit (the message names the fix), or a value is invalid.
        UnavailableError: The engine can't run the plan.
    """
    import psutil

    from kvdeck.engine.planning.nixlbench_runs import bytes_needed, native_specs
    from kvdeck.engine.spec import spec_from_mapping

    folder = checked_folder(params["filepath"]) if params["filepath"] else None
    specs = [spec_from_mapping({**spec, "folder": folder, **peers}, "the plan") for spec in native_specs(params)]
    needed, there = bytes_needed(params), int(psutil.virtual_memory().available)
    if needed > there:
        raise UsageError(
            f"one batch of {count_text(params['max_batch_size'])} × {size_text(params['max_block_size'])} takes "
            f"{size_text(needed)} of memory, but {size_text(there)} are free",
            "lower --num_requests or --isl, or set --start_batch_size and --max_batch_size",
        )
    return specs


def _between_hosts(
    params: Mapping[str, Any], meeting: MeetingOptions, head: Sequence[str], session: str | None, as_json: bool
) -> int:
    """Run a plan with the process on another host that has the same command; return the exit status."""
    from kvdeck.app.cli.ranks import run_rank
    from kvdeck.engine.planning.nixlbench_runs import native_specs

    specs = native_runs(params)
    worst = 0
    for number, spec in enumerate(specs, 1):

        def met(first: bool = number == 1) -> None:
            if first:
                _print_head(params, specs, native_specs(params), head)

        name = f"{session}-{number}" if session and number > 1 else session
        ended = run_rank(spec, meeting, name, as_json, met)
        worst = max(worst, ended.status)
        if ended.rank is None or ended.status not in (0, 1):
            break
        # Ranks are given in order of arrival: without the role, the sides might change places in the next run.
        meeting = replace(meeting, role="target" if ended.rank else "initiator")
        if ended.session is not None and not as_json:
            from kvdeck.sessions.text.nixlbench_report import table_lines

            print_lines(Line(text) for text in table_lines(ended.session.results, report_width()))
    return worst


def _print_head(
    params: Mapping[str, Any], specs: Sequence[RunSpec], asked: list[dict[str, Any]], head: Sequence[str]
) -> None:
    """Print what the runs of a plan do."""
    from kvdeck.engine.planning.nixlbench_flags import native_notes
    from kvdeck.engine.planning.nixlbench_runs import bytes_moved

    for note in native_notes(params):
        click.echo(f"kvdeck: {note}", err=True)
    for line in head:
        click.echo(line)
    click.echo(f"kvdeck: {count_text(specs[0].iterations)} timed and "
               f"{count_text(specs[0].warmup_iterations)} warm-up requests per step, "
               f"{size_text(bytes_moved(asked))} in all; --num_iter changes that", err=True)  # fmt: skip


def _natively(params: Mapping[str, Any], head: Sequence[str], session: str | None, detach: bool, as_json: bool,
              peers: Mapping[str, Any]) -> int:  # fmt: skip
    from kvdeck.app.cli.follow import counted_interrupts, follow
    from kvdeck.engine.client.client import Client
    from kvdeck.engine.planning.nixlbench_runs import native_specs
    from kvdeck.sessions.text.nixlbench_report import table_lines

    specs = native_runs(params, peers)
    _print_head(params, specs, native_specs(params), head)
    worst = 0
    with Client.connect() as client, counted_interrupts() as interrupts:
        names = [
            client.submit(spec, f"{session}-{number}" if session and number > 1 else session)
            for number, spec in enumerate(specs, 1)
        ]
        for number, name in enumerate(names, 1):
            if len(names) > 1:
                click.echo(f"kvdeck: run {number} of {len(names)}", err=True)
            if detach:
                click.echo(f"{name}\nfollow it with `kvdeck attach {name}`")
                continue
            worst = max(worst, follow(client, name, as_json, interrupts))
            if not as_json:
                print_lines(Line(text) for text in table_lines(client.store.load(name).results, report_width()))
    return worst


def _with_nixlbench(
    params: Mapping[str, Any], head: Sequence[str], session: str | None, as_json: bool, named: bool
) -> int:
    """Run nixlbench on this host; return its exit status.

    Args:
        params: nixlbench's parameters.
        head: Lines printed first.
        session: The session's name; None to generate one.
        as_json: Print one JSON object instead of nixlbench's output.
        named: True if the user named how the processes meet.
    """
    from kvdeck.engine.children.program import noted_signals
    from kvdeck.engine.client.client import store
    from kvdeck.engine.host.ports import free_port
    from kvdeck.engine.planning.nixlbench import steps
    from kvdeck.engine.planning.nixlbench_processes import processes_of
    from kvdeck.sessions.store.writer import External

    program = shutil.which("nixlbench")
    if program is None:
        raise UnavailableError("nixlbench is not on PATH", "install it, or omit --exec: kvdeck then measures itself")
    from kvdeck.engine.planning.nixlbench_flags import stored

    processes = processes_of(params, named, free_port())
    if processes.note:
        click.echo(f"kvdeck: {processes.note}", err=True)
    # Before the session exists: a signal from here on ends it as cancelled.
    with noted_signals() as signals:
        kept = External.begin(store(), session, "nixlbench", {"nixlbench": stored(params)})
        try:
            for line in head:
                click.echo(line)
            status, rows = _keep_rows(program, processes, params, kept, signals, as_json)
        except BaseException as error:
            kept.end("failed", str(error) or type(error).__name__)
            raise
        cancelled = signals.came[0] if signals.came else None
        if cancelled is not None:
            status = 128 + cancelled
            kept.end("cancelled", f"kvdeck was ended by {cancelled.name} after {many(rows, 'row')}")
        else:
            kept.end(*_outcome(status, rows, steps(params)))
    how = "done" if cancelled is None else f"cancelled ({cancelled.name})"
    if as_json:
        print_json({"session": kept.name, "status": status, "rows": rows})
    else:
        click.echo(f"kvdeck: {how}, {many(rows, 'row')} saved as {kept.name}", err=True)
    return status


def _outcome(status: int, rows: int, expected: int) -> tuple[RunState, str | None]:
    """Return the session's state and reason.

    A whole table is done, even if a signal ended the program after it: a process that used UCX may end by SIGSEGV in
    the destructor of a library.
    """
    ended = f"nixlbench ended with status {status} after {many(rows, 'row')}"
    if status == 0:
        return ("done", None) if rows >= expected else ("failed", f"{ended} of {expected}")
    if status > _BY_SIGNAL and rows >= expected:
        return "done", f"{ended}, its last"
    return "failed", ended


def _keep_rows(
    program: str,
    processes: NixlbenchProcesses,
    params: Mapping[str, Any],
    kept: External,
    signals: Signals,
    as_json: bool,
) -> tuple[int, int]:
    """Run nixlbench and store its rows as they arrive; return the first process's status and the number of rows.

    The other processes start when the first has its rank, since nixlbench gives ranks in order of arrival, and the
    first initiator prints the table. Their output goes to stderr.
    """
    from kvdeck.engine.children.program import Program, lines_of
    from kvdeck.sessions.formats.nixlbench import NixlbenchReader, as_results

    if signals.came:
        return 0, 0
    rows, readers = 0, [NixlbenchReader() for _ in range(processes.count)]
    children = [Program([program, *processes.arguments], signals)]
    latest = time.monotonic() + _FIRST_S
    try:
        for index, line in lines_of(children, signals):
            if len(children) < processes.count and ("rank 0" in line or time.monotonic() > latest):
                children += [Program([program, *processes.arguments], signals) for _ in range(1, processes.count)]
            if index < 0:
                continue
            if not as_json:
                click.echo(line if index == 0 else f"nixlbench {index + 1}: {line}", err=index > 0)
            if row := readers[index].take(line):
                kept.add(as_results([row], params)[0])
                rows += 1
        return children[0].wait(), rows
    finally:
        for child in children:
            child.end()
