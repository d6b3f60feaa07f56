"""Patterns that are opened, edited and saved; files that are no such."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvdeck.app.tui.modes.traffic.document import (
    TrafficDocument,
    open_document,
    parse_cell,
    save_document,
    spec_of,
)
from kvdeck.engine.traffic.config import TrafficConfig, TrafficPattern, read_config
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.spec import traffic_spec
from kvdeck.sessions.errors import KvdeckError, UsageError

YAML = """
iters: 7
warmup_iters: 0
traffic_patterns:
- matrix_file: a.txt
  xfer_op: READ
  shards: 3
  mem_type: dram
  sleep_before_launch_sec: 0.5
  metadata: {isl: 4096}
- matrix: [[0, 5], [0, 0]]
  storage: {read: true}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("0 1.5K\n2M 0\n")
    path = tmp_path / "metadata.yaml"
    path.write_text(YAML)
    return path


def test_a_file_or_its_folder_is_opened(file: Path):
    document = open_document(str(file))
    assert document == open_document(str(file.parent))
    assert document.config == read_config(file)
    assert document.title == f"{file.parent.name}/metadata.yaml"
    assert not document.changed


def test_a_cell_is_edited_and_nothing_else(file: Path):
    before = open_document(str(file))
    after = before.with_cell(0, 1, 0, 7)
    assert after.changed
    assert after.config.patterns[0].matrix.rows == ((0, 1536), (7, 0))
    assert after.config.patterns[1] is before.config.patterns[1]
    assert before.with_cell(0, 1, 0, 2 << 20) is before
    assert not before.changed


def test_what_is_saved_is_read_back_the_same(file: Path, tmp_path: Path):
    edited = open_document(str(file)).with_cell(1, 1, 0, 123_456_789_012)
    saved = save_document(edited, str(tmp_path / "new" / "mine.yaml"))
    assert not saved.changed
    assert open_document(saved.source) == saved
    assert saved.config == edited.config
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "mine-matrix_0.txt", "mine-matrix_1.txt", "mine.yaml",
    ]  # fmt: skip


def test_saving_refuses_what_is_no_yaml_file_and_says_what_it_cannot_write(file: Path, tmp_path: Path):
    document = open_document(str(file))
    with pytest.raises(UsageError, match=r"end it in \.yaml"):
        save_document(document, str(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text() == "0 1.5K\n2M 0\n"
    (tmp_path / "plain").write_text("")
    with pytest.raises(KvdeckError, match="can't write"):
        save_document(document, str(tmp_path / "plain" / "x.yaml"))


def test_the_spec_is_what_the_engine_takes(file: Path):
    document = open_document(str(file))
    spec = traffic_spec(spec_of(document))
    assert spec.patterns == document.config.patterns
    assert (spec.iterations, spec.warmup, spec.verify, spec.source) == (7, 0, True, str(file))
    assert traffic_spec(spec_of(document.with_cell(0, 0, 1, 1))).source == ""


def test_more_cells_than_the_engine_takes_are_refused():
    ranks = 512
    config = TrafficConfig((TrafficPattern(Matrix(((1,) * ranks,) * ranks)),))
    with pytest.raises(UsageError, match="too many cells"):
        spec_of(TrafficDocument(config))


@pytest.mark.parametrize(("text", "size"), [("0", 0), ("64K", 65536), ("1.5M", 3 << 19), ("2GiB", 2 << 30), (" 7 ", 7)])
def test_a_cell_is_typed_as_in_a_file(text: str, size: int):
    assert parse_cell(text) == size


@pytest.mark.parametrize("text", ["x", "-1", "1 2", "# 5", "1\x1b[31m", "9" * 40, "1Q"])
def test_a_cell_that_is_no_size_is_refused(text: str):
    with pytest.raises(UsageError, match="is no size"):
        parse_cell(text)


def test_a_matrix_that_is_wrong_is_told_by_file_line_and_column(tmp_path: Path):
    (tmp_path / "m.txt").write_text("# comment\n0 1\n2 1Q\n")
    (tmp_path / "t.yaml").write_text("traffic_pattern: {matrix_file: m.txt}")
    with pytest.raises(UsageError, match=r"m\.txt:3:3: '1Q' is no size"):
        open_document(str(tmp_path / "t.yaml"))


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "fifo.yaml").write_text("traffic_pattern: {matrix_file: pipe.yaml}")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\0\xff\xfe")
    (tmp_path / "list.yaml").write_text("- 1")
    for name in ("missing.yaml", "pipe.yaml", "fifo.yaml", "folder.yaml", "binary.yaml", "list.yaml", "a\0b.yaml"):
        with pytest.raises(KvdeckError):
            open_document(str(tmp_path / name))
