"""Which GPU is next to the fabric, and what a host without one says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.host.facts import Gpu
from kvdeck.engine.host.gpu import numa_node
from kvdeck.engine.host.nics import Nic
from kvdeck.engine.transfer.peer_gpus import nearest_gpu, peer_reason

GPUS = [Gpu(index, "H100", f"GPU-{index}", 1, 1, 0, node) for index, node in ((0, 0), (1, 0), (2, 1), (3, 1))]
ETH = Nic("eth0", False, True, "up", 800e9, 1500, 0)
IB = Nic("mlx5_0:1", True, True, "ACTIVE", 400e9, 4096, 1)
DOWN = Nic("mlx5_1:1", True, False, "DOWN", 800e9, 4096, 0)


@pytest.mark.parametrize(
    ("gpus", "nics", "chosen"),
    [
        (GPUS, [ETH, IB, DOWN], 2),
        (GPUS, [ETH], 0),
        (GPUS, [], 0),
        (GPUS[2:], [ETH], 2),
        ([Gpu(5, "H100", "GPU-5", 1, 1, 0)], [IB], 5),
        ([], [IB], 0),
    ],
)
def test_the_gpu_on_the_fabric_s_numa_node_is_taken(gpus: list[Gpu], nics: list[Nic], chosen: int):
    assert nearest_gpu(gpus, nics) == chosen


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ({}, "it does not say whether it has a GPU"),
        ({"gpu": {"gpus": [], "reason": "no NVIDIA driver is loaded"}}, "no NVIDIA driver is loaded"),
        ({"gpu": {"gpus": [], "reason": None}}, "no GPU"),
        ({"gpu": {"gpus": [{}], "reason": None}}, None),
    ],
)
def test_what_a_peer_lacks_is_said(greeting: dict[str, Any], said: str | None):
    assert peer_reason(greeting) == said


def test_a_numa_node_is_read_by_nvml_s_address(tmp_path: Path):
    for address, node in (("0000:18:00.0", "1"), ("0000:19:00.0", "-1")):
        slot = tmp_path / "sys/bus/pci/devices" / address
        slot.mkdir(parents=True)
        (slot / "numa_node").write_text(f"{node}\n")
    found = [numa_node(address, tmp_path) for address in ("00000000:18:00.0", "00000000:19:00.0", "0:1:0")]
    assert found == [1, None, None]
