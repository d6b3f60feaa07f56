"""The one loader of YAML and JSON: what people write is read, what could only do harm is refused in one line."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvdeck.app.cli.main import call
from kvdeck.sessions.host.documents import (
    MAX_DEPTH,
    DocumentError,
    check_record,
    dump_yaml,
    load_json,
    load_record,
    load_yaml,
)

ROOT = Path(__file__).parents[3]
MOST_CALLS = 50_000
"""Function calls, of Python and of C, that refusing a file may take: some 10 ms. A clock would measure the host."""

ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (letter, letter, b",".join([b"*%c" % (letter - 1)] * 9)) for letter in range(98, 107)
)
BAD = {
    "aliases": (ALIASES, "more than 200,000 values"),
    "deep": (b"[" * 900 + b"]" * 900, "nest"),
    "deeper": (b"[" * 100_000, "nest"),
    "digits": (b"page_size: " + b"9" * 5000, r"5,000 digits\) does not fit in 64 bits"),
    "too large": (b"page_size: 99999999999999999999", "does not fit in 64 bits"),
    "tag": (b"layers: !!python/object/apply:os.system [ls]", "tag .* is not supported"),
    "binary": (b"layers: !!binary aGk=", "tag !!binary is not supported"),
    "twice": (b"a: 1\nb: 2\na: 3", "line 3: the key 'a' occurs twice"),
    "itself": (b"&a [*a]", "refers to its own parent"),
    "key": (b"? [1]\n: 2", "a key is not a string"),
    "utf-8": (b"a: 1\nb: \xff", "line 2: it is not UTF-8"),
    "nul": (b"a: \x00", "control characters"),
    "colon": (b"a: b: c", "line 1: mapping values"),
    "two": (b"---\na: 1\n---\nb: 2\n", "another document"),
    "huge": (b"a: " + b"x" * (2 << 20), "more than 1 MiB"),
}
BAD_JSON = {
    "deep": (b"[" * 100_000, "nested deeper"),
    "deep but whole": (b"[" * 100 + b"]" * 100, "nested deeper"),
    "digits": (b'{"a": ' + b"9" * 5000 + b"}", "5,000 digits"),
    "too large": (b'{"a": 99999999999999999999}', "does not fit in 64 bits"),
    "twice": (b'{"a": 1, "a": 2}', "occurs twice"),
    "surrogate": (b'{"a": "\\ud800"}', "surrogate"),
    "cut": (b'{\n"a": ', "line 2"),
    "utf-8": (b'{"a": "\xff"}', "not UTF-8"),
    "huge": (b'"' + b"x" * (9 << 20) + b'"', "more than 8 MiB"),
}


@dataclass
class Calls:
    """Function calls of Python and of C inside a `with count_calls()`."""

    count: int = 0


@contextmanager
def count_calls() -> Iterator[Calls]:
    calls = Calls()

    def count(frame: object, event: str, argument: object) -> None:
        calls.count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("name", BAD)
def test_yaml_that_does_harm_is_refused_in_a_line_and_in_no_time(name: str):
    data, words = BAD[name]
    with count_calls() as calls, pytest.raises(DocumentError, match=words) as caught:
        load_yaml(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert calls.count < MOST_CALLS


def test_aliases_repeat_what_they_name_and_count_what_they_repeat():
    assert load_yaml(b"a: &a {b: [1, 2]}\nc: *a\nd: [*a, *a]") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": [{"b": [1, 2]}] * 2,
    }
    row = b"a: &a [" + b",".join([b"1"] * 999) + b"]\n"
    with_aliases = row + b"b: [" + b",".join([b"*a"] * 197) + b"]"  # 2 + 198 × 1,000 values, and those of `b`
    assert len(load_yaml(with_aliases)["b"]) == 197
    with pytest.raises(DocumentError, match="more than 200,000 values"):
        load_yaml(row + b"b: [" + b",".join([b"*a"] * 200) + b"]")


def test_an_alias_nests_as_deep_as_what_it_names():
    deep = b"a: &a " + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert load_yaml(deep)
    with pytest.raises(DocumentError, match="nested deeper"):
        load_yaml(deep + b"\nb: [*a]")


@pytest.mark.parametrize("name", BAD_JSON)
def test_json_that_does_harm_is_refused_in_a_line(name: str):
    data, words = BAD_JSON[name]
    with pytest.raises(DocumentError, match=words) as caught:
        load_json(data)
    assert "\n" not in str(caught.value)


def test_yaml_has_the_core_rules_of_yaml_1_2():
    text = (
        b"[yes, on, true, False, 010, 0x1f, 0o17, 1e6, .5, -3, ~, null, 2001-01-01, 1:30, 'true', \"7\", a b, =, 1_0]"
    )
    assert load_yaml(text) == [
        "yes", "on", True, False, 10, 31, 15, 1e6, 0.5, -3, None, None, "2001-01-01", "1:30", "true", "7", "a b", "=",
        "1_0",
    ]  # fmt: skip
    assert load_yaml(b"") is None
    assert load_yaml(b"a: &x [1]\nb: *x") == {"a": [1], "b": [1]}
    assert load_yaml(b"\xef\xbb\xbfa: 1") == {"a": 1}
    assert load_yaml(b"a: &a {x: 1}\nb: {<<: *a}") == {"a": {"x": 1}, "b": {"<<": {"x": 1}}}
    assert load_yaml(b"limit: .inf") == {"limit": float("inf")}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text(st.characters(codec="ascii")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@example("0E0")
@example({"1e3": "010", "0o17": "~", "true": "1_0", "yes": "2001-01-01"})
@given(PLAIN)
def test_what_was_written_is_read(value: Any):
    assert load_json(json.dumps(value).encode()) == value
    assert load_yaml(dump_yaml(value).encode()) == value


OTHERS = [["plan", "--model"], ["profile", "--model_config"], ["kvcache", "--model"]]


@pytest.mark.parametrize(
    ("verb", "name"),
    [(["run"], name) for name in BAD] + [(verb, name) for verb in OTHERS for name in ("aliases", "deeper", "digits")],
)
def test_a_file_that_does_harm_ends_a_verb_with_2_and_one_line(tmp_path: Path, verb: list[str], name: str):
    file = tmp_path / "odd.yaml"
    file.write_bytes(BAD[name][0])
    done = kvdeck(tmp_path, *verb, str(file))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", BAD)
def test_a_config_that_does_harm_stops_nothing(tmp_path: Path, name: str):
    (tmp_path / "config.yaml").write_bytes(BAD[name][0])
    done = kvdeck(tmp_path, "sessions", KVDECK_CONFIG=str(tmp_path / "config.yaml"))
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


VERBS = (
    ["run", "FILE.yaml"],
    *(["plan", "--model", f"FILE.{end}", "--isl", "100"] for end in ("json", "yaml")),
    *([verb, "--model", "llama-3.1-8b", "--model_config", "FILE.yaml"] for verb in ("plan", "kvcache", "iosize")),
    ["profile", "--model", "FILE.json", "--model_config", "FILE.yaml"],
    *(["session", "import", f"FILE.{end}"] for end in ("json", "csv", "txt")),
    ["session", "report", "-s", "./FILE.json"],
    ["session", "compare", "./FILE.json", "./FILE.json"],
    ["session", "export", "--session", "./FILE.json", "csv", "out.csv"],
    ["monitor", "--once", "--source", "host", "--block-bytes", "./FILE.yaml"],
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_verb_takes_a_harmful_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: list[str]
):
    """One line, exit status 2, a bounded number of calls, and the file is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KVDECK_HOME", str(tmp_path / "home"))
    arguments = [argument.replace("FILE", "odd") for argument in verb]
    names = [argument.removeprefix("./") for argument in arguments if "odd." in argument]
    monkeypatch.setattr("kvdeck.app.cli.spinner.PATIENCE_S", threading.TIMEOUT_MAX)  # slow work adds a line of its own
    call(arguments)  # what is imported only once takes longer
    capsys.readouterr()
    for data, _ in (*BAD.values(), *BAD_JSON.values(), (b"x,y\n" * (5 << 20), "huge")):
        for name in names:
            Path(name).write_bytes(data)
        with count_calls() as calls:
            assert call(arguments) == 2, data[:60]
        assert calls.count < MOST_CALLS, data[:60]
        told = capsys.readouterr().err
        assert told.count("\n") == 1, told
        assert "unexpected" not in told
        assert all(Path(name).read_bytes() == data for name in names)


