"""The one reader of what a user types as a source: `monitor --source`, `run --record`, and the Monitor's dialog."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from kvdeck.engine.telemetry.sources.nixl_ring import rings_in
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import refuse_credentials
from kvdeck.sessions.host.user_home import expanded

SourceForm = Literal["host", "endpoint", "rings", "ring", "session"]
HOST_SOURCES: Mapping[str, str] = MappingProxyType(
    {
        "disks": "disks",
        "network": "network",
        "fabric": "fabric",
        "nvidia-fs": "nvidia-fs",
        "cufile": "cufile",
        "gpus": "gpus",
        "processes": "processes",
        "disk-tier": "disk tier",
        "runs": "kvdeck runs",
    }
)
"""Values of `--source` that name the host's own counters, and the names of these sources in a list."""
FORMS = "give host:port, http://host:port/path, a file or folder with telemetry rings, or a session's .json"
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?\]")
_HTTP = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class SourceAddress:
    """What a text names: the form of the source, and the text that names it from any folder of this host.

    The text is a name in `HOST_SOURCES`, a URL with its path, or an absolute path.
    """

    form: SourceForm
    text: str

    @property
    def path(self) -> Path:
        """The path of a ring, a folder of rings or a session."""
        return Path(self.text)

    @property
    def listed(self) -> str:
        """The name under which a search lists the source; of a folder of rings, the folder."""
        if self.form == "host":
            return HOST_SOURCES[self.text]
        return f"{self.form} {self.text}" if self.form in ("ring", "session") else self.text


def source_address(text: str) -> SourceAddress:
    """Return what a text names as a source.

    Raises:
        UsageError: It names none. The message says why and how to write it, and repeats no credential.
    """
    text = text.strip()
    if not text:
        raise UsageError("the source is empty", FORMS)
    for name, listed in HOST_SOURCES.items():
        if text in (name, listed):
            return SourceAddress("host", name)
    if is_path(text):
        return _of_path(source_path(text))
    if text.startswith(_HTTP):
        return SourceAddress("endpoint", checked_url(text))
    refuse_credentials(text, "the source")
    scheme, separator, rest = text.partition("://")
    if separator:
        fix = f"give the path alone: {rest}" if scheme in ("file", "unix") and rest else "give http://host:port/metrics"
        raise UsageError(f"the source {text!r} is not an http address", fix)
    if _exists(source_path(text)):
        return _of_path(source_path(text))
    return _of_network(text)


def is_path(text: str) -> bool:
    """True if a text is written as a path, whether or not it exists: `/tmp/x`, `./x`, `~/x`, `ring /tmp/x`."""
    return text.startswith(("/", "./", "../", "~", "ring ", "session ")) or text in (".", "..")


def source_path(text: str) -> Path:
    """Return the absolute path in a text, without the prefix of a listed source (`ring /path`, `session /path`)."""
    return expanded(text.removeprefix("ring ").removeprefix("session ")).absolute()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _of_path(path: Path) -> SourceAddress:
    try:
        if path.is_dir():
            if not rings_in(path):
                fix = "start the agent with NIXL_TELEMETRY_ENABLE=y and NIXL_TELEMETRY_DIR set to it first"
                raise UsageError(f"{path} has no telemetry ring", fix)
            return SourceAddress("rings", str(path))
        if path.is_file():
            return SourceAddress("session" if path.suffix == ".json" else "ring", str(path))
        if path.exists():
            raise UsageError(f"{path} is a socket or device, which is no source", FORMS)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{path} can't be read: {reason}", "give a path that this user can read") from None
    raise UsageError(f"{path} does not exist", "check the path; a ring appears once its agent runs")


def _of_network(text: str) -> SourceAddress:
    """Return the endpoint in `:8000`, `host:8000` or `host:8000/path`."""
    authority, slash, path = text.partition("/")
    host, colon, port = authority.rpartition(":")
    if not colon:
        raise UsageError(_unknown(text), _fix_of(authority, slash + path))
    host = host or "127.0.0.1"
    if not _HOST.fullmatch(host):
        raise UsageError(_unknown(text), FORMS)
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536):
        raise UsageError(f"{port!r} in the source {text!r} is not a port", "give a number from 1 to 65535")
    return SourceAddress("endpoint", checked_url(f"http://{host}:{port}{slash}{path}"))


def _unknown(text: str) -> str:
    return f"the source {text!r} is not an address, a path or one of {', '.join(HOST_SOURCES)}"


def _fix_of(authority: str, path: str) -> str:
    """Return how to write a text that has no port: a port alone, a near name of the host's, or a host."""
    if authority.isascii() and authority.isdigit():
        return f"for a port of this host give :{authority}{path}"
    near = difflib.get_close_matches(authority.lower(), HOST_SOURCES, 1)
    if near:
        return f"did you mean {near[0]}? `kvdeck monitor --list-sources` lists what this host has"
    if _HOST.fullmatch(authority):
        return f"for an endpoint give its port, {authority}:PORT{path}; for a file its path, ./{authority}{path}"
    return FORMS


def checked_url(url: str) -> str:
    """Return the URL with scheme and path; the defaults are `http` and `/metrics`.

    Raises:
        UsageError: It isn't an HTTP address, or contains a credential.
    """
    text = refuse_credentials(url if "://" in url else f"http://{url}", "the source")
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"the source is not an address: {error}", "give http://host:port/metrics") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"the source {url!r} is not an http address", "give http://host:port/metrics")
    return text if parts.path not in ("", "/") else parts._replace(path="/metrics").geturl()
