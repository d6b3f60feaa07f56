"""Import hook that instruments the traced modules when the program imports them.

Errors of a hook never reach the program, which then just isn't traced; `$KVDECK_RECORD_DEBUG` prints them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NIXL = "kvdeck.engine.tracing.nixl"
_VLLM = "kvdeck.engine.tracing.vllm"
TRACED = {
    "nixl._bindings": _NIXL,
    "nixl_cu12._bindings": _NIXL,
    "nixl_cu13._bindings": _NIXL,
    "nixl_rocm._bindings": _NIXL,
    "vllm.v1.kv_offload.worker.worker": _VLLM,
    "vllm.v1.kv_offload.base": _VLLM,
}
"""Traced module to the module of its hook, which is imported only once the traced one is."""


def install() -> None:
    """Instrument the traced modules imported already, and install the finder for later ones."""
    _note("python")
    for name in TRACED:
        if name in sys.modules:
            _instrument(sys.modules[name], name)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # First: the finders after it would load the module without the hook.
        sys.meta_path.insert(0, _Finder())


def _instrument(module: ModuleType, name: str) -> None:
    try:
        importlib.import_module(TRACED[name]).instrument(module)
        _note(name)
    except Exception as error:
        _note(f"failed for {name}: {error!r}")
        if os.environ.get("KVDECK_RECORD_DEBUG"):
            with contextlib.suppress(Exception):
                sys.stderr.write(f"kvdeck can't record {name}: {error!r}\n")


def _note(text: str) -> None:
    """Append a line to `recorder/loaded` of the session, from which `kvdeck trace` says why it counted nothing."""
    folder = os.environ.get("KVDECK_RECORD_FOLDER")
    # Without a link to follow or a FIFO to wait for: the folder may be writable for other users.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(Exception):
        descriptor = os.open(f"{folder}/recorder/loaded", flags, 0o666)
        try:
            os.write(descriptor, f"{' '.join(text.split())[:300]}\n".encode())
        finally:
            os.close(descriptor)


class _Finder(MetaPathFinder):
    """Wraps the loader of traced modules; leaves the search to the finders after it."""

    def __init__(self) -> None:
        self._searching: set[str] = set()

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname not in TRACED or fullname in self._searching:
            return None
        # `find_spec` asks this finder again; the second time it has nothing to add.
        self._searching.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._searching.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, fullname)
        return spec


class _Loader(Loader):
    """The module's own loader, which runs the hook after it."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader, self._name = loader, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        # As without the hook: tools read these to find a module's source.
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        _instrument(module, self._name)
