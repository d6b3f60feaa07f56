"""Conversion of a plan to the Run form and to the deck's UI state."""

from __future__ import annotations

from typing import Any

from kvdeck.app.tui.current_plan import BlockChoice
from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.engine.planning.parallelism import share
from kvdeck.engine.planning.plan import leader_block_bytes
from kvdeck.sessions.errors import UsageError

ROOM = 8
"""A working set over 1/ROOM of the available memory is left for the worker to size."""


def kept(form: PlanForm) -> dict[str, Any]:
    """Return the plan for the UI state, with the figures that other screens use; without them if there is no valid
    plan."""
    mapping = form.to_mapping()
    if form.problem():
        return mapping
    try:
        size = leader_block_bytes(form.plan())
    except UsageError:
        return mapping
    return {**mapping, "figures": {"block_bytes": size, "title": form.title}}


def block_choice(plan: PlanForm) -> BlockChoice:
    """Return the plan's block for the Run form; batch: one request's blocks, working set: all requests'.

    Either is left for the worker to size if it exceeds 1/ROOM of the available memory.

    Raises:
        UsageError: There is no valid plan.
    """
    spec, group = plan.to_spec(), plan.plan().group
    host = plan.doctor.host
    room = int(host.get("memory_available_bytes") or host.get("memory_bytes") or 0) // ROOM
    batch = share(group.blocks, plan.cp)
    blocks = batch * share(plan.requests, plan.dp)
    geometry = {name: spec[name] for name in ("layers", "outer_dims", "page_size", "inner_dim", "dtype")}
    return BlockChoice(
        plan.path,
        plan.layouts,
        **geometry,
        batch=batch if batch * group.block_bytes <= room else None,
        blocks=blocks if blocks * group.block_bytes <= room else None,
    )
