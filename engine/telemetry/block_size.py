"""Size of a KVBM block: given, computed from a plan, or derived from a source that counts bytes and blocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvdeck.engine.quantities import parse_count
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.user_home import expanded

if TYPE_CHECKING:
    from kvdeck.engine.telemetry.sample import Flow

PLAN = "plan:"
"""Prefix that selects a plan saved on the Plan screen."""


@dataclass(frozen=True, slots=True)
class BlockSize:
    """Bytes of one block over all ranks, and where the number comes from."""

    bytes: float
    claim: str


def told(text: str, plans: Path) -> BlockSize:
    """Return the block size that `--block-bytes` gives: bytes, `plan:NAME`, or the path of a plan's YAML file.

    Args:
        text: The option's value.
        plans: Folder of the saved plans.

    Raises:
        UsageError: The text is none of these, or the plan has no single block size.
    """
    if text.isascii() and text.isdigit() and text.strip("0"):
        return BlockSize(float(parse_count(text)), "as given with --block-bytes")
    if text.startswith(PLAN):
        name = text.removeprefix(PLAN)
        path = plans / f"{name}.yaml"
        if Path(name).name != name or not path.is_file():
            kept = ", ".join(sorted(found.stem for found in plans.glob("*.yaml"))) or "save a plan first (1, then s)"
            raise UsageError(f"unknown plan {name!r}", f"use a saved plan: {kept}")
        return of_plan(path)
    path = expanded(text)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return of_plan(path)
    raise UsageError(
        f"--block-bytes {text!r} is not a size", "give bytes, plan:NAME, or the path of a plan's YAML file"
    )


def of_plan(path: Path) -> BlockSize:
    """Return the block size of a saved plan: one page of tokens in all layers on all ranks of one replica.

    This is the block that KVBM's leader counts.

    Raises:
        UsageError: The plan can't be read or names no model, or its layers are of several kinds with different blocks.
    """
    from kvdeck.engine.planning.io_plan import plan_of
    from kvdeck.engine.planning.kvbench import model_config
    from kvdeck.engine.planning.model_files import find_model, read_yaml
    from kvdeck.engine.planning.plan import leader_block_bytes

    data = read_yaml(path)
    config, _ = model_config(data, str(path))
    if not data.get("model"):
        raise UsageError(f"{path} has no model", "save it on the Plan screen (s), or add `model: NAME`")
    model = find_model(str(data["model"]))
    size = leader_block_bytes(plan_of(model, config))
    ranks = config.tp_size * config.pp_size
    over = f" over {ranks} ranks" if ranks > 1 else ""
    return BlockSize(float(size), f"from the plan {path.stem}: {config.page_size} tokens of {model.name}{over}")


def learned(flows: Iterable[Flow]) -> BlockSize | None:
    """Return bytes / blocks of the flows for which one source counts both.

    Only idle flows are used: during a transfer one counter may be ahead of the other.

    Returns:
        None if no flow counts both, a ratio isn't a positive integer, or the flows disagree.
    """
    found: dict[float, str] = {}
    for flow in flows:
        moving = flow.bytes_per_s or flow.blocks_per_s
        if flow.bytes_total and flow.blocks_total and not moving and not flow.bytes_from_blocks:
            size = flow.bytes_total / flow.blocks_total
            if size < 1 or size != int(size):
                return None
            found.setdefault(size, f"derived from {flow.metric} and the blocks of {flow.name}")
    if len(found) != 1:
        return None
    ((size, claim),) = found.items()
    return BlockSize(size, claim)
