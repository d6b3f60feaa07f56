"""What is refused before anything starts: more memory than there is, and GPU memory without a GPU."""

from __future__ import annotations

import pytest

from kvdeck.engine.traffic.config import TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix, parse_matrix
from kvdeck.engine.traffic.needs import region_bytes, resolved
from kvdeck.engine.traffic.spec import TrafficSpec
from kvdeck.sessions.errors import UsageError


def test_a_matrix_larger_than_the_memory_is_refused_with_the_sum() -> None:
    spec = TrafficSpec((TrafficPattern(parse_matrix("0 900T\n900T 0", "x")),))
    with pytest.raises(UsageError, match="2 ranks need 3,958,241,859,993,600 B"):
        region_bytes(spec, 1 << 40)
    assert region_bytes(TrafficSpec(), 0) == 0


def test_a_host_needs_memory_for_its_own_ranks_alone() -> None:
    spec = TrafficSpec((TrafficPattern(parse_matrix("0 0 6K\n0 0 0\n0 0 0", "x")),), peer=("far",))
    assert region_bytes(spec, 8192) == 8192 + 6144  # rank 0 is here, and rank 2, which receives, on the peer
    with pytest.raises(UsageError, match=r"1 rank need.* on this host"):
        region_bytes(spec, 8191)


def test_gpu_memory_is_refused_with_its_reason() -> None:
    with pytest.raises(UsageError, match="pattern 0 needs GPU memory: "):
        resolved(TrafficSpec((TrafficPattern(Matrix(((1,),)), memory="VRAM"),)))
    assert resolved(TrafficSpec((TrafficPattern(Matrix(((1,),))),))).patterns[0].memory == "DRAM"
