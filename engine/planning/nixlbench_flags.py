"""Every flag of nixlbench: type, default, and what kvdeck's engine does with it in `kvdeck profile`.

`kvdeck plan` prints each flag in the command, and `profile --exec nixlbench` passes it on. The options, their help,
docs/nixlbench.md and the checks come from this table. Flags and defaults are those of nixl's commit 8770b655
(benchmark/nixlbench/src/utils/utils.cpp), except where KVBench has another default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Native = Literal["implemented", "noted", "refused"]
"""`implemented`: the engine does it. `noted`: accepted, and stderr says what it means here. `refused`: any value but
the default is refused, with the reason."""

NETWORK = ("UCX", "LIBFABRIC", "GPUNETIO", "Mooncake", "UCCL")
CUFILE = ("GDS", "GDS_MT")
STORAGE = (*CUFILE, "POSIX", "HF3FS", "GUSLI")
OBJECT = ("OBJ", "AZURE_BLOB", "INFINIA")
_FILES = (*STORAGE, *OBJECT)


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of nixlbench."""

    name: str
    default: str | int | bool
    """KVBench's default where it has one, otherwise nixlbench's."""
    help: str
    native: Native = "implemented"
    reason: str = ""
    """What `noted` means, or why another value is refused."""
    backends: tuple[str, ...] = ()
    """The backends with which nixlbench reads it; empty: all."""
    choices: tuple[str, ...] = ()
    least: int = 1
    """Smallest value of a number."""
    most: int | None = None
    kvbench: bool = True
    """True if KVBench has it too."""
    secret: bool = False
    """True if its value must not be stored."""

    def changed(self, params: Mapping[str, Any]) -> bool:
        """True if the parameters have another value than the default."""
        return self.name in params and params[self.name] != self.default


_PREPARED = "the engine prepares each request only once"
_BACKEND = "the engine doesn't have this backend"

