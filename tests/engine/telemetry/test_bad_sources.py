"""Endpoints on the network that are slow, huge, secret, elsewhere or untrusted, and addresses as people write them."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson
import pytest

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.listeners import listeners
from kvdeck.engine.telemetry.sampler import Sampler
from kvdeck.engine.telemetry.source import SourceGone
from kvdeck.engine.telemetry.sources.prometheus import MAX_BODY, Endpoint
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.formats import dynamo
from tests.engine.telemetry.test_prometheus import read, refusal, until
from tests.support.programs.metrics_server import MetricsServer, metrics_server, sample, says

KVBM = sample("dynamo_kvbm_metrics_host_cold.prom")


async def test_one_that_trickles_is_given_up_in_time() -> None:
    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not server.released.wait(0.02):
            request.wfile.write(b"a")
            request.wfile.flush()

    with metrics_server({"/metrics": trickle}) as server:
        begin = time.monotonic()
        assert "no complete answer within 0.3 s" in await refusal(server.url(), 0.3)
        assert time.monotonic() - begin < 2.0, "though a byte came every 20 ms"


async def test_fifty_megabytes_are_not_read() -> None:
    sent = 0

    def flood(request: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        for _ in range(50):
            request.wfile.write(b"a_total 1\n" * 100_000)
            sent += 1_000_000

    with metrics_server({"/metrics": flood}) as server:
        assert f"larger than {MAX_BODY >> 20} MiB" in await refusal(server.url(), 10.0)
    assert sent < MAX_BODY + 8_000_000, "what the sockets between the two hold may be on its way"


async def test_a_small_answer_that_unpacks_to_a_gigabyte(tmp_path: Path) -> None:
    """In a process of its own, so that its memory can be told."""
    code = (
        "import asyncio, resource, sys, zlib\n"
        "from kvdeck.engine.telemetry.source import SourceGone\n"
        "from kvdeck.engine.telemetry.sources.prometheus import Endpoint\n"
        "async def main():\n"
        "    source = Endpoint(sys.argv[1], 20)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "    try:\n"
        "        await source.read()\n"
        "    except SourceGone as error:\n"
        "        print(error)\n"
        "    await source.close()\n"
        "    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
        "asyncio.run(main())\n"
    )
    packer = zlib.compressobj(9, 8, 31)
    packed = b"".join(packer.compress(b"a 1\n" * (1 << 18)) for _ in range(1024)) + packer.flush()
    with metrics_server({"/metrics": says(packed, headers={"Content-Encoding": "gzip"})}) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url()], capture_output=True, text=True, timeout=30, check=True
        )
    said, grown = done.stdout.splitlines()
    assert "the answer is larger than" in said
    assert int(grown) < 100, "MiB"


async def test_a_host_that_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await refusal("http://no-such-host.invalid:9/metrics") == "cannot find the host: Name or service not known"


class SixServer(ThreadingHTTPServer):
    address_family = socket.AF_INET6


@pytest.fixture
def six() -> Iterator[int]:
    """A server on the loopback of IPv6 alone."""

    class Request(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            says(KVBM)(self)

        def log_message(self, *_: object) -> None:
            pass

    try:
        server = SixServer(("::1", 0), Request)
    except OSError as error:
        pytest.skip(f"this host has no IPv6 loopback: {error}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


async def test_an_endpoint_on_ipv6_alone_is_read_and_found(six: int) -> None:
    assert (await read(f"http://[::1]:{six}/metrics")).kind == "kvbm"
    assert [one.host for one in listeners() if one.port == six] == ["[::1]"]
    (found,), _ = await discovery.found_endpoints([six])
    assert found.url == f"http://[::1]:{six}/metrics"
    (named,) = discovery.named([f"[::1]:{six}"], None)
    assert named.name == found.url


async def test_a_certificate_of_its_own_is_named_and_can_be_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    asked = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [openssl, *asked, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = MetricsServer({"/metrics": says(KVBM)}, tls=context)
    try:
        url = f"https://127.0.0.1:{server.port}/metrics"
        assert "its certificate is not trusted: self" in await refusal(url)
        home = {"KVDECK_HOME": str(tmp_path / "home"), "KVDECK_RUNTIME": str(tmp_path / "run")}
        done = subprocess.run(
            [sys.executable, "-m", "kvdeck.app.cli.main", "monitor", "--once", "--json", "--source", url],
            env={**os.environ, **home, "SSL_CERT_FILE": str(certificate)},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        assert orjson.loads(done.stdout)["sources"][0]["state"] == "live"
    finally:
        server.close()


async def test_a_token_appears_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Not in a snapshot, whatever the endpoint answers, and not on the way to another host."""
    handlers = {
        "/metrics": says("who", 401),
        "/moved": says("", 302, {"Location": "http://example.invalid/metrics"}),
        "/broken": says("x" * 100, headers={"Content-Length": "oops"}),
        "/good": says(KVBM),
    }
    with metrics_server(handlers) as server:
        monkeypatch.setenv("KVDECK_MONITOR_TOKENS", f"http://127.0.0.1:{server.port}=hunter2secret")
        sampler = Sampler([Endpoint(server.url(path)) for path in handlers], hz=10)
        await sampler.start()
        try:
            snapshot = await until(sampler, server.url("/good"), "live")
            await sampler.first(5)
            snapshot = sampler.snapshot()
        finally:
            await sampler.close()
        assert b"hunter2secret" not in orjson.dumps(snapshot)
        assert {path for path, headers in server.asked if headers.get("Authorization")} == set(handlers)
        states = [source.state for source in snapshot.sources]
        assert states == ["unreachable", "unreachable", "unreachable", "live"]


