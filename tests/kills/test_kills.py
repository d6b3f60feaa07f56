"""A few random kills of each kind; `python -m tests.kills` has as many as one likes."""

from __future__ import annotations

import pytest

from .trials import TRIALS, attempt


@pytest.mark.parametrize("seed", [7, 8])
@pytest.mark.parametrize("kind", TRIALS)
def test_nothing_is_lost_stuck_or_left(kind: str, seed: int) -> None:
    what, broken = attempt(kind, seed)
    assert not broken, f"{what}: {broken}"
