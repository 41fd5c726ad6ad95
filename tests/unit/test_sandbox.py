"""The sandbox for code of a model: each way out is tried, and must fail."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from eval.sandbox import Limits, confinement, is_available, run, run_code

ROOT = Path(__file__).parents[2]
PARENT = os.getpid()
SECRET = "a-secret-of-the-environment"
#: calls ``name`` of the C library, which sets errno
CALL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *given):
    if getattr(libc, name)(*given) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""
# What follows is harmless where the sandbox fails: signals are 0, which only asks, and the file to be emptied or removed
# is CACHED, a compiled module, which Python writes again.

#: how a refusal is named: by most calls, for a thread, by setrlimit, for a socket that is none
REFUSED = (
    "PermissionError",
    "RuntimeError: can't start new thread",
    "ValueError: not allowed to raise",
    "OSError: [Errno 88]",
)

READS = {
    "a file of the system": "open('/etc/passwd').read()",
    "a file of the project": f"open({str(ROOT / 'pyproject.toml')!r}).read()",
    "a list of the project": f"os.listdir({str(ROOT)!r})",
    "the source of the sandbox": f"open({str(ROOT / 'eval/sandbox/worker.py')!r}).read()",
    "folders of users": "os.listdir('/home')",
    "the root": "os.listdir('/')",
    "temporary files of others": "os.listdir('../..')",
    "its request": "open('../request.json').read()",
    "its own start environment": "open('/proc/self/environ').read()",
    "the environment of its caller": f"open('/proc/{PARENT}/environ').read()",
    "the memory of the template": "open(f'/proc/{os.getppid()}/mem').read(1)",
    "a descriptor of the template": "os.listdir(f'/proc/{os.getppid()}/fd')",
    "a device": "open('/dev/urandom', 'rb').read(1)",
    "shared memory": "os.listdir('/dev/shm')",
}
WRITES = {
    "beside the scratch folder": "open('../written', 'w')",
    "in the temporary folder": "open('/tmp/written-by-a-code', 'w')",
    "in Python's library": "open(os.path.dirname(os.__file__) + '/written.py', 'w')",
    "a module of Python": "open(os.__file__, 'r+')",
    "emptying a module by its name": "os.truncate(CACHED, 0)",
    "emptying a module while reading it": "os.open(CACHED, os.O_RDONLY | os.O_TRUNC)",
    "removing a module": "os.remove(CACHED)",
    "mode of a file": "open('a', 'w'); os.chmod('a', 0o4777)",
    "owner of a file": "open('a', 'w'); os.chown('a', 1, 1)",
    "a link out of the scratch folder": "os.symlink('/etc/passwd', 'link'); print(open('link').read())",
    "a hard link": "os.link(os.__file__, 'link')",
    "a folder": "os.mkdir('folder')",
    "a pipe with a name": "os.mkfifo('pipe')",
    "a device node": "os.mknod('node', 0o20666, os.makedev(1, 1))",
    "moving a file out": "open('a', 'w'); os.rename('a', '../a')",
    "removing a file, which would hide how much was written": "open('a', 'w'); os.remove('a')",
    "a file without a name": "os.open('.', os.O_TMPFILE | os.O_RDWR)",
    "memory as a file": "os.memfd_create('a')",
}
NETWORK = {
    "TCP": "import socket; socket.create_connection(('127.0.0.1', 80))",
    "UDP": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "an abstract unix socket": "import socket; socket.socket(socket.AF_UNIX).connect('\\0name')",
    "netlink": "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "the socket of the template": "import socket; socket.socket(fileno=0).send(b'x')",
    "io_uring": CALL + "call('syscall', 425, 1, 0)",
}
PROCESSES = {
    "fork": "os.fork()",
    "fork by the C library": CALL + "call('fork')",
    "a thread": "import threading; threading.Thread(target=print).start()",
    "a command": "import subprocess; subprocess.run(['/bin/true'])",
    "a shell": "if os.system('true') != 0: raise PermissionError",
    "execv": "os.execv('/bin/true', ['true'])",
    "posix_spawn": "os.posix_spawn('/bin/true', ['true'], {})",
    "a signal to its caller": f"os.kill({PARENT}, 0)",
    "a signal to the template": "os.kill(os.getppid(), 0)",
    "a signal to the group of its caller": f"os.killpg({os.getpgrp()}, 0)",
    "a signal to all": "os.kill(-1, 0)",
    "a signal to a thread": CALL + f"call('tgkill', {PARENT}, {PARENT}, 0)",
    "a signal by the owner of a folder": f"import fcntl; fcntl.fcntl(os.open('.', 0), fcntl.F_SETOWN, {PARENT})",
    "a signal by a change in a folder": "import fcntl; fcntl.fcntl(os.open('.', 0), fcntl.F_NOTIFY, 2)",
    "ptrace": CALL + f"call('ptrace', 16, {PARENT}, 0, 0)",
    "memory of its caller": CALL + f"call('process_vm_readv', {PARENT}, 0, 0, 0, 0, 0)",
    "its limits": "import resource as r; r.setrlimit(r.RLIMIT_CPU, r.getrlimit(r.RLIMIT_CPU))",  # root could raise them
    "a life longer than the template's": CALL + "call('prctl', 1, 0, 0, 0, 0)",
    "a session": "os.setsid()",
    "another user": "os.setuid(0)",
    "a name space": CALL + "call('unshare', 0x10000000)",
    "another root": "os.chroot('.')",
    "a mount": CALL + "call('mount', b'none', b'.', b'tmpfs', 0, 0)",
    "memory that is shared": CALL + "call('shmget', 1, 4096, 0o1777)",
    "a message queue": CALL + "call('msgget', 1, 0o1777)",
    "priority": "os.nice(-5)",
}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv("SECRET", SECRET)


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, id=name) for table in (READS, WRITES, NETWORK, PROCESSES) for name, code in table.items()],
)
def test_no_way_out(sandbox, code):
    ran = sandbox(f"import json, os\nCACHED = json.__cached__\n{code}\nprint('it worked')")
    assert "it worked" not in ran.text
    assert ran.error.startswith(REFUSED), ran.error


def test_environment_and_descriptors_are_empty(sandbox):
    descriptor = os.open(ROOT / "pyproject.toml", os.O_RDONLY)
    os.set_inheritable(descriptor, True)
    code = """
