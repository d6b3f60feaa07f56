"""What watching costs: the engine and its sampling child on six sources, and one exposition read."""

from __future__ import annotations

import re
import statistics
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import psutil
from prometheus_client.parser import text_string_to_metric_families

from kvdeck.engine.client.client import Client
from kvdeck.engine.telemetry.sources.exposition import Parser
from tests.benchmarks.engine import own_engine
from tests.benchmarks.table import Row
from tests.support.programs.metrics_server import Handler, metrics_server, sample, says

SECONDS = 15.0
ENDPOINTS = (
    "vllm032_offload_native_after.prom",
    "dynamo_fe_metrics_d.prom",
    "dynamo_worker_metrics_d.prom",
    "dynamo_kvbm_metrics_host_replay.prom",
)
_MOVING = re.compile(
    r"^((?:vllm:kv_offload|vllm:prompt|vllm:gen|kvbm_o|dynamo_frontend_output|dynamo_component_req)\S*) (\S+)$", re.M
)
_NUMBER = re.compile(r" ([0-9.e+]+)$", re.M)
SIZE = 60_000


def measure() -> list[Row]:
    """Every row about watching."""
    with own_engine():
        rows = [_watching(1, "≤ 1 %"), _watching(10, "–")]
    return [*rows, _exposition()]


def _watching(hz: float, budget: str) -> Row:
    """Four endpoints of the samples, 1 to 93 kB, whose counters move, the disks and the network."""
    handlers = {f"/{name}": _growing(sample(name).decode()) for name in ENDPOINTS}
    stop = threading.Event()
    with metrics_server(handlers) as server, Client.connect() as client:
        client.watch(hz, [*(server.url(f"/{name}") for name in ENDPOINTS), "disks", "network"])
        reader = threading.Thread(target=_read, args=(client, stop))
        reader.start()
        time.sleep(3)
        engine = psutil.Process(client.hello.engine_pid)
        processes = [engine, *engine.children()]
        before, begin = _spent(processes), time.monotonic()
        time.sleep(SECONDS)
        share = 100 * (_spent(processes) - before) / (time.monotonic() - begin)
        stop.set()
        reader.join()
    return Row(f"engine and its sampler, 6 sources at {hz:g} Hz", f"{share:.1f} % of a core", budget)


def _read(client: Client, stop: threading.Event) -> None:
    while not stop.is_set():
        client.receive(timeout=0.2)


def _spent(processes: list[psutil.Process]) -> float:
    return float(sum(sum(process.cpu_times()[:2]) for process in processes))


def _growing(text: str) -> Handler:
    """An exposition whose offload, token and request counters grow with each answer."""
    asked = 0

    def answer(request: BaseHTTPRequestHandler) -> None:
        nonlocal asked
        asked += 1
        says(_MOVING.sub(lambda found: f"{found[1]} {float(found[2]) + asked!r}", text))(request)

    return answer


def _exposition() -> Row:
    """60 kB of the Dynamo frontend's text over and over, all its numbers changed each time, in CPU time."""
    whole = sample("dynamo_fe_metrics_d.prom").decode()
    text = whole[: whole.rfind("\n", 0, SIZE) + 1]
    texts = [_NUMBER.sub(lambda found, more=number: f" {float(found[1]) + more!r}", text) for number in range(9)]
    parser = Parser()
    first = _cpu(lambda: parser.parse(text))
    ours = statistics.mean(_cpu(lambda one=one: parser.parse(one)) for one in texts * 10)
    library = statistics.mean(_cpu(lambda: [*text_string_to_metric_families(text)]) for _ in range(5))
    return Row(
        f"an exposition of {len(text) / 1e3:.0f} kB read, every number new, mean (the first time {first * 1e3:.0f} ms, "
        f"prometheus-client {library * 1e3:.0f} ms)",
        f"{ours * 1e3:.2f} ms",
        "< 5 ms",
    )


def _cpu(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
