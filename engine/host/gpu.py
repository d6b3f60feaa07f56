"""GPU facts from NVML, queried in a child process: a broken driver hangs its callers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from kvdeck.engine.children.child import run
from kvdeck.engine.host.facts import Gpu, GpuFacts
from kvdeck.engine.host.kernel_files import kernel_number
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

_DRIVER_SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/nvmap")


def driver_present() -> bool:
    """True if this host has any file of a GPU driver; cheap, and can't hang."""
    return any(Path(sign).exists() for sign in _DRIVER_SIGNS)


def gpu_facts(limit_s: float = 2.0) -> GpuFacts:
    """Return the GPUs and their driver; no GPUs, with the reason, if NVML fails or takes over `limit_s` seconds."""
    if not driver_present():
        return GpuFacts(reason="no NVIDIA driver is loaded")
    child = run([sys.executable, "-c", "from kvdeck.engine.host import gpu; gpu.main()"], limit_s)
    if child.status is None:
        return GpuFacts(reason=f"the NVIDIA driver did not answer within {number_text(limit_s)} s")
    try:
        return parse(load_record(child.output))
    except ValueError:
        return GpuFacts(reason=f"the query of the NVIDIA driver ended with status {child.status}")


def parse(data: dict[str, Any]) -> GpuFacts:
    """Return the facts in the mapping that the child prints."""
    return GpuFacts(
        gpus=tuple(Gpu(**gpu) for gpu in data["gpus"]),
        driver=data["driver"],
        cuda=data["cuda"],
        reason=data["reason"],
    )


def ask_driver() -> dict[str, Any]:
    """Query NVML in this process and return the child's mapping; NVML errors become its `reason`."""
    import pynvml

    try:
        pynvml.nvmlInit()
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        gpus = [_ask_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
        return {
            "gpus": gpus,
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}",
            "reason": None if gpus else "the NVIDIA driver lists no GPU",
        }
    except pynvml.NVMLError as error:
        return {"gpus": [], "driver": None, "cuda": None, "reason": f"the NVIDIA driver reports: {error}"}


def _ask_gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    except nvml.NVMLError:  # GPUs that share the host's memory report none
        total = free = 0
    try:
        users = {process.pid for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)} - {os.getppid()}
    except nvml.NVMLError:
        users = set()
    return {
        "index": index,
        "name": str(nvml.nvmlDeviceGetName(handle)),
        "uuid": str(nvml.nvmlDeviceGetUUID(handle)),
        "memory_bytes": total,
        "memory_free_bytes": free,
        "other_processes": len(users),
        "numa_node": numa_node(str(nvml.nvmlDeviceGetPciInfo(handle).busId)),
    }


def numa_node(bus_id: str, root: Path = Path("/")) -> int | None:
    """Return the NUMA node of a PCI device, by its address as NVML writes it: `00000000:18:00.0`; None if unknown."""
    domain, _, rest = bus_id.lower().partition(":")
    node = kernel_number(root / f"sys/bus/pci/devices/{domain[-4:]}:{rest}/numa_node")
    return node if node is not None and node >= 0 else None


def main() -> None:
    """Main function of the child: print NVML's answers as one JSON object."""
    sys.stdout.write(json.dumps(ask_driver()))
