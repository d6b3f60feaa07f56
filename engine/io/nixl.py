"""NIXL agents, backends and registrations; the only module that imports nixl."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvdeck.engine.host.gpu import driver_present
from kvdeck.engine.io import plugins, reasons, stdio
from kvdeck.sessions.errors import UnavailableError

_NEED_CUDA = ("GDS", "GDS_MT", "GPUNETIO", "LIBFABRIC")
_NEED_DRIVER = ("GDS", "GDS_MT", "GPUNETIO")


@functools.cache
def preload_cuda_libraries() -> dict[str, str]:
    """Load libcudart and libcufile with RTLD_GLOBAL, so that the GDS plugins resolve them from the CUDA wheels.

    Returns:
        Library name to the loaded file, or to the reason why none could be loaded.
    """
    major = (plugins.build() or "")[-2:]
    found: dict[str, str] = {}
    for name, soname in (("libcudart.so", f"libcudart.so.{major}"), ("libcufile.so.0", "libcufile.so.0")):
        found[name] = "not found: install kvdeck[cuda12] or kvdeck[cuda13], or the CUDA toolkit"
        for candidate in (*plugins.library_files(soname), soname):
            try:
                ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                if "/" in candidate:
                    found[name] = str(error)
                continue
            found[name] = candidate
            break
    return found


@functools.cache
def load() -> Any:
    """Import NIXL's `_api` module from the build that fits this environment's CUDA.

    NIXL's logger would print to stdout; here it prints to stderr, at `$NIXL_LOG_LEVEL` (default: WARN).

    Raises:
        UnavailableError: NIXL is not installed, or its library doesn't load.
    """
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
    name = plugins.build() or "nixl"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the log handler holds on to the stream it sees on import
            api = importlib.import_module(f"{name}._api")
    except ImportError as error:
        raise UnavailableError(f"NIXL does not load: {error}", "install the nixl package for this Python") from error
    for handler in logging.getLogger("nixl").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    return api


def make_agent(name: str, *, progress_thread: bool = False) -> Any:
    """Create a NIXL agent without backends. The progress thread is off by default (NIXL's own default is on).

    Raises:
        UnavailableError: NIXL isn't installed, or creates no agent because it has no plugin.
    """
    api = load()
    try:
        # Measured on two cores: NIXL's own default, the thread on, left 0.2 to 0.4 of the bandwidth.
        return api.nixl_agent(name, api.nixl_agent_config(enable_prog_thread=progress_thread, backends=[]))
    except Exception as error:  # NIXL's exceptions share no base below Exception
        raise reasons.no_agent(str(error)) from error


def require_plugin(backend: str) -> Path:
    """Load a plugin's shared object and return its path.

    Raises:
        UnavailableError: The plugin is missing, or a library that it needs is; the message names the library.
    """
    file = plugins.plugin_files().get(backend)
    if file is None:
        raise reasons.no_plugin(backend)
    if backend in _NEED_CUDA:
        preload_cuda_libraries()
    load()  # first, or NIXL's native log is set up too late and prints everything
    try:
        ctypes.CDLL(str(file))
    except OSError as error:
        raise reasons.does_not_load(backend, str(error)) from error
    return file


def require_backend(backend: str) -> None:
    """Check what a backend needs before it is created: its plugin, its libraries, its driver.

    Raises:
        UnavailableError: One of them is missing.
    """
    # Without a driver, newer cuFile versions spin endlessly instead of failing: don't try to create the backend.
    driverless = backend in _NEED_DRIVER and not driver_present()
    try:
        require_plugin(backend)
    except UnavailableError as error:
        raise reasons.no_driver(also=error) if driverless and backend in plugins.plugin_files() else error from error
    if driverless:
        raise reasons.no_driver()


def plugin_parameters(agent: Any, backend: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return a plugin's parameters with their defaults, and its memory types (`DRAM`, `VRAM`, `FILE`, …).

    Raises:
        UnavailableError: The plugin is missing, doesn't load, or NIXL refuses to list its parameters.
    """
    require_plugin(backend)
    with stdio.captured() as words:
        try:
            params, kinds = agent.agent.getPluginParams(backend)
        except Exception as error:  # NIXL's exceptions share no base below Exception
            failure: Exception | None = error
        else:
            failure = None
    if failure is not None:
        raise reasons.not_created(backend, str(failure), words.text) from failure
    return dict(params), tuple(str(kind).removesuffix("_SEG") for kind in kinds)


def create_backend(agent: Any, backend: str, params: dict[str, str] | None = None) -> None:
    """Create a backend in the agent.

    Raises:
        UnavailableError: It can't be created here; the reason explains what the native libraries wrote.
    """
    require_backend(backend)
    with stdio.captured() as words:
        try:
            agent.create_backend(backend, dict(params or {}))
        except Exception as error:  # see plugin_parameters
            failure: Exception | None = error
        else:
            failure = None
    if failure is not None:
        raise reasons.not_created(backend, str(failure), words.text) from failure


def register(agent: Any, backend: str, kind: str, pieces: Sequence[tuple[int, int, int]]) -> Any:
    """Register memory or files with a backend; return the handle for `deregister_memory`.

    Args:
        kind: NIXL's memory type: DRAM, VRAM or FILE.
        pieces: (address, bytes, device) of each piece; the address is 0 for a file, the device is the GPU number or
            the file descriptor.

    Raises:
        UnavailableError: The backend refuses them; the reason explains what the native libraries wrote.
    """
    with stdio.captured() as words:
        try:
            return agent.register_memory([(*piece, "") for piece in pieces], kind, [backend])
        except Exception as error:  # see plugin_parameters
            failure = error
    raise reasons.not_registered(backend, kind, str(failure), words.text) from failure
