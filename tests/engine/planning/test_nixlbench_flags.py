"""nixlbench's flags: the table against upstream's list, and the options, the help and the page made from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from kvdeck.app.cli.main import call
from kvdeck.app.cli.plan import iosize, kvcache, plan
from kvdeck.app.cli.profile import profile
from kvdeck.engine.planning.nixlbench import arguments, nixlbench_params
from kvdeck.engine.planning.nixlbench_config import read_config
from kvdeck.engine.planning.nixlbench_flags import BY_NAME, FLAGS, Flag, native_notes, native_refusal, stored
from kvdeck.engine.planning.nixlbench_processes import processes_of
from kvdeck.engine.planning.nixlbench_runs import native_specs
from kvdeck.engine.spec import spec_from_mapping
from kvdeck.sessions.errors import UnavailableError, UsageError

UPSTREAM = json.loads((Path(__file__).parent / "upstream_flags.json").read_text())
"""The flags of nixlbench with type and default, and KVBench's options, at the commit that the file names."""
PAGE = Path(__file__).parents[3] / "docs" / "nixlbench.md"
KINDS = {"string": str, "bool": bool, "int32": int, "uint32": int, "uint64": int}
WORDS = {"implemented": "does it", "noted": "accepts it", "refused": "refuses it"}


def page_table() -> list[str]:
    """The table of docs/nixlbench.md."""
    lines = ["| flag | type, default | the engine | |", "|---|---|---|---|"]
    for flag in FLAGS:
        kind = "/".join(flag.choices) or {bool: "true/false", int: "number", str: "text"}[type(flag.default)]
        default = str(flag.default).lower() if isinstance(flag.default, bool) else str(flag.default)
        only = f"used with {', '.join(flag.backends)}" if flag.backends else ""
        rest = "; ".join(text for text in (flag.reason, only) if text)
        default = f"`{default}`" if default else "empty"
        lines.append(f"| `--{flag.name}` | {kind}, {default} | {WORDS[flag.native]} | {rest} |")
    return lines


def test_every_flag_of_nixlbench_is_known_with_its_type_and_default() -> None:
    assert len(UPSTREAM["commit"]) == 40
    assert {flag.name for flag in FLAGS} == set(UPSTREAM["nixlbench"])
    for name, (kind, default) in UPSTREAM["nixlbench"].items():
        assert type(BY_NAME[name].default) is KINDS[kind], name
        expected = "http://localhost:2379" if name == "etcd_endpoints" else default  # KVBench's
        assert BY_NAME[name].default == expected, name


def test_every_option_of_kvbench_is_taken() -> None:
    commands = {"plan": plan, "profile": profile, "kvcache": kvcache, "iosize": iosize}
    taken = {name: {text for option in command.params for text in option.opts} for name, command in commands.items()}
    planning = ("pp", "tp", "isl", "osl", "num_requests", "page_size", "access_pattern", "source", "destination",
                "model", "model_config", "model_configs")  # fmt: skip
    for name in UPSTREAM["kvbench"]:
        both = [command for command in commands if name in planning or command in ("plan", "profile")]
        for command in both:
            if name != "format" or command == "plan":
                assert f"--{name}" in taken[command], (command, name)
    assert {flag.name for flag in FLAGS if flag.kvbench} == set(UPSTREAM["kvbench"]) & set(UPSTREAM["nixlbench"])


def test_every_refusal_and_note_has_its_reason() -> None:
    for flag in FLAGS:
        assert bool(flag.reason) == (flag.native != "implemented"), flag.name
        assert flag.help.endswith("."), flag.name


@pytest.mark.parametrize("command", [plan, profile])
def test_the_help_lists_every_flag(command: click.Command) -> None:
    text = command.get_help(click.Context(command))
    assert [flag.name for flag in FLAGS if f"--{flag.name}" not in text] == []
    assert not any(getattr(option, "hidden", False) for option in command.params)


def test_the_page_in_docs_is_the_table() -> None:
    lines = PAGE.read_text().splitlines()
    begin = lines.index(page_table()[0])
    assert lines[begin : begin + len(FLAGS) + 2] == page_table()


