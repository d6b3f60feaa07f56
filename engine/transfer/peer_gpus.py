"""GPUs at both ends of a path between hosts: whether each host has one, and which of them is next to the fabric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kvdeck.engine.host.facts import Gpu
from kvdeck.engine.host.nics import Nic
from kvdeck.engine.io import capability, plugins
from kvdeck.engine.ranks.peer import PeerHost
from kvdeck.engine.transfer.trials import Room, Trial
from kvdeck.sessions.errors import UnavailableError


def check_path(trial: Trial, room: Room, folder: Path) -> None:
    """Return if the trial's path can run, with a peer on all hosts.

    Raises:
        UnavailableError: It can't; with a peer, every host that lacks something is named with its reason.
    """
    own: UnavailableError | None = None
    try:
        capability.check(trial.path, trial.backend, folder, api=trial.api)
    except UnavailableError as error:
        own = error
    if not room.peers or not plugins.uses_device(trial.path):
        if own is not None:
            raise own
        return
    missing = {room.host.hostname: own.what} if own is not None else {}
    for peer in room.peers:
        if why := peer_reason(peer.greeting):
            missing[peer.label] = why
    if missing:
        said = "; ".join(f"{host}: {why}" for host, why in missing.items())
        raise UnavailableError(
            f"{trial.path} needs a GPU on every host ({said})",
            "give --path HostToHost, or see `kvdeck doctor` on each host named",
        )


def peer_reason(greeting: Mapping[str, Any]) -> str | None:
    """Return why a peer can't give GPU memory, from its greeting; None if it can."""
    gpu = greeting.get("gpu")
    if not isinstance(gpu, Mapping):
        return "it does not say whether it has a GPU"
    return gpu.get("reason") or (None if gpu.get("gpus") else "no GPU")


def nearest_gpu(gpus: Sequence[Gpu], nics: Sequence[Nic]) -> int:
    """Return the index of the GPU to use: the first on the NUMA node of the fastest interface, RDMA first.

    Where the nodes aren't known, or no GPU is on that node, the first.
    """
    able = [nic for nic in nics if nic.up and nic.numa_node is not None]
    best = max(able, key=lambda nic: (nic.rdma, nic.bits_per_s or 0.0), default=None)
    near = [gpu.index for gpu in gpus if best is not None and gpu.numa_node == best.numa_node]
    return (near or [gpu.index for gpu in gpus] or [0])[0]


def gpu_of(peer: PeerHost) -> int:
    """Return the index of the GPU that a peer's targets use."""
    said = peer.greeting["gpu"]
    return nearest_gpu([Gpu(**gpu) for gpu in said["gpus"]], [Nic(**nic) for nic in peer.greeting["nics"]])
