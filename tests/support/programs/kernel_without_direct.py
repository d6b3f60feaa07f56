"""Runs a command in a process for which the kernel refuses O_DIRECT, as some filesystems do: `openat` gives EINVAL.

`python a_kernel_without_direct.py COMMAND…`
"""

import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EINVAL
OPENAT = {"x86_64": 257, "aarch64": 56}[platform.machine()]
NUMBER, FLAGS = 0, 32  # offsets in seccomp_data: the call's number, the low half of its third argument

program = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (LOAD, 0, 0, NUMBER),
        (EQUAL, 0, 3, OPENAT),
        (LOAD, 0, 0, FLAGS),
        (ANY_BIT, 0, 1, os.O_DIRECT),
        (RETURN, 0, 0, REFUSE),
        (RETURN, 0, 0, ALLOW),
    )
)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, ctypes.create_string_buffer(fprog))):
    if libc.prctl(*arguments) != 0:
        sys.exit(f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[1], sys.argv[1:])
