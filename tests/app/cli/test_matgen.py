"""`kvdeck matgen generate`: upstream's files to the byte, exact matrices of real models, and one-line refusals."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from kvdeck.app.cli.main import main
from kvdeck.engine.traffic.matrix import read_matrix
from kvdeck.engine.traffic.random_lengths import normal_draws


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["matgen", "generate", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


NODES = ("--num-prefill-nodes", "1", "--num-decode-nodes", "2")
LENGTHS = {
    2: [11832, 15437, 1000, 32402, 1000, 7582, 21028, 3547, 5420, 6909, 21514, 38922],
    6: [2, 4, 3, 1, 1, 4, 5, 1, 6],
}
"""What upstream drew, by NumPy's seed."""
TINY = ("--num-user-requests=9", *NODES, "--ppn=2", "--prefill-tp=1", "--decode-tp=2", "--isl-mean=3", "--isl-scale=2",
        "--min-isl=1", "--max-isl=6", "--hidden-size=256", "--num-layers=2", "--num-heads=4", "--num-kv-heads=1",
        "--dtype-size=1")  # fmt: skip


def folder_sum(folder: Path) -> str:
    """A checksum of all files, with the folder's own path taken out of the metadata."""
    text = "".join(f"{path.name}\n{path.read_text().replace(str(folder), '/DIR')}" for path in sorted(folder.iterdir()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_upstream_s_large_cells_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ("--num-user-requests=12", *NODES, "--prefill-tp=4", "--decode-tp=8", "--model=llama-405b", "--seed=2",
                 "--compat=upstream", f"--results-dir={out}")  # fmt: skip
    assert call(capsys, *arguments)[0] == 0
    assert [entry["metadata"]["isl"] for entry in patterns(out)] == LENGTHS[2]
    assert (out / "matrix_0.txt").read_text().splitlines()[1] == "0 " * 10 + "727.95M 727.95M" + " 0" * 12
    assert patterns(out)[11]["sleep_before_launch_sec"] == 233.144319442944
    assert folder_sum(out) == UPSTREAM_SUMS["02_405b_tp4_tp8"]


def test_upstream_s_small_cells_to_the_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert call(capsys, *TINY, "--seed=6", "--compat=upstream", f"--results-dir={out}")[0] == 0
    assert [entry["metadata"]["isl"] for entry in patterns(out)] == LENGTHS[6]
    assert folder_sum(out) == UPSTREAM_SUMS["06_tiny_cells"]


UPSTREAM_SUMS = {"02_405b_tp4_tp8": "4ba8993807eb0365", "06_tiny_cells": "f5d5424812a55c5e"}
"""Checksums of what upstream's own generator wrote (nixl 8770b655a, NumPy 2.4.6)."""


def patterns(folder: Path) -> list[dict[str, object]]:
    return list(yaml.safe_load((folder / "metadata.yaml").read_text())["traffic_patterns"])


def test_draws_are_numpy_s() -> None:
    import numpy as np

    for seed in (0, 1, 20_261_128, 2**32 - 1):
        draws = normal_draws(seed, 16000.0, 10000.0)
        assert [next(draws) for _ in range(2001)] == list(np.random.RandomState(seed).normal(16000.0, 10000.0, 2001))


def test_what_a_real_model_sends_is_exact_and_can_be_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = (*NODES, "--prefill-tp=4", "--decode-tp=8", "--model=llama-3.1-70b", "--isl-list=4096,9000",
                 "--flops=4e14", "--parameters=70.6e9", f"--results-dir={out}")  # fmt: skip
    status, said, _ = call(capsys, *arguments)
    assert status == 0
    assert "2 patterns of 2 requests between 24 ranks" in said
    assert [read_matrix(out / f"matrix_{number}.txt").total for number in (0, 1)] == [327_680 * 4096, 327_680 * 9000]
    generated = yaml.safe_load((out / "metadata.yaml").read_text())["generated"]
    assert generated["isl"] == [4096, 9000]
    assert generated["model"] == "llama-3.1-70b"
    assert float(patterns(out)[0]["sleep_before_launch_sec"]) > 0  # type: ignore[arg-type]


def test_a_seed_gives_the_same_files_and_upstream_s_callers_are_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums = set()
    for name in ("a", "b"):
        out = tmp_path / name
        more = ("--isl-mean=16000.0", "--prefill-cp=None", "--num-user-requests=5.0", "--seed=7", "--model=qwen3-8b")
        assert call(capsys, *NODES, *more, f"--results-dir={out}")[0] == 0
        sums.add(folder_sum(out))
    assert len(sums) == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prefill-tp=3", "--decode-tp=2", "--model=qwen3-8b"), "don't fill 8 ranks"),
        (("--prefill-tp=3", "--decode-tp=3", "--model=llama-405b", "--compat=upstream", "--ppn=8"), "don't fill"),
        (("--model=nothing-like-it"), "unknown model"),
        ((), "--model is missing"),
        (("--hidden-size=256",), "--num-layers is missing"),
        (("--model=qwen3-8b", "--isl-list=1,x"), "not a whole number"),
        (("--model=qwen3-8b", "--ppn=0"), "--ppn is 0"),
        (("--model=qwen3-8b", "--ppn=1.5"), "not a whole number"),
        (("--model=qwen3-8b", "--isl-mean=nan"), "--isl-mean"),
        (("--model=qwen3-8b", "--min-isl=9", "--max-isl=8"), "exchange"),
        (("--model=qwen3-8b", "--compat=upstream", "--decode-tp=2"), "no model 'qwen3-8b'"),
        (("--model=llama-405b", "--compat=upstream", "--prefill-pp=2"), "PP is 1"),
        (("--model=qwen3-8b", "--results-dir=/dev/null/x"), "can't write"),
        (("--model=qwen3-8b", "--seed=-1"), "--seed"),
        (("--model=qwen3-8b", "--flops=4e14"), "give --parameters"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    arguments: str | tuple[str, ...], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    given = (arguments,) if isinstance(arguments, str) else arguments
    status, _, err = call(capsys, *NODES, *given)
    assert (status, err.count("\n")) == (2, 1), err
    assert words in err
    assert not list(tmp_path.iterdir())
