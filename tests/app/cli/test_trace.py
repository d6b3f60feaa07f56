"""`kvdeck trace`: signals reach the program, its exit status is kept, and why nothing was counted is said."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from kvdeck.sessions.errors import SessionError
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store
from tests.engine.conftest import eventually
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

KVDECK = (sys.executable, "-m", "kvdeck.app.cli.main")
ENDS_BY_ITSELF = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("ready", flush=True)
while True:
    signal.pause()
"""
NAMES_ITSELF = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
COUNTS_INTERRUPTS = """
import signal, sys
seen = []
def interrupted(*_):
    seen.append(1)
    print("interrupted", flush=True)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(10 + len(seen)))
print("ready", flush=True)
while True:
    signal.pause()
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    places = {"HOME": "home", "TMPDIR": "tmp", "KVDECK_HOME": "kvdeck", "KVDECK_RUNTIME": "run"}
    for folder in places.values():
        (tmp_path / folder).mkdir(mode=0o700)
    return {**os.environ, **{name: str(tmp_path / folder) for name, folder in places.items()}}


def traced(environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*KVDECK, "trace", *command], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_is_passed_on_and_the_status_says_it(environment: dict[str, str], number: signal.Signals) -> None:
    waits = "import signal; signal.signal(2, signal.SIG_DFL); print('ready', flush=True); signal.pause()"
    argv = [*KVDECK, "trace", "signalled", "--", sys.executable, "-c", waits]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert "Benchmark 'signalled': 0 transfers" in process.stderr.read()
    assert process.returncode == 128 + number


def test_a_program_that_catches_the_signal_decides_the_status(environment: dict[str, str]) -> None:
    argv = [*KVDECK, "trace", "--", sys.executable, "-c", ENDS_BY_ITSELF]
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
    assert process.returncode == 5


def test_ctrl_c_reaches_the_program_once(environment: dict[str, str]) -> None:
    """The terminal sends it to the whole foreground group; passed on as well, it would arrive twice."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(KVDECK[0], [*KVDECK, "trace", "--", sys.executable, "-c", COUNTS_INTERRUPTS], environment)
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, b"\x03")
    while b"interrupted" not in shown:
        shown += os.read(terminal, 1024)
    os.kill(pid, signal.SIGTERM)  # passed on after a SIGINT that waits, so that none is missed
    status = os.waitpid(pid, 0)[1]
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 11


def test_a_session_without_a_name_is_called_after_time_and_command(environment: dict[str, str]) -> None:
    done = traced(environment, "--", "/bin/sh", "-c", "exit 3")
    (name,) = Store(Path(environment["KVDECK_HOME"])).names()
    assert (done.returncode, done.stdout) == (3, "")
    assert name.endswith("-sh")
    assert f"Benchmark '{name}': 0 transfers" in done.stderr


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("sh", "-c", "true"), "no Python process loaded kvdeck's hook"),
        ((sys.executable, "-I", "-c", ""), "no Python process loaded kvdeck's hook"),
        ((sys.executable, "-c", ""), "none of the Python processes loaded NIXL's Python API or vLLM's offloading"),
        ((sys.executable, "-c", "import nixl._api"), "nixl_cu"),
    ],
)
def test_why_nothing_was_counted(environment: dict[str, str], command: tuple[str, ...], why: str) -> None:
    said = traced(environment, "empty", "--", *command).stderr.splitlines()
    assert said[-1].startswith(f"kvdeck: no transfer was counted: {why}")
    assert "KVBM" in said[-1]


