"""Recording in other people's processes: NIXL's agents and vLLM's offloading are seen as they are imported.

`startup/` is put on the command's PYTHONPATH, so that each Python process it starts runs `sitecustomize`, which
watches for the modules below and does nothing else until one of them comes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

LAYOUT, DESCRIPTORS = "KVDECK_RECORD_LAYOUT", "KVDECK_RECORD_DESCRIPTORS_PER_BLOCK"


def environment(pythonpath: str | None, layout: str | None, descriptors_per_block: int | None) -> Mapping[str, str]:
    """Variables with which a command's Python processes record their transfers.

    Args:
        pythonpath: What PYTHONPATH holds so far.
        layout: Text of the layout of its transfers, which can't be seen.
        descriptors_per_block: How many descriptors make a block; null: blocks are not counted.
    """
    startup = os.fspath(Path(__file__).parent.absolute() / "startup")
    variables = {"PYTHONPATH": os.pathsep.join([startup, *([pythonpath] if pythonpath else [])])}
    if layout is not None:
        variables[LAYOUT] = layout
    if descriptors_per_block is not None:
        variables[DESCRIPTORS] = str(descriptors_per_block)
    return variables