def test_a_source_named_twice_is_watched_once() -> None:
    found = discovery.named(["http://127.0.0.1:1", "127.0.0.1:1/metrics", "disks", "disks"], None)
    assert [source.name for source in found] == ["http://127.0.0.1:1/metrics", "disks"]


def test_every_source_is_taken_under_the_name_it_is_listed_by(tmp_path: Path) -> None:
    listed = discovery.host_sources(tmp_path)
    assert {source.name for source in listed} >= {"disks", "network", "disk tier", "kvdeck runs"}
    found = discovery.named([source.name for source in listed], tmp_path)
    assert [(source.name, source.kind) for source in found] == [(source.name, source.kind) for source in listed]


async def test_what_is_not_there_yet_is_waited_for_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "bench_later.json"
    disks, later = discovery.named(["disks", str(path)], None, wait=True)
    assert (disks.name, later.name) == ("disks", str(path))
    with pytest.raises(SourceGone, match="does not exist yet; checked at each sample"):
        await later.read()
    path.write_bytes(dynamo.encode(dynamo.Counts("later", 1.0, ())))
    assert (await later.read()).missing == ""
    await later.close()
    for wait in (False, True):
        with pytest.raises(UsageError, match="bench_none"):
            discovery.named([str(tmp_path / "bench_none.json")], None, wait)


@pytest.mark.parametrize("text", ["http://", "http://[::1", "http://h:99999/metrics", "ftp://h/metrics", ""])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError):
        discovery.named([text], None)


async def test_a_jump_of_the_wall_clock_changes_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MetricsServer({"/metrics": says(KVBM)})
    source = Endpoint(server.url())
    sampler = Sampler([source], hz=10)
    await sampler.start()
    try:
        await until(sampler, source.name, "live")
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 86_400)
        server.handlers["/metrics"] = says(sample("dynamo_kvbm_metrics_host_repeat.prom"))
        async for snapshot in sampler.snapshots(5):
            onboarded = [flow for flow in snapshot.flows if flow.blocks_total == 28]
            if onboarded:
                break
            assert all((flow.blocks_per_s or 0) >= 0 for flow in snapshot.flows)
        assert onboarded[0].blocks_gained == 28
        assert snapshot.sources[0].state == "live"
        assert snapshot.sources[0].age_s is not None
        assert 0 <= snapshot.sources[0].age_s < 5
    finally:
        await sampler.close()
        server.close()
