"""Reader for nixlbench's configuration file: flags as top-level keys of a TOML file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kvdeck.engine.planning.nixlbench_flags import BY_NAME, Flag
from kvdeck.engine.quantities import MOST
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.files import open_regular

_MOST_BYTES = 1 << 20


def read_config(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the flags in a file, and the keys that are no flag, which nixlbench ignores too.

    Raises:
        UsageError: The file can't be read, is no TOML, or a value has another type than its flag.
    """
    data = _load(path)
    ignored = [key for key, value in data.items() if key not in BY_NAME or isinstance(value, dict)]
    known = {key: value for key, value in data.items() if key not in ignored and key != "config_file"}
    return {key: _checked(BY_NAME[key], value, path) for key, value in known.items()}, ignored


def _load(path: Path) -> dict[str, Any]:
    if sys.version_info < (3, 11):
        raise UsageError("--config_file needs Python 3.11, whose library reads TOML", "give its values as options")
    import tomllib

    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", "check its name, owner and mode") from error
    if len(data) > _MOST_BYTES:
        raise UsageError(f"{path} has more than 1 MiB", "give nixlbench's configuration file")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} is not TOML: {said}", "write one flag per line: num_iter = 100") from error


def _checked(flag: Flag, value: Any, path: Path) -> Any:
    kind = type(flag.default)
    if type(value) is not kind or (isinstance(value, int) and value > MOST):
        wanted = {bool: "true or false", int: "a whole number", str: "a text in quotes"}[kind]
        raise UsageError(f"{flag.name} in {path} is {value!r:.60}", f"give {wanted}")
    return value
