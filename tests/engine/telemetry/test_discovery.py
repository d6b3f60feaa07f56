"""Discovery on this host: serving processes on any port, slow exporters, and processes without an endpoint."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from kvdeck.engine.telemetry import discovery
from kvdeck.engine.telemetry.listeners import listeners
from kvdeck.engine.telemetry.sources.processes import Serving
from kvdeck.engine.telemetry.sources.prometheus import LONGEST_S, TIMEOUT_S, Endpoint
from kvdeck.engine.telemetry.tracker import Track
from tests.support.programs.metrics_server import metrics_server, sample, says

KVBM = sample("dynamo_kvbm_metrics_host_cold.prom")
LISTENS = """
import http.server, subprocess, sys
if sys.argv[1] == "metrics":
    subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"kvbm_matched_tokens 1\\n" if sys.argv[1] == "metrics" else b"<html>"
        self.send_response(200 if self.path == "/metrics" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
if sys.argv[1] == "nothing":
    print(0, flush=True)
    sys.stdin.read()
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def engine(folder: Path, what: str) -> Iterator[tuple[Serving, int]]:
    """A process of its own session that is called as an engine is, and its port; 0 if it listens on none."""
    script = folder / "vllm"
    script.write_text(LISTENS)
    process = subprocess.Popen(
        [sys.executable, str(script), what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield Serving(process.pid, "vllm", None), int(process.stdout.readline())
    finally:
        for child in psutil.Process(process.pid).children():
            child.kill()
        process.kill()
        process.communicate()


async def test_a_serving_process_is_found_on_whatever_port_it_listens(tmp_path: Path) -> None:
    with engine(tmp_path, "metrics") as (process, port):
        found, silent = await discovery.found_endpoints([], [process])
        assert [one.url for one in found] == [f"http://127.0.0.1:{port}/metrics"]
        assert silent == ()
        assert await discovery.found_endpoints([], []) == ([], ()), "nothing else is contacted"


async def test_a_serving_process_without_an_endpoint_is_listed_with_the_reason(tmp_path: Path) -> None:
    with engine(tmp_path, "nothing") as (still, _), engine(tmp_path, "page") as (page, port):
        found, silent = await discovery.found_endpoints([], [still, page])
        assert found == []
        assert dict(silent) == {
            f"vllm {still.pid}": "listens on no TCP port",
            f"vllm {page.pid}": f"port {port}: serves a web page, not metrics",
        }


async def test_a_worker_of_an_engine_that_has_an_endpoint_is_not_missing_one(tmp_path: Path) -> None:
    with engine(tmp_path, "metrics") as (process, _):
        (worker,) = psutil.Process(process.pid).children()
        found, silent = await discovery.found_endpoints([], [process, Serving(worker.pid, "vllm worker", None)])
        assert (len(found), silent) == (1, ())


async def test_an_exporter_that_takes_its_time_is_found_and_is_slow_but_not_gone() -> None:
    with metrics_server({}) as server:

        def slowly(request: object) -> None:
            server.released.wait(0.7)
            says(KVBM)(request)  # type: ignore[arg-type]

        server.handlers["/metrics"] = slowly
        port = int(server.url().rsplit(":", 1)[1].split("/")[0])
        (found,), _ = await discovery.found_endpoints([port])
        assert found.kind == "kvbm"
        source, track = Endpoint(server.url()), Track("a", "kvbm")
        reading = await source.read()
        assert 0.7 <= reading.took_s < 2.0
        track.took(reading, reading.t_ns)
        status = track.status(reading.t_ns + 10**9, 0.5)
        assert (status.state, status.reason[:6]) == ("live", "slow (")
        assert track.status(reading.t_ns + int(1.6e9), 0.5).state == "live", "the next answer may take as long"
        await source.close()


async def test_patience_follows_the_source() -> None:
    with metrics_server({}) as server:
        server.handlers["/metrics"] = says(KVBM)
        source = Endpoint(server.url())
        assert source._pace_s == LONGEST_S, "nothing is known of the first answer"
        await source.read()
        assert source._pace_s == TIMEOUT_S
        await source.close()


async def test_a_search_ends_in_time_whatever_a_port_does() -> None:
    with metrics_server({}) as server:
        server.handlers["/metrics"] = lambda _: server.released.wait(30) and None
        port = int(server.url().rsplit(":", 1)[1].split("/")[0])
        begun = asyncio.get_running_loop().time()
        assert await discovery.found_endpoints([port]) == ([], ())
        assert asyncio.get_running_loop().time() - begun < discovery.SEARCH_S + 2.0


def test_the_addresses_of_listeners_are_read(tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    head = "  sl  local_address rem_address st tx rx tr tm retr uid timeout inode\n"
    row = "   0: {} 00000000:0000 0A 0:0 0:0 0 0 0 {} 1 0\n"
    (tmp_path / "proc/net/tcp").write_text(
        head + row.format("0100007F:1F40", 11) + row.format("00000000:1F41", 12) + row.format("0A00000A:1F42", 13)
    )
    (tmp_path / "proc/net/tcp6").write_text(
        head
        + row.format("00000000000000000000000001000000:1F43", 14)
        + row.format("0000000000000000FFFF00000100007F:1F44", 15)
    )
    found = {one.port: (one.host, one.loopback, one.inode) for one in listeners(tmp_path)}
    assert found == {
        8000: ("127.0.0.1", True, 11),
        8001: ("127.0.0.1", True, 12),
        8002: ("10.0.0.10", False, 13),
        8003: ("[::1]", True, 14),
        8004: ("127.0.0.1", True, 15),
    }
