"""Settings: file, then environment, then command line; nothing that is wrong in them stops the start."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from kvdeck.app import config
from kvdeck.app.cli.config import actions
from kvdeck.app.cli.main import call
from kvdeck.app.tui import ui_state
from kvdeck.engine.telemetry.limits import ServiceLimits
from kvdeck.sessions.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def loaded(file: Path, text: str, **environ: str) -> config.Config:
    file.write_text(text)
    return config.load({"KVDECK_CONFIG": str(file), **environ})


def test_the_last_one_counts_and_each_says_where_it_is_from(file: Path):
    found = loaded(file, "theme: light\nhz: 1\nbell: yes\n", KVDECK_HZ="4")
    found = config.chosen(found, {"theme": "safe", "ascii": None})
    assert (found.theme, found.hz, found.bell, found.ascii) == ("kvdeck-safe", 4.0, True, None)
    assert found.origins == {"theme": "the command line", "hz": "the environment", "bell": str(file)}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("thme: light", "unknown key 'thme' · fix: use theme"),
        ("xyzzy: 1", "unknown key 'xyzzy' · fix: use one of theme, ascii"),
        ("theme: pink", "theme: expected one of ansi, contrast, dark, light, safe, not 'pink'"),
        ("hz: fast", "hz: expected a number, not 'fast'"),
        ("hz: 100", "hz: expected 0.1 to 10, not 100"),
        ("bell: [1]", "bell: expected true or false, not [1]"),
        ("keymap: j", "keymap: expected lines of `action: key`"),
        ("monitor: {stuck_s: long}", "monitor.stuck_s: expected a number of seconds, not 'long'"),
        ("monitor: {stuck_s: .nan}", "monitor.stuck_s: expected 1 to 86,400 seconds, not nan"),
        ("monitor: {stuck_s: -3}", "monitor.stuck_s: expected 1 to 86,400 seconds, not -3"),
        ("monitor: {stuck: 3}", "unknown key 'monitor.stuck' · fix: use monitor.stuck_s"),
        ("monitor: 3", "unknown key 'monitor' · fix: use monitor.waiting"),
        ("monitor: {ttft_p99_s: -1}", "monitor.ttft_p99_s: expected a number from 0, not -1"),
        ("home: 5", "home: expected a name or a path, not 5"),
        ("bell: yes\n  a: [b\n", "line 2: mapping values are not allowed in this context"),
        ("- a\n- b\n", "it has no `name: value` lines"),
        ("\x00", "its settings are ignored"),
    ],
)
def test_what_is_wrong_is_named_and_the_rest_counts(file: Path, text: str, said: str):
    found = loaded(file, text, KVDECK_BELL="1")
    assert len(found.problems) == 1
    assert str(file) in found.problems[0]
    assert said in found.problems[0]
    assert found.bell


def test_a_group_is_written_nested_or_with_a_dot(file: Path):
    for text in ("monitor:\n  stuck_s: 5\n", "monitor.stuck_s: 5\n"):
        found = loaded(file, text)
        assert (found.stuck_s, found.problems) == (5.0, ())
        assert found.origins == {"monitor.stuck_s": str(file)}
    assert loaded(file, "monitor: {stuck_s: 5}\n", KVDECK_STUCK_S="7").stuck_s == 7.0


def test_a_folder_instead_of_the_file_is_a_problem_and_no_end(tmp_path: Path):
    found = config.load({"KVDECK_CONFIG": str(tmp_path)})
    assert "is a folder" in found.problems[0]


def test_the_command_line_refuses(file: Path):
    with pytest.raises(UsageError, match="hz: expected a number"):
        config.chosen(config.Config(), {"hz": "x"})


def test_the_printed_example_explains_every_setting_and_sets_none(capsys: pytest.CaptureFixture[str], file: Path):
    assert call(["config", "--print"]) == 0
    text = capsys.readouterr().out
    assert loaded(file, text) == config.Config()
    settings = "\n".join(
        line[1:] for line in text.splitlines() if line.startswith("#") and not re.match("# [^ ]", line)
    )
    set_all = loaded(file, settings)
    assert set_all.problems == ()
    assert set(set_all.origins) == {setting.name for setting in config.SETTINGS} == set(yaml.safe_load(settings))
    assert not [name for name in set_all.keymap if name not in actions()]


def test_folders_are_handed_on_unless_the_environment_names_others(file: Path):
    environ = {"KVDECK_HOME": "/there"}
    config.export(loaded(file, "home: /here\nfolder: ~/nvme\n"), environ)
    assert environ == {"KVDECK_HOME": "/there", "KVDECK_SCRATCH": str(Path("~/nvme").expanduser())}


def test_every_verb_says_what_is_wrong_in_the_file_and_goes_on(file: Path, capsys: pytest.CaptureFixture[str]):
    file.write_text("keymop: {}\nkeymap: {deck.quti: Q}\n")
    assert call(["sessions"]) == 0
    shown = capsys.readouterr()
    assert "No sessions yet" in shown.out
    assert "unknown key 'keymop' · fix: use keymap" in shown.err
    assert call(["config"]) == 1
    assert "unknown action 'deck.quti'" in capsys.readouterr().err


def test_every_action_has_one_name_and_a_word_for_it():
    found = actions()
    assert {"deck.quit", "list.down", "run.launch", "share.markdown"} <= set(found)
    assert all(binding.tooltip for binding in found.values())


def test_what_is_remembered_comes_back_and_a_torn_file_is_nothing():
    assert ui_state.recall() == {}
    ui_state.keep({"view": "doctor", "hidden": ["log"]})
    assert ui_state.recall() == {"view": "doctor", "hidden": ["log"]}
    path = ui_state.home_folder() / ui_state.FILE
    assert [p.name for p in path.parent.iterdir()] == [ui_state.FILE]
    path.write_bytes(path.read_bytes()[:9])
    assert ui_state.recall() == {}


def test_a_home_that_takes_nothing_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KVDECK_HOME", "/proc/kvdeck")
    ui_state.keep({"view": "run"})
    assert ui_state.recall() == {}


def test_what_a_key_does_fits_into_the_help_panel_at_80_columns():
    assert [binding.tooltip for binding in actions().values() if len(binding.tooltip) > 60] == []


def test_limits_of_the_checks_are_those_that_are_set(file: Path):
    assert loaded(file, "theme: safe\n").limits == {}
    found = loaded(file, "monitor: {ttft_p99_s: 2, waiting: 10}\n", KVDECK_WAITING="5")
    assert (found.limits, found.problems) == ({"ttft_p99_s": 2.0, "waiting": 5.0}, ())


def test_every_limit_of_the_checks_can_be_set_and_says_its_default():
    defaults = {name: float(default) for name, (default, _) in config.LIMITS.items()}
    assert defaults == asdict(ServiceLimits())
