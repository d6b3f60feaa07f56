"""Division of a KV cache by tensor, pipeline, data, context and expert parallelism.

Where PP doesn't divide the layers, engines assign the remaining ones by different rules: TensorRT-LLM to the first
stages (`Mapping.pp_layers`), vLLM to those before the last (`get_pp_indices`), SGLang to the last (its
`get_pp_indices`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from kvdeck.engine.planning.models import Architecture, Part
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import many

PP_RULES = {
    "trtllm": "TensorRT-LLM's rule: the first stages get one layer more",
    "vllm": "vLLM's rule: the stages before the last get one layer more",
    "sglang": "SGLang's rule: the last stages get one layer more",
}
"""Description of each PP rule."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Parallel sizes of a deployment with `tp × pp × cp × dp` GPUs."""

    tp: int = 1
    """Ranks that split the KV heads; MLA's latent, and heads fewer than the ranks, are replicated."""
    pp: int = 1
    """Stages that split the layers."""
    dp: int = 1
    """Replicas that split the requests."""
    cp: int = 1
    """Ranks that split the pages of each sequence, round-robin."""
    ep: int = 1
    """Ranks that split the experts; does not affect the KV cache."""
    pp_rule: str = "trtllm"
    """Engine whose rule assigns the remaining layers if PP doesn't divide them; a key of `PP_RULES`."""
    pp_layers: tuple[int, ...] = ()
    """Layers of each stage, overriding the rule (vLLM's `VLLM_PP_LAYER_PARTITION`)."""

    @property
    def gpus(self) -> int:
        return self.tp * self.pp * self.cp * self.dp


def check(parallel: Parallelism, model: Architecture) -> None:
    """Check that serving engines accept this division.

    Raises:
        UsageError: A size is below 1 or doesn't divide the heads, layers or ranks; the message names both numbers.
    """
    for name in ("tp", "pp", "dp", "cp", "ep"):
        if (size := getattr(parallel, name)) < 1:
            raise UsageError(f"{name.upper()} is {size}", "give a whole number above 0")
    _check_stages(parallel, model)
    for kind in model.kinds:
        if kind.state is not None and parallel.tp > 1:
            kind.state.check(parallel.tp, model.name)
    for heads in {part.heads for part in model.parts() if part.split}:
        if max(heads, parallel.tp) % min(heads, parallel.tp):
            raise UsageError(
                f"TP {parallel.tp} doesn't divide the {heads} KV heads of {model.name}",
                f"give one of {_divisors(heads)}, or a multiple of {heads}",
            )
    if model.query_heads and model.query_heads % parallel.tp:
        raise UsageError(
            f"TP {parallel.tp} doesn't divide the {model.query_heads} query heads of {model.name}",
            f"give one of {_divisors(model.query_heads)}",
        )
    ranks = parallel.tp * parallel.dp * parallel.cp
    if ranks % parallel.ep:
        raise UsageError(
            f"EP {parallel.ep} doesn't divide the {ranks} ranks of a stage (TP × DP × CP)",
            "give a divisor of them",
        )


def _check_stages(parallel: Parallelism, model: Architecture) -> None:
    if parallel.pp > model.layers:
        raise UsageError(
            f"PP {parallel.pp} is more than the {many(model.layers, 'layer')} of {model.name}",
            "give at most one stage per layer",
        )
    if parallel.pp_rule not in PP_RULES:
        raise UsageError(f"PP rule {parallel.pp_rule!r} is unknown", f"use {', '.join(PP_RULES)}")
    given = parallel.pp_layers
    if not given:
        return
    said = ",".join(map(str, given))
    if len(given) != parallel.pp:
        raise UsageError(
            f"pp_layers {said} has {len(given)} stages, but PP is {parallel.pp}", "give one count per stage"
        )
    if min(given) < 0 or sum(given) != model.layers:
        raise UsageError(
            f"pp_layers {said} adds up to {sum(given)}, but {model.name} has {many(model.layers, 'layer')}",
            "correct the counts",
        )


def _divisors(heads: int) -> str:
    return ", ".join(str(n) for n in range(1, heads + 1) if heads % n == 0)


def heads_on_rank(part: Part, tp: int) -> int:
    """Return the heads per rank; at least one, so TP above the number of heads replicates them."""
    return max(1, part.heads // tp) if part.split else part.heads


def copies(part: Part, tp: int) -> int:
    """Return the number of ranks that hold the same head."""
    return max(1, tp // part.heads) if part.split else tp


def stage_bounds(
    layers: int, pp: int, rule: str = "trtllm", given: tuple[int, ...] = ()
) -> tuple[tuple[int, int], ...]:
    """Return the half-open layer range (first, end) of each stage.

    Args:
        layers: Number of layers of the model.
        pp: Number of stages.
        rule: Rule for remaining layers: `trtllm`, `vllm` or `sglang`.
        given: Layers of each stage, overriding the rule.
    """
    least, more = divmod(layers, pp)
    first = {"trtllm": 0, "vllm": pp - 1 - more, "sglang": pp - more}[rule]
    counts = given or [least + (first <= stage < first + more) for stage in range(pp)]
    return tuple(itertools.pairwise(itertools.accumulate(counts, initial=0)))


def share(count: int, ranks: int, rank: int = 0) -> int:
    """Return a rank's share of `count` items dealt round-robin; rank 0 has the most."""
    return (count - rank + ranks - 1) // ranks
