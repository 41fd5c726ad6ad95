"""Signals that stop a run: noted at once, obeyed by all processes together at the end of an optimizer step.

SIGINT    Ctrl-C                                      exit status 130; a second one stops at once
SIGTERM   the scheduler ends the job, or torchrun     exit status 143
SIGUSR1   the scheduler says that time runs out       exit status 75: start the same command again
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 75}


class Stopped(SystemExit):
    """A signal stopped the run after a whole step. Its code is the exit status of the process."""

    def __init__(self, number: int):
        super().__init__(STATUS[signal.Signals(number)])
        self.name = signal.Signals(number).name


class StopSignals:
    """Notes the signals of ``STATUS`` while it is installed. ``received`` is the number of the last one, or 0."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[signal.Signals, object] = {}

    def remember(self) -> None:
        """Remember the handlers of this process. Called before Lightning sets its own, which know its trainer: put back
        after training, they would take signals for it, and keep it and its model in memory."""
        self._before = {number: signal.getsignal(number) for number in STATUS}

    def install(self) -> None:
        """Replace the handlers of this process, Lightning's included. Its handler of SIGTERM broadcasts from within the
        handler, which waits for ever where processes are interrupted at different places."""
        for number in self._before if threading.current_thread() is threading.main_thread() else ():
            signal.signal(number, self._note)

    def uninstall(self) -> None:
        """Put the remembered handlers back."""
        for number, handler in self._before.items() if threading.current_thread() is threading.main_thread() else ():
            signal.signal(number, handler or signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