def test_a_disabled_session_and_a_hook_that_failed_are_named(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nixl").mkdir()
    (tmp_path / "nixl/__init__.py").touch()
    (tmp_path / "nixl/_bindings.py").write_text("nothing_that_a_hook_expects = 1\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import nixl._bindings"
    failed = traced(environment, "empty", "--", sys.executable, "-c", program).stderr.splitlines()
    assert failed[-1].startswith("kvdeck: no transfer was counted: the hook failed for nixl._bindings: AttributeError")
    subprocess.run([*KVDECK, "session", "disable", "-s", "empty"], env=environment, check=True, capture_output=True)
    disabled = traced(environment, "empty", "--", sys.executable, "-c", "").stderr.splitlines()
    assert "counting is disabled · `kvdeck session enable -s empty` enables it" in disabled[-1]


def test_a_command_that_can_t_run_makes_no_session(environment: dict[str, str]) -> None:
    for words in (["one", "--", "no-such-program"], ["no-such-program"], [], ["one", "two", "--", "true"], ["--"]):
        assert traced(environment, *words).returncode == 2
    assert Store(Path(environment["KVDECK_HOME"])).names() == []


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with metrics_server({"/metrics": says(sample("dynamo_kvbm_metrics_host_cold.prom"))}) as running:
        yield running


def held(environment: dict[str, str], name: str) -> Session:
    return Store(Path(environment["KVDECK_HOME"])).load(name)


def test_a_trace_holds_telemetry_of_its_time(environment: dict[str, str], server: MetricsServer) -> None:
    done = traced(environment, "both", "--record", server.url(), "--", "/bin/sh", "-c", "exit 3")
    assert done.returncode == 3, done.stderr
    session = held(environment, "both")
    assert session.kind == "trace"
    assert session.telemetry is not None
    assert session.telemetry.moments >= 2, "one before the command, one after it"
    assert [source.name for source in session.telemetry.sources] == [server.url()]
    store = Store(Path(environment["KVDECK_HOME"]))
    assert store.read("both").telemetry is None, "session.json is as without telemetry"
    assert store.inside("both").read("telemetry").state == "done"
    argv = [*KVDECK, "session", "show", "both"]
    shown = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "Telemetry of that time" in shown
    assert server.url() in shown
    argv = [*KVDECK, "monitor", "--replay", "both", "--json"]
    lines = subprocess.run(argv, env=environment, capture_output=True, timeout=60, check=True).stdout.splitlines()
    assert len(lines) == session.telemetry.moments
    assert orjson.loads(lines[0])["sources"][0]["name"] == server.url()
    again = traced(environment, "both", "--record", server.url(), "--", "true")
    assert again.returncode == 0, again.stderr
    continued = held(environment, "both")
    assert continued.telemetry is not None
    assert continued.telemetry.moments > session.telemetry.moments
    assert continued.telemetry.begin == session.telemetry.begin


def test_a_source_that_does_not_exist_is_refused_before_anything_starts(environment: dict[str, str]) -> None:
    refused = traced(environment, "none", "--record", "no such source", "--", "touch", f"{environment['HOME']}/ran")
    assert refused.returncode == 2
    assert "no such source" in refused.stderr
    assert not Path(environment["HOME"], "ran").exists()
    assert not Store(Path(environment["KVDECK_HOME"])).names()


def test_telemetry_of_a_killed_trace_is_interrupted(environment: dict[str, str], server: MetricsServer) -> None:
    argv = [*KVDECK, "trace", "killed", "--record", server.url(), "--", sys.executable, "-c", NAMES_ITSELF]
    store = Store(Path(environment["KVDECK_HOME"]))
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        second = traced(environment, "killed", "--record", server.url(), "--", "true")
        assert second.returncode != 0
        assert "is being recorded" in second.stderr
        with pytest.raises(SessionError, match="is being recorded"):
            store.delete("killed")
        process.kill()
        process.wait()
        os.kill(program, signal.SIGTERM)
    eventually(lambda: store.inside("killed").read("telemetry").state == "interrupted")
    assert store.inside("killed").read("telemetry").reason == "`kvdeck trace` ended during the recording"
    session = held(environment, "killed")
    assert session.telemetry is not None
    assert session.telemetry.moments > 0
