"""The settings of a run: `RunSpec`, the table of its fields, its parser and the checks across fields.

A new setting is one row in `RunSpec` and the line that uses it. From the row come its check, its option of
`kvdeck run`, its place in the Run form, and its entry in docs/run-settings.md.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kvdeck.engine.planning.layout import DTYPE_BYTES, LLAMA_3_1_8B, Geometry, LayoutPair, parse_layout_pair
from kvdeck.engine.quantities import MOST, MOST_SECONDS, Range
from kvdeck.engine.run_field import BYTES, Cell, RunField, run_field, run_fields
from kvdeck.engine.topology import MODES, SCHEMES, Topology
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, dump_yaml, load_yaml
from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.model.records import (
    DEVICE_TO_DEVICE,
    DEVICE_TO_DISK,
    DISK_TO_DEVICE,
    DISK_TO_HOST,
    FILE_PATHS,
    HOST_TO_DISK,
    HOST_TO_HOST,
    PATHS,
)
from kvdeck.sessions.units import count_text, exact_size_text, many, number_text

APIS = ("AIO", "URING", "POSIXAIO")
_API_SPELLINGS = {"LIBAIO": "AIO", "IOURING": "URING", "LINUXAIO": "AIO"}
DEFAULT_LAYOUTS = ("FullyContiguous", "LayerSeparate { outer_contiguous: false }")
_DTYPES = tuple(DTYPE_BYTES)
_WRITES, _READS = (HOST_TO_DISK, DEVICE_TO_DISK), (DISK_TO_HOST, DISK_TO_DEVICE)
_MEMORY = tuple(path for path in PATHS if path not in FILE_PATHS)
_BETWEEN = (HOST_TO_HOST, DEVICE_TO_DEVICE)
_PEERED = (HOST_TO_HOST, DEVICE_TO_DEVICE)
_SEVERAL = (HOST_TO_HOST, HOST_TO_DISK, DISK_TO_HOST)

# Headings of the options in `kvdeck run --help`.
MOVED, BLOCK, SWEEPS = "Paths and layouts", "Geometry of a block", "Sweeps"
LENGTH, HOW, PEERS, HOST = "Duration", "Transfer", "Between hosts", "This host"


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


def parse_host(text: str) -> str:
    """Return the host of a text as ssh takes it: `HOST`, `USER@HOST`, or a name of its configuration.

    Raises:
        UsageError: The text isn't a host, for ssh would take it for an option or more.
    """
    if not re.fullmatch(r"[A-Za-z0-9_\[][A-Za-z0-9._%+@:\[\]-]*", text):
        raise UsageError(f"{text!r} is no host", "give HOST, USER@HOST, or a name in ~/.ssh/config")
    return text


def _parse_layouts(text: str) -> str:
    return str(parse_layout_pair(text))


def _parse_api(text: str) -> str:
    api = text.upper().replace("_", "").replace("-", "").replace(" ", "")
    return _API_SPELLINGS.get(api, api)


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Settings of one run, saved as `run.yaml`. Null: the engine chooses for this host and records its choice."""

    # fmt: off
    paths: tuple[str, ...] | None = run_field(
        None, "--path PATH", MOVED, "Such as HostToDisk; repeatable. Default: every ready path.",
        doc="Transfer paths. Null: every path that is ready on this host.", parse=parse_path,
    )
    layouts: tuple[str, ...] = run_field(
        DEFAULT_LAYOUTS, "--layout LAYOUT", MOVED,
        "FullyContiguous (fc), LayerSeparate (ls), ls-outer, or 'SOURCE -> DESTINATION'; repeatable. "
        "Default: fc and ls.", parse=_parse_layouts,
    )
    layers: int = run_field(
        LLAMA_3_1_8B.layers, "--layers N", BLOCK, "Local layers. Default: 32, as in Llama 3.1 8B.",
        form=Cell("Block", "layers", "layers on this rank"),
    )
    outer_dims: int = run_field(
        LLAMA_3_1_8B.outer_dims, "--outer-dims N", BLOCK, "2 for K and V, 1 for MLA. Default: 2.",
        form=Cell("Block", "outer dims", "2 for K and V, 1 for MLA"),
    )
    page_size: int = run_field(
        LLAMA_3_1_8B.page_size, "--page-size N", BLOCK, "Tokens per block. Default: 16.", unit="tokens",
        form=Cell("Block", "page size", "tokens per block"),
    )
    inner_dim: int = run_field(
        LLAMA_3_1_8B.inner_dim, "--inner-dim N", BLOCK, "Elements per token in one layer's K or V. Default: 1024.",
        form=Cell("Block", "inner dim", "elements per token, layer and outer dim: KV heads × head size"),
    )
    dtype: str = run_field(
        LLAMA_3_1_8B.dtype, "--dtype NAME", BLOCK, "fp8, int8, fp16, bf16 or fp32. Default: bf16.", choices=_DTYPES,
        form=Cell("Block", "dtype", "element type", tuple(name for name in _DTYPES if name != "bfloat16")),
    )
    block_size: int | None = run_field(
        None, "--block-size SIZE", BLOCK, "A plain block of this size, without layers: 4096, 64K, 2M.",
        doc="Plain block size instead of a geometry: one region, so FullyContiguous only.", unit=BYTES,
        form=Cell("Sweep and layouts", "plain block", "block size in bytes instead of layers: 4096, 64K"),
    )
    blocks: int | None = run_field(
        None, "--blocks N", MOVED, "Blocks in the working set.",
        doc="Blocks in the working set. Null: larger than the last-level cache, within free memory and disk space.",
        form=Cell("Run", "blocks", "blocks in the working set; auto is larger than the last-level cache"),
    )
    batch: int | None = run_field(
        None, "--batch N", MOVED, "Blocks per request. Default: 16.",
        doc="Blocks per request. Null: 16, or the working set if it is smaller.", unit="blocks",
        form=Cell("Run", "batch", "blocks in one request; auto is 16, or fewer in a small working set"),
    )
    sweep_block_sizes: Range | None = run_field(
        None, "--sweep-block-sizes/--block-sizes FROM:TO[:FACTOR]", SWEEPS,
        "Block sizes, such as 64K:4M or 64K:4M:4 (default factor 2).",
        doc="Sweep of block sizes; a block with layers is scaled through its page size.", unit=BYTES,
        form=Cell("Sweep and layouts", "sizes", "sweep of block sizes, doubling, such as 64K to 4M", key="sizes"),
    )
    sweep_batches: Range | None = run_field(
        None, "--sweep-batches/--batches FROM:TO[:FACTOR]", SWEEPS, "Batches, such as 1:64:4.",
        doc="Sweep of batches.", unit="blocks",
        form=Cell("Sweep and layouts", "batch", "a sweep of blocks in one request, doubling", key="batches"),
    )
    effort: Literal["quick", "normal", "thorough"] = run_field(
        "normal", "", "", "How long each comparison is measured: --quick, --thorough.", after="direct",
        form=Cell("Run", "effort", "measuring time per comparison"),
    )
    iterations: int | None = run_field(
        None, "--iterations N", LENGTH, "Timed requests per step.",
        doc="Timed requests of each step; exact if `seconds` and `interval_width` are null.",
        form=Cell("Time", "iterations", "timed requests of each step; auto is by time"),
    )
    seconds: float | None = run_field(
        None, "--seconds SECONDS", LENGTH, "Seconds per path and size: all layouts and the reference.",
        doc="Time of a trial: all layouts of one path at one size, and their reference.", unit="s", most=MOST_SECONDS,
        form=Cell("Sweep and layouts", "seconds", "seconds per path and size, all layouts; auto: set by the effort"),
    )
    interval_width: float | None = run_field(
        None, "--interval-width PART", LENGTH,
        "Stop when intervals are narrower than this part of the median: 0.02, 2%.",
        doc="End a trial when (high - low) / median of every step's GB/s is below this fraction.",
        form=Cell("Time", "interval", "stop once every interval is narrower than this part of its median",
             ("0.05", "0.02", "0.01", "0.005")),
    )
    warmup_iterations: int | None = run_field(
        None, "--warmup-iterations N", LENGTH, "Requests before the timed ones.", zero=True,
        form=Cell("Time", "warm-up", "requests before the timed ones"),
    )
    warmup_seconds: float | None = run_field(
        None, "--warmup-seconds SECONDS", LENGTH, "Time before the timed requests.", zero=True, unit="s",
        most=MOST_SECONDS, form=Cell("Time", "warm-up s", "seconds before the timed requests"),
    )
    backend: str | None = run_field(
        None, "--backend NAME", HOW, "NIXL backend: UCX, POSIX, GDS, GDS_MT … Default: the path's usual one.",
        doc="NIXL backend of all paths. Null: UCX for memory, POSIX for files (GDS between device and disk).",
        form=Cell("Run", "backend", "NIXL backend; auto is UCX for memory, POSIX for files, GDS for device and disk",
             ("UCX", "POSIX", "GDS", "GDS_MT")),
    )
    api: str | None = run_field(
        None, "--api NAME", HOW, "The POSIX backend's API: aio, uring or posixaio.", choices=APIS, parse=_parse_api,
        paths=FILE_PATHS, form=Cell("Run", "api", "I/O interface of the POSIX backend"),
    )
    direct: Literal["auto", "on", "off"] = run_field(
        "auto", "--direct/--no-direct", HOW,
        "O_DIRECT bypasses the page cache. Default: if the filesystem supports it.",
        doc="O_DIRECT: `auto` uses it if the filesystem supports it; the result records the choice.", paths=FILE_PATHS,
        form=Cell("Run", "direct", "O_DIRECT bypasses the page cache; auto: if the filesystem supports it"),
    )
    durable: bool = run_field(
        False, "--durable", HOW, "fsync writes within the timed request.", after="page_cache",
        doc="Call fsync after writes, inside the timed round.", paths=_WRITES,
        form=Cell("Concurrency", "durable", "fsync writes within the timed request"),
    )
    page_cache: Literal["drop", "keep"] = run_field(
        "drop", "--page-cache drop|keep", HOW,
        "Buffered reads: drop the file's cached pages before each round (default).",
        doc="Buffered reads: drop the file's pages before each round, or leave them cached and measure memory.",
        paths=_READS, form=Cell("Safety", "page cache", "buffered reads: drop the file's cached pages first, or not"),
    )
    files: int = run_field(
        1, "--files N", HOW, "Files the blocks are spread over. Default: 1.", paths=FILE_PATHS,
        form=Cell("Concurrency", "files", "files the blocks are spread over"),
    )
    threads: int = run_field(
        1, "--threads N", HOW, "Initiator processes; each has its share of the blocks. Default: 1.",
        form=Cell("Concurrency", "threads", "initiator processes; each has its share of the blocks"),
    )
    scheme: str = run_field(
        "pairwise", "--scheme NAME", HOW, "Pairs of devices: pairwise (default), manytoone, onetomany, tp.",
        doc="nixlbench's scheme: which initiator device moves blocks to which target device. `batch` is then each "
        "pair's, and a result's `batch` the whole request's.", choices=SCHEMES,
        paths=_SEVERAL, form=Cell("Devices", "scheme", "which initiator devices pair with which targets"),
    )
    mode: str = run_field(
        "SG", "--mode SG|MG", HOW, "SG: one process per device. MG: one per side. Default: SG.",
        choices=MODES, paths=_SEVERAL,
        form=Cell("Devices", "mode", "SG: a process for each device; MG: one for a side"),
    )
    initiators: int = run_field(
        1, "--initiators N", HOW, "Initiator devices, regions of host memory. Default: 1.", paths=_SEVERAL,
        doc="Initiator devices. If more than one, they are regions of host memory.",
        form=Cell("Devices", "initiators", "devices of the initiator, regions of host memory"),
    )
    targets: int = run_field(
        1, "--targets N", HOW, "Target devices. Default: 1.", paths=_SEVERAL,
        doc="Target devices. If more than one, they are regions of host memory.",
        form=Cell("Devices", "targets", "devices of the target, regions of host memory"),
    )
    pipeline_depth: int = run_field(
        1, "--pipeline-depth N", HOW, "Requests in flight in one initiator. Default: 1.",
        form=Cell("Concurrency", "depth", "requests in flight in one initiator"),
    )
    peer: tuple[str, ...] | None = run_field(
        None, "--peer HOST", PEERS, "Put the targets on another host, reached by ssh: HOST, USER@HOST; repeatable.",
        doc="Hosts of the targets, reached by ssh without a password: `HOST`, `USER@HOST`, or a name in ~/.ssh/config. "
        "With several, targets are on them in turn; without threads or a scheme, one initiator has one on each. Null: "
        "this host.", parse=parse_host, paths=_PEERED,
        form=Cell("Devices", "peer", "host of the targets, by ssh; space takes one used before, Enter types one"),
    )
    peer_command: str = run_field(
        "kvdeck", "--peer-command COMMAND", PEERS, "How kvdeck is called on the peer: a path, 'uvx kvdeck'.",
        doc="How kvdeck is called on the peer, by its login shell.", paths=_PEERED,
    )
    peer_timeout: float = run_field(
        30.0, "--peer-timeout SECONDS", PEERS, "Silence after which a peer is lost. Default: 30.",
        doc="Silence of a peer, or time of one request to it, after which the run fails.", unit="s",
        most=MOST_SECONDS, paths=_PEERED,
    )
    loopback: bool = run_field(
        False, "--loopback", HOW, "HostToHost, DeviceToDevice within one process instead of two.", after="notify",
        paths=_BETWEEN,
        form=Cell("Concurrency", "loopback", "memory to memory within one process instead of between two"),
    )
    operation: Literal["WRITE", "READ"] = run_field(
        "WRITE", "--op read|write", HOW, "Between processes: write (push, the default) or read (pull).",
        doc="Direction of the NIXL call between two processes: push or pull. File paths ignore it.", paths=_BETWEEN,
        form=Cell("Concurrency", "operation", "between processes: WRITE pushes, READ pulls"),
    )
    notify: bool = run_field(
        True, "--notify/--no-notify", HOW, "Send a notification with requests between processes. Default: yes.",
        doc="Send a notification with each request between two processes, as serving engines do.", paths=_BETWEEN,
        form=Cell("Concurrency", "notify", "requests between processes carry a notification"),
    )
    merge: bool = run_field(
        False, "--merge", HOW, "Let NIXL merge neighbouring descriptors.", after="params",
        form=Cell("Concurrency", "merge", "let NIXL merge neighbouring descriptors"),
    )
    huge_pages: bool = run_field(
        True, "--huge-pages/--no-huge-pages", HOST, "Memory on huge pages, where the host gives them. Default: yes.",
        doc="Memory on huge pages: the host's reserve (hugetlb), else transparent ones, else plain pages. The result "
        "names the pages that the kernel gave.",
        form=Cell("Safety", "huge pages", "memory on huge pages, where the host gives them"),
    )
    error_handling: Literal["auto", "peer", "none"] = run_field(
        "auto", "--error-handling auto|peer|none", HOW,
        "UCX: none is faster. Default: peer; none within one GPU process.",
        doc="UCX: `none` is faster for small transfers but does not detect a dead peer. `auto`: `peer`, NIXL's "
        "default, but `none` for GPU memory within one process: with `peer`, UCX has no CUDA copy there and uses TCP.",
        paths=_MEMORY, form=Cell("Safety", "UCX errors", "none is faster but doesn't detect a dead peer"),
    )
    progress_thread: bool = run_field(
        False, "--progress-thread/--no-progress-thread", HOW, "NIXL's progress thread. Default: off.",
        form=Cell("Safety", "progress", "NIXL's own progress thread"),
    )
    pin: bool = run_field(
        True, "--pin/--no-pin", HOST, "Pin each process to its own core. Default: if there are enough.",
        doc="Pin initiator and target to separate cores, if there are two.",
        form=Cell("Safety", "pin", "pin each process to its own core, if there are enough"),
    )
    params: dict[str, str] = run_field(
        {}, "--param KEY=VALUE", HOW, "Plugin parameter, passed to NIXL unchanged; repeatable.", after="pipeline_depth",
        doc="Plugin parameters, passed to NIXL unchanged.",
    )
    tune: bool = run_field(
        False, "--tune", HOST, "Try settings on this host first, then run with the fastest.",
        form=Cell("Run", "tune", "try settings on this host first, then run with the fastest"),
    )
    tuned: bool = run_field(
        False, "--tuned", HOST, "Use the settings that --tune found fastest on this host; `kvdeck tune` shows them.",
        form=Cell("Run", "tuned", "use the settings that an earlier tune found fastest on this host"),
    )
    fixed: tuple[str, ...] = run_field(
        (), "", HOST, "Settings that `tuned` leaves as they are.",
        doc="Settings that `tuned` leaves as they are: those that `kvdeck run --tuned` gets as options.",
    )
    verify: bool = run_field(
        True, "--no-verify", HOST, "Don't compare the received bytes.", doc="Compare the received bytes.",
        form=Cell("Safety", "verify", "compare the received bytes"),
    )
    reference: bool = run_field(
        True, "--no-reference", HOST, "Don't also measure a limit: the same bytes by plain copies or system calls.",
        doc="Measure a limit beside the transfers: the same bytes by plain copies or system calls.",
        form=Cell("Safety", "reference", "also measure a limit: the same bytes by plain copies or system calls"),
    )
    folder: str | None = run_field(
        None, "--folder DIR", HOST, "Folder for test files. Default: the temp dir.", after="pin", paths=FILE_PATHS,
        doc="Folder for test files. Null: the run creates its own on the temporary directory's filesystem.",
    )
    # fmt: on

    @property
    def geometry(self) -> Geometry:
        """Geometry of a block; a plain `block_size` is one region of 1-byte elements."""
        if self.block_size is not None:
            return Geometry(1, 1, 1, self.block_size, "int8")
        return Geometry(self.layers, self.outer_dims, self.page_size, self.inner_dim, self.dtype)

    @property
    def moved(self) -> tuple[str, ...]:
        """Paths of this run; by default all, but with a peer only those that lead to another host.

        Several devices are regions of host memory, so with these it is only the path between hosts' memory.
        """
        if self.paths or not self.peer:
            return self.paths or PATHS
        return _PEERED if self.topology.plain else (HOST_TO_HOST,)

    @property
    def topology(self) -> Topology:
        """Devices and their pairing on a path between memories.

        One initiator with several peers, where nothing else is asked for, has a target on each of them.
        """
        asked = Topology(self.scheme, self.mode, self.initiators, self.targets)
        if self.peer is not None and len(self.peer) > 1 and self.threads == 1 and asked == Topology():
            return Topology("onetomany", "SG", 1, len(self.peer))
        return asked

    @property
    def label(self) -> str:
        """Middle part of a generated session name."""
        return self.paths[0] if self.paths is not None and len(self.paths) == 1 else "run"

    @property
    def layout_pairs(self) -> tuple[LayoutPair, ...]:
        return tuple(parse_layout_pair(text) for text in self.layouts)

    @property
    def plain(self) -> bool:
        """True if all layouts are FullyContiguous on both endpoints, so that a block needs no geometry."""
        return all(pair.source.kind == pair.destination.kind == "FullyContiguous" for pair in self.layout_pairs)

    def to_mapping(self) -> dict[str, Any]:
        """Return all fields as values that YAML and JSON can represent; without a peer, none about peers.

        `tuned` and `fixed` are left out at their defaults, so that the files of runs without them keep their
        bytes.
        """
        left_out = (
            *(() if self.peer else ("peer", "peer_command", "peer_timeout")),
            *(() if self.tuned else ("tuned",)),
            *(() if self.fixed else ("fixed",)),
        )
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items() if key not in left_out}

    def to_yaml(self) -> str:
        return dump_yaml(self.to_mapping())


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


