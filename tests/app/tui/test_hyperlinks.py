"""Links to a session's folder: only for terminals that take them, and a path to copy for all others."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.style import Style

from kvdeck.app.config import Config
from kvdeck.app.tui import hyperlinks
from kvdeck.app.tui.export import place_of
from kvdeck.app.tui.messages import EngineChanged
from tests.app.conftest import Answered
from tests.support.builders import run as a_run
from tests.support.programs.terminal import Terminal

BIG = (120, 40)
LINK = re.compile(r"\x1b\]8;[^;]*;(file://[^\x1b]+)\x1b\\(.*?)\x1b\]8;;\x1b\\")


@pytest.mark.parametrize(
    ("environ", "config", "wanted"),
    [
        ({"TERM": "xterm-256color"}, Config(), True),
        ({"TERM": "tmux-256color"}, Config(ascii=False), True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, Config(), False),
        ({"TERM": "xterm-256color"}, Config(ascii=True), False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "4205"}, Config(), False),
        ({"TERM": "xterm-256color", "VTE_VERSION": "7600"}, Config(), True),
        ({"TERM": "xterm-256color"}, Config(links=False), False),
        ({"TERM": "linux"}, Config(), False),
        ({"TERM": "dumb"}, Config(), False),
        ({}, Config(), False),
        ({"TERM": "vt220", "NO_COLOR": "1"}, Config(links=True), True),
    ],
)
def test_who_is_sent_links(environ: dict[str, str], config: Config, wanted: bool):
    assert hyperlinks.wanted(config, environ) is wanted


def test_a_link_names_the_host_and_escapes_the_path():
    assert hyperlinks.uri(Path("/a b/;x")) == f"file://{platform.node()}/a%20b/%3Bx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "home" / "sessions" / a_run.NAME
    made.mkdir(parents=True)
    return made


def links_of(deck: Answered) -> set[str]:
    """Every link that the screen's strips hold."""
    styles = (segment.style for strip in deck.screen._compositor.render_strips() for segment in strip)
    return {style.link for style in styles if isinstance(style, Style) and style.link}


async def test_preview_and_result_link_the_sessions_folder(deck: Answered, folder: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("4")
        await pilot.pause(0.2)
        assert links_of(deck) == set()
        deck.links = True
        for key in ("r", "enter"):
            await pilot.press(key)
            await pilot.pause(0.2)
            deck.screen.query_one("#preview, #result").redraw()
            await pilot.pause()
            assert links_of(deck) == {hyperlinks.uri(folder)}


async def test_a_path_is_copied_and_kept_in_a_file(deck: Answered, folder: Path):
    async with deck.run_test(size=BIG) as pilot:
        await pilot.press("L")
        assert "this screen shows no session" in [note.message for note in deck._notifications]
        deck.post_message(EngineChanged(a_run.live()))
        await pilot.pause()
        for keys in ("L", "4L", ("enter", "L")):
            deck._clipboard = ""
            await pilot.press(*keys)
            await pilot.pause(0.2)
            assert deck.clipboard == str(folder)
        await pilot.press("escape", "j", "L")
        await pilot.pause()
        assert "nvme-sweep has no folder yet" in [note.message for note in deck._notifications]
    kept = sorted((folder.parent.parent / "shared").iterdir())
    assert {path.read_text() for path in kept} == {f"{folder}\n"}


def test_dynamos_file_is_where_its_session_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    file = tmp_path / "dynamo_benchmark_theirs.json"
    file.write_text("{}")
    assert place_of("theirs") == file
    assert place_of("nobody's") is None


SHOW = """
import sys
from kvdeck.app.cli.output import print_session
from tests.support.builders import run as a_run
print_session(a_run.session(), False)
print("end")
"""


def test_the_command_line_links_the_name_on_a_terminal_and_nowhere_else(folder: Path):
    shown = Terminal(BIG, program=SHOW)
    try:
        assert shown.shows("end")
        found = LINK.search(shown.taken.decode())
        assert found is not None
        assert (found[1], found[2]) == (hyperlinks.uri(folder), a_run.NAME)
    finally:
        shown.close()
    plain = Terminal(BIG, program=SHOW, NO_COLOR="1")
    try:
        assert plain.shows("end")
        assert b"\x1b]8" not in plain.taken
    finally:
        plain.close()
    piped = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, env=os.environ, check=True)
    assert b"\x1b" not in piped.stdout
