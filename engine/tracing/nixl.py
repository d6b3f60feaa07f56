"""Hook that counts the transfers of every NIXL agent in this process, at the bindings, which all API calls use.

The path is from the descriptors' memory types, bytes and descriptors from their lists; the time is from the post to
the status check that returns completion.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
import weakref
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import Any

from kvdeck.engine.tracing import DESCRIPTORS, LAYOUT
from kvdeck.engine.tracing.call_arguments import arguments
from kvdeck.sessions import recorder

_PLACES = {"DRAM": "Host", "VRAM": "Device", "FILE": "Disk", "BLK": "Disk", "OBJ": "Object"}
_WORDS = 3
"""A descriptor is three 64-bit words: address, length, device."""


@dataclass(slots=True)
class Regions:
    """A descriptor list: its place (`Host`, `Device`, …) and the sizes of its regions in bytes."""

    place: str
    count: int
    each: int
    """Bytes per region if all are equal, else 0."""
    sizes: Sequence[int] = ()

    def bytes_of(self, indices: Sequence[int]) -> int:
        if self.each or not self.sizes:
            return self.each * len(indices)
        return sum(self.sizes[int(index)] for index in indices)

    @property
    def bytes(self) -> int:
        return self.each * self.count if self.each or not self.sizes else sum(self.sizes)


@dataclass(slots=True)
class Request:
    """The transfer behind a handle; `posted` is the time of the post in seconds, None unless in progress."""

    path: str
    bytes: int
    descriptors: int
    posted: float | None = None


class AgentTrace:
    """Descriptor lists and requests of this process, by handle."""

    def __init__(self, bindings: ModuleType) -> None:
        self.bindings: Any = bindings
        self.layout = os.environ.get(LAYOUT) or "Unknown"
        self.per_block = int(os.environ.get(DESCRIPTORS) or (1 if self.layout == "FullyContiguous" else 0))
        self.lists: dict[int, tuple[weakref.ref[Any], Regions]] = {}
        self.prepared: dict[int, Regions] = {}
        self.requests: dict[int, Request] = {}
        self.over = 0
        """Descriptors of finished requests that don't fill a block yet."""

    def regions(self, descriptors: Any) -> Regions:
        """Return a descriptor list's place and sizes; cached while the list exists and its length is the same."""
        known, count = self.lists.get(id(descriptors)), descriptors.descCount()
        # By identity and length: a freed list's id is used again, and a list may grow.
        if known is not None and known[0]() is descriptors and known[1].count == count:
            return known[1]
        regions = _regions(self.place(descriptors.getType()), lengths(descriptors, count))
        key = id(descriptors)
        self.lists[key] = weakref.ref(descriptors, lambda _: self.lists.pop(key, None) and None), regions
        return regions

    def place(self, memory: Any) -> str:
        name = str(memory).rpartition(".")[2].removesuffix("_SEG")
        return _PLACES.get(name, name.title())

    def prepare(self, handle: int, arguments: Sequence[Any]) -> None:
        """Store a prepared list: a descriptor list, or a memory type and an N×5 array of strided runs."""
        for before, value in zip((None, *arguments), arguments, strict=False):
            if isinstance(value, self.bindings.nixlXferDList):
                self.prepared[handle] = self.regions(value)
            elif getattr(value, "ndim", 0) == 2:
                runs = [(int(row[1]), int(row[4])) for row in value.tolist()]
                sizes = [size for size, count in runs for _ in range(count)]
                self.prepared[handle] = _regions(self.place(before), sizes)

    def request(
        self, handle: int, reads: bool, local: Regions | None, remote: Regions | None, size: int, count: int
    ) -> None:
        places = [regions.place if regions is not None else "Unknown" for regions in (local, remote)]
        source, target = reversed(places) if reads else places
        self.requests[handle] = Request(f"{source}To{target}", size, count)

    def finished(self, handle: int, posted: float) -> None:
        seconds = perf_counter() - posted
        request = self.requests.get(handle)
        if request is None:
            return
        blocks = 0
        if self.per_block:
            # A block may take several requests; it counts with the request that completes it.
            blocks, self.over = divmod(self.over + request.descriptors, self.per_block)
        recorder.record(request.path, self.layout, request.bytes, blocks, seconds, request.descriptors)

    def failed(self, handle: int) -> None:
        request = self.requests.get(handle)
        if request is not None:
            request.posted = None
            recorder.failed(request.path, self.layout)


def _regions(place: str, sizes: Sequence[int]) -> Regions:
    alike = bool(sizes) and min(sizes) == max(sizes)
    return Regions(place, len(sizes), sizes[0] if alike else 0, () if alike else sizes)


