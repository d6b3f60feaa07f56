"""The walls between the rooms, seen in a process of their own: what importing a module loads, and what it doesn't."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("nixl", "nixl_cu12", "nixl_cu13", "cupy", "numpy")
DRAWING = ("textual", "rich")


def loaded_by(module: str) -> set[str]:
    """Top-level modules in `sys.modules` after importing one, and the rooms of kvdeck."""
    code = f"import sys, importlib; importlib.import_module({module!r}); print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = result.stdout.split()
    return {name.split(".")[0] for name in names} | {".".join(name.split(".")[:2]) for name in names}


def modules_of(room: str) -> list[str]:
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] != "__main__":
            found.append(".".join(("kvdeck", *(part for part in parts if part != "__init__"))))
    return found


def test_sessions_know_nobody() -> None:
    for module in modules_of("sessions"):
        outside = {"kvdeck.engine", "kvdeck.app", "kvdeck.themes", "click", "psutil", "platformdirs", *HEAVY, *DRAWING}
        assert not loaded_by(module) & outside, module


@pytest.mark.parametrize(
    "module", ["kvdeck.engine.daemon.server", "kvdeck.engine.client.client", "kvdeck.engine.doctor.report"]
)
def test_the_supervisor_and_its_clients_stay_light(module: str) -> None:
    assert not loaded_by(module) & {*HEAVY, *DRAWING, "click", "pydantic", "kvdeck.app"}


def test_the_worker_never_draws() -> None:
    assert not loaded_by("kvdeck.engine.transfer.worker") & {*DRAWING, "click", "kvdeck.app"}


def test_the_terminal_never_moves_bytes() -> None:
    assert not loaded_by("kvdeck.app.tui.app") & {*HEAVY, "pydantic"}


def test_help_is_quick_because_it_draws_nothing() -> None:
    assert not loaded_by("kvdeck.app.cli.main") & {*HEAVY, *DRAWING, "asyncio"}


@pytest.mark.parametrize(("library", "home"), [("nixl", "engine/io/nixl.py"), ("cupy", "engine/io/cuda.py")])
def test_one_module_imports_it(library: str, home: str) -> None:
    lines = (f"import {library}", f"from {library}", f"import {library}_cu")
    importing = {
        str(path.relative_to(ROOT))
        for room in ("app", "engine", "sessions", "themes")
        for path in (ROOT / room).rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip().startswith(lines)
    }
    assert importing <= {home}


def test_every_package_is_in_the_wheel() -> None:
    declared = (ROOT / "pyproject.toml").read_text()
    for room in ("app", "engine", "sessions", "themes"):
        for init in (ROOT / room).rglob("__init__.py"):
            package = ".".join(("kvdeck", *init.parent.relative_to(ROOT).parts))
            assert f'"{package}"' in declared, f"{package} is not in pyproject.toml's packages"


def _calls(room: str, *names: str) -> set[str]:
    """Files in which one of these functions or classes is called, whatever module it is taken from."""
    found = set()
    for path in (ROOT / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            called = node.func if isinstance(node, ast.Call) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
            if name in names:
                found.add(str(path.relative_to(ROOT)))
    return found


def test_one_module_starts_processes() -> None:
    """The guard runs as a script with the standard library alone, beside a foreign program."""
    starting = ("Popen", "create_subprocess_exec", "create_subprocess_shell", "fork", "posix_spawn", "system", "popen")
    found = {path for room in ("app", "engine", "sessions") for path in _calls(room, *starting)}
    assert found == {"engine/children/child.py", "engine/children/guard.py"}
    importing = {
        str(path.relative_to(ROOT))
        for room in ("app", "engine", "sessions")
        for path in (ROOT / room).rglob("*.py")
        if "import subprocess" in path.read_text() or "from subprocess" in path.read_text()
    }
    assert importing == found


def test_every_thread_of_the_engine_reports_what_kills_it() -> None:
    assert _calls("engine", "Thread", "Timer") == {"engine/threads.py"}


def test_every_task_of_the_engine_belongs_to_a_group() -> None:
    assert _calls("engine", "ensure_future") == set()
    for path in (ROOT / "engine").rglob("*.py"):
        text = path.read_text()
        assert "asyncio.create_task" not in text, path
        assert "loop.create_task" not in text, path


def test_no_class_name_stands_twice() -> None:
    places: dict[str, list[str]] = {}
    for path in (path for room in ("app", "engine", "sessions", "themes") for path in (ROOT / room).rglob("*.py")):
        for found in re.finditer(r"^class (\w+)", path.read_text(), re.MULTILINE):
            places.setdefault(found[1], []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
