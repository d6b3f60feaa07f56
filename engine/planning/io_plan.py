"""Plans and I/O sizes for a model and a KVBench configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kvdeck.engine.planning import kvbench
from kvdeck.engine.planning.kvbench import ModelConfig
from kvdeck.engine.planning.models import Architecture
from kvdeck.engine.planning.parallelism import Parallelism
from kvdeck.engine.planning.plan import Plan, Work, make_plan
from kvdeck.engine.planning.precision import parse_precision
from kvdeck.sessions.errors import UsageError


@dataclass(frozen=True, slots=True)
class Ios:
    """I/O size and batch; an I/O is a rank's block, or one layer of it."""

    size: int
    """Bytes per I/O."""
    batch: int
    """I/Os that transfer the whole model's KV of all requests once."""


def with_precision(model: Architecture, config: ModelConfig) -> ModelConfig:
    """Return the configuration with the KV precision of the model's files, if it has none of its own.

    Raises:
        UsageError: The model's files name a type that is unknown.
    """
    if config.precision_source or not model.precision_source:
        return config
    if not model.precision:
        raise UsageError(f"{model.name}: {model.precision_source}", "give the KV cache's type with --precision")
    return replace(config, kvcache_quant_mode=model.precision, precision_source=model.precision_source)


def precision_text(model: Architecture, config: ModelConfig, compat: bool = False) -> str:
    """Return the KV precision and where it comes from: `bf16 (torch_dtype)`.

    Raises:
        UsageError: The model's files name a type that is unknown.
    """
    if compat:
        of_weights = not model.latent
        name = config.model_quant_mode if of_weights else config.kvcache_quant_mode
        return f"{name} ({'type of the weights, as ' if of_weights else ''}KVBench has it)"
    found = with_precision(model, config)
    source = found.precision_source or "KVBench's default; --precision gives another"
    return f"{parse_precision(found.kvcache_quant_mode).name} ({source})"


def plan_of(model: Architecture, config: ModelConfig) -> Plan:
    """Return the plan of a configuration.

    Raises:
        UsageError: A value is invalid or doesn't fit the model; the message names it.
    """
    config = with_precision(model, config)
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
