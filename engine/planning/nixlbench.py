"""nixlbench's command line: parameters, their values for a plan, and its checks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from kvdeck.engine.planning.nixlbench_flags import BY_NAME, CUFILE, FLAGS, NETWORK, OBJECT, STORAGE
from kvdeck.engine.topology import Topology
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.addresses import refuse_credentials

Target = Literal["nixlbench", "seed"]
"""`seed`: KVBench's command as in its first README, which today's nixlbench may refuse."""

DEFAULTS: dict[str, Any] = {flag.name: flag.default for flag in FLAGS if flag.kvbench}
"""KVBench's parameters with their defaults, in its order."""
CHOICES = {flag.name: flag.choices for flag in FLAGS if flag.choices and flag.kvbench}
PLACES = ("file", "memory", "gpu")

BACKENDS = (*NETWORK, *STORAGE, *OBJECT)
LARGE_BLOCK = 1 << 20
"""Block size in bytes above which nixlbench divides its iterations by `large_blk_iter_ftr`."""


def parse_backend(text: str, target: Target = "nixlbench") -> str:
    """Return nixlbench's spelling of a backend; case is ignored.

    Raises:
        UsageError: nixlbench has no such backend.
    """
    known = (*BACKENDS, "UCX_MO") if target == "seed" else BACKENDS
    found = next((name for name in known if name.lower() == text.strip().lower()), None)
    if found is None:
        gone = " any more, use UCX" if text.upper() == "UCX_MO" else ""
        raise UsageError(f"nixlbench has no backend {text!r}{gone}", f"use one of {', '.join(BACKENDS)}")
    return found


def nixlbench_params(
    block_bytes: int,
    batch: int,
    given: Mapping[str, Any],
    source: str | None = None,
    destination: str | None = None,
    tp: int = 1,
    target: Target = "nixlbench",
) -> dict[str, Any]:
    """Return the parameters of a nixlbench command: all of KVBench's, and nixlbench's others that are given.

    Args:
        block_bytes: Bytes per I/O.
        batch: I/Os per batch.
        given: Parameters set by the user; they override those of the plan.
        source: `file`, `memory` or `gpu`; None: chosen by backend.
        destination: `file`, `memory` or `gpu`; None: chosen by backend.
        tp: Ranks of the target, for the scheme `tp`.
        target: Form of the command: today's nixlbench or KVBench's first README.

    Raises:
        UsageError: nixlbench would refuse the parameters, or a value contains credentials; the message has the reason.
    """
    for name, value in given.items():  # every user of the host can read a command line
        if isinstance(value, str) and "://" in value:
            refuse_credentials(
                value, name, "use a server without credentials, or set them in the server's configuration"
            )
    params = {**DEFAULTS, **_checked(given)}
    params["backend"] = _backend(given.get("backend"), source, destination, target)
    sizes = {"start_block_size": block_bytes, "max_block_size": block_bytes,
             "start_batch_size": batch, "max_batch_size": batch}  # fmt: skip
    params |= {name: given.get(name, value) for name, value in sizes.items()}
    for what in ("block", "batch"):
        if params[f"start_{what}_size"] > params[f"max_{what}_size"]:
            raise UsageError(f"start_{what}_size is above max_{what}_size", "give both, the smaller one first")
    if params["scheme"] == "tp":
        params["num_target_dev"] = given.get("num_target_dev", tp)
    params |= _segments(params["backend"], source, destination, given, target)
    if target == "nixlbench":
        counts = params["num_initiator_dev"], params["num_target_dev"]
        storage = params["backend"] not in NETWORK
        Topology(params["scheme"], params["mode"], *counts, storage=storage).check()
        params["total_buffer_size"] = _buffer(params, given.get("total_buffer_size"))
        _check_files(params)
        _check_together(params)
    return params


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in given.items():
        flag = BY_NAME[name]
        if flag.choices and value not in flag.choices:
            raise UsageError(f"{name} {value!r} is unknown to nixlbench", f"use {', '.join(flag.choices)}")
        if type(flag.default) is int:
            most = flag.most if flag.most is not None else value
            if not flag.least <= value <= most:
                upper = f" and at most {flag.most}" if flag.most is not None else ""
                raise UsageError(f"{name} is {value}", f"give a whole number of at least {flag.least}{upper}")
    return dict(given)


def _check_together(params: Mapping[str, Any]) -> None:
    """Refuse what nixlbench refuses: flags that exclude each other."""
    if params.get("prepared_xfer") and params.get("reregister_mem"):
        raise UsageError("prepared_xfer and reregister_mem exclude each other", "give only one of them")
    bytes_aligned = params.get("randomize_location_mode") == "bytealigned" and params["backend"] not in NETWORK
    for name in ("storage_enable_direct", "check_consistency"):
        if bytes_aligned and params[name]:
            raise UsageError(f"randomize_location_mode bytealigned and {name} exclude each other", "use blockaligned")


def _backend(asked: str | None, source: str | None, destination: str | None, target: Target) -> str:
    if asked is not None:
        return parse_backend(asked, target)
    if "file" not in (source, destination):
        return "UCX"
    return "GDS" if "gpu" in (source, destination) else "POSIX"


