"""Rank, world size and meeting place of a process that a launcher started, from its environment variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kvdeck.sessions.errors import UsageError

PORT = 29470
"""Port at which ranks meet if neither the launcher nor `--rendezvous` names one."""
SECRET_VARIABLE = "KVDECK_RENDEZVOUS_SECRET"
"""Variable with the secret that all ranks of a run share."""
SECRET_FILE_VARIABLE = "KVDECK_RENDEZVOUS_SECRET_FILE"
"""Variable with the path of a file of mode 0600 that holds the secret."""
ADDRESS_VARIABLE = "KVDECK_RENDEZVOUS"
"""Variable with `host:port` of rank 0, as `--rendezvous`."""
WORLD_VARIABLE = "KVDECK_WORLD_SIZE"
"""Variable with the number of ranks, which an indexed Job doesn't tell its pods."""
TOKEN_VARIABLE = "KVDECK_RUN_TOKEN"
"""Variable with a text that only the ranks of this run share, such as a Job's UID."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What a launcher told one rank."""

    launcher: str
    rank: int
    world: int
    local_rank: int | None = None
    """Rank among those on the same host, if known."""
    host: str | None = None
    """Host name or address of rank 0, if known."""
    port: int = PORT
    token: str | None = None
    """Text that only the ranks of this run share, if known."""

    def __str__(self) -> str:
        return f"{self.launcher}: rank {self.rank} of {self.world}"


@dataclass(frozen=True, slots=True)
class _Launcher:
    """How one launcher names its ranks."""

    name: str
    title: str
    needed: tuple[str, ...]
    """Variables without which the rank isn't known: first the rank, then the world size."""
    read: Callable[[Mapping[str, str], str, str], Placement]
    """Reads the placement, from the environment and the names of the variables of rank and world size."""
    traces: tuple[str, ...] = ()
    """Variables that are also set around the launcher, such as in a shell inside an allocation."""


def _slurm(environment: Mapping[str, str], rank: str, world: str) -> Placement:
    """Read a step of srun. `SLURM_LAUNCH_NODE_IPADDR` is srun's own host, which may be a login node."""
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or ""
    step = environment.get("SLURM_STEP_ID")
    alone = environment.get("SLURM_STEP_NUM_NODES") == "1"
    return Placement(
        "slurm",
        _number(environment, rank),
        _number(environment, world),
        _optional(environment, "SLURM_LOCALID"),
        "127.0.0.1" if alone else first_node(nodes) or None,
        token=f"{environment['SLURM_JOB_ID']}.{step}" if step and environment.get("SLURM_JOB_ID") else None,
    )


def _mpi(local_rank: str, local_size: str) -> Callable[[Mapping[str, str], str, str], Placement]:
    """Return a reader of one MPI's variables: `local_rank` and `local_size` are its names for those of a host."""

    def read(environment: Mapping[str, str], rank: str, world: str) -> Placement:
        alone = environment.get(local_size) == environment[world]
        return Placement(
            "mpi",
            _number(environment, rank),
            _number(environment, world),
            _optional(environment, local_rank),
            "127.0.0.1" if alone else None,
            token=environment.get("PMIX_NAMESPACE") or None,
        )

    return read


def _torch(environment: Mapping[str, str], rank: str, world: str) -> Placement:
    port = _optional(environment, "MASTER_PORT")
    run = environment.get("TORCHELASTIC_RUN_ID")
    # torchrun's own store listens at MASTER_PORT.
    port = PORT if port is None else port + 1 if run is not None else port
    return Placement(
        "torch",
        _number(environment, rank),
        _number(environment, world),
        _optional(environment, "LOCAL_RANK"),
        environment.get("MASTER_ADDR") or None,
        port,
        None if run in (None, "", "none") else run,
    )


def _indexed_job(environment: Mapping[str, str], rank: str, world: str) -> Placement:
    return Placement("k8s", _number(environment, rank), _number(environment, world))


def _leader_worker_set(environment: Mapping[str, str], rank: str, world: str) -> Placement:
    return Placement(
        "lws",
        _number(environment, rank),
        _number(environment, world),
        host=environment.get("LWS_LEADER_ADDRESS") or None,
    )


