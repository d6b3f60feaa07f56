"""The deck behind a page of its own: textual-serve, opened with a key, and for no page of another site."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp_jinja2
from aiohttp import web
from textual_serve.server import Server

from kvdeck.app.cli.serve import is_loopback

REFUSED = "This page needs its key: open the address that `kvdeck serve` has printed.\n"
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
        return await super().handle_websocket(request)
