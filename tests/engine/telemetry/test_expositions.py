"""What engines print that no sample covers: old names, Ray's, SGLang's, TensorRT-LLM's, Triton's, routers'.

The files were written by hand after issues and sources that name these series; `{{a+b}}` grows by b with each reading.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from kvdeck.app.text.monitor_report import monitor_lines
from kvdeck.engine.telemetry.checks import check
from kvdeck.engine.telemetry.sample import Snapshot, take
from kvdeck.engine.telemetry.service import Service, TierHits
from kvdeck.engine.telemetry.service_rows import between
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import Track

FILES = Path(__file__).parents[2] / "support" / "programs" / "expositions"
NAMES = sorted(path.stem for path in FILES.glob("*.prom"))


def exposition(name: str, reading: int) -> str:
    text = (FILES / f"{name}.prom").read_text()
    return re.sub(r"\{\{(.+?)\+(.+?)\}\}", lambda m: repr(float(m[1]) + reading * float(m[2])), text)


def seen(name: str, readings: int = 11, text: str = "") -> Snapshot:
    """The last of some samples, one a second, with rows and checks of the whole time."""
    track, endpoint = Track("here", "prometheus"), Endpoint("http://127.0.0.1:1/metrics")
    first = last = None
    for reading in range(readings):
        now = int((100 + reading) * 1e9)
        track.took(endpoint._reading(text or exposition(name, reading)), now)
        last = take([(track, 1.0)], now, wall=now / 1e9)
        first = first or last
    assert last is not None
    rows = between(first, last)
    full = replace(last, latencies=rows.latencies, services=rows.services, tiers=rows.tiers)
    return replace(full, checks=check(full))


def service(snapshot: Snapshot, member: str = "") -> Service:
    (found,) = [row for row in snapshot.services if row.member == member]
    return found


def tiers(snapshot: Snapshot) -> dict[tuple[str, str], TierHits]:
    return {(row.tier, row.what): row for row in snapshot.tiers}


@pytest.mark.parametrize(
    ("name", "kind", "series", "unknown"),
    [
        ("empty", "prometheus", 0, 0),
        ("expired", "vllm", 5, 0),
        ("kvbm07", "kvbm", 7, 0),
        ("kvbmold", "kvbm", 5, 0),
        ("lowhit", "vllm", 8, 0),
        ("nixl1", "nixl", 2, 0),
        ("novllm", "prometheus", 1, 1),
        ("openm", "vllm", 3, 0),
        ("rayvllm", "vllm", 4, 0),
        ("router", "vllm", 4, 1),
        ("sglang", "sglang", 11, 0),
        ("tp8", "vllm", 5, 0),
        ("triton", "triton", 4, 0),
        ("trt", "trtllm", 3, 0),
        ("v014offl", "vllm", 8, 0),
        ("v085", "vllm", 8, 0),
        ("vdp", "vllm", 12, 0),
    ],
)
def test_every_series_is_known_or_counted_as_unknown(name: str, kind: str, series: int, unknown: int) -> None:
    (source,) = seen(name).sources
    assert (source.kind, source.series, source.unknown) == (kind, series, unknown)


def test_every_exposition_is_judged() -> None:
    judged = test_every_series_is_known_or_counted_as_unknown.pytestmark[0].args[1]
    assert sorted(row[0] for row in judged) == NAMES


def test_the_report_says_how_many_series_have_no_definition() -> None:
    text = "\n".join(f"nobody_knows_{place} 1" for place in range(11)) + "\n"
    report = "\n".join(line.text for line in monitor_lines(seen("", text=text), 100))
    assert "11 series, none known: --pin NAME shows any, --pin '*' all" in report


def test_sglangs_tiers_have_the_prompts_as_denominator() -> None:
    found = seen("sglang")
    assert (service(found).running, service(found).waiting, service(found).kv_usage) == (5, 2, 0.28)
    assert service(found).tokens_in_per_s == pytest.approx(1000)
    rows = tiers(found)
    assert (rows["G1", "prompt"].hits, rows["G1", "prompt"].asked) == (2000, 10_000)
    assert (rows["G2", "prompt"].hits, rows["G2", "prompt"].asked) == (1000, 8000)
    assert (rows["G3", "prompt"].hits, rows["G3", "prompt"].asked) == (500, 7000)
    assert rows["G1", "prefix"].share == 0.5
    assert rows["G1", "prefix"].asked is None, "its own share has no denominator"


def test_names_before_a_rename_mean_the_same() -> None:
    found = seen("v085")
    assert (service(found).running, service(found).waiting, service(found).kv_usage) == (12, 3, 0.83)
    prefix = tiers(found)["G1", "prefix"]
    assert (prefix.hits, prefix.asked, prefix.share) == (7500, 10_000, 0.75)
    ray = seen("rayvllm")
    assert (service(ray).running, service(ray).kv_usage) == (3, 0.5)
    assert tiers(ray)["G1", "prefix"].share == 0.5


def test_tensorrt_and_triton() -> None:
    found = seen("trt")
    assert service(found).kv_usage == 0.42
    assert service(found).finished == {"stop": 10}
    assert service(found).finished_per_s == pytest.approx(1)
    assert service(seen("triton")).kv_usage == 0.1


def test_a_hit_rate_below_zero_is_none() -> None:
    assert tiers(seen("kvbm07"))["G2", "kvbm host"].share is None


def test_engines_behind_one_address_are_told_apart() -> None:
    found = seen("vdp")
    assert {row.member: row.kv_usage for row in found.services} == {"engine 0": 0.9, "engine 1": 0.1}
    report = "\n".join(line.text for line in monitor_lines(found, 120))
    assert "(engine 0)" in report
    assert "(engine 1)" in report
    routed = seen("router")
    assert service(routed, "server http://10.0.0.2:8000").running == 6


def test_written_and_never_reused_is_a_warning_and_so_is_a_full_cache() -> None:
    found = {one.id: one for one in seen("lowhit").checks}
    never = found["written-never-reused"]
    assert never.verdict == "warning"
    assert "9.31 GiB" in never.evidence
    assert "1.00M tokens were looked up and none found" in never.evidence
    assert {"kv-full", "waiting", "preempting"} <= found.keys()
    assert "15/s" in found["preempting"].evidence
    assert "written-never-reused" not in {one.id for one in seen("v014offl").checks}, "what is loaded is reused"
