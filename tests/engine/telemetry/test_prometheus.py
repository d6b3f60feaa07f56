"""Endpoints that answer slowly, never, garbage, too much, elsewhere; and that die and come back."""

from __future__ import annotations

import gzip
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kvdeck.engine.telemetry.sample import Snapshot
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import Reading, SourceGone
from kvdeck.engine.telemetry.sources import prometheus as endpoint_module
from kvdeck.engine.telemetry.sources.local_source import LocalSource
from kvdeck.engine.telemetry.sources.prometheus import Endpoint
from kvdeck.engine.telemetry.tracker import SourceStatus
from kvdeck.sessions.errors import UsageError
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

KVBM = sample("dynamo_kvbm_metrics_host_cold.prom")


async def read(url: str, timeout_s: float = 2.0) -> Reading:
    source = Endpoint(url, timeout_s)
    try:
        return await source.read()
    finally:
        await source.close()


async def refusal(url: str, timeout_s: float = 2.0) -> str:
    with pytest.raises(SourceGone) as caught:
        await read(url, timeout_s)
    return str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (says("ouch", 500), "HTTP 500"),
        (says("who", 401), "credentials needed"),
        (says("<!DOCTYPE html><html><body>hi</body></html>\n"), "web page"),
        (says("\x00\x01 garbage {{{\n"), "does not serve metrics"),
        (says("", 302, {"Location": "http://example.invalid/metrics"}), "another host (example.invalid): not followed"),
        (says("", 302, {"Location": "/metrics"}), "redirected more than 3 times"),
    ],
)
async def test_what_is_no_metrics_is_named(answer: object, words: str) -> None:
    with metrics_server({"/metrics": answer}) as server:  # type: ignore[dict-item]
        assert words in await refusal(server.url())


@pytest.mark.parametrize(
    ("date", "ahead_s"), [(None, 3600.0), (None, -86400.0), ("Mon, 99 Foo 2020 99:99:99 GMT", 0.0), ("", 0.0)]
)
async def test_how_far_its_clock_is_ahead_comes_from_the_date_of_its_answer(date: str | None, ahead_s: float) -> None:
    if date is None:
        date = formatdate(time.time() + ahead_s, usegmt=True)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response_only(200)
        request.send_header("Date", date)
        request.send_header("Content-Length", str(len(KVBM)))
        request.end_headers()
        request.wfile.write(KVBM)

    with metrics_server({"/metrics": answer, "/here": says(KVBM)}) as server:
        assert (await read(server.url(), 10.0)).ahead_s == pytest.approx(ahead_s, abs=600.0)
        assert (await read(server.url("/here"), 10.0)).ahead_s == pytest.approx(0.0, abs=600.0)


async def test_nobody_listens() -> None:
    with metrics_server({}) as server:
        url = server.url()
    assert "cannot connect" in await refusal(url)


async def test_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MAX_BODY", 1 << 20)
    packed = gzip.compress(b"x_total 1\n" * 500_000)  # 5 MB in a few kB
    with metrics_server({"/metrics": says(packed, headers={"Content-Encoding": "gzip"})}) as server:
        assert "larger than 1 MiB" in await refusal(server.url())


async def test_gzip_and_a_redirect_at_home() -> None:
    handlers = {
        "/metrics": says("", 307, {"Location": "/metrics/"}),
        "/metrics/": says(gzip.compress(KVBM), headers={"Content-Encoding": "gzip"}),
    }
    with metrics_server(handlers) as server:
        reading = await read(server.url())
    assert reading.kind == "kvbm"
    assert len(reading.values) == 13


