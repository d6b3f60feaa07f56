"""`kvdeck trace`: runs a command and counts its transfers."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kvdeck.app.cli.record_option import RECORD, sources_to_record
from kvdeck.app.cli.session.arguments import checked, store
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host import umask
from kvdeck.sessions.model.records import FINAL_STATES

if TYPE_CHECKING:
    from kvdeck.sessions.model.records import Session
    from kvdeck.sessions.store.store import Store

FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
AFTER_DASHES = "kvdeck.app.cli.trace.command"
"""Key of the words after `--` in the click context."""
HZ = 1.0
"""Telemetry samples per second."""
FIRST_SECONDS = 30.0
"""How long the command waits for the first sample, which makes the telemetry cover all of its time. It comes within
3 s, unless the host is very busy."""
NATIVE = (
    "native agents (KVBM, C++, Rust) aren't counted: `kvdeck monitor` shows KVBM's metrics, from port 6880 of its host"
)


class _SplitAtDashes(click.Command):
    """Sets the words after `--` aside, so that the name before it can be left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        at = args.index("--") if "--" in args else len(args)
        ctx.meta[AFTER_DASHES] = args[at + 1 :]
        return super().parse_args(ctx, args[:at])


@click.command(cls=_SplitAtDashes)
@click.argument("words", metavar="[NAME] -- COMMAND...", nargs=-1)
@click.option("--layout", metavar="LAYOUT", help="Layout of the program's transfers; it can't be detected.")
@click.option(
    "--descriptors-per-block",
    metavar="N",
    type=click.IntRange(1),
    help="Descriptors per block, to count blocks.",
)
@RECORD
@click.pass_context
def trace(
    context: click.Context,
    words: tuple[str, ...],
    layout: str | None,
    descriptors_per_block: int | None,
    sources: tuple[str, ...],
) -> int:
    """Run a command and count the NIXL transfers of all its Python processes.

    The counts go into the session NAME, a new one or an earlier trace; default: a name made of the time and the
    command. The exit status is the command's, or 128 + the number of the signal that ended it. SIGTERM, SIGINT,
    SIGHUP and SIGQUIT are passed on. A program without NIXL runs unchanged.
    """
    from kvdeck.engine.planning.layout import parse_layout_pair
    from kvdeck.engine.tracing import environment
    from kvdeck.sessions.store import traces
    from kvdeck.sessions.store.lookup import find
    from kvdeck.sessions.text.trace_report import summary_text

    name, command = _name_and_command(words, context.meta[AFTER_DASHES])
    text = str(parse_layout_pair(layout)) if layout is not None else None
    # Before a session is created for it.
    if shutil.which(command[0]) is None:
        raise UsageError(f"can't run {command[0]!r}: it is no program that can be found", "check its name and mode")
    to_record = sources_to_record(sources)
    kept = store()
    name = traces.new_name(kept, Path(command[0]).name) if name is None else checked(name)
    for line in traces.begin(kept, name):
        click.echo(line, err=True)
    folder = kept.folder(name)
    # An earlier trace of that name may hold counts already.
    before = _counted(find(kept, name))
    traces.forget_loaded(folder)
    variables = {**os.environ, **traces.environment(folder, name)}
    variables |= environment(os.environ.get("PYTHONPATH"), text, descriptors_per_block)
    with contextlib.nullcontext() if to_record is None else telemetry(kept, name, to_record):
        status = run_command(command, variables)
    found = find(kept, name)
    click.echo(summary_text(found), err=True)
    if _counted(found) == before:
        click.echo(f"kvdeck: no transfer was counted: {_why_nothing(folder, name)}", err=True)
    return status