FLAGS = (
    Flag("benchmark_group", "default", "Name that separates runs on the same etcd.", backends=NETWORK),
    Flag("backend", "UCX", "UCX, LIBFABRIC, GDS, GDS_MT, POSIX, OBJ … Default: chosen by source and destination."),
    Flag("check_consistency", False, "Compare the received bytes."),
    Flag("device_list", "all", "Device names, separated by commas. Default: all.", "refused",
         "NIXL chooses the devices; UCX_NET_DEVICES restricts them"),
    Flag("enable_pt", False, "Progress thread."),
    Flag("progress_threads", 0, "Progress threads. Default: 0.", backends=NETWORK, least=0),
    Flag("etcd_endpoints", "http://localhost:2379", "Addresses of etcd. Default: http://localhost:2379.",
         backends=NETWORK),
    Flag("storage_enable_direct", False, "O_DIRECT.", backends=_FILES),
    Flag("filepath", "", "Folder for the files of storage backends.", backends=_FILES),
    Flag("enable_vmm", False, "VMM memory.", "refused", "the engine doesn't allocate VMM memory"),
    Flag("gds_batch_pool_size", 32, "Batches in GDS' pool. Default: 32.", backends=("GDS",)),
    Flag("gds_batch_limit", 128, "I/Os in one GDS batch. Default: 128.", backends=("GDS",)),
    Flag("initiator_seg_type", "DRAM", "Initiator's memory.", choices=("DRAM", "VRAM")),
    Flag("max_batch_size", 1, "Last batch. Default: the plan's."),
    Flag("max_block_size", 64 << 20, "Last block size. Default: the plan's."),
    Flag("mode", "SG", "One GPU per process, or all in one.", choices=("SG", "MG")),
    Flag("num_files", 1, "Files. Default: 1.", backends=_FILES),
    Flag("num_initiator_dev", 1, "Initiator devices. Default: 1."),
    Flag("num_iter", 1000, "Timed iterations. Default: 1000."),
    Flag("num_target_dev", 1, "Target devices. Default: 1."),
    Flag("num_threads", 1, "Threads. Default: 1."),
    Flag("op_type", "WRITE", "Direction; for storage it follows from source and destination.",
         choices=("READ", "WRITE")),
    Flag("posix_api_type", "AIO", "POSIX backend's API.", backends=("POSIX",), choices=("AIO", "URING", "POSIXAIO")),
    Flag("runtime_type", "ETCD", "Rendezvous of the processes.", backends=NETWORK, choices=("ETCD", "ASIO")),
    Flag("scheme", "pairwise", "Pairing of initiator and target devices.",
         choices=("pairwise", "manytoone", "onetomany", "tp")),
    Flag("start_batch_size", 1, "First batch of a sweep. Default: the plan's."),
    Flag("start_block_size", 4096, "First block size of a sweep, in bytes. Default: the plan's."),
    Flag("target_seg_type", "DRAM", "Target's memory.", choices=("DRAM", "VRAM")),
    Flag("total_buffer_size", 8 << 30, "Buffer in bytes. Default: sized for the largest batch."),
    Flag("warmup_iter", 100, "Warm-up iterations. Default: 100.", least=0),
    Flag("worker_type", "nixl", "Worker that transfers.", "refused", "the engine transfers over NIXL",
         choices=("nixl", "nvshmem")),
    Flag("gds_mt_num_threads", 1, "Threads of the GDS_MT backend. Default: 1.", backends=("GDS_MT",)),
    Flag("gpunetio_device_list", "0", "GPUs of the GPUNETIO backend. Default: 0.", "refused", _BACKEND, ("GPUNETIO",)),
    Flag("gpunetio_oob_list", "", "Network interfaces of GPUNETIO's control path.", "refused", _BACKEND, ("GPUNETIO",)),
    Flag("hf3fs_iopool_size", 64, "I/O pool of the HF3FS backend. Default: 64.", "refused", _BACKEND, ("HF3FS",)),
    Flag("obj_access_key", "", "S3 access key.", "refused", _BACKEND, ("OBJ",), secret=True),
    Flag("obj_secret_key", "", "S3 secret key.", "refused", _BACKEND, ("OBJ",), secret=True),
    Flag("obj_session_token", "", "S3 session token.", "refused", _BACKEND, ("OBJ",), secret=True),
    Flag("obj_bucket_name", "", "S3 bucket.", "refused", _BACKEND, ("OBJ",)),
    Flag("obj_scheme", "http", "S3 scheme. Default: http.", "refused", _BACKEND, ("OBJ",), ("http", "https")),
    Flag("obj_region", "eu-central-1", "S3 region. Default: eu-central-1.", "refused", _BACKEND, ("OBJ",)),
    Flag("obj_use_virtual_addressing", False, "S3 virtual addressing.", "refused", _BACKEND, ("OBJ",)),
    Flag("obj_endpoint_override", "", "S3 endpoint.", "refused", _BACKEND, ("OBJ",)),
    Flag("obj_req_checksum", "supported", "S3 checksums. Default: supported.", "refused", _BACKEND, ("OBJ",),
         ("supported", "required")),
    Flag("obj_ca_bundle", "", "File of S3's CA certificates.", "refused", _BACKEND, ("OBJ",)),
    Flag("large_blk_iter_ftr", 16, "Divides the iterations above 1 MiB. Default: 16."),
    Flag("recreate_xfer", False, "Recreate the request in each iteration.", "refused", _PREPARED),
    Flag("config_file", "", "nixlbench's TOML file; options go before it, and it before the plan.", "implemented",
         kvbench=False),
    Flag("reregister_mem", False, "Register the memory again in each iteration.", "refused",
         "the engine registers memory only once", kvbench=False),
    Flag("prepared_xfer", False, "Make requests from prepared lists.", "noted",
         "the engine always makes requests from prepared lists", kvbench=False),
    Flag("pipeline_depth", 1, "Requests in flight per thread. Default: 1.", kvbench=False),
    Flag("use_hugepages", False, "Memory in huge pages.", kvbench=False),
    Flag("filenames", "", "Names of the files, separated by commas.", "refused",
         "the engine writes into files of its own in --filepath, never into a given file", _FILES, kvbench=False),
    Flag("asio_address", "127.0.0.1", "ASIO's address. Default: 127.0.0.1.", backends=NETWORK, kvbench=False),
    Flag("asio_port", 12345, "ASIO's port. Default: 12345.", backends=NETWORK, least=0, most=65535, kvbench=False),
    Flag("randomize_location_mode", "none", "Order of the places in the files.", "refused",
         "the engine goes over its working set in order", _FILES, ("none", "blockaligned", "bytealigned"),
         kvbench=False),
    Flag("randomize_location_mode_seed", 0, "Seed of that order; 0: another one each time.", "noted",
         "it only matters with --randomize_location_mode", _FILES, least=0, kvbench=False),
    Flag("posix_ios_pool_size", 65536, "I/Os in the POSIX backend's pool, 64 to 65536. Default: 65536.",
         backends=("POSIX",), kvbench=False),
    Flag("posix_kernel_queue_size", 256, "The kernel's queue for AIO and URING, 16 to 1024. Default: 256.",
         backends=("POSIX",), kvbench=False),
    Flag("obj_crt_min_limit", 0, "Bytes from which S3's CRT client is used; 0: never.", "refused", _BACKEND, ("OBJ",),
         least=0, kvbench=False),
    Flag("obj_accelerated_enable", False, "S3 client for transfers from and to a GPU.", "refused", _BACKEND, ("OBJ",),
         kvbench=False),
    Flag("obj_accelerated_type", "", "Vendor of that client.", "refused", _BACKEND, ("OBJ",), kvbench=False),
    Flag("azure_blob_account_url", "", "Azure account's URL.", "refused", _BACKEND, ("AZURE_BLOB",), kvbench=False),
    Flag("azure_blob_container_name", "", "Azure container.", "refused", _BACKEND, ("AZURE_BLOB",), kvbench=False),
    Flag("azure_blob_connection_string", "", "Azure connection string.", "refused", _BACKEND, ("AZURE_BLOB",),
         kvbench=False, secret=True),
    Flag("infinia_config_file", "", "Configuration file of the INFINIA backend.", "refused", _BACKEND, ("INFINIA",),
         kvbench=False),
    Flag("gusli_client_name", "NIXLBench", "GUSLI client's name.", "refused", _BACKEND, ("GUSLI",), kvbench=False),
    Flag("gusli_max_simultaneous_requests", 32, "GUSLI's requests at once. Default: 32.", "refused", _BACKEND,
         ("GUSLI",), kvbench=False),
    Flag("gusli_config_file", "", "Content of GUSLI's configuration.", "refused", _BACKEND, ("GUSLI",), kvbench=False),
    Flag("gusli_device_byte_offsets", "", "Byte offsets per GUSLI device.", "refused", _BACKEND, ("GUSLI",),
         kvbench=False),
    Flag("gusli_device_security", "", "Security flags per GUSLI device.", "refused", _BACKEND, ("GUSLI",),
         kvbench=False),
    Flag("gusli_try_use_uring", False, "io_uring for GUSLI.", "refused", _BACKEND, ("GUSLI",), kvbench=False),
    Flag("use_device_api", False, "Transfers posted by a GPU kernel.", "refused",
         "the engine posts from the CPU", kvbench=False),
)  # fmt: skip
"""KVBench's flags in its order, then those that only nixlbench has."""
BY_NAME = {flag.name: flag for flag in FLAGS}
RENDEZVOUS = ("runtime_type", "etcd_endpoints", "benchmark_group", "asio_address", "asio_port")
"""Flags that say how the processes of a run meet."""
_LOOPBACK = ("localhost", "127.", "[::1]", "::1")


