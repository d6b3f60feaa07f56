"""Conversion of a plan to the Run form and to the deck's UI state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.app.tui.modes.run.form import Form
from kvdeck.engine.planning.parallelism import share
from kvdeck.engine.planning.plan import leader_block_bytes
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS

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


def onto(plan: PlanForm, form: Form) -> Form:
    """Return the Run form with a plan's path, layouts and block; batch: one request's blocks, working set: all
    requests'.

    Batch (counted twice) and working set are left for the worker to size if they exceed 1/ROOM of the available memory.
    A plain block size and sweeps are cleared, since they would override the block.

    Raises:
        UsageError: There is no valid plan.
    """
    spec, group = plan.to_spec(), plan.plan().group
    host = plan.doctor.host
    room = int(host.get("memory_available_bytes") or host.get("memory_bytes") or 0) // ROOM
    batch = share(group.blocks, plan.cp)
    blocks = batch * share(plan.requests, plan.dp)
    block = {name: spec[name] for name in ("layers", "outer_dims", "page_size", "inner_dim", "dtype")}
    return replace(form, unwanted=frozenset(PATHS) - {plan.path}, layouts=plan.layouts).but(
        **block,
        batch=batch if 2 * batch * group.block_bytes <= room else None,
        blocks=blocks if blocks * group.block_bytes <= room else None,
        block_size=None,
        sweep_block_sizes=None,
        sweep_batches=None,
    )
