"""The configuration of a run (`RunSpec`), its parser for YAML and command-line options, and its checks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from kvdeck.engine.planning.layout import DTYPE_BYTES, LLAMA_3_1_8B, Geometry, LayoutPair, parse_layout_pair
from kvdeck.engine.topology import MODES, SCHEMES, Topology
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, dump_yaml, load_yaml
from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.model.records import PATHS
from kvdeck.sessions.units import count_text, exact_size_text, many

Effort = Literal["quick", "normal", "thorough"]
Direct = Literal["auto", "on", "off"]

APIS = ("AIO", "URING", "POSIXAIO")
_API_SPELLINGS = {"LIBAIO": "AIO", "IOURING": "URING", "LINUXAIO": "AIO"}
DEFAULT_LAYOUTS = ("FullyContiguous", "LayerSeparate { outer_contiguous: false }")


@dataclass(frozen=True, slots=True)
class Range:
    """A geometric sweep: `start`, `start × factor`, … up to and including `stop`."""

    start: int
    stop: int
    factor: int = 2

    def values(self) -> tuple[int, ...]:
        """Return all values of the sweep in ascending order."""
        out, value = [], self.start
        while value <= self.stop:
            out.append(value)
            value *= self.factor
        return tuple(out)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Configuration of one run, saved as `run.yaml`. Null: the engine chooses for this host and records its choice."""

    paths: tuple[str, ...] | None = None
    """Transfer paths. Null: every path that is ready on this host."""
    layouts: tuple[str, ...] = DEFAULT_LAYOUTS
    layers: int = LLAMA_3_1_8B.layers
    outer_dims: int = LLAMA_3_1_8B.outer_dims
    page_size: int = LLAMA_3_1_8B.page_size
    inner_dim: int = LLAMA_3_1_8B.inner_dim
    dtype: str = LLAMA_3_1_8B.dtype
    block_size: int | None = None
    """Plain block size in bytes instead of a geometry: one region, so FullyContiguous only."""
    blocks: int | None = None
    """Blocks in the working set. Null: larger than the last-level cache, within free memory and disk space."""
    batch: int | None = None
    """Blocks per request. Null: 16, or the working set if it is smaller."""
    sweep_block_sizes: Range | None = None
    """Block sizes in bytes; a structured block is scaled through its page size."""
    sweep_batches: Range | None = None
    effort: Effort = "normal"
    iterations: int | None = None
    """Timed requests of each step; exact if `seconds` and `interval_width` are null."""
    seconds: float | None = None
    """Seconds per trial, for all its layouts and its reference together."""
    interval_width: float | None = None
    """End a trial when (high - low) / median of every step's GB/s is below this fraction."""
    warmup_iterations: int | None = None
    warmup_seconds: float | None = None
    backend: str | None = None
    """NIXL backend of all paths. Null: UCX for memory, POSIX for files (GDS between device and disk)."""
    api: str | None = None
    """POSIX plugin's API: AIO, URING or POSIXAIO."""
    direct: Direct = "auto"
    """O_DIRECT: `auto` uses it if the filesystem supports it; the result records the choice."""
    durable: bool = False
    """Call fsync after writes, inside the timed round."""
    page_cache: Literal["drop", "keep"] = "drop"
    """Buffered reads: drop the file's pages before each round, or leave them cached and measure memory."""
    files: int = 1
    threads: int = 1
    """Initiator processes, each with its own part of the working set."""
    scheme: str = "pairwise"
    """nixlbench's scheme: `pairwise`, `manytoone`, `onetomany` or `tp`."""
    mode: str = "SG"
    """`SG`: one process per device; `MG`: one process for all devices of an endpoint."""
    initiators: int = 1
    """Initiator devices. If more than one, they are regions of host memory."""
    targets: int = 1
    """Target devices. If more than one, they are regions of host memory."""
    pipeline_depth: int = 1
    """Requests in flight per initiator process."""
    loopback: bool = False
    """Run HostToHost and DeviceToDevice within one process instead of between two."""
    operation: Literal["WRITE", "READ"] = "WRITE"
    """Direction of the NIXL call between two processes: push or pull. File paths ignore it."""
    notify: bool = True
    """Send a notification with each request between two processes, as serving engines do."""
    merge: bool = False
    """Let NIXL merge neighbouring descriptors."""
    huge_pages: bool = False
    error_handling: Literal["auto", "peer", "none"] = "auto"
    """UCX: `none` is faster for small transfers but does not detect a dead peer. `auto`: `peer`, NIXL's default, but
    `none` for GPU memory within one process: with `peer`, UCX has no CUDA copy there and uses TCP."""
    progress_thread: bool = False
    pin: bool = True
    """Pin initiator and target to separate cores, if there are two."""
    params: dict[str, str] = field(default_factory=dict)
    """Plugin parameters, passed to NIXL unchanged."""
    tune: bool = False
    verify: bool = True
    reference: bool = True
    folder: str | None = None
    """Folder for test files. Null: the run creates its own on the temporary directory's filesystem."""

    @property
    def geometry(self) -> Geometry:
        """Geometry of a block; a plain `block_size` is one region of 1-byte elements."""
        if self.block_size is not None:
            return Geometry(1, 1, 1, self.block_size, "int8")
        return Geometry(self.layers, self.outer_dims, self.page_size, self.inner_dim, self.dtype)

    @property
    def topology(self) -> Topology:
        """Devices and their pairing on a path between memories."""
        return Topology(self.scheme, self.mode, self.initiators, self.targets)

    @property
    def layout_pairs(self) -> tuple[LayoutPair, ...]:
        return tuple(parse_layout_pair(text) for text in self.layouts)

    @property
    def plain(self) -> bool:
        """True if all layouts are FullyContiguous on both endpoints, so that a block needs no geometry."""
        return all(pair.source.kind == pair.destination.kind == "FullyContiguous" for pair in self.layout_pairs)

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as values that YAML and JSON can represent."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}

    def to_yaml(self) -> str:
        return dump_yaml(self.to_mapping())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


