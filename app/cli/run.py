"""`kvdeck run`: submit a run, follow it, print its report."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kvdeck.app.cli.folder import checked_folder
from kvdeck.app.cli.output import print_json
from kvdeck.app.cli.rank_options import rank_options, taken
from kvdeck.app.cli.record_option import RECORD, sources_to_record
from kvdeck.engine.meeting import check_world
from kvdeck.sessions.errors import UsageError

if TYPE_CHECKING:
    from kvdeck.engine.meeting import MeetingOptions
    from kvdeck.engine.spec import RunSpec


class RunCommand(click.Command):
    """`kvdeck run`: its options come from the table of a run's fields, which other commands needn't load."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *_table()[0]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        headings = _table()[1]
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and not isinstance(parameter, click.Argument):
                groups.setdefault(headings.get(parameter.name or "", "This run"), []).append(record)
        for heading in dict.fromkeys(("This run", *headings.values())):
            with formatter.section(heading):
                formatter.write_dl(groups[heading])


@functools.cache
def _table() -> tuple[list[click.Option], dict[str, str]]:
    """Return the options of a run's fields, and their headings in the help by field."""
    from kvdeck.app.cli.run_options import headings_of, options_of
    from kvdeck.engine.spec import FIELDS

    return options_of(FIELDS), headings_of(FIELDS)


@click.command(
    cls=RunCommand,
    epilog="By default: both layouts on every ready path, in under a minute. Exit status: 0 done, 1 failed, "
    "2 bad arguments, 130 cancelled. Ctrl-C cancels and saves the results; a second one stops waiting.",
)
@click.argument("spec_file", metavar="[SPEC.yaml]", required=False)
@click.option("--session", metavar="NAME", help="Session name. Default: made from the time.")
@click.option("--quick", is_flag=True, help="Short: about 5 s per path.")
@click.option("--thorough", is_flag=True, help="Longer, for narrow intervals.")
@click.option("--detach", is_flag=True, help="Queue the run and return at once.")
@RECORD
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the report.")
@click.option("--manifest", type=click.Choice(["kubernetes"]), help="Print objects that run this between pods.")
@rank_options
def run(
    spec_file: str | None,
    session: str | None,
    quick: bool,
    thorough: bool,
    detach: bool,
    sources: tuple[str, ...],
    as_json: bool,
    manifest: str | None,
    **values: Any,
) -> int:
    """Measure transfers over NIXL and compare layouts.

    SPEC.yaml has the format of a session's run.yaml; options override it.
    """
    ranks = taken(values)
    spec = asked_spec(spec_file, {**values, "quick": quick, "thorough": thorough})
    if manifest is not None:
        return _print_manifest(spec, ranks)
    if ranks.given:
        return _as_rank(spec, ranks, session, as_json, detach=detach, record=bool(sources))
    from kvdeck.app.cli.ranks import traces_text

    if text := traces_text():
        click.echo(f"kvdeck: {text}", err=True)
    if session is not None:
        from kvdeck.sessions.store.index import check_name

        check_name(session)
    return _run(spec, session, detach, as_json, sources_to_record(sources))


def _print_manifest(spec: RunSpec, ranks: MeetingOptions) -> int:
    """Print the Kubernetes objects of a run between pods.

    Raises:
        UsageError: The run can't be between them, or options contradict it.
    """
    from kvdeck.app.cli.ranks import between_ranks
    from kvdeck.app.text.kubernetes_manifest import kubernetes_manifest
    from kvdeck.sessions.host.documents import dump_yaml

    pods = 2 if ranks.ranks is None else ranks.ranks
    if ranks.given or ranks.role is not None or spec.peer is not None:
        raise UsageError(
            "a manifest says itself where its pods meet", "omit --launcher, --rendezvous, --etcd-* and --peer"
        )
    check_world(pods)
    between_ranks(spec, [f"pod{rank}" for rank in range(1, pods)])
    chosen = {name: value for name, value in spec.to_mapping().items() if value != type(spec)().to_mapping().get(name)}
    click.echo(kubernetes_manifest(dump_yaml(chosen), pods), nl=False)
    return 0


def _as_rank(
    spec: RunSpec, ranks: MeetingOptions, session: str | None, as_json: bool, *, detach: bool, record: bool
) -> int:
    """Run as one of several ranks.

    Raises:
        UsageError: An option that only a run by the engine has.
    """
    from kvdeck.app.cli.ranks import run_rank

    engines = {"--detach": detach, "--record": record, "--peer": spec.peer is not None}
    for option, given in engines.items():
        if given:
            raise UsageError(f"{option} is not for a run by ranks that are started elsewhere", f"omit {option}")
    return run_rank(spec, ranks, session, as_json).status


def asked_spec(spec_file: str | None, values: dict[str, Any]) -> RunSpec:
    """Return the spec of a file and the options, validated before anything is started or written.

    Raises:
        UsageError: A value is invalid; the message names it and the fix.
    """
    from kvdeck.app.cli.run_options import asked_mapping, over_file
    from kvdeck.engine.spec import FIELDS, TUNED, spec_from_mapping, spec_from_yaml

    asked = asked_mapping(values, FIELDS)
    if values["quick"] and values["thorough"]:
        raise UsageError("--quick and --thorough exclude each other", "give only one of them")
    if values["quick"] or values["thorough"]:
        asked["effort"] = "quick" if values["quick"] else "thorough"
    from_file = spec_from_yaml(Path(spec_file)).to_mapping() if spec_file is not None else {}
    spec = spec_from_mapping(over_file(asked, from_file), "the options")
    if spec.tuned:
        fixed = tuple(dict.fromkeys((*spec.fixed, *(name for name in TUNED if name in asked and name != "params"))))
        spec = dataclasses.replace(spec, fixed=fixed)
    if spec.folder is None:
        return spec
    return dataclasses.replace(spec, folder=checked_folder(spec.folder))


def _run(
    spec: RunSpec, session: str | None, detach: bool, as_json: bool, sources: tuple[str, ...] | None = None
) -> int:
    from kvdeck.app.cli.follow import counted_interrupts, follow
    from kvdeck.app.config import load
    from kvdeck.engine.client.client import Client

    with Client.connect() as client, counted_interrupts() as interrupts:
        name = client.submit(spec, session)
        if sources is not None:
            config = load()
            client.record(name, sources=sources, stuck_s=config.stuck_s, limits=config.limits)
        if not detach:
            return follow(client, name, as_json, interrupts)
    if as_json:
        print_json({"session": name})
    else:
        click.echo(f"{name}\nfollow it with `kvdeck attach {name}`")
    return 0
