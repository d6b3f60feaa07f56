"""NIXL's own JSON as a session: kept ratios without intervals, and rows that all repeat one bandwidth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvdeck.sessions.errors import ImportedFileError
from kvdeck.sessions.formats import exchange


def file(folder: Path, iterations: list[list[dict[str, Any]]]) -> Path:
    path = folder / "result.json"
    metadata = {"ts": 5.0, "iters": [], "prepare_tp_time": 0.5, "sol_calculation_ts": 6.0, "finished_ts": 9.0}
    path.write_text(json.dumps({"iterations_results": iterations, "metadata": metadata}))
    return path


def row(latency: float | None, bandwidth: float | None = 0.5) -> dict[str, Any]:
    moved = latency is not None
    return {"size": 0.007340032 if moved else 0, "latency": latency, "isolated_latency": 10.0 if moved else None,
            "num_senders": 2 if moved else 0, "mean_bw": bandwidth, "min_start_ts": 1.0, "max_end_ts": 2.0}  # fmt: skip


def test_a_file_of_nixl_is_a_session(tmp_path: Path) -> None:
    found = exchange.read(file(tmp_path, [[row(20.0), row(None)], [row(30.0), row(None)]]))
    assert (found.kind, found.started, found.ended) == ("imported", 5.0, 9.0)
    assert found.traffic is not None
    first, second = found.traffic.patterns
    assert (first.bytes, first.senders, first.operation) == (7340032, 2, "unknown")
    assert first.ratio is not None
    assert (first.ratio.median, first.ratio.known) == (2.5, False)
    assert (second.together_ms, second.ratio) == (None, None)
    assert first.mean_gb_per_s is None  # one value in every row: the last pattern's


def test_rows_with_bandwidths_of_their_own_keep_them(tmp_path: Path) -> None:
    found = exchange.read(file(tmp_path, [[row(20.0, 0.5), row(10.0, 0.25)]]))
    assert found.traffic is not None
    assert [one.mean_gb_per_s for one in found.traffic.patterns] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("iterations", "named"),
    [([[{"size": 1}]], "latency"), ([[row(1.0)], []], "different numbers of patterns"), ("x", "iterations_results")],
)
def test_a_damaged_file_is_refused_by_its_field(tmp_path: Path, iterations: Any, named: str) -> None:
    with pytest.raises(ImportedFileError, match=named):
        exchange.read(file(tmp_path, iterations))