def asked(*options: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(["plan", "--model", "qwen3-0.6b", "--isl", "64", "--format", "json", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    return dict(found)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if isinstance(flag.default, bool)], ids=lambda flag: flag.name)
def test_spellings_of_true_and_false(flag: Flag, capsys) -> None:
    name = flag.name
    backend = flag.backends[:1] or ("POSIX",) if name != "use_device_api" else ("UCX",)
    rest = ("--backend", backend[0])
    dashed = name.replace("_", "-")
    for spelled in ([f"--{name}"], [f"--{name}", "true"], [f"--{name}=true"], [f"-{name}"], [f"-{name}=1"],
                    [f"--{dashed}=yes"]):  # fmt: skip
        assert asked(*spelled, *rest, capsys=capsys)[name] is True, spelled
    for spelled in ([f"--{name}=false"], [f"--no{name}"], [f"--no-{dashed}"], [f"--{name}", "False"], [f"-no{name}"]):
        assert asked(*spelled, *rest, capsys=capsys)[name] is False, spelled


def test_other_spellings(capsys) -> None:
    found = asked("-backend=posix", "-num_iter", "7", "--posix-kernel-queue-size=64", capsys=capsys)
    assert (found["backend"], found["num_iter"], found["posix_kernel_queue_size"]) == ("POSIX", 7, 64)
    assert call(["plan", "--model", "qwen3-0.6b", "--isl", "64", "--nobackend"]) == 2
    assert call(["kvcache", "--model", "qwen3-0.6b", "--isl", "64", "--source", "file", "--destination", "gpu"]) == 0


def other(flag: Flag) -> Any:
    """A value that is not the default."""
    if flag.choices:
        return next(value for value in flag.choices if value != flag.default)
    if isinstance(flag.default, bool):
        return not flag.default
    return flag.default + 1 if isinstance(flag.default, int) and flag.name != "posix_ios_pool_size" else {
        "posix_ios_pool_size": 128, "filepath": "/tmp"}.get(flag.name, "elsewhere")  # fmt: skip


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.native != "implemented"], ids=lambda flag: flag.name)
def test_what_the_engine_does_not_do_is_refused_or_noted(flag: Flag) -> None:
    for backend in ("UCX", "POSIX"):
        params = nixlbench_params(4096, 1, {"backend": backend, flag.name: other(flag)})
        read = not flag.backends or backend in flag.backends
        if flag.native == "refused" and read:
            with pytest.raises(UnavailableError, match=f"--{flag.name} .*can't run natively: ") as refused:
                native_specs(params)
            assert flag.reason in refused.value.what
        else:
            assert native_refusal(params) is None
            (note,) = native_notes(params)
            assert note.startswith(f"--{flag.name} changes nothing: ")
            assert all(spec_from_mapping(spec) for spec in native_specs(params))


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"pipeline_depth": 4}, "pipeline_depth", 4),
        ({"use_hugepages": True}, "huge_pages", True),
        ({"backend": "POSIX", "posix_ios_pool_size": 128, "posix_kernel_queue_size": 64}, "params",
         {"ios_pool_size": "128", "kernel_queue_size": "64"}),
        ({"backend": "GDS_MT", "gds_mt_num_threads": 3}, "params", {"thread_count": "3"}),
        ({"progress_threads": 2}, "params", {"num_threads": "2", "num_workers": "3"}),
    ],
)  # fmt: skip
def test_what_the_engine_does_is_in_its_spec(given: dict[str, Any], field: str, value: object) -> None:
    params = nixlbench_params(4096, 1, given)
    (spec,) = native_specs(params)
    assert getattr(spec_from_mapping(spec), field) == value
    assert native_notes(params) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prepared_xfer": True, "reregister_mem": True}, "exclude each other"),
        ({"backend": "POSIX", "randomize_location_mode": "bytealigned", "storage_enable_direct": True}, "exclude"),
        ({"asio_port": 70000}, "at most 65535"),
        ({"pipeline_depth": 0}, "at least 1"),
        ({"randomize_location_mode": "anywhere"}, "unknown to nixlbench"),
    ],
)
def test_what_nixlbench_refuses_is_refused_before(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        nixlbench_params(4096, 1, given)
    assert said in str(refused.value)


def test_the_command_of_a_new_flag_comes_after_kvbenchs() -> None:
    params = nixlbench_params(4096, 1, {"pipeline_depth": 2, "use_hugepages": True, "recreate_xfer": True})
    assert arguments(params)[-3:] == ["--recreate_xfer=true", "--pipeline_depth=2", "--use_hugepages=true"]
    assert params["total_buffer_size"] == 2 << 20  # nixlbench rounds to huge pages


TOML = pytest.mark.skipif(sys.version_info < (3, 11), reason="the standard library reads TOML from Python 3.11 on")


@TOML
def test_a_configuration_file_lies_between_the_plan_and_the_options(tmp_path: Path, capsys) -> None:
    file = tmp_path / "bench.toml"
    file.write_text('# ours\nbackend = "POSIX"\nnum_iter = 64\nwarmup_iter = 32\nstorage_enable_direct = true\n'
                    'max_batch_size = 4096\ncolour = "red"\n[section]\nnum_threads = 4\n')  # fmt: skip
    found = asked("--config_file", str(file), "--num_iter", "128", capsys=capsys)
    assert (found["num_iter"], found["warmup_iter"], found["storage_enable_direct"]) == (128, 32, True)
    assert (found["backend"], found["max_batch_size"], found["num_threads"]) == ("POSIX", 4096, 1)
    assert "config_file" not in arguments(nixlbench_params(4096, 1, read_config(file)[0]))
    assert read_config(file)[1] == ["colour", "section"]
    assert call(["plan", "--model", "qwen3-0.6b", "--isl", "64", "--config_file", str(file)]) == 0
    assert "ignoring colour, which is no flag of nixlbench" in capsys.readouterr().err


@TOML
@pytest.mark.parametrize(
    ("text", "said"),
    [("num_iter = 'many'\n", "num_iter in"), ("num_iter = true\n", "give a whole number"),
     ("num_iter = 99999999999999999999\n", "num_iter in"), ("enable_pt = 1\n", "give true or false"),
     ("num_iter 7\n", "is not TOML"), ("a = 1\na = 2\n", "is not TOML"), (None, "can't read")],
)  # fmt: skip
def test_a_wrong_configuration_file_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "bench.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UsageError) as refused:
        read_config(file)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("given", "named", "count", "args", "said"),
    [
        ({}, False, 2, ["--runtime_type=ASIO", "--asio_port=4567"], "meet by ASIO on port 4567"),
        ({"mode": "MG", "num_initiator_dev": 2, "num_target_dev": 2}, False, 2, ["--asio_port=4567"], "ASIO"),
        ({"num_initiator_dev": 2, "num_target_dev": 2}, False, 4, [], "4 processes of nixlbench, which meet by etcd"),
        ({"benchmark_group": "mine"}, True, 2, ["--benchmark_group=mine"], "etcd at http://localhost:2379"),
        ({"runtime_type": "ASIO", "asio_port": 99}, True, 2, ["--runtime_type=ASIO", "--asio_port=99"], "ASIO"),
        ({"etcd_endpoints": "http://10.0.0.7:2379"}, True, 1, ["--etcd_endpoints=http://10.0.0.7:2379"],
         "1 of 2 processes: start the others"),
        ({"backend": "POSIX"}, False, 1, ["--backend=POSIX"], ""),
    ],
)  # fmt: skip
def test_nixlbenchs_processes(given: dict[str, Any], named: bool, count: int, args: list[str], said: str) -> None:
    found = processes_of(nixlbench_params(4096, 1, given), named, 4567)
    assert found.count == count
    assert set(args) <= set(found.arguments)
    assert ("--runtime_type=ASIO" in found.arguments) == ("ASIO" in said)
    assert said in found.note


@pytest.mark.skipif(sys.version_info >= (3, 11), reason="this Python reads TOML")
def test_without_a_reader_of_toml_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs Python 3"):
        read_config(tmp_path / "bench.toml")


def test_secrets_are_not_stored() -> None:
    params = nixlbench_params(4096, 1, {"backend": "OBJ", "obj_secret_key": "s3cr3t", "obj_bucket_name": "mine"})
    kept = stored(params)
    assert (kept["obj_secret_key"], kept["obj_access_key"], kept["obj_bucket_name"]) == ("(not stored)", "", "mine")
    with pytest.raises(UnavailableError) as refused:
        native_specs(params)
    assert "s3cr3t" not in str(refused.value)
