"""Facts of this host that decide what can run here and which measurements are comparable."""

from __future__ import annotations

from kvdeck.engine.host.facts import FolderFacts, Gpu, GpuFacts, HostFacts, InfiniBandPort
from kvdeck.engine.host.folder import folder_facts
from kvdeck.engine.host.machine import host_facts

__all__ = ["FolderFacts", "Gpu", "GpuFacts", "HostFacts", "InfiniBandPort", "folder_facts", "host_facts"]
