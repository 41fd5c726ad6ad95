"""Confines the process that calls ``confine``, for good: limits, Landlock for files, seccomp for all else.

The interface of Landlock is that of Linux 5.13 (https://docs.kernel.org/userspace-api/landlock.html). What later
versions add, such as truncation, connections and signals, is not needed: seccomp refuses those calls.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import socket
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
LIBSECCOMP = "libseccomp.so.2"
LANDLOCK_CREATE_RULESET, LANDLOCK_ADD_RULE, LANDLOCK_RESTRICT_SELF = 444, 445, 446  # the same on every architecture
WRITE_FILE, READ_FILE, READ_DIR, MAKE_REG = 1 << 1, 1 << 2, 1 << 3, 1 << 8
ALL_RIGHTS = (1 << 13) - 1  # of the first version of Landlock: executing, reading, writing, removing, making
RULE_PATH_BENEATH = 1
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
SIGKILL = 9
#: what may be read besides the folders of Python: shared libraries, where they lie, fonts, time zones
SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/fonts", "/usr/local/share/fonts")
SYSTEM += ("/usr/share/zoneinfo",)

REFUSE, ALLOW = 0x0005_0000 | errno.EPERM, 0x7FFF_0000  # SCMP_ACT_ERRNO(EPERM), SCMP_ACT_ALLOW
EQUAL, MASKED_EQUAL = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
TMPFILE = 0o20000000  # __O_TMPFILE: a file without a name, which the size of the folder would not show
#: system calls with any arguments; names that an architecture does not have are passed over
CALLS = """
    read readv pread64 write writev pwrite64 lseek close close_range dup dup2 dup3 ftruncate fsync fdatasync
    stat lstat fstat newfstatat statx access faccessat faccessat2 readlink readlinkat getcwd getdents64 statfs fstatfs
    mmap munmap mremap mprotect madvise brk poll ppoll select pselect6 futex sched_yield sched_getaffinity getcpu
    rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall rseq set_robust_list
    clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage getrlimit uname sysinfo
    getpid gettid getppid getuid geteuid getgid getegid getrandom exit exit_group
""".split()


class _Condition(ctypes.Structure):
    """``struct scmp_arg_cmp``: a call's argument ``number`` is compared with ``first`` and ``second``."""

    _fields_ = [
        ("number", ctypes.c_uint),
        ("operation", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    ]


class _Ruleset(ctypes.Structure):
    """The first field of ``struct landlock_ruleset_attr``."""

    _fields_ = [("handled", ctypes.c_uint64)]


class _PathRule(ctypes.Structure):
    """``struct landlock_path_beneath_attr``."""

    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def find_missing() -> str | None:
    """What this machine lacks for ``confine``, in words; None where it lacks nothing."""
    if LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) < 1:
        return f"the kernel has no Landlock, so files cannot be cut off ({os.strerror(ctypes.get_errno())})"
    try:
        ctypes.CDLL(LIBSECCOMP)
    except OSError as error:
        return f"the library libseccomp is missing, so the network cannot be cut off ({error})"
    return None


def confine(scratch: Path, file_bytes: int, memory_bytes: int, cpu_seconds: int) -> None:
    """Take from this process, which must have one thread, whatever a code does not need, and check that it is gone.

    Args:
        scratch: the only folder in which files can be written.

    Raises:
        OSError: the kernel refused a step, or a check found something open. The process must not run the code then.
    """
    _limit(file_bytes, memory_bytes, cpu_seconds)
    # Settings of the process: it dies with the template, and gains no rights from then on.
    _check(LIBC.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
    _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    seccomp = _seccomp()  # a library is opened before files are cut off
    _restrict_files(scratch)
    _restrict_calls(seccomp)
    _expect_refusal(socket.socket, "a socket")
    _expect_refusal(lambda: os.open("/", os.O_RDONLY), "the folder /")
    _expect_refusal(lambda: os.open(__file__, os.O_RDONLY), "the project")


def _limit(file_bytes: int, memory_bytes: int, cpu_seconds: int) -> None:
    for name, value in (
        (resource.RLIMIT_CPU, cpu_seconds),  # the hard limit sends SIGKILL, which no code can ignore
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        most = resource.getrlimit(name)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(name, (value, value))


def _readable() -> Iterable[Path]:
    paths = sysconfig.get_paths()
    python = [paths["stdlib"], paths["platstdlib"], os.path.join(sys.base_prefix, "lib"), *sys.path]
    return (path for path in map(Path, (*python, *SYSTEM)) if path.is_absolute() and path.exists())


def _restrict_files(scratch: Path) -> None:
    handled = _Ruleset(ALL_RIGHTS)
    size = ctypes.c_size_t(ctypes.sizeof(handled))
    ruleset = _check(LIBC.syscall(LANDLOCK_CREATE_RULESET, ctypes.byref(handled), size, ctypes.c_uint32(0)))
    rules = {path: READ_FILE | (READ_DIR if path.is_dir() else 0) for path in _readable()}
    rules[scratch] = READ_FILE | READ_DIR | WRITE_FILE | MAKE_REG
    for path, rights in rules.items():
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = _PathRule(rights, parent)
        _check(LIBC.syscall(LANDLOCK_ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
        os.close(parent)
    _check(LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, ctypes.c_uint32(0)))
    os.close(ruleset)


def _seccomp() -> ctypes.CDLL:
    library = ctypes.CDLL(LIBSECCOMP)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_load.argtypes = [ctypes.c_void_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Condition),
    ]
    return library


def _restrict_calls(library: ctypes.CDLL) -> None:
    filters = library.seccomp_init(REFUSE)
    if not filters:
        raise OSError(errno.ENOMEM, "seccomp_init")
    conditions = [(name, None) for name in CALLS]
    conditions.append(("tgkill", _Condition(0, EQUAL, os.getpid())))  # a process may abort itself
    conditions.append(("prlimit64", _Condition(2, EQUAL, 0)))  # limits may be read, not set: root could raise them
    for command in (fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC):
        conditions.append(("fcntl", _Condition(1, EQUAL, command)))  # F_SETOWN would send signals to others
    # Files are opened by name, and emptied only when opened for writing, which Landlock checks.
    conditions.append(("openat", _Condition(2, MASKED_EQUAL, TMPFILE | os.O_TRUNC, 0)))
    for way in (os.O_WRONLY, os.O_RDWR):
        mask = TMPFILE | os.O_TRUNC | os.O_ACCMODE
        conditions.append(("openat", _Condition(2, MASKED_EQUAL, mask, os.O_TRUNC | way)))
    for name, condition in conditions:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            given = (1, ctypes.byref(condition)) if condition else (0, None)
            _check(library.seccomp_rule_add_array(filters, ALLOW, number, *given), is_negative_errno=True)
    _check(library.seccomp_load(filters), is_negative_errno=True)


def _check(result: int, is_negative_errno: bool = False) -> int:
    if result < 0:
        number = -result if is_negative_errno else ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _expect_refusal(action, name: str) -> None:
    try:
        action()
    except PermissionError:
        return
    raise OSError(errno.EPERM, f"{name} is still open to the code")
