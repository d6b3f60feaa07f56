"""The generator's form: what it refuses, and that its files are those of `kvdeck matgen generate`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from kvdeck.app.cli.matgen import matgen
from kvdeck.app.tui.modes.traffic.generator_form import COLUMNS, GeneratorForm, generate, kept, remembered
from kvdeck.engine.traffic.config import read_config
from kvdeck.sessions.errors import UsageError

FIELDS = {item.key: item for column in COLUMNS for item in column}


def test_the_files_are_those_of_the_command(tmp_path: Path):
    form = GeneratorForm(lengths="4096, 9000,2048x2", prefill_tp=2, decode_tp=4, rail="yes")
    path = generate(form, tmp_path / "form")
    arguments = ["generate", "--isl-list", "4096,9000,2048,2048", "--num-prefill-nodes", "1", "--num-decode-nodes", "1"]
    arguments += ["--ppn", "4", "--prefill-tp", "2", "--decode-tp", "4", "--model", form.model, "--rail-optimized"]
    done = CliRunner().invoke(matgen, [*arguments, "--results-dir", str(tmp_path / "command")])
    assert done.exit_code == 0, done.output
    for number in range(4):
        name = f"matrix_{number}.txt"
        assert (path.parent / name).read_text() == (tmp_path / "command" / name).read_text()
    config = read_config(path)
    assert config.ranks == 8
    assert [pattern.metadata and pattern.metadata["isl"] for pattern in config.patterns] == [4096, 9000, 2048, 2048]
    # Row sums = column sums = the KV of the batch: 128 KiB a token of Llama 3.1 8B in bf16.
    assert [pattern.matrix.total for pattern in config.patterns] == [n * 131_072 for n in (4096, 9000, 2048, 2048)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"lengths": "a"}, "'a' is not a whole number above 0"),
        ({"lengths": " , "}, "there are no lengths"),
        ({"lengths": "1x20000"}, "more than 10,000 requests"),
        ({"prefill_tp": 3}, "left over"),
        ({"prefill_tp": 4, "decode_tp": 2, "rail": "yes"}, "a rail order needs a decode TP"),
        ({"prefill_nodes": 4096}, "at most 1,024 in this form"),
    ],
)
def test_what_cannot_be_made_is_told_in_the_form(change: dict[str, object], problem: str):
    assert problem in replace(GeneratorForm(), **change).problem()  # type: ignore[arg-type]


def test_the_default_form_can_be_made():
    form = GeneratorForm()
    assert form.problem() == ""
    assert form.derived() == "4 requests · prefill 2×2 ranks → decode 1×4 · 8 ranks in all"


def test_a_model_that_cannot_be_divided_so_is_refused(tmp_path: Path):
    form = replace(GeneratorForm(), prefill_tp=1, decode_pp=64, decode_tp=1, decode_nodes=16)
    with pytest.raises(UsageError):
        generate(form, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_fields_are_stepped_and_typed_within_their_limits():
    form = GeneratorForm()
    assert form.stepped(FIELDS["prefill_tp"], 1).prefill_tp == 4
    assert form.stepped(FIELDS["batch_size"], -1).batch_size == 1
    assert form.typed(FIELDS["ppn"], "0") is form
    assert form.typed(FIELDS["ppn"], "8").ppn == 8
    assert form.stepped(FIELDS["rail"], 1).rail == "yes"
    assert form.stepped(FIELDS["model"], 1).model != form.model
    assert replace(form, model="/a/config.json").stepped(FIELDS["model"], 1).problem() == ""


def test_a_form_is_remembered_without_what_is_invalid():
    form = replace(GeneratorForm(), decode_tp=8, lengths="5")
    assert remembered(kept(form)) == form
    assert remembered({**kept(form), "ppn": -1, "rail": "maybe", "precision": 4, "unknown": 1}) == form
    assert remembered(["x"]) == GeneratorForm()


def test_a_folders_name_holds_no_path():
    assert replace(GeneratorForm(), model="/etc/../\x1b[31mconfig.json").title.startswith("31mconfig.json-tp2pp1cp1x2")
