"""`kvdeck monitor` as a stranger calls it: a process, its output, its exit status."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from kvdeck.engine.telemetry.source import Kind
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

COLD, REPEAT = sample("dynamo_kvbm_metrics_host_cold.prom"), sample("dynamo_kvbm_metrics_host_repeat.prom")
KINDS = set(get_args(Kind))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**os.environ, "KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run")}


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with metrics_server({"/metrics": says(COLD)}) as running:
        yield running


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", *arguments]


def monitor(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=20, check=False)


def streaming(environment: dict[str, str], server: MetricsServer) -> subprocess.Popen[str]:
    """A stream of samples as JSON, once it has printed one."""
    argv = command("--json", "--hz", "10", "--source", server.url())
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def flow(snapshot: dict[str, Any], source: str, target: str) -> dict[str, Any]:
    (found,) = [
        one for one in snapshot["flows"] if (one["from"], one["to"]) == (source, target) and "onboard" in one["name"]
    ]
    return dict(found)


def test_once_gives_one_object_and_null_rates(environment: dict[str, str], server: MetricsServer) -> None:
    done = monitor(environment, "--once", "--json", "--source", server.url(), "--source", "http://127.0.0.1:1/metrics")
    assert done.returncode == 0, done.stderr
    snapshot = orjson.loads(done.stdout)
    first, second = snapshot["sources"]
    assert (first["kind"], first["state"]) == ("kvbm", "live")
    assert second["state"] == "unreachable"
    assert "cannot connect" in second["reason"]
    assert {source["kind"] for source in snapshot["sources"]} <= KINDS
    for one in snapshot["flows"]:
        assert {"from", "to", "bytes_total", "blocks_total", "bytes_per_s", "blocks_per_s", "source", "metric"} <= set(
            one
        )
        assert one["blocks_per_s"] is None
        assert one["bytes_total"] is None
    assert len(server.asked) == 1, "one snapshot asks once"


def test_two_samples_have_rates(environment: dict[str, str], server: MetricsServer) -> None:
    answers = iter([COLD])
    server.handlers["/metrics"] = lambda request: says(next(answers, REPEAT))(request)
    arguments = ("--seconds", "0.5", "--hz", "10", "--source", server.url(), "--block-bytes", "1000")
    done = monitor(environment, "--once", "--json", *arguments)
    snapshot = orjson.loads(done.stdout)
    onboard = flow(snapshot, "G2", "G1")
    assert onboard["blocks_total"] == 28
    assert onboard["bytes_total"] == 28_000
    assert onboard["blocks_per_s"] is not None
    assert onboard["blocks_gained"] == 28


def test_a_stream_is_one_object_a_line_and_ends(environment: dict[str, str], server: MetricsServer) -> None:
    done = monitor(environment, "--json", "--seconds", "0.5", "--hz", "10", "--source", server.url())
    lines = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) >= 3
    assert all(line["sources"][0]["state"] in ("live", "idle") for line in lines)
    assert flow(lines[-1], "G2", "G1")["blocks_per_s"] == 0.0, "known, and still"


def test_an_interrupt_ends_it_without_a_word(environment: dict[str, str], server: MetricsServer) -> None:
    process = streaming(environment, server)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert said.strip() == ""


def test_a_closed_pipe_ends_it(environment: dict[str, str], server: MetricsServer) -> None:
    process = streaming(environment, server)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=10) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""


def test_the_report_reads_well(environment: dict[str, str], server: MetricsServer) -> None:
    done = monitor(environment, "--once", "--source", server.url(), "--source", "disks")
    assert "Sources\n" in done.stdout
    assert re.search(r"G1 → G2\s+kvbm offload_blocks_d2h\s+32 blocks\s+–", done.stdout)
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "nothing can be onboarded" in done.stdout, "the check's advice"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--source", "nonsense"), "is not an address, a path"),
        (("--source", "http://me:secret@127.0.0.1/"), "must not carry a user or password"),
        (("--once", "--prometheus", "0"), "give only one of them"),
        (("--hz", "50"), "--hz"),
    ],
)
def test_what_cannot_be_asked(environment: dict[str, str], arguments: tuple[str, ...], words: str) -> None:
    done = monitor(environment, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "secret" not in done.stderr


def test_sources_are_listed_before_they_are_used(environment: dict[str, str]) -> None:
    done = monitor(environment, "--list-sources", "--json")
    kinds = {source["kind"] for source in orjson.loads(done.stdout)["sources"]}
    assert {"disk", "network", "process", "session"} <= kinds


def test_what_is_known_is_served(environment: dict[str, str], server: MetricsServer) -> None:
    with metrics_server({}) as free:
        port = free.port
    process = subprocess.Popen(
        command("--json", "--source", server.url(), "--prometheus", str(port)),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        assert 'kvdeck_flow_blocks_total{flow="kvbm offload_blocks_d2h",from="G1"' in text
        assert "kvdeck_flow_bytes_total{" not in text, "blocks of unknown size are no bytes"
        assert "kvdeck_kvbm_matched_tokens_total{" in text
        assert 'kvdeck_kvbm_host_cache_hit_rate{source="' in text
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_the_verb_loads_no_numpy_and_draws_nothing(environment: dict[str, str], server: MetricsServer) -> None:
    code = (
        "import sys; from kvdeck.app.cli.main import call\n"
        f"call(['monitor', '--once', '--json', '--source', {server.url()!r}])\n"
        "print(sorted({n.split('.')[0] for n in sys.modules} & {'numpy', 'nixl', 'cupy', 'textual', 'rich'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_plan_tells_the_size_of_a_block(environment: dict[str, str], server: MetricsServer, tmp_path: Path) -> None:
    plans = tmp_path / "home/plans"
    plans.mkdir(parents=True)
    (plans / "mine.yaml").write_text(
        "model: llama-3.1-8b\nstrategy: {kvcache_quant_mode: fp8}\nsystem: {page_size: 16}\n"
    )
    arguments = ("--source", server.url(), "--block-bytes", "plan:mine")
    snapshot = orjson.loads(monitor(environment, "--once", "--json", *arguments).stdout)
    (offload,) = [one for one in snapshot["flows"] if one["name"] == "kvbm offload_blocks_d2h"]
    assert offload["bytes_total"] == 32 * 32 * 2 * 8 * 128 * 16, "blocks, layers, K and V, heads, their size, tokens"
    assert offload["bytes_claim"].startswith("from the plan mine")
    assert "≈ blocks of 1,048,576 B = 1 MiB, from the plan mine" in monitor(environment, "--once", *arguments).stdout
    refused = monitor(environment, "--once", "--source", server.url(), "--block-bytes", "plan:other")
    assert refused.returncode == 2
    assert "use a saved plan: mine" in refused.stderr
