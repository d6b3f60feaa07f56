"""Resource needs of a trial, computed and compared with this host's resources before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from kvdeck.engine.host.facts import FolderFacts, HostFacts
from kvdeck.engine.io import plugins
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer.trials import Trial, between_processes
from kvdeck.sessions.errors import KvdeckError, UnavailableError
from kvdeck.sessions.model.records import DEVICE_TO_DEVICE, FILE_PATHS
from kvdeck.sessions.units import count_text, many, size_text

_POSIX_QUEUE, _POSIX_POOL = 256, 65536  # the POSIX plugin's defaults
_SPARE = 0.9
"""Share of the available memory or disk that a run may use; the rest is left to the host."""
_OWN_FILES = 64
"""File descriptors used by Python, NIXL and the engine's channels, in addition to a run's files."""


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """`count` buffers, or files, of `bytes` each."""

    count: int
    bytes: int

    @property
    def total(self) -> int:
        return self.count * self.bytes


@dataclass(frozen=True, slots=True)
class Needs:
    """Peak resource needs of one run."""

    host: tuple[MemoryPart, ...] = ()
    """Host memory, one part per kind of buffer."""
    device: tuple[MemoryPart, ...] = ()
    """GPU memory, all on `device_index`."""
    disk: tuple[MemoryPart, ...] = ()
    device_index: int = 0
    blocks: int | None = None
    """Blocks in the working set, from which the suggested `--blocks` is computed."""
    open_files: int = 0
    locked_bytes: int = 0
    """Locked memory: registered with a NIC, or pinned without CUDA."""
    aio_slots: int = 0
    """Kernel AIO events: `kernel_queue_size`, summed over all initiators."""
    request_descriptors: int = 0
    """Descriptors that one initiator has in flight: those of its largest request times its pipeline depth."""
    request_limit: int | None = None
    """Limit of descriptors in flight per initiator: the POSIX plugin refuses more than its `ios_pool_size`."""


def needs_of(spec: RunSpec, trial: Trial) -> Needs:
    """Return the peak needs of a trial; tuning doubles them, since it opens two settings at a time.

    Raises:
        KvdeckError: A plugin parameter isn't a whole number.
    """
    size = trial.blocks // trial.lanes * trial.geometry.block_bytes
    crews = 2 if spec.tune else 1
    lanes = trial.lanes * crews
    on_file, posix = trial.path in FILE_PATHS, trial.backend.removeprefix(plugins.STAGED) == "POSIX"
    aio = posix and trial.api == "AIO"
    return Needs(
        host=(MemoryPart(_host_buffers(spec, trial) * lanes, size),),
        device=(MemoryPart(_device_buffers(spec, trial.path) * lanes, size),) if "Device" in trial.path else (),
        disk=(MemoryPart(trial.files * lanes, size // trial.files),) if on_file else (),
        blocks=trial.blocks,
        open_files=2 * trial.files * lanes if on_file else 0,
        aio_slots=_parameter(spec, "kernel_queue_size", _POSIX_QUEUE) * lanes if aio else 0,
        # the plugin's descriptor pool is shared by all requests in flight
        request_descriptors=max(plan.descriptors_per_block for plan in trial.steps)
        * trial.batch
        * min(spec.pipeline_depth, trial.blocks // trial.lanes // trial.batch),
        request_limit=_parameter(spec, "ios_pool_size", _POSIX_POOL) if posix else None,
    )


def _host_buffers(spec: RunSpec, trial: Trial) -> int:
    """Return the number of working sets in host memory: endpoints, the reference's, verification and staging."""
    source, destination = trial.path.split("To")
    sides = (source == "Host") + (destination == "Host") - (spec.peer is not None and source == "Host")
    reference = spec.reference and spec.peer is None and trial.path != DEVICE_TO_DEVICE
    read_back = spec.verify and destination != "Host"
    bounce = trial.backend.startswith(plugins.STAGED)
    return sides + reference + read_back + bounce


