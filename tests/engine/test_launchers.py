"""Ranks as launchers tell them, from environments as they are (srun 22.05, Open MPI 4.1, torchrun, Kubernetes)."""

from __future__ import annotations

import pytest

from kvdeck.engine.launchers import LAUNCHERS, Placement, first_node, parse_address, placement_of, traces_of
from kvdeck.sessions.errors import UsageError

SLURM = {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "17", "SLURM_STEP_ID": "2",
         "SLURM_STEP_NODELIST": "gpu[007-010,012]", "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.1"}  # fmt: skip
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
            "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "3370450945"}  # fmt: skip
HYDRA = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
TORCH = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "10.79.0.1", "MASTER_PORT": "29500"}
JOB = {"JOB_COMPLETION_INDEX": "1", "KVDECK_WORLD_SIZE": "2", "KVDECK_RENDEZVOUS": "kvdeck-0.kvdeck:29470",
       "KVDECK_RUN_TOKEN": "5d9c"}  # fmt: skip
LWS = {"LWS_WORKER_INDEX": "1", "LWS_GROUP_SIZE": "2", "LWS_LEADER_ADDRESS": "lws-0.lws.default"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        (SLURM, Placement("slurm", 1, 4, 1, "gpu007", token="17.2")),
        (SLURM | {"SLURM_STEP_NUM_NODES": "1"}, Placement("slurm", 1, 4, 1, "127.0.0.1", token="17.2")),
        (OPEN_MPI, Placement("mpi", 3, 4, 1, None, token="3370450945")),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, Placement("mpi", 3, 4, 1, "127.0.0.1", token="3370450945")),
        (HYDRA, Placement("mpi", 0, 2, 0, "127.0.0.1")),
        (TORCH, Placement("torch", 1, 2, 0, "10.79.0.1", 29500)),
        # torchrun's own store listens at MASTER_PORT, and its default run id is the same for all runs
        (TORCH | {"TORCHELASTIC_RUN_ID": "none"}, Placement("torch", 1, 2, 0, "10.79.0.1", 29501)),
        (TORCH | {"TORCHELASTIC_RUN_ID": "j7"}, Placement("torch", 1, 2, 0, "10.79.0.1", 29501, "j7")),
        (JOB, Placement("k8s", 1, 2, None, "kvdeck-0.kvdeck", 29470, "5d9c")),
        (LWS, Placement("lws", 1, 2, None, "lws-0.lws.default")),
    ],
)
def test_each_launcher_tells_its_ranks(environment: dict[str, str], found: Placement):
    assert placement_of(environment, "auto") == found
    assert placement_of(environment, found.launcher) == found


def test_the_inner_launcher_wins():
    """Both torchrun and mpirun start their ranks inside a step of srun, whose variables these inherit."""
    assert placement_of(SLURM | OPEN_MPI, "auto").launcher == "mpi"
    assert placement_of(SLURM | TORCH, "auto").launcher == "torch"
    assert placement_of(SLURM | TORCH, "slurm").rank == 1


@pytest.mark.parametrize(
    ("environment", "name", "words"),
    [
        ({}, "auto", "no launcher"),
        ({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "4"}, "slurm", "SLURM_PROCID and SLURM_STEP_ID not set"),
        ({"JOB_COMPLETION_INDEX": "0"}, "k8s", "KVDECK_WORLD_SIZE not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "torch", "RANK=2 is not below WORLD_SIZE=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "torch", "RANK='-1' is not a whole number"),
        ({"RANK": "0", "WORLD_SIZE": "zwei"}, "auto", "WORLD_SIZE='zwei'"),
        (TORCH | {"KVDECK_RENDEZVOUS": "node1"}, "torch", "KVDECK_RENDEZVOUS: 'node1' is not host:port"),
    ],
)
def test_what_is_missing_or_wrong_is_named(environment: dict[str, str], name: str, words: str):
    with pytest.raises(UsageError, match="fix: ") as raised:
        placement_of(environment, name)
    assert words in str(raised.value)


def test_a_shell_inside_an_allocation_has_variables_too():
    assert traces_of({"SLURM_JOB_ID": "3", "SLURM_NTASKS": "4"}) == {"slurm": ("SLURM_NTASKS", "SLURM_JOB_ID")}
    assert traces_of(TORCH) == {"torch": ("RANK", "WORLD_SIZE")}
    assert traces_of({"WORLD_SIZE": "1", "HOME": "/root"}) == {}
    assert traces_of({"JOB_COMPLETION_INDEX": "0"}) == {"k8s": ("JOB_COMPLETION_INDEX",)}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("", ""), ("n1", "n1"), ("n1,n2", "n1"), ("gpu[007-010,012]", "gpu007"), ("r[1-2]-ib0,x", "r1-ib0"),
     ("a[3,5]", "a3")],
)  # fmt: skip
def test_the_first_node_of_a_list(nodes: str, first: str):
    assert first_node(nodes) == first


@pytest.mark.parametrize(("text", "address"), [("n1:80", ("n1", 80)), ("[::1]:5", ("::1", 5)), ("tcp://n:6", ("n", 6))])
def test_addresses(text: str, address: tuple[str, int]):
    assert parse_address(text, "--rendezvous") == address


@pytest.mark.parametrize("text", ["n1", "n1:", ":80", "n1:0", "n1:65536", "::1:80", "u:p@n1:80", "n1:80/x", "n1:８０"])
def test_what_is_no_address(text: str):
    with pytest.raises(UsageError, match="--rendezvous"):
        parse_address(text, "--rendezvous")


def test_the_choice_of_launchers():
    assert LAUNCHERS == ("auto", "k8s", "lws", "mpi", "slurm", "torch")