_LAUNCHERS = (
    _Launcher("torch", "torchrun", ("RANK", "WORLD_SIZE"), _torch),
    _Launcher(
        "mpi",
        "mpirun",
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
        _mpi("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ),
    _Launcher("mpi", "mpiexec", ("PMI_RANK", "PMI_SIZE"), _mpi("MPI_LOCALRANKID", "MPI_LOCALNRANKS")),
    _Launcher("slurm", "srun", ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"), _slurm, ("SLURM_JOB_ID",)),
    _Launcher("lws", "LeaderWorkerSet", ("LWS_WORKER_INDEX", "LWS_GROUP_SIZE"), _leader_worker_set),
    _Launcher("k8s", "an indexed Job", ("JOB_COMPLETION_INDEX", WORLD_VARIABLE), _indexed_job),
)
"""In order of detection, inner launchers first: torchrun and mpirun start their ranks inside a step of srun."""
LAUNCHERS = ("auto", *sorted({launcher.name for launcher in _LAUNCHERS}))


def placement_of(environment: Mapping[str, str], name: str) -> Placement:
    """Return the placement of this process by the launcher `name`, or by the first complete one if it is `auto`.

    Raises:
        UsageError: Variables are missing or invalid; the message names them.
    """
    asked = [launcher for launcher in _LAUNCHERS if name in ("auto", launcher.name)]
    complete = [launcher for launcher in asked if all(environment.get(key) for key in launcher.needed)]
    if not complete:
        if name == "auto":
            raise UsageError(
                "no launcher has set the variables of a rank",
                "start it with srun, mpirun, torchrun or an indexed Job, or omit --launcher",
            )
        missing = [[key for key in launcher.needed if not environment.get(key)] for launcher in asked]
        titles = " or ".join(launcher.title for launcher in asked)
        raise UsageError(
            f"{' or '.join(' and '.join(keys) for keys in missing)} not set, so this is not a rank of {titles}",
            f"start it with {titles}, or omit --launcher",
        )
    found = complete[0].read(environment, *complete[0].needed[:2])
    if not 0 <= found.rank < found.world:
        raise UsageError(
            f"{complete[0].needed[0]}={found.rank} is not below {complete[0].needed[1]}={found.world}",
            "ranks begin at 0",
        )
    return _overridden(found, environment)


def _overridden(found: Placement, environment: Mapping[str, str]) -> Placement:
    """Return a placement with kvdeck's own variables for the meeting place and the run token."""
    host, port = found.host, found.port
    if environment.get(ADDRESS_VARIABLE):
        host, port = parse_address(environment[ADDRESS_VARIABLE], ADDRESS_VARIABLE)
    token = environment.get(TOKEN_VARIABLE) or found.token
    return Placement(found.launcher, found.rank, found.world, found.local_rank, host, port, token)


def traces_of(environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the variables of launchers that are set, by launcher; a shell inside an allocation has some too."""
    found: dict[str, tuple[str, ...]] = {}
    for launcher in _LAUNCHERS:
        names = tuple(name for name in (*launcher.needed, *launcher.traces) if environment.get(name))
        if launcher.needed[0] in names or set(launcher.traces) & set(names):
            found.setdefault(launcher.name, names)
    return found


def parse_address(text: str, where: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[IPv6 address]:port`.

    Raises:
        UsageError: It is neither; the message says `where` it was given.
    """
    found = re.fullmatch(r"(?:tcp://)?(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+):([0-9]{1,5})", text.strip())
    if found is None or not 0 < int(found[2]) < 65536:
        raise UsageError(f"{where}: {text!r} is not host:port", f"write it like node1:{PORT}")
    return found[1].strip("[]"), int(found[2])


def first_node(nodes: str) -> str:
    """Return the first host of a Slurm node list, such as `gpu[007-010,012],login1`; empty for an empty list."""
    found = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    assert found is not None
    prefix, number, suffix = found.groups()
    return f"{prefix}{number or ''}{suffix or ''}"


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not re.fullmatch(r"[0-9]{1,7}", text):
        raise UsageError(f"{name}={text!r} is not a whole number", "unset it, or omit --launcher")
    return int(text)


def _optional(environment: Mapping[str, str], name: str) -> int | None:
    return _number(environment, name) if environment.get(name) else None
