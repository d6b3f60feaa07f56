"""What serving sends from a prefill worker to a decode worker: the KV that both hold, to the byte.

A rank holds layers by its pipeline stage, KV heads by its tensor rank, and pages of tokens by its context rank. A
decode rank gets each layer, head and token once, from one prefill rank that has it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvdeck.engine.planning.models import Architecture, Kind, Part
from kvdeck.engine.planning.parallelism import Parallelism, stage_bounds
from kvdeck.engine.planning.precision import Precision
from kvdeck.engine.traffic.deployment import Workers
from kvdeck.engine.traffic.matrix import Matrix

Place = tuple[int, int, int]
"""A rank within its worker: tensor, pipeline and context rank."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """A model's KV as two sides divide it."""

    model: Architecture
    precision: Precision
    prefill: Parallelism
    decode: Parallelism
    page_size: int = 16
    """Tokens of a page; pages are dealt to the context ranks in turn."""
    attention_dp: bool = False
    """True if each decode tensor rank holds the whole KV of its own requests (data-parallel attention)."""

    def sizes(self, lengths: Sequence[int]) -> Mapping[tuple[Place, Place], int]:
        """Return the bytes from each prefill place to each decode place, for the requests of a batch.

        Args:
            lengths: Input tokens of each request.
        """
        found: defaultdict[tuple[Place, Place], int] = defaultdict(int)
        heads = {part: tuple(self._heads(part)) for kind in self.model.kinds for part in kind.parts}
        for number, length in enumerate(lengths):
            for kind_index, kind in enumerate(self.model.kinds):
                tokens = self._tokens(kind, length)
                for source, target, layers in self._layers(kind_index):
                    for part in kind.parts:
                        for from_tp, to_tp, count in heads[part]:
                            if self.attention_dp and to_tp != number % self.decode.tp:
                                continue
                            each = layers * part.token_bytes(self.precision, count)
                            for (from_cp, to_cp), held in tokens.items():
                                if held:
                                    found[(from_tp, source, from_cp), (to_tp, target, to_cp)] += each * held
        return found

    def _layers(self, kind: int) -> Iterator[tuple[int, int, int]]:
        """Yield prefill stage, decode stage, and how many layers of a kind both hold."""
        bounds = [
            stage_bounds(self.model.layers, side.pp, side.pp_rule, side.pp_layers)
            for side in (self.prefill, self.decode)
        ]
        for source, (first, end) in enumerate(bounds[0]):
            for target, (begin, stop) in enumerate(bounds[1]):
                if count := self.model.order.count(kind, max(first, begin), max(max(first, begin), min(end, stop))):
                    yield source, target, count

    def _heads(self, part: Part) -> Iterator[tuple[int, int, int]]:
        """Yield prefill tensor rank, decode tensor rank, and how many heads the one sends the other."""
        holders: defaultdict[int, list[int]] = defaultdict(list)
        for rank in range(self.prefill.tp):
            for head in heads_of(part, self.prefill.tp, rank):
                holders[head].append(rank)
        for rank in range(self.decode.tp):
            sent: defaultdict[int, int] = defaultdict(int)
            own = range(part.heads) if self.attention_dp else heads_of(part, self.decode.tp, rank)
            for head in own:  # of several ranks with the same head, decode ranks take turns
                sent[holders[head][rank % len(holders[head])]] += 1
            yield from ((source, rank, count) for source, count in sorted(sent.items()))

    def _tokens(self, kind: Kind, length: int) -> dict[tuple[int, int], int]:
        """Return how many retained tokens of a request each pair of context ranks holds both."""
        first, kept = kind.kept(length)
        return shared_tokens(first, first + kept, self.page_size, self.prefill.cp, self.decode.cp)


def heads_of(part: Part, tp: int, rank: int) -> range:
    """Return the heads of a tensor rank: consecutive ones; the same one on several ranks if those are more."""
    if not part.split:
        return range(part.heads)
    if tp <= part.heads:
        each = part.heads // tp
        return range(rank * each, (rank + 1) * each)
    head = rank * part.heads // tp
    return range(head, head + 1)


def shared_tokens(first: int, end: int, page_size: int, one: int, other: int) -> dict[tuple[int, int], int]:
    """Return the tokens from `first` to `end` that rank i of `one` and rank j of `other` both hold.

    Pages are dealt to the ranks in turn; without arithmetic over single pages, as there are thousands.
    """
    turn = math.lcm(one, other)
    found: defaultdict[tuple[int, int], int] = defaultdict(int)
    if end <= first:
        return found
    start, stop = first // page_size, -(-end // page_size)
    for residue in range(turn):
        pages = (stop - residue + turn - 1) // turn - (start - residue + turn - 1) // turn
        found[residue % one, residue % other] += pages * page_size
    found[start % one, start % other] -= first - start * page_size
    found[(stop - 1) % one, (stop - 1) % other] -= stop * page_size - end
    return found


def batch_matrix(
    sizes: Mapping[tuple[Place, Place], int],
    prefill: Workers,
    decode: Workers,
    workers: tuple[int, int],
    order: Sequence[int],
) -> Matrix:
    """Return the matrix of one batch's bytes.

    Args:
        sizes: From `HandOver.sizes`.
        prefill: The prefill side.
        decode: The decode side.
        workers: The prefill worker that has the batch, and the decode worker that gets it.
        order: Place within its worker of each decode tensor rank.
    """
    ranks = prefill.ranks + decode.ranks
    rows = [[0] * ranks for _ in range(ranks)]
    for (source, target), size in sizes.items():
        rows[prefill.rank(workers[0], *source)][decode.rank(workers[1], order[target[0]], *target[1:])] += size
    return Matrix(tuple(map(tuple, rows)))


def compute_seconds(model: Architecture, lengths: Sequence[int], flops: float, ranks: int) -> float | None:
    """Return the time to prefill a batch: projections of all parameters, and causal attention of each request.

    A token costs 2 operations for each parameter; a query and a key of a head 2 for each dimension, and the same
    again for the value. None if the model's parameters or query heads are not known.

    Args:
        model: With its parameters: those active for a token, if there are experts.
        lengths: Input tokens of each request.
        flops: FLOP/s that one rank reaches.
        ranks: Ranks that share the work: tensor and context ranks.
    """
    if model.parameters is None or model.query_heads is None:
        return None
    operations = 2.0 * model.parameters * sum(lengths)
    for index, kind in enumerate(model.kinds):
        if kind.parts:
            pairs = sum(_attended(kind, length) for length in lengths)
            dims = kind.parts[0].dim + kind.parts[-1].dim if kind.parts[0].split else 2 * kind.parts[0].dim
            operations += 2.0 * model.order.count(index) * model.query_heads * dims * pairs
    return operations / (flops * ranks)


def _attended(kind: Kind, length: int) -> int:
    """Return the pairs of a query and a key that it may see."""
    if kind.window is None or length <= kind.window:
        return length * (length + 1) // 2
    if kind.chunked:
        whole, rest = divmod(length, kind.window)
        return whole * (kind.window * (kind.window + 1) // 2) + rest * (rest + 1) // 2
    return kind.window * (kind.window + 1) // 2 + (length - kind.window) * kind.window
