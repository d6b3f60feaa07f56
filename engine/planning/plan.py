"""The plan: what a model, its parallelism and its traffic mean in blocks, bytes and descriptors, per GPU and in all.

A block is a page of tokens of all layers of one kind on one rank, as serving engines keep it: a model that mixes full
and sliding attention has a block of each. FullyContiguous is one descriptor a block, LayerSeparate one for each layer
and outer dim.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kvdeck.engine.planning.models import Architecture, Kind
from kvdeck.engine.planning.parallelism import PP_RULES, Parallelism, check, copies, heads_on_rank, share, stage_bounds
from kvdeck.engine.planning.precision import Precision
from kvdeck.sessions.errors import UsageError

DIRECT_ALIGNMENTS = (4096, 512)
"""What O_DIRECT asks of sizes, the most common first; bytes."""


@dataclass(frozen=True, slots=True)
class Work:
    """The traffic: tokens are KV tokens of one request."""

    isl: int
    requests: int = 1
    page_size: int = 16
    osl: int = 0
    """Tokens that a request adds after its prompt; they count for room, not for what is transferred."""


@dataclass(frozen=True, slots=True)
class Group:
    """Layers of one kind in one stage, on one rank; sizes in bytes."""

    kind: Kind
    layers: int
    part_bytes: tuple[int, ...]
    """One token in one layer, for each outer dim, on one rank."""
    page_size: int
    tokens: int
    """Kept tokens of a request of ISL tokens."""
    blocks: int
    """Blocks of a request of ISL tokens, over all context-parallel ranks."""

    @property
    def token_bytes(self) -> int:
        """One token in all its layers."""
        return self.layers * sum(self.part_bytes)

    @property
    def layer_bytes(self) -> int:
        """One layer of a block, all outer dims: what KVBench moves with layer access."""
        return sum(self.part_bytes) * self.page_size

    @property
    def block_bytes(self) -> int:
        """The block: FullyContiguous's one descriptor."""
        return self.layers * self.layer_bytes

    @property
    def region_bytes(self) -> int:
        """LayerSeparate's smallest descriptor."""
        return min(self.part_bytes) * self.page_size

    @property
    def regions(self) -> int:
        """LayerSeparate's descriptors of a block."""
        return self.layers * len(self.part_bytes)

    def region_sizes(self) -> tuple[int, ...]:
        """Bytes of every region of a block."""
        return tuple(size * self.page_size for size in self.part_bytes) * self.layers


@dataclass(frozen=True, slots=True)
class Stage:
    """One pipeline stage; every one of its ranks holds as much."""

    index: int
    first_layer: int
    layers: int
    groups: tuple[Group, ...]
    state_bytes: int = 0
    """Recurrent states of one request on one tensor-parallel rank, whatever its length."""

    def request_bytes(self) -> int:
        """Kept bytes of one request on one tensor-parallel rank."""
        return sum(group.token_bytes * group.tokens for group in self.groups)

    def blocks(self) -> int:
        """Blocks of one request over all context-parallel ranks."""
        return sum(group.blocks for group in self.groups)

    def block_bytes(self) -> int:
        """Bytes of those blocks, the last page of each filled up."""
        return sum(group.blocks * group.block_bytes for group in self.groups)

    def regions(self) -> int:
        """LayerSeparate's descriptors of those blocks."""
        return sum(group.blocks * group.regions for group in self.groups)


