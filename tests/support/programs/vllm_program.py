"""A program over the real vLLM (0.33) that knows nothing of kvdeck: vLLM's own plugin loader, OffloadingConnectorWorker
and CPUOffloadingWorker move two layers' blocks.

Without a GPU, only what needs CUDA stands in: the streams, the events, and the copy itself, which here is a memmove of
the same addresses and sizes. It stores three blocks, loads two of them, and loads one at once, in the step that asks.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import time
from types import SimpleNamespace

import torch
from vllm.plugins import load_general_plugins

if sys.argv[1:] != ["late"]:
    load_general_plugins()

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingConnectorMetadata, TransferJob
from vllm.distributed.kv_transfer.kv_connector.v1.offloading.worker import OffloadingConnectorWorker
from vllm.v1.kv_offload.base import CanonicalKVCacheRef, CanonicalKVCaches, CanonicalKVCacheTensor, GPULoadStoreSpec
from vllm.v1.kv_offload.cpu import gpu_worker
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

if sys.argv[1:] == ["late"]:
    load_general_plugins()

BLOCKS, PAGE, LAYERS = 8, 4096, 2


class DeviceMemory(torch.Tensor):
    """Host memory that says it is on the device."""

    @property
    def is_cuda(self) -> bool:
        return True


class Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self, stream: object) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


def copy(sources, targets, sizes, **_: object) -> None:
    for source, target, size in zip(sources.tolist(), targets.tolist(), sizes.tolist(), strict=True):
        ctypes.memmove(target, source, size)


def without_cuda() -> None:
    stream = SimpleNamespace(wait_stream=lambda _: None, wait_event=lambda _: None)
    gpu_worker.torch = SimpleNamespace(**{**vars(torch), "Event": Event})
    gpu_worker.PIN_MEMORY = False
    gpu_worker.ops = SimpleNamespace(swap_blocks_batch=copy)
    gpu_worker.current_platform = SimpleNamespace(
        Stream=lambda: stream,
        current_stream=lambda: stream,
        stream=lambda _: contextlib.nullcontext(),
        is_xpu=lambda: False,
        is_rocm=lambda: False,
    )


def gpu(*blocks: int) -> GPULoadStoreSpec:
    return GPULoadStoreSpec(list(blocks), [len(blocks)], [0])


def main() -> None:
    without_cuda()
    memory = [torch.randint(-128, 127, (BLOCKS, PAGE), dtype=torch.int8) for _ in range(LAYERS)]
    caches = CanonicalKVCaches(
        [CanonicalKVCacheTensor(layer.as_subclass(DeviceMemory), PAGE) for layer in memory],
        [[CanonicalKVCacheRef(index, PAGE) for index in range(LAYERS)]],
    )
    spec = SimpleNamespace(replicated_layout=False, get_worker=lambda kv: gpu_worker.CPUOffloadingWorker(kv, 1, BLOCKS))
    connector = OffloadingConnectorWorker(spec, None, None)
    connector._init_worker(caches)
    before = [layer.clone() for layer in memory]

    step = OffloadingConnectorMetadata({}, {1: TransferJob("a", gpu(0, 1, 2), CPULoadStoreSpec([5, 6, 7]))})
    connector.prepare_store_kv(step)
    loads = {
        2: TransferJob("b", CPULoadStoreSpec([5, 6]), gpu(3, 4)),
        3: TransferJob("c", CPULoadStoreSpec([7]), gpu(5), sync=True),
    }
    connector.start_kv_transfers(OffloadingConnectorMetadata(loads, {}))
    connector.get_finished(set())
    for layer, was in zip(memory, before, strict=True):
        assert torch.equal(layer[3:6], was[0:3]), "the blocks came back elsewhere"
    stats = connector._connector_worker_meta.transfer_stats
    print("vllm", stats.store.bytes, stats.store.sizes, stats.load.bytes, sorted(stats.load.sizes))
    connector.shutdown()


if __name__ == "__main__":
    main()
