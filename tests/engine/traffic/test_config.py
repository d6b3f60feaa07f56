"""The YAML of traffic tests: the seed's and upstream's forms, and refusals in one line that name the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.traffic.config import parse_config, read_config
from kvdeck.sessions.errors import UsageError

SEED = "0 0 1M 1M\n0 0 1M 1M\n0 0 0 5K\n0 0 0 5K\n"


def test_the_single_form_reads_its_matrix_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "matrix.txt").write_text(SEED)
    file = tmp_path / "ct.yaml"
    file.write_text(
        "iters: 50\nwarmup_iters: 10\ntraffic_pattern:\n  matrix_file: matrix.txt\n  shards: 2\n"
        "  mem_type: CPU\n  xfer_op: read\n"
    )
    config = read_config(file)
    (pattern,) = config.patterns
    assert (config.iterations, config.warmup, config.ranks) == (50, 10, 4)
    assert (pattern.shards, pattern.memory, pattern.operation) == (2, "DRAM", "READ")
    assert pattern.matrix.rows[0] == (0, 0, 1 << 20, 1 << 20)
    assert pattern.initiators == (2, 3)


def test_the_list_form_takes_sleeps_and_metadata_and_inline_matrices() -> None:
    document = {"traffic_patterns": [
        {"matrix": "0 5K\n0 0", "metadata": {"isl": 4096}, "sleep_before_launch_sec": 16.5},
        {"matrix": [[0, "1M"], [3, 0]], "sleep_after_launch_sec": 2},
    ]}  # fmt: skip
    first, second = parse_config(document, "x", Path()).patterns
    assert (first.sleep_before_s, first.sleep_after_s, first.operation, first.memory) == (16.5, 0, "WRITE", None)
    assert (second.sleep_after_s, second.matrix.rows) == (2.0, ((0, 1 << 20), (3, 0)))


def test_no_patterns_is_an_empty_list() -> None:
    assert parse_config({"traffic_patterns": []}, "x", Path()).patterns == ()


ONE = {"matrix": [[0, 1], [0, 0]]}


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ([], "x: not a mapping"),
        ({}, "traffic_pattern or traffic_patterns"),
        ({"traffic_pattern": ONE, "traffic_patterns": [ONE]}, "traffic_pattern or traffic_patterns"),
        ({"traffic_pattern": ONE, "itres": 3}, "unknown key itres"),
        ({"traffic_patterns": [ONE, {**ONE, "shard": 3}]}, r"traffic_patterns\[1\]: unknown key shard"),
        ({"traffic_patterns": [{}]}, "matrix_file or matrix"),
        ({"traffic_patterns": [{**ONE, "matrix_file": "a"}]}, "matrix_file or matrix"),
        ({"traffic_patterns": [{**ONE, "shards": 0}]}, "shards is '0'"),
        ({"traffic_patterns": [{**ONE, "shards": True}]}, "shards is 'True'"),
        ({"traffic_patterns": [{**ONE, "metadata": {1: 2}}]}, "metadata: the key 1 is not a string"),
        ({"traffic_patterns": [{**ONE, "metadata": {"a": [{"b": {None: 2}}]}}]}, "the key None is not a string"),
        ({"traffic_patterns": [{**ONE, "xfer_op": "PUSH"}]}, "xfer_op is 'PUSH'"),
        ({"traffic_patterns": [{**ONE, "mem_type": "tape"}]}, "mem_type is 'tape'"),
        ({"traffic_patterns": [{**ONE, "sleep_before_launch_sec": -1}]}, "sleep_before_launch_sec is '-1'"),
        ({"traffic_patterns": [{**ONE, "storage": {"read": False, "write": False}}]}, "neither reads nor writes"),
        ({"traffic_patterns": [{**ONE, "storage": {"backend": "S3"}}]}, "use POSIX"),
        ({"traffic_patterns": [{"matrix": [[0, -1], [0, 0]]}]}, "'-1' is no size"),
        ({"traffic_patterns": [{"matrix": [[0, 1], [0]]}]}, "differ in length"),
        ({"traffic_patterns": [ONE, {"matrix": [[5]]}]}, "pattern 1 has 1 ranks, pattern 0 has 2"),
        ({"traffic_pattern": ONE, "iters": 0}, "iters is '0'"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(document: Any, named: str) -> None:
    with pytest.raises(UsageError, match=named) as raised:
        parse_config(document, "x", Path())
    assert "\n" not in str(raised.value)
    assert raised.value.fix


def test_a_missing_file_and_a_broken_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("traffic_patterns: [")
    with pytest.raises(UsageError, match=r"broken\.yaml"):
        read_config(tmp_path / "broken.yaml")