def _segments(backend: str, source: str | None, destination: str | None, given: Mapping[str, Any],
              target: Target) -> dict[str, Any]:  # fmt: skip
    """Return memory types and direction; values in `given` take precedence."""
    if backend in NETWORK or backend == "UCX_MO":
        if "file" in (source, destination):
            raise UsageError(f"{backend} moves between memories, not to or from a file", "use POSIX, GDS or GDS_MT")
        found = {"initiator_seg_type": _memory(source), "target_seg_type": _memory(destination)}
        return {name: given.get(name, value) for name, value in found.items()}
    writes, local = _direction(backend, source, destination, given)
    found = {"op_type": "WRITE" if writes else "READ"}
    if target == "seed" and backend in CUFILE:
        found["target_seg_type"] = "VRAM"
    else:
        found["initiator_seg_type"] = given.get("initiator_seg_type", local)
    if backend not in (*CUFILE, *OBJECT) and found.get("initiator_seg_type") == "VRAM":
        raise UsageError(f"{backend} reaches host memory only", "use GDS or GDS_MT for a GPU's")
    return found


def _memory(place: str | None) -> str:
    return "VRAM" if place == "gpu" else "DRAM"


def _direction(backend: str, source: str | None, destination: str | None, given: Mapping[str, Any]) -> tuple[bool, str]:
    """Return True if storage is written (False: read), and the memory type of the other endpoint."""
    op = given.get("op_type")
    if source is None and destination is None:
        writes = op == "WRITE"
    elif source == destination == "file" or "file" not in (source or "file", destination or "file"):
        raise UsageError(f"{backend} moves between a file and memory, not from {source} to {destination}",
                         "make exactly one side the file")  # fmt: skip
    else:
        writes = source in ("memory", "gpu") or destination == "file"
    if op is not None and (op == "WRITE") != writes:
        raise UsageError(f"op_type {op} contradicts the direction from {source or 'file'} to {destination or 'file'}",
                         "give only one of them")  # fmt: skip
    place = source if writes else destination
    usual = "gpu" if backend in CUFILE else "memory"
    return writes, _memory(place or usual)


def _buffer(params: Mapping[str, Any], asked: int | None) -> int:
    """Return `total_buffer_size` in bytes: the largest batch on every device and thread, rounded up to be divisible."""
    threads = params["num_threads"]
    devices = params["num_initiator_dev"], params["num_target_dev"]
    unit = math.lcm(*(count * threads for count in devices)) * (4096 if params["storage_enable_direct"] else 1)
    if params.get("use_hugepages"):
        unit = math.lcm(unit, 2 << 20)
    in_flight = params["max_batch_size"] * params.get("pipeline_depth", 1)
    need = params["max_block_size"] * in_flight * max(devices) * threads
    least: int = -(-need // unit) * unit
    if asked is None:
        return least
    if asked < need or asked % unit:
        raise UsageError(
            f"total_buffer_size {asked} is too small for the largest batch on every device and thread, "
            f"or not a multiple of {unit}",
            f"give {least}, or omit it",
        )
    return asked


def _check_files(params: Mapping[str, Any]) -> None:
    lanes = params["num_threads"] * params["num_initiator_dev"]
    if params["backend"] in STORAGE and lanes % params["num_files"]:
        raise UsageError(
            f"num_files {params['num_files']} doesn't divide the {lanes} threads × devices", "give a divisor of them"
        )


def command_line(params: Mapping[str, Any], target: Target = "nixlbench") -> str:
    """Return the command as KVBench writes it: the parameters that differ from the defaults, one per line."""
    left_out = ("total_buffer_size",) if target == "seed" else ()
    changed = [f"    --{name} {value}" for name, value in changed_params(params).items() if name not in left_out]
    return " \\\n".join(["nixlbench", *changed])


def changed_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that differ from the defaults, in the order of a command."""
    return {flag.name: params[flag.name] for flag in FLAGS if flag.changed(params) and params[flag.name] is not None}


def arguments(params: Mapping[str, Any]) -> list[str]:
    """Return the arguments that differ from the defaults, as a list to start nixlbench with."""
    return [f"--{name}={_flag(value)}" for name, value in changed_params(params).items()]


def _flag(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def rounds(params: Mapping[str, Any], block_bytes: int) -> tuple[int, int]:
    """Return the timed and warm-up iterations nixlbench runs at a block size: rounded up, fewer for large blocks."""
    unit = params["num_threads"] * params["large_blk_iter_ftr"]
    divisor = params["large_blk_iter_ftr"] if block_bytes > LARGE_BLOCK else 1
    timed, warm_up = (-(-params[name] // unit) * unit // divisor for name in ("num_iter", "warmup_iter"))
    return timed, warm_up


def steps(params: Mapping[str, Any]) -> int:
    """Return the rows of nixlbench's table: block sizes times batches, both doubling."""
    counts = [params[f"max_{what}_size"] // params[f"start_{what}_size"] for what in ("block", "batch")]
    return math.prod(count.bit_length() for count in counts)
