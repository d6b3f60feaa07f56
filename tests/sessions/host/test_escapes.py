"""Foreign text is written out, wherever it is shown; JSON stays what it is; no address carries a credential."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.segment import Segment
from textual.color import Color

from kvdeck.app.cli.standard_output import Output
from kvdeck.app.tui.glyphs import Obeyed
from kvdeck.app.tui.widgets.lines import cell
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import carries_credentials, refuse_credentials
from kvdeck.sessions.host.escapes import csv_text, visible, visible_json, without_controls
from kvdeck.sessions.model.records import Session
from kvdeck.sessions.store.store import Store
from kvdeck.sessions.text.markdown import table

HOSTILE = "a\x1b]52;c;aGk=\x07b\x9b31m\u202ec\u200bd\r\ne\t\udcff|`<\x00"


def is_harmless(text: str) -> bool:
    return visible(text, lines=True) == text


@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
def test_nothing_that_a_terminal_obeys_comes_through(text: str):
    shown = visible(text)
    assert is_harmless(shown)
    assert visible(shown) == shown
    assert "\n" not in shown
    assert visible("plain é µ → 日本") == "plain é µ → 日本"
    assert is_harmless(without_controls(text))
    assert is_harmless(cell(text, 20)[0])


@given(st.text(max_size=40))
def test_json_keeps_its_values(text: str):
    shown = visible_json(json.dumps({"a": text}, ensure_ascii=False))
    assert is_harmless(shown)
    assert json.loads(shown) == {"a": text}


def test_characters_are_written_out_by_their_numbers():
    assert visible(HOSTILE) == r"a\x1b]52;c;aGk=\x07b\x9b31m\u202ec\u200bd\r\ne\t\xff|`<\x00"


def test_the_command_lines_streams_and_the_decks_lines_let_nothing_through():
    raw = io.StringIO()
    Output(raw).write(f"{HOSTILE}\nnext")
    assert is_harmless(raw.getvalue())
    assert raw.getvalue().count("\n") == 2
    (segment,) = Obeyed().apply([Segment(HOSTILE)], Color(0, 0, 0))
    assert is_harmless(segment.text.replace("\n", ""))


def test_markdown_and_csv_cells_hold_what_they_are_given():
    lines = table(("a", "b"), [(HOSTILE, "[x](http://y) *z*")])
    assert len(lines) == 3
    assert lines[2].replace(r"\|", "").count("|") == 3
    assert [csv_text(text) for text in ("=1+1", "@x", "-3.5", "+1", "plain", 5, "\x1b[2J", "\t=1")] == [
        "'=1+1", "'@x", "-3.5", "+1", "plain", 5, "\\x1b[2J", "'\\t=1"]  # fmt: skip


VERBS = ("session list", "sessions", "session show odd", "session note odd", "session list --json", "session tag odd")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("where", ["terminal", "pipe"])
def test_no_verb_writes_a_foreign_sequence(tmp_path: Path, verb: str, where: str):
    """Names of files in the temp folder, notes, tags, reasons and hosts are anybody's to choose."""
    odd = HOSTILE.replace("\udcff", "")
    Store(tmp_path / "home").keep(
        Session("odd", "failed", time.time(), reason=odd, note=odd, tags=(odd,), host={"hostname": odd, "cpu": odd})
    )
    (tmp_path / "dynamo_benchmark_\x1b]0;owned\x07.json").write_text("{}")
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run"),
                   "TMPDIR": str(tmp_path), "TERM": "xterm"}  # fmt: skip
    argv = [sys.executable, "-m", "kvdeck.app.cli.main", *verb.split()]
    if where == "pipe":
        done = subprocess.run(argv, env=environment, capture_output=True, timeout=30)
        text = (done.stdout + done.stderr).decode()
    else:
        master, slave = pty.openpty()
        process = subprocess.Popen(argv, env=environment, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        data = b""
        try:
            while piece := os.read(master, 4096):
                data += piece
        except OSError:
            pass
        process.wait(30)
        os.close(master)
        text = data.decode().replace("\r\n", "\n")
    for raw in ("\x1b]52", "\x1b]0;", "\x07", "\x9b", "\u202e", "\u200b", "\x00"):
        assert raw not in text, text


@pytest.mark.parametrize(
    "address",
    ["http://user:password@host:9/metrics", "user:pw@host:9", "http://host/m?token=abc", "http://host/m?API_KEY=x",
     "http://host/m#access_token=x", "http://host/m;sig=abc", "https://host/?x=eyJhbGciOiJIUzI1NiJ9", "http://h/?code=1",
     "http://:pw@host/", "http://host/hf_abcdefghijklmno"],
)  # fmt: skip
def test_an_address_with_a_credential_is_refused_and_not_repeated(address: str):
    with pytest.raises(UsageError, match="must not carry") as caught:
        refuse_credentials(address)
    for secret in ("password", "pw", "abc", "eyJ", "hf_"):
        assert secret not in str(caught.value).replace("user or password", "")


@pytest.mark.parametrize(
    "address",
    [
        "http://host:9400/metrics",
        "host:9400",
        "http://[::1]:9/metrics?match=a",
        "processes",
        "/a/path@b",
        "ring /tmp/x",
    ],
)
def test_other_addresses_are_taken(address: str):
    assert refuse_credentials(address) == address
    assert not carries_credentials(address)


@pytest.mark.parametrize("umask", [0o000, 0o777, 0o022])
def test_folders_and_files_are_the_users_own_whatever_the_umask(tmp_path: Path, umask: int):
    environment = {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run")}

    def kvdeck(*arguments: str) -> None:
        argv = [sys.executable, "-m", "kvdeck.app.cli.main", *arguments]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=30, umask=umask)
        assert done.returncode == 0, done.stderr

    kvdeck("engine", "start")
    kvdeck("session", "init", "made")
    kvdeck("monitor", "--record", "watched", "--source", "disks", "--seconds", "0.5", "--hz", "5")
    kvdeck("engine", "stop")
    for path in [*(tmp_path / "home").rglob("*"), *(tmp_path / "run").rglob("*"), tmp_path / "home", tmp_path / "run"]:
        mode = path.lstat().st_mode & 0o777
        assert mode & 0o077 == 0, f"{path} {mode:o}"
        assert mode & 0o600 == 0o600 or path.is_socket(), f"{path} {mode:o}"
