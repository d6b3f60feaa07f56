"""A real etcd on the loopback, from Debian's etcd-server; tests that need it are skipped where it is missing."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvdeck.engine.ranks.etcd_gateway import EtcdAccess, EtcdGateway, etcd_access

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="etcd is not installed (Debian: etcd-server)")


class EtcdServer:
    """One etcd with its own data folder; started again it has the same data and address."""

    def __init__(self, folder: Path, *options: str, scheme: str = "http") -> None:
        self._folder, self._options, self._scheme = folder, options, scheme
        self._client, self._peer = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._client}"

    def access(self, environment: dict[str, str] | None = None) -> EtcdAccess:
        return etcd_access([self.endpoint], environment or {})

    def start(self, environment: dict[str, str] | None = None) -> None:
        """Start it, and wait until it answers."""
        peer = f"http://127.0.0.1:{self._peer}"
        argv = ["etcd", "--name", "e", "--data-dir", str(self._folder / "data"), "--logger", "zap",
                "--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", f"e={peer}", *self._options]  # fmt: skip
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        gateway = EtcdGateway(self.access(environment), 20.0)
        gateway.read("/")
        gateway.close()

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


@contextlib.contextmanager
def etcd_server(folder: Path, *options: str, scheme: str = "http") -> Iterator[EtcdServer]:
    server = EtcdServer(folder, *options, scheme=scheme)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
