"""Fields of the Run screen's form, first and second page."""

from __future__ import annotations

from kvdeck.app.tui.form_fields import LAYOUTS, Field
from kvdeck.engine.planning.layout import (
    DTYPE_BYTES,
    FULLY_CONTIGUOUS,
    LAYER_SEPARATE,
    LayoutPair,
)
from kvdeck.sessions.model.records import PATHS

MIXED = (str(LayoutPair(LAYER_SEPARATE, FULLY_CONTIGUOUS)), str(LayoutPair(FULLY_CONTIGUOUS, LAYER_SEPARATE)))
"""Layout pairs with a different layout at each endpoint."""
AUTO = "auto"

_DTYPES = tuple(name for name in DTYPE_BYTES if name != "bfloat16")

PATH_FIELDS = tuple(Field(path, path, "toggle", "") for path in PATHS)
LAYOUT_FIELDS = (
    Field(LAYOUTS[0], "FullyContiguous", "toggle", "a block is one region: one descriptor a block"),
    Field(
        LAYOUTS[1],
        "LayerSeparate",
        "toggle",
        "a region for each layer and outer dim: layers × outer descriptors a block",
    ),
    Field(
        LAYOUTS[2],
        "LayerSep. outer",
        "toggle",
        "LayerSeparate { outer_contiguous: true }: K and V of a layer lie apart",
    ),
)
GEOMETRY_FIELDS = (
    Field("layers", "layers", "number", "layers that this rank holds"),
    Field("outer_dims", "outer dims", "number", "2 for K and V, 1 for MLA"),
    Field("page_size", "page size", "number", "tokens in a block"),
    Field("inner_dim", "inner dim", "number", "elements of one token in one layer and outer dim: KV heads × head size"),
    Field("dtype", "dtype", "choice", "type of an element", _DTYPES),
)
RUN_FIELDS = (
    Field(
        "blocks", "blocks", "number", "blocks in the working set; auto is larger than the last-level cache", (), True
    ),
    Field("batch", "batch", "number", "blocks in one request; auto is 16, or fewer in a small working set", (), True),
    Field(
        "backend",
        "backend",
        "choice",
        "NIXL backend; auto is UCX for memory, POSIX for files, GDS for device and disk",
        (AUTO, "UCX", "POSIX", "GDS", "GDS_MT"),
    ),
    Field("api", "api", "choice", "what the POSIX backend calls", (AUTO, "AIO", "URING", "POSIXAIO")),
    Field(
        "direct",
        "direct",
        "choice",
        "O_DIRECT, past the page cache; auto where the filesystem can",
        (AUTO, "on", "off"),
    ),
    Field("effort", "effort", "choice", "how long each comparison is measured", ("quick", "normal", "thorough")),
    Field("tune", "tune", "choice", "first try what matters on this host, then run with the best", ("off", "on")),
)
COLUMNS = (PATH_FIELDS, (*LAYOUT_FIELDS, *GEOMETRY_FIELDS), RUN_FIELDS)

_ON_OFF = ("on", "off")
_ERRORS = ("auto", "peer", "none")
SHAPE_FIELDS = (
    Field(MIXED[0], "LS to FC", "toggle", "LayerSeparate at the source, FullyContiguous at the destination"),
    Field(MIXED[1], "FC to LS", "toggle", "FullyContiguous at the source, LayerSeparate at the destination"),
    Field(
        "block_size", "plain block", "number", "a block of so many bytes instead of layers: 4096, 64K", (), True, True
    ),
    Field("sizes_from", "sizes from", "number", "a sweep of block sizes, doubling: 64K", (), True, True),
    Field("sizes_to", "sizes to", "number", "where the sweep of block sizes ends: 4M", (), True, True),
    Field("batches_from", "batch from", "number", "a sweep of blocks in one request, doubling", (), True),
    Field("batches_to", "batch to", "number", "where the sweep of batches ends", (), True),
    Field("seconds", "seconds", "number", "for the layouts of one path at one size; auto is by the effort", (), True),
)
LOAD_FIELDS = (
    Field("threads", "threads", "number", "initiators, each a process with its part of the blocks"),
    Field("pipeline_depth", "depth", "number", "requests in flight in one initiator"),
    Field("files", "files", "number", "files that the blocks are spread over"),
    Field("operation", "operation", "choice", "between processes: WRITE pushes, READ pulls", ("WRITE", "READ")),
    Field("loopback", "loopback", "choice", "memory to memory within one process instead of between two", _ON_OFF),
    Field("notify", "notify", "choice", "requests between processes carry a notification", _ON_OFF),
    Field("merge", "merge", "choice", "let NIXL merge neighbouring descriptors", _ON_OFF),
    Field("durable", "durable", "choice", "writes are on the device before the time is taken", _ON_OFF),
)
CARE_FIELDS = (
    Field(
        "page_cache", "page cache", "choice", "buffered reads: drop the file's pages first, or not", ("drop", "keep")
    ),
    Field("verify", "verify", "choice", "compare the bytes that arrived", _ON_OFF),
    Field("reference", "reference", "choice", "measure memcpy or plain system calls beside it", _ON_OFF),
    Field("huge_pages", "huge pages", "choice", "memory in huge pages", _ON_OFF),
    Field("pin", "pin", "choice", "each process on a core of its own, where there are enough", _ON_OFF),
    Field("error_handling", "UCX errors", "choice", "none is faster and doesn't notice a dead peer", _ERRORS),
    Field("progress_thread", "progress", "choice", "NIXL's own progress thread", _ON_OFF),
)
MORE_COLUMNS = (SHAPE_FIELDS, LOAD_FIELDS, CARE_FIELDS)
MORE = tuple(field for column in MORE_COLUMNS for field in column if field.kind != "toggle")
