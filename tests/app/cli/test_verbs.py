"""The tables of verbs: every row loads, help lists it under its topic, and earlier spellings work like the new ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from kvdeck.app import cli
from kvdeck.app.cli import session as session_verbs
from kvdeck.app.cli.main import call, kvdeck
from kvdeck.app.cli.verbs import ALIASES, HIDDEN, VERBS, Verb, VerbGroup
from kvdeck.sessions.model.records import Session, TransferCounts
from kvdeck.sessions.store.store import Store

ROOT = Path(__file__).parents[3]
Printed = tuple[int, bytes, bytes]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]):
    for name, folder in (("HOME", "home"), ("TMPDIR", "tmp"), ("KVDECK_HOME", "kvdeck"), ("KVDECK_RUNTIME", "run")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(name, str(tmp_path / folder))
    store = Store(tmp_path / "kvdeck")
    counts = (TransferCounts("HostToDisk", "Unknown", 3, 4096),)
    store.keep(Session("theirs", "done", 1.0, kind="imported", transfer_counts=counts, duration_s=2.0))
    store.create("own", {"paths": ["HostToHost"]}, "")

    def printed(*arguments: str) -> Printed:
        return call(arguments), *capfdbinary.readouterr()

    return printed


@pytest.mark.parametrize(("group", "verbs"), [(kvdeck, VERBS), (session_verbs.session, session_verbs.VERBS)])
def test_every_row_loads_and_is_listed_under_its_topic(group: VerbGroup, verbs: tuple[Verb, ...]) -> None:
    with click.Context(group, info_name="kvdeck") as context:
        shown = group.get_help(context)
    sections = {part.splitlines()[0]: part for part in shown.split("\n\n")}
    assert len({verb.name for verb in verbs}) == len(verbs)
    for verb in verbs:
        assert isinstance(verb.load(), click.Command)
        assert verb.load().name == verb.name
        assert f"\n  {verb.name} " in sections[f"{verb.topic}:"]
        assert verb.help.split()[0] in sections[f"{verb.topic}:"]
        assert verb.help.endswith(".")


def commands_in(module: str) -> Iterator[click.Command]:
    __import__(module)
    yield from (value for value in vars(sys.modules[module]).values() if isinstance(value, click.Command))


def test_no_command_is_without_a_row() -> None:
    """A verb that was written and has no row would be reached by nobody."""
    placed = {verb.load() for verb in (*VERBS, *HIDDEN, *session_verbs.VERBS)} | {kvdeck}
    placed |= {child for group in list(placed) if type(group) is click.Group for child in group.commands.values()}
    for path in sorted((ROOT / "app/cli").rglob("*.py")):
        module = ".".join(("kvdeck", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        assert set(commands_in(module)) <= placed, module


@pytest.mark.parametrize("verb", [("--help",), ("session", "--help"), ("session", "list"), ("plan", "--help")])
def test_a_verb_imports_only_its_own_module(verb: tuple[str, ...], tmp_path: Path) -> None:
    code = f"import sys; from kvdeck.app.cli.main import call; call({verb!r}); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path), "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    modules = {verb.place.partition(":")[0] for verb in (*VERBS, *session_verbs.VERBS)}
    own = {("session", "--help"): {"session"}, ("session", "list"): {"session", "session.show"}}
    own[("plan", "--help")] = {"plan"}
    loaded = {name.removeprefix("kvdeck.app.cli.") for name in done.stderr.split()}
    assert loaded & modules - {"config"} == own.get(verb, set())  # config: the options of the deck itself


def test_help_lists_no_alias(run: Callable[..., Printed]) -> None:
    for old, new in ALIASES.items():
        listed = run(*old[:-1], "--help")[1].decode()
        assert f"\n  {old[-1]} " not in listed
        assert run(*old, "--help") == run(*new, "--help")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["sessions"], ["session", "list"]),
        (["sessions", "--json"], ["session", "list", "--json"]),
        (["sessions", "--nonsense"], ["session", "list", "--nonsense"]),
        (["report", "theirs"], ["session", "show", "theirs"]),
        (["report", "own", "--json"], ["session", "show", "own", "--json"]),
        (["report", "absent"], ["session", "show", "absent"]),
        (["report"], ["session", "show"]),
        (["session", "report", "-s", "theirs"], ["session", "show", "theirs"]),
        (["session", "report", "-s", "theirs", "-f", "json"], ["session", "show", "theirs", "-f", "json"]),
        (["session", "report", "-s", "theirs", "-f", "csv"], ["session", "show", "-s", "theirs", "-f", "csv"]),
        (["session", "report"], ["session", "show"]),
        (["session", "record", "counted"], ["trace", "counted"]),
        (["session", "record", "counted", "--", "no-such-program"], ["trace", "counted", "--", "no-such-program"]),
        (
            ["session", "record", "counted", "--", "sh", "-c", "echo moved; exit 7"],
            ["trace", "counted", "--", "sh", "-c", "echo moved; exit 7"],
        ),
    ],
)
def test_an_earlier_spelling_prints_the_same(run: Callable[..., Printed], old: list[str], new: list[str]) -> None:
    said = run(*old)
    assert said[1] + said[2]
    assert run(*new) == said


def test_one_session_and_one_format_are_printed(run: Callable[..., Printed], tmp_path: Path) -> None:
    assert run("session", "show", "own", "-s", "theirs")[0] == 2
    assert run("session", "show", "own", "--json", "-f", "csv")[0] == 2
    assert run("session", "show", "own", "--json", "-o", str(tmp_path / "own.json"))[0] == 0
    assert json.loads((tmp_path / "own.json").read_bytes())["session"] == "own"


@pytest.mark.parametrize(
    "verb",
    [
        *("session list", "session show x", "session compare x y", "session export -s x json out.json"),
        *("session init x", "session test", "session reset -s x", "session enable -s x", "session rename x y"),
        *("session tag x", "session note x", "session delete x --yes", "attach x", "cancel x", "run --quick"),
        *("trace -- true", "monitor --once", "monitor --list-sources", "monitor --seconds 1", "monitor --replay x"),
        *("monitor --record x --seconds 1", "engine start", "engine log"),
    ],
)
def test_a_home_that_is_a_file_is_named_on_one_line(
    verb: str, run: Callable[..., Printed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").chmod(0o700)
    (tmp_path / "note.txt").write_text("mine")
    for place in ("note.txt", "note.txt/below"):
        monkeypatch.setenv("KVDECK_HOME", str(tmp_path / place))
        status, out, err = run(*verb.split())
        assert (status, out) == (2, b"")
        assert err.decode().splitlines() == [
            f"kvdeck: {tmp_path / place} is not a folder · fix: set KVDECK_HOME to a folder you own"
        ]
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_a_row_is_all_that_a_verb_needs(run: Callable[..., Printed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = "import click\n@click.command()\ndef traffic():\n    click.echo('moved')\n    return 3\n"
    (tmp_path / "traffic.py").write_text(module)
    monkeypatch.setattr(cli, "__path__", [*cli.__path__, str(tmp_path)])
    row = Verb("traffic", "traffic:traffic", "Measure", "Move bytes between ranks.")
    monkeypatch.setattr(kvdeck, "verbs", {**kvdeck.verbs, "traffic": row})
    assert run("traffic") == (3, b"moved\n", b"")
    assert ["traffic", "Move", "bytes", "between", "ranks."] in [
        line.split() for line in run("--help")[1].decode().splitlines()
    ]
    del sys.modules["kvdeck.app.cli.traffic"]
