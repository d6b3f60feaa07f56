"""The deck's settings, from the config file, `KVDECK_*` variables and the command line; later sources win."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kvdeck.engine.quantities import parse_count
from kvdeck.sessions.errors import UsageError
from kvdeck.sessions.host.documents import DocumentError, load_yaml
from kvdeck.sessions.host.files import read_regular
from kvdeck.sessions.host.user_home import expanded
from kvdeck.sessions.units import number_text

LEAST_HZ, MOST_HZ = 0.1, 10.0
LEAST_STUCK_S, MOST_STUCK_S = 1.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Config:
    """All settings; None if the default depends on the host or the terminal."""

    theme: str | None = None
    ascii: bool | None = None
    bell: bool = False
    links: bool | None = None
    hz: float = 2.0
    block_bytes: float | None = None
    stuck_s: float = 30.0
    ttft_p99_s: float | None = None
    itl_p99_s: float | None = None
    e2e_p99_s: float | None = None
    kv_usage: float | None = None
    waiting: float | None = None
    preemptions_per_s: float | None = None
    failed_share: float | None = None
    folder: str | None = None
    home: str | None = None
    runtime: str | None = None
    keymap: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """Invalid settings, one message each; valid ones still apply."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Source of each setting that isn't a default, by name."""

    @property
    def limits(self) -> dict[str, float]:
        """Limits of the Monitor's checks that are set, by name."""
        values = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a name or a path")
    return value.strip()


def _folder(value: Any) -> str:
    text = _text(value)
    try:
        expanded(text)
    except UsageError as error:
        raise ValueError(f"expected a folder ({error.what})") from error
    return text


def _theme(value: Any) -> str:
    from kvdeck.app.tui import theme

    name = theme.named(_text(value))
    if name is None:
        raise ValueError(f"expected one of {', '.join(n.removeprefix('kvdeck-') for n in theme.names())}")
    return name