def native_notes(params: Mapping[str, Any]) -> list[str]:
    """Return what the engine does instead for each flag that it accepts without doing it.

    Args:
        params: All parameters of KVBench's, and nixlbench's others where they were given.
    """
    notes = []
    for flag in FLAGS:
        if flag.changed(params):
            if flag.backends and params["backend"] not in flag.backends:
                notes.append(f"--{flag.name} changes nothing: it is only used with {_listed(flag.backends)}")
            elif flag.native == "noted":
                notes.append(f"--{flag.name} changes nothing: {flag.reason}")
    return notes


def native_refusal(params: Mapping[str, Any]) -> Flag | None:
    """Return the first flag whose value the engine can't follow; None if it can follow all."""
    for flag in FLAGS:
        read = not flag.backends or params["backend"] in flag.backends
        if flag.native == "refused" and read and flag.changed(params):
            return flag
    return None


def stored(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters for a file: secrets are replaced."""
    return {name: "(not stored)" if BY_NAME[name].secret and value else value for name, value in params.items()}


def is_here(flag: Flag, params: Mapping[str, Any]) -> bool:
    """True if the flag is an address, and all its addresses are of this host."""
    if flag.name not in ("etcd_endpoints", "asio_address"):
        return False
    places = [place.strip().rpartition("//")[2] for place in str(params[flag.name]).split(",")]
    return all(place.startswith(_LOOPBACK) for place in places)


def _listed(backends: tuple[str, ...]) -> str:
    if backends in (_FILES, NETWORK):
        return "storage backends" if backends == _FILES else "network backends"
    return " and ".join(backends)
