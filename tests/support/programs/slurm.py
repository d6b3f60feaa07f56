"""A real Slurm of one node on the loopback, from Debian's slurm-wlm and munge, started as root for one test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.support.programs.etcd import free_port

_READY_S = 60.0
_CONF = """ClusterName=one
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CryptoType=crypto/munge
SlurmctldHost=localhost
SlurmctldPort={controller}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
ReturnToService=2
SelectType=select/cons_tres
JobAcctGatherType=jobacct_gather/none
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={node} CPUs={cpus} State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def reason_without_slurm() -> str:
    """Return why no Slurm can be started here; empty if it can."""
    for program in ("munged", "slurmctld", "slurmd", "srun", "sinfo"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "slurmctld and slurmd need root"


@contextlib.contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Start munge, controller and node; yield the environment for `srun` once the node is idle."""
    # Every folder above munge's socket must be executable for all, which the tests' own folder isn't.
    folder = Path(tempfile.mkdtemp(prefix="kvdeck-slurm-", dir="/tmp"))
    folder.chmod(0o711)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        (folder / "munge").mkdir()
        (folder / "munge").chmod(0o711)  # whatever umask another test left
        (folder / "private").mkdir(mode=0o700)
        (folder / "state").mkdir()
        key = folder / "private/key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        cpus = int(subprocess.run(["nproc", "--all"], capture_output=True, text=True, check=True).stdout)
        conf = folder / "slurm.conf"
        conf.write_text(_CONF.format(folder=folder, controller=free_port(), node=free_port(), cpus=cpus))
        environment = {"SLURM_CONF": str(conf)}
        munged = ["munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge/socket",
                  f"--pid-file={folder}/private/pid", f"--log-file={folder}/private/log",
                  f"--seed-file={folder}/private/seed"]  # fmt: skip
        for argv in (munged, ["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"]):
            with (folder / "out").open("ab") as out:
                processes.append(subprocess.Popen(argv, env={**os.environ, **environment}, stdout=out, stderr=out))
            if argv is munged:
                _until(folder, lambda: (folder / "munge/socket").exists())
        _until(folder, lambda: _states(environment) == {"idle"})
        yield environment
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _states(environment: dict[str, str]) -> set[str]:
    argv = ["sinfo", "-N", "-h", "-o", "%T"]
    return set(subprocess.run(argv, capture_output=True, text=True, env={**os.environ, **environment}).stdout.split())


def _until(folder: Path, true: Callable[[], bool]) -> None:
    end = time.monotonic() + _READY_S
    while not true():
        assert time.monotonic() < end, "".join(path.read_text() for path in (*folder.glob("*.log"), folder / "out"))
        time.sleep(0.05)
