"""Saved logs of nixlbench in every dress: prefixes, colours, line ends and columns, and all of them together."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path

import pytest

from kvdeck.sessions.formats import exchange
from kvdeck.sessions.formats.log_lines import log_lines
from kvdeck.sessions.formats.nixlbench import parse_runs
from tests.support.builders.nixlbench_output import (
    AGES,
    COLOURS,
    PREFIXES,
    SWEEP,
    TODAY,
    dressed,
    nixlbench_lines,
)

DRESSES = list(itertools.product(PREFIXES, COLOURS, ("\n", "\r\n"), AGES))


def test_every_dress_reads_as_the_bare_output() -> None:
    for prefix, colour, end, columns in DRESSES:
        lines = nixlbench_lines(columns)
        (bare,) = parse_runs("\n".join(lines) + "\n")
        (run,) = parse_runs(dressed(lines, PREFIXES[prefix], COLOURS[colour], end))
        assert (run.options, run.rows, run.cut) == (bare.options, bare.rows, []), (prefix, colour, end, columns)
        assert bare.options == SWEEP
        assert [row.block_bytes for row in bare.rows] == [4096, 8192, 16384]
        assert [row.gb_per_s for row in bare.rows] == [0.5, 1.0, 1.5]
        assert run.unfinished() is None


def test_a_cut_anywhere_is_said_or_leaves_whole_rows() -> None:
    """Whatever byte a log ends at, no row has another value than in the whole, and what is missing is said."""
    choose = random.Random(20)
    for _ in range(400):
        prefix, colour, end, columns = choose.choice(DRESSES)
        lines = nixlbench_lines(columns)
        whole = dressed(lines, PREFIXES[prefix], COLOURS[colour], end)
        table = dressed(lines[: lines.index("") + 4], PREFIXES[prefix], COLOURS[colour], end)
        cut = whole[: choose.randrange(len(table), len(whole) + 1)]
        (complete,), (run,) = parse_runs(whole), parse_runs(cut)
        fixed = "P99 Tx (us)" in columns  # the older tables print no decimals, so a cut in their last cell doesn't show
        rows = run.rows if fixed or cut[-1:].isspace() else run.rows[:-1]
        assert rows == complete.rows[: len(rows)], cut[-80:]
        assert (run.unfinished() is None) == (len(run.rows) == 3), cut[-80:]


@pytest.mark.parametrize("label", ["[1,{}]<stdout>:", "{}: ", "[pod/bench-{}/main] "])
def test_lines_of_other_processes_in_between(label: str) -> None:
    lines = nixlbench_lines()
    mixed = [text for line in lines for text in (label.format(0) + line, label.format(1) + "waiting 4096 1 0.5")]
    (run,) = parse_runs("\n".join(mixed))
    assert (len(run.rows), run.cut, run.unfinished()) == (3, [], None)


def test_two_processes_that_each_measure_are_two_runs() -> None:
    ours = [f"[1,0]<stdout>:{line}" for line in nixlbench_lines()]
    theirs = [f"[1,1]<stdout>:{line}" for line in nixlbench_lines(rate=0.25, options={**SWEEP, "op_type": "READ"})]
    first, second = parse_runs("\n".join(line for pair in zip(ours, theirs, strict=True) for line in pair))
    assert (first.rows[0].gb_per_s, first.options["op_type"]) == (0.5, "WRITE")
    assert (second.rows[0].gb_per_s, second.options["op_type"]) == (0.25, "READ")


def test_docker_s_own_files(tmp_path: Path) -> None:
    saved = tmp_path / "container.log"
    saved.write_text("".join(json.dumps({"log": f"{line}\n", "stream": "stdout"}) + "\n" for line in nixlbench_lines()))
    assert [result.block_bytes for result in exchange.read(saved).results] == [4096, 8192, 16384]


def test_a_redirection_that_writes_utf_16(tmp_path: Path) -> None:
    saved = tmp_path / "powershell.txt"
    for encoding in ("utf-16", "utf-8-sig"):
        saved.write_bytes(dressed(nixlbench_lines(), end="\r\n").encode(encoding))
        session = exchange.read(saved)
        assert (session.state, len(session.results)) == ("done", 3)


def test_numbers_at_a_line_s_begin_are_no_prefix() -> None:
    sign = re.compile("Block")
    bare = ["4096 1 0.5", "12:30 is a time", "0x10: odd", "pods: 3", "a|b"]
    assert [text for _, text in log_lines("\n".join(bare), sign)] == bare
    assert list(log_lines("[1,0]<stdout>:x\n\x1b[1my\x1b[0m\r\n", sign)) == [("[1,0]<stdout>:", "x"), ("", "y")]


def test_a_header_with_one_space_between_its_columns() -> None:
    lines = [re.sub(" {2,}", " ", line) for line in nixlbench_lines(TODAY)]
    (run,) = parse_runs("\n".join(lines))
    assert (len(run.rows), run.rows[0].transfer_p99_us) == (3, 13.1)