@contextlib.contextmanager
def telemetry(kept: Store, name: str, sources: Sequence[str]) -> Iterator[None]:
    """Record telemetry inside the session while the block runs, from before it starts.

    Raises:
        SessionError: Another process records into it, or it can't be written.
        UsageError: A source holds a credential, or the recorder can't be started.
    """
    from kvdeck.engine.children.recorder_process import RecorderProcess
    from kvdeck.sessions.store.telemetry import session

    session.begin_inside(kept, name, hz=HZ, sources=sources, kvdeck=importlib.metadata.version("kvdeck"))
    inside = kept.inside(name)
    try:
        recorder = RecorderProcess(kept.home, f"{name}/{session.INSIDE}", sources, HZ, "`kvdeck trace`")
    except OSError as error:
        session.end(inside, session.INSIDE, "failed", f"the recorder can't be started: {error.strerror}")
        raise UsageError(f"the recorder can't be started: {error.strerror}", "omit --record") from error
    try:
        recorder.wait_for_sample(FIRST_SECONDS)
        yield
    finally:
        trouble = recorder.close()
        if trouble is not None:
            if inside.read(session.INSIDE).state not in FINAL_STATES:
                session.end(inside, session.INSIDE, "failed", trouble)
            click.echo(f"kvdeck: telemetry was not recorded to the end: {trouble}", err=True)


def _name_and_command(words: Sequence[str], after: list[str]) -> tuple[str | None, list[str]]:
    """Return the session's name, None if not given, and the command; without `--`, the first word is the name."""
    name, command = (words, after) if after else (words[:1], [*words[1:]])
    if len(name) > 1:
        raise UsageError(f"{' '.join(name)!r} stands before --", "give one session name there, or none")
    if not command:
        raise UsageError("no command is given", "put it after --: `kvdeck trace -- COMMAND`")
    return (name[0] if name else None), command


def run_command(command: Sequence[str], variables: dict[str, str]) -> int:
    """Run a command, pass signals on to it, and return its exit status, or 128 + the signal that ended it.

    Raises:
        UsageError: The command can't be run.
    """
    from kvdeck.engine.children.child import Child, shell_status

    early: list[int] = []
    # The command inherits no handlers, as it would a blocked or ignored signal. What is ignored (nohup) stays ignored.
    heard = {number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN}
    before = {number: signal.signal(number, lambda number, _: early.append(number)) for number in heard}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        child = Child(command, stdin=None, env=variables, own_group=False, umask=umask.given())
        signal.pthread_sigmask(signal.SIG_BLOCK, {*heard, signal.SIGCHLD})
        for number in early:
            child.signal(number)
        # Waited for, since a handler can't see who sent a signal. The terminal (Ctrl-C) sends it to the whole
        # foreground group, and a program that got SIGINT twice would take that as the order to quit at once.
        while (status := child.poll()) is None:
            received = signal.sigwaitinfo({*heard, signal.SIGCHLD})
            if received.si_signo in heard and received.si_code <= 0:  # above 0: sent by the kernel for the terminal
                child.signal(received.si_signo)
    except OSError as error:
        raise UsageError(f"can't run {command[0]!r}: {error.strerror}", "check its name and mode") from error
    finally:
        while signal.sigtimedwait(heard, 0) is not None:  # the counts are still to be printed
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    return shell_status(status)


def _counted(session: Session) -> int:
    return sum(counts.transfers + counts.failures for counts in session.transfer_counts)


def _why_nothing(folder: Path, name: str) -> str:
    """Return why a command's transfers weren't counted, and what to do."""
    from kvdeck.sessions.store import trace_counts, traces

    if not trace_counts.control(folder)[0]:
        return f"counting is disabled · `kvdeck session enable -s {name}` enables it"
    loaded = traces.loaded(folder)
    if failed := [line for line in loaded if line.startswith("failed ")]:
        return f"the hook {failed[0]} · set KVDECK_RECORD_DEBUG=1 and report it"
    if modules := [line for line in loaded if line != "python"]:
        return f"{', '.join(modules)} was loaded, and no transfer through it completed · {NATIVE}"
    if loaded:
        return f"none of the Python processes loaded NIXL's Python API or vLLM's offloading · {NATIVE}"
    return f"no Python process loaded kvdeck's hook (-I, -E and -S prevent it, so does a new PYTHONPATH) · {NATIVE}"
