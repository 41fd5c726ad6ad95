"""A sandbox for code that a model wrote: ``run_code`` gives back what the code printed and the pictures it made.

One process, the template, imports numpy, Pillow and matplotlib once. Each code runs in a fork of it that first gives up
its rights. The protection is in the kernel and does not read the source:

- Files: Landlock opens the folders of Python and its packages, of shared libraries and of fonts for reading, and one
  empty folder for writing, which is removed afterwards. Only plain files can be made there, and none removed.
- Everything else: seccomp allows a list of system calls. It holds no socket, no new process, thread or program, no
  signal to others, no ptrace, no change of limits, owners or modes. No child can be left behind, as none can be made.
- Limits: wall time, processor time, address space, open files, the size of the folder, output, pictures.
- The environment is empty, and no file descriptor but the outputs is open.

Results come through a file of their own as lines of text and raw pixels. Nothing is unpickled or decoded, and what the
code writes there can only change its own result.

It is no virtual machine. The code runs on the same kernel, so a hole in an allowed system call is a way out. Landlock
hides contents and lists of folders, not whether a path that the code can guess exists, nor its size. Codes run beside
other work of the machine and slow it. Landlock needs Linux 5.13 or later. It works as root and as an ordinary user, and
needs no namespaces. Elsewhere ``run_code`` refuses.
"""

from .run import Limits, Ran, is_available, run_code

__all__ = ["Limits", "Ran", "is_available", "run_code"]
