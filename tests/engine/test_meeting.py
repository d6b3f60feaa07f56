"""Where ranks meet, from options and a launcher's variables."""

from __future__ import annotations

from typing import Any

import pytest

from kvdeck.engine.launchers import PORT
from kvdeck.engine.meeting import Meeting, MeetingOptions, meeting_of
from kvdeck.sessions.errors import UsageError

TORCH = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "n1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "j"}
MPI = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
ETCD = ("http://e:2379",)


def test_a_launcher_s_ranks_meet_at_rank_0_or_where_it_is_said():
    launched = Meeting(4, 1, token="j", launcher="torch", address=("n1", 29501))
    assert meeting_of(MeetingOptions("auto"), TORCH) == launched
    elsewhere = meeting_of(MeetingOptions("torch", rendezvous="n7:5"), TORCH)
    assert elsewhere.address == ("n7", 5)
    over_etcd = meeting_of(MeetingOptions("torch", etcd_endpoints=ETCD, etcd_group="g"), TORCH)
    assert (over_etcd.address, over_etcd.endpoints, over_etcd.group, over_etcd.rank) == (None, ETCD, "g", 1)
    job = {"JOB_COMPLETION_INDEX": "0", "KVDECK_WORLD_SIZE": "2", "KVDECK_RENDEZVOUS": f"kv-0.kv:{PORT}"}
    assert meeting_of(MeetingOptions("k8s"), job).address == ("kv-0.kv", PORT)


def test_the_same_command_on_each_host_needs_no_launcher():
    by_arrival = meeting_of(MeetingOptions(etcd_endpoints=ETCD), TORCH)
    assert (by_arrival.world, by_arrival.rank, by_arrival.role, by_arrival.token) == (2, None, None, None)
    assert meeting_of(MeetingOptions(rendezvous="here:1"), TORCH).address == ("here", 1)
    assert meeting_of(MeetingOptions(etcd_endpoints=ETCD, role="target", ranks=3), {}).world == 3


@pytest.mark.parametrize(
    ("options", "environment", "words"),
    [
        ({"launcher": "torch", "role": "target"}, TORCH, "--role contradicts --launcher"),
        ({"launcher": "torch", "ranks": 2}, TORCH, "--ranks contradicts --launcher"),
        ({"launcher": "torch", "rendezvous": "here"}, TORCH, "'here' is not host:port"),
        ({"launcher": "torch"}, TORCH | {"RANK": "0", "WORLD_SIZE": "1"}, "at least 2"),
        ({"launcher": "mpi"}, MPI, "mpi doesn't say to its ranks where rank 0 is"),
        ({"launcher": "torch", "join_timeout": 0.0}, TORCH, "--join-timeout 0 is no time"),
        ({"rendezvous": "here:1", "ranks": 3}, {}, "add --launcher"),
        ({"rendezvous": "here:1", "etcd_endpoints": ETCD}, {}, "give only one of them"),
        ({"etcd_endpoints": ETCD, "ranks": 1}, {}, "at least 2"),
        ({"etcd_endpoints": ETCD, "etcd_group": "a/b"}, {}, "'a/b' is not a name"),
        ({"etcd_endpoints": ETCD, "etcd_namespace": ".."}, {}, "'..' is not a name"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], environment: dict[str, str], words: str):
    with pytest.raises(UsageError, match="fix: ") as raised:
        meeting_of(MeetingOptions(**options), environment)
    assert words in str(raised.value)
