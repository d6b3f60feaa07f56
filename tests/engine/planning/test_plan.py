"""Plans in exact integers: what must hold for every model and every split, and figures worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvdeck.engine.planning.kvbench import ModelConfig, io_size
from kvdeck.engine.planning.model_files import catalogue, find_model
from kvdeck.engine.planning.models import Architecture, Kind, Part, keys_and_values, latent
from kvdeck.engine.planning.parallelism import PP_RULES, Parallelism, copies, heads_on_rank, share, stage_bounds
from kvdeck.engine.planning.plan import Plan, Work, aligned, make_plan
from kvdeck.engine.planning.precision import PRECISIONS, parse_precision
from kvdeck.sessions.errors import UsageError
from tests.support.builders.models import write_architecture

FP8 = PRECISIONS["fp8"]

HEADS = st.sampled_from([1, 2, 4, 8, 16])
KINDS = st.one_of(
    st.builds(
        lambda heads, dim, value, window, chunked: Kind("any", keys_and_values(heads, dim, value), window, chunked),
        HEADS,
        st.integers(1, 40),
        st.integers(1, 40),
        st.one_of(st.none(), st.integers(1, 70)),
        st.booleans(),
    ),
    st.builds(lambda rank, rope, index: Kind("mla", latent(rank, rope, index)), st.integers(1, 64), st.integers(0, 9),
              st.sampled_from([0, 132])),
    st.just(Kind("linear", ())),
)  # fmt: skip
MODELS = st.lists(KINDS, min_size=1, max_size=3).flatmap(
    lambda kinds: st.builds(
        lambda order: Architecture("any", tuple(kinds), bytes(order)),
        st.lists(st.integers(0, len(kinds) - 1), min_size=1, max_size=12),
    )
)
RULES = st.sampled_from(list(PP_RULES))
SPLITS = st.builds(
    Parallelism, tp=st.sampled_from([1, 2, 4, 8]), pp=st.integers(1, 12), dp=st.integers(1, 4), cp=st.integers(1, 4),
    pp_rule=RULES,
)  # fmt: skip
WORKS = st.builds(Work, isl=st.integers(1, 200), requests=st.integers(1, 9), page_size=st.integers(1, 40))
TYPES = st.sampled_from([precision for precision in PRECISIONS.values() if not precision.packed])


def planned(model: Architecture, precision, split: Parallelism, work: Work) -> Plan:
    assume(split.pp <= model.layers)
    assume(any(model.kinds[index].parts for index in model.order))
    return make_plan(model, precision, split, work)


@given(MODELS, TYPES, SPLITS, WORKS)
def test_shards_add_up_to_the_whole(model: Architecture, precision, split: Parallelism, work: Work) -> None:
    plan = planned(model, precision, split, work)
    held = sum(stage.request_bytes() for stage in plan.stages()) * split.tp
    whole = sum(
        kind.kept(work.isl)[1] * part.token_bytes(precision) * copies(part, split.tp)
        for kind in (model.kinds[index] for index in model.order)
        for part in kind.parts
    )
    assert held == whole
    if all(copies(part, split.tp) == 1 for kind in model.kinds for part in kind.parts):
        assert held == plan.request_bytes
    unpaged = make_plan(model, precision, split, Work(work.isl, work.requests, 1))  # no page is filled up
    assert unpaged.in_all().block_bytes == whole * work.requests


@given(MODELS, TYPES, SPLITS, WORKS)
def test_both_layouts_move_the_same_bytes(model: Architecture, precision, split: Parallelism, work: Work) -> None:
    for stage in planned(model, precision, split, work).stages():
        for group in stage.groups:
            assert sum(group.region_sizes()) == group.block_bytes
            assert len(group.region_sizes()) == group.regions >= 1
            assert min(group.region_sizes()) == group.region_bytes > 0


@given(MODELS, TYPES, SPLITS, WORKS)
def test_totals_dont_depend_on_how_it_is_split(model: Architecture, precision, split: Parallelism, work: Work) -> None:
    plan = planned(model, precision, split, work)
    for other in (
        Parallelism(tp=split.tp),
        Parallelism(tp=split.tp, pp=split.pp),
        Parallelism(tp=split.tp, cp=split.cp, dp=split.dp),
    ):
        again = make_plan(model, precision, other, work)
        assert again.in_all().block_bytes == plan.in_all().block_bytes
        assert again.in_all().regions == plan.in_all().regions
        assert (again.request_bytes, again.token_bytes) == (plan.request_bytes, plan.token_bytes)


@given(MODELS, TYPES, SPLITS, WORKS)
def test_nothing_is_negative_or_off_by_one(model: Architecture, precision, split: Parallelism, work: Work) -> None:
    plan = planned(model, precision, split, work)
    stages = plan.stages()
    assert [layer for stage in stages for layer in range(stage.first_layer, stage.first_layer + stage.layers)] == list(
        range(model.layers)
    )
    assert max(stage.layers for stage in stages) - min(stage.layers for stage in stages) <= 1
    assert plan.stage == stages[plan.stage.index]
    assert plan.stage.request_bytes() == max(stage.request_bytes() for stage in stages)
    for group in plan.stage.groups:
        assert 0 < group.tokens <= work.isl
        pages = {token // work.page_size for token in range(work.isl - group.tokens, work.isl)}
        assert group.blocks == len(pages)
        assert sum(share(group.blocks, split.cp, rank) for rank in range(split.cp)) == group.blocks
    gpu, whole = plan.per_gpu(), plan.in_all()
    assert 0 < gpu.block_bytes <= whole.block_bytes
    # Whole pages may make another stage's blocks larger than those of the stage that keeps the most bytes.
    assert max(plan.per_gpu(stage).block_bytes for stage in stages) * plan.parallel.gpus >= whole.block_bytes
    assert gpu.blocks <= gpu.regions


@given(st.integers(1, 200), st.integers(1, 50), RULES)
def test_stages_hold_every_layer_once(layers: int, pp: int, rule: str) -> None:
    bounds = stage_bounds(layers, pp, rule)
    assert len(bounds) == pp
    assert [layer for first, end in bounds for layer in range(first, end)] == list(range(layers))
    counts = [end - first for first, end in bounds]
    assert max(counts) == -(-layers // pp)
    assert max(counts) - min(counts) <= 1


def vllms_own(layers: int, pp: int) -> list[int]:
    """What vLLM's documentation of `get_pp_indices` says: one more to each stage before the last, from behind."""
    counts = [layers // pp] * pp
    for stage in range(2, layers % pp + 2):
        counts[-stage] += 1
    return counts


@given(st.integers(1, 200), st.integers(1, 50))
def test_each_engine_gives_the_remainder_to_its_own_stages(layers: int, pp: int) -> None:
    def counts(rule: str) -> list[int]:
        return [end - first for first, end in stage_bounds(layers, pp, rule)]

    assert counts("vllm") == vllms_own(layers, pp)
    assert counts("trtllm") == sorted(counts("trtllm"), reverse=True)
    assert counts("sglang") == sorted(counts("sglang"))


def test_stages_of_deepseek_by_each_rule_and_given() -> None:
    def stages(split: Parallelism) -> tuple[list[int], str]:
        plan = make_plan(find_model("deepseek-r1"), FP8, split, Work(10000, 1, 256))
        return [stage.layers for stage in plan.stages()], plan.remainder()

    assert stages(Parallelism(pp=4))[0] == [16, 15, 15, 15]
    assert stages(Parallelism(pp=4, pp_rule="vllm"))[0] == [15, 15, 16, 15]
    assert stages(Parallelism(pp=4, pp_rule="sglang"))[0] == [15, 15, 15, 16]
    assert stages(Parallelism(pp=4, pp_layers=(10, 20, 20, 11))) == ([10, 20, 20, 11], "given")
    assert "vLLM's rule" in stages(Parallelism(pp=4, pp_rule="vllm"))[1]
    assert stages(Parallelism(pp=1))[1] == ""


@given(HEADS, st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_heads_are_split_or_replicated(heads: int, tp: int) -> None:
    part = Part(heads, 128)
    assert heads_on_rank(part, tp) * tp == heads * copies(part, tp)


@given(MODELS, WORKS, st.integers(1, 5))
def test_more_tokens_never_need_less(model: Architecture, work: Work, osl: int) -> None:
    plan = planned(model, FP8, Parallelism(), Work(work.isl, work.requests, work.page_size, osl))
    unwindowed = all(kind.window is None for kind in model.kinds)
    if unwindowed:
        assert plan.at_the_end().request_bytes == plan.request_bytes + osl * plan.token_bytes


def test_deepseek_in_sixteen_stages() -> None:
    plan = make_plan(find_model("deepseek-r1"), FP8, Parallelism(pp=16), Work(10000, 10, 256))
    assert [stage.layers for stage in plan.stages()] == [4] * 13 + [3] * 3
    assert (plan.group.block_bytes, plan.group.layer_bytes) == (589824, 147456)
    assert plan.total_bytes == 3_513_600_000
    assert -(-plan.total_bytes // plan.group.block_bytes) == 5958
    assert (plan.per_gpu().blocks, plan.per_gpu().regions) == (400, 1600)


def test_a_latent_is_not_split_and_says_so() -> None:
    plan = make_plan(find_model("DeepSeek R1"), FP8, Parallelism(tp=8), Work(1000))
    assert plan.group.token_bytes == 61 * 576
    assert plan.replication() == "each of 8 TP ranks has the same copy: MLA's latent isn't split"


def test_heads_that_dont_suffice_are_replicated() -> None:
    plan = make_plan(find_model("llama-3.1-70b"), FP8, Parallelism(tp=16), Work(1000))
    assert plan.group.part_bytes == (128, 128)
    assert "fewer KV heads" in plan.replication()


def test_windows_keep_the_pages_they_touch() -> None:
    plan = make_plan(find_model("gpt-oss-120b"), PRECISIONS["bf16"], Parallelism(), Work(10000, 1, 16))
    sliding, full = plan.stage.groups
    assert (sliding.kind.window, sliding.layers, sliding.tokens, sliding.blocks) == (128, 18, 128, 8)
    assert (full.layers, full.tokens, full.blocks) == (18, 10000, 625)
    assert plan.group == full
    assert make_plan(plan.model, FP8, Parallelism(), Work(10001, 1, 16)).stage.groups[0].blocks == 9


def test_chunks_keep_what_has_begun() -> None:
    chunked = Kind("chunked", keys_and_values(1, 8), 100, True)
    assert [chunked.kept(tokens) for tokens in (1, 100, 101, 250)] == [(0, 1), (0, 100), (100, 1), (200, 50)]


def test_hybrids_count_only_the_layers_with_kv() -> None:
    plan = make_plan(find_model("nemotron-nano-9b-v2"), FP8, Parallelism(pp=4), Work(1000))
    assert plan.token_bytes == 4 * 2048
    assert [len(stage.groups) for stage in plan.stages()] == [0, 1, 1, 0]
    assert sum(group.layers for stage in plan.stages() for group in stage.groups) == 4


@pytest.mark.parametrize(
    ("text", "elements", "expected"),
    [("fp8", 128, 128), ("BF16", 128, 256), ("bfloat16", 1, 2), ("fp32", 3, 12), ("nvfp4", 128, 64 + 8),
     ("fp4", 576, 288 + 36), ("mxfp4", 128, 64 + 4), ("nvfp4", 17, 9 + 2)],
)  # fmt: skip
def test_elements_and_their_scales(text: str, elements: int, expected: int) -> None:
    assert parse_precision(text).vector_bytes(elements) == expected


def test_scales_are_said() -> None:
    assert parse_precision("nvfp4").said == "4 bits + 1 B of scale per 16 elements"
    assert parse_precision("bf16").said == "2 B per element"


@pytest.mark.parametrize(
    ("split", "work", "named"),
    [
        (Parallelism(tp=3), Work(10), "TP 3"),
        (Parallelism(tp=0), Work(10), "TP is 0"),
        (Parallelism(tp=128), Work(10), "query heads"),
        (Parallelism(pp=33), Work(10), "PP 33"),
        (Parallelism(cp=0), Work(10), "CP is 0"),
        (Parallelism(pp=2, pp_rule="megatron"), Work(10), "PP rule 'megatron'"),
        (Parallelism(pp=2, pp_layers=(32,)), Work(10), "has 1 stages, but PP is 2"),
        (Parallelism(pp=2, pp_layers=(16, 17)), Work(10), "adds up to 33"),
        (Parallelism(ep=3), Work(10), "EP 3"),
        (Parallelism(), Work(0), "ISL is 0"),
        (Parallelism(), Work(10, requests=0), "num_requests is 0"),
        (Parallelism(), Work(10, page_size=-1), "page_size is -1"),
        (Parallelism(), Work(10, osl=-1), "OSL is -1"),
    ],
)
def test_what_can_not_be_is_named(split: Parallelism, work: Work, named: str) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        make_plan(find_model("llama-3.1-8b"), FP8, split, work)
    assert caught.value.fix


def test_alignment() -> None:
    assert [aligned(size) for size in (8192, 1536, 72)] == [4096, 512, None]


def test_every_catalogue_model_can_be_planned_and_says_its_source() -> None:
    for model in catalogue().values():
        assert model.source.startswith("https://"), model.name
        assert make_plan(model, FP8, Parallelism(), Work(4096)).total_bytes > 0
    families = {"llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b", "deepseek-r1", "deepseek-v3", "gpt-oss-20b",
                "gpt-oss-120b", "qwen3-8b", "qwen3-30b-a3b", "qwen3-235b-a22b"}  # fmt: skip
    assert families <= set(catalogue())


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("DEEPSEEK_R1", "deepseek-r1"), ("LLAMA3.1_8B", "llama-3.1-8b"), ("LLAMA3.1_70B", "llama-3.1-70b"),
     ("GPT_OSS_120B", "gpt-oss-120b"), ("GPT_OSS_20B", "gpt-oss-20b"), ("QWEN3_8B", "qwen3-8b"),
     ("QWEN3_235B_A22B", "qwen3-235b-a22b")],
)  # fmt: skip
def test_the_catalogue_agrees_with_kvbenchs_files(theirs: str, ours: str, tmp_path: Path) -> None:
    read, known = find_model(str(write_architecture(tmp_path, theirs))), find_model(ours)
    assert (read.layers, read.query_heads, read.token_bytes(FP8)) == (
        known.layers,
        known.query_heads,
        known.token_bytes(FP8),
    )
    for access in ("block", "layer"):
        config = ModelConfig(page_size=16, access_pattern=access, pp_size=2)
        assert io_size(read, config) == io_size(known, config)


def test_names_are_forgiving_and_near_ones_are_told() -> None:
    assert find_model("Llama 3.1 8B").name == "llama-3.1-8b"
    assert find_model("QWEN3_8B").name == "qwen3-8b"
    with pytest.raises(UsageError, match="qwen3-coder"):
        find_model("qwen3-coder")
    with pytest.raises(UsageError, match=r"no/such\.yaml does not exist"):
        find_model("no/such.yaml")
