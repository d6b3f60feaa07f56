"""One trial: valid files, one or two of them mutated, read and printed in this process; and what did not hold."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import click

from kvdeck.app.cli import standard_output
from kvdeck.app.cli.main import kvdeck
from kvdeck.sessions.errors import KvdeckError

from .mutation import mutated

MAX_SECONDS = 2.0
"""Of this process's CPU, so that a busy machine makes no trial fail."""
STUCK_SECONDS = 30
"""Wall time after which a trial is given up: it waits for something."""
RAW = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")
"""What a terminal would obey, or show in another order; of the control characters, tab and newlines may be printed."""
Files = Mapping[str, bytes]


class Stuck(BaseException):
    """A trial was given up."""


class Broken(AssertionError):
    """Something that must hold did not."""


@dataclass(frozen=True)
class World:
    """Where a trial's files lie, as kvdeck finds them: `home` and `rt` are its own, `user` and `tmp` the user's."""

    root: Path
    rng: random.Random

    @property
    def home(self) -> Path:
        return self.root / "home"


@dataclass(frozen=True)
class Kind:
    """One kind of file or message that kvdeck reads."""

    name: str
    files: Callable[[], Files]
    """Paths below the world's root and what is in them, all valid. Made once."""
    read: Callable[[World], None]
    """Reads and prints it as kvdeck does. Raises nothing but `KvdeckError`."""
    mutates: Callable[[str], bool] = lambda _: True
    """Which of the files are mutated."""
    rewrites: frozenset[str] = field(default_factory=frozenset)
    """Files that are kvdeck's own savings, which it may write anew."""


@dataclass(frozen=True)
class Failure:
    """What did not hold in a trial."""

    kind: str
    seed: int
    what: str

    def __str__(self) -> str:
        again = f"python -m tests.fuzz {self.kind} --seed {self.seed} --count 1"
        return f"{self.kind} {self.seed}: {self.what}\n    again: {again}"


def attempt(kind: Kind, seed: int, root: Path, whole: bool = False) -> Failure | None:
    """Run a trial in a folder that it makes and leaves, so that its files can be looked at.

    Args:
        whole: Leave the files as they are; then a refusal is a failure too.

    Returns:
        What did not hold; None where all did.
    """
    rng = random.Random(f"{kind.name}/{seed}")
    files = dict(kind.files())
    targets = [] if whole else [name for name in sorted(files) if kind.mutates(name)]
    for name in rng.sample(targets, min(len(targets), rng.choice((1, 1, 1, 2)))):
        files[name] = mutated(name, files[name], rng)
    marks = _laid_out(root, files)
    begun, what = time.process_time(), ""
    with _environment(root), _given_up():
        try:
            kind.read(World(root, rng))
        except KvdeckError as error:
            what = f"it was refused: {error}" if whole else _wrong_message(str(error))
        except Stuck:
            what = f"it still waits after {STUCK_SECONDS} s"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            what = _where(error)
    spent = time.process_time() - begun
    if not what and spent > MAX_SECONDS:
        what = f"{spent:.1f} s of CPU"
    for name, data in files.items():
        if not what and name not in kind.rewrites and _changed(root / name, data, marks[name]):
            what = f"{name} was changed"
    return Failure(kind.name, seed, what) if what else None


def command(*arguments: str) -> str:
    """Run a verb in this process and give what it printed.

    Raises:
        KvdeckError: It refused.
        Broken: What it printed, or how it refused, is not as it must be.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        standard_output.guard_streams()
        try:
            kvdeck.main(args=list(arguments), prog_name="kvdeck", standalone_mode=False)
        except click.ClickException as error:
            error.format_message()
        sys.stdout.flush()
        sys.stderr.flush()
    printed = [stream.buffer.getvalue().decode("utf-8", "replace") for stream in (out, err)]  # type: ignore[attr-defined]
    for text in printed:
        if bad := RAW.search(text):
            raise Broken(f"`kvdeck {' '.join(arguments)}` printed {bad[0]!r} raw")
    return printed[0]


def _wrong_message(text: str) -> str:
    return f"a message of {len(text):,} characters: {text[:200]}" if len(text) > 2000 else ""


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tests/fuzz/" not in frame.filename] or frames
    last = next((frame for frame in reversed(ours) if "site-packages" not in frame.filename), ours[-1])
    place = "/".join(Path(last.filename).parts[-3:])
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]} ({place}:{last.lineno} {last.name})"


_laid: dict[Path, dict[str, tuple[bytes, int]]] = {}
"""What lies in each root, as it was written, and when: what is still so is not written again."""


def _laid_out(root: Path, files: Files) -> dict[str, int]:
    """Make the root hold these files and no others; when each was written, in nanoseconds."""
    known = _laid.pop(root, {})
    if not known:
        shutil.rmtree(root, ignore_errors=True)
    for folder in ("home", "rt", "user", "tmp"):
        (root / folder).mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder, folders, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(root).as_posix() not in files:
                path.unlink()
        for name in folders:
            path = Path(folder, name)
            if path.is_symlink():
                path.unlink()
            elif path.parent != root:
                with contextlib.suppress(OSError):
                    path.rmdir()
    found = {name: _written(root / name, data, known.get(name)) for name, data in files.items()}
    _laid[root] = {name: (files[name], mark) for name, mark in found.items()}
    return found


def _written(path: Path, data: bytes, known: tuple[bytes, int] | None) -> int:
    if known is not None and known[0] == data:
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime_ns == known[1]:
                return known[1]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(data)
    return path.stat().st_mtime_ns


def _changed(path: Path, data: bytes, mark: int) -> bool:
    try:
        return path.stat().st_mtime_ns != mark or path.read_bytes() != data
    except OSError:
        return True


@contextlib.contextmanager
def _environment(root: Path) -> Iterator[None]:
    before = dict(os.environ)
    for name in [name for name in before if name.startswith(("KVDECK_", "DYNAMO_", "XDG_"))]:
        del os.environ[name]
    os.environ.update(
        HOME=str(root / "user"),
        TMPDIR=str(root / "tmp"),
        KVDECK_HOME=str(root / "home"),
        KVDECK_RUNTIME=str(root / "rt"),
        KVDECK_CONFIG=str(root / "user/config.yaml"),
    )
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextlib.contextmanager
def _given_up() -> Iterator[None]:
    def give_up(_: int, __: FrameType | None) -> None:
        raise Stuck

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(STUCK_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
