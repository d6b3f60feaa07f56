"""Reasons why something can't run here, each with a fix; shared by doctor and runs, so that both report the same."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kvdeck.engine.host.environment import blamed
from kvdeck.engine.host.machine import kernel_switch
from kvdeck.sessions.errors import UnavailableError
from kvdeck.sessions.host import files
from kvdeck.sessions.units import number_text, size_text

# Start of a library's file name -> (name, fix).
_LIBRARIES = {
    "libcufile": ("cuFile", 'install the wheels: uv tool install "kvdeck[cuda13]" (or cuda12), or the CUDA toolkit'),
    "libcudart": ("the CUDA runtime", 'install the wheels: uv tool install "kvdeck[cuda13]" (or cuda12)'),
    "libcuda.so": ("the NVIDIA driver", "install the NVIDIA driver; in a container, start it with --gpus all"),
    "libfabric": ("libfabric", "install libfabric (Debian, Ubuntu: apt install libfabric1 libhwloc15)"),
    "libhwloc": ("hwloc", "install hwloc (Debian, Ubuntu: apt install libhwloc15)"),
    "libcuobjclient": ("cuObject", "install the cuObject client of the CUDA toolkit 13"),
    "libred": ("the DDN Infinia client", "install DDN's RED client"),
    "libdoca": ("DOCA", "install NVIDIA DOCA"),
}

_CUFILE_ERRORS = {
    5001: ("the nvidia-fs driver isn't loaded", "sudo modprobe nvidia-fs, or allow cuFile's compatibility mode"),
    5007: ("the platform doesn't support GPUDirect Storage", "run /usr/local/cuda/gds/tools/gdscheck -p"),
    5008: ("the filesystem doesn't support GPUDirect Storage", "use ext4 or xfs on NVMe"),
    5011: ("the CUDA driver reported an error", "see nvidia-smi, and cufile.log"),
    5019: ("cuFile doesn't accept the file's open mode", "report it with the output of kvdeck doctor --json"),
    5025: ("permission was denied", "give this user access to /dev/nvidia-fs*"),
    5033: ("cuFile can't set up the nvidia-fs driver", "install the NVIDIA driver, then: sudo modprobe nvidia-fs"),
}

ENOUGH_MEMLOCK = 64 << 20
"""Limit of locked memory, in bytes, below which registering memory with a NIC or cuFile soon fails."""

_LOG_TAIL = 64 << 10
"""Bytes read from the end of cuFile's log."""

_PREFIXES = {
    "UCX": ("UCX_", "NIXL_", "CUDA_"),
    "LIBFABRIC": ("FI_", "LIBFABRIC_", "NIXL_", "CUDA_"),
    "GDS": ("CUFILE_", "NIXL_", "CUDA_"),
    "GDS_MT": ("CUFILE_", "NIXL_", "CUDA_"),
}
"""Prefixes of the environment variables that each backend reads."""
_UNSET = "unset the variable, or set it to a value that this host supports"
_PLUGIN_DIR_FIX = (
    "unset NIXL_PLUGIN_DIR where the engine is started, then run `kvdeck engine stop`; or correct the folder"
)

# Text in a native library's output -> (reason, fix).
_WORDS = {
    "AZURE_STORAGE_CONTAINER_NAME": ("it needs an Azure container", "set AZURE_STORAGE_CONTAINER_NAME and its account"),
    "bucket": ("it needs a bucket", "give --param bucket=NAME, with AWS credentials in the environment"),
    "GUSLI": ("it needs GUSLI block devices", "configure a GUSLI server, then give --param config_file=FILE"),
}


def no_driver(also: UnavailableError | None = None) -> UnavailableError:
    """Return the error for a missing NVIDIA driver, joined with `also`."""
    what, fix = "no NVIDIA driver is loaded", "install the NVIDIA driver; in a container, start it with --gpus all"
    if also is None:
        return UnavailableError(what, fix)
    return UnavailableError(f"{what}, and {also.what}", f"{fix}; {also.fix}")


def no_gpu(why: str) -> UnavailableError:
    """Return the error for a host with a driver but no usable GPU."""
    return UnavailableError(f"no GPU can be used: {why}", "check nvidia-smi")


def no_cupy(why: str = "cupy isn't installed") -> UnavailableError:
    return UnavailableError(
        f"GPU memory can't be reached: {why}", 'install the extra for your CUDA: uv tool install "kvdeck[cuda13]"'
    )


def no_agent(error: str) -> UnavailableError:
    """Return the error for NIXL failing to create an agent because it has no plugin."""
    fix = _PLUGIN_DIR_FIX if "NIXL_PLUGIN_DIR" in os.environ else "reinstall nixl"
    return UnavailableError(f"NIXL can't start: {error}{blamed(('NIXL_',))}", fix)


def step_failed(backend: str, error: str) -> UnavailableError:
    """Return the error for a request that failed during a step; names the environment variables its backend reads."""
    blame = blamed(_PREFIXES.get(backend.rpartition(":")[2], ("NIXL_",)))
    return UnavailableError(f"{error}{blame}", _UNSET if blame else "")