def lengths(descriptors: Any, count: int) -> Sequence[int]:
    """Return every region's bytes. Over 16 regions from the pickled state: single reads take 0.5 µs each."""
    if count > 16:
        state = descriptors.__getstate__()
        # The pickled form isn't documented: it is used only if its ends agree with single reads.
        start = state.find(struct.pack("<Q", count * _WORDS * 8)) + 8
        words = array("Q", state[start : start + count * _WORDS * 8])
        found = words[1::_WORDS]
        if (
            start >= 8
            and len(found) == count
            and (found[0], found[-1]) == (descriptors[0][1], descriptors[count - 1][1])
        ):
            return found
    return [descriptors[index][1] for index in range(count)]


def instrument(bindings: ModuleType) -> None:
    """Wrap the agent's calls, once. Their results and exceptions pass unchanged."""
    agent: Any = bindings.nixlAgent
    if getattr(agent.postXferReq, "kvdeck", False):
        return
    trace = AgentTrace(bindings)
    wrappers: dict[str, Callable[[AgentTrace, Callable[..., Any]], Callable[..., Any]]] = {
        "createXferReq": _created,
        "prepXferDlist": _prepared,
        "makeXferReq": _made,
        "postXferReq": _posted,
        "getXferStatus": _checked,
        "releaseXferReq": _released,
        "releasedDlistH": _released_list,
    }
    for name, wrap in wrappers.items():
        original = getattr(agent, name)
        wrapper = functools.wraps(original)(wrap(trace, original))
        wrapper.kvdeck = True  # type: ignore[attr-defined]
        setattr(agent, name, wrapper)


def _created(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    def create(agent: Any, *args: Any, **named: Any) -> Any:
        handle = call(agent, *args, **named)
        with contextlib.suppress(Exception):
            operation, *lists = arguments(args, named, ("operation", "local_descs", "remote_descs"))
            local, remote = (trace.regions(descriptors) for descriptors in lists)
            trace.request(handle, _reads(trace, operation), local, remote, local.bytes, local.count)
        return handle

    return create


def _prepared(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    def prepare(agent: Any, *args: Any, **named: Any) -> Any:
        handle = call(agent, *args, **named)
        with contextlib.suppress(Exception):
            trace.prepare(handle, (*args, *named.values()))
        return handle

    return prepare


def _made(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    names = ("operation", "local_side", "local_indices", "remote_side")

    def make(agent: Any, *args: Any, **named: Any) -> Any:
        handle = call(agent, *args, **named)
        with contextlib.suppress(Exception):
            operation, local, indices, remote = arguments(args, named, names)
            lists = trace.prepared.get(int(local)), trace.prepared.get(int(remote))
            size = 0 if lists[0] is None else lists[0].bytes_of(indices)
            trace.request(handle, _reads(trace, operation), *lists, size, len(indices))
        return handle

    return make


def _posted(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    def post(agent: Any, *args: Any, **named: Any) -> Any:
        # Before the call: a small transfer is complete when the post returns.
        started = perf_counter()
        try:
            status = call(agent, *args, **named)
        except Exception:
            with contextlib.suppress(Exception):
                trace.failed(*arguments(args, named, ("reqh",)))
            raise
        with contextlib.suppress(Exception):
            handle = args[0] if args else named["reqh"]
            if status.value == 0:
                trace.finished(handle, started)
            elif status.value > 0:
                trace.requests[handle].posted = started
            else:
                trace.failed(handle)
        return status

    return post


def _checked(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    # `*args` would cost 170 ns a poll; `handle` has no name, as in the bindings, and a later version may give it one.
    def check(agent: Any, handle: Any = None, /, **named: Any) -> Any:
        try:
            status = call(agent, **named) if named else call(agent, handle)
        except Exception:
            with contextlib.suppress(Exception):
                _end(trace, _handle(handle, named), None)
            raise
        if status.value != 1:
            with contextlib.suppress(Exception):
                _end(trace, _handle(handle, named), status.value)
        return status

    return check


def _handle(handle: Any, named: Mapping[str, Any]) -> int:
    """Return the handle, the only argument of a call, passed by position or by any name."""
    return int(next(iter(named.values()), handle))


def _end(trace: AgentTrace, handle: int, status: int | None) -> None:
    """Count a posted request as done (status 0) or failed; does nothing if it has ended before."""
    request = trace.requests.get(handle)
    if request is None or request.posted is None:
        return
    posted, request.posted = request.posted, None
    if status == 0:
        trace.finished(handle, posted)
    else:
        trace.failed(handle)


def _released(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    def release(agent: Any, *args: Any, **named: Any) -> Any:
        with contextlib.suppress(Exception):
            handle = _handle(args[0] if args else None, named)
            _end(trace, handle, None)
            trace.requests.pop(handle, None)
        return call(agent, *args, **named)

    return release


def _released_list(trace: AgentTrace, call: Callable[..., Any]) -> Callable[..., Any]:
    def release(agent: Any, *args: Any, **named: Any) -> Any:
        with contextlib.suppress(Exception):
            trace.prepared.pop(_handle(args[0] if args else None, named), None)
        return call(agent, *args, **named)

    return release


def _reads(trace: AgentTrace, operation: Any) -> bool:
    return bool(operation == trace.bindings.NIXL_READ)
