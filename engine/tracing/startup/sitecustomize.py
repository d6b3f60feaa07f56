"""Run by Python at startup: installs the import hook for NIXL and vLLM, then runs the environment's `sitecustomize`."""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120


def _install() -> None:
    if not os.environ.get("KVDECK_RECORD_FOLDER"):
        return
    try:
        from kvdeck.engine.tracing import import_hook
    except Exception:
        _borrow_kvdeck()
        from kvdeck.engine.tracing import import_hook
    import_hook.install()


def _borrow_kvdeck() -> None:
    """Import kvdeck from the files around this one, if the program's environment has none or an old one."""
    import types

    for name in [name for name in sys.modules if name.partition(".")[0] == "kvdeck"]:
        del sys.modules[name]
    engine = os.path.dirname(os.path.dirname(_HERE))  # noqa: PTH120
    rooms = os.path.dirname(engine)  # noqa: PTH120
    for name, folder in (("kvdeck", rooms), ("kvdeck.engine", engine), ("kvdeck.sessions", f"{rooms}/sessions")):
        module = types.ModuleType(name)
        module.__path__ = [folder]
        sys.modules[name] = module


def _run_the_other() -> None:
    """Run the environment's own `sitecustomize`, which this one shadows."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", [folder for folder in sys.path if os.path.abspath(folder) != _HERE])  # noqa: PTH100
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(module_from_spec(spec))


try:
    _install()
except Exception as error:
    if os.environ.get("KVDECK_RECORD_DEBUG"):
        sys.stderr.write(f"kvdeck can't record in this process: {error!r}\n")
_run_the_other()
