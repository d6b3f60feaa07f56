"""From a model and KVBench's configuration to I/Os: their size, how many make the whole, and the plan behind them."""

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
    """One I/O is a block of a rank, or one layer of it; the batch is what moves the whole model's KV once."""

    size: int
    """Bytes."""
    batch: int


def plan_of(model: Architecture, config: ModelConfig) -> Plan:
    """The plan that a configuration asks for.

    Raises:
        UsageError: Something in it can't be; the message names it.
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
    """The I/Os of a configuration, exactly, or with `compat` as KVBench computes them.

    Raises:
        UsageError: Something in it can't be; the message names it.
    """
    if compat:
        size = kvbench.io_size(model, config)
        return Ios(size, kvbench.batch_size(model, config, size))
    plan = plan_of(model, config)
    size = plan.group.block_bytes if config.access == "block" else plan.group.layer_bytes
    return Ios(size, -(-plan.total_bytes // size))
