"""refusing.py ERRNO NUMBER[,NUMBER...] COMMAND...: runs a command for which a seccomp filter, as
container runtimes have them, answers these system calls with an errno."""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
RET_ALLOW, RET_ERRNO = 0x7FFF0000, 0x00050000
LOAD_NUMBER = (0x20, 0, 0, 0)


def instruction(code, jump_true, jump_false, value):
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def filter_of(errno, numbers):
    program = [instruction(*LOAD_NUMBER)]
    for number in numbers:
        program.append(instruction(0x15, 0, 1, number))
        program.append(instruction(0x06, 0, 0, RET_ERRNO | errno))
    return program + [instruction(0x06, 0, 0, RET_ALLOW)]


def main():
    errno, numbers = int(sys.argv[1]), [int(number) for number in sys.argv[2].split(",")]
    program = filter_of(errno, numbers)
    code = ctypes.create_string_buffer(b"".join(program))
    described = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(described), 0, 0
    ):
        sys.exit(f"no filter: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[3], sys.argv[3:])


main()
