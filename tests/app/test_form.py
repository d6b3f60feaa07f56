"""The form asks for what it shows."""

from __future__ import annotations

from dataclasses import replace

from kvdeck.app.form import COLUMNS, LAYOUTS, Form
from kvdeck.engine.spec import RunSpec, spec_from_mapping

from . import a_run

FIELDS = {field.key: field for column in COLUMNS for field in column}
SEEN = Form(doctor=a_run.doctor())


def test_an_untouched_form_asks_for_the_default_run():
    assert spec_from_mapping(Form().to_mapping()) == RunSpec()
    ready = ("HostToHost", "HostToDisk", "DiskToHost")
    assert spec_from_mapping(SEEN.to_mapping()) == RunSpec(paths=ready)


def test_every_choice_makes_a_spec_that_is_taken():
    for key, field in FIELDS.items():
        form = SEEN
        for _ in range(max(2, len(field.options))):
            form = form.stepped(field, 1)
            assert form.problem() or spec_from_mapping(form.to_mapping()), key


def test_taking_a_path_out_names_the_ones_that_are_left():
    form = SEEN.toggled(FIELDS["HostToHost"])
    assert form.to_mapping()["paths"] == ["HostToDisk", "DiskToHost"]


def test_a_path_that_can_not_run_can_not_be_chosen_and_says_why():
    field = FIELDS["DeviceToDisk"]
    assert SEEN.toggled(field) == SEEN
    assert not SEEN.chosen("DeviceToDisk")
    assert "no GPU" in SEEN.hint(field)
    assert "load the driver" in SEEN.hint(field)


def test_the_readiest_backend_speaks_for_a_path():
    assert SEEN.hint(FIELDS["HostToDisk"]) == "ready with POSIX"
    assert "tmpfs" in SEEN.hint(FIELDS["DiskToHost"])
    assert SEEN.available("DiskToHost")


def test_geometry_says_what_it_means():
    assert SEEN.derived() == "2,097,152 B = 2 MiB a block · 64 regions of 32 KiB · descriptors: fc 1, ls 64"
    halved = SEEN.stepped(FIELDS["layers"], -1).typed(FIELDS["outer_dims"], "1")
    assert "524,288 B = 512 KiB a block · 16 regions" in halved.derived()


def test_numbers_double_halve_and_go_back_to_auto():
    blocks = FIELDS["blocks"]
    once = SEEN.stepped(blocks, 1)
    assert (once.blocks, once.stepped(blocks, 1).blocks, once.stepped(blocks, -1).blocks) == (1, 2, None)
    assert SEEN.typed(blocks, "300").blocks == 300
    assert SEEN.typed(blocks, "0") == SEEN
    assert SEEN.typed(FIELDS["layers"], "").layers == SEEN.layers


def test_what_can_not_be_launched_says_why():
    assert "no layout" in replace(SEEN, layouts=frozenset()).problem()
    assert "no path" in replace(SEEN, unwanted=frozenset({"HostToHost", "HostToDisk", "DiskToHost"})).problem()
    assert "batch 8" in replace(SEEN, blocks=4, batch=8).problem()
    assert "api URING" in replace(SEEN, api="URING", backend="UCX").problem()
    assert SEEN.toggled(FIELDS[LAYOUTS[2]]).problem() == ""
