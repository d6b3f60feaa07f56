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


def each_text(link: Mapping[str, Any]) -> list[str]:
    """Return what each of several peers had of a step: its rate, its transport, and what its NICs carried."""
    each = link.get("each")
    said = []
    for one in each if isinstance(each, list) else []:
        if not isinstance(one, Mapping):
            continue
        name, rate, carried = one.get("hostname") or one.get("host"), one.get("gb_per_s"), one.get("carried_part")
        facts = [f"{figure(rate)} GB/s, {figure(rate * 8)} Gb/s"] if isinstance(rate, (int, float)) else []
        facts += [f"over {one['transport']}"] if one.get("transport") else []
        known = isinstance(carried, (int, float))
        facts.append(f"its NICs carried {percent_text(carried)} of its bytes" if known else "no NIC counters")
        said.append(f"with {name}: {', '.join(facts)}")
    return said


def link_text(result: StepResult, link: Mapping[str, Any]) -> str:
    """Return a step's rate in Gb/s, its part of the link's bound, and the part of its bytes that went over the NICs."""
    rate, bound, carried = result.gb_per_s, link.get("bound_gb_per_s"), link.get("carried_part")
    facts = [f"{figure(rate.median * 8)} Gb/s"] if rate is not None else []
    if rate is not None and isinstance(bound, (int, float)) and bound > 0:
        facts.append(f"{percent_text(rate.median / bound)} of the link ({link.get('bound')})")
    else:
        facts.append(f"no bound: {link.get('bound') or 'unknown'}")
    if missing := result.settings.get("no_reference"):
        facts.append(f"no reference: {missing}")
    known = isinstance(carried, (int, float))
    facts.append(f"the NICs carried {percent_text(carried)} of the bytes" if known else "no NIC counters")
    return ", ".join(facts)
