"""The table of a run's fields: a row makes a check, an option, a form's field and a line of the page."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from kvdeck.app.cli.run import run
from kvdeck.app.cli.run_options import asked_mapping, headings_of, options_of
from kvdeck.app.tui.modes.run.form import Form
from kvdeck.app.tui.modes.run.form_fields import form_table
from kvdeck.engine.run_field import Cell, in_order, run_field, run_fields
from kvdeck.engine.spec import FIELDS, HOST, RunSpec, spec_from_mapping, spec_from_yaml
from kvdeck.sessions.errors import UsageError
from tests.run_settings import PAGE, page

SAMPLES = Path(__file__).parents[1] / "support" / "programs" / "samples"
LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SpecWithRow(RunSpec):
    """A run with one more field."""

    numa_nodes: int = run_field(
        1,
        "--numa-nodes N",
        HOST,
        "NUMA nodes that memory is spread over. Default: 1.",
        most=8,
        after="pin",
        form=Cell("Safety", "NUMA", "NUMA nodes that memory is spread over"),
    )


ROWS = run_fields(SpecWithRow)


def test_a_row_makes_the_check() -> None:
    assert spec_from_mapping({"numa_nodes": 2}, "a.yaml", SpecWithRow, ROWS) == SpecWithRow(numa_nodes=2)
    for value, fix in ((0, "above 0"), (9, "at most 8"), ("two", "whole number")):
        with pytest.raises(UsageError, match=rf"numa_nodes in a\.yaml is .*{fix}"):
            spec_from_mapping({"numa_nodes": value}, "a.yaml", SpecWithRow, ROWS)


def test_a_row_makes_the_option() -> None:
    command = click.Command("run", params=list(options_of(ROWS)))
    values = command.make_context("run", ["--numa-nodes", "2", "--threads", "3"]).params
    assert asked_mapping(values, ROWS) == {"threads": 3, "numa_nodes": 2}
    assert headings_of(ROWS)["numa_nodes"] == HOST
    names = [row.name for row in in_order(ROWS)]
    assert names.index("numa_nodes") == names.index("folder") + 1  # both follow `pin`


def test_a_row_makes_the_field_of_the_form() -> None:
    table = form_table(ROWS)
    (item,) = [item for item in table.pages[1]["Safety"] if item.key == "numa_nodes"]
    form = Form(spec=SpecWithRow(), table=table).stepped(item, 1)
    assert (form.text(item), list(form.more())) == ("2", ["NUMA 2"])
    assert (form.to_mapping()["numa_nodes"], form.kept()) == (2, {"numa_nodes": 2})
    assert form.problem() == ""
    assert "numa_nodes" in form.typed(item, "9").problem()


def test_a_row_makes_the_line_of_run_yaml_and_of_the_page(tmp_path: Path) -> None:
    assert SpecWithRow(numa_nodes=2).to_yaml() == RunSpec().to_yaml() + "numa_nodes: 2\n"
    assert page(ROWS).splitlines()[-1].startswith("| `numa_nodes` | `--numa-nodes N` | whole number")


def test_the_page_is_that_of_the_table() -> None:
    assert PAGE.read_text() == page(FIELDS), "run `uv run python -m tests.run_settings`"


@pytest.mark.parametrize("name", ["run-default", "run-chosen"])
def test_run_yaml_keeps_its_bytes(name: str) -> None:
    path = SAMPLES / f"{name}.yaml"
    assert spec_from_yaml(path).to_yaml() == path.read_text()


def test_every_option_of_the_table_is_one_of_the_command() -> None:
    context = click.Context(run)
    shown = [name for parameter in run.get_params(context) for name in (*parameter.opts, *parameter.secondary_opts)]
    written = {spelling for row in FIELDS for spelling in row.option.split(" ")[0].split("/") if spelling}
    assert written <= set(shown)


def test_every_field_but_free_text_is_in_the_form() -> None:
    missing = {row.name for row in FIELDS if row.cell is None}
    peers = {"peer_command", "peer_timeout"}
    assert missing == {"paths", "layouts", "params", "fixed", "folder"} | peers  # the first two are toggles


def test_every_default_is_a_value_that_is_accepted() -> None:
    assert spec_from_mapping(RunSpec().to_mapping()) == RunSpec()
    assert {row.name: row.default for row in FIELDS} == dataclasses.asdict(RunSpec())


@pytest.mark.parametrize("row", [row for row in FIELDS if row.kind in ("count", "decimal")], ids=lambda row: row.name)
def test_no_number_is_larger_than_64_bits(row) -> None:
    for value in (LARGEST + 1, 2**64, 10**30):
        with pytest.raises(UsageError, match=f"{row.name} in the spec .* give at most"):
            spec_from_mapping({row.name: value})


@pytest.mark.parametrize(
    "asked",
    [
        {"block_size": LARGEST, "blocks": 2, "layouts": ["fc"]},
        {"layers": LARGEST, "layouts": ["fc"]},
        {"blocks": LARGEST},
        {"sweep_batches": {"start": 1, "stop": LARGEST}},
        {"sweep_batches": {"start": 1, "stop": LARGEST + 1}},
        {"sweep_batches": "1:8:8589934592G"},
    ],
)
def test_no_working_set_is_larger_than_64_bits(asked: dict) -> None:
    with pytest.raises(UsageError, match=r"64 bits|more than 9223372036854775807 bytes"):
        spec_from_mapping(asked)
