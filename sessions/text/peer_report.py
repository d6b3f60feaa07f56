"""What reports say of a run between hosts: the other hosts, the transport, and what the link carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.sessions.model.peers import peer_name
from kvdeck.sessions.model.records import StepResult
from kvdeck.sessions.units import figure, many, percent_text


def peer_facts(peer: Mapping[str, Any]) -> list[str]:
    """Return what a report's head says of another host."""
    facts = peer.get("host")
    host: Mapping[str, Any] = facts if isinstance(facts, Mapping) else {}
    name = peer_name(peer)
    said = [f"with {name}" if name == peer.get("peer") else f"with {name} ({peer.get('peer')})"]
    said += [str(host["cpu"])] if host.get("cpu") else []
    said += [many(host["cores"], "core")] if isinstance(host.get("cores"), int) else []
    versions = (("NIXL", peer.get("nixl")), ("UCX", peer.get("ucx")), ("kvdeck", peer.get("kvdeck")))
    return said + [f"{program} {version}" for program, version in versions if version]


def peer_text(link: Mapping[str, Any]) -> str:
    """Return where a step's bytes went, and how: `with hostB over tcp/eth1`."""
    names = link.get("hostnames")
    over = f" over {link['transport']}" if link.get("transport") else ""
    return f"with {', '.join(map(str, names)) if isinstance(names, list) and names else 'another host'}{over}"


def link_text(result: StepResult, link: Mapping[str, Any]) -> str:
    """Return a step's rate in Gb/s, its part of the link's bound, and the part of its bytes that went over the NICs."""
    rate, bound, carried = result.gb_per_s, link.get("bound_gb_per_s"), link.get("carried_part")
    facts = [f"{figure(rate.median * 8)} Gb/s"] if rate is not None else []
    if rate is not None and isinstance(bound, (int, float)) and bound > 0:
        facts.append(f"{percent_text(rate.median / bound)} of the link ({link.get('bound')})")
    else:
        facts.append(f"no bound: {link.get('bound') or 'unknown'}")
    known = isinstance(carried, (int, float))
    facts.append(f"the NICs carried {percent_text(carried)} of the bytes" if known else "no NIC counters")
    return ", ".join(facts)
