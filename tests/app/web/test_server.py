"""The deck in a browser: a page of this host only, drawn in a real Chromium, and nothing left when the page goes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from kvdeck.app.cli.main import call
from kvdeck.app.cli.serve import is_loopback

aiohttp = pytest.importorskip("aiohttp", reason="textual-serve is not installed: the extra `web`")
pytest.importorskip("textual_serve", reason="textual-serve is not installed: the extra `web`")
PATIENCE_S = 30.0
REQUIRED = "KVDECK_BROWSER"
"""Set (as CI does), a missing Chromium fails the test; else it skips it."""
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass(frozen=True)
class Served:
    """A server, where it is, and the address with the key that it has printed."""

    process: psutil.Process
    port: int
    address: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    number = port()
    environ = {**os.environ, "KVDECK_RUNTIME": str(tmp_path / "rt"), "KVDECK_IDLE_EXIT": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kvdeck.app.cli.main", "serve", "--port", str(number)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", number), timeout=5).close()
            break
        except ConnectionError:
            time.sleep(0.05)
    yield Served(psutil.Process(process.pid), number, address)
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


def asked(served: Served, path: str, **headers: str) -> http.client.HTTPResponse:
    """The answer to a request, without following where it leads."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse()


def opened(served: Served, **headers: str) -> str:
    """The cookie that the printed address gives."""
    answer = asked(served, served.address.partition(str(served.port))[2], **headers)
    assert (answer.status, answer.headers["Location"]) == (303, "/")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    return cookie.partition(";")[0]


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def test_nobody_gets_in_without_the_key(served: Served):
    assert re.fullmatch(rf"http://127\.0\.0\.1:{served.port}/\?key=[\w-]{{32}}", served.address)
    stale = f"kvdeck-{served.port}=guessed"
    for path in ("/", "/?key=", "/?key=guessed", "/?key=%C3%A9", "/static/js/textual.js", "/static/", "/download/x"):
        assert asked(served, path).status == 403
        assert asked(served, path, Cookie=stale).status == 403
    assert asked(served, "/ws?width=80&height=24", **UPGRADE, Origin=served.address.partition("/?")[0]).status == 403
    assert served.process.children() == []
    cookie = opened(served)
    page = asked(served, "/", Cookie=cookie)
    assert page.status == 200
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert served.address.partition("=")[2] not in page.read().decode()
    assert asked(served, "/static/js/textual.js", Cookie=cookie).status == 200


def test_no_other_page_opens_the_deck(served: Served):
    cookie, here = opened(served), f"http://127.0.0.1:{served.port}"
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}", ""):
        assert asked(served, "/ws?width=80&height=24", **UPGRADE, Cookie=cookie, Origin=origin).status == 403
    assert served.process.children() == []
    assert asked(served, "/ws?width=80&height=24", **UPGRADE, Cookie=cookie, Origin=here).status == 101


def test_a_name_of_another_site_that_leads_here_is_refused(served: Served):
    cookie = opened(served)
    assert asked(served, "/", Cookie=cookie, Host=f"evil.example:{served.port}").status == 403
    assert asked(served, served.address.partition(str(served.port))[2], Host="evil.example").status == 403


def test_odd_requests_are_answered_and_lead_nowhere_else(served: Served):
    cookie, key = opened(served), served.address.partition("=")[2]
    for size in ("²", "%C2%B2", "9" * 500, "-1", "", "0", "x"):
        assert asked(served, f"/?fontsize={size if size.isascii() else '%C2%B2'}", Cookie=cookie).status == 200
    for path in (f"//evil.example/?key={key}", f"//evil.example/..?key={key}", f"/static/?key={key}"):
        answer = asked(served, path)
        assert answer.status in (303, 404)
        assert answer.headers.get("Location", "/") == "/"
    for odd in (f"kvdeck-{served.port}=\xff\xfe", "=;;=", 'kvdeck="', "a" * 4000):
        assert asked(served, "/", Cookie=odd).status == 403
    for folder in ("/static", "/static/", "/static/js/", "/static/css"):
        assert asked(served, folder, Cookie=cookie).status == 404
    assert asked(served, "/", Cookie=cookie, Host='127.0.0.1:1";alert(1)').status == 400


