"""Settings, spec and host of a session are open mappings: an odd value in one is that session's fault, in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kvdeck.app.cli.main import main
from kvdeck.engine.client.client import home
from kvdeck.sessions.model.encoding import RecordError, decode
from kvdeck.sessions.model.open_values import SettingValues, SpecValues
from kvdeck.sessions.model.records import Session

GOLDEN = Path(__file__).parents[1] / "goldens" / "session-run.json"
ODD: tuple[Any, ...] = ("x", "", [1], ["x"], [[]], {"a": 1}, {}, True, -1, 1.5, 10**18, None)
KEYS = {
    "settings": (
        *SettingValues.__struct_fields__,
        "nixlbench",
        "huge_pages",
        "error_handling",
        "prep_lists_us",
        "peer",
    ),
    "spec": (*SpecValues.__struct_fields__, "paths", "layouts"),
    "host": ("hostname", "cpu", "cores", "memory_bytes", "kernel", "gpus", "filesystem", "peers", "nics"),
}


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0), capsys.readouterr().err


def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDEN.read_bytes())
    assert found["results"]
    return found


@pytest.mark.parametrize(("where", "key"), [(where, key) for where, keys in KEYS.items() for key in keys])
def test_an_odd_value_is_one_line_and_other_sessions_go_on(
    where: str, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is read is shown whole, whatever it holds; what can't be read says which key."""
    for name in ("odd", "fine"):
        (home() / "sessions" / name).mkdir(parents=True)
        (home() / "sessions" / name / "session.json").write_text(json.dumps({**document(), "name": name}))
    for value in ODD:
        data = {**document(), "name": "odd"}
        for holder in data["results"] if where == "settings" else [data]:
            place = holder.setdefault(where, {})
            place[key] = value
        (home() / "sessions" / "odd" / "session.json").write_text(json.dumps(data))
        for verb in (("show", "odd"), ("compare", "odd", "fine"), ("list",), ("show", "odd", "--json")):
            status, err = call(capsys, "session", *verb)
            assert "unexpected" not in err, (value, err)
            assert status == 0 or (verb != ("list",) and err.count("\n") == 1), (value, err)


def test_the_message_names_the_result_and_the_key() -> None:
    data = document()
    data["results"][1]["settings"] = {"threads": "two"}
    with pytest.raises(RecordError, match=r"results\[1\]: settings\.threads: expected int . null, got str"):
        decode(Session, json.dumps(data).encode())