_FIELDS = {f.name: f for f in dataclasses.fields(RunSpec)}
_POSITIVE = ("layers", "outer_dims", "page_size", "inner_dim", "block_size", "blocks", "batch", "iterations", "files",
             "threads", "initiators", "targets", "pipeline_depth", "seconds", "interval_width")  # fmt: skip
_NOT_NEGATIVE = ("warmup_iterations", "warmup_seconds")
_FLAGS = (
    "durable",
    "loopback",
    "notify",
    "merge",
    "huge_pages",
    "progress_thread",
    "pin",
    "tune",
    "verify",
    "reference",
)
_CHOICES: dict[str, tuple[str, ...]] = {
    "dtype": tuple(DTYPE_BYTES),
    "effort": ("quick", "normal", "thorough"),
    "direct": ("auto", "on", "off"),
    "operation": ("WRITE", "READ"),
    "error_handling": ("auto", "peer", "none"),
    "page_cache": ("drop", "keep"),
    "scheme": SCHEMES,
    "mode": MODES,
}
_FRACTIONS = ("seconds", "interval_width", "warmup_seconds")


def spec_from_mapping(data: Any, source: str = "the spec") -> RunSpec:
    """Return the `RunSpec` of a mapping (from YAML, JSON or options) after checking it.

    Args:
        data: `RunSpec` field names to values; sweeps are mappings `{start, stop, factor}` or text for `parse_range`.
        source: Name of the mapping in error messages.

    Raises:
        UsageError: A key or a value is invalid, or values conflict; the message names it and its fix.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{source} is not a mapping", "write one `key: value` per line, as in a session's run.yaml")
    unknown = sorted(str(key) for key in data if key not in _FIELDS)
    if unknown:
        raise UsageError(f"{source} has unknown keys: {', '.join(unknown)}", f"use only {', '.join(_FIELDS)}")
    values = {key: _checked(key, value, source) for key, value in data.items()}
    spec = RunSpec(**values)
    _check_together(spec, source)
    return spec


def spec_from_yaml(path: Path) -> RunSpec:
    """Return the `RunSpec` in a YAML file; an empty file gives the defaults.

    Raises:
        UsageError: The file can't be read, is not YAML, or has an invalid key or value.
    """
    try:
        data = load_yaml(read_regular(path))
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "give the path of a YAML file") from error
    except DocumentError as error:
        raise UsageError(f"{path} is not valid YAML: {error}", "correct the file") from error
    return spec_from_mapping({} if data is None else data, str(path))


def _checked(key: str, value: Any, source: str) -> Any:
    optional = "None" in str(_FIELDS[key].type)
    if value is None:
        if optional:
            return None
        raise UsageError(f"{key} in {source} is empty", "give it a value or omit it")
    if key in ("paths", "layouts"):
        return _checked_names(key, value, source)
    if key.startswith("sweep_"):
        return _checked_range(key, value, source)
    if key == "params":
        if not isinstance(value, dict):
            raise UsageError(f"params in {source} is not a mapping", "write `params: {key: value}`")
        return {str(name): str(item) for name, item in value.items()}
    if key in _FLAGS:
        if not isinstance(value, bool):
            raise UsageError(f"{key} in {source} is {value!r}", "use true or false")
        return value
    if key in _POSITIVE or key in _NOT_NEGATIVE:
        return _checked_number(key, value, source)
    if key == "direct" and isinstance(value, bool):  # YAML reads `on` and `off` as booleans
        return "on" if value else "off"
    if key == "api":
        api = str(value).upper().replace("_", "").replace("-", "").replace(" ", "")
        return _checked_choice(key, _API_SPELLINGS.get(api, api), APIS, source)
    if key in _CHOICES:
        choices = _CHOICES[key]
        return _checked_choice(key, str(value).upper() if choices[0].isupper() else str(value), choices, source)
    return str(value)


def _checked_choice(key: str, value: str, choices: tuple[str, ...], source: str) -> str:
    if value not in choices:
        raise UsageError(f"{key} {value!r} in {source} is unknown", f"use {', '.join(choices)}")
    return value


def _checked_number(key: str, value: Any, source: str) -> int | float:
    kinds = (int, float) if key in _FRACTIONS else (int,)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        what = "a number" if key in _FRACTIONS else "a whole number"
        raise UsageError(f"{key} in {source} is {value!r}", f"give {what}")
    if value < 0 or (value == 0 and key in _POSITIVE):
        raise UsageError(f"{key} in {source} is {value}", "give a number above 0")
    return value


def _checked_names(key: str, value: Any, source: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not names:
        raise UsageError(f"{key} in {source} is empty", f"give at least one of the {key}")
    if key == "layouts":
        return tuple(dict.fromkeys(str(parse_layout_pair(str(name))) for name in names))
    return tuple(dict.fromkeys(parse_path(str(name)) for name in names))


def parse_path(text: str) -> str:
    """Return the transfer path of a spelling; case, spaces, `-` and `_` are ignored (`host-to-disk`).

    Raises:
        UsageError: The path is unknown.
    """
    squeezed = text.replace("-", "").replace("_", "").replace(" ", "").lower()
    for path in PATHS:
        if path.lower() == squeezed:
            return path
    raise UsageError(f"unknown path {text!r}", f"use one of {', '.join(PATHS)}")


def parse_range(text: str) -> Range:
    """Return the range of `FROM:TO`, `FROM:TO:FACTOR` or one value; numbers may end in K, M or G (1024-based).

    Raises:
        UsageError: The text is not such a range.
    """
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        raise UsageError(f"range {text!r} has too many parts", "write FROM:TO or FROM:TO:FACTOR")
    numbers = [parse_size(part) for part in parts]
    start, stop = numbers[0], numbers[1] if len(numbers) > 1 else numbers[0]
    return _checked_range(
        "range", {"start": start, "stop": stop, "factor": numbers[2] if len(numbers) > 2 else 2}, text
    )


MAX_DIGITS = 18
"""Most digits of the number in a size, so that it fits in 64 bits without its unit."""


def parse_size(text: str) -> int:
    """Return the bytes of a size: `4096`, `64K`, `2M`, `1G`, with an optional `iB` or `B` (all 1024-based).

    Raises:
        UsageError: The text is not a size, or not above 0.
    """
    squeezed = text.strip().lower().removesuffix("b").removesuffix("i")
    shift = {"k": 10, "m": 20, "g": 30}.get(squeezed[-1:], 0)
    digits = squeezed[:-1] if shift else squeezed
    if not digits.isascii() or not digits.isdigit() or len(digits) > MAX_DIGITS or int(digits) == 0:
        raise UsageError(f"size {text!r} is not a whole number above 0", "write bytes, or 64K, 2M, 1G")
    return int(digits) << shift


def _checked_range(key: str, value: Any, source: str) -> Range:
    if isinstance(value, str):
        return parse_range(value)
    if not isinstance(value, dict) or not {"start", "stop"} <= set(value) <= {"start", "stop", "factor"}:
        raise UsageError(f"{key} in {source} is {value!r}", "write {start: 4096, stop: 1048576, factor: 2}")
    numbers = {name: value.get(name, 2) for name in ("start", "stop", "factor")}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < (2 if name == "factor" else 1):
            raise UsageError(
                f"{name} of {key} in {source} is {number!r}", "give a whole number above 0 (a factor above 1)"
            )
    if numbers["stop"] < numbers["start"]:
        raise UsageError(f"{key} in {source} stops below its start", "give a stop that is at least the start")
    return Range(**numbers)


def _check_together(spec: RunSpec, source: str) -> None:
    if spec.blocks is not None and spec.batch is not None and spec.batch > spec.blocks:
        raise UsageError(
            f"batch {count_text(spec.batch)} in {source} is larger than the working set of "
            f"{many(spec.blocks, 'block')}",
            "lower the batch or raise blocks",
        )
    _check_sweep(spec, source)
    _check_devices(spec, source)
    if spec.api is not None and spec.backend not in (None, "POSIX"):
        raise UsageError(f"api {spec.api} needs the POSIX backend, not {spec.backend}", "give only one of them")
    structured = [text for text, pair in zip(spec.layouts, spec.layout_pairs, strict=True)
                  if "LayerSeparate" in text or pair.source != pair.destination]  # fmt: skip
    if spec.block_size is not None and structured and spec.layouts != DEFAULT_LAYOUTS:
        raise UsageError(
            f"layout {structured[0]!r} needs a block's structure, which a plain block size doesn't have",
            "give --layers, --outer-dims, --page-size, --inner-dim and --dtype instead of --block-size",
        )


def _check_sweep(spec: RunSpec, source: str) -> None:
    """Refuse block sizes that are not a multiple of the geometry's token size."""
    if spec.sweep_block_sizes is None or spec.block_size is not None or spec.plain:
        return
    token = spec.geometry.block_bytes // spec.page_size
    for size in spec.sweep_block_sizes.values():
        if size % token:
            raise UsageError(
                f"a block of {exact_size_text(size)} in {source} is not a whole number of tokens of "
                f"{exact_size_text(token)} (layers × outer dims × inner dim × dtype)",
                f"sweep multiples of {token}, or give --layout FullyContiguous alone for plain sizes",
            )


def _check_devices(spec: RunSpec, source: str) -> None:
    """Refuse several devices on paths with a GPU: devices are regions of host memory."""
    if spec.topology.plain and spec.scheme in SCHEMES:
        return
    paths = spec.paths or PATHS
    if others := [path for path in paths if path not in ("HostToHost", "HostToDisk", "DiskToHost")]:
        raise UsageError(
            f"several devices in {source} are regions of host memory, but {others[0]} goes to or from a GPU",
            "give paths between host memory and files, or set initiators and targets to 1",
        )
    if spec.loopback and spec.mode == "SG":
        raise UsageError(f"loopback in {source} has one process, but mode SG has one per device", "use mode MG")
    for path in paths:
        dataclasses.replace(spec.topology, storage=path != "HostToHost").check()
