"""`kvdeck tune`: what is kept, for whom, and what it says where nothing is."""

from __future__ import annotations

import json
import platform

import pytest

from kvdeck.app.cli.main import main
from kvdeck.app.cli.run import asked_spec, run
from kvdeck.engine.client.client import home
from kvdeck.engine.spec import RunSpec, spec_from_mapping
from kvdeck.engine.transfer.path_settings import kept_paths
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.model.events import Event, Logged
from kvdeck.sessions.model.records import Interval
from kvdeck.sessions.store.tuned_settings import TunedSettings, keep_tuned


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["tune", *arguments])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


@pytest.fixture
def kept() -> None:
    home().mkdir(parents=True, exist_ok=True)
    mine = TunedSettings(platform.node(), "HostToHost", {"error_handling": "none", "params": {"a": "b"}}, "first",
                         1_790_000_000.0, "1.5.1", 2_097_152, 16, Interval(0.41, 0.39, 0.44))  # fmt: skip
    keep_tuned(home(), [mine, TunedSettings("other", "HostToDisk", {}, "second", 1_790_000_000.0)])


def test_nothing_kept_says_how_to_find_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys) == (
        0,
        "Nothing is kept. Find the fastest settings: `kvdeck run --tune --path HostToHost`\n",
        "",
    )
    assert call(capsys, "--json")[1].split() == ["[]"]


@pytest.mark.usefixtures("kept")
def test_what_is_kept_is_shown_with_its_provenance(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys)
    for words in ("error_handling=none, a=b", "0.41", "first", "the defaults", "other"):
        assert words in out
    (row,) = json.loads(call(capsys, "HostToHost", "--json")[1])
    assert row["ratio"] == {"median": 0.41, "low": 0.39, "high": 0.44}


@pytest.mark.usefixtures("kept")
def test_another_host_s_settings_are_not_forgotten(capsys: pytest.CaptureFixture[str]) -> None:
    assert "HostToHost" in call(capsys, "--forget")[1]
    assert "other" in call(capsys)[1]
    status, _, err = call(capsys, "Nowhere")
    assert (status, err.count("\n")) == (2, 1)


def asked(*arguments: str) -> RunSpec:
    """The spec of `kvdeck run` with these arguments."""
    return asked_spec(None, run.make_context("run", list(arguments)).params)


def used(spec: RunSpec) -> tuple[RunSpec, list[str]]:
    """What a run makes of the settings kept for this host, and what it says about them."""
    events: list[Event] = []
    found = kept_paths(spec, ["HostToHost"], platform.node(), home(), events.append)
    return found["HostToHost"], [event.text for event in events if isinstance(event, Logged)]


def test_an_option_wins_over_what_is_kept_even_where_it_gives_the_default() -> None:
    home().mkdir(parents=True, exist_ok=True)
    settings = {"threads": 4, "error_handling": "none"}
    keep_tuned(home(), [TunedSettings(platform.node(), "HostToHost", settings, "first", 1_790_000_000.0)])
    alone, _ = used(asked("--tuned"))
    assert (alone.threads, alone.error_handling) == (4, "none")
    spec = asked("--threads", "1", "--tuned")
    beside, said = used(spec)
    assert (beside.threads, beside.error_handling) == (1, "none")
    assert "HostToHost: threads=1 as given, in place of the tuned threads=4" in said
    assert spec_from_mapping(spec.to_mapping()) == spec, "run.yaml repeats it"


def test_options_without_tuned_are_not_noted() -> None:
    assert asked("--threads", "1").fixed == ()
    assert "fixed" not in asked("--tuned").to_mapping()


def test_only_what_tuning_changes_can_be_fixed() -> None:
    with pytest.raises(UsageError, match="fixed in the spec names batch"):
        spec_from_mapping({"fixed": ["batch"]})