def _switch(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    found = words.get(str(value).strip().lower())
    if found is None:
        raise ValueError("expected true or false")
    return found


def _hz(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number")
    try:
        hz = float(value)
    except ValueError:
        raise ValueError("expected a number") from None
    if not LEAST_HZ <= hz <= MOST_HZ:
        raise ValueError(f"expected {LEAST_HZ} to {number_text(MOST_HZ)}")
    return hz


def _size(value: Any) -> float:
    try:
        return float(parse_count("" if isinstance(value, bool) else str(value)))
    except UsageError:
        raise ValueError("expected a whole number of bytes") from None


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number of seconds")
    try:
        seconds = float(value)
    except ValueError:
        raise ValueError("expected a number of seconds") from None
    if not math.isfinite(seconds) or not LEAST_STUCK_S <= seconds <= MOST_STUCK_S:
        raise ValueError(f"expected {number_text(LEAST_STUCK_S)} to {number_text(MOST_STUCK_S)} seconds")
    return seconds


def _limit(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("expected a number")
    try:
        limit = float(value)
    except ValueError:
        raise ValueError("expected a number") from None
    if not math.isfinite(limit) or limit < 0:
        raise ValueError("expected a number from 0")
    return limit


LIMITS = {
    "ttft_p99_s": ("30", "Seconds of the time to first token's 99th percentile above which the Monitor warns."),
    "itl_p99_s": ("1", "Seconds of the 99th percentile of the time between tokens above which it warns."),
    "e2e_p99_s": ("120", "Seconds of the 99th percentile of a whole request above which it warns."),
    "kv_usage": ("0.95", "Share of the device's KV cache, 0 to 1, above which it warns."),
    "waiting": ("50", "Requests that wait at one engine above which it warns."),
    "preemptions_per_s": ("1", "Preemptions a second at one engine above which it warns."),
    "failed_share": ("0.05", "Share of requests that end with an error, 0 to 1, above which it warns."),
}
"""Limits of the Monitor's checks: the default as it is written, and what it is."""


def _keymap(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(v, (str, int)) for v in value.values()):
        raise ValueError("expected lines of `action: key`, as in `deck.quit: Q`")
    return {str(action): str(keys) for action, keys in value.items()}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its parser, its text in the example file, and its environment variable.

    `read` raises ValueError with a message that completes "NAME …", such as "expected a number".
    """

    name: str
    read: Callable[[Any], Any]
    example: str
    help: str
    variable: str = ""

    @property
    def field(self) -> str:
        """Name of the setting's field in `Config`."""
        return self.name.rpartition(".")[2]


SETTINGS = (
    Setting(
        "theme",
        _theme,
        "dark",
        "dark, light, contrast, safe (colour-blind safe) or ansi (the terminal's own palette).\n"
        "Default: dark, or ansi where the terminal has 16 colours or NO_COLOR is set.",
        "KVDECK_THEME",
    ),
    Setting(
        "ascii",
        _switch,
        "false",
        "Draw with ASCII only, for terminals or fonts without braille and box lines.\n"
        "Default: chosen by locale and terminal.",
        "KVDECK_ASCII",
    ),
    Setting("bell", _switch, "false", "Ring the terminal's bell when a run ends.", "KVDECK_BELL"),
    Setting(
        "links",
        _switch,
        "true",
        "Make a session's name a link to its folder (OSC 8). Default: if the terminal may support links; never with\n"
        "NO_COLOR or ascii.",
        "KVDECK_LINKS",
    ),
    Setting(
        "hz",
        _hz,
        "2",
        f"Maximum screen updates per second, {LEAST_HZ} to {number_text(MOST_HZ)}; a slow link gets fewer "
        "automatically.",
        "KVDECK_HZ",
    ),
    Setting(
        "block_bytes",
        _size,
        "2097152",
        "Size of one KVBM block in bytes, with which the Monitor converts KVBM's blocks to bytes.",
        "KVDECK_BLOCK_BYTES",
    ),
    Setting(
        "monitor.stuck_s",
        _seconds,
        "30",
        "Seconds without progress after which the Monitor warns that an engine with running requests is stuck,\n"
        f"{number_text(LEAST_STUCK_S)} to {number_text(MOST_STUCK_S)}.",
        "KVDECK_STUCK_S",
    ),
    *(
        Setting(f"monitor.{name}", _limit, default, text, f"KVDECK_{name.upper()}")
        for name, (default, text) in LIMITS.items()
    ),
    Setting(
        "folder",
        _folder,
        "/mnt/nvme0/scratch",
        "Folder of the runs' test files, on the disk to measure. Default: the temp dir.",
        "KVDECK_SCRATCH",
    ),
    Setting(
        "home",
        _folder,
        "~/.local/share/kvdeck",
        "Folder of the sessions. Default: the user's data folder.",
        "KVDECK_HOME",
    ),
    Setting(
        "runtime",
        _folder,
        "/tmp/kvdeck-1000",
        "Folder of the engine's socket, owned by you, on this host. Default: in the temp dir.",
        "KVDECK_RUNTIME",
    ),
    Setting(
        "keymap",
        _keymap,
        "\n  deck.quit: Q\n  list.down: j,down,ctrl+n",
        "Keys for actions, several separated by commas; `kvdeck config --keys` lists the actions.",
    ),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_GROUPS = {setting.name.partition(".")[0] for setting in SETTINGS if "." in setting.name}


def path(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the config file's path: `$KVDECK_CONFIG`, or `config.yaml` in the user's config folder.

    The file may be missing.

    Raises:
        UsageError: `$KVDECK_CONFIG` isn't a valid path or names an unknown `~user`.
    """
    if chosen := environ.get("KVDECK_CONFIG"):
        return expanded(chosen)
    import platformdirs

    return Path(platformdirs.user_config_dir("kvdeck", appauthor=False)) / "config.yaml"


def load(environ: Mapping[str, str] = os.environ) -> Config:
    """Read the file, then the environment. Invalid settings raise no error; they are listed in `problems`."""
    where = path(environ)
    values, problems = _from_file(where)
    config = with_values(replace(Config(), problems=tuple(problems)), values, str(where))
    variables = {s.name: environ[s.variable] for s in SETTINGS if s.variable and environ.get(s.variable)}
    return with_values(config, variables, "the environment")


def with_values(config: Config, values: Mapping[str, Any], origin: str) -> Config:
    """Return the config with new values. An invalid one is ignored and reported in `problems`."""
    for name, value in values.items():
        setting = _BY_NAME.get(name)
        if setting is None:
            from difflib import get_close_matches

            near = get_close_matches(name, _BY_NAME, 1)
            meant = f"use {near[0]}" if near else f"use one of {', '.join(_BY_NAME)}"
            config = _with_problem(config, f"{origin}: unknown key {name!r} · fix: {meant}")
            continue
        if value is None:
            continue
        try:
            change: dict[str, Any] = {setting.field: setting.read(value)}
        except ValueError as error:
            key = setting.variable if origin == "the environment" else name
            config = _with_problem(config, f"{origin}: {key}: {error}, not {value!r}")
            continue
        config = replace(config, **change, origins={**config.origins, name: origin})
    return config


def chosen(config: Config, values: Mapping[str, Any]) -> Config:
    """Return the config with the command line's values.

    Raises:
        UsageError: A value is invalid.
    """
    before = len(config.problems)
    config = with_values(config, values, "the command line")
    if len(config.problems) > before:
        raise UsageError(config.problems[before].removeprefix("the command line: "), "see kvdeck --help")
    return config


def export(config: Config, environ: dict[str, str] | os._Environ[str] = os.environ) -> None:
    """Set the config's folders in the environment, where the engine and the commands read them.

    Variables that are already set are not changed.
    """
    for name in ("folder", "home", "runtime"):
        value, variable = getattr(config, name), _BY_NAME[name].variable
        if value and not environ.get(variable):
            environ[variable] = str(expanded(value))


def example() -> str:
    """Return a config file with all settings explained and commented out."""
    lines = ["# kvdeck's settings. Each can also be set by its environment variable, which overrides this file."]
    for setting in SETTINGS:
        note = f"{setting.help}\n{setting.variable}" if setting.variable else setting.help
        value = setting.example if setting.example.startswith("\n") else f" {setting.example}"
        lines += ["", *(f"# {line}" for line in note.split("\n"))]
        lines += [f"#{line}" for line in f"{setting.name}:{value}".split("\n")]
    return "\n".join(lines) + "\n"


def values_of(config: Config) -> dict[str, Any]:
    """Return the values of all settings by name."""
    return {setting.name: getattr(config, setting.field) for setting in SETTINGS}


def _with_problem(config: Config, problem: str) -> Config:
    return replace(config, problems=(*config.problems, problem))


def _from_file(where: Path) -> tuple[Mapping[str, Any], list[str]]:
    try:
        found = load_yaml(read_regular(where))
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return {}, [f"{where}: {error.strerror}; its settings are ignored"]
    except DocumentError as error:
        return {}, [f"{where}: {error}; its settings are ignored"]
    if found is None:
        return {}, []
    if not isinstance(found, dict):
        return {}, [f"{where}: it has no `name: value` lines · fix: see kvdeck config --print"]
    return dict(_flat(found)), []


def _flat(found: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Yield names and values; a group of settings, such as `monitor: {stuck_s: 30}`, may also be written nested."""
    for name, value in found.items():
        if str(name) in _GROUPS and isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", own) for inner, own in value.items())
        else:
            yield str(name), value
