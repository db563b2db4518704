"""Ctrl-C and SIGTERM: the first asks the training loop to finish its step and save, the second quits at once."""

import os
import signal

from tinygpt.parallel.ranks import ALONE

HINT = b"\nfinishing this step, then saving; once more quits at once and loses what came after the last checkpoint\n"


class Interrupt:
    """`with Interrupt() as interrupt:` true from the first signal on. A signal that the parent had ignored
    stays ignored.

    Of several ranks, all must ask at the same time: it becomes true for all when one of them has got a
    signal.
    """

    def __init__(self, ranks=ALONE):
        self.ranks, self.received, self.agreed = ranks, 0, 0  # signal numbers

    def __enter__(self):
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
        self.before = {number: signal.signal(number, self._received) for number in numbers}
        return self

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __bool__(self):
        self.agreed = self.ranks.largest(self.received)
        return self.agreed > 0

    @property
    def exit_code(self):
        """What a shell reports for a process that ended by the signal: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.agreed

    def _received(self, number, frame):
        if self.received:
            os._exit(128 + number)
        self.received = number
        if self.ranks.rank == 0:
            os.write(2, HINT)  # not print(), which may be in the middle of printing
