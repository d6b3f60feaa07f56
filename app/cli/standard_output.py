"""Standard output and error of the command line: what reaches a terminal raw is kvdeck's own, and nothing else.

All that is written to `sys.stdout` and `sys.stderr` passes `Output.write`, which writes control characters out as
text. kvdeck's own sequences (colours, links, the line that is drawn again) go through `own`, after the foreign text
in them was made visible.
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
    """What is printed has nowhere to go: the disk behind it is full, say."""


@contextlib.contextmanager
def _named_failure() -> Iterator[None]:
    """A failure to write, but for a pipe that was closed, as one sentence.

    Raises:
        OutputError: It could not be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"can't write what is printed: {error.strerror or error}", "make room there, or send it elsewhere"
        ) from error


class Output(io.TextIOBase):
    """A text stream that shows foreign text escaped.

    Args:
        stream: Where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text with what a terminal would obey written out; newlines stay."""
        self.own(visible(text, lines=True))
        return len(text)

    def own(self, text: str) -> None:
        """Write kvdeck's own sequences as they are."""
        with _named_failure():
            self._stream.write(text)

    def own_bytes(self, data: bytes) -> None:
        """Write a file's bytes as they are, for whoever takes them from a pipe."""
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
    """Let standard output and error of this process escape what is written to them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, Output):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that can't spell µ shows ? and loses no run
        setattr(sys, name, Output(stream))


def echo_own(text: str, *, err: bool = False, newline: bool = True) -> None:
    """Print text that holds kvdeck's own sequences around text that was made visible; without them in a pipe."""
    stream: Any = sys.stderr if err else sys.stdout
    if stream is None:
        return
    if not stream.isatty():
        text = click.unstyle(text)
    own = stream.own if isinstance(stream, Output) else stream.write
    own(text + "\n" if newline else text)
    stream.flush()


def echo_json(data: Any, *, indent: bool = False) -> None:
    """Print JSON on standard output, as one line or indented; its values stay exact."""
    text = visible_json(_json_text(data, indent))
    stream: Any = sys.stdout
    if stream is None:
        return
    (stream.own if isinstance(stream, Output) else stream.write)(text + "\n")
    stream.flush()


def _json_text(data: Any, indent: bool) -> str:
    try:
        return orjson.dumps(data, option=orjson.OPT_INDENT_2 if indent else 0).decode()
    except TypeError:  # whole numbers beyond 64 bits, which JSON has and orjson hasn't
        import json
        from dataclasses import asdict

        separators = None if indent else (",", ":")
        return json.dumps(data, default=asdict, indent=2 if indent else None, separators=separators, ensure_ascii=False)


def write_bytes(data: bytes) -> None:
    """Write a file's content to standard output: as it is into a pipe or file, escaped on a terminal."""
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
