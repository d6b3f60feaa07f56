"""Hosts made of namespaces (network, PID, IPC, host name), with a link between them and an sshd on the second."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

DEVICE = "eth1"
SECOND_DEVICE = "eth2"
"""Of `hostA`, if there is a third host."""
DEADLINE = 30.0
KVDECK = Path(sys.executable).parent / "kvdeck"
"""The command as the other host calls it: both hosts have one file system."""


@functools.cache
def reason_to_skip() -> str:
    """Return why no hosts can be made here; empty if they can."""
    for tool in ("ip", "tc", "unshare", "ssh", "ssh-keygen", "/usr/sbin/sshd"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed (apt-get install openssh-server iproute2)"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    name = f"kvdeck-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    _run("ip", "netns", "del", name)
    return ""


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=DEADLINE).stdout


@dataclass
class Host:
    """A namespace of the network, and how to start programs on it."""

    namespace: str
    name: str
    address: str
    alone: bool
    """True if it has PIDs and IPC of its own; otherwise it shares them with the machine."""
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def argv(self, *command: str) -> list[str]:
        """Return the command line that runs a command on this host; killing its process ends all that it started."""
        own = ("--pid", "--fork", "--kill-child", "--ipc", "--mount-proc") if self.alone else ()
        named = ("sh", "-c", f'hostname {self.name}; exec "$@"', "sh", *command)
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", *own, "--", *named]

    def popen(
        self,
        *command: str,
        env: dict[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stderr: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a command; `end` ends it."""
        process = subprocess.Popen(
            self.argv(*command),
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env={**os.environ, **(env or {})},
        )
        self.started.append(process)
        return process

    def run(self, *command: str, env: dict[str, str] | None = None,
            timeout: float = DEADLINE) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command to its end; the end of its PID namespace ends what it left."""
        return subprocess.run(self.argv(*command), capture_output=True, text=True, timeout=timeout, check=False,
                              stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})})  # fmt: skip

    def ip(self, *words: str) -> str:
        return _run("ip", "-n", self.namespace, *words)

    def carried(self) -> tuple[int, int]:
        """Return the bytes that the link has sent and received here."""
        stats = json.loads(self.ip("-s", "-j", "link", "show", DEVICE))[0]["stats64"]
        return stats["tx"]["bytes"], stats["rx"]["bytes"]

    def processes(self) -> list[int]:
        """Return the pids, outside, of all processes on this host, except its sshd and what holds the namespaces."""
        found = _run("ip", "netns", "pids", self.namespace).split()
        return [int(pid) for pid in found if _is_own(int(pid))]

    def end(self) -> None:
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait(DEADLINE)
        for pid in _run("ip", "netns", "pids", self.namespace).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _is_own(pid: int) -> bool:
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return bool(argv[0]) and not argv[0].endswith((b"sshd", b"unshare")) and b"sshd" not in argv[0]


@dataclass
class Pair:
    """Two hosts; from `a`, `ssh NAME` reaches `b` by the keys and the configuration in `folder`."""

    a: Host
    b: Host
    folder: Path
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables for kvdeck on `a`: a home and an engine of its own, and an `ssh` with the test's configuration."""
        return {
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
            "KVDECK_HOME": str(self.folder / "home"),
            "KVDECK_RUNTIME": str(self.folder / "run"),
        }

    def put_ssh_in_path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process's `ssh` be one that starts on `hostA`."""
        monkeypatch.setenv("PATH", f"{self.folder}/outside:{os.environ['PATH']}")

    def limit(self, rate: str) -> None:
        """Shape the link to a rate, such as `1gbit`, in both directions."""
        for host in (self.a, self.b):
            _shape(host, DEVICE, rate)

    def wait_for_link(self) -> None:
        for host in (self.a, self.b):  # asking makes the kernel's link watch catch up
            host.ip("link", "show", DEVICE)


def _shape(host: Host, device: str, rate: str) -> None:
    _run("ip", "netns", "exec", host.namespace, "tc", "qdisc", "replace", "dev", device, "root", "tbf",
         "rate", rate, "burst", "256kb", "latency", "50ms")  # fmt: skip


