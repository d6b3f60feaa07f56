"""The `kvdeck` command: opens the deck, or runs a subcommand."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from kvdeck.app.cli.config import configured, deck_options
from kvdeck.app.cli.standard_output import OutputError, guard_streams
from kvdeck.app.cli.verbs import HIDDEN, VERBS, AliasedGroup
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.host.user_home import ensure_home

_PASSWORD = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*:/{1,3})[^\s/@'\"]*@")
"""A user or password in a URL; removed when an error message repeats what was typed."""
CLOSED_PIPE = 141
"""Exit status when the reader of stdout has closed it, as a shell reports SIGPIPE (128 + 13)."""


@click.group(
    cls=AliasedGroup,
    verbs=VERBS,
    unlisted=HIDDEN,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command the deck opens. Try `kvdeck doctor` first, then `kvdeck run --quick`.",
)
@click.version_option(package_name="kvdeck", message="kvdeck %(version)s")
@click.option("--readonly", is_flag=True, help="Read-only: show runs, but don't start, cancel or edit anything.")
@deck_options
@click.pass_context
def kvdeck(context: click.Context, /, readonly: bool, **options: Any) -> int:
    """A flight deck in the terminal for KV-cache transfer and offload over NIXL."""
    found = context.obj = configured()
    if context.invoked_subcommand is not None:
        for name, value in (("readonly", readonly or None), *options.items()):
            if value is not None:
                raise UsageError(f"--{name} applies only to the deck, not to commands", "omit it")
        for problem in found.problems:
            click.echo(f"kvdeck: {problem}", err=True)
        return 0
    from kvdeck.app.config import chosen

    found = chosen(found, options)
    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stdout)):
        raise UsageError(
            "the deck needs a terminal on stdin and stdout", "without a terminal, use `kvdeck run` (see --help)"
        )
    from kvdeck.app.tui.launch import run_deck

    return run_deck(readonly, found)


FEWER_COLLECTIONS = (50_000, 20, 20)
"""GC thresholds. With Python's defaults, listing 10,000 sessions takes twice as long: ten collections scan it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `kvdeck` command."""
    guard_streams()
    # Sessions hold host names and paths: other users needn't read them.
    umask.make_private()
    if said := ensure_home():
        click.echo(f"kvdeck: {said}", err=True)
    gc.freeze()  # imported modules live until exit: don't scan them
    gc.set_threshold(*FEWER_COLLECTIONS)
    sys.exit(call(arguments))


def call(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and print an error as one line on stderr.

    Returns:
        The exit status: 0 done, 1 failed, 2 bad arguments, 130 cancelled, 141 stdout closed by its reader.
    """
    try:
        status = kvdeck.main(args=arguments, prog_name="kvdeck", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "kvdeck"
        return _said(f"{error.format_message()} · fix: see {where} --help", error.exit_code)
    except click.ClickException as error:
        return _said(error.format_message(), error.exit_code)
    except OutputError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter's flush at exit fails again
        return _said(str(error), error.exit_code)
    except KvdeckError as error:
        return _said(str(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit:
        return CLOSED_PIPE  # outside standalone mode, click raises SystemExit for a closed pipe
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter's flush at exit prints an error
        return CLOSED_PIPE
    except Exception as error:
        return _said(f"unexpected {type(error).__name__}: {error} · fix: report it with {_saved_traceback()}", 1)
    return status if isinstance(status, int) else 0


def _said(text: str, status: int) -> int:
    with contextlib.suppress(OutputError):
        said = _PASSWORD.sub(r"\1…@", " ".join(text.split()))
        click.echo(f"kvdeck: {said}", err=True)
    return status


def _saved_traceback() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="kvdeck-traceback-", suffix=".txt")
    with open(descriptor, "w", encoding="utf-8") as file:
        traceback.print_exc(file=file)
    return Path(name)


def _is_terminal(stream: object) -> bool:
    return stream is not None and hasattr(stream, "isatty") and stream.isatty()


if __name__ == "__main__":
    main()
