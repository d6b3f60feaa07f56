"""Plans and I/O sizes for a model and a KVBench configuration."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.engine.planning import kvbench
from kvdeck.engine.planning.kvbench import ModelConfig
from kvdeck.engine.planning.models import Architecture
from kvdeck.engine.planning.parallelism import Parallelism
from kvdeck.engine.planning.plan import Plan, Work, make_plan
from kvdeck.engine.planning.precision import parse_precision


@dataclass(frozen=True, slots=True)
class Ios:
    """I/O size and batch; an I/O is a rank's block, or one layer of it."""

    size: int
    """Bytes per I/O."""
    batch: int
    """I/Os that transfer the whole model's KV of all requests once."""


def plan_of(model: Architecture, config: ModelConfig) -> Plan:
    """Return the plan of a configuration.

    Raises:
        UsageError: A value is invalid or doesn't fit the model; the message names it.
    """
    return make_plan(
        model,
        parse_precision(config.kvcache_quant_mode),
        Parallelism(
            config.tp_size,
            config.pp_size,
            config.dp_size,
            config.cp_size,
            config.ep_size,
            config.pp_rule,
            config.pp_layers,
        ),
        Work(config.isl, config.num_requests, config.page_size, config.osl),
    )


def ios(model: Architecture, config: ModelConfig, compat: bool = False) -> Ios:
    """Return the I/Os of a configuration, exact, or with `compat` as KVBench computes them.

    Raises:
        UsageError: A value is invalid or doesn't fit the model; the message names it.
    """
    if compat:
        size = kvbench.io_size(model, config)
        return Ios(size, kvbench.batch_size(model, config, size))
    plan = plan_of(model, config)
    size = plan.group.block_bytes if config.access == "block" else plan.group.layer_bytes
    return Ios(size, -(-plan.total_bytes // size))