@contextlib.contextmanager
def third_host(pair: Pair, rate: str) -> Iterator[Host]:
    """Make `hostC`, on a link of its own to `hostA`'s second interface, with an sshd: `ssh hostc` reaches it."""
    c = Host(pair.b.namespace.replace("hB", "hC"), "hostC", pair.b.address.replace("10.", "10.1", 1), True)
    config = pair.folder / "ssh_config"
    before = config.read_text()
    try:
        _run("ip", "netns", "add", c.namespace)
        _run("ip", "link", "add", SECOND_DEVICE, "netns", pair.a.namespace, "type", "veth", "peer", "name", DEVICE,
             "netns", c.namespace)  # fmt: skip
        pair.a.ip("addr", "add", c.address.rsplit(".", 1)[0] + ".1/24", "dev", SECOND_DEVICE)
        c.ip("addr", "add", f"{c.address}/24", "dev", DEVICE)
        c.ip("link", "set", "lo", "up")
        for host, device in ((pair.a, SECOND_DEVICE), (c, DEVICE)):
            host.ip("link", "set", device, "up")
            _shape(host, device, rate)
        for host, device in ((pair.a, SECOND_DEVICE), (c, DEVICE)):
            host.ip("link", "show", device)
        _listen(pair.folder, c, pair.folder / "sshd-c.log")
        _write_host(config, "hostc", pair.folder, c.address, before)
        yield c
    finally:
        config.write_text(before)
        with contextlib.suppress(subprocess.CalledProcessError):
            c.end()
            _run("ip", "netns", "del", c.namespace)


@contextlib.contextmanager
def two_hosts(number: int = 0, *, alone: bool = True) -> Iterator[Pair]:
    """Make two hosts that share nothing but the file system, `hostA` and `hostB`, with an sshd on `hostB`.

    Args:
        number: Tells pairs of one process apart.
        alone: False: they share PIDs and IPC, as no two hosts do.
    """
    mark = f"{os.getpid()}-{number}"
    net = f"10.{79 + number}.{os.getpid() % 250}"
    a = Host(f"hA-{mark}", "hostA", f"{net}.1", alone)
    b = Host(f"hB-{mark}", "hostB", f"{net}.2", alone)
    folder = Path(tempfile.mkdtemp(prefix="kvdeck-hosts-"))
    try:
        for host in (a, b):
            _run("ip", "netns", "add", host.namespace)
        _run("ip", "link", "add", DEVICE, "netns", a.namespace, "type", "veth", "peer", "name", DEVICE, "netns",
             b.namespace)  # fmt: skip
        for host in (a, b):
            host.ip("addr", "add", f"{host.address}/24", "dev", DEVICE)
            host.ip("link", "set", "lo", "up")
            host.ip("link", "set", DEVICE, "up")
        pair = Pair(a, b, folder, folder / "sshd.log")
        pair.wait_for_link()
        pair.limit("2gbit")  # a veth says that it has 10 Gb/s and has more, which a run rightly calls suspect
        _start_sshd(pair)
        yield pair
    finally:
        for host in (a, b):
            with contextlib.suppress(subprocess.CalledProcessError):
                host.end()
                _run("ip", "netns", "del", host.namespace)
        shutil.rmtree(folder, ignore_errors=True)


def _start_sshd(pair: Pair) -> None:
    folder, address = pair.folder, pair.b.address
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("hostkey", "userkey"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    (folder / "authorized_keys").write_bytes((folder / "userkey.pub").read_bytes())
    write_ssh_config(folder, address)
    command = f'{shutil.which("ssh")} -F {folder}/ssh_config "$@"'
    for place, before in (("bin", ""), ("outside", f"ip netns exec {pair.a.namespace} ")):
        (folder / place).mkdir()
        ssh = folder / place / "ssh"
        ssh.write_text(f"#!/bin/sh\nexec {before}{command}\n")
        ssh.chmod(0o755)
    _listen(folder, pair.b, pair.log)


def _listen(folder: Path, host: Host, log: Path) -> None:
    """Start a host's sshd, and wait until it listens."""
    address = host.address
    public = (folder / "hostkey.pub").read_text().split()
    with (folder / "known_hosts").open("a") as known:
        known.write(f"{address} {public[0]} {public[1]}\n")
    config = folder / f"sshd_config-{host.name}"
    config.write_text(
        f"ListenAddress {address}\nPort 22\nHostKey {folder}/hostkey\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"StrictModes no\nPidFile {folder}/{host.name}.pid\nSetEnv PATH={KVDECK.parent}:{os.environ['PATH']}\n"
    )
    with log.open("wb") as stream:
        host.popen("/usr/sbin/sshd", "-D", "-e", "-f", str(config), stderr=stream.fileno())
    deadline = time.monotonic() + DEADLINE
    while b"Server listening" not in log.read_bytes():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)


def write_ssh_config(folder: Path, address: str, **changed: str) -> None:
    """Write the configuration for `ssh hostb`; `changed` are settings other than the working ones."""
    _write_host(folder / "ssh_config", "hostb", folder, address, **changed)


def _write_host(config: Path, name: str, folder: Path, address: str, before: str = "", **changed: str) -> None:
    settings = {
        "HostName": address,
        "User": "root",
        "IdentityFile": f"{folder}/userkey",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f"{folder}/known_hosts",
        "GlobalKnownHostsFile": "/dev/null",
        **changed,
    }
    lines = "".join(f"  {name} {value}\n" for name, value in settings.items())
    config.write_text(f"{before}Host {name}\n{lines}")
