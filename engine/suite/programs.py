"""The programs that steps run: their command lines, and the rates in what they print."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvdeck.engine.suite.judgement import Evidence
from kvdeck.engine.suite.outputs import OutputRate, read_rates
from kvdeck.engine.suite.spec import SuiteStep
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, load_json
from kvdeck.sessions.units import short_layout_name

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class StepCommands:
    """What one repetition of a step starts."""

    client: tuple[str, ...]
    """Its output holds the result."""
    server: tuple[str, ...] | None = None
    """Started first."""
    port: int | None = None
    """Where the server listens once it is ready."""


@dataclass(frozen=True, slots=True)
class StepProgram:
    """How a kind of step is run and read."""

    needs: str | None
    """Program that must be installed."""
    package: str
    """What installs it."""
    commands: Callable[[SuiteStep, int, Path], StepCommands]
    """Takes the step, a free port, and a folder for files."""
    rates: Callable[[str, str], tuple[OutputRate, ...]]
    """Takes the client's output and a name for errors."""
    takes_port: bool = False


def missing_program(step: SuiteStep) -> str | None:
    """Return why a step's program can't be started here, and what would help; None if it is there."""
    program = STEP_PROGRAMS[step.kind]
    name = step.argv[0] if step.argv else program.needs
    if name is None or shutil.which(name):
        return None
    return f"{name} isn't installed" + (f" ({program.package})" if program.package else "")


def _options(args: Mapping[str, Any], dashes: str, joined: str | None = None) -> tuple[str, ...]:
    """Return options as arguments; `joined` puts a value behind its option in one argument."""
    out: list[str] = []
    for key, value in args.items():
        option = f"{'-' if len(key) == 1 else dashes}{key}"
        if value is False:
            continue
        if value is True:
            out.append(option)
        elif joined is not None:
            out.append(f"{option}{joined}{value}")
        else:
            out += [option, str(value)]
    return tuple(out)


def _ucx_perftest(step: SuiteStep, port: int, folder: Path) -> StepCommands:  # noqa: ARG001
    options = _options(step.args, "-")
    server = ("ucx_perftest", "-p", str(port))
    return StepCommands(("ucx_perftest", LOOPBACK, "-p", str(port), *options), server, port)


def _fi_pingpong(step: SuiteStep, port: int, folder: Path) -> StepCommands:  # noqa: ARG001
    options = _options(step.args, "-")
    server = ("fi_pingpong", *options, "-B", str(port))
    return StepCommands(("fi_pingpong", *options, "-P", str(port), LOOPBACK), server, port)


def _fio(step: SuiteStep, port: int, folder: Path) -> StepCommands:  # noqa: ARG001
    given = {"name": step.id, "filename": str(folder / "fio.data"), "output-format": "json", **step.args}
    return StepCommands(("fio", *_options(given, "--", "=")))


def _run(step: SuiteStep, port: int, folder: Path) -> StepCommands:  # noqa: ARG001
    return StepCommands((sys.executable, "-m", "kvdeck.app.cli.main", "run", "--json", *_options(step.args, "--", "=")))


def _shell(step: SuiteStep, port: int, folder: Path) -> StepCommands:  # noqa: ARG001
    return StepCommands(step.argv)


def _fio_rates(text: str, name: str) -> tuple[OutputRate, ...]:
    rates: dict[str, float] = {}
    for job in _document(text, name).get("jobs", ()):
        if job.get("error"):
            raise UsageError(f"{name}: fio ended with error {job['error']}", "see the step's log")
        for way in ("read", "write"):
            # The jobs of a step run at once (numjobs), so its rate is their sum.
            rates[way] = rates.get(way, 0.0) + job.get(way, {}).get("bw_bytes", 0)
    return _some([OutputRate("fio", way, None, rate, Evidence("fio")) for way, rate in rates.items() if rate], name)


def _run_rates(text: str, name: str) -> tuple[OutputRate, ...]:
    found: list[OutputRate] = []
    for result in _document(text, name).get("results", ()):
        rate = result.get("gb_per_s")
        if result.get("status") == "ok" and rate:
            title = f"{result['path']} {short_layout_name(result['layout'])}"
            size = result["block_bytes"]
            found.append(OutputRate("kvdeck run", title, size, rate["median"] * 1e9, Evidence("run", size)))
    return _some(found, name)


def _document(text: str, name: str) -> dict[str, Any]:
    # The command stands in front, and fio writes warnings before its JSON.
    begin = text.find("\n{")
    try:
        content = load_json(text[max(0, begin) :].encode())
    except DocumentError as error:
        raise UsageError(f"{name}: its output isn't JSON: {error}", "see the step's log") from error
    if not isinstance(content, dict):
        raise UsageError(f"{name}: its output isn't a JSON object", "see the step's log")
    return content


def _some(found: list[OutputRate], name: str) -> tuple[OutputRate, ...]:
    if not found:
        raise UsageError(f"{name} holds no result", "see the step's log")
    return tuple(found)


def _no_rates(text: str, name: str) -> tuple[OutputRate, ...]:  # noqa: ARG001
    return ()


STEP_PROGRAMS: dict[str, StepProgram] = {
    "fi_pingpong": StepProgram("fi_pingpong", "Debian: libfabric-bin", _fi_pingpong, read_rates, takes_port=True),
    "fio": StepProgram("fio", "Debian: fio", _fio, _fio_rates),
    "run": StepProgram(None, "", _run, _run_rates),
    "shell": StepProgram(None, "", _shell, _no_rates),
    "ucx_perftest": StepProgram("ucx_perftest", "Debian: ucx-utils", _ucx_perftest, read_rates, takes_port=True),
}
