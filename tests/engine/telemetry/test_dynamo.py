"""The real Dynamo frontend and mock worker under load, watched by the real `kvdeck monitor` and by the engine."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from kvdeck.engine.client.client import Client
from kvdeck.engine.protocol import WatchSample
from kvdeck.engine.telemetry import discovery
from tests.engine.conftest import DEADLINE
from tests.support.programs.dynamo import Dynamo, dynamo, prompt

pytestmark = pytest.mark.heavy

Moment = dict[str, Any]
LONG = 300
"""Tokens of an answer that takes some seconds and, with its prompt, fits the worker's cache."""


class Monitor:
    """`kvdeck monitor --json` at work: its moments, one after the other."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.grown: dict[tuple[str, str], float] = {}
        """Sum of rate × time of every metric so far, by source and name."""
        threading.Thread(target=self._read, args=(process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._sum(orjson.loads(line))
            self._lines.put(line)
        self._lines.put("")

    def _sum(self, moment: Moment) -> None:
        covers = {one["name"]: one["over_s"] or 0.0 for one in moment["sources"]}
        for one in moment["counters"]:
            key = one["source"], one["name"]
            self.grown[key] = self.grown.get(key, 0.0) + (one["per_s"] or 0.0) * covers[one["source"]]

    def until(self, true: Callable[[Moment], bool], what: str) -> Moment:
        """The first moment from now on of which `true` holds."""
        while not self._lines.empty():
            self._lines.get()
        end = time.monotonic() + DEADLINE
        moment: Moment = {}
        while time.monotonic() < end:
            line = self._lines.get(timeout=DEADLINE)
            assert line, f"the monitor ended before {what}"
            moment = orjson.loads(line)
            if true(moment):
                return moment
        raise AssertionError(f"not in {DEADLINE:.0f} s: {what}; {moment['sources']} {moment['checks']}")


@contextmanager
def monitor(folder: Path, *sources: str, stuck_s: float = 30.0) -> Iterator[Monitor]:
    asked = [word for source in sources for word in ("--source", source)]
    environment = {**os.environ, "KVDECK_HOME": str(folder / "kvdeck"), "KVDECK_RUNTIME": str(folder / "run")}
    environment["KVDECK_STUCK_S"] = str(stuck_s)
    process = subprocess.Popen(
        [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", "--json", "--hz", "10", *asked],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield Monitor(process)
    finally:
        process.terminate()
        process.wait(timeout=10)


def source(moment: Moment, name: str) -> dict[str, Any]:
    return next(one for one in moment["sources"] if one["name"] == name)


def state(moment: Moment, name: str) -> str:
    return str(source(moment, name)["state"])


def value(moment: Moment, metric: str) -> float:
    """A metric's sum over its series; 0 where none is known."""
    return sum(one["value"] for one in (*moment["counters"], *moment["gauges"]) if one["name"] == metric)


CACHED, PROMPT, WRITTEN, PREDICTED = (
    "dynamo_frontend_cached_tokens_sum",
    "dynamo_frontend_input_sequence_tokens_sum",
    "dynamo_frontend_output_tokens_total",
    "dynamo_component_router_kv_selected_cached_prefix_tokens_total",
)
"""The last is what the router saw in the worker's cache events."""


def at_once(running: Dynamo, requests: int, max_tokens: int) -> None:
    with ThreadPoolExecutor(requests) as pool:
        list(pool.map(lambda number: running.ask(prompt(number), max_tokens), range(100, 100 + requests)))


