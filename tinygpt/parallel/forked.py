"""Processes that are forked from this one, work on the same arrays, and wait for calls.

Threads could do the same work. But NumPy gives Python's lock back in every operation, and threads that want
it again at the same time put each other to sleep: up to a quarter of the time of a small model's step.
Processes have a lock each. A fork begins with all objects of its parent, and takes memory only for what
either of them changes.
"""

import contextlib
import gc
import mmap
import os
import signal
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from tinygpt.config import UserError


def can_fork() -> bool:
    """Whether forks can compute here. On macOS, NumPy's matrix products crash in a fork."""
    return sys.platform == "linux"


def shared_zeros(size: int, dtype: Any) -> np.ndarray:
    """A flat array of zeros that a process shares with its forks: what one writes, all see."""
    try:
        memory = mmap.mmap(-1, max(1, size) * np.dtype(dtype).itemsize)
    except OSError as error:
        raise MemoryError(f"{size:,} shared numbers: {error.strerror}") from None
    return np.frombuffer(memory, dtype, size)


def is_shared(array: np.ndarray) -> bool:
    """Whether an array is one that shared_zeros made."""
    return isinstance(getattr(array.base, "obj", array.base), mmap.mmap)


class Forks:
    """`count` forks of this process that compute function(number, *call), with number from 1 to count.

    They end when the Forks is closed or forgotten, or when this process ends, however it does. Calls and
    results are pickled, so large arrays should be shared ones. UserError if there can be no more processes.
    """

    def __init__(self, function: Callable, count: int):
        self.connections, self.processes = [], []
        self.close = weakref.finalize(self, _close, self.connections, self.processes)
        for number in range(1, count + 1):
            self._fork(function, number)

    def __call__(self, here: Callable, *call: Any) -> list:
        """[here(), function(1, *call), ... function(count, *call)], computed side by side.

        An exception of any of them is raised once all have finished, so that the next call gets its own
        answers.
        """
        try:
            for connection in self.connections:
                with contextlib.suppress(ConnectionError):  # a fork was killed: _receive says so
                    connection.send(call)
            answers = [_answer(here)] + [self._receive(i) for i in range(len(self.connections))]
        except BaseException:  # Ctrl-C, say: answers are left that belong to no later call
            self.close()
            raise
        for _, error in answers:
            if error is not None:
                raise error
        return [result for result, _ in answers]

    def private_memory(self) -> int:
        """Bytes that the forks hold beside what they share with this process; 0 where Linux does not say."""
        return sum(map(_private_memory, self.processes))

    def _fork(self, function, number):
        from multiprocessing import Pipe  # here, because it takes 10 ms

        ours, theirs = Pipe()
        # Signals concern the process that saves and stops: in a fork they stay blocked.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
        try:
            with warnings.catch_warnings():
                # From 3.12 on, Python warns of other threads: a fork may wait for their locks for ever. Ours
                # takes none of them.
                warnings.simplefilter("ignore", DeprecationWarning)
                process = os.fork()
            if process == 0:
                _serve(function, number, theirs)
        except OSError as error:
            raise UserError(f"cannot start a worker process ({error.strerror}); try --threads 1") from None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.connections.append(ours)
        self.processes.append(process)

    def _receive(self, i):
        try:
            return self.connections[i].recv()
        except (EOFError, ConnectionError):
            _, status = os.waitpid(self.processes[i], 0)
            return None, UserError(
                f"a worker process {_how_it_ended(status)}; if the memory was full, --threads 1 needs less "
                "(checkpoints are kept: --resume)"
            )


def _answer(function, *arguments):
    """(result, error) of a call, one of them None."""
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


def _serve(function, number, connection) -> NoReturn:
    """The life of a fork: it answers calls until nobody is left who could make one."""
    try:
        _close_files(connection.fileno())
        gc.freeze()  # to look for garbage among what came from the parent would copy its memory
        while True:
            connection.send(_answer(function, number, *connection.recv()))
    except (EOFError, ConnectionError):
        os._exit(0)
    finally:
        os._exit(1)


def _close_files(but):
    """Close all files but one and stderr, or else locks hold, and pipes do not end, until the fork ends."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (2, but):
            with contextlib.suppress(OSError):  # that of listdir itself is closed by now
                os.close(descriptor)
    nowhere = os.open(os.devnull, os.O_RDWR)  # which becomes 0
    os.dup2(nowhere, 1)


def _close(connections, processes):
    for connection in connections:
        connection.close()
    for process in processes:
        with contextlib.suppress(ChildProcessError):  # somebody has waited for it already
            os.waitpid(process, 0)


def _how_it_ended(status):
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _private_memory(process):
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            return sum(1024 * int(line.split()[1]) for line in file if line.startswith("Private"))
    except OSError:
        return 0
