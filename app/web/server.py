"""The deck behind a page of its own: textual-serve, opened with a key, and for no page of another site."""

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

REFUSED = "This page needs its key: open the address that `kvdeck serve` has printed.\n"
MOST_PAGES = 8
"""Decks that are open at once."""
MOST_MESSAGE_BYTES = 256 << 10
"""Of one message from a page: a paste of that size at most."""
QUIT_SECONDS = 5.0
"""Time for a deck to quit by itself."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.%]+\](:\d+)?")


def _same(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, in constant time; whatever bytes a browser sends."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


class Guarded(Server):
    """Serves one command to whoever has the key, in an address first and in a cookie from then on."""

    def __init__(self, command: str, host: str, port: int, title: str) -> None:
        super().__init__(command, host=host, port=port, title=title)
        self.key = secrets.token_urlsafe(24)
        """In the address; good as long as this server runs."""
        self._cookie = secrets.token_urlsafe(24)
        self._pages = 0
        """Pages whose deck is open."""
        logging.getLogger("aiohttp.access").disabled = True  # its lines hold the address, and so the key

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the verb has said where it is."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._guard)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only requests with the key through, and on a loopback address only those that name one."""
        if not _HOST.fullmatch(request.host):
            raise web.HTTPBadRequest(text="The Host header names no host.\n")
        if is_loopback(self.host) and not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            raise web.HTTPForbidden(text="This page is this host's own.\n")
        given = request.query.get("key")
        if given is not None and _same(given, self.key):
            # Always to this page: a path such as //host/ would send the browser elsewhere.
            answer = web.Response(status=303, headers={"Location": "/", "Referrer-Policy": "no-referrer"})
            answer.set_cookie(self._name, self._cookie, httponly=True, samesite="Lax")
            return answer
        kept = request.cookies.get(self._name, "")
        if not _same(kept, self._cookie):
            raise web.HTTPForbidden(text=REFUSED)
        if request.path.startswith("/static") and (self.statics_path / request.path[8:].strip("/")).is_dir():
            raise web.HTTPNotFound  # textual-serve would list its folders
        return await handler(request)

    @property
    def _name(self) -> str:
        return f"kvdeck-{self.port}"  # a browser keeps one jar for all ports of a host

    async def handle_index(self, request: web.Request) -> web.Response:
        """The page, with the addresses it was asked for by: through a forwarded port they are not the server's."""
        size = request.query.get("fontsize", "16")
        context = {
            "font_size": min(max(int(size), 6), 72) if size.isascii() and size.isdigit() and len(size) < 4 else 16,
            "app_websocket_url": f"ws://{request.host}/ws",
            "config": {"static": {"url": "/static/"}},
            "application": {"name": self.title},
        }
        answer = aiohttp_jinja2.render_template("app_index.html", request, context)
        answer.headers["X-Frame-Options"] = "DENY"
        answer.headers["Referrer-Policy"] = "no-referrer"  # the page asks another site for its font
        return answer

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """The deck's own stream, for the page that came from here and no other."""
        if urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            raise web.HTTPForbidden(text=REFUSED)
        given = (request.query.get("width", "80"), request.query.get("height", "24"))
        if not all(size.isascii() and size.isdigit() and len(size) < 10 for size in given):
            raise web.HTTPBadRequest(text="width and height are numbers of cells.\n")
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
        except ConnectionError:  # the browser is gone
            pass
        finally:
            await _end(deck)
        return page

    async def _process_messages(self, websocket: web.WebSocketResponse, app_service: AppService) -> None:
        """What the page sends: keys, its size, focus; what is none of these is passed over."""
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
    """Let a page's deck quit, and end it where it can't: what it draws may have nowhere to go any more."""
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
    """A size in cells that the deck can draw: a page may ask for any."""
    return min(max(width, 20), 500), min(max(height, 5), 200)
