"""GPU telemetry from the NVIDIA driver through NVML: memory, utilisation, PCIe and NVLink."""

from __future__ import annotations

from typing import Any

from kvdeck.engine.telemetry.source import Reading, Series, SourceGone
from kvdeck.engine.telemetry.sources.local_source import LocalSource, now_ns

_ALL_LINKS = 0xFFFFFFFF
_LANE_BYTES_PER_S = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
"""PCIe bandwidth per lane by generation, after line coding."""


class Gpus:
    """Telemetry of all GPUs of the driver.

    NVML's PCIe throughput is a 20 ms sample that blocks, per direction and GPU; NVLink has cumulative counters.
    """

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] = []

    def look(self) -> Reading:
        """Read every GPU.

        Raises:
            SourceGone: NVML fails, or the driver lists no GPU.
        """
        import pynvml

        try:
            if self._nvml is None:
                pynvml.nvmlInit()
                self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
                self._nvml = pynvml
        except pynvml.NVMLError as error:
            raise SourceGone(f"the NVIDIA driver reports: {error}") from None
        if not self._handles:
            raise SourceGone("the NVIDIA driver lists no GPU")
        values: dict[Series, float] = {}
        limits: dict[Series, float] = {}
        missing: set[str] = set()
        for index, handle in enumerate(self._handles):
            self._look_at(handle, (("gpu", str(index)),), values, limits, missing)
        return Reading(now_ns(), values, missing=", ".join(sorted(missing)), limits=limits)

    def _look_at(
        self,
        handle: Any,
        labels: tuple[tuple[str, str], ...],
        values: dict[Series, float],
        limits: dict[Series, float],
        missing: set[str],
    ) -> None:
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            values[Series("gpu_memory_used_bytes", labels, False)] = float(memory.used)
            usage = nvml.nvmlDeviceGetUtilizationRates(handle)
            values[Series("gpu_utilisation", labels, False)] = usage.gpu / 100
        except nvml.NVMLError:
            missing.add("memory and utilisation are not reported")
        limit = self._pcie_limit(handle)
        for way, code in (("sent", nvml.NVML_PCIE_UTIL_TX_BYTES), ("received", nvml.NVML_PCIE_UTIL_RX_BYTES)):
            series = Series(f"gpu_pcie_{way}_bytes_per_s", labels, False)
            try:
                values[series] = nvml.nvmlDeviceGetPcieThroughput(handle, code) * 1e3
                if limit is not None:
                    limits[series] = limit
            except nvml.NVMLError:
                missing.add("PCIe throughput is not reported")
        for way, field in (
            ("sent", nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX),
            ("received", nvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX),
        ):
            kibibytes = self._field(handle, field, _ALL_LINKS)
            if kibibytes is not None:
                values[Series(f"gpu_nvlink_{way}_bytes", labels)] = kibibytes * 1024

    def _field(self, handle: Any, field: int, scope: int) -> float | None:
        try:
            (answer,) = self._nvml.nvmlDeviceGetFieldValues(handle, [(field, scope)])
        except (self._nvml.NVMLError, ValueError):
            return None
        if answer.nvmlReturn != self._nvml.NVML_SUCCESS:
            return None
        return float(answer.value.ullVal)

    def _pcie_limit(self, handle: Any) -> float | None:
        try:
            generation = self._nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle)
            width = self._nvml.nvmlDeviceGetMaxPcieLinkWidth(handle)
        except self._nvml.NVMLError:
            return None
        lane = _LANE_BYTES_PER_S.get(generation)
        return None if lane is None else float(lane * width)


def gpu_source() -> LocalSource:
    """Return a source for all GPUs, read at most once per second because the driver's calls are slow."""
    return LocalSource("gpus", "gpu", Gpus().look, least_period_s=1.0)
