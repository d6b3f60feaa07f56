"""Some mutations of each kind of file; `python -m tests.fuzz` has as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from .kinds import KINDS
from .trial import attempt

COUNT = 120


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_whole_is_read(kind: str, tmp_path: Path) -> None:
    failures = [attempt(KINDS[kind], seed, tmp_path / "w", whole=True) for seed in range(8)]
    assert not any(failures), "\n".join(map(str, filter(None, failures)))


@pytest.mark.parametrize("kind", KINDS)
def test_no_mutation_brings_a_traceback_takes_long_or_changes_the_input(kind: str, tmp_path: Path) -> None:
    failures = [attempt(KINDS[kind], seed, tmp_path / "w") for seed in range(1, COUNT + 1)]
    assert not any(failures), "\n".join(map(str, filter(None, failures)))
