"""Ctrl-C and SIGTERM: the first asks the training loop to finish its step and save, the second quits."""

import os
import signal

from tinygpt.parallel.ranks import ALONE, Ranks

HINT = b"\nfinishing this step, then saving; a second signal quits at once, without saving\n"


class Interrupt:
    """`with Interrupt(ranks) as interrupt:` remembers a signal; `interrupt.on_any_rank()` asks for it.

    A signal that the parent process had ignored stays ignored.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self.ranks = ranks
        self.received = 0  # the number of the signal that this process got; 0: none
        self.agreed = 0  # the same for all ranks, when they asked last

    def __enter__(self) -> "Interrupt":
        self.before = {}  # the handlers to put back
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self.before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def on_any_rank(self) -> bool:
        """Whether any rank has got a signal so far. An all-reduce: all ranks must call it together."""
        self.agreed = self.ranks.all_reduce_max(self.received)
        return self.agreed > 0

    @property
    def exit_code(self) -> int:
        """What a shell reports for a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.agreed

    def _receive(self, number, frame):
        if self.received:
            os._exit(128 + number)
        self.received = number
        if self.ranks.rank == 0:
            os.write(2, HINT)  # not print(), which may be in the middle of printing
