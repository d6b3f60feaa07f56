"""Tracing of other programs: hooks that count the transfers of NIXL's agents and vLLM's offloading.

`startup/` is added to the command's PYTHONPATH, so that each Python process it starts runs `sitecustomize`, which
installs an import hook and does nothing else until one of the traced modules is imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LAYOUT, DESCRIPTORS = "KVDECK_RECORD_LAYOUT", "KVDECK_RECORD_DESCRIPTORS_PER_BLOCK"


def environment(pythonpath: str | None, layout: str | None, descriptors_per_block: int | None) -> Mapping[str, str]:
    """Return the environment variables that make a command's Python processes trace their transfers.

    Args:
        pythonpath: PYTHONPATH so far.
        layout: Layout of its transfers, which can't be detected.
        descriptors_per_block: Descriptors per block; None: blocks are counted only for layout `FullyContiguous`.
    """
    startup = os.fspath(Path(__file__).parent.absolute() / "startup")
    # First, since Python runs only the first `sitecustomize` of its path; that one runs the program's own.
    variables = {"PYTHONPATH": os.pathsep.join([startup, *([pythonpath] if pythonpath else [])])}
    if layout is not None:
        variables[LAYOUT] = layout
    if descriptors_per_block is not None:
        variables[DESCRIPTORS] = str(descriptors_per_block)
    return variables
