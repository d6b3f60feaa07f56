"""Runs the steps of a suite one after the other, keeps what they print, and judges their rates."""

from __future__ import annotations

import contextlib
import os
import platform
import select
import shlex
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from kvdeck.engine.children.child import DEVNULL, STDOUT, Child, exit_reason, last_line
from kvdeck.engine.children.program import Signals
from kvdeck.engine.host.environment import deciding_variables
from kvdeck.engine.host.machine import host_facts
from kvdeck.engine.host.ports import free_port
from kvdeck.engine.quantities import parse_size
from kvdeck.engine.suite.bounds import find_bound, parse_rate
from kvdeck.engine.suite.judgement import Judgement, Status, judge
from kvdeck.engine.suite.outputs import OutputRate
from kvdeck.engine.suite.programs import STEP_PROGRAMS, StepCommands, missing_program
from kvdeck.engine.suite.spec import Suite, SuiteStep
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UsageError
from kvdeck.sessions.host.files import read_regular, replace_file
from kvdeck.sessions.stats import median_interval
from kvdeck.sessions.units import seconds_text, size_text

READY_S = 10.0
"""Time for a server to listen."""
_LOOK_S = 0.05
_GRACE_S = 3.0
_INTERVAL_FROM = 6
"""Repetitions from which order statistics give a 95 % interval of the median."""
_MOST_LOG = 64 << 20
"""Bytes of each file that the programs of a step write what they print to; a step that prints more is ended."""
_MOST_RESULT = 16 << 20
FAILED = ("FAIL", "SUSPECT")


class RateResult(msgspec.Struct, frozen=True):
    """One figure of a step over its repetitions."""

    name: str
    message_bytes: int | None
    bytes_per_s: float
    """Median over the repetitions."""
    each: tuple[float, ...]
    low: float | None
    """95 % interval of the median; None for fewer than six repetitions."""
    high: float | None
    expected_bytes_per_s: float | None
    bound_bytes_per_s: float | None
    status: Status
    score: float | None
    efficiency: float | None
    reasons: tuple[str, ...]


class SuiteStepResult(msgspec.Struct, frozen=True):
    """What became of a step."""

    id: str
    kind: str
    status: Status
    reason: str
    """Why it was skipped or failed; empty otherwise."""
    began: float
    """Seconds since the epoch."""
    seconds: float
    rates: tuple[RateResult, ...] = ()
    commands: tuple[str, ...] = ()


def commands_of(step: SuiteStep, folder: Path, port: int = 0) -> StepCommands:
    """Return what one repetition of a step starts; `folder` holds its files."""
    return STEP_PROGRAMS[step.kind].commands(step, port, folder)


def run_suite(
    suite: Suite,
    folder: Path,
    signals: Signals,
    done: Mapping[str, SuiteStepResult],
    on_step: Callable[[str, SuiteStepResult | None], object],
    only: Sequence[str] = (),
) -> tuple[SuiteStepResult, ...]:
    """Run the steps that have no result yet; return all results so far, in the suite's order.

    After each step `results.json` in the folder holds every result, so a run that ends in any way can be resumed.

    Args:
        suite: The steps, in an order that their needs allow.
        folder: Receives `steps/ID/` with each program's output, and `results.json`.
        signals: A signal ends the running step and the suite.
        done: Results of an earlier run in this folder.
        on_step: Receives a step's id with None when it starts, and with its result when it ends.
        only: Ids of the steps to run; all if empty. Others that have no result are skipped.
    """
    results = dict(done)
    stopped = ""
    for step in suite.steps:
        if kept := results.get(step.id):
            if kept.status in FAILED and step.on_fail == "stop":
                stopped = step.id
            continue
        if only and step.id not in only:
            results[step.id] = _skipped(step, "not selected")
        elif stopped:
            results[step.id] = _skipped(step, f"step {stopped} failed, and stops the suite")
        elif lost := next((need for need in step.needs if results[need].status not in ("PASS", "DEGRADED")), None):
            results[step.id] = _skipped(step, f"needs {lost}, which is {results[lost].status}")
        elif missing := missing_program(step):
            results[step.id] = _skipped(step, missing)
        else:
            on_step(step.id, None)
            result = run_step(step, folder / "steps" / step.id, signals)
            if signals.came:
                break  # its result is not kept: resumed, the suite runs it again
            results[step.id] = result
            if result.status in FAILED and step.on_fail == "stop":
                stopped = step.id
        on_step(step.id, results[step.id])
        keep_results(folder, suite, results)
    return tuple(results[step.id] for step in suite.steps if step.id in results)