def no_room(folder: str, error: OSError) -> UnavailableError | None:
    """Return the error for a test file on a full disk; None for any other OSError."""
    words = files.no_room(error)
    if words is None:
        return None
    return UnavailableError(
        f"can't write test files in {folder}: {words[0]}", f"{words[1]}, lower --blocks, or give another --folder"
    )


def no_plugin(backend: str) -> UnavailableError:
    chosen = os.environ.get("NIXL_PLUGIN_DIR")
    if chosen is not None:
        holds = f"has no libplugin_{backend}.so" if chosen and Path(chosen).is_dir() else "is not a folder"
        what = f"NIXL has no plugin {backend}: it searches only NIXL_PLUGIN_DIR={chosen}, which {holds}"
        return UnavailableError(what, _PLUGIN_DIR_FIX)
    return UnavailableError(
        f"NIXL has no plugin {backend}", "check the name; kvdeck doctor lists all plugins that are present"
    )


def wrong_path(path: str, backend: str, serving: tuple[str, ...]) -> UnavailableError:
    return UnavailableError(f"{backend} doesn't serve {path}", f"use {', '.join(serving)}")


def wrong_memory(path: str, backend: str, missing: list[str]) -> UnavailableError:
    return UnavailableError(
        f"{backend} doesn't serve {path}: it doesn't support {' or '.join(missing)} memory", "choose another backend"
    )


def does_not_load(backend: str, error: str) -> UnavailableError:
    """Return the error for a plugin that can't be loaded; the loader's message names the missing library."""
    library = error.split(":")[0].strip()
    for start, (name, fix) in _LIBRARIES.items():
        if library.startswith(start):
            return UnavailableError(f"plugin {backend} doesn't load: {library} ({name}) isn't found", fix)
    if "cannot open shared object file" in error:
        return UnavailableError(
            f"plugin {backend} doesn't load: {library} isn't found", "install it, or name its folder in LD_LIBRARY_PATH"
        )
    return UnavailableError(f"plugin {backend} doesn't load: {error}", "reinstall nixl")


def not_created(backend: str, error: str, words: str) -> UnavailableError:
    """Return the error for a backend that NIXL refused to create.

    Args:
        backend: The backend's name.
        error: NIXL's exception, usually a bare status.
        words: Output of the native libraries during the call.
    """
    cufile = re.search(r"err(?:or)?=(5\d{3})", words)
    if cufile:
        number = int(cufile[1])
        reason, fix = _CUFILE_ERRORS.get(number, ("cuFile refused", "see cufile.log"))
        return UnavailableError(f"{backend} can't start: {reason} (cuFile error {number})", fix)
    if "io_uring" in words:
        return io_uring_off(kernel_switch("kernel/io_uring_disabled"))
    for mark, (reason, fix) in _WORDS.items():
        if mark.lower() in words.lower():
            return UnavailableError(f"{backend} can't start: {reason}", fix)
    if "NIXL_ERR_INVALID_PARAM" in error:
        said = _last_words(words) or error
        return UnavailableError(f"{backend} refused its parameters: {said}", "see kvdeck doctor for its parameters")
    blame = blamed(_PREFIXES.get(backend, ("NIXL_",)))
    fix = _UNSET if blame else "see the run's engine.log"
    return UnavailableError(f"{backend} can't start: {_last_words(words) or error}{blame}", fix)


def not_registered(backend: str, kind: str, error: str, words: str) -> UnavailableError:
    """Return the error for memory or a file that NIXL refused to register with a backend.

    Args:
        backend: The backend's name.
        kind: NIXL's memory type: DRAM, VRAM or FILE.
        error: NIXL's exception, usually a bare status.
        words: Output of the native libraries during the call.
    """
    doing = f"registering {'a file' if kind == 'FILE' else f'{kind} memory'} with {backend}"
    cufile = re.search(r"err(?:or)?=(5\d{3})", words)
    if not cufile:
        return native_failure(doing, error, words)
    disk = re.search(r"udev property not found: \S+ (\S+)", _cufile_log())
    if disk:
        what = f"cuFile doesn't find {disk[1]} in udev's database (cuFile error {cufile[1]})"
        return UnavailableError(
            f"{doing} failed: {what}",
            "in a container, mount the host's: -v /run/udev:/run/udev:ro; otherwise run udevd",
        )
    reason, fix = _CUFILE_ERRORS.get(int(cufile[1]), (_last_words(words), "see cufile.log"))
    number = "" if cufile[1] in reason else f" (cuFile error {cufile[1]})"
    return UnavailableError(f"{doing} failed: {reason}{number}", fix)


def cufile_limit() -> UnavailableError | None:
    """Return the compatibility-mode error if cuFile's log reports that mode; None if bytes go straight to the disk."""
    log = _cufile_log().lower()
    return compatibility_mode() if "compatible mode" in log or "compat mode" in log else None


def _cufile_log() -> str:
    """Return the end of cuFile's log, which has details that its status lacks; empty if it can't be read."""
    try:
        with files.open_regular(os.environ.get("CUFILE_LOGFILE_PATH") or "cufile.log") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _LOG_TAIL))
            return log.read().decode(errors="replace")
    except OSError:
        return ""


