"""What takes long says so on stderr: a line that counts on a terminal, one line elsewhere, nothing if it is quick."""

from __future__ import annotations

import os
import subprocess
import sys

from kvdeck.app.cli.spinner import waiting_text
from tests.support.programs.terminal import Terminal

LONG = """
import sys
from kvdeck.app.cli.spinner import waiting
with waiting("checking this host", 120):
    sys.stdin.read()
print("done")
"""


def test_a_terminal_sees_it_count_and_then_nothing_of_it():
    shown = Terminal(program=LONG)
    try:
        assert shown.shows("checking this host · 1 s, at most 120 s")
        os.write(shown.master, b"\x04")
        assert shown.shows("done")
        assert not any("checking" in line for line in shown.screen.display)
    finally:
        shown.close()


def test_a_file_gets_one_line():
    child = subprocess.Popen(
        [sys.executable, "-c", LONG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr is not None
    assert child.stderr.readline() == "checking this host …\n"
    assert child.communicate("\n") == ("done\n", "")


def test_what_is_quick_says_nothing():
    ended = subprocess.run([sys.executable, "-c", LONG], input="\n", capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("done\n", "")


def test_no_limit_is_made_up():
    assert waiting_text("reading x", 3.4, None) == "reading x · 3 s"
