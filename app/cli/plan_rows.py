"""The JSON and CSV rows and the extra text lines that `plan` and `kvcache` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvdeck.app.cli.plan_options import Asked

if TYPE_CHECKING:
    from kvdeck.engine.planning.io_plan import Ios
    from kvdeck.engine.planning.kvbench import ModelConfig
    from kvdeck.engine.planning.models import Architecture


def kvcache_row(model: Architecture, asked: Asked, found: Ios, compat: bool) -> dict[str, Any]:
    """Return a configuration's row: KVBench's columns, followed by kvdeck's unless `compat`. Sizes are in bytes."""
    from kvdeck.engine.planning.io_plan import plan_of
    from kvdeck.engine.planning.kvbench import kv_bytes

    config = asked.config
    row = {
        "model": model.name,
        "isl": config.isl,
        "num_requests": config.num_requests,
        "batch_size": found.batch,
        "io_size": found.size,
        "tp": config.tp_size,
        "pp": config.pp_size,
        "page_size": config.page_size,
        "access": config.access,
        "config_file": asked.file,
    }
    if compat:
        return {**row, "kv_bytes_per_token": kv_bytes(model, config)}
    plan = plan_of(model, config)
    gpu, whole = plan.per_gpu(), plan.in_all()
    return {
        **row,
        "kv_bytes_per_token": plan.token_bytes,
        "kv_bytes_per_request": plan.request_bytes,
        "kv_bytes": plan.total_bytes,
        "block_bytes": plan.group.block_bytes,
        "region_bytes": plan.group.region_bytes,
        "regions_per_block": plan.group.regions,
        "stage_layers": [stage.layers for stage in plan.stages()],
        "stage_rule": plan.remainder(),
        "stage_request_bytes": [stage.request_bytes() for stage in plan.stages()],
        "gpus": plan.parallel.gpus,
        "gpu_blocks": gpu.blocks,
        "gpu_regions": gpu.regions,
        "gpu_bytes": gpu.block_bytes,
        "all_blocks": whole.blocks,
        "all_regions": whole.regions,
        "all_bytes": whole.block_bytes,
        **state_row(model, config),
    }


def beside_lines(model: Architecture, config: ModelConfig) -> tuple[str, ...]:
    """Return lines on what the nixlbench command leaves out.

    These are recurrent states, and the layers of each stage if `pp_layers` or a `pp_rule` is set.
    """
    from kvdeck.engine.planning.io_plan import plan_of
    from kvdeck.engine.planning.kvbench import ModelConfig
    from kvdeck.sessions.units import exact_size_text, size_text

    plan = plan_of(model, config)
    lines = []
    if plan.state_bytes:
        lines.append(
            f"recurrent state, apart from the KV: {exact_size_text(plan.state_bytes)} per request, at most "
            f"{size_text(plan.gpu_state_bytes())} per GPU"
        )
    lines += [f"unknown state: {words}" for words in model.without_state()]
    asked = config.pp_layers or config.pp_rule != ModelConfig().pp_rule
    if asked and (rule := plan.remainder()):
        lines.append(f"layers per stage {','.join(str(stage.layers) for stage in plan.stages())} · {rule}")
    return tuple(lines)


def state_row(model: Architecture, config: ModelConfig) -> dict[str, Any]:
    """Return the columns (in bytes) for a hybrid model's recurrent states; {} for other models, to match KVBench."""
    from kvdeck.engine.planning.io_plan import plan_of

    if not model.state_bytes():
        return {}
    plan = plan_of(model, config)
    return {
        "state_bytes_per_request": plan.state_bytes,
        "state_bytes_per_layer": {kind.name: kind.state.bytes() for kind in model.kinds if kind.state},
        "gpu_state_bytes": plan.gpu_state_bytes(),
        "all_state_bytes": plan.all_state_bytes,
    }


def size_said(size: int) -> str:
    """Return bytes as KVBench prints them: 1024-based units, two decimals, ties to even."""
    value: float = size
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{round(value, 2)} {unit}"
        value /= 1024
    return f"{round(value, 2)} TB"
