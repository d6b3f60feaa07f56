"""The one module that imports nixl: everything else asks it for agents."""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any

from kvdeck.sessions.errors import UnavailableError

_CUDA_LIBRARIES = ("libcudart.so", "libcufile.so.0")


def preload_cuda_libraries() -> dict[str, str]:
    """Load libcudart and libcufile globally, so that the GDS plugins find them in the wheels they come in.

    Returns:
        Library name to the file that was loaded, or to why none could be.
    """
    found: dict[str, str] = {}
    for name in _CUDA_LIBRARIES:
        found[name] = "not found: install kvdeck[cuda12] or kvdeck[cuda13], or the CUDA toolkit"
        for candidate in (*_wheel_files(name), name):
            try:
                ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
            except OSError as error:
                if "/" in candidate:
                    found[name] = str(error)
                continue
            found[name] = candidate
            break
    return found


def _wheel_files(name: str) -> list[str]:
    """Files of that library in the installed `nvidia.*` wheels, whatever their folder layout."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    return [str(path) for root in roots for path in sorted(Path(root).glob(f"*/lib/{name}*"), reverse=True)]


def version() -> str:
    """The installed NIXL's version."""
    return importlib.metadata.version("nixl")


def load() -> Any:
    """The `nixl._api` module.

    Raises:
        UnavailableError: NIXL is not installed, or its library doesn't load.
    """
    try:
        import nixl._api as api
    except ImportError as error:
        raise UnavailableError(f"NIXL does not load: {error}", "install the nixl package for this Python") from error
    return api


def make_agent(name: str, *, progress_thread: bool = False) -> Any:
    """A NIXL agent without backends. NIXL's own default for the progress thread is on; ours is off."""
    api = load()
    return api.nixl_agent(name, api.nixl_agent_config(enable_prog_thread=progress_thread, backends=[]))
