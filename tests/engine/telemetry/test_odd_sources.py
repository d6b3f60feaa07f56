"""Expositions that are odd but legal, and some that are neither: what is read of them, and what is left out."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from kvdeck.engine.telemetry.sample import take
from kvdeck.engine.telemetry.source import Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.credentials import token_for
from kvdeck.engine.telemetry.sources.exposition import MAX_KEYS, MAX_LINE, Parser
from kvdeck.engine.telemetry.sources.nixl_ring import Ring
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import MAX_GONE, Track
from kvdeck.sessions.errors import UsageError

SECOND = 1_000_000_000
OPEN = """# TYPE kvbm_offload_blocks_d2h counter
kvbm_offload_blocks_d2h_total{tier="a"} 17 # {trace_id="abc"} 0.67 1520879607.789
kvbm_offload_blocks_d2h_created{tier="a"} 1520872607.123
# TYPE wait_seconds histogram
# UNIT wait_seconds seconds
wait_seconds_bucket{le="+Inf"} 3 # {trace_id="x"} 1.5
wait_seconds_sum 4.5
wait_seconds_count 3
# TYPE stamped gauge
stamped 5 1520879607.5
# EOF
"""


def values(text: str, parser: Parser | None = None) -> dict[str, float]:
    return {series.name: value for series, value in (parser or Parser()).parse(text).values.items()}


def test_openmetrics_with_exemplars_times_and_an_end() -> None:
    """The library's OpenMetrics parser is the judge; its Prometheus parser takes an exemplar's number for a time."""
    parser = Parser()
    for text in (OPEN, OPEN, OPEN.rstrip("\n")):
        found = parser.parse(text)
        expected = {
            sample.name: (sample.value, sample.timestamp and float(sample.timestamp))
            for family in openmetrics(text)
            for sample in family.samples
            if not sample.name.endswith(("_bucket", "_created"))
        }
        times = {series.name: t_ns / 1e9 for series, t_ns in found.times.items()}
        assert {series.name: (v, times.get(series.name)) for series, v in found.values.items()} == expected
        assert (found.unread, found.torn) == (0, False)
    by_name = {series.name: series for series in found.values}
    assert by_name["kvbm_offload_blocks_d2h_total"].counter
    assert by_name["wait_seconds_sum"].counter
    assert not by_name["stamped"].counter


FEDERATED = """# TYPE vllm:prompt_tokens_total untyped
vllm:prompt_tokens_total{engine="0"} 5
# TYPE vllm:time_to_first_token_seconds_bucket untyped
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 3
# TYPE vllm:time_to_first_token_seconds_sum unknown
vllm:time_to_first_token_seconds_sum{engine="0"} 4.5
# TYPE vllm:time_to_first_token_seconds_count untyped
vllm:time_to_first_token_seconds_count{engine="0"} 3
# TYPE kvbm_offload_blocks_d2h untyped
kvbm_offload_blocks_d2h 7
# TYPE dynamo_kvbm_offload_blocks_h2d untyped
dynamo_kvbm_offload_blocks_h2d 7
# TYPE dynamo_kvbm_host_cache_hit_rate untyped
dynamo_kvbm_host_cache_hit_rate 0.5
# TYPE vllm:num_requests_running untyped
vllm:num_requests_running 2
# TYPE other_sum untyped
other_sum 2
"""


@pytest.mark.parametrize("typed", [True, False])
def test_what_has_no_type_is_what_its_name_is_known_for(typed: bool) -> None:
    """As Prometheus' `/federate` prints everything."""
    text = FEDERATED if typed else "".join(line + "\n" for line in FEDERATED.splitlines() if line[0] != "#")
    found = {series.name for series in Parser().parse(text).values if not series.counter}
    assert found == {"vllm:num_requests_running", "dynamo_kvbm_host_cache_hit_rate", "other_sum"}


def test_a_buckets_creation_is_that_of_its_histogram() -> None:
    parser = Parser()
    name = "vllm:time_to_first_token_seconds"
    parser.parse(
        f'# TYPE {name} histogram\n{name}_bucket{{engine="0",le="1.0"}} 3\n{name}_count{{engine="0"}} 3\n'
        f'{name}_created{{engine="0"}} 1520872607.0\n'
    )
    for series in (
        Series(f"{name}_bucket", (("engine", "0"), ("le", "1.0"))),
        Series(f"{name}_count", (("engine", "0"),)),
    ):
        assert parser.created(series) == 1520872607.0
    assert parser.created(Series(f"{name}_bucket", (("engine", "1"), ("le", "1.0")))) is None


def test_prometheus_times_are_milliseconds() -> None:
    found = Parser().parse("a_total 5 1520879607500\nb_total 3\n")
    assert {series.name: t_ns for series, t_ns in found.times.items()} == {"a_total": 1520879607_500_000_000}


def test_what_is_not_finite_is_left_out() -> None:
    parser = Parser()
    text = "a_total NaN\nb_total +Inf\nc_total -Inf\nd_total 1\n"
    for _ in range(2):
        assert values(text, parser) == {"d_total": 1}
    assert values(text.replace("NaN", "4"), parser) == {"a_total": 4, "d_total": 1}
    assert not [value for value in values("e 1e999\n").values() if not math.isfinite(value)]


