"""The one module that imports nixl: everything else asks it for agents and backends."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import importlib.metadata
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
    """Load libcudart and libcufile globally, so that the GDS plugins find them in the wheels they come in.

    Returns:
        Library name to the file that was loaded, or to why none could be.
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


def version() -> str:
    """The installed NIXL's version."""
    return importlib.metadata.version("nixl")


@functools.cache
def load() -> Any:
    """NIXL's `_api` module, of the build that fits this environment's CUDA.

    Its logger would print to stdout; here it prints warnings to stderr, or what `$NIXL_LOG_LEVEL` asks for.

    Raises:
        UnavailableError: NIXL is not installed, or its library doesn't load.
    """
    os.environ.setdefault("NIXL_LOG_LEVEL", "WARN")
    name = plugins.build() or "nixl"
    try:
        with contextlib.redirect_stdout(sys.stderr):  # where its handler then stays
            api = importlib.import_module(f"{name}._api")
    except ImportError as error:
        raise UnavailableError(f"NIXL does not load: {error}", "install the nixl package for this Python") from error
    for handler in logging.getLogger("nixl").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    return api


def make_agent(name: str, *, progress_thread: bool = False) -> Any:
    """A NIXL agent without backends. NIXL's own default for the progress thread is on; ours is off.

    Raises:
        UnavailableError: NIXL isn't installed, or makes no agent since it finds no plugin.
    """
    api = load()
    try:
        return api.nixl_agent(name, api.nixl_agent_config(enable_prog_thread=progress_thread, backends=[]))
    except Exception as error:  # NIXL's exceptions share no base below Exception
        raise reasons.no_agent(str(error)) from error


def require_plugin(backend: str) -> Path:
    """The file of a plugin that is present and loads.

    Raises:
        UnavailableError: It isn't there, or a library it needs is missing; names that library.
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
        UnavailableError: Something is missing.
    """
    # Without a driver, newer cuFile versions spin for ever instead of failing, so creating is not even tried.
    driverless = backend in _NEED_DRIVER and not driver_present()
    try:
        require_plugin(backend)
    except UnavailableError as error:
        raise reasons.no_driver(also=error) if driverless and backend in plugins.plugin_files() else error from error
    if driverless:
        raise reasons.no_driver()


def plugin_parameters(agent: Any, backend: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """A plugin's parameters with their defaults, and its memory types as `DRAM`, `VRAM`, `FILE`, ….

    Raises:
        UnavailableError: The plugin is missing or doesn't load.
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
        UnavailableError: It can't be created here; the reason is the native libraries', in an operator's words.
    """
    require_backend(backend)
    with stdio.captured() as words:
        try:
            agent.create_backend(backend, dict(params or {}))
        except Exception as error:  # as above
            failure: Exception | None = error
        else:
            failure = None
    if failure is not None:
        raise reasons.not_created(backend, str(failure), words.text) from failure


def register(agent: Any, backend: str, kind: str, pieces: Sequence[tuple[int, int, int]]) -> Any:
    """Register memory or files with a backend; returns what `deregister_memory` takes.

    Args:
        kind: NIXL's memory type: DRAM, VRAM or FILE.
        pieces: Of each its address (0 for a file), bytes, and device (GPU or file descriptor).

    Raises:
        UnavailableError: The backend refuses them; the reason is the native libraries', in an operator's words.
    """
    with stdio.captured() as words:
        try:
            return agent.register_memory([(*piece, "") for piece in pieces], kind, [backend])
        except Exception as error:  # as above
            failure = error
    raise reasons.not_registered(backend, kind, str(failure), words.text) from failure
