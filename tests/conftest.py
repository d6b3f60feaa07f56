"""What holds for every test: it owns its home, its temp dir and its environment, whatever the machine is used for."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from kvdeck.engine.io.exit import leave
from tests import surroundings

surroundings.default_signals()

# Before any test module is loaded, as some read the environment when they are. pytest's own folders stay where they
# are, so that those of tests that failed can be looked at.
os.environ["PYTEST_DEBUG_TEMPROOT"] = os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir()
ROOT = surroundings.short_root()
surroundings.clear(os.environ, ROOT)
tempfile.tempdir = None
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a temp dir of each test's own."""
    root = ROOT / str(next(_numbers))
    for name, folder in surroundings.folders(root).items():
        monkeypatch.setenv(name, folder)
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield root
    monkeypatch.undo()
    shutil.rmtree(root, ignore_errors=True)


class Exit:
    """Ends pytest with its own status: this process has loaded UCX, whose libnl-route crashes in its destructor."""

    status: int | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.status = int(exitstatus)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        shutil.rmtree(ROOT, ignore_errors=True)
        if self.status is not None and any(name.endswith("._bindings") for name in sys.modules):
            leave(self.status)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-goldens", action="store_true", help="keep the screens as they are painted now")


@pytest.fixture
def update_goldens(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("update_goldens"))


def pytest_configure(config: pytest.Config) -> None:
    # The same examples each time, so that a change is judged by what it changed; HYPOTHESIS_EXAMPLES=2000 looks for
    # others. A timing never fails a test.
    more = os.environ.get("HYPOTHESIS_EXAMPLES")
    hypothesis.settings.register_profile(
        "kvdeck", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], derandomize=more is None,
        max_examples=int(more or 100),
    )  # fmt: skip
    hypothesis.settings.load_profile("kvdeck")
    config.pluginmanager.register(Exit(), "kvdeck-exit")