FIELDS: tuple[RunField, ...] = run_fields(RunSpec)
"""The rows of `RunSpec`, in the order of run.yaml."""
TUNED = ("huge_pages", "api", "params", "direct", "error_handling", "pin", "pipeline_depth", "threads")
"""Fields of a run that tuning may change."""


def spec_from_mapping(
    data: Any, source: str = "the spec", kind: type[RunSpec] = RunSpec, rows: tuple[RunField, ...] = FIELDS
) -> RunSpec:
    """Return the `RunSpec` of a mapping (from YAML, JSON or options) after checking it.

    Args:
        data: `RunSpec` field names to values; sweeps are mappings `{start, stop, factor}` or text for `parse_range`.
        source: Name of the mapping in error messages.
        kind: Class of the spec.
        rows: Its rows, from `run_fields`.

    Raises:
        UsageError: A key or a value is invalid, or values conflict; the message names it and its fix.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{source} is not a mapping", "write one `key: value` per line, as in a session's run.yaml")
    known = {row.name: row for row in rows}
    unknown = sorted(str(key) for key in data if key not in known)
    if unknown:
        raise UsageError(f"{source} has unknown keys: {', '.join(unknown)}", f"use only {', '.join(known)}")
    spec = kind(**{key: known[key].checked(value, source) for key, value in data.items()})
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


def _check_together(spec: RunSpec, source: str) -> None:
    if spec.blocks is not None and spec.batch is not None and spec.batch > spec.blocks:
        raise UsageError(
            f"batch {count_text(spec.batch)} in {source} is larger than the working set of "
            f"{many(spec.blocks, 'block')}",
            "lower the batch or raise blocks",
        )
    if unknown := [name for name in spec.fixed if name not in TUNED]:
        raise UsageError(f"fixed in {source} names {', '.join(unknown)}", f"use only {', '.join(TUNED)}")
    _check_sweep(spec, source)
    _check_bytes(spec, source)
    _check_devices(spec, source)
    _check_peers(spec, source)
    if spec.api is not None and spec.backend not in (None, "POSIX"):
        raise UsageError(f"api {spec.api} needs the POSIX backend, not {spec.backend}", "give only one of them")
    if spec.tune and spec.tuned:
        raise UsageError(f"tune and tuned in {source} exclude each other", "tune again, or use what was found before")
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


def _check_bytes(spec: RunSpec, source: str) -> None:
    """Refuse a working set or a request whose bytes don't fit in 64 bits."""
    sizes, batches = spec.sweep_block_sizes, spec.sweep_batches
    block = spec.geometry.block_bytes if sizes is None else sizes.stop
    if max(spec.blocks or 1, spec.batch or 1, batches.stop if batches else 1) * block > MOST:
        raise UsageError(
            f"the bytes of a working set in {source} don't fit in 64 bits", "lower blocks or the block size"
        )


