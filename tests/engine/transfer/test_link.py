"""What the interfaces carried against what was sent, on hosts whose counters the test sets."""

from __future__ import annotations

from typing import Any

import pytest

from kvdeck.engine.host.nics import Carried, Nic
from kvdeck.engine.io.transports import transport_of
from kvdeck.engine.ranks.group import PeerLink
from kvdeck.engine.transfer import link
from kvdeck.engine.transfer.link import LinkWatch

MOVED = 1_000_000_000
ETH = {"name": "eth1", "rdma": False, "up": True, "state": "up", "bits_per_s": 10e9, "mtu": 1500, "numa_node": None}
IB = {**ETH, "name": "mlx5_0:1", "rdma": True, "bits_per_s": 400e9}


class CountedPeer:
    """A peer with counters that the test sets."""

    def __init__(self, *nics: dict[str, Any], label: str = "hostb") -> None:
        self.label, self.hostname = label, label.capitalize()
        self.greeting = {"nics": list(nics)}
        self.carried: dict[str, Carried] = {}

    def counters(self) -> dict[str, Carried]:
        return self.carried


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> dict[str, Carried]:
    """This host's counters."""
    counters: dict[str, Carried] = {}
    monkeypatch.setattr(link, "nic_counters", lambda: dict(counters))
    return counters


def use(here: dict[str, Carried], nics: list[dict[str, Any]], after: dict[str, tuple[Carried, Carried]],
        rate: float = 1.0, transport: str = "tcp/eth1", descriptors: int = 1000) -> link.LinkUse:  # fmt: skip
    """What a step used whose bytes changed the counters to these, of this host and of the peer, by interface."""
    peer = CountedPeer(*nics)
    watch = LinkWatch([peer], [Nic(**nic) for nic in nics], pushes=True)  # type: ignore[list-item]
    for counters in (here, peer.carried):
        counters |= {nic["name"]: Carried(5, 7) for nic in nics}
    watch.begin()
    here |= {name: ends[0] for name, ends in after.items()}
    peer.carried = {**peer.carried, **{name: ends[1] for name, ends in after.items()}}
    watch.end(0, MOVED, descriptors)
    return watch.use(0, rate, {"hostb": PeerLink(transport, 1.0, (0,))})


def both(sent: int) -> tuple[Carried, Carried]:
    return Carried(sent, 7), Carried(5, sent)


def test_bytes_over_the_link_leave_no_doubt(here: dict[str, Carried]) -> None:
    found = use(here, [ETH], {"eth1": both(MOVED + 10_000_000)})
    assert found.doubt is None
    assert found.part == pytest.approx(1.01)
    assert (found.bound_gb_per_s, found.bound) == (1.25, "eth1 10 Gb/s")


@pytest.mark.parametrize("sent", [3000, int(0.8 * MOVED), int(1.3 * MOVED), int(2 * MOVED)])
def test_other_bytes_do(here: dict[str, Carried], sent: int) -> None:
    found = use(here, [ETH], {"eth1": both(sent)}, transport="cma/memory within one host")
    assert (found.doubt or "").startswith("did not use the NIC: ")
    assert "UCX used cma/memory within one host" in (found.doubt or "")


