"""The plan: blocks, bytes and descriptors of a model, its parallelism and its requests, per GPU and in total.

A block is a page of tokens of all layers of one kind on one rank, as in serving engines: a model with full and sliding
attention has one block of each. FullyContiguous has one descriptor per block, LayerSeparate one per layer and outer
dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kvdeck.engine.planning.models import Architecture, Kind
from kvdeck.engine.planning.parallelism import PP_RULES, Parallelism, check, copies, heads_on_rank, share, stage_bounds
from kvdeck.engine.planning.precision import Precision
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.units import count_text

DIRECT_ALIGNMENTS = (4096, 512)
"""Size alignments that O_DIRECT requires, in bytes, the most common first."""


@dataclass(frozen=True, slots=True)
class Work:
    """The requests; `isl` and `osl` are KV tokens per request."""

    isl: int
    requests: int = 1
    page_size: int = 16
    osl: int = 0
    """Output tokens per request; they count for the memory needed, not for transfers."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind in one stage, on one rank; sizes in bytes."""

    kind: Kind
    layers: int
    part_bytes: tuple[int, ...]
    """Bytes per token of each outer dim of one layer on one rank."""
    page_size: int
    """Tokens per block, or entries of a cache that compresses several tokens into one."""
    tokens: int
    """Retained tokens (or entries) of a request of ISL tokens."""
    blocks: int
    """Blocks of a request of ISL tokens, over all context-parallel ranks."""

    @property
    def token_bytes(self) -> int:
        """Bytes per token in all layers of the group."""
        return self.layers * sum(self.part_bytes)

    @property
    def layer_bytes(self) -> int:
        """Bytes of one layer of a block, all outer dims: KVBench's I/O with layer access."""
        return sum(self.part_bytes) * self.page_size

    @property
    def block_bytes(self) -> int:
        """Bytes of a block: one descriptor in FullyContiguous."""
        return self.layers * self.layer_bytes

    @property
    def region_bytes(self) -> int:
        """Bytes of the smallest descriptor in LayerSeparate."""
        return min(self.part_bytes) * self.page_size

    @property
    def regions(self) -> int:
        """Descriptors per block in LayerSeparate."""
        return self.layers * len(self.part_bytes)

    def region_sizes(self) -> tuple[int, ...]:
        """Return the bytes of each region of a block."""
        return tuple(size * self.page_size for size in self.part_bytes) * self.layers


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage; all its ranks hold the same amount."""

    index: int
    first_layer: int
    layers: int
    groups: tuple[Group, ...]
    state_bytes: int = 0
    """Bytes of recurrent states per request and tensor-parallel rank, independent of the request's length."""

    def request_bytes(self) -> int:
        """Return the retained KV bytes per request on one tensor-parallel rank."""
        return sum(group.token_bytes * group.tokens for group in self.groups)

    def blocks(self) -> int:
        """Return the blocks per request over all context-parallel ranks."""
        return sum(group.blocks for group in self.groups)

    def block_bytes(self) -> int:
        """Return the bytes of those blocks, with the last pages counted in full."""
        return sum(group.blocks * group.block_bytes for group in self.groups)

    def regions(self) -> int:
        """Return the descriptors of those blocks in LayerSeparate."""
        return sum(group.blocks * group.regions for group in self.groups)