def keep_results(folder: Path, suite: Suite, results: Mapping[str, SuiteStepResult]) -> None:
    """Write the results so far to `results.json`, atomically."""
    document = {
        "suite": suite.name,
        "host": fingerprint(),
        "results": [results[step.id] for step in suite.steps if step.id in results],
    }
    replace_file(folder / "results.json", msgspec.json.format(msgspec.json.encode(document)))


@cache
def fingerprint() -> dict[str, Any]:
    """Return what describes this host: its name, facts, and variables of the environment that decide how UCX moves."""
    facts: dict[str, Any] = msgspec.to_builtins(host_facts(), enc_hook=str)
    return {"name": platform.node(), "facts": facts, "environment": deciding_variables()}


def kept_results(folder: Path) -> dict[str, SuiteStepResult]:
    """Return the results in a folder, by step id; none if there is no file.

    Raises:
        UsageError: The file can't be read, or holds no results.
    """
    path = folder / "results.json"
    try:
        content = msgspec.json.decode(read_regular(path), type=dict[str, Any])
        rows = msgspec.convert(content.get("results"), list[SuiteStepResult])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {path}: {error}", "give another --output") from error
    return {row.id: row for row in rows}


def run_step(step: SuiteStep, folder: Path, signals: Signals) -> SuiteStepResult:
    """Run all repetitions of a step and return its result, judged. A program that fails gives FAIL, or XFAIL."""
    began, clock = time.time(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shown: list[str] = []
    repetitions: list[tuple[OutputRate, ...]] = []
    reason = ""
    try:
        for number in range(step.repeat):
            commands = commands_of(step, folder, free_port() if STEP_PROGRAMS[step.kind].takes_port else 0)
            shown += [shlex.join(argv) for argv in (commands.server, commands.client) if argv and number == 0]
            text = _repetition(step, commands, folder, number, signals)
            if signals.came:
                break
            # With its command in front, as people keep such logs: it names test and size, which the output may not.
            said = f"$ {shlex.join(commands.client)}\n{text}"
            repetitions.append(STEP_PROGRAMS[step.kind].rates(said, f"step {step.id}"))
    except KvdeckError as error:
        reason = str(error)
    except OSError as error:
        reason = f"can't be started: {error.strerror or error}"
    finally:
        # fio's data would otherwise stay on the disk for as long as the results do.
        (folder / "fio.data").unlink(missing_ok=True)
    (folder / "command.txt").write_text("\n".join(shown) + "\n")
    if not reason and len({tuple((rate.name, rate.message_bytes) for rate in same) for same in repetitions}) > 1:
        reason = "its repetitions gave different figures"
    rates = () if reason else tuple(_judged(step, repetitions))
    status: Status = "FAIL" if reason else worst(rate.status for rate in rates)
    if status in FAILED and step.on_fail == "xfail":
        status = "XFAIL"
    return SuiteStepResult(
        step.id, step.kind, status, reason, began, time.monotonic() - clock, rates, tuple(shown)
    )  # fmt: skip


def worst(statuses: Iterable[Status]) -> Status:
    """Return the status of a step from those of its figures; one without an expected rate passes by having run."""
    order: tuple[Status, ...] = ("SUSPECT", "FAIL", "DEGRADED")
    found = set(statuses)
    return next((status for status in order if status in found), "PASS")


def _skipped(step: SuiteStep, why: str) -> SuiteStepResult:
    return SuiteStepResult(step.id, step.kind, "SKIP", why, time.time(), 0.0)


def _judged(step: SuiteStep, repetitions: Sequence[Sequence[OutputRate]]) -> Iterable[RateResult]:
    expected = None if step.expect.rate is None else parse_rate(step.expect.rate)
    bound = None if step.expect.bound is None else find_bound(step.expect.bound)
    size = None if step.expect.size is None else parse_size(step.expect.size)
    for same in zip(*repetitions, strict=True):
        first = same[0]
        each = tuple(rate.bytes_per_s for rate in same)
        middle = statistics.median(each)
        counts = size in (None, first.message_bytes)
        judgement: Judgement = judge(
            middle,
            expected=expected if counts else None,
            tolerance=step.expect.tolerance,
            bound=bound,
            evidence=first.evidence,
        )
        interval = median_interval(each) if len(each) >= _INTERVAL_FROM else None
        yield RateResult(
            first.name, first.message_bytes, middle, each,
            interval.low if interval else None, interval.high if interval else None,
            expected if counts else None, bound.bytes_per_s if bound else None,
            judgement.status, judgement.score, judgement.efficiency, judgement.reasons,
        )  # fmt: skip


def _repetition(step: SuiteStep, commands: StepCommands, folder: Path, number: int, signals: Signals) -> str:
    """Run the programs once; return what the client printed.

    Raises:
        RunFailedError: A program fails, doesn't listen, or takes or prints too much.
        OSError: A program can't be started.
    """
    deadline = time.monotonic() + step.timeout
    running: list[Child] = []
    for path in _printed(folder, number):
        path.unlink(missing_ok=True)  # of a run that was interrupted
    try:
        if commands.server is not None:
            server = _started(commands.server, step, folder / f"server.{number}.log")
            running.append(server)
            until = min(deadline, time.monotonic() + READY_S)
            _await_listener(server, commands.port or 0, until, signals, lambda: _check_printed(folder, number))
        log = folder / f"client.{number}.log"
        client = _started(commands.client, step, log)
        running.append(client)
        while not signals.came and not client.exited():
            if time.monotonic() >= deadline:
                raise RunFailedError(f"it ran longer than {seconds_text(step.timeout)} and was ended")
            _check_printed(folder, number)
            select.select([signals.wakes], [], [], _LOOK_S)
        if signals.came:
            return ""
        status = client.wait(0)
        text = _tail(log)
        if status:
            said = last_line(text.encode())
            raise RunFailedError(
                f"{Path(commands.client[0]).name} {exit_reason(status)}" + (f": {said}" if said else "")
            )
        return text
    finally:
        for child in reversed(running):
            _end(child)


def _started(argv: Sequence[str], step: SuiteStep, log: Path) -> Child:
    with log.open("wb") as file:
        # stderr stands apart where stdout is a document.
        errors = file if step.kind not in ("run", "fio") else log.with_suffix(".err").open("wb")
        try:
            return Child(argv, stdin=DEVNULL, stdout=file, stderr=STDOUT if errors is file else errors, env=step.env)
        finally:
            errors.close()


def _printed(folder: Path, number: int) -> list[Path]:
    """Return the files of what a repetition's programs print, those that it has none of included."""
    return [folder / f"{program}.{number}.{kind}" for program in ("client", "server") for kind in ("log", "err")]


def _check_printed(folder: Path, number: int) -> None:
    """Raise RunFailedError if the programs of a repetition have filled one of their files."""
    for path in _printed(folder, number):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _MOST_LOG:
                raise RunFailedError(f"it printed more than {size_text(_MOST_LOG)} to {path.name} and was ended")


def _await_listener(
    server: Child, port: int, deadline: float, signals: Signals, check_printed: Callable[[], object]
) -> None:
    """Wait until something listens on the port. A connection would be taken for the client, so the kernel is asked.

    Raises:
        RunFailedError: The server ends, doesn't listen in time, or prints too much.
    """
    while not signals.came and not _listens(port):
        check_printed()
        if server.exited():
            status = server.wait(0)
            raise RunFailedError(f"the server {exit_reason(status if status is not None else 0)} before it listened")
        if time.monotonic() >= deadline:
            raise RunFailedError(f"the server doesn't listen on port {port} after {seconds_text(READY_S)}")
        select.select([signals.wakes], [], [], _LOOK_S)


def _listens(port: int) -> bool:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        # Columns: number, local address, remote address, state; 0A is LISTEN.
        if any(int(cells[1].rpartition(":")[2], 16) == port and cells[3] == "0A" for cells in map(str.split, lines)):
            return True
    return False


def _end(child: Child) -> None:
    """End a program with its descendants: SIGTERM, a grace, SIGKILL."""
    if not child.exited():
        child.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while not child.exited() and time.monotonic() < deadline:
            time.sleep(0.01)
    child.kill()
    child.close()


def _tail(log: Path) -> str:
    """Return a log's text, of a long one the end, where results stand."""
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _MOST_RESULT))
        return file.read().decode(errors="replace")