def kvdeck(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "KVDECK_HOME": str(folder / "home"), "KVDECK_RUNTIME": str(folder / "run"), **environ}
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30)


def test_every_reader_of_yaml_and_json_is_the_one_loader():
    """The recorder runs in other programs, with the standard library alone."""
    allowed = {"sessions/host/documents.py", "sessions/recorder.py"}
    loaders = ("yaml.load", "yaml.safe_load", "yaml.full_load", "json.loads", "json.load", "orjson.loads")
    found = {
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for room in ("app", "engine", "sessions")
        for path in ROOT.joinpath(room).rglob("*.py")
        if path.relative_to(ROOT).as_posix() not in allowed
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in loaders
    }
    assert not found


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "99999999999999999999", "9" * 5000])
def test_a_number_that_is_none_is_refused(number: str):
    with pytest.raises(DocumentError):
        load_json(b'{"a": [1, %s]}' % number.encode())


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 300, 900, 5000])
def test_a_record_is_nested_no_deeper_than_a_document(depth: int):
    data = b'{"a":' * (depth // 2) + b"[" * (depth - depth // 2) + b"]" * (depth - depth // 2) + b"}" * (depth // 2)
    brackets = b'["' + b"[" * 100 + b'"]'
    assert load_record(brackets) == ["[" * 100]
    check_record(brackets)
    for read in (load_record, check_record):
        if depth <= MAX_DEPTH:
            read(data)
        else:
            with pytest.raises(ValueError, match=r"nested deeper|depth"):
                read(data)


def test_a_record_holds_integers_of_64_bits_only():
    for data in (
        b'{"a": 18446744073709551615}',
        b'{"a": -9223372036854775808, "b": "99999999999999999999"}',
        b"[1e25]",
    ):
        check_record(data)
    for data in (b'{"a": 18446744073709551616}', b"[-9223372036854775809]", b"[%s]" % (b"9" * 5000)):
        with pytest.raises(DocumentError, match="does not fit in 64 bits"):
            check_record(data)


def test_a_models_configuration_may_hold_infinity():
    text = b'{"time_step_limit": [0.0, Infinity]}'
    assert load_json(text, infinite=True) == {"time_step_limit": [0.0, float("inf")]}
    with pytest.raises(DocumentError, match="Infinity is not JSON"):
        load_json(text)
