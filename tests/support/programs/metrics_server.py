"""Real HTTP answers on the loopback, as a program of the test's own making gives them."""

from __future__ import annotations

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SAMPLES = Path(__file__).parent / "samples"
"""What real software printed: see docs/monitor.md for which."""

Handler = Callable[[BaseHTTPRequestHandler], None]


def sample(name: str) -> bytes:
    """The content of a sample file."""
    return gzip.decompress((SAMPLES / f"{name}.gz").read_bytes())


def sample_names() -> list[str]:
    return sorted(path.name.removesuffix(".gz") for path in SAMPLES.glob("*.prom.gz"))


def says(body: bytes | str, status: int = 200, headers: dict[str, str] | None = None) -> Handler:
    """A handler that gives this answer."""
    data = body.encode() if isinstance(body, str) else body

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    return answer


class MetricsServer:
    """Answers GET by path; a handler may be exchanged at any time."""

    def __init__(self, handlers: dict[str, Handler], port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.handlers = handlers
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.released = threading.Event()
        """Set at the end: a handler that hangs waits for it."""
        server = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.asked.append((self.path, dict(self.headers)))
                handler = server.handlers.get(self.path) or says("no such page", 404)
                try:
                    handler(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Request)
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def url(self, path: str = "/metrics") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()


@contextmanager
def metrics_server(handlers: dict[str, Handler]) -> Iterator[MetricsServer]:
    server = MetricsServer(handlers)
    try:
        yield server
    finally:
        server.close()
