"""A suite file: steps in order, with variables, what each needs, and what each is expected to reach."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from kvdeck.engine.quantities import parse_size
from kvdeck.engine.suite.bounds import find_bound, parse_rate
from kvdeck.engine.suite.judgement import TOLERANCE
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, load_yaml
from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.units import count_text, many, number_text

KINDS = ("fi_pingpong", "fio", "run", "shell", "ucx_perftest")
MOST_STEPS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
OnFail = Literal["stop", "continue", "xfail"]


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a step is expected to reach, and what physics allows."""

    rate: str | None = None
    """With its unit, such as `46.48GB/s`."""
    tolerance: float = TOLERANCE
    bound: str | None = None
    """A rate, or a name that `kvdeck suite bounds` lists."""
    size: str | None = None
    """Which message size counts; None for all."""
    source: str = ""
    """Where the expected rate comes from."""


class SuiteStep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of a suite."""

    id: str
    kind: str
    args: dict[str, str | int | float | bool] = {}
    """Options of the program, without dashes; `true` for an option without a value."""
    argv: tuple[str, ...] = ()
    """Command of a `shell` step: arguments, given to no shell."""
    env: dict[str, str] = {}
    needs: tuple[str, ...] = ()
    """Steps that must not have failed before."""
    repeat: int = 1
    timeout: float = 300
    """Seconds for one repetition."""
    expect: Expectation = Expectation()
    on_fail: OnFail = "continue"
    """`xfail`: a failure of the program is allowed, and named so."""


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A suite, its variables replaced."""

    name: str
    steps: tuple[SuiteStep, ...]
    description: str = ""
    vars: dict[str, str | int | float] = {}


def shipped_suites() -> dict[str, Path]:
    """Return the files of the suites that kvdeck brings, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "suites").glob("*.yaml"))}


def load_suite(given: str, variables: Mapping[str, str] | None = None) -> Suite:
    """Return the suite of a shipped name or a file.

    Args:
        given: Name or path.
        variables: Values in place of those of the file's `vars`.

    Raises:
        UsageError: There is no such suite, or it is invalid; names the place in it.
    """
    path = shipped_suites().get(given, Path(given))
    try:
        content = load_yaml(read_regular(path, 1 << 20))
    except DocumentError as error:
        raise UsageError(f"{given}: {error}", "correct the file") from error
    except OSError as error:
        names = ", ".join(shipped_suites())
        raise UsageError(
            f"can't read the suite {given}: {error.strerror or error}", f"give a file, or one of: {names}"
        ) from error
    return suite_of(content, given, variables)


def suite_of(content: Any, name: str, variables: Mapping[str, str] | None = None) -> Suite:
    """Return the suite of a document's content, its variables replaced and its steps in an order that `needs` allows.

    Raises:
        UsageError: It is invalid; names the place.
    """
    if not isinstance(content, dict):
        raise UsageError(f"{name} isn't a suite", "a suite is a mapping with `name` and `steps`")
    values = content.get("vars") or {}
    if not isinstance(values, dict):
        raise UsageError(f"{name}: vars must be a mapping", "write `vars: {size: 1M}`")
    if unknown := sorted(set(variables or {}) - set(values)):
        raise UsageError(f"{name} has no variable {unknown[0]!r}", f"it has: {', '.join(map(str, values)) or 'none'}")
    values = {str(key): str(value) for key, value in (values | dict(variables or {})).items()}
    try:
        suite = msgspec.convert(_replaced(content, values, name), Suite)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: {error}", "correct the file") from error
    _check(suite, name)
    return msgspec.structs.replace(suite, steps=_ordered(suite, name))


def _ordered(suite: Suite, name: str) -> tuple[SuiteStep, ...]:
    """Return the steps in the file's order, each after those that it needs.

    Raises:
        UsageError: Steps need each other.
    """
    left, order, placed = list(suite.steps), list[SuiteStep](), set[str]()
    while left:
        ready = next((step for step in left if placed.issuperset(step.needs)), None)
        if ready is None:
            names = ", ".join(step.id for step in left)
            raise UsageError(
                f"{name}: steps need each other, so none of them can be first: {names}", "remove a `needs`"
            )
        left.remove(ready)
        order.append(ready)
        placed.add(ready.id)
    return tuple(order)


def _replaced(value: Any, variables: Mapping[str, str], name: str) -> Any:
    """Return the value with `${NAME}` replaced in every text below `steps`; one text stays one argument."""
    if isinstance(value, dict):
        return {key: _replaced(item, variables, name) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, variables, name) for item in value]
    if not isinstance(value, str):
        return value

    def text(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise UsageError(f"{name}: there is no variable {found[1]!r}", "add it to `vars`")
        return variables[found[1]]

    return _VARIABLE.sub(text, value)


def _check(suite: Suite, name: str) -> None:
    if not suite.steps or len(suite.steps) > MOST_STEPS:
        raise UsageError(f"{name} has {many(len(suite.steps), 'step')}", f"give 1 to {count_text(MOST_STEPS)}")
    ids = [step.id for step in suite.steps]
    for text in (suite.name, *ids):
        if not _NAME.fullmatch(text):
            raise UsageError(f"{name}: {text!r} is no name", "use letters, digits, `.`, `_` and `-`, at most 64")
    if repeated := next((each for each in ids if ids.count(each) > 1), None):
        raise UsageError(f"{name}: two steps have the id {repeated!r}", "rename one")
    for step in suite.steps:
        where = f"{name}, step {step.id}"
        if step.kind not in KINDS:
            raise UsageError(f"{where}: there is no kind {step.kind!r}", f"use one of: {', '.join(KINDS)}")
        if missing := next((each for each in step.needs if each not in ids), None):
            raise UsageError(f"{where} needs {missing!r}, which is no step", "correct `needs`")
        if (step.kind == "shell") != bool(step.argv) or (step.argv and step.args):
            raise UsageError(f"{where}: a shell step has `argv`, any other `args`", "correct the step")
        if not 1 <= step.repeat <= 100 or not 0 < step.timeout <= 86_400:
            raise UsageError(f"{where}: repeat is 1 to 100, timeout above 0 and at most 86,400 s", "correct the step")
        if bad := next((key for key in step.args if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", key)), None):
            raise UsageError(f"{where}: {bad!r} is no option", "write options without dashes in front")
        if bad := next((key for key in step.env if not _ENVIRONMENT.fullmatch(key)), None):
            raise UsageError(f"{where}: {bad!r} is no variable of the environment", "correct `env`")
        _check_expectation(step.expect, where)


def _check_expectation(expect: Expectation, where: str) -> None:
    try:
        if expect.rate is not None:
            parse_rate(expect.rate)
        if expect.bound is not None:
            find_bound(expect.bound)
        if expect.size is not None:
            parse_size(expect.size)
    except UsageError as error:
        raise UsageError(f"{where}, expect: {error}", error.fix) from error
    if not 0 <= expect.tolerance < 1:
        raise UsageError(
            f"{where}, expect: tolerance is {number_text(expect.tolerance)}", "give 0 or more, and less than 1"
        )
