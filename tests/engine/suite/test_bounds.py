"""Physical bounds: the table, this host's interfaces, and rates as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvdeck.engine.suite.bounds import find_bound, host_bounds, known_bounds, parse_rate
from kvdeck.sessions.errors import UsageError


def test_every_row_of_the_table_has_its_source() -> None:
    assert all(row.bytes_per_s > 0 and row.what and row.source for row in known_bounds().values())


@pytest.mark.parametrize(
    ("name", "giga_transfers", "lanes"),
    [("pcie3-x16", 8, 16), ("pcie4-x16", 16, 16), ("pcie5-x16", 32, 16), ("nvme4-x4", 16, 4), ("nvme5-x4", 32, 4)],
)
def test_pcie_is_rate_times_lanes_less_the_encoding(name: str, giga_transfers: int, lanes: int) -> None:
    assert known_bounds()[name].bytes_per_s / 1e9 == pytest.approx(giga_transfers * lanes * 128 / 130 / 8, abs=0.01)


def test_an_interface_of_this_host_is_a_bound(tmp_path: Path) -> None:
    port = tmp_path / "sys/class/infiniband/mlx5_0/ports/1"
    port.mkdir(parents=True)
    (port / "state").write_text("4: ACTIVE\n")
    (port / "rate").write_text("400 Gb/sec (4X NDR)\n")
    (bound,) = host_bounds(tmp_path)
    assert (bound.name, bound.bytes_per_s) == ("nic:mlx5_0:1", 50e9)
    assert find_bound("nic:mlx5_0:1", tmp_path) == bound


@pytest.mark.parametrize(("text", "rate"), [("46.48 GB/s", 46.48e9), ("400Gb/s", 50e9), ("307MB/s", 307e6)])
def test_rates_have_units(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["285", "GB/s", "-1GB/s", "0GB/s", "1e3GB/s", "285 GiB", "", "٣GB/s"])
def test_a_rate_without_its_unit_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_rate(text)
    with pytest.raises(UsageError, match="no bound"):
        find_bound(text, Path("/nowhere"))
