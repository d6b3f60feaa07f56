"""What a run is asked: read, checked, and written so that it can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvdeck.engine.spec import RunSpec, spec_from_mapping, spec_from_yaml
from kvdeck.sessions.errors import UsageError


def test_a_spec_survives_its_own_yaml(tmp_path: Path) -> None:
    spec = spec_from_mapping({"paths": "host-to-disk", "layouts": ["fc", "ls:fc"], "sweep_batches": "1:64:4",
                              "direct": "on", "params": {"kernel_queue_size": 512}})  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text(spec.to_yaml())
    assert spec_from_yaml(path) == spec


def test_an_empty_spec_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("")
    assert spec_from_yaml(path) == RunSpec()


def test_yaml_reads_on_and_off_as_booleans() -> None:
    assert spec_from_mapping(yaml.safe_load("direct: off")).direct == "off"


@pytest.mark.parametrize(
    ("mapping", "named"),
    [
        ({"pathz": 1}, "pathz"),
        ({"paths": ["HostToMoon"]}, "HostToMoon"),
        ({"paths": []}, "paths"),
        ({"layouts": ["Diagonal"]}, "Diagonal"),
        ({"blocks": 0}, "blocks"),
        ({"blocks": -4}, "blocks"),
        ({"blocks": 1.5}, "blocks"),
        ({"blocks": True}, "blocks"),
        ({"seconds": 0}, "seconds"),
        ({"dtype": "fp3"}, "fp3"),
        ({"dtype": None}, "dtype"),
        ({"api": "threads"}, "THREADS"),
        ({"api": "AIO", "backend": "UCX"}, "AIO"),
        ({"verify": "perhaps"}, "verify"),
        ({"params": [1]}, "params"),
        ({"batch": 9, "blocks": 8}, "batch 9"),
        ({"block_size": 4096, "layouts": ["ls"]}, "LayerSeparate"),
        ({"sweep_batches": {"start": 8, "stop": 4}}, "sweep_batches"),
        ({"sweep_batches": {"start": 1, "stop": 4, "factor": 1}}, "factor"),
        ({"sweep_batches": "1:2:3:4"}, "1:2:3:4"),
        ({"sweep_block_sizes": "4K:64K"}, "4,096 B = 4 KiB"),
        ([1], "mapping"),
    ],
)
def test_what_is_wrong_is_named_in_one_line_with_its_mend(mapping: object, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        spec_from_mapping(mapping)
    assert named in caught.value.what
    assert caught.value.fix
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "- 1", "\x00"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"broken\.yaml"):
        spec_from_yaml(path)
