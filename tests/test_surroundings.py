"""Tests own the environment that they run in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from kvdeck.engine.daemon import runtime
from kvdeck.sessions.formats import dynamo
from tests import surroundings, used, versions


def test_a_test_sees_nothing_of_the_machine() -> None:
    deciding = {name for name in os.environ if name.startswith(surroundings.PREFIXES)}
    # NIXL_LOG_LEVEL is kvdeck's own doing, in a process that has loaded NIXL.
    assert not deciding - {*surroundings.CHOICES, "NIXL_LOG_LEVEL"}
    assert not list(Path.home().iterdir())
    assert not list(Path(tempfile.gettempdir()).iterdir())
    assert dynamo.found_files() == {}
    assert dynamo.active_session() is None
    assert len(str(runtime.socket_path(runtime.runtime_folder()))) < 100


def test_what_decides_is_taken_away_whatever_it_is(tmp_path: Path) -> None:
    environ = {**used.VARIABLES, "PATH": "/bin", "KVDECK_HEAVY": "required", "SSL_CERT_FILE": "/a"}
    surroundings.clear(environ, tmp_path)
    assert environ == {
        "PATH": "/bin", "KVDECK_HEAVY": "required", "SSL_CERT_FILE": "/a", "TERM": "xterm-256color", "LANG": "C.UTF-8",
        "HOME": f"{tmp_path}/h", "TMPDIR": f"{tmp_path}/t",
    }  # fmt: skip


def test_kvdeck_works_on_a_used_machine(tmp_path: Path) -> None:
    environ = {**os.environ, **used.plant(tmp_path)}
    for verb in (["sessions"], ["session", "list"], ["session", "status"]):
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *verb]
        done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert "unexpected" not in done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_tested_versions_are_names_and_versions() -> None:
    tested = dict(line.split(" ") for line in versions.FILE.read_text().splitlines())
    assert {"python", "textual", "nixl", "pytest"} <= tested.keys()
    for name, version in tested.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"[0-9][0-9a-z.+]*", version)