@dataclass(frozen=True, slots=True)
class Load:
    """Blocks, descriptors and bytes that are stored or transferred."""

    blocks: int
    regions: int
    """Descriptors in LayerSeparate; FullyContiguous has one per block."""
    block_bytes: int
    """Bytes transferred in either layout, with the last pages counted in full."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A computed plan; `stage` is the stage with the most bytes, which limits memory and speed."""

    model: Architecture
    precision: Precision
    parallel: Parallelism
    work: Work
    stage: Stage

    @property
    def group(self) -> Group:
        """The stage's group with the largest block, full attention first; its block is "the block" of the plan."""
        return max(self.stage.groups, key=lambda group: (group.kind.window is None, group.block_bytes))

    @property
    def token_bytes(self) -> int:
        """KV bytes per token, whole model, without replicas."""
        return self.model.token_bytes(self.precision)

    @property
    def request_bytes(self) -> int:
        """KV bytes per request of ISL tokens, whole model, without replicas."""
        return self.model.request_bytes(self.precision, self.work.isl)

    @property
    def total_bytes(self) -> int:
        """KV bytes of all requests, whole model, without replicas."""
        return self.request_bytes * self.work.requests

    @property
    def state_bytes(self) -> int:
        """Bytes of recurrent states per request, whole model, without replicas; not part of the KV or its blocks."""
        return self.model.state_bytes()

    @property
    def all_state_bytes(self) -> int:
        """Bytes of recurrent states of all requests on all GPUs, with replicas."""
        held = sum(stage.state_bytes for stage in self.stages())
        return held * self.parallel.tp * self.parallel.cp * self.work.requests

    def gpu_state_bytes(self, stage: Stage | None = None) -> int:
        """Return the bytes of recurrent states on one GPU (the largest) of a stage, by default of the largest stage."""
        most = stage.state_bytes if stage else max(one.state_bytes for one in self.stages())
        return most * share(self.work.requests, self.parallel.dp)

    def room_bytes(self) -> int:
        """Return the bytes of KV and recurrent states on one GPU (the largest) with all OSL tokens of all requests."""
        end = self.at_the_end()
        return max(end.per_gpu(stage).block_bytes + end.gpu_state_bytes(stage) for stage in end.stages())

    def remainder(self) -> str:
        """Return the rule that gave some stages more layers, as text; empty if PP divides the layers."""
        if self.parallel.pp_layers:
            return "given"
        return PP_RULES[self.parallel.pp_rule] if self.model.layers % self.parallel.pp else ""

    def stages(self) -> tuple[Stage, ...]:
        """Return all stages in order."""
        return tuple(
            _stage(self.model, self.precision, self.parallel, self.work, index, bounds)
            for index, bounds in enumerate(_bounds(self.model, self.parallel))
        )

    def per_gpu(self, stage: Stage | None = None) -> Load:
        """Return the KV load after the prompts on one GPU (the largest) of a stage, by default of the largest stage."""
        requests, cp = share(self.work.requests, self.parallel.dp), self.parallel.cp
        held = [(share(group.blocks, cp) * requests, group) for group in (stage or self.stage).groups]
        return Load(
            sum(blocks for blocks, _ in held),
            sum(blocks * group.regions for blocks, group in held),
            sum(blocks * group.block_bytes for blocks, group in held),
        )

    def in_all(self) -> Load:
        """Return the KV load of all GPUs together, with replicas."""
        stages, ranks = self.stages(), self.parallel.tp * self.work.requests
        return Load(
            sum(stage.blocks() for stage in stages) * ranks,
            sum(stage.regions() for stage in stages) * ranks,
            sum(stage.block_bytes() for stage in stages) * ranks,
        )

    def at_the_end(self) -> Plan:
        """Return the plan for requests of ISL + OSL tokens: the memory needed."""
        return make_plan(self.model, self.precision, self.parallel, dataclasses.replace(
            self.work, isl=self.work.isl + self.work.osl, osl=0))  # fmt: skip

    def replication(self) -> str:
        """Return the reason for replicas on TP ranks, as text; empty if there are none."""
        most = max((copies(part, self.parallel.tp) for part in self.model.parts()), default=1)
        if most == 1:
            return ""
        why = "MLA's latent isn't split" if self.model.latent else "fewer KV heads than ranks"
        return f"each of {most} TP ranks has the same copy: {why}"

    def notes(self) -> tuple[str, ...]:
        """Return what was assumed, and what isn't to be seen in the figures, one line each."""
        return tuple(line for line in (*self.model.notes, self.packing(), self.replication()) if line)

    def packing(self) -> str:
        """Return which layout of an MLA latent in fp8 is counted, as text; empty if there is one only."""
        part = next((part for part in self.model.parts() if part.packed_bytes), None)
        sparse = self.model.compressed or any(part.fixed_bytes for part in self.model.parts())
        if part is None or not sparse or self.precision.name != "fp8":
            return ""
        return (
            f"{part.token_bytes(self.precision)} B per layer and token, flat; vLLM's fp8_ds_mla packs it in "
            f"{count_text(part.packed_bytes)} B: --precision fp8_ds_mla"
        )


