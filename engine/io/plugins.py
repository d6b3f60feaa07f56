"""NIXL's builds and plugin files, located on disk without importing NIXL, and the backends of each path."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import re
from pathlib import Path

from kvdeck.sessions.model.records import (
    DEVICE_TO_DEVICE,
    DEVICE_TO_DISK,
    DEVICE_TO_HOST,
    DISK_TO_DEVICE,
    DISK_TO_HOST,
    HOST_TO_DEVICE,
    HOST_TO_DISK,
    HOST_TO_HOST,
)

STAGED = "staged:"
"""Prefix of a backend that is reached through host memory: `staged:POSIX`."""

SERVES: dict[str, tuple[str, ...]] = {
    HOST_TO_HOST: ("UCX",),
    HOST_TO_DISK: ("POSIX", "GDS", "GDS_MT"),
    DISK_TO_HOST: ("POSIX", "GDS", "GDS_MT"),
    HOST_TO_DEVICE: ("UCX",),
    DEVICE_TO_HOST: ("UCX",),
    DEVICE_TO_DEVICE: ("UCX",),
    DEVICE_TO_DISK: ("GDS", "GDS_MT", "staged:POSIX"),
    DISK_TO_DEVICE: ("GDS", "GDS_MT", "staged:POSIX"),
}
"""Backends of each path, in order of preference."""

POSIX_PARAMS = {"AIO": "use_aio", "URING": "use_uring", "POSIXAIO": "use_posix_aio"}
"""Parameter of the POSIX plugin that selects each API."""

_RUNTIME_WHEELS = (("cupy-cuda13x", 13), ("cupy-cuda12x", 12), ("nvidia-cuda-runtime-cu12", 12))
_TOOLKITS = ("/usr/local/cuda*/lib64", "/usr/local/cuda*/lib", "/usr/lib/*-linux-gnu")


def uses_device(path: str) -> bool:
    """True if a path has a GPU at one of its ends."""
    return "Device" in path


def memory_of(path: str) -> tuple[str, str]:
    """Return NIXL's memory types (DRAM, VRAM or FILE) of a path's source and destination."""
    kinds = {"Host": "DRAM", "Device": "VRAM", "Disk": "FILE"}
    source, destination = path.split("To")
    return kinds[source], kinds[destination]


def cuda_major() -> int | None:
    """Return the CUDA major version of this environment's wheels, else of an installed toolkit; None without either."""
    for name, major in _RUNTIME_WHEELS:
        if _installed(name):
            return major
    plain = _installed("nvidia-cuda-runtime")
    if plain:
        return int(plain.split(".")[0])
    found = {major for major in (13, 12) if any(library_files(f"libcudart.so.{major}"))}
    return max(found, default=None)


def build() -> str | None:
    """Return the NIXL package to import: the build for this environment's CUDA, else the newest one installed.

    None if no build is installed.
    """
    builds = [name for name in ("nixl_cu13", "nixl_cu12", "nixl_rocm") if importlib.util.find_spec(name)]
    wanted = f"nixl_cu{cuda_major()}"
    return wanted if wanted in builds else next(iter(builds), None)


def nixl_version() -> str | None:
    """Return the installed NIXL's version; None if it isn't installed."""
    return _installed("nixl") or _installed((build() or "nixl").replace("_", "-"))


@functools.cache
def ucx_version() -> str | None:
    """Return the version of the UCX in the installed NIXL, which is loaded for it; None if there is none."""
    name = build()
    spec = importlib.util.find_spec(name) if name else None
    for root in map(Path, (spec.submodule_search_locations if spec else None) or ()):
        for file in sorted(root.parent.glob(f"{name}.libs/libucp-*.so*")):
            with contextlib.suppress(OSError, AttributeError):
                said = ctypes.CDLL(str(file)).ucp_get_version_string
                said.restype = ctypes.c_char_p
                return str(said().decode())
    return None


def plugin_files() -> dict[str, Path]:
    """Return the name and shared object of every plugin in NIXL's search path.

    If `NIXL_PLUGIN_DIR` is set, even to an empty string, NIXL searches only that folder.
    """
    chosen = os.environ.get("NIXL_PLUGIN_DIR")
    folders = [Path(chosen)] if chosen else []
    spec = importlib.util.find_spec(build() or "nixl") if chosen is None else None
    if spec is not None:
        for root in map(Path, spec.submodule_search_locations or ()):
            folders += [root.parent / f".{spec.name}.mesonpy.libs" / "plugins", root / "plugins"]
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("libplugin_*.so")):
            found.setdefault(file.stem.removeprefix("libplugin_"), file)
    return found


def library_files(name: str) -> list[str]:
    """Return the files of a CUDA library: first those in this environment's wheels, then a toolkit's."""
    spec = importlib.util.find_spec("nvidia")
    roots = [] if spec is None else list(spec.submodule_search_locations or [])
    wheels = [str(path) for root in roots for path in sorted(Path(root).glob(f"*/lib/{name}*"))]
    toolkits = [str(path) for pattern in _TOOLKITS for path in sorted(Path("/").glob(f"{pattern[1:]}/{name}*"))]
    return [path for path in wheels + toolkits if re.search(rf"/{re.escape(name)}(\.\d+)*$", path)]


def cufile_config() -> tuple[str, bool]:
    """Return the path of cuFile's configuration file, and whether the file exists."""
    path = os.environ.get("CUFILE_ENV_PATH_JSON") or "/etc/cufile.json"
    return path, Path(path).is_file()


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