def test_load_is_seen_and_so_is_a_worker_that_dies_and_comes_back(tmp_path: Path) -> None:
    with dynamo(tmp_path) as running, monitor(tmp_path, running.frontend_url, running.worker_url) as seen:
        frontend, worker = running.frontend_url, running.worker_url
        first = seen.until(lambda m: value(m, "dynamo_frontend_model_ready") == 1, "both answer")
        assert [one["kind"] for one in first["sources"]] == ["dynamo", "dynamo"], "though the worker also says vllm:…"

        _prompts_are_reused_and_evicted(running, seen)

        load = threading.Thread(target=at_once, args=(running, 8, 24))
        load.start()
        seen.until(
            lambda m: value(m, "dynamo_frontend_inflight_requests") >= 4 and value(m, "vllm:num_requests_running") >= 1,
            "a queue under load",
        )
        busy = seen.until(lambda m: rate(m, WRITTEN) > 0, "tokens a second")
        assert (state(busy, frontend), state(busy, worker)) == ("live", "live")
        load.join()
        _requests_are_served(seen, frontend)
        seen.until(lambda m: state(m, frontend) == state(m, worker) == "idle", "idle when nobody asks")

        running.ask(prompt(500))
        requests = seen.until(lambda m: state(m, worker) == "live", "live again")
        assert value(requests, "dynamo_component_requests_total") >= 20

        running.kill_worker()
        # The first answer that fails may be one that was being given.
        gone = seen.until(lambda m: "cannot connect" in source(m, worker)["reason"], "a worker that was killed")
        assert state(gone, worker) == "unreachable"
        assert state(gone, frontend) in ("live", "idle"), "the frontend is another source"
        running.start_worker(host_blocks=0)
        back = seen.until(lambda m: state(m, worker) == "reset", "its counters begin anew")
        assert not [one for one in back["counters"] if (one["per_s"] or 0) < 0]
        running.ask(prompt(600))
        counted = seen.until(lambda m: value(m, "dynamo_component_requests_total") >= 1, "it counts from its new start")
        assert value(counted, "dynamo_component_requests_total") < value(requests, "dynamo_component_requests_total")


def rate(moment: Moment, metric: str) -> float:
    return sum(one["per_s"] or 0 for one in moment["counters"] if one["name"] == metric)


def _requests_are_served(seen: Monitor, frontend: str) -> None:
    """All 19 requests of the window are counted with their latencies, and the mean lies in the range of the buckets."""
    served = seen.until(lambda m: sum(service(m, frontend)["finished"].values()) == 19, "19 requests finished")
    assert set(service(served, frontend)["finished"]) == {"success"}
    assert (service(served, frontend)["state"], service(served, frontend)["failed_per_s"]) == ("online", 0)
    rows = {row["what"]: row for row in served["latencies"] if row["source"] == frontend}
    for what, count in (("ttft", 19), ("e2e", 19), ("itl", 11 * 7 + 8 * 23)):
        assert rows[what]["count"] == count, what
        assert rows[what]["p50_low"] <= rows[what]["p50"] <= rows[what]["p50_high"]
        assert 0 < rows[what]["mean"] < 60
    (reused,) = (row for row in served["tiers"] if row["source"] == frontend and row["what"] == "prompt")
    assert (reused["hits"], reused["asked"]) == (value(served, CACHED), value(served, PROMPT))


def service(moment: Moment, of: str) -> dict[str, Any]:
    return next(row for row in moment["services"] if row["source"] == of)


def _prompts_are_reused_and_evicted(running: Dynamo, seen: Monitor) -> None:
    """A prompt costs its tokens once; repeated it comes from the cache, and again after eight others pushed it out
    of the device, for the worker has a host tier."""
    asked = cached = 0
    for number in (1, 1, *range(2, 10), 1):
        usage = running.ask(prompt(number))
        asked += usage["prompt_tokens"]
        cached += usage["prompt_tokens_details"]["cached_tokens"]
        if number == 2:
            assert cached > 0, "the second time it was there"
    expected = {PROMPT: asked, CACHED: cached, WRITTEN: 11 * 8}
    # The frontend counts a prompt when it comes and what was cached when the answer has gone.
    told = seen.until(lambda m: {metric: value(m, metric) for metric in expected} == expected, f"{expected}")
    # The router hears of the worker's cache by events, which the first repetition may outrun.
    assert cached / 2 <= value(told, PREDICTED) <= cached
    assert cached == 2 * 576, "once from the device and once from the host: 36 blocks of 16 tokens each time"


