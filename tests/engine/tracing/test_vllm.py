"""Recording in the real vLLM, through its own plugin loader; needs an interpreter that has it.

vLLM with torch takes gigabytes, so it is not among the tests' dependencies. To run this, give it its own environment:

    python -m venv V && V/bin/pip install torch && V/bin/pip install vllm kvdeck
    KVDECK_VLLM_PYTHON=V/bin/python uv run pytest tests/engine/tracing/test_vllm.py

A CPU build of torch does: only CUDA's streams, events and copy are stood in for.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kvdeck.sessions.store import trace_counts, traces

PROGRAM = Path(__file__).parents[3] / "tests" / "support/programs/vllm_program.py"
PYTHON = os.environ.get("KVDECK_VLLM_PYTHON")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="KVDECK_VLLM_PYTHON names no interpreter that has vLLM"),
]


@pytest.mark.parametrize("order", [(), ("late",)], ids=["plugin first", "plugin after vLLM's modules"])
def test_the_offloading_connector_is_counted(tmp_path: Path, order: tuple[str, ...]) -> None:
    """A store of three blocks in two layers, a load of two, and one load that its own step waits for."""
    trace_counts.prepare(tmp_path)
    environment = {**os.environ, **traces.environment(tmp_path, "s"), "KVDECK_RECORD_DEBUG": "1"}
    environment |= {"KVDECK_RECORD_LAYOUT": "FullyContiguous", "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [str(PYTHON), str(PROGRAM), *order]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "can't record" not in result.stderr
    assert result.stdout == "vllm 24576 [24576] 24576 [8192, 16384]\n"
    found = {counts.path: counts for counts in trace_counts.transfer_counts(tmp_path)}
    store, load = found["DeviceToHost"], found["HostToDevice"]
    assert (store.transfers, store.bytes, store.blocks, store.failures) == (1, 24576, 3, 0)
    assert (load.transfers, load.bytes, load.blocks, load.failures) == (2, 24576, 3, 0)
    assert load.sizes == ((8192, 1), (16384, 1))
    assert (store.timed_transfers, load.timed_transfers) == (1, 2)
