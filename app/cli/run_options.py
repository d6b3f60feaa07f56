"""The options of `kvdeck run`, one per field of `RunSpec`, and their parsing."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click

from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import is_folder
from kvdeck.sessions.host.user_home import expanded


@dataclass(frozen=True, slots=True)
class Asked:
    """One option: how its text is parsed, its spellings and placeholder, its help, and the field it sets."""

    kind: str
    """One of `number`, `decimal`, `size`, `range`, `names`, `text`, `pairs`, `on`, `off`, `on/off`."""
    spelling: str
    help: str
    named: str = ""
    """Field of `RunSpec`, if it differs from the spelling."""

    @property
    def option(self) -> str:
        return self.spelling.split("/")[0].split()[0]

    @property
    def field(self) -> str:
        return self.named or self.option.removeprefix("--").replace("-", "_")


GROUPS: dict[str, tuple[Asked, ...]] = {
    "Paths and layouts": (
        Asked("names", "--path PATH", "Such as HostToDisk; repeatable. Default: every ready path.", "paths"),
        Asked(
            "names",
            "--layout LAYOUT",
            "FullyContiguous (fc), LayerSeparate (ls), ls-outer, or 'SOURCE -> DESTINATION'; repeatable. "
            "Default: fc and ls.",
            "layouts",
        ),
        Asked("number", "--blocks N", "Blocks in the working set."),
        Asked("number", "--batch N", "Blocks per request. Default: 16."),
    ),
    "Geometry of a block": (
        Asked("number", "--layers N", "Local layers. Default: 32, as in Llama 3.1 8B."),
        Asked("number", "--outer-dims N", "2 for K and V, 1 for MLA. Default: 2."),
        Asked("number", "--page-size N", "Tokens per block. Default: 16."),
        Asked("number", "--inner-dim N", "Elements per token in one layer's K or V. Default: 1024."),
        Asked("text", "--dtype NAME", "fp8, int8, fp16, bf16 or fp32. Default: bf16."),
        Asked("size", "--block-size SIZE", "A plain block of this size, without layers: 4096, 64K, 2M."),
    ),
    "Sweeps": (
        Asked(
            "range",
            "--sweep-block-sizes/--block-sizes FROM:TO[:FACTOR]",
            "Block sizes, such as 64K:4M or 64K:4M:4 (default factor 2).",
        ),
        Asked("range", "--sweep-batches/--batches FROM:TO[:FACTOR]", "Batches, such as 1:64:4."),
    ),
    "Duration": (
        Asked("number", "--iterations N", "Timed requests per step."),
        Asked("decimal", "--seconds SECONDS", "Seconds per path and size: all layouts and the reference."),
        Asked(
            "decimal",
            "--interval-width PART",
            "Stop when intervals are narrower than this part of the median: 0.02, 2%.",
        ),
        Asked("number", "--warmup-iterations N", "Requests before the timed ones."),
        Asked("decimal", "--warmup-seconds SECONDS", "Time before the timed requests."),
    ),
    "Transfer": (
        Asked("text", "--backend NAME", "NIXL backend: UCX, POSIX, GDS, GDS_MT … Default: the path's usual one."),
        Asked("text", "--api NAME", "The POSIX backend's API: aio, uring or posixaio."),
        Asked(
            "on/off",
            "--direct/--no-direct",
            "O_DIRECT bypasses the page cache. Default: if the filesystem supports it.",
        ),
        Asked(
            "text",
            "--page-cache drop|keep",
            "Buffered reads: drop the file's cached pages before each round (default).",
        ),
        Asked("on", "--durable", "fsync writes within the timed request."),
        Asked("number", "--files N", "Files the blocks are spread over. Default: 1."),
        Asked("number", "--threads N", "Initiator processes; each has its share of the blocks. Default: 1."),
        Asked("text", "--scheme NAME", "Pairs of devices: pairwise (default), manytoone, onetomany, tp."),
        Asked("text", "--mode SG|MG", "SG: one process per device. MG: one per side. Default: SG."),
        Asked("number", "--initiators N", "Initiator devices, regions of host memory. Default: 1."),
        Asked("number", "--targets N", "Target devices. Default: 1."),
        Asked("number", "--pipeline-depth N", "Requests in flight in one initiator. Default: 1."),
        Asked("pairs", "--param KEY=VALUE", "Plugin parameter, passed to NIXL unchanged; repeatable.", "params"),
        Asked("on", "--merge", "Let NIXL merge neighbouring descriptors."),
        Asked("text", "--op read|write", "Between processes: write (push, the default) or read (pull).", "operation"),
        Asked("on/off", "--notify/--no-notify", "Send a notification with requests between processes. Default: yes."),
        Asked("on", "--loopback", "HostToHost, DeviceToDevice within one process instead of two."),
        Asked(
            "text",
            "--error-handling auto|peer|none",
            "UCX: none is faster. Default: peer; none within one GPU process.",
        ),
        Asked("on/off", "--progress-thread/--no-progress-thread", "NIXL's progress thread. Default: off."),
    ),
    "This host": (
        Asked("on", "--huge-pages", "Allocate memory in huge pages."),
        Asked("on/off", "--pin/--no-pin", "Pin each process to its own core. Default: if there are enough."),
        Asked("text", "--folder DIR", "Folder for test files. Default: the temp dir."),
        Asked("on", "--tune", "Try settings on this host first, then run with the fastest."),
        Asked("off", "--no-verify", "Don't compare the received bytes.", "verify"),
        Asked("off", "--no-reference", "Don't also measure memcpy or plain system calls.", "reference"),
    ),
}
ASKED = tuple(asked for group in GROUPS.values() for asked in group)
HEADINGS = {asked.field: heading for heading, group in GROUPS.items() for asked in group}

_STRUCTURE = ("layers", "outer_dims", "page_size", "inner_dim", "dtype")


def click_options() -> list[click.Option]:
    """Return a click option per field. Click passes their text through: `spec_from_mapping` checks all values."""
    return [_click_option(asked) for asked in ASKED]


def _click_option(asked: Asked) -> click.Option:
    spelling, _, metavar = asked.spelling.partition(" ")
    if asked.kind == "on/off":
        return click.Option([spelling, asked.field], default=None, help=asked.help)
    if asked.kind in ("on", "off"):
        value = asked.kind == "on"
        return click.Option([spelling, asked.field], is_flag=True, flag_value=value, default=None, help=asked.help)
    many = asked.kind in ("names", "pairs")
    return click.Option([*spelling.split("/"), asked.field], multiple=many, metavar=metavar, help=asked.help)


def asked_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, as a mapping for `spec_from_mapping`.

    Raises:
        UsageError: An option's text can't be parsed, or two options contradict each other.
    """
    given = {asked: values[asked.field] for asked in ASKED if values.get(asked.field) not in (None, ())}
    mapping = {asked.field: _read(asked, value) for asked, value in given.items()}
    structure = [asked for asked in given if asked.field in _STRUCTURE]
    if "block_size" in mapping and structure:
        raise UsageError(f"--block-size and {structure[0].spelling} both set the block size", "give only one of them")
    return mapping


