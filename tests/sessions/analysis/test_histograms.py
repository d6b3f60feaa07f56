"""Histograms of request times from a run's log, small or larger than what is read of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kvdeck.sessions.analysis.histograms import histograms
from kvdeck.sessions.model.encoding import encode_line
from kvdeck.sessions.model.events import Round
from kvdeck.sessions.model.records import HOST_TO_DISK, Session, TransferCounts
from kvdeck.sessions.recorder import bucket_edge, time_buckets
from tests.support.builders import run as a_run

SESSION = msgspec.structs.replace(a_run.session(), kind="run")


def line(step: int, number: int, seconds: float, count: int = 4) -> bytes:
    nanoseconds = round(seconds * 1e9)
    return encode_line(Round(number, step, number, (0,) * count, (nanoseconds,) * count, count * nanoseconds, ()))


def edge(seconds: float) -> float:
    (bucket,) = time_buckets([seconds])
    return bucket_edge(bucket)


def key_of(step: int) -> tuple[str, str, int | None, int | None]:
    result = next(result for result in SESSION.results if result.step == step)
    return result.path, result.layout, result.block_bytes, result.batch


def test_each_request_is_counted_once(tmp_path: Path) -> None:
    first, second = (result.step for result in SESSION.results[:2])
    path = tmp_path / "samples.jsonl"
    torn = line(first, 9, 0.5)[:-9]
    other = encode_line(Round(1, second, 1, (0, 0), (1,), 1, ()))  # as many posts as transfers belong to a round
    path.write_bytes(line(first, 0, 0.001) + b"no event\n" + line(second, 1, 0.002, 3) + other + torn)
    found = histograms(SESSION, path)
    assert found[key_of(first)] == ((edge(0.001), 4),)
    assert found[key_of(second)] == ((edge(0.002), 3),)


def test_of_a_large_log_every_step_is_sampled(tmp_path: Path) -> None:
    steps = [result.step for result in SESSION.results[:2]]
    path = tmp_path / "samples.jsonl"
    times = {steps[0]: 0.001, steps[1]: 0.003}
    with path.open("wb") as file:
        for step in steps:  # one after another, as the trials of a sweep
            while file.tell() < (4 << 20) * (1 + steps.index(step)):
                file.write(line(step, 0, times[step], 500))
    found = histograms(SESSION, path, most=2 << 20)
    for step in steps:
        ((bucket, count),) = found[key_of(step)]
        assert bucket == edge(times[step])
        assert 0 < count * len(line(step, 0, times[step], 500)) / 500 <= 2 << 20, "no more than that was read"


def test_counts_have_their_own_and_a_missing_log_is_no_error(tmp_path: Path) -> None:
    counts = TransferCounts(HOST_TO_DISK, "FullyContiguous", transfers=2, times=((0.001, 2),))
    assert histograms(Session("trace", "done", 1.0, kind="trace", transfer_counts=(counts,)), None) == {
        (HOST_TO_DISK, "FullyContiguous", None, None): ((0.001, 2),)
    }
    assert histograms(SESSION, tmp_path / "missing.jsonl") == {}
