"""Resource needs of a trial, computed before it allocates anything."""

from __future__ import annotations

from kvdeck.engine.io import plugins
from kvdeck.engine.spec import RunSpec
from kvdeck.engine.transfer.preflight import Needs, Part
from kvdeck.engine.transfer.trials import FILE_PATHS, Trial, between_processes
from kvdeck.sessions.errors import KvdeckError
from kvdeck.sessions.model.records import DEVICE_TO_DEVICE

_POSIX_QUEUE, _POSIX_POOL = 256, 65536  # the POSIX plugin's defaults


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
        host=(Part(_host_buffers(spec, trial) * lanes, size),),
        device=(Part(_device_buffers(spec, trial.path) * lanes, size),) if "Device" in trial.path else (),
        disk=(Part(trial.files * lanes, size // trial.files),) if on_file else (),
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
    """Return the number of working sets in host memory: endpoints, reference scratch, verification and staging."""
    source, destination = trial.path.split("To")
    sides = (source == "Host") + (destination == "Host")
    reference = spec.reference and (trial.path == "HostToHost" or trial.path in FILE_PATHS)
    read_back = spec.verify and destination != "Host"
    bounce = trial.backend.startswith(plugins.STAGED)
    return sides + reference + read_back + bounce


def _device_buffers(spec: RunSpec, path: str) -> int:
    """Return the number of working sets in GPU memory: endpoints, and the reference's with a target process."""
    return path.count("Device") + (path == DEVICE_TO_DEVICE and spec.reference and between_processes(spec, path))


def _parameter(spec: RunSpec, name: str, default: int) -> int:
    text = spec.params.get(name, str(default))
    if not text.isdigit() or not text.isascii():
        raise KvdeckError(
            f"plugin parameter {name}={text!r} is not a whole number", f"give for example --param {name}={default}"
        )
    return int(text)