def make_plan(model: Architecture, precision: Precision, parallel: Parallelism, work: Work) -> Plan:
    """Return the plan of a model, precision, parallelism and requests.

    Raises:
        UsageError: A number is too small, a parallel size doesn't divide the model, or the model has no KV cache.
    """
    for name, value in (("ISL", work.isl), ("num_requests", work.requests), ("page_size", work.page_size)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "give a whole number above 0")
    if work.osl < 0:
        raise UsageError(f"OSL is {work.osl}", "give 0 or more")
    check(parallel, model)
    if precision.packed and not any(part.packed_bytes for part in model.parts()):
        raise UsageError(
            f"{precision.name} packs MLA's latent, and {model.name} has none", "choose another KV precision"
        )
    weights = [
        sum(cache.kept(work.isl)[1] * sum(_rank_bytes(cache, precision, parallel.tp)) for cache in kind.caches)
        for kind in model.kinds
    ]
    if not any(model.order.count(index) and weight for index, weight in enumerate(weights)):
        raise UsageError(f"{model.name} has no layer with a KV cache", "choose a model with attention")
    bounds = _bounds(model, parallel)
    heaviest = max(
        range(parallel.pp),
        key=lambda stage: sum(model.order.count(i, *bounds[stage]) * weight for i, weight in enumerate(weights)),
    )
    return Plan(model, precision, parallel, work, _stage(model, precision, parallel, work, heaviest, bounds[heaviest]))


def leader_block_bytes(plan: Plan) -> int:
    """Return the bytes of one block over all ranks of a replica.

    KVBM's leader counts a block once, with the sum of its workers' bytes as its size (Dynamo's
    `block_manager/distributed/leader.rs`, whose comment calls this correct for TP and undecided for PP and DP).

    Raises:
        UsageError: The model has several kinds of layers, each with its own block.
    """
    stages = plan.stages()
    if any(len(stage.groups) != 1 for stage in stages):
        raise UsageError(
            f"{plan.model.name} has layers of several kinds, each with its own block size", "give the number of bytes"
        )
    return sum(stage.groups[0].block_bytes for stage in stages) * plan.parallel.tp


def _bounds(model: Architecture, parallel: Parallelism) -> tuple[tuple[int, int], ...]:
    return stage_bounds(model.layers, parallel.pp, parallel.pp_rule, parallel.pp_layers)


def _rank_bytes(kind: Kind, precision: Precision, tp: int) -> tuple[int, ...]:
    return tuple(part.token_bytes(precision, heads_on_rank(part, tp)) for part in kind.parts)


def _stage(model: Architecture, precision: Precision, parallel: Parallelism, work: Work, index: int,
           bounds: tuple[int, int]) -> Stage:  # fmt: skip
    first, end = bounds
    groups = tuple(
        Group(
            cache,
            layers,
            _rank_bytes(cache, precision, parallel.tp),
            cache.entries_per_page(work.page_size),
            cache.kept(work.isl)[1],
            cache.pages(work.isl, work.page_size),
        )
        for number, kind in enumerate(model.kinds)
        for cache in kind.caches
        if (layers := model.order.count(number, first, end))
    )
    states = sum(
        model.order.count(number, first, end) * kind.state.bytes(parallel.tp)
        for number, kind in enumerate(model.kinds)
        if kind.state is not None
    )
    return Stage(index, first, end - first, groups, states)


def aligned(size: int) -> int | None:
    """Return the largest of `DIRECT_ALIGNMENTS` that divides a size in bytes; None if none does."""
    return next((alignment for alignment in DIRECT_ALIGNMENTS if size % alignment == 0), None)
