"""`kvdeck ct-perftest` and `kvdeck sequential-ct-perftest`: traffic patterns between ranks, in the foreground."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import orjson

from kvdeck.app.cli.standard_output import echo_own
from kvdeck.engine.children.child import PIPE, Child, exit_reason
from kvdeck.engine.children.program import Signals, noted_signals
from kvdeck.engine.lines import LineBuffer
from kvdeck.sessions.errors import KvdeckError, UsageError
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.host.escapes import visible
from kvdeck.sessions.host.files import replace_file

_CANCELLED = 130
_LOOK_S = 0.5
_LONGEST_LINE = 256 << 20
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
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(name="ct-perftest")
@_both
def ct_perftest(**values: Any) -> int:
    """Measure one traffic pattern between ranks of this host, in successive iterations, in the foreground.

    CONFIG is a YAML file with `traffic_pattern`, `iters` and `warmup_iters`. A cell [i, j] of its matrix is the bytes
    that rank i sends to rank j.
    """
    return _run(values, sequential=False)


@click.command(name="sequential-ct-perftest")
@_both
@click.option(
    "--isolation-iterations",
    type=click.IntRange(0, 1_000_000),
    default=30,
    help="Runs of each pattern alone. Default: 30.",
)
def sequential_ct_perftest(**values: Any) -> int:
    """Measure traffic patterns each alone and then in sequence, where those with different senders overlap.

    CONFIG is a YAML file with `traffic_patterns`, such as `kvdeck matgen generate` writes. The JSON is that of NIXL's
    own tool. Without --iterations and --warmup they are the file's, or 3 and 30.
    """
    return _run(values, sequential=True)


def _run(values: dict[str, Any], *, sequential: bool) -> int:
    memory = values["mem_type"]
    options = {
        "config": values["config"],
        "sequential": sequential,
        "ranks": values["ranks"],
        "processes": values["processes"],
        "iterations": values["iterations"],
        "warmup": values["warmup"],
        "isolation": values.get("isolation_iterations", 0),
        "memory": None if memory is None else "VRAM" if memory.lower() in ("vram", "cuda") else "DRAM",
        "verify": values["verify_buffers"],
        "print_received": values["print_recv_buffers"],
    }
    path = None if values["json_output_path"] is None else Path(values["json_output_path"])
    if path is not None and not path.parent.is_dir():
        raise UsageError(f"the folder of {path} doesn't exist", "give another --json-output-path")
    with noted_signals() as signals:
        result = _result(options, signals)
    if result is None:
        click.echo("kvdeck: cancelled", err=True)
        return _CANCELLED
    if "error" in result:
        failed = UsageError if result["status"] == 2 else KvdeckError
        raise failed(result["error"], result["fix"])
    echo_own("\n".join(map(visible, result["lines"])))
    if path is not None:
        try:
            replace_file(path, orjson.dumps(result["json"]), mode=0o644)
        except OSError as error:
            raise KvdeckError(f"can't write {path}: {error.strerror}", "give another --json-output-path") from error
    return int(result["status"])


def _result(options: dict[str, Any], signals: Signals) -> dict[str, Any] | None:
    """Run the test in a process of its own and return what it prints last; None if a signal cancels it.

    The process and its ranks are one group, which is killed before this returns.

    Raises:
        KvdeckError: The process ended without a result.
    """
    child = Child([sys.executable, "-m", "kvdeck.engine.traffic.perftest", str(os.getpid())], stdin=PIPE, stdout=PIPE)
    last: dict[str, Any] = {}
    progress = sys.stderr is not None and sys.stderr.isatty()
    try:
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(orjson.dumps(options))
            child.stdin.close()
        lines = LineBuffer(_LONGEST_LINE)
        output = child.stdout.fileno()
        while not signals.came:
            ready, _, _ = select.select([output, signals.wakes], [], [], _LOOK_S)
            if output not in ready:
                continue
            data = os.read(output, 1 << 18)
            for line in lines.take(data):
                last = load_record(line)
                if progress and "progress" in last:
                    echo_own(f"\r\x1b[K{visible(last['progress'])}", err=True, newline=False)
            if not data or "status" in last:
                break
        if signals.came:
            return None
        if "status" not in last:
            status = child.wait(1.0)
            raise KvdeckError(f"the test's process {exit_reason(status) if status is not None else 'gave no result'}")
        return last
    finally:
        if progress:
            echo_own("\r\x1b[K", err=True, newline=False)
        if child.status is None:
            child.kill()
        child.close()
