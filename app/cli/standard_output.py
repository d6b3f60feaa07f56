"""Standard output and error of the command line; only kvdeck's own escape sequences reach a terminal raw.

All writes to `sys.stdout` and `sys.stderr` go through `Output.write`, which shows control characters as text.
kvdeck's own sequences (colours, links, the redrawn progress line) go through `Output.own`, after any foreign text
in them was escaped.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click
import orjson

from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.host.escapes import visible, visible_json


class OutputError(KvdeckError):
    """Standard output can't be written, for example because its disk is full."""


@contextlib.contextmanager
def _named_failure() -> Iterator[None]:
    """Turn an OSError into an OutputError, except BrokenPipeError, which passes through.

    Raises:
        OutputError: A write failed.
        BrokenPipeError: The reader closed the pipe.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't write to stdout: {error.strerror or error}", "free disk space, or redirect to another place"
        ) from error


class Output(io.TextIOBase):
    """A text stream that escapes control characters in what is written.

    Args:
        stream: The stream that receives the escaped text.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with control characters escaped, except newlines."""
        self.own(visible(text, lines=True))
        return len(text)

    def own(self, text: str) -> None:
        """Write text unescaped, for kvdeck's own escape sequences."""
        with _named_failure():
            self._stream.write(text)

    def own_bytes(self, data: bytes) -> None:
        """Write bytes unescaped, for a file's content sent to a pipe."""
        with _named_failure():
            self._stream.flush()
            self._stream.buffer.write(data)

    def flush(self) -> None:
        with _named_failure():
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self._stream.errors


def guard_streams() -> None:
    """Replace `sys.stdout` and `sys.stderr` by `Output` streams, which escape control characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, Output):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # an encoding without µ shows ? instead of ending the run
        setattr(sys, name, Output(stream))


def echo_own(text: str, *, err: bool = False, newline: bool = True) -> None:
    """Print text with kvdeck's own escape sequences; foreign text in it must be escaped already.

    Outside a terminal the colours and other sequences that `click.unstyle` recognises are removed.
    """
    stream: Any = sys.stderr if err else sys.stdout
    if stream is None:
        return
    if not stream.isatty():
        text = click.unstyle(text)
    own = stream.own if isinstance(stream, Output) else stream.write
    own(text + "\n" if newline else text)
    stream.flush()


def echo_json(data: Any, *, indent: bool = False) -> None:
    """Print JSON on standard output, on one line or indented. Controls are escaped as `\\uXXXX`: values stay exact."""
    text = visible_json(_json_text(data, indent))
    stream: Any = sys.stdout
    if stream is None:
        return
    (stream.own if isinstance(stream, Output) else stream.write)(text + "\n")
    stream.flush()


def _json_text(data: Any, indent: bool) -> str:
    from kvdeck.sessions.model.encoding import fields_of  # deferred: help needs no records

    try:
        return orjson.dumps(data, default=fields_of, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    except TypeError:  # integers beyond 64 bits, which orjson rejects
        import json

        import msgspec

        plain, separators = msgspec.to_builtins(data), None if indent else (",", ":")
        return json.dumps(plain, indent=2 if indent else None, separators=separators, ensure_ascii=False)


def write_bytes(data: bytes) -> None:
    """Write a file's content to standard output: unchanged to a pipe or file, escaped on a terminal."""
    stream: Any = sys.stdout
    if stream is None:
        return
    if stream.isatty():
        stream.write(data.decode(errors="backslashreplace"))
    elif isinstance(stream, Output):
        stream.own_bytes(data)
    else:
        stream.buffer.write(data)
    stream.flush()
