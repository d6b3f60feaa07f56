"""Recording in programs that know nothing of it: real NIXL between two processes, vLLM's shape, and nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kvdeck.engine import tracing
from kvdeck.engine.tracing.nixl import instrument
from kvdeck.sessions.store import trace_counts, traces

PROGRAM = Path(__file__).parents[3] / "tests" / "support/programs/nixl_program.py"


@pytest.fixture
def session(tmp_path: Path) -> Path:
    trace_counts.prepare(tmp_path)
    return tmp_path


def run(session: Path, *command: str, layout: str | None = None, per_block: int | None = None, **more: str):
    environment = {**os.environ, **traces.environment(session, "s"), **tracing.environment(None, layout, per_block)}
    return subprocess.run(
        [sys.executable, *command], env={**environment, **more}, capture_output=True, text=True, timeout=60
    )


def test_two_processes_over_nixl(session: Path) -> None:
    result = run(session, str(PROGRAM), layout="FullyContiguous", per_block=4)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("moved\n")
    (counts,) = trace_counts.transfer_counts(session)
    assert (counts.path, counts.layout) == ("HostToHost", "FullyContiguous")
    assert (counts.transfers, counts.bytes) == (5, 3 * 12 * 4096 + 2 * 8 * 1000)
    assert (counts.descriptors, counts.blocks) == (3 * 12 + 2 * 8, 13)
    assert (counts.timed_transfers, counts.failures) == (5, 0)
    assert counts.sizes == ((8000, 2), (49152, 3))
    assert 0 < counts.busy_s < 30


def test_a_program_that_is_killed_leaves_what_it_moved(session: Path) -> None:
    result = run(session, str(PROGRAM), "die")
    assert result.returncode == -9
    (counts,) = trace_counts.transfer_counts(session)
    assert (counts.layout, counts.transfers, counts.bytes, counts.blocks) == ("Unknown", 3, 3 * 12 * 4096, 0)


def test_a_program_without_nixl_just_runs(session: Path) -> None:
    code = "import sys; print(sorted(n for n in sys.modules if 'recorder' in n or 'nixl' in n))"
    result = run(session, "-c", code)
    assert (result.stdout, result.stderr) == ("[]\n", "")
    assert trace_counts.processes(session) == []


def test_the_environment_s_own_sitecustomize_still_runs(session: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/sitecustomize.py").write_text("print('mine')")
    environment = {**os.environ, **traces.environment(session, "s")}
    environment |= tracing.environment(str(tmp_path / "mine"), None, None)
    result = subprocess.run([sys.executable, "-c", ""], env=environment, capture_output=True, text=True, timeout=30)
    assert result.stdout == "mine\n"


def test_an_interpreter_without_kvdeck_borrows_its_files(session: Path) -> None:
    code = (
        "import sys; import kvdeck.engine.tracing.import_hook as i;"
        "print(i.__file__, any(type(finder).__module__ == i.__name__ for finder in sys.meta_path))"
    )
    environment = {**os.environ, **traces.environment(session, "s"), **tracing.environment(None, None, None)}
    bare = Path(sys.base_prefix) / "bin" / Path(sys.executable).name
    result = subprocess.run([str(bare), "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert result.stdout.split()[1:] == ["True"], result.stderr


FAILING_HOOK = """
import sys
sys.path.insert(0, {folder!r})
import nixl._bindings
print("fine")
"""


def test_a_hook_that_fails_is_nobody_s_trouble(session: Path, tmp_path: Path) -> None:
    package = tmp_path / "fake/nixl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "_bindings.py").write_text("nothing_that_a_hook_expects = 1\n")
    code = FAILING_HOOK.format(folder=str(package.parent))
    result = run(session, "-c", code)
    assert (result.stdout, result.stderr) == ("fine\n", "")
    assert "can't record nixl._bindings" in run(session, "-c", code, KVDECK_RECORD_DEBUG="1").stderr


ROUTER = """
class GPUSpec:
    def __init__(self, ids): self.block_ids = ids
    @staticmethod
    def medium(): return "GPU"
class CPUSpec(GPUSpec):
    @staticmethod
    def medium(): return "CPU"
class Result:
    def __init__(self, job_id, success, size=None, time=None):
        self.job_id, self.success, self.transfer_size, self.transfer_time = job_id, success, size, time
class OffloadingWorker:
    def __init__(self): self.done = []
    def transfer_async(self, job_id, spec):
        self.done.append(Result(job_id, job_id != 3, 1000 * job_id, 0.001))
        return job_id != 4
    def get_finished(self):
        done, self.done = self.done, []
        return done
"""
USING_ROUTER = """
from vllm.v1.kv_offload.worker.worker import *
worker = OffloadingWorker()
assert worker.transfer_async(1, (GPUSpec([1, 2]), CPUSpec([7])))
assert worker.transfer_async(2, (CPUSpec([7]), GPUSpec([1, 2])))
assert worker.transfer_async(3, (CPUSpec([7]), GPUSpec([1, 2])))
assert not worker.transfer_async(4, (CPUSpec([7]), GPUSpec([1, 2])))
assert [r.job_id for r in worker.get_finished()] == [1, 2, 3, 4]
"""
WORKERS = """
from abc import ABC, abstractmethod
class GPULoadStoreSpec:
    def __init__(self, ids): self.block_ids = ids
class CPULoadStoreSpec(GPULoadStoreSpec): pass
class Result:
    def __init__(self, job_id, success, size=None, time=None):
        self.job_id, self.success, self.transfer_size, self.transfer_time = job_id, success, size, time
class OffloadingWorker(ABC):
    @abstractmethod
    def submit_store(self, job_id, src_spec, dst_spec): ...
    @abstractmethod
    def submit_load(self, job_id, src_spec, dst_spec): ...
    @abstractmethod
    def get_finished(self): ...
