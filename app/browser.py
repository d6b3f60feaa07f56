"""The deck behind a page of its own: textual-serve, which lets no other page open the deck's socket."""

from __future__ import annotations

from aiohttp import web
from textual_serve.server import Server


class Loopback(Server):
    """Serves one command to pages of its own origin: no other site in the browser gets at this host's port."""

    async def on_startup(self, app: web.Application) -> None:
        """Say nothing: the verb has said where it is."""

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        if request.headers.get("Origin") not in (self.public_url, f"http://localhost:{self.port}"):
            raise web.HTTPForbidden(text=f"open the deck at {self.public_url}")
        return await super().handle_websocket(request)
