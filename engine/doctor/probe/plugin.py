"""Probe of one NIXL plugin: whether it loads, its parameters, and whether a backend can be created."""

from __future__ import annotations

import dataclasses

from kvdeck.engine.io import nixl, plugins, reasons
from kvdeck.engine.io.findings import PluginFinding
from kvdeck.sessions.errors import UnavailableError


def probe_plugin(backend: str, *, create: bool) -> PluginFinding:
    """Return a plugin's findings; without `create`, `creates` stays None, for the backend's own probe to set."""
    file = plugins.plugin_files().get(backend)
    found = PluginFinding(backend, present=file is not None, file=str(file) if file else None)
    if file is None:
        return found.refused(reasons.no_plugin(backend))
    try:
        nixl.require_plugin(backend)
        agent = nixl.make_agent(f"kvdeck-plugin-{backend}")
        params, kinds = nixl.plugin_parameters(agent, backend)
    except UnavailableError as error:
        return dataclasses.replace(found, loads=False).refused(error)
    found = dataclasses.replace(found, loads=True, params=params, memory_types=kinds)
    if not create:
        return found
    try:
        nixl.create_backend(agent, backend)
    except UnavailableError as error:
        return dataclasses.replace(found, creates=False).refused(error)
    return dataclasses.replace(found, creates=True)