@pytest.mark.parametrize("told", [len(KVBM) - 30, len(KVBM)])
async def test_half_a_line_is_left_out(told: int) -> None:
    """The answer ends within a line: once as long as it said it is, once shorter."""
    handler = says(KVBM[:-30], headers={"Content-Length": str(told), "Connection": "close"})
    if told == len(KVBM):

        def handler(request: BaseHTTPRequestHandler) -> None:
            says(KVBM[:-30], headers={"Content-Length": str(told)})(request)
            request.close_connection = True

    with metrics_server({"/metrics": handler}) as server:
        reading = await read(server.url())
    assert "the last line is incomplete" in reading.missing
    assert 10 <= len(reading.values) < 13


async def test_a_token_goes_to_its_host_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with metrics_server({"/metrics": says(KVBM)}) as server, metrics_server({"/metrics": says(KVBM)}) as other:
        file = tmp_path / "tokens"
        file.write_text(f"http://127.0.0.1:{server.port}=secret\n")
        file.chmod(0o600)
        monkeypatch.setenv("KVDECK_MONITOR_TOKENS_FILE", str(file))
        await read(server.url())
        await read(other.url())
        assert server.asked[0][1]["Authorization"] == "Bearer secret"
        assert "Authorization" not in other.asked[0][1]
        file.chmod(0o644)
        with pytest.raises(UsageError, match="other users can read"):
            await read(server.url())


def test_a_password_in_an_address_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Endpoint("http://me:secret@127.0.0.1/metrics")
    assert "secret" not in str(caught.value)


def status(snapshot: Snapshot, name: str) -> SourceStatus:
    return next(source for source in snapshot.sources if source.name == name)


async def until(sampler: Sampler, name: str, state: str, within_s: float = 5.0) -> Snapshot:
    """The first snapshot in which a source is in that state."""
    deadline = time.monotonic() + within_s
    async for snapshot in sampler.snapshots():
        if status(snapshot, name).state == state:
            return snapshot
        assert time.monotonic() < deadline, status(snapshot, name)
    raise AssertionError


async def test_one_that_hangs_delays_none() -> None:
    """Beside an endpoint and a file that never answer, another is asked as often as before."""

    def hang(request: BaseHTTPRequestHandler) -> None:
        server.released.wait(20)

    def sleep() -> Reading:
        server.released.wait(20)
        return Reading(0, {})

    with metrics_server({"/metrics": says(KVBM), "/hangs": hang}) as server:
        hanging, stuck = Endpoint(server.url("/hangs"), 0.3), LocalSource("stuck", "disk", sleep, hangs_s=0.2)
        good = Endpoint(server.url())
        sampler = Sampler([hanging, stuck, good], hz=10)
        await sampler.start()
        try:
            await until(sampler, good.name, "live")
            before = len([path for path, _ in server.asked if path == "/metrics"])
            await until(sampler, hanging.name, "unreachable")
            await until(sampler, "stuck", "unreachable")
            async for _ in sampler.snapshots(5):
                if len([path for path, _ in server.asked if path == "/metrics"]) >= before + 5:
                    break
            assert status(sampler.snapshot(), good.name).state == "live"
            assert "0.3 s" in status(sampler.snapshot(), hanging.name).reason
            assert status(sampler.snapshot(), "stuck").reason
        finally:
            await sampler.close()


async def test_one_that_dies_and_comes_back() -> None:
    warm = sample("dynamo_kvbm_metrics_host_repeat.prom")
    server = MetricsServer({"/metrics": says(KVBM)})
    source = Endpoint(server.url())
    sampler = Sampler([source], hz=10)
    await sampler.start()
    try:
        await until(sampler, source.name, "live")
        server.handlers["/metrics"] = says(warm)
        async for snapshot in sampler.snapshots(5):
            if any(flow.blocks_total == 36 for flow in snapshot.flows):
                break
        server.handlers["/metrics"] = says("dying", 503)
        await until(sampler, source.name, "unreachable")
        server.handlers["/metrics"] = says(KVBM)  # it has started anew: its counters are lower
        snapshot = await until(sampler, source.name, "reset")
        assert not [flow for flow in snapshot.flows if (flow.blocks_per_s or 0) < 0]
    finally:
        await sampler.close()
        server.close()
