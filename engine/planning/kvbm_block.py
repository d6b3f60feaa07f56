"""The block that KVBM's leader counts: what turns its block counts into bytes."""

from __future__ import annotations

from kvdeck.engine.planning.plan import Plan
from kvdeck.sessions.errors import UsageError


def leader_block_bytes(plan: Plan) -> int:
    """Bytes of one block over all ranks of a replica.

    KVBM's leader counts a block once and takes the sum of its workers' bytes for its size (Dynamo's
    `block_manager/distributed/leader.rs`, which says that this is right for TP and open for PP and DP).

    Raises:
        UsageError: The model's layers are of several kinds, each with a block of its own.
    """
    stages = plan.stages()
    if any(len(stage.groups) != 1 for stage in stages):
        raise UsageError(
            f"{plan.model.name} has layers of several kinds, each with a block of its own", "give the number of bytes"
        )
    return sum(stage.groups[0].block_bytes for stage in stages) * plan.parallel.tp