def _device_buffers(spec: RunSpec, path: str) -> int:
    """Return the number of working sets in this host's GPU memory: endpoints, and the reference's with a target."""
    if spec.peer is not None:
        return path.count("Device") - (path == DEVICE_TO_DEVICE)
    return path.count("Device") + (path == DEVICE_TO_DEVICE and spec.reference and between_processes(spec, path))


def _parameter(spec: RunSpec, name: str, default: int) -> int:
    text = spec.params.get(name, str(default))
    if not text.isdigit() or not text.isascii() or len(text) > 18:
        raise KvdeckError(
            f"plugin parameter {name}={text!r} is not a whole number", f"give for example --param {name}={default}"
        )
    return int(text)


def check_room(needs: Needs, host: HostFacts) -> None:
    """Return if the run fits this host.

    Raises:
        UnavailableError: It doesn't fit; one line with the need, the available amount, and the fix.
    """
    _fits(needs.host, host.memory_available_bytes, "memory", needs.blocks)
    if needs.device:
        gpu = next((gpu for gpu in host.gpu.gpus if gpu.index == needs.device_index), None)
        if gpu is not None and gpu.memory_bytes > 0:
            _fits(needs.device, gpu.memory_free_bytes, f"memory on GPU {gpu.index}", needs.blocks)
    if needs.disk and host.folder is not None:
        _fits_disk(needs, host, host.folder)
    _fits_limits(needs, host)


def _fits_disk(needs: Needs, host: HostFacts, folder: FolderFacts) -> None:
    _fits(needs.disk, folder.free_bytes, f"disk space in {folder.path}", needs.blocks)
    if folder.in_memory:
        _fits(needs.host + needs.disk, host.memory_available_bytes, f"memory, {folder.path} included", needs.blocks)


def _fits(parts: tuple[MemoryPart, ...], available: int, what: str, blocks: int | None) -> None:
    total, allowed = sum(part.total for part in parts), int(available * _SPARE)
    if total <= allowed:
        return
    summands = " + ".join(
        f"{count_text(part.count)} × {size_text(part.bytes)}" if part.count > 1 else size_text(part.bytes)
        for part in parts
    )
    needed = summands if len(parts) == 1 and parts[0].count == 1 else f"{summands} = {size_text(total)}"
    fitting = 0 if blocks is None else blocks * allowed // total
    fix = f"lower --blocks to {fitting}" if fitting else "free some, or lower --blocks or the block size"
    raise UnavailableError(f"needs {needed} of {what}, but {size_text(available)} are available", fix)


def _fits_limits(needs: Needs, host: HostFacts) -> None:
    files = needs.open_files + _OWN_FILES
    if needs.open_files and host.open_files is not None and files > host.open_files:
        raise UnavailableError(
            f"needs {count_text(needs.open_files)} + {_OWN_FILES} = {count_text(files)} open files, but "
            f"{count_text(host.open_files)} are allowed",
            f"lower --files, or: ulimit -n {files}",
        )
    if host.memlock_bytes is not None and needs.locked_bytes > host.memlock_bytes:
        raise UnavailableError(
            f"needs {size_text(needs.locked_bytes)} of locked memory, but {size_text(host.memlock_bytes)} are allowed",
            "raise it: ulimit -l unlimited (in a container: --ulimit memlock=-1), or lower --blocks",
        )
    used = host.aio_used or 0
    if host.aio_max is not None and needs.aio_slots > host.aio_max - used:
        raise UnavailableError(
            f"needs {count_text(needs.aio_slots)} kernel AIO events, but "
            f"{count_text(host.aio_max - used)} of {count_text(host.aio_max)} are free",
            f"use --api URING, or: sudo sysctl fs.aio-max-nr={used + needs.aio_slots}",
        )
    if needs.request_limit is not None and needs.request_descriptors > needs.request_limit:
        raise UnavailableError(
            f"needs {many(needs.request_descriptors, 'descriptor')} in flight, "
            f"but the plugin takes {count_text(needs.request_limit)}",
            f"lower --batch, or raise it: --param ios_pool_size={needs.request_descriptors}",
        )