@dataclass(frozen=True, slots=True)
class Load:
    """Blocks, descriptors and bytes that are kept or moved."""

    blocks: int
    regions: int
    """Descriptors in LayerSeparate; in FullyContiguous they are as many as the blocks."""
    block_bytes: int
    """With the last pages filled up: what is transferred, in either layout."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that follows; `stage` is the one with the most bytes: it needs the room and sets the pace."""

    model: Architecture
    precision: Precision
    parallel: Parallelism
    work: Work
    stage: Stage

    @property
    def group(self) -> Group:
        """The stage's group with the largest block: what `block` means without further words."""
        return max(self.stage.groups, key=lambda group: (group.kind.window is None, group.block_bytes))

    @property
    def token_bytes(self) -> int:
        """One token, whole model, nothing replicated."""
        return self.model.token_bytes(self.precision)

    @property
    def request_bytes(self) -> int:
        """One request of ISL tokens, whole model, nothing replicated."""
        return self.model.request_bytes(self.precision, self.work.isl)

    @property
    def total_bytes(self) -> int:
        """All requests, whole model, nothing replicated."""
        return self.request_bytes * self.work.requests

    @property
    def state_bytes(self) -> int:
        """One request's recurrent states, whole model, nothing replicated: apart from the KV, in no block."""
        return self.model.state_bytes()

    @property
    def all_state_bytes(self) -> int:
        """Recurrent states of all requests on all GPUs, replicas counted."""
        held = sum(stage.state_bytes for stage in self.stages())
        return held * self.parallel.tp * self.parallel.cp * self.work.requests

    def gpu_state_bytes(self, stage: Stage | None = None) -> int:
        """Recurrent states on a GPU of a stage, or of that with the most: those of its requests."""
        most = stage.state_bytes if stage else max(one.state_bytes for one in self.stages())
        return most * share(self.work.requests, self.parallel.dp)

    def room_bytes(self) -> int:
        """What the fullest GPU must have room for when every request has its OSL: KV and recurrent states."""
        end = self.at_the_end()
        return max(end.per_gpu(stage).block_bytes + end.gpu_state_bytes(stage) for stage in end.stages())

    def remainder(self) -> str:
        """Whose rule gave some stages more layers, in words; empty where all have as many."""
        if self.parallel.pp_layers:
            return "given"
        return PP_RULES[self.parallel.pp_rule] if self.model.layers % self.parallel.pp else ""

    def stages(self) -> tuple[Stage, ...]:
        """Every stage, in order."""
        return tuple(
            _stage(self.model, self.precision, self.parallel, self.work, index, bounds)
            for index, bounds in enumerate(_bounds(self.model, self.parallel))
        )

    def per_gpu(self, stage: Stage | None = None) -> Load:
        """What the fullest GPU, or one of another stage, holds after the prompts: its requests, its pages."""
        requests, cp = share(self.work.requests, self.parallel.dp), self.parallel.cp
        held = [(share(group.blocks, cp) * requests, group) for group in (stage or self.stage).groups]
        return Load(
            sum(blocks for blocks, _ in held),
            sum(blocks * group.regions for blocks, group in held),
            sum(blocks * group.block_bytes for blocks, group in held),
        )

    def in_all(self) -> Load:
        """What all GPUs hold together, replicas counted."""
        stages, ranks = self.stages(), self.parallel.tp * self.work.requests
        return Load(
            sum(stage.blocks() for stage in stages) * ranks,
            sum(stage.regions() for stage in stages) * ranks,
            sum(stage.block_bytes() for stage in stages) * ranks,
        )

    def at_the_end(self) -> Plan:
        """The same with every request grown by its OSL: the room that must be there."""
        return make_plan(self.model, self.precision, self.parallel, dataclasses.replace(
            self.work, isl=self.work.isl + self.work.osl, osl=0))  # fmt: skip

    def replication(self) -> str:
        """Why ranks hold the same, in words; empty where none do."""
        most = max((copies(part, self.parallel.tp) for kind in self.model.kinds for part in kind.parts), default=1)
        if most == 1:
            return ""
        why = "MLA's latent isn't split" if self.model.latent else "fewer KV heads than ranks"
        return f"each of {most} TP ranks holds the same: {why}"


def make_plan(model: Architecture, precision: Precision, parallel: Parallelism, work: Work) -> Plan:
    """Work it out.

    Raises:
        UsageError: A number is below 1, or a parallel size doesn't divide what it must.
    """
    for name, value in (("ISL", work.isl), ("num_requests", work.requests), ("page_size", work.page_size)):
        if value < 1:
            raise UsageError(f"{name} is {value}", "give a whole number above 0")
    if work.osl < 0:
        raise UsageError(f"OSL is {work.osl}", "give 0 or more")
    check(parallel, model)
    weights = [kind.kept(work.isl)[1] * sum(_rank_bytes(kind, precision, parallel.tp)) for kind in model.kinds]
    if not any(model.order.count(index) and weight for index, weight in enumerate(weights)):
        raise UsageError(f"{model.name} has no layer that keeps KV", "choose a model with attention")
    bounds = _bounds(model, parallel)
    heaviest = max(
        range(parallel.pp),
        key=lambda stage: sum(model.order.count(i, *bounds[stage]) * weight for i, weight in enumerate(weights)),
    )
    return Plan(model, precision, parallel, work, _stage(model, precision, parallel, work, heaviest, bounds[heaviest]))


def _bounds(model: Architecture, parallel: Parallelism) -> tuple[tuple[int, int], ...]:
    return stage_bounds(model.layers, parallel.pp, parallel.pp_rule, parallel.pp_layers)


def _rank_bytes(kind: Kind, precision: Precision, tp: int) -> tuple[int, ...]:
    return tuple(part.token_bytes(precision, heads_on_rank(part, tp)) for part in kind.parts)


def _stage(model: Architecture, precision: Precision, parallel: Parallelism, work: Work, index: int,
           bounds: tuple[int, int]) -> Stage:  # fmt: skip
    first, end = bounds
    groups = tuple(
        Group(
            kind,
            layers,
            _rank_bytes(kind, precision, parallel.tp),
            work.page_size,
            kind.kept(work.isl)[1],
            kind.pages(work.isl, work.page_size),
        )
        for number, kind in enumerate(model.kinds)
        if kind.parts and (layers := model.order.count(number, first, end))
    )
    states = sum(
        model.order.count(number, first, end) * kind.state.bytes(parallel.tp)
        for number, kind in enumerate(model.kinds)
        if kind.state is not None
    )
    return Stage(index, first, end - first, groups, states)


def aligned(size: int) -> int | None:
    """The largest of O_DIRECT's usual alignments that divides a size; null where none does."""
    return next((alignment for alignment in DIRECT_ALIGNMENTS if size % alignment == 0), None)
