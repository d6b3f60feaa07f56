"""The form asks for what it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvdeck.app.tui.form_fields import LAYOUTS
from kvdeck.app.tui.modes.run.form import Form, remembered
from kvdeck.app.tui.modes.run.form_fields import MIXED, TABLE
from kvdeck.app.tui.state import PeerState
from kvdeck.engine.quantities import Range
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from tests.support.builders import run as a_run

FIELDS = {
    field.key: field for column in (column for page in TABLE.pages for column in page.values()) for field in column
}
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
    assert SEEN.derived() == "2,097,152 B = 2 MiB per block · 64 regions of 32 KiB · descriptors: fc 1, ls 64"
    halved = SEEN.stepped(FIELDS["layers"], -1).typed(FIELDS["outer_dims"], "1")
    assert "524,288 B = 512 KiB per block · 16 regions" in halved.derived()


def test_a_peer_is_typed_or_taken_from_those_used_before():
    item = FIELDS["peer"]
    form = replace(SEEN, used_peers=("node2", "user@node3"))
    assert form.text(item) == "none"
    texts = []
    for _ in range(4):
        form = form.stepped(item, 1)
        texts.append(form.text(item))
    assert texts == ["node2", "user@node3", "none", "node2"]
    typed = form.typed(item, "node4, node5").but(threads=2)
    assert typed.spec.peer == ("node4", "node5")
    assert spec_from_mapping(typed.to_mapping()).paths == ("HostToHost",), "the other paths stay on one host"
    assert "peer node4, node5" in typed.derived()
    assert typed.typed(item, "-oProxyCommand=x") == typed, "an option of ssh is no host"
    assert typed.typed(item, "").spec.peer is None
    assert remembered(typed.kept()).spec.peer == ("node4", "node5")


def test_what_a_peer_is_worth_is_its_hint():
    item = FIELDS["peer"]
    form = SEEN.typed(item, "node2")
    assert form.hint(item) == "not tried yet"
    assert replace(form, peer=PeerState("node2", looking=True)).hint(item) == "trying a connection with node2"
    ready = replace(form, peer=PeerState("node2", ready=True, transport="rc_mlx5/mlx5_0:1"))
    assert ready.hint(item) == "node2 is ready, over rc_mlx5/mlx5_0:1"
    refused = replace(form, peer=PeerState("node2", reason="node2 accepts no key", fix="`ssh-copy-id node2`"))
    assert refused.hint(item) == "node2 accepts no key · fix: `ssh-copy-id node2`"
    assert refused.typed(item, "node3").hint(item) == "not tried yet"


def test_numbers_double_halve_and_go_back_to_auto():
    blocks = FIELDS["blocks"]
    once = SEEN.stepped(blocks, 1)
    assert (once.spec.blocks, once.stepped(blocks, 1).spec.blocks, once.stepped(blocks, -1).spec.blocks) == (1, 2, None)
    assert SEEN.typed(blocks, "300").spec.blocks == 300
    assert SEEN.typed(blocks, "0") == SEEN
    assert SEEN.typed(FIELDS["layers"], "").spec.layers == SEEN.spec.layers


def test_what_can_not_be_launched_says_why():
    assert "no layout" in replace(SEEN, layouts=frozenset()).problem()
    assert "no path" in replace(SEEN, unwanted=frozenset({"HostToHost", "HostToDisk", "DiskToHost"})).problem()
    assert "batch 8" in SEEN.but(blocks=4, batch=8).problem()
    assert "api URING" in SEEN.but(api="URING", backend="UCX").problem()
    assert SEEN.toggled(FIELDS[LAYOUTS[2]]).problem() == ""


def test_the_second_page_asks_for_what_the_command_line_can():
    typed = {
        "sizes_from": "128K",
        "sizes_to": "1m",
        "batch": "4",
        "threads": "2",
        "pipeline_depth": "3",
        "seconds": "5",
    }
    form = SEEN
    for key, text in typed.items():
        form = form.typed(FIELDS[key], text)
    for key in ("operation", "loopback", "notify", "durable", "page_cache", "verify", "error_handling", *MIXED):
        form = form.toggled(FIELDS[key])
    assert form.problem() == ""
    spec = spec_from_mapping(form.to_mapping())
    assert spec.sweep_block_sizes == Range(1 << 17, 1 << 20, 2)
    assert (spec.batch, spec.threads, spec.pipeline_depth, spec.seconds) == (4, 2, 3, 5)
    assert (spec.operation, spec.loopback, spec.notify, spec.durable) == ("READ", True, False, True)
    assert (spec.page_cache, spec.verify, spec.error_handling) == ("keep", False, "peer")
    assert spec.layouts == (*LAYOUTS[:2], *MIXED)


def test_what_the_second_page_has_set_is_said_on_the_first():
    form = SEEN.typed(FIELDS["threads"], "4").typed(FIELDS["block_size"], "64k")
    assert form.derived() == "plain block 64 KiB, threads 4 · 65,536 B = 64 KiB"
    assert form.but(block_size=None).derived().startswith("threads 4 · 2,097,152 B = 2 MiB per block")


def test_sizes_are_stepped_and_typed_with_their_unit():
    size = FIELDS["sizes_from"]
    once = SEEN.stepped(size, 1)
    assert (SEEN.text(size), once.text(size), once.stepped(size, 1).text(size)) == ("auto", "4 KiB", "8 KiB")
    assert once.stepped(size, -1) == SEEN
    assert SEEN.typed(size, "64Q") == SEEN
    assert once.typed(size, "") == SEEN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sweep_block_sizes": Range(65536, 0)}, "needs both from and to"),
        ({"sweep_block_sizes": Range(65536, 4096)}, "stops below its start"),
        ({"sweep_block_sizes": Range(5000, 20000)}, "not a whole number of tokens"),
        ({"block_size": 4096, "dtype": "fp8"}, "has one layout"),
    ],
)
def test_what_does_not_go_together_on_the_second_page_is_said(changes: dict, said: str):
    form = replace(SEEN, layouts=frozenset(LAYOUTS[1:2])) if "block_size" in changes else SEEN
    assert said in form.but(**changes).problem()


def test_a_form_is_remembered_by_what_differs():
    form = SEEN.typed(FIELDS["threads"], "4").toggled(FIELDS["HostToHost"]).toggled(FIELDS[LAYOUTS[2]])
    kept = form.kept()
    assert set(kept) == {"threads", "unwanted", "layouts"}
    assert replace(remembered(kept), doctor=SEEN.doctor) == form
    assert Form().kept() == {}


@pytest.mark.parametrize(
    "kept",
    [None, 3, [], {"threads": "4"}, {"threads": True}, {"threads": -1}, {"dtype": "teapot"}, {"dtype": ["fp8"]},
     {"nobody": 1}, {"unwanted": ["NoSuchPath"]}, {"unwanted": 7}, {"layouts": {"a": 1}}],
)  # fmt: skip
def test_what_no_field_takes_is_not_remembered(kept: object):
    assert remembered(kept) == Form()
