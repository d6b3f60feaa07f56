"""`kvdeck session rename|delete|import|tag|note`: commands that change stored sessions."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from kvdeck.app.cli.session.arguments import checked, store
from kvdeck.sessions.errors import SessionError, UsageError
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session, SessionKind


@click.command()
@click.argument("name")
@click.argument("new")
def rename(name: str, new: str) -> int:
    """Give a session another name."""
    store().rename(checked(name), checked(new))
    click.echo(f"'{name}' is now '{new}'")
    return 0


@click.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Delete without confirmation.")
def delete(names: tuple[str, ...], yes: bool) -> int:
    """Delete kvdeck sessions with all their files. Dynamo's files are not deleted."""
    for name in names:
        if not store().folder(checked(name)).is_dir():
            raise SessionError(f"kvdeck has no session {name!r}", "see `kvdeck session list`")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("refusing to delete without confirmation", "pass --yes")
        click.confirm(f"Delete {', '.join(names)} for good?", abort=True)
    for name in names:
        store().delete(name)
        click.echo(f"'{name}' deleted")
    return 0


@click.command("import")
@click.argument("file", type=click.Path())
@click.option("--name", metavar="NAME", help="Default: the name in the file, or one made from the file's name.")
def import_(file: str, name: str | None) -> int:
    """Import a file as a session: Dynamo's JSON or CSV, kvdeck's JSON, nixlbench's output, cloudai's CSV of it, or
    ct-perftest's JSON.

    Several runs of nixlbench in one log become a session each, under NAME-1, NAME-2 …
    """
    import re

    from kvdeck.app.cli.spinner import size_of, waiting
    from kvdeck.sessions.formats import exchange

    path = expanded(file)
    with waiting(f"reading {path}{size_of(path)}"):
        found = exchange.read_all(path)
    if len(found) > 1:
        click.echo(f"{path} holds {len(found)} runs of nixlbench, each with its own configuration", err=True)
    for number, read in enumerate(found, 1):
        given = f"{name}-{number}" if name and len(found) > 1 else name
        chosen = given or re.sub(r"[^A-Za-z0-9._-]+", "-", read.name).strip("-.")[:100] or "imported"
        kept = store().keep(replace(read, name=checked(chosen), kind=_kept_kind(read)))
        click.echo(f"Saved as '{kept.name}': `kvdeck session show {kept.name}`")
        if read.state != "done" and read.reason:
            click.echo(f"'{kept.name}' is {read.reason}", err=True)
    return 0


def _kept_kind(read: Session) -> SessionKind:
    return read.kind if read.kind in ("run", "traffic") else "imported"


@click.command()
@click.argument("name")
@click.argument("tags", nargs=-1)
@click.option("--remove", is_flag=True, help="Remove these tags.")
def tag(name: str, tags: tuple[str, ...], remove: bool) -> int:
    """Add tags to a session, or print them."""

    def tagged(now: Session) -> Session:
        kept = [item for item in now.tags if item not in tags]
        return replace(now, tags=tuple(kept if remove else [*kept, *dict.fromkeys(tags)]))

    found = store().change(checked(name), tagged) if tags else store().read(checked(name))
    click.echo(" ".join(found.tags))
    return 0


@click.command()
@click.argument("name")
@click.argument("text", required=False)
def note(name: str, text: str | None) -> int:
    """Write a session's note, or print it."""
    if text is None:
        click.echo(store().read(checked(name)).note)
        return 0
    before: list[str] = []

    def noted(now: Session) -> Session:
        before.append(now.note)
        return replace(now, note=text)

    click.echo(store().change(checked(name), noted).note)
    if before[0] not in ("", text):
        click.echo(f"replaced: {before[0]}", err=True)
    return 0
