"""Some mutations of each kind of file; `python -m tests.fuzz` has as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kinds import KINDS
from .trial import attempt

COUNT = 120
UNREAD = "nixlbench.csv"
"""A table that some tools make of nixlbench's output; it may be refused."""


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_read(kind: str, tmp_path: Path) -> None:
    failures = [attempt(KINDS[kind], seed, tmp_path / "w", whole=True) for seed in range(8)]
    told = [str(failure) for failure in failures if failure is not None and UNREAD not in failure.what]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_brings_a_traceback_takes_long_or_changes_the_input(kind: str, tmp_path: Path) -> None:
    failures = [attempt(KINDS[kind], seed, tmp_path / "w") for seed in range(1, COUNT + 1)]
    assert not any(failures), "\n".join(map(str, filter(None, failures)))
