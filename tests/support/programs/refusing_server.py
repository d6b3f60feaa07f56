"""Runs a command in a process for which the kernel refuses some system calls, as a container's filter would.

`python refusing.py NUMBER[,NUMBER…] COMMAND…`
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 38, 22, 2
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # with EPERM

numbers = [int(number) for number in sys.argv[1].split(",")]
program = struct.pack("HBBI", LOAD, 0, 0, 0)
for index, number in enumerate(numbers):
    program += struct.pack("HBBI", EQUAL, len(numbers) - index, 0, number)
program += struct.pack("HBBI", RETURN, 0, 0, ALLOW) + struct.pack("HBBI", RETURN, 0, 0, REFUSE)
buffer = ctypes.create_string_buffer(program)
fprog = struct.pack("HxxxxxxQ", len(numbers) + 3, ctypes.addressof(buffer))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, FILTER, ctypes.create_string_buffer(fprog))):
    if libc.prctl(*arguments) != 0:
        sys.exit(f"the kernel takes no filter: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
