"""Refusing a run before it allocates, with the sum."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from kvdeck.engine.host import FolderFacts, Gpu, GpuFacts, HostFacts, host_facts
from kvdeck.engine.host.folder import default_folder
from kvdeck.engine.transfer.needs import MemoryPart, Needs, check_room
from kvdeck.sessions.errors import UnavailableError

GB = 10**9


@pytest.fixture(scope="module")
def host() -> HostFacts:
    """A host of known size."""
    folder = FolderFacts("/data", "xfs", "/data", "/dev/nvme0n1", 100 * GB, True, 4096)
    return dataclasses.replace(
        host_facts(gpu=GpuFacts(gpus=(Gpu(0, "H200", "GPU-0", 141 * GB, 20 * GB, 1),))),
        memory_available_bytes=12_100_000_000,
        folder=folder,
        open_files=1024,
        memlock_bytes=8_000_000,
        aio_max=65536,
        aio_used=65000,
    )


def test_what_fits_passes(host: HostFacts) -> None:
    check_room(
        Needs(
            host=(MemoryPart(2, 5 * GB),),
            device=(MemoryPart(1, 10 * GB),),
            disk=(MemoryPart(4, 20 * GB),),
            open_files=4,
            locked_bytes=8_000_000,
            aio_slots=256,
            request_descriptors=1024,
            request_limit=65536,
        ),
        host,
    )


@pytest.mark.parametrize(
    ("needs", "line"),
    [
        (
            Needs(host=(MemoryPart(3, 8_600_000_000),), blocks=1024),
            "needs 3 × 8.01 GiB = 24.0 GiB of memory, but 11.3 GiB are available · fix: lower --blocks to 432",
        ),
        (
            Needs(host=(MemoryPart(2, 8 * GB), MemoryPart(1, GB))),
            (
                "needs 2 × 7.45 GiB + 954 MiB = 15.8 GiB of memory, but 11.3 GiB are available"
                " · fix: free some, or lower --blocks or the block size"
            ),
        ),
        (
            Needs(device=(MemoryPart(1, 30 * GB),), blocks=600),
            "needs 27.9 GiB of memory on GPU 0, but 18.6 GiB are available · fix: lower --blocks to 360",
        ),
        (
            Needs(disk=(MemoryPart(2, 60 * GB),), blocks=100),
            (
                "needs 2 × 55.9 GiB = 112 GiB of disk space in /data, but 93.1 GiB "
                "are available · fix: lower --blocks to 75"
            ),
        ),
        (
            Needs(open_files=1000),
            "needs 1,000 + 64 = 1,064 open files, but 1,024 are allowed · fix: lower --files, or: ulimit -n 1064",
        ),
        (
            Needs(locked_bytes=2 * GB),
            (
                "needs 1.86 GiB of locked memory, but 7.63 MiB are allowed"
                " · fix: raise it: ulimit -l unlimited (in a container: --ulimit memlock=-1), or lower --blocks"
            ),
        ),
        (
            Needs(aio_slots=1024),
            (
                "needs 1,024 kernel AIO events, but 536 of 65,536 are free"
                " · fix: use --api URING, or: sudo sysctl fs.aio-max-nr=66024"
            ),
        ),
        (
            Needs(request_descriptors=70_000, request_limit=65_536),
            (
                "needs 70,000 descriptors in flight, but the plugin takes 65,536"
                " · fix: lower --batch, or raise it: --param ios_pool_size=70000"
            ),
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_sum(host: HostFacts, needs: Needs, line: str) -> None:
    with pytest.raises(UnavailableError) as refusal:
        check_room(needs, host)
    assert str(refusal.value) == line


def test_the_mend_fits(host: HostFacts) -> None:
    """Whoever follows the advice must not be refused again."""
    block = 2 << 20
    with pytest.raises(UnavailableError) as refusal:
        check_room(Needs(host=(MemoryPart(3, 9000 * block),), blocks=9000), host)
    blocks = int(refusal.value.fix.rsplit(" ", 1)[1])
    check_room(Needs(host=(MemoryPart(3, blocks * block),), blocks=blocks), host)


def test_files_in_memory_count_as_memory(host: HostFacts) -> None:
    assert host.folder is not None
    in_memory = dataclasses.replace(host, folder=dataclasses.replace(host.folder, filesystem="tmpfs", path="/dev/shm"))
    needs = Needs(host=(MemoryPart(1, 6 * GB),), disk=(MemoryPart(1, 6 * GB),))
    check_room(needs, host)
    with pytest.raises(UnavailableError, match=r"5.59 GiB \+ 5.59 GiB = 11.2 GiB of memory, /dev/shm included"):
        check_room(needs, in_memory)


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KVDECK_SCRATCH", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.setenv("KVDECK_SCRATCH", str(tmp_path / "missing"))
    with pytest.raises(UnavailableError, match="missing: no such file or directory · fix: set KVDECK_SCRATCH"):
        default_folder()


def test_the_default_folder_is_on_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/shm").is_dir() or default_folder() == Path("/dev/shm"):
        pytest.skip("no filesystem in memory to avoid")
    monkeypatch.delenv("KVDECK_SCRATCH", raising=False)
    monkeypatch.setattr("tempfile.tempdir", "/dev/shm")
    assert default_folder() != Path("/dev/shm")