def test_a_first_use_a_hang_and_a_restart_are_what_they_are(tmp_path: Path) -> None:
    with dynamo(tmp_path) as running, monitor(tmp_path, running.frontend_url, running.worker_url, stuck_s=2.0) as seen:
        frontend, worker = running.frontend_url, running.worker_url
        seen.until(lambda m: value(m, "dynamo_frontend_model_ready") == 1, "both answer")
        usage = running.ask(prompt(1))
        told = seen.until(lambda m: value(m, PROMPT) == usage["prompt_tokens"], "the first prompt")
        told = seen.until(lambda m: value(m, WRITTEN) == 8 and state(m, frontend) == "idle", "all that it counted")
        for metric in (PROMPT, WRITTEN):
            (one,) = (counter for counter in told["counters"] if counter["name"] == metric)
            assert (one["before"], one["gained"]) == (0.0, one["value"]), "the first use is growth"
            assert seen.grown[frontend, metric] == pytest.approx(one["value"])

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(running.ask, prompt(2), LONG)
            seen.until(lambda m: value(m, WRITTEN) > 8, "it writes")
            with running.hanging_worker():
                hung = seen.until(lambda m: stuck(m) != [], "an engine that hangs")
                assert stuck(hung)[0]["evidence"].startswith(f"{frontend}: 1 request running for ")
                assert "no token was generated" in stuck(hung)[0]["evidence"]
                assert state(hung, frontend) != "unreachable", "it answers, and says that it has a request"
                gone = seen.until(lambda m: source(m, worker)["stale"], "a worker that doesn't answer")
                assert {one["stale"] for one in gone["gauges"] if one["source"] == worker} == {True}
                assert [one for one in stuck(gone) if one["evidence"].startswith(worker)] == []
            seen.until(lambda m: stuck(m) == [] and not source(m, worker)["stale"], "it goes on")
            assert answer.result()["completion_tokens"] == LONG
        ended = seen.until(lambda m: value(m, WRITTEN) == 8 + LONG, "all tokens")
        assert seen.grown[frontend, WRITTEN] == pytest.approx(8 + LONG)
        assert requests(ended, worker)["gained"] == 2

        running.kill_worker()
        seen.until(lambda m: state(m, worker) == "unreachable", "a worker that was killed")
        running.start_worker(host_blocks=0)
        running.ask(prompt(3))
        back = seen.until(lambda m: state(m, worker) == "reset" and requests(m, worker)["value"] > 0, "a restart")
        assert source(back, worker)["reason"].startswith("restarted")
        after = requests(back, worker)
        assert after["gained"] == after["value"] > 0, "what the new process counted is growth, once"
        assert source(back, worker)["state"] != "partial"


def stuck(moment: Moment) -> list[dict[str, Any]]:
    return [check for check in moment["checks"] if check["id"].startswith("stuck")]


def requests(moment: Moment, of: str) -> dict[str, Any]:
    """A worker's finished requests, 0 before the first."""
    none = {"value": 0.0, "gained": 0.0}
    name = "dynamo_component_requests_total"
    found = (one for one in moment["counters"] if one["name"] == name and one["source"] == of and one["value"])
    return next(found, none)


def test_without_a_host_tier_what_was_pushed_out_is_gone(tmp_path: Path) -> None:
    with dynamo(tmp_path, host_blocks=0) as running:
        cached = [running.ask(prompt(n))["prompt_tokens_details"]["cached_tokens"] for n in (1, 1, *range(2, 10), 1)]
        assert cached == [0, 576, *[0] * 9]
        with monitor(tmp_path, running.frontend_url) as seen:
            seen.until(lambda m: value(m, CACHED) == 576, "what the frontend counts")


def test_both_are_found_and_the_engine_watches_them(tmp_path: Path, client: Client) -> None:
    with dynamo(tmp_path) as running:
        urls = {running.frontend_url, running.worker_url}
        usual = {running.frontend_port, running.worker_port} <= set(discovery.USUAL_PORTS)
        if usual:
            client.watch(5)
        else:  # somebody else has all usual ports
            client.watch(5, sorted(urls))
        running.ask(prompt(1))
        for message in client.messages(DEADLINE):
            if not isinstance(message, WatchSample):
                continue
            snapshot = message.snapshot
            found = {one["name"]: one["kind"] for one in snapshot["sources"]}
            assert {found.get(url) for url in urls} == {"dynamo"}, found
            if value(snapshot, WRITTEN) == 8:
                break
        else:
            raise AssertionError("the engine did not see the tokens")
        processes = [one for one in snapshot["counters"] if one["name"] == "process_write_bytes"]
        assert not usual or {"dynamo.frontend", "dynamo.mocker"} <= {one["labels"]["name"] for one in processes}
