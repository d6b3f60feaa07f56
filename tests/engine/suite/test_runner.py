"""Runs of suites, with real programs: Python as the odd ones, and UCX's, libfabric's and fio's own where installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.children.program import noted_signals
from kvdeck.engine.suite.report import junit_report, markdown_report, reasons, summary
from kvdeck.engine.suite.runner import SuiteStepResult, kept_results, run_suite
from kvdeck.engine.suite.spec import Suite, suite_of


def python(name: str, code: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "kind": "shell", "argv": [sys.executable, "-c", code], **fields}


def suite(*steps: dict[str, Any]) -> Suite:
    return suite_of({"name": "s", "steps": list(steps)}, "f")


def run(content: Suite, folder: Path, **options: Any) -> dict[str, SuiteStepResult]:
    with noted_signals() as signals:
        run_suite(content, folder, signals, options.pop("done", {}), lambda *_: None, **options)
    return kept_results(folder)


def test_needs_stops_and_allowed_failures(tmp_path: Path) -> None:
    found = run(
        suite(
            python("good", "pass"),
            python("allowed", "raise SystemExit(3)", on_fail="xfail"),
            python("bad", "print('the reason'); raise SystemExit(4)"),
            python("after", "pass", needs=["bad"]),
            {"id": "missing", "kind": "shell", "argv": ["no-such-program"]},
            python("stops", "raise SystemExit(5)", on_fail="stop"),
            python("never", "pass"),
        ),
        tmp_path,
    )
    assert {name: result.status for name, result in found.items()} == {
        "good": "PASS", "allowed": "XFAIL", "bad": "FAIL", "after": "SKIP", "missing": "SKIP", "stops": "FAIL",
        "never": "SKIP",
    }  # fmt: skip
    assert "status 4: the reason" in found["bad"].reason
    assert "needs bad" in found["after"].reason
    assert "isn't installed" in found["missing"].reason
    assert "stops" in found["never"].reason
    assert (tmp_path / "steps/bad/client.0.log").read_text() == "the reason\n"


def test_a_program_that_hangs_and_one_that_floods_are_ended_with_their_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvdeck.engine.suite.runner._MOST_LOG", 1 << 20)
    child = (
        "import subprocess,sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\n"
        "p.wait()"
    )
    flood = "while True: print('x' * 1000)"
    found = run(
        suite(python("hangs", child, timeout=3), python("floods", flood, timeout=60)),
        tmp_path,
    )
    assert "longer than 3.00 s" in found["hangs"].reason
    assert "more than 1 MiB" in found["floods"].reason
    left = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 30
    # Killed it is; whoever inherits it may still have to reap it.
    while left.exists() and left.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_cancelled_suite_goes_on_where_it_was(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"import os,time; os.path.exists({str(marker)!r}) or (open({str(marker)!r},'w'), time.sleep(600))"
    content = suite(python("first", "pass"), python("second", code, timeout=60))

    def interrupt() -> None:
        while not marker.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    found = run(content, tmp_path)
    thread.join()
    assert list(found) == ["first"]
    began = found["first"].began
    found = run(content, tmp_path, done=found)
    assert [result.status for result in found.values()] == ["PASS", "PASS"]
    assert found["first"].began == began


def test_a_failed_step_that_stops_the_suite_stops_it_resumed_too(tmp_path: Path) -> None:
    content = suite(python("stops", "raise SystemExit(5)", on_fail="stop"), python("never", "pass"))
    found = run(content, tmp_path)
    kept = {"stops": found["stops"]}
    found = run(content, tmp_path, done=kept)
    assert (found["stops"], found["never"].status) == (kept["stops"], "SKIP")
    assert "step stops failed" in found["never"].reason


@pytest.mark.parametrize(
    ("kind", "floods", "file"),
    [("ucx_perftest", '[ "$1" = -p ]', "server.0.log"), ("fio", "exec >&2", "client.0.err")],
)
def test_a_server_and_an_error_stream_that_flood_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, floods: str, file: str
) -> None:
    monkeypatch.setattr("kvdeck.engine.suite.runner._MOST_LOG", 1 << 20)
    program = tmp_path / "bin" / kind
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{floods} && exec yes\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    step = {"id": "floods", "kind": kind, "timeout": 60, "args": {"s": 8} if kind != "fio" else {"size": "1M"}}
    assert f"more than 1 MiB to {file}" in run(suite(step), tmp_path / "out")["floods"].reason


def test_selected_steps_alone_are_run(tmp_path: Path) -> None:
    found = run(suite(python("a", "pass"), python("b", "pass")), tmp_path, only=["b"])
    assert (found["a"].status, found["a"].reason, found["b"].status) == ("SKIP", "not selected", "PASS")


def test_reports_hold_every_step_and_escape_what_programs_print(tmp_path: Path) -> None:
    content = suite(python("a", "pass"), python("b", "print('<&\\x1b]0;x\\x07|'); raise SystemExit(1)"))
    results = tuple(run(content, tmp_path).values())
    assert summary(results) == "1 PASS · 1 FAIL"
    text, xml = markdown_report(content, results, "host"), junit_report(content, results)
    assert "\x1b" not in text
    assert b"\x1b" not in xml
    assert b'failures="1"' in xml
    assert any("b: " in reason for reason in reasons(results))


@pytest.mark.skipif(shutil.which("ucx_perftest") is None, reason="ucx_perftest isn't installed (Debian: ucx-utils)")
def test_ucx_perftest_over_loopback(tmp_path: Path) -> None:
    env = {"UCX_TLS": "tcp,self"}
    args = {"t": "ucp_put_bw", "s": 65_536, "n": 200, "w": 10, "f": True}
    found = run(
        suite(
            {"id": "put", "kind": "ucx_perftest", "args": args, "env": env, "repeat": 2, "timeout": 60,
             "expect": {"rate": "0.001GB/s", "bound": "nvlink5", "size": "64K"}},
            {"id": "wrong", "kind": "ucx_perftest", "args": {"t": "nosuch"}, "env": env, "timeout": 60},
        ),
        tmp_path,
    )  # fmt: skip
    (rate,) = found["put"].rates
    assert (found["put"].status, rate.name, rate.message_bytes, len(rate.each)) == ("PASS", "ucp_put_bw", 65_536, 2)
    assert found["wrong"].status == "FAIL"


@pytest.mark.skipif(shutil.which("fio") is None, reason="fio isn't installed (Debian: fio)")
def test_fio_and_its_file_is_removed(tmp_path: Path) -> None:
    args = {"rw": "write", "bs": "64k", "size": "1M", "ioengine": "psync", "numjobs": 2}
    found = run(suite({"id": "write", "kind": "fio", "args": args, "timeout": 60}), tmp_path)
    (rate,) = found["write"].rates
    log = (tmp_path / "steps/write/client.0.log").read_text()
    jobs = [job["write"]["bw_bytes"] for job in json.loads(log[log.index("{") :])["jobs"]]
    assert (len(jobs), rate.bytes_per_s) == (2, sum(jobs))
    assert not (tmp_path / "steps/write/fio.data").exists()


@pytest.mark.skipif(shutil.which("fi_pingpong") is None, reason="fi_pingpong isn't installed (Debian: libfabric-bin)")
def test_fi_pingpong_over_loopback(tmp_path: Path) -> None:
    args = {"p": "tcp", "e": "msg", "I": 10, "S": 65_536}
    found = run(suite({"id": "tcp", "kind": "fi_pingpong", "args": args, "timeout": 60}), tmp_path)
    (rate,) = found["tcp"].rates
    assert (rate.message_bytes, found["tcp"].status) == (65_536, "PASS")
