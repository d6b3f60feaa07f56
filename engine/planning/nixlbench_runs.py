"""Conversion of nixlbench parameters to `RunSpec` mappings for kvdeck's engine, with the same sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvdeck.engine.planning.nixlbench import LARGE_BLOCK, rounds
from kvdeck.engine.planning.nixlbench_flags import NETWORK, Flag, native_refusal
from kvdeck.engine.topology import Topology
from kvdeck.sessions.errors import UnavailableError

_HERE = ("UCX", "LIBFABRIC", "POSIX", "GDS", "GDS_MT")
_PATHS = {
    ("DRAM", "DRAM"): "HostToHost",
    ("DRAM", "VRAM"): "HostToDevice",
    ("VRAM", "DRAM"): "DeviceToHost",
    ("VRAM", "VRAM"): "DeviceToDevice",
}
_PLUGIN_PARAMS = {
    "GDS": {"gds_batch_pool_size": "batch_pool_size", "gds_batch_limit": "batch_limit"},
    "GDS_MT": {"gds_mt_num_threads": "thread_count"},
    "POSIX": {"posix_ios_pool_size": "ios_pool_size", "posix_kernel_queue_size": "kernel_queue_size"},
}


def native_specs(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `RunSpec` mappings for the transfers nixlbench would do.

    There are two if the sweep crosses 1 MiB, since nixlbench does fewer iterations above that block size.

    Raises:
        UnavailableError: The engine does not support a parameter; the message names it.
        UsageError: The scheme does not allow the device counts.
    """
    if flag := native_refusal(params):
        what = f"--{flag.name} {'' if flag.secret else params[flag.name]} can't run natively: {flag.reason}"
        raise UnavailableError(what.replace("  ", " "), f"{_default_text(flag)}, or --exec nixlbench")
    if params["backend"] not in _HERE:
        raise UnavailableError(
            f"backend {params['backend']} can't run natively: the engine supports {', '.join(_HERE)}",
            "use one of them, or --exec nixlbench",
        )
    _check_devices(params)
    return [_spec(params, sizes) for sizes in _parts(params["start_block_size"], params["max_block_size"])]


def _default_text(flag: Flag) -> str:
    return f"use {flag.default}" if flag.default not in (False, "") else "omit it"


def _check_devices(params: Mapping[str, Any]) -> None:
    """Refuse several GPUs per endpoint: several devices are regions of host memory."""
    topology = topology_of(params)
    topology.check()
    sides = {"num_initiator_dev": "initiator_seg_type", "num_target_dev": "target_seg_type"}
    on_gpu = [side for side in sides.values() if params[side] == "VRAM" and not (side[0] == "t" and topology.storage)]
    for name in sides:
        if params[name] > 1 and on_gpu:
            raise UnavailableError(
                f"--{name} {params[name]} can't run natively with VRAM: the engine supports one GPU per side",
                "use DRAM, where a device is a region of host memory, one device, or --exec nixlbench",
            )


def _parts(start: int, stop: int) -> list[list[int]]:
    sizes = [start]
    while sizes[-1] * 2 <= stop:
        sizes.append(sizes[-1] * 2)
    parts = [size for size in sizes if size <= LARGE_BLOCK], [size for size in sizes if size > LARGE_BLOCK]
    return [part for part in parts if part]


def _spec(params: Mapping[str, Any], sizes: list[int]) -> dict[str, Any]:
    timed, warm_up = rounds(params, sizes[0])
    topology = topology_of(params)
    spec: dict[str, Any] = {
        "paths": [path_of(params)],
        "layouts": ["FullyContiguous"],
        "backend": params["backend"],
        "scheme": params["scheme"],
        "mode": params["mode"],
        "initiators": params["num_initiator_dev"],
        "targets": params["num_target_dev"],
        "iterations": timed * topology.lanes,  # nixlbench counts per initiator process, `RunSpec` over all of them
        "warmup_iterations": warm_up * topology.lanes,
        "warmup_seconds": 0,
        "threads": params["num_threads"],
        "progress_thread": params["enable_pt"],
        "verify": params["check_consistency"],
        "reference": False,
        "pipeline_depth": params.get("pipeline_depth", 1),
        "huge_pages": params.get("use_hugepages", False),
        **_sweep("block_size", "sweep_block_sizes", sizes[0], sizes[-1]),
        **_sweep("batch", "sweep_batches", params["start_batch_size"], params["max_batch_size"]),
    }
    if params["backend"] in NETWORK:
        spec["operation"] = params["op_type"]
        if params["progress_threads"]:
            spec["params"] = {"num_threads": params["progress_threads"], "num_workers": params["progress_threads"] + 1}
        return spec
    spec |= {"direct": "on" if params["storage_enable_direct"] else "off", "files": params["num_files"]}
    if params["backend"] == "POSIX":
        spec["api"] = params["posix_api_type"]
    named = _PLUGIN_PARAMS.get(params["backend"], {})
    return {**spec, "params": {plugin: params[name] for name, plugin in named.items() if name in params}}


def _sweep(one: str, many: str, start: int, stop: int) -> dict[str, Any]:
    return {one: start} if stop < 2 * start else {many: {"start": start, "stop": stop, "factor": 2}}


def topology_of(params: Mapping[str, Any]) -> Topology:
    """Return nixlbench's devices and their pairing."""
    counts = params["num_initiator_dev"], params["num_target_dev"]
    return Topology(params["scheme"], params["mode"], *counts, storage=params["backend"] not in NETWORK)


def path_of(params: Mapping[str, Any]) -> str:
    """Return the transfer path for nixlbench's memory types, backend and direction."""
    initiator, target = params["initiator_seg_type"], params["target_seg_type"]
    writes = params["op_type"] == "WRITE"
    if params["backend"] in NETWORK:
        return _PATHS[(initiator, target) if writes else (target, initiator)]
    place = "Device" if initiator == "VRAM" else "Host"
    return f"{place}ToDisk" if writes else f"DiskTo{place}"


def bytes_needed(params: Mapping[str, Any]) -> int:
    """Return the host memory in bytes that the largest batch needs on all threads, pairs and host-memory endpoints."""
    pairs = topology_of(params).pairs
    in_flight = params["max_batch_size"] * params.get("pipeline_depth", 1)
    one: int = params["max_block_size"] * in_flight * params["num_threads"] * pairs
    sides = (params["initiator_seg_type"], params["target_seg_type"] if params["backend"] in NETWORK else "")
    return one * sides.count("DRAM")


def bytes_moved(specs: list[dict[str, Any]]) -> int:
    """Return the bytes that the timed and warm-up requests of all steps transfer."""
    return sum(
        size * batch * _lane_pairs(spec) * (spec["iterations"] + spec["warmup_iterations"])
        for spec in specs
        for size in _values(spec, "block_size", "sweep_block_sizes")
        for batch in _values(spec, "batch", "sweep_batches")
    )


def _lane_pairs(spec: Mapping[str, Any]) -> int:
    counts = spec["initiators"], spec["targets"]
    return Topology(spec["scheme"], spec["mode"], *counts, storage=spec["backend"] not in NETWORK).lane_pairs


def _values(spec: Mapping[str, Any], one: str, many: str) -> list[int]:
    if one in spec:
        return [spec[one]]
    found = [spec[many]["start"]]
    while found[-1] * 2 <= spec[many]["stop"]:
        found.append(found[-1] * 2)
    return found
