"""How tensor, pipeline, data, context and expert parallelism divide a KV cache, exactly."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass

from kvdeck.engine.kv.models import Architecture, Part
from kvdeck.sessions.errors import UsageError


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Sizes of a deployment; `tp × pp × cp × dp` GPUs."""

    tp: int = 1
    """Ranks that share the KV heads; MLA's latent and heads that don't suffice are replicated."""
    pp: int = 1
    """Stages that share the layers; what doesn't divide goes to the first stages, one layer each."""
    dp: int = 1
    """Replicas that share the requests."""
    cp: int = 1
    """Ranks that share the pages of each sequence, in turn."""
    ep: int = 1
    """Ranks that share the experts; changes nothing in the KV cache."""

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.cp * self.dp


def check(parallel: Parallelism, model: Architecture) -> None:
    """Refuse a division that a serving engine would refuse.

    Raises:
        UsageError: A size is below 1, or doesn't divide what it must; the message names both.
    """
    for field in dataclasses.fields(parallel):
        if (size := getattr(parallel, field.name)) < 1:
            raise UsageError(f"{field.name.upper()} is {size}", "give a whole number above 0")
    if parallel.pp > model.layers:
        raise UsageError(
            f"PP {parallel.pp} is more than the {model.layers} layers of {model.name}", "give at most one stage a layer"
        )
    for heads in {part.heads for kind in model.kinds for part in kind.parts if part.split}:
        if max(heads, parallel.tp) % min(heads, parallel.tp):
            raise UsageError(f"TP {parallel.tp} doesn't divide the {heads} KV heads of {model.name}", _divisors(heads))
    if model.query_heads and model.query_heads % parallel.tp:
        raise UsageError(
            f"TP {parallel.tp} doesn't divide the {model.query_heads} query heads of {model.name}",
            _divisors(model.query_heads),
        )
    ranks = parallel.tp * parallel.dp * parallel.cp
    if ranks % parallel.ep:
        raise UsageError(
            f"EP {parallel.ep} doesn't divide the {ranks} ranks of a stage (TP × DP × CP)",
            "give a divisor of them",
        )


def _divisors(heads: int) -> str:
    return f"give one of {', '.join(str(n) for n in range(1, heads + 1) if heads % n == 0)}, or a multiple of {heads}"


def heads_on_rank(part: Part, tp: int) -> int:
    """Heads that each rank holds; at least one, so TP above the heads replicates them."""
    return max(1, part.heads // tp) if part.split else part.heads


def copies(part: Part, tp: int) -> int:
    """On how many ranks each head stands."""
    return max(1, tp // part.heads) if part.split else tp


def stage_bounds(layers: int, pp: int) -> tuple[tuple[int, int], ...]:
    """First layer of each stage and the one after its last; together every layer once."""
    least, more = divmod(layers, pp)
    starts = [stage * least + min(stage, more) for stage in range(pp + 1)]
    return tuple(itertools.pairwise(starts))


def share(count: int, ranks: int, rank: int = 0) -> int:
    """What a rank has of things dealt out in turn; rank 0 has the most."""
    return (count - rank + ranks - 1) // ranks
