"""Suite files: variables, order, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kvdeck.engine.suite.spec import load_suite, shipped_suites, suite_of
from kvdeck.sessions.errors import UsageError


def suite(*steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "s", "steps": list(steps), **fields}


def step(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": "shell", "argv": ["true"], **fields}


def test_every_shipped_suite_is_valid() -> None:
    for name in shipped_suites():
        assert load_suite(name).name == name


def test_steps_are_ordered_by_their_needs() -> None:
    found = suite_of(suite(step("c", needs=["b"]), step("b", needs=["a"]), step("a")), "f")
    assert [each.id for each in found.steps] == ["a", "b", "c"]


def test_a_variable_stays_one_argument_whatever_it_holds() -> None:
    content = suite(step("a", argv=["echo", "x=${v}"]), vars={"v": 1})
    found = suite_of(content, "f", {"v": "; rm -rf / $(id) `id` a b"})
    assert found.steps[0].argv == ("echo", "x=; rm -rf / $(id) `id` a b")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "a suite"),
        ([], "a suite"),
        ({"name": "s"}, "steps"),
        (suite(), "0 steps"),
        (suite(step("a", needs=["b"]), step("b", needs=["a"])), "need each other"),
        (suite(step("a", needs=["a"])), "need each other"),
        (suite(step("a", needs=["x"])), "'x'"),
        (suite(step("a"), step("a")), "two steps"),
        (suite(step("../a")), "no name"),
        (suite({"id": "a", "kind": "magic", "args": {"x": 1}}), "'magic'"),
        (suite(step("a", argv=[])), "argv"),
        (suite({"id": "a", "kind": "fio", "argv": ["rm"]}), "argv"),
        (suite({"id": "a", "kind": "fio", "args": {"--x": 1}}), "'--x'"),
        (suite(step("a", argv=["${nope}"])), "'nope'"),
        (suite(step("a", colour="red")), "colour"),
        (suite(step("a", repeat=0)), "repeat"),
        (suite(step("a", timeout=-1)), "timeout"),
        (suite(step("a", timeout="long")), "timeout"),
        (suite(step("a", env={"A=B": "c"})), "'A=B'"),
        (suite(step("a", expect={"rate": "285"})), "285"),
        (suite(step("a", expect={"bound": "warp"})), "warp"),
        (suite(step("a", expect={"tolerance": 1.0})), "tolerance"),
        (suite(step("a", on_fail="pray")), "pray"),
        (suite(step("a"), vars=[1]), "vars"),
    ],
)
def test_what_is_wrong_is_named(content: Any, named: str) -> None:
    with pytest.raises(UsageError) as refused:
        suite_of(content, "f")
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_variable_that_the_suite_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="'w'"):
        suite_of(suite(step("a"), vars={"v": 1}), "f", {"w": "2"})