"""
USING_WORKERS = """
from vllm.v1.kv_offload.base import *
class Mine(OffloadingWorker):
    def __init__(self): self.done = []
    def submit_store(self, job_id, src_spec, dst_spec):
        self.done.append(Result(job_id, True, 1000, 0.001))
        return True
    def submit_load(self, job_id, src_spec, dst_spec, expedited=False):
        if job_id == 6:
            raise RuntimeError("no stream")
        self.done.append(Result(job_id, job_id != 3, 2000, 0.001))
        return True
    def get_finished(self):
        done, self.done = self.done, []
        return done
worker = Mine()
worker.submit_store(1, GPULoadStoreSpec([1, 2]), CPULoadStoreSpec([7]))
worker.submit_load(2, CPULoadStoreSpec([7]), GPULoadStoreSpec([1, 2]))
worker.submit_load(3, CPULoadStoreSpec([7]), GPULoadStoreSpec([1, 2]))
worker.submit_load(job_id=5, dst_spec=GPULoadStoreSpec([1, 2]), src_spec=CPULoadStoreSpec([7]))
worker.submit_load(4, CPULoadStoreSpec([7]), GPULoadStoreSpec([1, 2]), expedited=True)
try:
    worker.submit_load(6, CPULoadStoreSpec([7]), GPULoadStoreSpec([1, 2]))
except RuntimeError as error:
    assert str(error) == "no stream"
assert len(worker.get_finished()) == 5
"""


@pytest.mark.parametrize(
    ("module", "text", "using", "loads"),
    [
        ("vllm/v1/kv_offload/worker/worker.py", ROUTER, USING_ROUTER, (1, 2000, 2)),
        ("vllm/v1/kv_offload/base.py", WORKERS, USING_WORKERS, (3, 6000, 2)),
    ],
)
def test_vllm_s_offloading_in_both_shapes(
    session: Path, tmp_path: Path, module: str, text: str, using: str, loads: tuple[int, int, int]
) -> None:
    """These modules have the names, places and signatures of vLLM's classes; `test_vllm.py` runs the real ones."""
    path = tmp_path / "site" / module
    path.parent.mkdir(parents=True)
    path.write_text(text)
    program = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n" + textwrap.dedent(using)
    for folder in [path.parent, *path.parent.parents][: len(Path(module).parts) - 1]:
        (folder / "__init__.py").touch()
    result = run(session, "-c", program, layout="FullyContiguous")
    assert result.returncode == 0, result.stderr
    found = {counts.path: counts for counts in trace_counts.transfer_counts(session)}
    store, load = found["DeviceToHost"], found["HostToDevice"]
    assert (store.transfers, store.bytes, store.blocks) == (1, 1000, 2)
    assert store.busy_s == pytest.approx(0.001)
    assert (load.transfers, load.bytes, load.failures) == loads


def test_the_plugin_is_off_unless_asked_for() -> None:
    code = (
        "import sys; from importlib.metadata import entry_points;"
        "(p,) = [p for p in entry_points(group='vllm.general_plugins') if p.name == 'kvdeck']; p.load()();"
        "print([f for f in sys.meta_path if 'kvdeck' in type(f).__module__ and 'tracing' in type(f).__module__])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "KVDECK_RECORD_FOLDER"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30)
    assert result.stdout == "[]\n", result.stderr


class Status:
    value = 1


class NamedBindings:
    """The bindings' calls, as a later NIXL could name their parameters."""

    NIXL_READ = 1

    class nixlXferDList:
        pass

    class nixlAgent:
        def createXferReq(self, operation: int, local_descs: object, remote_descs: object) -> int:
            return 7

        def prepXferDlist(self, agent_name: str, descs: object) -> int:
            return 8

        def makeXferReq(self, operation: int, local_side: int, local_indices: list[int], remote_side: int) -> int:
            return 7

        def postXferReq(self, reqh: int) -> type[Status]:
            return Status

        def getXferStatus(self, req_handle: int) -> type[Status]:
            return Status

        def releaseXferReq(self, req_handle: int) -> tuple[str, int]:
            return "released", req_handle

        def releasedDlistH(self, dlist_handle: int) -> tuple[str, int]:
            return "released", dlist_handle


def test_a_hooked_call_takes_what_the_call_takes() -> None:
    instrument(NamedBindings)  # type: ignore[arg-type]
    agent = NamedBindings.nixlAgent()
    assert agent.getXferStatus(3) is agent.getXferStatus(req_handle=3) is Status
    assert agent.releaseXferReq(3) == agent.releaseXferReq(req_handle=3) == ("released", 3)
    assert agent.releasedDlistH(3) == agent.releasedDlistH(dlist_handle=3) == ("released", 3)
    for wrong in ({"handle": 3}, {"req_handle": 3, "more": 4}):
        for call in (agent.getXferStatus, agent.releaseXferReq):
            with pytest.raises(TypeError, match="unexpected keyword argument"):
                call(**wrong)


def test_nixl_refuses_the_same_calls_with_and_without_hooks(session: Path) -> None:
    code = """
        from kvdeck.engine.io import nixl
        agent = nixl.make_agent("hooked").agent
        for call in ("getXferStatus", "releaseXferReq", "releasedDlistH"):
            for named in ({"handle": 1}, {"arg0": 1}):
                try:
                    getattr(agent, call)(**named)
                except TypeError as error:
                    print(str(error).splitlines()[0])
    """
    hooked = run(session, "-c", textwrap.dedent(code))
    plain = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert hooked.stdout == plain.stdout
    assert hooked.stdout.count("incompatible function arguments") == 6
