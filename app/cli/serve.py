"""`kvdeck serve`: the deck in a browser on this host, through textual-serve."""

from __future__ import annotations

import ipaddress
import platform
import shlex
import sys

import click

from kvdeck.sessions.errors import UsageError


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8123, show_default=True, help="TCP port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="A loopback address; see --anyone.")
@click.option("--control", is_flag=True, help="Let the page start and cancel runs; otherwise it is read-only.")
@click.option("--anyone", is_flag=True, help="Allow an address that other hosts can reach, over plain HTTP; read-only.")
def serve(port: int, host: str, control: bool, anyone: bool) -> int:
    """Show the deck in a browser on this host. Forward the port by SSH to open it elsewhere.

    The printed address contains a key; the page can't be opened without it.
    """
    if not is_loopback(host):
        if control:
            raise UsageError(
                f"other hosts can reach {host}: commands to the engine would cross the network unencrypted",
                "omit --control, or forward the port of a loopback address by `ssh -L`",
            )
        if not anyone:
            raise UsageError(
                f"other hosts can reach {host}: the page's key would cross the network unencrypted",
                "forward the port by `ssh -L`, or add --anyone",
            )
    try:
        from kvdeck.app.web.server import Guarded
    except ImportError:
        raise UsageError("textual-serve is not installed", "install kvdeck with the extra: kvdeck[web]") from None
    command = "exec " + shlex.join(
        [sys.executable, "-m", "kvdeck.app.tui.launch", *([] if control else ["--readonly"])]
    )
    page = Guarded(command, host=host, port=port, title="kvdeck")
    click.echo(f"http://{_named(host)}:{port}/?key={page.key}")
    click.echo(
        f"{'starts and cancels runs' if control else 'read-only'} · the key is valid until this command ends"
        + (f" · from another host: ssh -L {port}:{_named(host)}:{port}" if is_loopback(host) else ""),
        err=True,
    )
    page.serve()
    return 0


def _named(host: str) -> str:
    """Return an address for a URL: this host's name for a wildcard address, brackets around IPv6."""
    if host in ("0.0.0.0", "::", ""):
        # A browser can't open a wildcard address.
        return platform.node()
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """True if an address is a loopback address, which only this host can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