def test_headers_of_small_pieces_are_no_doubt(here: dict[str, Carried]) -> None:
    assert use(here, [ETH], {"eth1": both(int(1.3 * MOVED))}, descriptors=MOVED // 512).doubt is None


def test_one_end_that_did_not_carry_them_is_enough(here: dict[str, Carried]) -> None:
    found = use(here, [ETH], {"eth1": (Carried(MOVED, 7), Carried(5, 9))})
    assert "0 %" in (found.doubt or "") or "<0.1 %" in (found.doubt or "")


def test_no_rate_is_above_the_link_s(here: dict[str, Carried]) -> None:
    found = use(here, [ETH], {"eth1": both(MOVED)}, rate=1.3)
    assert found.doubt == "1.30 GB/s is more than the link's rate of 1.25 GB/s (eth1 10 Gb/s)"


def of_two_peers(here: dict[str, Carried], b: int, c: int, rate: float = 0.5) -> tuple[link.LinkUse, dict[str, Any]]:
    """What a step used that sent half of its bytes to each of two peers, whose interfaces received `b` and `c`."""
    peers = [CountedPeer(ETH, label=label) for label in ("hostb", "hostc")]
    watch = LinkWatch(peers, [Nic(**ETH)], pushes=True)  # type: ignore[arg-type]
    for counters in (here, *(peer.carried for peer in peers)):
        counters["eth1"] = Carried(0, 0)
    watch.begin()
    here["eth1"] = Carried(b + c, 0)
    for peer, received in zip(peers, (b, c), strict=True):
        peer.carried = {"eth1": Carried(0, received)}
    watch.end(0, MOVED, 1000)
    links = {"hostb": PeerLink("tcp/eth1", 0.5, (0,)), "hostc": PeerLink("tcp/eth1", 0.5, (0,))}
    found = watch.use(0, rate, links)
    return found, link.to_settings(found, peers, links, rate, [])  # type: ignore[arg-type]


def test_each_of_several_peers_has_its_own_row(here: dict[str, Carried]) -> None:
    found, settings = of_two_peers(here, MOVED // 2, MOVED // 2)
    assert (found.doubt, found.bound_gb_per_s, found.bound) == (None, 1.25, "eth1 10 Gb/s")
    assert settings["each"] == [
        {"host": name, "hostname": name.capitalize(), "transport": "tcp/eth1", "share": 0.5, "gb_per_s": 0.25,
         "by_nic": {f"{name}/eth1": MOVED // 2}, "carried_part": 1.0}
        for name in ("hostb", "hostc")
    ]  # fmt: skip


def test_bytes_that_one_peer_had_for_the_other_are_a_doubt(here: dict[str, Carried]) -> None:
    found, _ = of_two_peers(here, MOVED, 0)
    assert "sent with hostb went over it" in (found.doubt or "")


def test_two_peers_behind_slower_interfaces_are_the_bound(here: dict[str, Carried]) -> None:
    peers = [CountedPeer({**ETH, "bits_per_s": 1e9}, label=label) for label in ("hostb", "hostc")]
    watch = LinkWatch(peers, [Nic(**ETH)], pushes=True)  # type: ignore[arg-type]
    here["eth1"] = peers[0].carried["eth1"] = peers[1].carried["eth1"] = Carried(0, 0)
    watch.begin()
    here["eth1"] = Carried(MOVED, 0)
    peers[0].carried = peers[1].carried = {"eth1": Carried(0, MOVED // 2)}
    watch.end(0, MOVED, 1000)
    found = watch.use(0, 0.2, {"hostb": PeerLink("tcp/eth1", 0.5, (0,)), "hostc": PeerLink("tcp/eth1", 0.5, (0,))})
    assert (found.bound_gb_per_s, found.bound) == (0.25, "hostb/eth1 1 Gb/s for 50 % of the bytes")


def test_ip_over_infiniband_counts_once(here: dict[str, Carried]) -> None:
    after = {"eth1": both(MOVED), "mlx5_0:1": both(MOVED)}
    by_ip = use(here, [ETH, IB], after)
    assert (by_ip.doubt, by_ip.bound) == (None, "eth1 10 Gb/s")
    by_rdma = use(here, [ETH, IB], after, transport="rc_mlx5/mlx5_0:1")
    assert (by_rdma.doubt, by_rdma.bound) == (None, "mlx5_0:1 400 Gb/s")


def test_a_fabric_that_was_not_taken_is_a_doubt(here: dict[str, Carried]) -> None:
    found = use(here, [ETH, IB], {"eth1": both(MOVED)}, transport="rc_mlx5/mlx5_0:1")
    assert "did not use the NIC" in (found.doubt or "")


def test_a_driver_without_a_rate_gives_no_bound(here: dict[str, Carried]) -> None:
    found = use(here, [{**ETH, "bits_per_s": None}], {"eth1": both(MOVED)}, rate=99.0)
    assert (found.doubt, found.bound_gb_per_s) == (None, None)
    assert "states no rate" in found.bound


def test_what_ucx_says_of_its_transports() -> None:
    own = "UCX  INFO    kvdeck-lane0-1 self cfg#0 rma_am(tcp/eth1)  am(tcp/eth1 cma/memory)  ka(tcp/eth1)\n"
    there = "UCX  INFO    a inter-node cfg#1 rma_am(tcp/eth1)  amo_am(tcp/eth1)  am(tcp/eth1)  ka(tcp/eth1)"
    assert transport_of(own + there) == "tcp/eth1"
    fabric = "UCX INFO a inter-node cfg#2 tag(rc_mlx5/mlx5_0:1) rma(rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1) am(ud/mlx5_0:1)"
    assert transport_of(fabric) == "rc_mlx5/mlx5_0:1 rc_mlx5/mlx5_1:1"
    near = "UCX INFO a intra-node cfg#1 rma(cma/memory) am(tcp/eth1)"
    assert transport_of(near) == "cma/memory within one host"
    assert transport_of(own) == ""