def test_a_series_said_twice_is_one() -> None:
    """Prometheus refuses such an answer; here the last value stands, and is never added to the first."""
    text = 'kvbm_offload_blocks_d2h{a="1"} 5\nkvbm_offload_blocks_d2h{a="1"} 7\n'
    parser, track = Parser(), Track("a", "kvbm")
    for second in range(2):
        found = parser.parse(text)
        track.took(Reading(second * SECOND, found.values, changed=found.changed), second * SECOND)
    (flow,) = take([(track, 1.0)], SECOND).flows
    assert flow.blocks_total == 7


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('x{a="b\\"c\\n} d"} 3', 3),
        ('x{a="1",} 4', 4),
        ("x   5", 5),
        ("x\t6", 6),
        ('{"x",a="1"} 7', 7),
        ("x 1e3", 1000),
        ("x 0x10", None),
        ("x", None),
        ("x{a=1} 2", None),
        ('x{a="1} 2', None),
    ],
)
def test_lines_as_some_write_them(line: str, value: float | None) -> None:
    parser = Parser()
    for _ in range(2):
        found = parser.parse(f"{line}\n\ny 1\n")
        assert {series.name: v for series, v in found.values.items()} == (
            {"y": 1} if value is None else {"x": value, "y": 1}
        )
        assert found.unread == (value is None)


def test_huge_labels_are_left_out_and_cost_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvdeck.engine.telemetry.sources.exposition.MAX_KEY_CHARACTERS", 1_000_000)
    parser = Parser()
    found = parser.parse(f'a{{x="{"y" * MAX_LINE}"}} 1\nb 2\n')
    assert ({series.name for series in found.values}, found.unread) == ({"b"}, 1)
    for turn in range(40):  # labels that never come again
        parser.parse("".join(f'a{{x="{turn}-{number}-{"y" * 900}"}} 1\n' for number in range(50)))
    assert sum(map(len, parser._keys)) < 1_100_000


def test_series_that_never_come_again_are_forgotten() -> None:
    track = Track("a", "prometheus")
    for second in range(60):
        said = {Series("requests_total", (("id", f"{second}-{number}"),)): 1.0 for number in range(100)}
        track.took(Reading(second * SECOND, said), second * SECOND)
    assert len(track.points) <= 300 + MAX_GONE
    assert track.status(60 * SECOND, 1.0).series == 100


def test_a_counter_that_is_called_otherwise_from_now_on() -> None:
    """An engine was updated under the same address: what it no longer says is named, and the new name counts."""
    endpoint, track = Endpoint("http://127.0.0.1:1/metrics"), Track("a", "kvbm")
    old, new = "kvbm_offload_blocks_d2h 40\n", "kvbm_offload_blocks_g1_g2 44\nkvbm_onboard_blocks_h2d 1\n"
    for text in (old, old, new):
        reading = endpoint._reading(text)
        track.took(reading, reading.t_ns)
    status = track.status(reading.t_ns, 1.0)
    assert (status.state, status.reason) == ("partial", "no longer reports kvbm_offload_blocks_d2h")
    assert status.unknown == 1, "the new name is not known, and is shown as it is"
    assert [flow.metric for flow in take([(track, 1.0)], reading.t_ns).flows] == ["kvbm_onboard_blocks_h2d"]


def test_a_clock_that_is_set_back_makes_no_odd_rate() -> None:
    series, track = Series("session_bytes", (("path", "HostToDisk"),)), Track("a", "session")
    rates = []
    for arrival_s, (wall_s, value) in enumerate(((1000, 10), (1010, 20), (500, 30), (510, 50)), 1):
        track.took(Reading(wall_s * SECOND, {series: value}), arrival_s * SECOND)
        track.moment(arrival_s * SECOND)
        rates.append(track.rate(track.points[series]))
    assert rates == [None, 10.0, 10.0, 20.0], "rates come from this process's own clock"
    assert track.points[series].gained == 40


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_lies_under_a_ring_s_name_and_is_no_file_is_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "agent"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(SourceGone, match="not a regular file"):
        Ring(path).look()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"http://h:1=\xff\xfe", "bytes that are not allowed in tokens"),
        (b"http://h:1=a\x1b[2J", "characters that are not allowed in tokens"),
        pytest.param(b"x" * 70_000, "longer than 64 KiB", id="long"),
        (None, "FIFO"),
    ],
)
def test_an_odd_tokens_file_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, said: str
) -> None:
    path = tmp_path / "tokens"
    if content is None:
        os.mkfifo(path, 0o600)
    else:
        path.write_bytes(content)
        path.chmod(0o600)
    monkeypatch.setenv("KVDECK_MONITOR_TOKENS_FILE", str(path))
    with pytest.raises(UsageError, match=said):
        token_for("http://h:1")


def test_type_lines_without_samples_are_bounded() -> None:
    parser = Parser()
    for part in range(4):
        parser.parse("".join(f"# TYPE m{part}_{number} counter\n" for number in range(MAX_KEYS // 2)) + "a 1\n")
    assert len(parser._types) <= MAX_KEYS
