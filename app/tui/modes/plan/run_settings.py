"""A plan carried elsewhere: into the Run form, and into what the deck remembers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kvdeck.app.tui.modes.plan.form import PlanForm
from kvdeck.app.tui.modes.run.form import Form
from kvdeck.engine.planning.kvbm_block import leader_block_bytes
from kvdeck.engine.planning.parallelism import share
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.records import PATHS

ROOM = 8
"""Part of the memory, one in so many, that a working set may take before it is left to the worker."""


def kept(form: PlanForm) -> dict[str, Any]:
    """What the deck remembers: all that is saved, and the figures that other screens want; none where no plan is."""
    mapping = form.to_mapping()
    if form.problem():
        return mapping
    try:
        size = leader_block_bytes(form.plan())
    except UsageError:
        return mapping
    return {**mapping, "figures": {"block_bytes": size, "title": form.title}}


def onto(plan: PlanForm, form: Form) -> Form:
    """The Run form with a plan's path, layouts and block, a request's blocks as batch, and all of them as working set.

    Batch and working set are left to the worker where they would take more than their part of the memory; a plain
    block size and sweeps are taken out, for they would go over the block.
    """
    spec, group = plan.to_spec(), plan.plan().group
    host = plan.doctor.host
    room = int(host.get("memory_available_bytes") or host.get("memory_bytes") or 0) // ROOM
    batch = share(group.blocks, plan.cp)
    blocks = batch * share(plan.requests, plan.dp)
    return replace(
        form,
        unwanted=frozenset(PATHS) - {plan.path},
        layouts=plan.layouts,
        layers=spec["layers"],
        outer_dims=spec["outer_dims"],
        page_size=spec["page_size"],
        inner_dim=spec["inner_dim"],
        dtype=spec["dtype"],
        batch=batch if 2 * batch * group.block_bytes <= room else None,
        blocks=blocks if blocks * group.block_bytes <= room else None,
        block_size=None,
        sizes_from=None,
        sizes_to=None,
        batches_from=None,
        batches_to=None,
    )
