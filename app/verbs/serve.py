"""`kvdeck serve`: the deck in a browser of this host, through textual-serve."""

from __future__ import annotations

import ipaddress
import shlex
import sys

import click

from kvdeck.sessions.errors import UsageError


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8123, show_default=True, help="TCP port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; see --anyone.")
@click.option("--control", is_flag=True, help="Let the page launch and cancel runs; else it is read-only.")
@click.option("--anyone", is_flag=True, help="Allow an address that other hosts reach. There is no password.")
def serve(port: int, host: str, control: bool, anyone: bool) -> int:
    """Show the deck in a browser, on this host only. Forward the port by SSH to see it elsewhere."""
    if not anyone and not is_loopback(host):
        raise UsageError(
            f"{host} is reached from other hosts, and the page has no password",
            "forward the port by `ssh -L`, or say --anyone",
        )
    try:
        from kvdeck.app.browser import Loopback
    except ImportError:
        raise UsageError("textual-serve is not installed", "install kvdeck with the extra: kvdeck[web]") from None
    command = shlex.join([sys.executable, "-m", "kvdeck.app.tui", *([] if control else ["--readonly"])])
    click.echo(
        f"http://{host}:{port}{'' if control else ' (read-only)'} · forward it by ssh -L {port}:127.0.0.1:{port}"
    )
    Loopback(command, host=host, port=port, title="kvdeck").serve()
    return 0


def is_loopback(host: str) -> bool:
    """Whether only this host reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
