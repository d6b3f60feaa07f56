"""The settings of each path of a run: found by tuning now, or kept from an earlier run that tuned."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from kvdeck.engine.io import plugins
from kvdeck.engine.io.loop import CancelledError
from kvdeck.engine.spec import TUNED, RunSpec, spec_from_mapping
from kvdeck.engine.transfer.trials import Room, plan_trials
from kvdeck.engine.transfer.tuning import change_text, changed, race, tune
from kvdeck.sessions.errors import KvdeckError, RunFailedError, UsageError
from kvdeck.sessions.model.events import Event, Logged
from kvdeck.sessions.store.tuned_settings import TunedSettings, keep_tuned, tuned_for
from kvdeck.sessions.units import local_time


def tune_paths(
    spec: RunSpec,
    paths: Iterable[str],
    room: Room,
    scratch: Path,
    session: Path,
    emit: Callable[[Event], None],
    cancelled: Callable[[], bool],
) -> dict[str, RunSpec]:
    """Return the best spec of each path, and keep its settings for `--tuned`; log a path that can't be tuned.

    Args:
        spec: The run.
        paths: Those that can run here.
        room: Resources of this host.
        scratch: Folder for test files.
        session: Folder of the run's session; the home is above it.
        emit: Takes the run's events.
        cancelled: Tells whether to stop.

    Raises:
        RunFailedError: A rank is lost, or the session can't be written.
    """
    found: dict[str, RunSpec] = {}
    kept: list[TunedSettings] = []
    for path in paths:
        try:
            best = tune(spec, path, room, str(scratch), emit, cancelled)
            kept.append(_kept(dataclasses.replace(spec, paths=(path,)), best, room, scratch, session, cancelled))
        except CancelledError:
            break
        except RunFailedError:
            raise
        except Exception as error:  # NIXL raises arbitrary types; the run can still be made as it was asked
            emit(_log("warning", f"{path} was not tuned: {error}"))
            continue
        found[path] = dataclasses.replace(best, paths=spec.paths)
    try:
        keep_tuned(session.parent.parent, kept)
    except (OSError, KvdeckError) as error:  # the run itself has what it needs
        emit(_log("warning", f"the settings found can't be kept: {error}"))
    return found


def _kept(
    spec: RunSpec, best: RunSpec, room: Room, scratch: Path, session: Path, cancelled: Callable[[], bool]
) -> TunedSettings:
    """Return what tuning found, with the time ratio of all settings together, raced once more in fresh heats."""
    settings = {name: getattr(best, name) for name in TUNED if getattr(best, name) != getattr(spec, name)}
    trial = plan_trials(spec, room)[0]
    return TunedSettings(
        host=room.host.hostname,
        path=trial.path,
        settings=settings,
        session=session.name,
        wall=time.time(),
        nixl=plugins.nixl_version(),
        peer=_peer(spec),
        block_bytes=trial.geometry.block_bytes,
        batch=trial.batch,
        ratio=race(spec, best, room, str(scratch), cancelled) if settings else None,
    )


def kept_paths(
    spec: RunSpec, paths: Iterable[str], host: str, home: Path, emit: Callable[[Event], None]
) -> dict[str, RunSpec]:
    """Return the spec of each path with the settings kept for this host, and log which and from when.

    Settings that the run itself gives stay.

    Raises:
        KvdeckError: The file of kept settings can't be read.
    """
    kept, found = tuned_for(home, host, _peer(spec)), dict[str, RunSpec]()
    for path in paths:
        item = kept.get(path)
        if item is None:
            where = f"{host} and {_peer(spec)}" if spec.peer else host
            emit(_log("warning", f"{path}: no tuned settings are kept for {where} · fix: run with --tune once"))
            continue
        change = _open_settings(spec, item.settings)
        try:
            checked = spec_from_mapping(changed(spec, change).to_mapping(), "the kept settings")
        except (UsageError, TypeError) as error:
            emit(_log("warning", f"{path}: the kept settings can't be used: {error}"))
            continue
        emit(_log("info", f"{path}: {_origin(item, change)}"))
        for name in spec.fixed:
            if name in item.settings and name != "params" and item.settings[name] != getattr(spec, name):
                own, theirs = change_text({name: getattr(spec, name)}), change_text({name: item.settings[name]})
                emit(_log("info", f"{path}: {own} as given, in place of the tuned {theirs}"))
        if item.nixl not in (None, plugins.nixl_version()):
            emit(_log("warning", f"{path}: they were found with NIXL {item.nixl} · fix: run with --tune again"))
        found[path] = checked
    return found


def _peer(spec: RunSpec) -> str:
    return ", ".join(spec.peer or ())


def _open_settings(spec: RunSpec, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings that the run neither gives nor changes; of plugin parameters, those that it doesn't name.

    An option may give the default: only `fixed` tells it from one that was left out.
    """
    default = RunSpec()
    change = {
        name: value
        for name, value in settings.items()
        if name not in ("params", *spec.fixed) and getattr(spec, name, None) == getattr(default, name, None)
    }
    params = {key: value for key, value in dict(settings.get("params", {})).items() if key not in spec.params}
    return change | ({"params": params} if params else {})


def _origin(item: TunedSettings, change: Mapping[str, Any]) -> str:
    text = change_text(dict(change)) or "the defaults, as nothing was faster"
    return f"{text} (tuned {local_time(item.wall)}, session {item.session})"


def _log(level: Literal["info", "warning"], text: str) -> Logged:
    return Logged(time.monotonic_ns(), level, text)
