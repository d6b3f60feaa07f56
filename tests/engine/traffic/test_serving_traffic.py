"""What serving sends: nothing lost, nothing twice, replicas where ranks outnumber heads."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvdeck.engine.planning.model_files import find_model
from kvdeck.engine.planning.models import Architecture, Kind, keys_and_values, latent, uniform
from kvdeck.engine.planning.parallelism import Parallelism, copies
from kvdeck.engine.planning.precision import parse_precision
from kvdeck.engine.traffic.deployment import Workers, check_workers, rail_order, worker_of
from kvdeck.engine.traffic.serving_traffic import HandOver, batch_matrix, compute_seconds, shared_tokens
from kvdeck.sessions.errors import UsageError

BF16 = parse_precision("bf16")
EIGHT_HEADS = uniform("eight", 6, Kind("full", keys_and_values(8, 64)), query_heads=16, parameters=10**9)
LATENT = uniform("latent", 6, Kind("mla", latent(512, 64)))
WINDOWED = Architecture(
    "windowed",
    (Kind("sliding", keys_and_values(8, 64), window=100), Kind("full", keys_and_values(4, 128))),
    bytes([0, 0, 1, 0, 0, 1]),
)


@given(
    st.sampled_from([EIGHT_HEADS, LATENT, WINDOWED]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 3),
    st.lists(st.integers(1, 700), min_size=1, max_size=3),
)
@settings(max_examples=150)
def test_each_decode_rank_gets_its_kv_once(
    model: Architecture, tp: int, to_tp: int, pp: int, to_pp: int, cp: int, to_cp: int, lengths: list[int]
) -> None:
    """What the decode side receives is its KV with its replicas, however the prefill side holds it."""
    hand_over = HandOver(model, BF16, Parallelism(tp, pp, cp=cp), Parallelism(to_tp, to_pp, cp=to_cp))
    sizes = hand_over.sizes(lengths)
    wanted = sum(
        model.order.count(index) * kind.kept(length)[1] * part.token_bytes(BF16) * copies(part, to_tp)
        for length in lengths
        for index, kind in enumerate(model.kinds)
        for part in kind.parts
    )
    assert sum(sizes.values()) == wanted
    assert all(size > 0 for size in sizes.values())


@given(st.integers(0, 300), st.integers(0, 900), st.integers(1, 40), st.integers(1, 5), st.integers(1, 5))
def test_shared_tokens_are_those_of_counting_one_by_one(first: int, more: int, page: int, one: int, other: int) -> None:
    counted = dict.fromkeys(itertools.product(range(one), range(other)), 0)
    for token in range(first, first + more):
        counted[token // page % one, token // page % other] += 1
    found = shared_tokens(first, first + more, page, one, other)
    assert {pair: count for pair, count in found.items() if count} == {p: c for p, c in counted.items() if c}


def test_a_context_parallel_prefill_sends_each_decode_rank_its_heads_of_all_tokens() -> None:
    """Upstream's generator makes four cells of this; the decode ranks would lack half of their tokens."""
    sizes = HandOver(EIGHT_HEADS, BF16, Parallelism(2, cp=2), Parallelism(4)).sizes([4096])
    whole = EIGHT_HEADS.token_bytes(BF16) * 4096
    assert len(sizes) == 8
    assert set(sizes.values()) == {whole // 8}


def test_more_ranks_than_heads_are_sent_copies_and_take_turns() -> None:
    sizes = HandOver(EIGHT_HEADS, BF16, Parallelism(16), Parallelism(16)).sizes([64])
    assert sum(sizes.values()) == 2 * EIGHT_HEADS.token_bytes(BF16) * 64
    assert len({source for source, _ in sizes}) == 16


def test_a_latent_goes_whole_to_each_rank_or_to_the_one_that_has_the_request() -> None:
    whole = LATENT.token_bytes(BF16)
    replicated = HandOver(LATENT, BF16, Parallelism(2), Parallelism(4)).sizes([10, 20])
    assert sum(replicated.values()) == 4 * whole * 30
    own = HandOver(LATENT, BF16, Parallelism(2), Parallelism(4), attention_dp=True).sizes([10, 20])
    assert {target[0]: size for (_, target), size in own.items()} == {0: whole * 10, 1: whole * 20}


def test_a_real_model_gives_its_published_bytes() -> None:
    model = find_model("llama-3.1-70b")
    sizes = HandOver(model, BF16, Parallelism(4), Parallelism(8)).sizes([4096])
    assert sum(sizes.values()) == 327_680 * 4096
    assert len(sizes) == 8


def test_the_matrix_of_a_batch_is_between_its_workers() -> None:
    prefill, decode = Workers(2, 1, 1, 1, 4), Workers(4, 1, 1, 1, 8, first_rank=4)
    sizes = HandOver(EIGHT_HEADS, BF16, Parallelism(2), Parallelism(4)).sizes([64])
    matrix = batch_matrix(sizes, prefill, decode, (1, 1), rail_order(2, 4))
    assert matrix.ranks == 12
    assert matrix.senders == (2, 3)
    assert [to for to, size in enumerate(matrix.rows[2]) if size] == [8, 10]
    assert [to for to, size in enumerate(matrix.rows[3]) if size] == [9, 11]
    assert matrix.total == EIGHT_HEADS.token_bytes(BF16) * 64


def test_upstream_s_rail_order() -> None:
    assert rail_order(4, 8) == (0, 4, 1, 5, 2, 6, 3, 7)
    assert rail_order(8, 8) == tuple(range(8))
    with pytest.raises(UsageError, match="multiple"):
        rail_order(8, 4)


def test_workers_that_leave_ranks_over_are_refused_with_the_numbers() -> None:
    with pytest.raises(UsageError, match=r"prefill: workers of 3 ranks .* don't fill 8 ranks: 2 are left over"):
        check_workers(Workers(3, 1, 1, 1, 8), Workers(2, 1, 1, 1, 8))


def test_batches_go_in_turn_or_to_the_least_loaded() -> None:
    assert [worker_of(batch, [0, 0, 0], "round-robin") for batch in range(4)] == [0, 1, 2, 0]
    assert worker_of(5, [3, 1, 2], "least-loaded") == 1


def test_compute_time_grows_with_the_square_of_one_request_and_not_of_their_sum() -> None:
    one, two = (compute_seconds(EIGHT_HEADS, lengths, 1e12, 1) for lengths in ([20_000], [10_000, 10_000]))
    assert one is not None
    assert two is not None
    assert one > two
    attention = 2.0 * 6 * 16 * 128 * (20_000 * 20_001 // 2)
    assert one == pytest.approx((2e9 * 20_000 + attention) / 1e12)
    assert compute_seconds(LATENT, [10], 1e12, 1) is None
