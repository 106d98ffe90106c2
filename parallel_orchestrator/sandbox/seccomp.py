"""The system calls that a sandboxed command may not make, as a seccomp filter for `bwrap --seccomp`.

It holds for commands of any user on x86_64 and aarch64; on other machines there is no filter. Calls that could reach
another process, the kernel or the world outside fail with EPERM: ptrace, keyrings, bpf, perf, userfaultfd, io_uring,
mounts, new namespaces, modules, kexec, file handles, and sockets of other families than Unix, IPv4, IPv6 and netlink
(vsock reaches a virtual machine's host from every network namespace). So does shared memory of System V: it belongs to
no process, so the resource monitor could not count it. fallocate fails as unsupported, so that a command takes disk
space no quicker than it writes. clone3 fails as unknown, because a filter cannot see its flags. Libraries then use
posix_fallocate's writes and clone.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # opcodes of classic BPF
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little-endian
_ALLOW, _FAIL_WITH = 0x7FFF0000, 0x00050000

_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_FAMILIES = (1, 2, 10, 16)

# Name: numbers on x86_64 and aarch64. From 424 on they are the same everywhere.
# fmt: off
_FORBIDDEN = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "userfaultfd": (323, 282), "perf_event_open": (298, 241), "open_by_handle_at": (304, 265),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "pidfd_getfd": (438, 438),
    "unshare": (272, 97), "setns": (308, 268),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "shmget": (29, 194), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
}
# fmt: on


@dataclass(frozen=True)
class _Machine:
    audit: int
    column: int
    clone: int
    clone3: int
    fallocate: int
    socket: int


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, clone=56, clone3=435, fallocate=285, socket=41),
    "aarch64": _Machine(0xC00000B7, 1, clone=220, clone3=435, fallocate=47, socket=198),
}


def program(machine: str = platform.machine()) -> bytes | None:
    """Return the filter in the kernel's format; None for a machine whose call numbers are not listed here."""
    about = _MACHINES.get(machine)
    if about is None:
        return None
    refused = _FAIL_WITH | errno.EPERM
    # Calls of another architecture, and of x86_64's x32 variant, have other numbers: all of them fail.
    code = [_do(_LOAD, _ARCHITECTURE), _do(_EQUAL, about.audit, 1, 0), _do(_RETURN, refused), _do(_LOAD, _NUMBER)]
    code += [_do(_AT_LEAST, 0x40000000, 0, 1), _do(_RETURN, refused)]
    for numbers in _FORBIDDEN.values():
        code += [_do(_EQUAL, numbers[about.column], 0, 1), _do(_RETURN, refused)]
    for number, answer in ((about.clone3, errno.ENOSYS), (about.fallocate, errno.EOPNOTSUPP)):
        code += [_do(_EQUAL, number, 0, 1), _do(_RETURN, _FAIL_WITH | answer)]
    code += [_do(_EQUAL, about.clone, 0, 4), _do(_LOAD, _FIRST_ARGUMENT), _do(_ANY_BIT, _NEW_NAMESPACES, 0, 1)]
    code += [_do(_RETURN, refused), _do(_RETURN, _ALLOW)]
    code += [_do(_EQUAL, about.socket, 0, len(_FAMILIES) + 2), _do(_LOAD, _FIRST_ARGUMENT)]
    code += [_do(_EQUAL, family, len(_FAMILIES) - place, 0) for place, family in enumerate(_FAMILIES)]
    return b"".join([*code, _do(_RETURN, refused), _do(_RETURN, _ALLOW)])


def _do(opcode: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction; the last two parameters are how many instructions to skip."""
    return struct.pack("=HBBI", opcode, if_true, if_false, value)
