"""What a session notes of a run between hosts: the other hosts in its facts, and the link in its results' settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.sessions.model.records import StepResult


def peers_of(host: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the other hosts of a session, from its facts; [] for a run on one host."""
    found = host.get("peers")
    return [peer for peer in found if isinstance(peer, Mapping)] if isinstance(found, list) else []


def host_names(host: Mapping[str, Any]) -> str:
    """Return the names of all hosts of a session, such as `hostA → hostB, hostC`; empty if unknown."""
    ends = str(host["hostname"]) if host.get("hostname") else "", ", ".join(map(peer_name, peers_of(host)))
    return " → ".join(filter(None, ends))


def peer_name(peer: Mapping[str, Any]) -> str:
    """Return another host's own name, or what the user called it."""
    facts = peer.get("host")
    return str((facts.get("hostname") if isinstance(facts, Mapping) else None) or peer.get("peer") or "another host")


def link_of(result: StepResult) -> Mapping[str, Any] | None:
    """Return what a step noted of its peers and the link to them; None for a step on one host."""
    link = result.settings.get("peer")
    return link if isinstance(link, Mapping) else None
