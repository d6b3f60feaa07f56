"""The deck in a browser: a page of this host only, drawn in a real Chromium, and nothing left when the page goes."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from kvdeck.app.cli import call
from kvdeck.app.verbs.serve import is_loopback

aiohttp = pytest.importorskip("aiohttp", reason="textual-serve is not installed: the extra `web`")
pytest.importorskip("textual_serve", reason="textual-serve is not installed: the extra `web`")
PATIENCE_S = 30.0
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, psutil.Process]]:
    number = port()
    environ = {**os.environ, "KVDECK_RUNTIME": str(tmp_path / "rt"), "KVDECK_IDLE_EXIT": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "kvdeck.app.cli", "serve", "--port", str(number)],
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address, deadline = f"http://127.0.0.1:{number}", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    yield address, psutil.Process(process.pid)
    process.send_signal(signal.SIGTERM)
    process.wait(PATIENCE_S)


def upgraded(address: str, origin: str) -> int:
    """The status that the deck's socket answers a page of an origin with."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE_S)
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Origin": origin,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    try:
        connection.request("GET", "/ws?width=80&height=24", headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()


def test_no_other_page_opens_the_deck(served: tuple[str, psutil.Process]):
    address, server = served
    assert upgraded(address, "http://evil.example") == 403
    assert upgraded(address, "null") == 403
    assert server.children() == []
    assert upgraded(address, address) == 101


def decks(server: psutil.Process) -> list[psutil.Process]:
    return [child for child in server.children() if "kvdeck.app.tui" in " ".join(child.cmdline())]


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
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
async def test_a_real_browser_draws_it_and_leaves_nothing(served: tuple[str, psutil.Process], tmp_path: Path):
    address, server = served
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
    assert re.search("no password.*--anyone", capsys.readouterr().err)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback(host: str):
    assert is_loopback(host)