def _check_peers(spec: RunSpec, source: str) -> None:
    """Refuse a peer where nothing goes to another host, and more peers than initiators."""
    if spec.peer is None:
        return
    if others := [path for path in spec.moved if path not in _PEERED]:
        raise UsageError(
            f"{others[0]} in {source} doesn't go to another host", f"with a peer, give --path {' or '.join(_PEERED)}"
        )
    if spec.loopback:
        raise UsageError(f"loopback in {source} stays within one process", "omit it, or the peer")
    if spec.peer_timeout < 1:
        raise UsageError(f"peer_timeout in {source} is {number_text(spec.peer_timeout)} s", "give at least 1 s")
    topology, count = spec.topology, len(spec.peer)
    if count > spec.threads * topology.lanes * topology.lane_targets // topology.sharers:
        raise UsageError(
            f"{count} peers in {source} for fewer targets",
            f"give --threads {count}, --scheme onetomany --targets {count}, or fewer peers",
        )


def _check_devices(spec: RunSpec, source: str) -> None:
    """Refuse several devices on paths with a GPU: devices are regions of host memory."""
    if spec.topology.plain and spec.scheme in SCHEMES:
        return
    paths = spec.moved
    if others := [path for path in paths if path not in ("HostToHost", "HostToDisk", "DiskToHost")]:
        raise UsageError(
            f"several devices in {source} are regions of host memory, but {others[0]} goes to or from a GPU",
            "give paths between host memory and files, or set initiators and targets to 1",
        )
    if spec.loopback and spec.mode == "SG":
        raise UsageError(f"loopback in {source} has one process, but mode SG has one per device", "use mode MG")
    for path in paths:
        dataclasses.replace(spec.topology, storage=path != "HostToHost").check()
