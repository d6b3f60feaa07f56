"""`kvdeck config`: the settings with their origins, an annotated example file, and all actions of the keymap."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from textual.binding import Binding

    from kvdeck.app.config import Config

Command = TypeVar("Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--theme",
        metavar="NAME",
        help="dark, light, contrast, safe (colour-blind safe) or ansi (the terminal's palette).",
    ),
    click.option(
        "--ascii/--no-ascii", "ascii", default=None, help="Draw with ASCII only, or with braille and box lines."
    ),
    click.option("--bell/--no-bell", default=None, help="Ring the terminal's bell when a run ends."),
    click.option("--hz", metavar="N", help="Maximum screen updates per second, 0.1 to 10."),
    click.option("--block-bytes", metavar="N", help="Size of one KVBM block in bytes, for the Monitor."),
)


def deck_options(command: Command) -> Command:
    """Add the deck's settings to a command as options (a decorator)."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def configured() -> Config:
    """Return the settings of the config file and the environment, and export the folders to child processes."""
    from kvdeck.app.config import export, load

    found = load()
    export(found)
    return found


def config_of(context: click.Context) -> Config:
    """Return the settings that apply to a command."""
    from kvdeck.app.config import Config, load

    return context.find_object(Config) or load()


@click.command()
@click.option("--print", "example", is_flag=True, help="Print a config file that explains every setting and sets none.")
@click.option("--keys", "keys", is_flag=True, help="List the actions that the keymap can name, with their keys.")
def config(example: bool, keys: bool) -> int:
    """Show the settings in effect and where each comes from."""
    from kvdeck.app import config as settings

    if example:
        click.echo(settings.example(), nl=False)
        return 0
    if keys:
        for binding in actions().values():
            click.echo(f"{binding.id or '':<20} {binding.key:<16} {binding.tooltip}")
        return 0
    found, where = settings.load(), settings.path()
    click.echo(f"{where}{'' if where.is_file() else ' (missing; `kvdeck config --print` prints an example)'}")
    for name, value in settings.values_of(found).items():
        shown = "–" if value is None or value == {} else value
        click.echo(f"  {name:<15} {shown}  ({found.origins.get(name, 'default')})")
    unknown = [name for name in found.keymap if name not in actions()]
    for name in unknown:
        click.echo(
            f"kvdeck: keymap: unknown action {name!r} · fix: use a name that `kvdeck config --keys` lists", err=True
        )
    return 1 if unknown or found.problems else 0


def actions() -> dict[str, Binding]:
    """Return all bindings with an id, of every screen and widget, as a dict sorted by id."""
    from textual.binding import Binding
    from textual.dom import DOMNode

    from kvdeck.app import tui
    from kvdeck.app.tui.app import Deck

    nodes: set[type[DOMNode]] = {Deck}
    for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}."):
        members = vars(importlib.import_module(found.name)).values()
        nodes |= {member for member in members if isinstance(member, type) and issubclass(member, DOMNode)}
    bindings = (item for node in nodes for item in node.BINDINGS if isinstance(item, Binding) and item.id)
    return dict(sorted((str(binding.id), binding) for binding in bindings))