def test_through_a_forwarded_port_the_page_leads_back_through_it(served: Served):
    cookie = opened(served, Host="localhost:9999")
    page = asked(served, "/", Cookie=cookie, Host="localhost:9999").read().decode()
    assert "ws://localhost:9999/ws" in page
    assert str(served.port) not in page
    upgraded = asked(served, "/ws", **UPGRADE, Cookie=cookie, Host="localhost:9999", Origin="http://localhost:9999")
    assert upgraded.status == 101


def decks(server: psutil.Process) -> list[psutil.Process]:
    """The decks that run; one that has ended and is not yet waited for has no command line any more."""
    found = []
    for child in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "kvdeck.app.tui.launch" in " ".join(child.cmdline()):
                found.append(child)
    return found


async def drawn(profile: Path) -> bytes:
    """The page's picture once the deck is drawn in it, by Chromium's own debugging protocol."""
    deadline, active = time.monotonic() + PATIENCE_S, profile / "DevToolsActivePort"
    while not active.exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    number = active.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{number}/json") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=1 << 26) as page:
            best = b""
            while time.monotonic() < deadline:
                await page.send_json({"id": 1, "method": "Page.captureScreenshot"})
                reply = await page.receive_json()
                picture = base64.b64decode(reply["result"]["data"])
                # An empty page packs into a few kB; one that no longer grows is drawn.
                if len(picture) > 20_000 and len(picture) <= len(best):
                    return picture
                best = picture
                await asyncio.sleep(0.5)
    raise AssertionError(f"nothing was drawn: {len(best)} B of picture")


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM and REQUIRED not in os.environ, reason="no Chromium is installed")
async def test_a_real_browser_draws_it_and_leaves_nothing(served: Served, tmp_path: Path):
    assert CHROMIUM, "no Chromium is installed"
    address, server = served.address, served.process
    words = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--window-size=1200,800")
    profile = tmp_path / "profile"
    browser = subprocess.Popen(
        [CHROMIUM, *words, f"--user-data-dir={profile}", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        (tmp_path / "page.png").write_bytes(await drawn(profile))
        assert len(decks(server)) == 1
    finally:
        browser.terminate()
        browser.wait(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while decks(server) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert decks(server) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_an_address_that_others_reach_is_refused_unless_it_is_meant(host: str, capsys: pytest.CaptureFixture[str]):
    assert not is_loopback(host)
    assert call(["serve", "--host", host]) == 2
    assert re.search("unencrypted.*fix: .*--anyone", capsys.readouterr().err)
    assert call(["serve", "--host", host, "--anyone", "--control"]) == 2
    assert re.search("omit --control", capsys.readouterr().err)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback(host: str):
    assert is_loopback(host)


def upgraded(served: Served, cookie: str, size: str) -> socket.socket:
    """A WebSocket that was asked for with a size; its answer's head was read."""
    link = socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S)
    lines = [f"GET /ws?{size} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", f"Origin: http://127.0.0.1:{served.port}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in UPGRADE.items()]
    link.sendall("\r\n".join([*lines, f"Cookie: {cookie}", "", ""]).encode())
    return link


@pytest.mark.parametrize("size", ["width=wide&height=5", "width=80&height=", "width=-1&height=5", "width=1e3&height=5"])
def test_a_size_that_is_no_number_is_refused(served: Served, size: str):
    assert upgraded(served, opened(served), size).recv(100).startswith(b"HTTP/1.1 400")


def test_any_size_is_drawn_within_bounds_and_pages_are_counted(served: Served):
    cookie = opened(served)
    pages = [upgraded(served, cookie, "width=99999999&height=99999999") for _ in range(8)]
    assert all(page.recv(40).startswith(b"HTTP/1.1 101") for page in pages)
    assert upgraded(served, cookie, "width=80&height=24").recv(100).startswith(b"HTTP/1.1 503")
    for page in pages:
        page.close()
    deadline = time.monotonic() + PATIENCE_S
    while decks(served.process) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not decks(served.process)


def test_a_size_is_kept_within_what_can_be_drawn():
    from kvdeck.app.web.server import _bounded

    assert [_bounded(*size) for size in ((80, 24), (1, 1), (10**9, 10**9))] == [(80, 24), (20, 5), (500, 200)]