import os
print(dict(os.environ))
for number in range(64):
    try:
        os.fstat(number)
        print(number)
    except OSError:
        pass
"""
    assert sandbox(code).text.split("\n") == ["{}", "0", "1", "2", "3", ""]  # 3 takes the results
    os.close(descriptor)


def test_secret_is_not_in_memory(sandbox):
    """The template gets no environment, so its forks have none of it in their memory, which a code can read."""
    code = """
import ctypes
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
print([environ[i] for i in range(20) if environ and environ[0]])
import sys
print(sys.argv, sys.orig_argv)
"""
    assert SECRET not in sandbox(code).text


@pytest.mark.parametrize(
    ("code", "limits", "error"),
    [
        ("while True: pass", Limits(seconds=0.3), "the code was ended after 0.3 seconds"),
        ("import time; time.sleep(60)", Limits(seconds=0.3), "the code was ended after 0.3 seconds"),
        (
            "import signal\nfor number in (1, 2, 15, 24): signal.signal(number, signal.SIG_IGN)\nwhile True: pass",
            Limits(seconds=0.3),
            "the code was ended after 0.3 seconds",
        ),
        (
            "import signal; signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
            Limits(cpu_seconds=1),
            "the code was ended after 1 seconds of processor time",
        ),
        ("x = bytearray(2**30)", Limits(), "MemoryError (line 1: x = bytearray(2**30))"),
        ("x = []\nwhile True: x.append(bytearray(10**7))", Limits(), "MemoryError (line 2: "),
        ("import numpy as np; np.ones(2**28)", Limits(), "MemoryError: Unable to allocate 2.00 GiB"),
        ("open('a', 'wb').write(bytes(65 * 2**20))", Limits(), "OSError: [Errno 27] File too large"),
        ("while True: print('x' * 10**5)", Limits(scratch_mb=1, max_pictures=1, max_pixels=1), "OSError: [Errno 27]"),
        (
            "for i in range(20):\n  open(f'{i}', 'wb').write(bytes(2**20))\nwhile True: pass",
            Limits(scratch_mb=10),
            "the code was ended: it wrote more than 10 MiB or 256 files",
        ),
        (
            "for i in range(1000):\n  open(f'{i}', 'w').close()\nwhile True: pass",
            Limits(),
            "the code was ended: it wrote more than 64 MiB or 256 files",
        ),
        ("x = [open(f'{i}', 'w') for i in range(100)]", Limits(), "OSError: [Errno 24] Too many open files"),
    ],
)
def test_limits_hold(sandbox, code, limits, error):
    start = time.monotonic()
    ran = sandbox(code, limits=limits)
    assert ran.error.startswith(error) and ran.text.endswith(f"Error: {ran.error}")
    assert time.monotonic() - start < 5
    assert sandbox("print(1)").text == "1\n"


def test_default_limits_are_those_of_the_specification():
    assert Limits() == Limits(
        seconds=10, cpu_seconds=5, memory_mb=1024, output_bytes=2**20, max_pixels=1024**2, scratch_mb=64, max_pictures=4
    )
    with pytest.raises(ValueError, match=r"Limits\.seconds is 0; it must be positive"):
        Limits(seconds=0)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("LIBSECCOMP = 'libnothing.so'", "the library libseccomp is missing, so the network cannot be cut off"),
        ("CALLS.append('socket')", "a socket is still open to the code"),
        ("SYSTEM += ('/',)", "the folder / is still open to the code"),
    ],
)
def test_code_that_cannot_be_confined_is_not_run(sandbox, damage, reason, monkeypatch, tmp_path):
    start = run.START.replace("from eval", f"import eval.sandbox.confinement as c; c.{damage}; from eval")
    monkeypatch.setattr(run, "START", start)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run._template.cache_clear()
    try:
        assert reason in is_available()
        with pytest.raises(RuntimeError, match="code cannot be confined on this machine: "):
            sandbox(f"open({str(tmp_path / 'ran')!r}, 'w')")
        assert list(tmp_path.iterdir()) == []
    finally:
        run._template.cache_clear()


def test_output_is_cut(sandbox):
    ran = sandbox("print('x' * 2**21)")
    assert ran.text == "x" * 2**20 + f"\n[the output was cut at {2**20} bytes]"
    assert sandbox("print('é' * 10)", limits=Limits(output_bytes=5)).text == "éé�\n[the output was cut at 5 bytes]"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1\n2 / 0\n3", "ZeroDivisionError: division by zero (line 2: 2 / 0)"),
        ("def f():\n    return [][1]\nf()", "IndexError: list index out of range (line 2: return [][1])"),
        ("import math\nprint(math.sqr(2))", "AttributeError: module 'math' has no attribute 'sqr'"),
        ("x = (1,\ny = 2", "SyntaxError: '(' was never closed (line 1: x = (1,)"),
        ("import torchh", "ModuleNotFoundError: No module named 'torchh' (line 1: import torchh)"),
        ("print(1)\0", "null bytes"),
        ("print('\ud800')", "UnicodeEncodeError: "),
        ("raise ValueError('two\\nlines')", "ValueError: two lines (line 1: "),
        ("class E(Exception):\n  def __str__(self): 1/0\nraise E", "E (line 3: raise E)"),
        ("raise ValueError('x' * 10**6)", "ValueError: xxx"),
        ("input()", "EOFError"),
        ("import sys; sys.exit('no')", "SystemExit: no (line 1: "),
        ("import os; os._exit(0)", "the code ended its interpreter"),
        ("import os; os.abort()", "the code was ended by SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "the code was ended by SIGSEGV"),
        ("def f(): f()\nf()", "RecursionError: maximum recursion depth exceeded (line 1: "),
        ("x = ()\nfor _ in range(10**6): x = (x,)\nhash(x)", "the code was ended by SIGSEGV"),  # recursion in C
        ("(" * 10**5, ""),
    ],
)
def test_failure_is_one_line(sandbox, code, error):
    ran = sandbox(code, limits=Limits(seconds=3, memory_mb=300))
    assert error in ran.error and "\n" not in ran.error and len(ran.error) <= 1000
    assert ran.text == f"Error: {ran.error}"
    assert sandbox("print(1)").text == "1\n"


def test_exit_is_no_failure(sandbox):
    ran = sandbox("import sys; print(1); sys.exit()")
    assert (ran.text, ran.error, ran.pictures) == ("1\n", None, [])


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("b'picture 100000 100000 AAAA\\n'", None),  # more pixels than there are
        ("b'picture 1 1 AAAAAA==\\n' * 3", None),
        ("b'picture -1 -1 AAAAAA==\\npicture 1 1\\npicture ' + b'9' * 10**5 + b' 1 AAAA\\n'", None),
        ("b'error ' + b'[' * 10**5 + b'\\n'", None),  # JSON that is too deep
        ("b'error \"mine\"\\n'", "mine"),
        ("bytes(range(256)) * 1000", "the code ended its interpreter"),
        ("b'\\n' * 2**24", "the code ended its interpreter"),  # more lines than results have
        ("b'end\\n'", None),
    ],
)
def test_forged_result_changes_only_its_own(sandbox, line, error):
    """Results are lines of a file that the code can write to, too."""
    ran = sandbox(f"import os\nos.write(3, {line} + b'\\n')")
    assert ran.error == error
    assert all(picture.size == (1, 1) for picture in ran.pictures) and len(ran.pictures) in (0, 3)
    assert sandbox("import os; os.ftruncate(3, 0); os.close(3)").error == "the code ended its interpreter"


def test_printed_results_are_text(sandbox):
    text = 'picture 1 1 AAAAAA==\nerror "no"\nend\n{"missing": "x"}'
    ran = sandbox(f"print({text!r})")
    assert (ran.text, ran.pictures, ran.error) == (text + "\n", [], None)


def test_nothing_is_left(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for code in ("open('a', 'w').write('x')", "while True: open('a', 'w').write('x')", "import os; os.abort()"):
        sandbox(code, limits=Limits(seconds=0.2))
    assert list(tmp_path.iterdir()) == []
    assert sandbox("import os; print(os.listdir())").text == "[]\n"  # and the next code finds nothing of the last


def test_code_dies_with_its_caller(sandbox, tmp_path):
    code = "import os, time; print(os.getpid()); time.sleep(60)"
    caller = f"from eval.sandbox import Limits, run_code; run_code({code!r}, limits=Limits(seconds=60))"
    packages = os.pathsep.join([str(ROOT), *sys.path])
    env = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": packages}
    with subprocess.Popen([sys.executable, "-c", caller], env=env) as process:
        deadline = time.monotonic() + 30
        while not (printed := "".join(path.read_text() for path in tmp_path.glob("*/output"))).endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(int(printed), 0)  # it is there
        process.send_signal(signal.SIGKILL)
    while Path(f"/proc/{int(printed)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_template_that_was_ended_is_started_again(sandbox):
    os.kill(int(sandbox("import os; print(os.getppid())").text), signal.SIGKILL)
    with pytest.raises(RuntimeError, match="the template process of the sandbox is gone"):
        for _ in range(100):  # until the signal has arrived
            sandbox("print(1)")
    assert sandbox("print(1)").text == "1\n"


def test_threads_get_their_own_results(sandbox):
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(sandbox, [f"print({number})" for number in range(12)]))
    assert [ran.text for ran in runs] == [f"{number}\n" for number in range(12)]


def test_other_platforms_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert is_available() == "code can only be confined on Linux, with Landlock and seccomp; this is darwin"
    with pytest.raises(RuntimeError, match="this is darwin"):
        run_code("print(1)")


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(confinement, "LIBSECCOMP", "libnothing.so")
    assert "the library libseccomp is missing, so the network cannot be cut off" in confinement.find_missing()
    monkeypatch.setattr(confinement, "LANDLOCK_CREATE_RULESET", 100_000)  # no system call
    assert "the kernel has no Landlock, so files cannot be cut off" in confinement.find_missing()
