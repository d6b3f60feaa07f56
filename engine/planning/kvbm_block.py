"""Size of the block that KVBM's leader counts."""

from __future__ import annotations

from kvdeck.engine.planning.plan import Plan
from kvdeck.sessions.errors import UsageError


def leader_block_bytes(plan: Plan) -> int:
    """Return the bytes of one block over all ranks of a replica.

    KVBM's leader counts a block once, with the sum of its workers' bytes as its size (Dynamo's
    `block_manager/distributed/leader.rs`, whose comment calls this correct for TP and undecided for PP and DP).

    Raises:
        UsageError: The model has several kinds of layers, each with its own block.
    """
    stages = plan.stages()
    if any(len(stage.groups) != 1 for stage in stages):
        raise UsageError(
            f"{plan.model.name} has layers of several kinds, each with its own block size", "give the number of bytes"
        )
    return sum(stage.groups[0].block_bytes for stage in stages) * plan.parallel.tp
