"""Judgement of rates: statuses, arithmetic, and causes."""

from __future__ import annotations

import pytest

from kvdeck.engine.suite.bounds import known_bounds
from kvdeck.engine.suite.judgement import Evidence, judge

NIC = known_bounds()["p5.48xlarge/nic"]


@pytest.mark.parametrize(
    ("measured", "status"),
    [(46.48e9, "PASS"), (41.9e9, "PASS"), (41.7e9, "DEGRADED"), (23.3e9, "DEGRADED"), (23.1e9, "FAIL"), (0.0, "FAIL")],
)
def test_statuses_against_what_is_expected(measured: float, status: str) -> None:
    judgement = judge(measured, expected=46.48e9, bound=known_bounds()["p5.48xlarge/gpu"])
    assert judgement.status == status
    assert judgement.efficiency == measured / 50e9


def test_the_seed_s_expectation_breaks_physics() -> None:
    judgement = judge(12e9, expected=285e9, bound=NIC)
    assert judgement.status == "SUSPECT"
    text = " ".join(judgement.reasons)
    assert "285 GB/s (2,280 Gb/s) over one EFA NIC of 100 Gb/s: at most 12.5 GB/s (100 Gb/s), 22.8 times less" in text
    assert "MB/s read as GB/s" in text
    assert "cuda_ipc" in text


def test_posting_time_taken_for_transfer_time_is_recognised_by_its_arithmetic() -> None:
    evidence = Evidence("ucp_put_bw", 1 << 20, 0.16)
    judgement = judge((1 << 20) / 0.16e-6, bound=NIC, evidence=evidence)
    assert judgement.status == "SUSPECT"
    assert judgement.reasons[1].startswith("posting time taken for transfer time")
    other = judge(100e9, bound=NIC, evidence=evidence)
    assert "posting" not in " ".join(other.reasons)


def test_at_most_twice_the_bound_may_be_both_directions_and_more_may_not() -> None:
    assert "both directions" in " ".join(judge(24e9, bound=NIC).reasons)
    assert "both directions" not in " ".join(judge(26e9, bound=NIC).reasons)


def test_nothing_measured_and_nothing_expected_pass_nothing() -> None:
    assert judge(None, expected=1e9).status == "SKIP"
    assert judge(1e9, bound=NIC).status == "SKIP"
