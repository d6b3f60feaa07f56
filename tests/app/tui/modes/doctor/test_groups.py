"""Doctor says first how many paths can run, each fix once, and which facts limit a result."""

from __future__ import annotations

from dataclasses import replace

from kvdeck.app.tui.modes.doctor.groups import Fix, fact_groups, fixes, headline, limits, path_groups
from kvdeck.app.tui.state import PathReport, doctor_from_json
from tests.support.builders import run as a_run

GROUPS = path_groups(a_run.doctor().paths)


def test_a_row_a_path_with_the_best_of_its_backends():
    assert [group.path for group in GROUPS] == list(dict.fromkeys(row.path for row in a_run.doctor().paths))
    disk = next(group for group in GROUPS if group.path == "HostToDisk")
    assert disk.best.backend == "POSIX"
    assert disk.backends == (("POSIX", "ready"), ("GDS", "unavailable"))


def test_the_headline_counts_and_says_what_the_others_share():
    assert headline(GROUPS).startswith("3 of 8 paths ready, 1 with limits. The other 5: no GPU")
    assert headline(GROUPS, 60).endswith("reasons and fixes are below.")
    every = path_groups(replace(row, state="ready") for row in a_run.doctor().paths)
    assert headline(every) == "8 of 8 paths ready."


def test_each_fix_is_told_once_with_the_paths_that_wait_for_it():
    found = {fix.text: fix.paths for fix in fixes(GROUPS)}
    assert len(found) == 3
    assert found["choose a folder on a disk"] == ("DiskToHost",)
    assert found["install a driver"] == ("HostToDisk with GDS",), "the path runs, with POSIX"
    assert len(found["load the driver (nvidia-smi must list a GPU)"]) == 5


def test_a_backend_with_limits_beside_one_that_is_ready_has_its_fix_told():
    ready = PathReport("HostToDisk", "POSIX", "ready", "", "", "AIO")
    limited = PathReport("HostToDisk", "POSIX", "degraded", "io_uring is off", "allow io_uring", "io_uring")
    found = fixes(path_groups([ready, limited, limited]))
    assert found == [Fix("allow io_uring", "io_uring is off", ("HostToDisk with POSIX io_uring",))]


def test_facts_that_limit_are_marked_and_unknown_ones_left_out():
    assert limits({"memlock_bytes": 8 << 20})["memlock_bytes"].startswith("too small to pin 64 MiB")
    assert limits({"memlock_bytes": 64 << 20, "io_uring_disabled": 0, "ptrace_scope": None}) == {}
    groups = dict(fact_groups({"cores": 2, "driver": None, "gpus": [], "something": 1}))
    assert groups == {"CPU": {"cores": 2}, "Other": {"something": 1}}


def test_only_variables_that_decide_are_told():
    environment = {"UCX_TLS": "tcp", "HOME": "/root", "NIXL_PLUGIN_DIR": "/opt"}
    assert doctor_from_json({"environment": environment}).environment == {
        "UCX_TLS": "tcp",
        "NIXL_PLUGIN_DIR": "/opt",
    }