def native_failure(doing: str, error: str, words: str = "") -> UnavailableError:
    """Return the error for an unexpected failure of a native call, with the library's own message."""
    return UnavailableError(f"{doing} failed: {_last_words(words) or error}", "see the libraries' messages on stderr")


def only_tcp(transports: str, ptrace_scope: int) -> UnavailableError:
    """Return the limit: bytes between host memories of two processes go over the network stack."""
    what = f"bytes go over {transports}, because copying between processes' memories isn't allowed"
    if ptrace_scope > 0:
        return UnavailableError(
            f"{what} (ptrace_scope is {ptrace_scope})", "allow it: sudo sysctl kernel.yama.ptrace_scope=0"
        )
    return UnavailableError(what, "allow it: in a container, --cap-add SYS_PTRACE; and don't exclude cma from UCX_TLS")


def pulls_over_tcp(transports: str) -> UnavailableError:
    """Return the limit: READ of another process's GPU memory goes over the network stack; WRITE doesn't."""
    return UnavailableError(
        f"READ goes over {transports}, because this UCX can't pull GPU memory by CUDA",
        "push by WRITE (the default of runs, --op write)",
    )


def device_over_tcp(transports: str) -> UnavailableError:
    """Return the limit: bytes of GPU memory go over the network stack."""
    return UnavailableError(
        f"bytes go over {transports}, because UCX can't copy them by CUDA here",
        "don't exclude cuda_copy and cuda_ipc from UCX_TLS; in a container: --ipc=host --pid=host",
    )


def compatibility_mode() -> UnavailableError:
    return UnavailableError(
        "cuFile runs in compatibility mode: bytes go through host memory, not straight to the disk",
        "load the driver: sudo modprobe nvidia-fs; check this filesystem with gdscheck -p",
    )


def little_memlock(limit: int | None) -> UnavailableError | None:
    """Return the error for a limit on locked memory (bytes) too low for a run that pins memory; None if it suffices."""
    if limit is None or limit >= ENOUGH_MEMLOCK:
        return None
    return UnavailableError(
        f"only {size_text(limit)} of memory may be locked",
        "raise it: ulimit -l unlimited (in a container: --ulimit memlock=-1)",
    )


def in_memory(path: str, filesystem: str) -> UnavailableError:
    return UnavailableError(
        f"{path} is in memory ({filesystem}): no disk is measured",
        "give a folder on a disk with --folder",
    )


def no_direct(path: str, filesystem: str) -> UnavailableError:
    return UnavailableError(
        f"{path} ({filesystem}) doesn't support O_DIRECT: reads may come from the page cache",
        "give a folder on ext4, xfs or NVMe with --folder",
    )


def bad_folder(path: str, why: str) -> UnavailableError:
    return UnavailableError(f"can't write a file in {path}: {why}", "give a folder you may write to with --folder")


def io_uring_off(switch: int | None) -> UnavailableError:
    """Return the error for io_uring disabled by the kernel's switch, or by a container's seccomp filter."""
    if switch:
        return UnavailableError(
            f"io_uring is off (kernel.io_uring_disabled is {switch})", "sudo sysctl kernel.io_uring_disabled=0"
        )
    return UnavailableError(
        "io_uring is refused here", "in a container, allow io_uring in its seccomp profile; or --api AIO"
    )


def no_answer(trying: str, seconds: float, limit_s: float) -> UnavailableError:
    """Return the error for a probe that was ended because it hung; both times in seconds."""
    return UnavailableError(
        f"no answer within {number_text(seconds)} s while trying {trying}; the probe was killed",
        f"raise the limit: KVDECK_DOCTOR_LIMIT={max(10, round(limit_s * 4))} kvdeck doctor",
    )


def silent_folder(path: str, seconds: float) -> UnavailableError:
    return UnavailableError(
        f"the filesystem of {path} did not answer within {number_text(seconds)} s", "give another folder with --folder"
    )


def crashed(trying: str, how: str, last_words: str) -> UnavailableError:
    """Return the error for a probe process that crashed."""
    said = f": {last_words}" if last_words else ""
    return UnavailableError(
        f"trying {trying} ended with {how}{said}", "report it with the output of kvdeck doctor --json"
    )


def not_tried(backend: str) -> UnavailableError:
    return UnavailableError(
        f"{backend} was not tried: earlier probes used up the time limit",
        "raise the limit: KVDECK_DOCTOR_LIMIT=20 kvdeck doctor",
    )


def staged(also: str | None) -> UnavailableError:
    """Return the limit: bytes are staged through host memory instead of GPUDirect Storage."""
    what = "bytes are copied through host memory: this is not GPUDirect Storage"
    return UnavailableError(f"{what}; {also}" if also else what, "set up GDS to bypass host memory")


def _last_words(words: str) -> str:
    """Return the most informative line: the first logged error without its time stamp, else the first line."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    errors = [match[1] for line in lines if (match := re.match(r"E\d{4} [^\]]*\] (.*)", line))]
    return (errors or lines or [""])[0]
