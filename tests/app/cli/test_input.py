"""What was typed wrong: one line that names the thing and the fix, status 2, and nothing written or started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvdeck.app.cli.main import call


@dataclass(frozen=True)
class Place:
    """A home and a runtime folder that no one else uses, and a folder to stand in."""

    home: Path
    runtime: Path
    folder: Path

    def kvdeck(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kvdeck.app.cli.main", *arguments],
            env={**os.environ, "KVDECK_HOME": str(self.home), "KVDECK_RUNTIME": str(self.runtime)},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    (tmp_path / "here").mkdir()
    return Place(tmp_path / "home", tmp_path / "run", tmp_path / "here")


@pytest.fixture
def refuse(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[list[str]], str]:
    """Calls the command line in this process, which takes no time, and gives the one line that refuses."""
    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("KVDECK_HOME", str(place.home))
    monkeypatch.setenv("KVDECK_RUNTIME", str(place.runtime))

    def refused(arguments: list[str]) -> str:
        status = call(arguments)
        return one_line(place, status, *capsys.readouterr())

    return refused


def one_line(place: Place, status: int, out: str, err: str) -> str:
    """The one line that refuses, after a look at what else was done."""
    assert status == 2, err
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("kvdeck: ")
    assert " · fix: " in line, "the line names no fix"
    assert not place.home.exists()
    assert not place.runtime.exists()
    return line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rnu"], "'rnu'"),
        (["--readonly", "run"], "--readonly"),
        (["run", "--foo"], "--foo"),
        (["run", "--path", "HostToMoon"], "'HostToMoon'"),
        (["run", "--path", "HostToHost,"], "''"),
        (["run", "--layout", "Diagonal"], "'Diagonal'"),
        (["run", "--layout", "fc -> ls -> fc"], "more than two sides"),
        (["run", "--layers", "0"], "layers"),
        (["run", "--page-size", "-16"], "page_size"),
        (["run", "--inner-dim", "big"], "'big'"),
        (["run", "--dtype", "fp7"], "'fp7'"),
        (["run", "--block-size", "0"], "--block-size"),
        (["run", "--block-size", "2X"], "'2X'"),
        (["run", "--block-size", "64K", "--layers", "8"], "--layers"),
        (["run", "--block-size", "64K", "--layout", "ls"], "LayerSeparate"),
        (["run", "--blocks", "0"], "blocks"),
        (["run", "--blocks", "8", "--batch", "16"], "batch 16"),
        (["run", "--batch", "1.5"], "'1.5'"),
        (["run", "--batches", "16:4"], "--sweep-batches"),
        (["run", "--block-sizes", "4K:1M:1"], "factor"),
        (["run", "--iterations", "0"], "iterations"),
        (["run", "--seconds", "nan"], "'nan'"),
        (["run", "--seconds", "-1"], "seconds"),
        (["run", "--interval-width", "0"], "interval_width"),
        (["run", "--warmup-iterations", "-1"], "warmup_iterations"),
        (["run", "--api", "mmap"], "'MMAP'"),
        (["run", "--api", "io_uring", "--backend", "UCX"], "URING"),
        (["run", "--op", "copy"], "'COPY'"),
        (["run", "--error-handling", "some"], "'some'"),
        (["run", "--param", "ioq"], "'ioq'"),
        (["run", "--threads", "0"], "threads"),
        (["run", "--pipeline-depth", "0"], "pipeline_depth"),
        (["run", "--files", "x"], "'x'"),
        (["run", "--quick", "--thorough"], "--quick"),
        (["run", "--folder", "/dev/null"], "/dev/null"),
        (["run", "--folder", "not-here"], "not-here"),
        (["run", "--session", "../x"], "'../x'"),
        (["run", "--session", ".hidden"], "'.hidden'"),
        (["run", "missing.yaml"], "missing.yaml"),
        (["doctor", "--folder", "not-here"], "not-here"),
        (["attach", "../x"], "'../x'"),
        (["cancel", ".x"], "'.x'"),
        (["engine", "log", "-n", "x"], "'x'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_arguments_are_refused(refuse: Callable[[list[str]], str], arguments: list[str], named: str) -> None:
    assert named in refuse(arguments)


@pytest.mark.parametrize(
    "arguments", [[], ["--readonly"], ["run", "--layers", "0"], ["run", "missing.yaml"], ["run", "--foo"]]
)
def test_the_process_refuses_alike(place: Place, arguments: list[str]) -> None:
    done = place.kvdeck(*arguments)
    one_line(place, done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("pahts: [HostToHost]\n", "pahts"),
        ("paths: []\n", "paths"),
        ("layers: 0\n", "layers"),
        ("layers: many\n", "'many'"),
        ("layouts: [Diagonal]\n", "'Diagonal'"),
        ("- HostToHost\n", "not a mapping"),
        ("layers: [1\n", "spec.yaml"),
        ("seconds: .inf\n", "inf"),
        ("sweep_batches: {start: 4}\n", "sweep_batches"),
        ("verify: maybe\n", "'maybe'"),
        ("params: [1]\n", "params"),
        ("api: AIO\nbackend: GDS\n", "AIO"),
    ],
)
def test_spec_files_are_refused(place: Place, refuse: Callable[[list[str]], str], text: str, named: str) -> None:
    (place.folder / "spec.yaml").write_text(text)
    line = refuse(["run", "spec.yaml"])
    assert named in line
    if "api:" not in text and "layouts" not in text:
        assert "spec.yaml" in line


def test_a_spec_that_is_no_text_is_refused(place: Place) -> None:
    (place.folder / "spec.yaml").write_bytes(b"\xff\xfe\x00")
    done = place.kvdeck("run", "spec.yaml")
    assert "spec.yaml" in one_line(place, done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(place: Place, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    done = place.kvdeck("run", "--folder", str(closed))
    assert "closed" in one_line(place, done.returncode, done.stdout, done.stderr)


def test_help_and_version_need_no_terminal(place: Place) -> None:
    done = place.kvdeck("--help")
    assert done.returncode == 0
    for verb in ("run", "doctor", "engine", "attach", "cancel", "trace", "session"):
        assert f"\n  {verb} " in done.stdout
    assert place.kvdeck("--version").stdout.startswith("kvdeck ")


def test_every_field_of_a_run_has_an_option(place: Place) -> None:
    from kvdeck.engine.spec import FIELDS

    assert [row.name for row in FIELDS if not row.option] == ["effort", "fixed"]
    # --quick and --thorough set the effort; --tuned notes as fixed what is given beside it
    shown = place.kvdeck("run", "--help").stdout
    assert [row.name for row in FIELDS if row.option.split("/")[0].split(" ")[0] not in shown] == []


def test_options_go_over_the_file(tmp_path: Path) -> None:
    from kvdeck.app.cli.run import run

    spec = tmp_path / "spec.yaml"
    spec.write_text("block_size: 65536\nlayouts: [fc]\nbatch: 4\nparams: {a: '1', b: '2'}\nverify: true\ndirect: off\n")
    arguments = ["--layers", "2", "--param", "b=3", "--no-verify", "--direct", "--api", "libaio", "--batches", "1:8"]
    made = asked(run, [str(spec), *arguments])
    assert (made.block_size, made.layers, made.batch) == (None, 2, 4)
    assert (made.params, made.verify, made.direct, made.api) == ({"a": "1", "b": "3"}, False, "on", "AIO")
    assert made.sweep_batches is not None
    assert made.sweep_batches.values() == (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("spelling", "api"),
    [("aio", "AIO"), ("libaio", "AIO"), ("uring", "URING"), ("io_uring", "URING"), ("posix-aio", "POSIXAIO")],
)
def test_spellings_of_an_api(spelling: str, api: str) -> None:
    from kvdeck.app.cli.run import run

    assert asked(run, ["--api", spelling]).api == api


def asked(command, arguments: list[str]):
    from kvdeck.app.cli.run import asked_spec

    values = command.make_context("run", arguments).params
    others = {name: values[name] for name in values if name not in ("spec_file", "session", "detach", "as_json")}
    return asked_spec(values["spec_file"], others)


def test_the_command_line_loads_neither_screens_nor_transfers() -> None:
    heavy = {"textual", "rich", "numpy", "nixl", "asyncio", "yaml"}
    code = f"import sys, kvdeck.app.cli.main; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == []
