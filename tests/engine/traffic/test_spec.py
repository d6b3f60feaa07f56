"""The spec of a traffic test: plain values and back, defaults, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kvdeck.engine.traffic.config import StoragePhases, TrafficConfig, TrafficPattern
from kvdeck.engine.traffic.matrix import Matrix
from kvdeck.engine.traffic.spec import TrafficSpec, spec_in, spec_of_config, too_large, traffic_spec
from kvdeck.sessions.errors import UsageError

PATTERN = TrafficPattern(
    Matrix(((0, 5, 0), (0, 7, 1 << 40), (0, 0, 0))),
    "READ",
    "DRAM",
    3,
    0.5,
    0.25,
    {"isl": 4096},
    StoragePhases(write=False, direct=True),
)
SPEC = TrafficSpec(
    (PATTERN, TrafficPattern(Matrix(((0, 0, 0),) * 3))), "sequential", "/a/b.yaml", 2, 5, 1, 4, True, True,
    ("user@far",), "uvx kvdeck", 12.5,
)  # fmt: skip


def test_a_spec_is_the_same_after_run_yaml(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(SPEC.to_yaml())
    assert spec_in(tmp_path) == SPEC
    assert traffic_spec({"job": "traffic", **SPEC.to_mapping()}) == SPEC
    assert traffic_spec(TrafficSpec().to_mapping()) == TrafficSpec()
    assert "peer" not in TrafficSpec().to_mapping()


def test_a_spec_larger_than_what_people_write_is_read_back(tmp_path: Path) -> None:
    everyone = TrafficPattern(Matrix(((1 << 30,) * 256,) * 256))
    text = TrafficSpec((everyone,)).to_yaml()
    assert len(text) > 1 << 20
    (tmp_path / "run.yaml").write_text(text)
    assert spec_in(tmp_path).patterns == (everyone,)


def test_a_file_s_counts_are_the_defaults_and_upstream_s_without() -> None:
    config = TrafficConfig((PATTERN,), iterations=7, warmup=0)
    assert spec_of_config(config).counts == (7, 0, 30)
    assert spec_of_config(config, iterations=2, isolation=1).counts == (2, 0, 1)
    assert spec_of_config(TrafficConfig((PATTERN,))).counts == (3, 30, 30)
    assert spec_of_config(TrafficConfig((PATTERN,)), "single").counts == (1, 0, 0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"iterations": 0}, "iterations in the spec is '0'"),
        ({"isolation": None}, "isolation in the spec is 'None'"),
        ({"mode": "both"}, "mode in the spec is 'both'"),
        ({"mode": "single"}, "2 patterns, and ct-perftest runs one"),
        ({"verify": 1}, "verify in the spec is not true or false"),
        ({"peer": "host"}, "peer is not a list"),
        ({"peer": None}, "peer is not a list"),
        ({"peer": ["a", "b", "c"]}, "3 ranks can't be on this host and 3 peers"),
        ({"peer_timeout": 0}, "peer_timeout in the spec is '0'"),
        ({"speed": 1}, "unknown keys: speed"),
        ({"patterns": [{"ranks": 2, "cells": "0 2 5\n"}]}, "cells:1: '0 2 5' is no cell of 2 ranks"),
        ({"patterns": [{"ranks": 2, "cells": "0 1\n"}]}, "cells:1: '0 1' is no cell"),
        ({"patterns": [{"ranks": 0, "cells": ""}]}, "ranks is '0'"),
        ({"patterns": [{"ranks": 1, "cells": ""}, {"ranks": 2, "cells": ""}]}, "pattern 1 has 2 ranks"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        traffic_spec({**SPEC.to_mapping(), **change})


def test_a_set_with_too_many_cells_is_not_queued() -> None:
    assert too_large(SPEC) is None
    dense = TrafficPattern(Matrix(((1,) * 256,) * 256))
    assert "too many cells" in str(too_large(TrafficSpec((dense,) * 4)))
