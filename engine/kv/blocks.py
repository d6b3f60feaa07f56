"""How many bytes a block of a served model has: what turns an engine's block counts into bytes."""

from __future__ import annotations

from kvdeck.engine.kv.parallel import Parallelism
from kvdeck.engine.kv.plan import Work, make_plan
from kvdeck.engine.kv.precision import parse_precision
from kvdeck.engine.kv.reading import find_model


def block_bytes(model: str, precision: str = "fp8", tp: int = 1, pp: int = 1, page_size: int = 16) -> int:
    """Bytes of one block on one rank: a page of tokens in all layers of one kind, on the stage with the most.

    Args:
        model: A name of the catalogue, a YAML file, or a `config.json`.
        precision: Of the KV cache.
        tp: Ranks that share the KV heads; MLA's latent is whole on each.
        pp: Stages that share the layers.
        page_size: Tokens in a block.

    Returns:
        The block of full attention, where the model mixes it with windows; their blocks differ.

    Raises:
        UsageError: There is no such model or precision, or it can't be split so.
    """
    plan = make_plan(find_model(model), parse_precision(precision), Parallelism(tp, pp), Work(page_size, 1, page_size))
    return plan.group.block_bytes
