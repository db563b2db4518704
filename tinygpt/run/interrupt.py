"""What makes a training finish its step, save and stop.

Ctrl-C, SIGTERM, a terminal that is closed, and an output that nobody reads any more. A second signal quits.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from tinygpt.parallel.ranks import ALONE, Ranks

SIGNALS = [signal.SIGINT, signal.SIGTERM]
if hasattr(signal, "SIGHUP"):  # not on Windows
    SIGNALS.append(signal.SIGHUP)
BROKEN_PIPE = 13  # the number of SIGPIPE, which stands for any output that is lost
HINT = b"\nfinishing this step, then saving; a second signal quits at once, without saving\n"


class Interrupt:
    """`with Interrupt(ranks) as interrupt:` remembers a signal; `interrupt.on_any_rank()` asks for it.

    A signal that the parent process had ignored stays ignored.
    """

    active: Interrupt | None = None  # of the training that runs

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.received = 0  # the number of the signal that this process got; 0: none
        self.agreed = 0  # the same for all ranks, when they asked last
        self.error: OSError | None = None  # of an output that can no longer be written

    def __enter__(self) -> Interrupt:
        Interrupt.active = self
        self.before = {}  # the handlers to put back
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception) -> None:
        Interrupt.active = None
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_any_rank(self) -> bool:
        """Whether any rank has got a signal so far. An all-reduce: all ranks must call it together."""
        self.agreed = self.ranks.all_reduce_max(self.received)
        return self.agreed > 0

    def exit(self) -> NoReturn:
        """End as a shell reports a process that the signal ended: with 130 for Ctrl-C, 143 for SIGTERM.

        If the output was lost, the error says why.
        """
        if self.error:
            raise self.error
        sys.exit(128 + self.agreed)

    def _receive(self, number, frame):
        if self.received:
            os._exit(128 + number)
        self.received = number
        if self.ranks.rank == 0:
            os.write(2, HINT)  # not print(), which may be in the middle of printing


def output_lost(error: OSError) -> None:
    """Let the training that runs save and stop, as what it prints is lost. Raise the error if none runs."""
    if Interrupt.active is None:
        raise error
    Interrupt.active.error = error
    Interrupt.active.received = Interrupt.active.received or BROKEN_PIPE
