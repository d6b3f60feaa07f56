"""Hook that counts the transfers of vLLM's OffloadingConnector; vLLM loads `register` as a general plugin.

Supports a router with `transfer_async(job, (source, target))`, and since 0.25 workers with `submit_store` and
`submit_load`. Bytes and times are vLLM's own where available: 0.14 and older have neither.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable
from time import perf_counter
from types import ModuleType
from typing import Any

from kvdeck.engine.tracing import LAYOUT
from kvdeck.engine.tracing.call_arguments import arguments
from kvdeck.sessions import recorder

_jobs: dict[tuple[int, Any], tuple[str, int, float]] = {}
"""Path, blocks and start time (s) of each job in progress, by `id(worker)` and job number."""


def register() -> None:
    """Install the import hook if `$KVDECK_RECORD_FOLDER` is set; entry point of `vllm.general_plugins`."""
    if os.environ.get("KVDECK_RECORD_FOLDER"):
        from kvdeck.engine.tracing import import_hook

        with contextlib.suppress(Exception):
            import_hook.install()


def instrument(module: ModuleType) -> None:
    """Wrap the module's OffloadingWorker and all its subclasses, present and future."""
    worker: Any = getattr(module, "OffloadingWorker", None)
    if worker is None or getattr(worker, "kvdeck", False):
        return
    worker.kvdeck = True
    _wrap(worker)
    derive = worker.__init_subclass__

    def derived(cls: type, /, **named: Any) -> None:
        derive(**named)
        with contextlib.suppress(Exception):
            _wrap(cls)

    worker.__init_subclass__ = classmethod(derived)
    for cls in _descendants(worker):
        _wrap(cls)


def _descendants(cls: Any) -> Iterable[type]:
    for child in cls.__subclasses__():
        yield child
        yield from _descendants(child)


def _wrap(cls: type) -> None:
    wrappers: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
        "transfer_async": functools.partial(_submitting, store=None),
        "submit_store": functools.partial(_submitting, store=True),
        "submit_load": functools.partial(_submitting, store=False),
        "get_finished": _finishing,
    }
    for name, wrap in wrappers.items():
        original = cls.__dict__.get(name)
        if callable(original) and not getattr(original, "kvdeck", False):
            wrapper = functools.wraps(original)(wrap(original))
            wrapper.kvdeck = True  # type: ignore[attr-defined]
            setattr(cls, name, wrapper)


def _submitting(call: Callable[..., Any], store: bool | None) -> Callable[..., Any]:
    def submit(worker: Any, *args: Any, **named: Any) -> Any:
        job = None
        with contextlib.suppress(Exception):
            if store is None:
                job, (source, target) = arguments(args, named, ("job_id", "spec"))
            else:
                job, source, target = arguments(args, named, ("job_id", "src_spec", "dst_spec"))
            path = _path(source, target, store)
            # The larger count: a block in host memory may hold several of the device's.
            _jobs[id(worker), job] = path, max(_blocks(source), _blocks(target)), perf_counter()
        try:
            accepted = call(worker, *args, **named)
        except Exception:
            _refused(worker, job)
            raise
        if accepted is False:
            _refused(worker, job)
        return accepted

    return submit


def _refused(worker: Any, job: Any) -> None:
    with contextlib.suppress(Exception):
        path, _, _ = _jobs.pop((id(worker), job))
        recorder.failed(path, _layout())


def _path(source: Any, target: Any, store: bool | None) -> str:
    ends = [_place(source), _place(target)]
    if store is not None:
        ends[0 if store else 1] = "Device"
    return "To".join(ends)


def _place(spec: Any) -> str:
    medium = getattr(spec, "medium", None)
    name = str(medium() if callable(medium) else type(spec).__name__).upper()
    return "Device" if "GPU" in name else "Host" if "CPU" in name else "Disk"


def _blocks(spec: Any) -> int:
    ids = getattr(spec, "block_ids", None)
    return 0 if ids is None else len(ids)


def _finishing(call: Callable[..., Any]) -> Callable[..., Any]:
    def finish(worker: Any, *args: Any, **named: Any) -> Any:
        results = call(worker, *args, **named)
        for result in results if isinstance(results, (list, tuple)) else ():
            with contextlib.suppress(Exception):
                _finished(worker, result)
        return results

    return finish


def _finished(worker: Any, result: Any) -> None:
    job, success = result[:2] if isinstance(result, tuple) else (result.job_id, result.success)
    known = _jobs.pop((id(worker), job), None)
    if known is None:
        return
    path, blocks, started = known
    if not success:
        recorder.failed(path, _layout())
        return
    size, seconds = getattr(result, "transfer_size", None), getattr(result, "transfer_time", None)
    recorder.record(path, _layout(), int(size or 0), blocks, seconds or perf_counter() - started)


def _layout() -> str:
    return os.environ.get(LAYOUT) or "Unknown"