def over_file(asked: Mapping[str, Any], from_file: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's spec overridden by the options; plugin parameters are merged key by key."""
    merged = dict(from_file)
    if any(key in asked for key in _STRUCTURE):
        merged["block_size"] = None
    if "params" in asked:
        merged["params"] = {**merged.get("params", {}), **asked["params"]}
    return {**merged, **{key: value for key, value in asked.items() if key != "params"}}


def _read(asked: Asked, value: Any) -> Any:
    if isinstance(value, bool):
        return {True: "on", False: "off"}[value] if asked.field == "direct" else value
    if asked.kind == "names":
        return [name for text in value for name in text.split(",")]
    if asked.kind == "pairs":
        return dict(_pair(asked, text) for text in value)
    try:
        return _READERS[asked.kind](value)
    except UsageError as error:
        raise UsageError(f"{asked.option}: {error.what}", error.fix) from error


def _pair(asked: Asked, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"{asked.option} {text!r} is not KEY=VALUE", "write it like --param num_threads=4")
    return key, value


def _number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text


def _decimal(text: str) -> float | str:
    part = text.removesuffix("%")
    try:
        value = float(part)
    except ValueError:
        return text
    if not math.isfinite(value):
        return text
    return value / 100 if part != text else value


def _size(text: str) -> int:
    from kvdeck.engine.spec import parse_size

    return parse_size(text)


def _range(text: str) -> dict[str, int]:
    from kvdeck.engine.spec import parse_range

    return dataclasses.asdict(parse_range(text))


_READERS: dict[str, Callable[[str], Any]] = {
    "number": _number,
    "decimal": _decimal,
    "size": _size,
    "range": _range,
    "text": str,
}


def checked_folder(folder: str) -> str:
    """Return the folder for test files as an absolute path, since the engine has another working directory.

    Raises:
        UsageError: It is not a folder, or not writable.
    """
    path = expanded(folder).absolute()
    if not is_folder(path):
        raise UsageError(
            f"folder {path} {'is not a folder' if os.path.lexists(path) else 'does not exist'}",
            "create it, or give another --folder",
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"can't write in folder {path}", "give a folder you may write to with --folder")
    return str(path)
