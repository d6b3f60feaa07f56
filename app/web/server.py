"""A textual-serve server for the deck that requires a key and rejects pages of other sites."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp_jinja2
from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.server import Server

from kvdeck.app.cli.serve import is_loopback

REFUSED = "This page needs its key: open the address that `kvdeck serve` printed.\n"
MOST_PAGES = 8
"""Open decks at once, at most."""
MOST_MESSAGE_BYTES = 256 << 10
"""Bytes of one message from a page, at most; this also limits a paste."""
QUIT_SECONDS = 5.0
"""Seconds a deck has to quit before it is killed."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.%]+\](:\d+)?")


def _same(given: str, wanted: str) -> bool:
    """Compare two secrets in constant time; accepts undecodable bytes from a browser."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


class Guarded(Server):
    """Serves one command to clients with the key: first in the URL, afterwards in a cookie."""

    def __init__(self, command: str, host: str, port: int, title: str) -> None:
        super().__init__(command, host=host, port=port, title=title)
        self.key = secrets.token_urlsafe(24)
        """Part of the URL; valid while this server runs."""
        self._cookie = secrets.token_urlsafe(24)
        self._pages = 0
        """Number of open decks."""
        logging.getLogger("aiohttp.access").disabled = True  # access logs would contain the URL with the key

    async def on_startup(self, app: web.Application) -> None:
        """Print nothing: `kvdeck serve` has already printed the URL."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Pass on requests that have the key; redirect a request with the key in its URL to `/`, with a cookie.

        If the server listens on a loopback address, the Host header must name one too (against DNS rebinding).

        Raises:
            web.HTTPBadRequest: The Host header is invalid.
            web.HTTPForbidden: The key is missing or wrong, or the Host header names another host.
            web.HTTPNotFound: The path is a folder of static files.
        """
        if not _HOST.fullmatch(request.host):
            raise web.HTTPBadRequest(text="The Host header names no host.\n")
        if is_loopback(self.host) and not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise web.HTTPForbidden(text="This page is only for this host.\n")
        given = request.query.get("key")
        if given is not None and _same(given, self.key):
            # Never redirect to the requested path: one like //host/ would lead to another site.
            answer = web.Response(status=303, headers={"Location": "/", "Referrer-Policy": "no-referrer"})
            answer.set_cookie(self._name, self._cookie, httponly=True, samesite="Lax")
            return answer
        kept = request.cookies.get(self._name, "")
        if not _same(kept, self._cookie):
            raise web.HTTPForbidden(text=REFUSED)
        if request.path.startswith("/static") and (self.statics_path / request.path[8:].strip("/")).is_dir():
            raise web.HTTPNotFound  # textual-serve would list the folder
        return await handler(request)

    @property
    def _name(self) -> str:
        return f"kvdeck-{self.port}"  # browsers share cookies between all ports of a host

    async def handle_index(self, request: web.Request) -> web.Response:
        """Return the page, with URLs from the Host header: behind a forwarded port the server's own don't work."""
        size = request.query.get("fontsize", "16")
        context = {
            "font_size": min(max(int(size), 6), 72) if size.isascii() and size.isdigit() and len(size) < 4 else 16,
            "app_websocket_url": f"ws://{request.host}/ws",
            "config": {"static": {"url": "/static/"}},
            "application": {"name": self.title},
        }
        answer = aiohttp_jinja2.render_template("app_index.html", request, context)
        answer.headers["X-Frame-Options"] = "DENY"
        answer.headers["Referrer-Policy"] = "no-referrer"  # the page loads its font from another site
        return answer

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Stream a deck to a page from this server.

        Raises:
            web.HTTPForbidden: The Origin header names another site.
            web.HTTPBadRequest: The width or height is not a number.
            web.HTTPServiceUnavailable: `MOST_PAGES` decks are open.
        """
        if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            raise web.HTTPForbidden(text=REFUSED)
        given = (request.query.get("width", "80"), request.query.get("height", "24"))
        if not all(size.isascii() and size.isdigit() and len(size) < 10 for size in given):
            raise web.HTTPBadRequest(text="width and height must be numbers of cells.\n")
        if self._pages >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text=f"{MOST_PAGES} pages are open; close one first.\n")
        self._pages += 1
        try:
            return await self._stream(request, *_bounded(*map(int, given)))
        finally:
            self._pages -= 1

    async def _stream(self, request: web.Request, width: int, height: int) -> web.WebSocketResponse:
        page = web.WebSocketResponse(heartbeat=15, max_msg_size=MOST_MESSAGE_BYTES)
        await page.prepare(request)

        async def close() -> None:
            await page.close()

        deck = AppService(
            self.command,
            write_bytes=page.send_bytes,
            write_str=page.send_str,
            close=close,
            download_manager=self.download_manager,
            debug=self.debug,
        )
        try:
            await deck.start(width, height)
            await self._process_messages(page, deck)
        except asyncio.CancelledError:
            await page.close()
        except ConnectionError:  # the browser has disconnected
            pass
        finally:
            await _end(deck)
        return page

    async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
        """Handle a page's messages (keys, size, ping, focus) until it closes; ignore invalid ones."""
        async for message in websocket:
            if message.type != WSMsgType.TEXT:
                continue
            try:
                kind, data = (*message.json(), None)[:2]
                if kind == "stdin":
                    await app_service.send_bytes(data.encode())
                elif kind == "resize":
                    await app_service.set_terminal_size(*_bounded(int(data["width"]), int(data["height"])))
                elif kind == "ping":
                    await websocket.send_json(["pong", data])
                elif kind == "blur":
                    await app_service.blur()
                elif kind == "focus":
                    await app_service.focus()
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                continue


async def _end(deck: AppService) -> None:
    """Stop a page's deck; kill it after `QUIT_SECONDS`, since it may block on output that is no longer read."""
    try:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(deck.stop(), QUIT_SECONDS)
    finally:
        process = deck._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _bounded(width: int, height: int) -> tuple[int, int]:
    """Clamp a page's size (in cells) to one that the deck can draw."""
    return min(max(width, 20), 500), min(max(height, 5), 200)
