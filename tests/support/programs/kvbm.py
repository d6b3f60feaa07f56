"""The real KVBM 1.6.1 without a GPU: its leader, which serves KVBM's metrics. Blocks need a worker on a GPU to move.

The package lies in the user's cache folder, outside the repository, and is made once: 14 MB to fetch, 41 MB on disk.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs.dynamo import cannot, free_ports
from tests.surroundings import GIVEN

VERSION = "1.6.1"

_LEADER = """
import time
import nixl
import kvbm._core as core
leader = core.KvbmLeader(1, drt=None)
named = {f"consolidator_{name}": None for name in ("vllm_endpoint", "output_endpoint", "mode")}
connector = core._vllm_integration.PyKvConnectorLeader("test", None, 16, leader, **named)
time.sleep(600)
"""


def package() -> Path:
    """The folder of the package, made now if it is not there yet."""
    cache = Path(GIVEN.get("XDG_CACHE_HOME") or Path(GIVEN.get("HOME", "/")) / ".cache") / "kvdeck-tests"
    folder = cache / f"kvbm-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps"]
            try:
                subprocess.run(
                    [*command, "--target", str(folder), f"kvbm=={VERSION}"],
                    check=True, capture_output=True, text=True, timeout=300, env=GIVEN,
                )  # fmt: skip
            except (OSError, subprocess.SubprocessError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                words = getattr(error, "stderr", None) or str(error)
                cannot(f"KVBM can't be installed: {words.strip()[-600:]}")
            (folder / "whole").touch()
    return folder


class Leader:
    """KVBM's leader, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._package = folder, package()
        self.port, self._publishes, self._hears = free_ports(3)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/metrics"

    def start(self) -> None:
        settings = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "PYTHONPATH": str(self._package),
            "DYN_KVBM_METRICS": "true",
            "DYN_KVBM_METRICS_PORT": str(self.port),
            "DYN_KVBM_CPU_CACHE_GB": "0.01",
            "DYN_KVBM_LEADER_ZMQ_HOST": "127.0.0.1",
            "DYN_KVBM_LEADER_ZMQ_PUB_PORT": str(self._publishes),
            "DYN_KVBM_LEADER_ZMQ_ACK_PORT": str(self._hears),
        }
        with (self._folder / "kvbm.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _LEADER], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=settings
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=10)


@contextmanager
def kvbm(folder: Path) -> Iterator[Leader]:
    """The leader at work, and ended at last whatever happens."""
    leader = Leader(folder)
    leader.start()
    try:
        yield leader
    finally:
        leader.kill()
