"""The GPUs, asked of NVML in a child process, since a broken driver hangs whoever asks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kvdeck.engine.host.facts import Gpu, GpuFacts
from kvdeck.sessions.host.documents import load_record
from kvdeck.sessions.units import number_text

_DRIVER_SIGNS = ("/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg", "/dev/nvmap")


def driver_present() -> bool:
    """Whether a GPU driver has left any sign on this host; costs nothing and can't hang."""
    return any(Path(sign).exists() for sign in _DRIVER_SIGNS)


def gpu_facts(limit_s: float = 2.0) -> GpuFacts:
    """The GPUs and their driver; where they can't be had within the limit, an empty list with the reason."""
    if not driver_present():
        return GpuFacts(reason="no NVIDIA driver is loaded")
    child = subprocess.Popen(
        [sys.executable, "-c", "from kvdeck.engine.host import gpu; gpu.main()"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = child.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        child.kill()  # not waited for: a process stuck in the driver can't even die
        return GpuFacts(reason=f"the NVIDIA driver gave no answer within {number_text(limit_s)} s")
    try:
        return parse(load_record(output))
    except ValueError:
        return GpuFacts(reason=f"asking the NVIDIA driver ended with status {child.returncode}")


def parse(data: dict[str, Any]) -> GpuFacts:
    """The facts from the mapping that the child prints."""
    return GpuFacts(
        gpus=tuple(Gpu(**gpu) for gpu in data["gpus"]),
        driver=data["driver"],
        cuda=data["cuda"],
        reason=data["reason"],
    )


def ask_driver() -> dict[str, Any]:
    """What NVML says, in this process."""
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
        return {"gpus": [], "driver": None, "cuda": None, "reason": f"the NVIDIA driver says: {error}"}


def _ask_gpu(nvml: Any, index: int) -> dict[str, Any]:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = int(memory.total), int(memory.free)
    except nvml.NVMLError:  # GPUs that share the host's memory have none of their own to report
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
    }


def main() -> None:
    """The child: prints what the driver says as one JSON object."""
    sys.stdout.write(json.dumps(ask_driver()))
