"""A disk's bound is its PCIe link as sysfs states it; where sysfs states none there is a reason in its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvdeck.engine.host.disk_link import bound_of_block, disk_bound


def nvme(sys: Path, speed: str, width: str) -> Path:
    """Make the folders of an NVMe disk and its controller on PCIe; return the disk's."""
    pci = sys / "devices" / "pci0000:00" / "0000:00:1e.0"
    disk = pci / "nvme" / "nvme0" / "nvme0n1"
    (disk / "slaves").mkdir(parents=True)
    (disk.parent / "device").symlink_to(pci)
    (pci / "current_link_speed").write_text(speed)
    (pci / "current_link_width").write_text(width)
    return disk


@pytest.mark.parametrize(
    ("speed", "width", "gb_per_s"),
    [
        ("2.5 GT/s PCIe\n", "1\n", 0.25),
        ("5.0 GT/s PCIe\n", "2\n", 1.0),
        ("8.0 GT/s PCIe\n", "4\n", 3.938),
        ("16.0 GT/s PCIe\n", "4\n", 7.877),
        ("32.0 GT/s PCIe\n", "4\n", 15.754),
    ],
)
def test_the_link_decides(tmp_path: Path, speed: str, width: str, gb_per_s: float) -> None:
    bound = bound_of_block(nvme(tmp_path, speed, width))
    assert bound.gb_per_s == pytest.approx(gb_per_s, abs=1e-3)
    assert "nvme0n1" in bound.words
    assert f"× {width.strip()} " in bound.words


def test_a_partition_and_a_mapped_device_have_their_disk_s_link(tmp_path: Path) -> None:
    disk = nvme(tmp_path, "16.0 GT/s PCIe", "4")
    part = disk / "nvme0n1p2"
    part.mkdir()
    (part / "partition").write_text("2")
    mapped = tmp_path / "devices" / "virtual" / "block" / "dm-0"
    (mapped / "slaves").mkdir(parents=True)
    (mapped / "slaves" / "nvme0n1p2").symlink_to(part)
    assert bound_of_block(part) == bound_of_block(mapped) == bound_of_block(disk)


@pytest.mark.parametrize(
    ("speed", "width", "reason"),
    [
        ("Unknown", "4", "the kernel states no PCIe link of nvme0n1"),
        ("16.0 GT/s PCIe", "0", "the kernel states no PCIe link of nvme0n1"),
        ("64.0 GT/s PCIe", "4", "what a link of 64.0 GT/s carries isn't known here (nvme0n1)"),
    ],
)
def test_what_the_kernel_does_not_state_is_not_guessed(tmp_path: Path, speed: str, width: str, reason: str) -> None:
    bound = bound_of_block(nvme(tmp_path, speed, width))
    assert (bound.gb_per_s, bound.words) == (None, reason)


def test_other_disks_have_none(tmp_path: Path) -> None:
    virtual = tmp_path / "devices" / "pci0000:00" / "virtio0" / "block" / "vda"
    virtual.mkdir(parents=True)
    assert bound_of_block(virtual).words == "vda is no NVMe disk on PCIe"
    striped = tmp_path / "devices" / "virtual" / "block" / "md0"
    for name in ("a", "b"):
        (striped / "slaves" / name).mkdir(parents=True)
    assert bound_of_block(striped).words == "md0 lies on 2 devices"


def test_a_folder_is_found_by_its_device(tmp_path: Path) -> None:
    sys, disk = tmp_path / "sys", nvme(tmp_path / "sys", "16.0 GT/s PCIe", "4")
    assert disk_bound(tmp_path, sys).gb_per_s is None
    number = tmp_path.stat().st_dev
    if os.major(number) == 0:
        pytest.skip("the temp dir is on no block device")
    (sys / "dev" / "block").mkdir(parents=True)
    (sys / "dev" / "block" / f"{os.major(number)}:{os.minor(number)}").symlink_to(disk)
    assert disk_bound(tmp_path, sys) == bound_of_block(disk)
