"""Whether operations are recorded, and which leaves they used."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterable
from typing import Any


class _ThreadState(threading.local):
    """What each thread switches for itself."""

    def __init__(self):
        self.recording = True
        self.recording_before = []  # in the enclosing no_grad() blocks
        self.uses = None  # the Uses of a checkpoint() that runs its function


_state = _ThreadState()


def is_recording() -> bool:
    """True unless inside `no_grad()`."""
    return _state.recording


class no_grad:
    """Do not record operations: `with no_grad(): ...`, `@no_grad()` or `@no_grad`. Saves the tape's memory.

    In a decorated generator the switch holds while the generator runs, not in the loop that uses it.
    """

    records = False

    def __new__(cls, function: Callable | None = None) -> Any:
        switch = super().__new__(cls)
        return switch if function is None else switch(function)

    def __enter__(self) -> None:
        _state.recording_before.append(_state.recording)
        _state.recording = self.records

    def __exit__(self, *exception) -> None:
        _state.recording = _state.recording_before.pop()

    def __call__(self, function: Callable) -> Callable:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("no_grad cannot decorate a coroutine; write `with no_grad():` inside it")
        if inspect.isgeneratorfunction(function):
            return _switched_generator(type(self), function)

        @functools.wraps(function)
        def switched(*args, **kwargs):
            with type(self)():
                return function(*args, **kwargs)

        return switched


class enable_grad(no_grad):
    """Record operations, even inside no_grad()."""

    records = True


def _switched_generator(switch, function):
    """A generator function whose body runs under a switch, and whose caller does not."""

    @functools.wraps(function)
    def switched(*args, **kwargs):
        generator = function(*args, **kwargs)
        go_on, value = generator.send, None
        try:
            while True:
                with switch():
                    item = go_on(value)
                try:
                    go_on, value = generator.send, (yield item)
                except Exception as error:
                    go_on, value = generator.throw, error
        except StopIteration as end:
            return end.value
        finally:
            with switch():
                generator.close()

    return switched


# An optimizer changes the values of leaves in place, and so does p -= ... under no_grad(). What was recorded
# before would then get a wrong gradient. So each leaf counts its changes, in a list of one number that it
# shares with Tensors of the same memory, and the tape notes the counts that it saw.

Uses = list[tuple[list[int], int]]  # (a leaf's counter, its count at the time)


def uses_of(tensors: Iterable) -> Uses:
    """The counters of those Tensors whose memory a leaf owns, with their counts now."""
    return [(tensor.changes, tensor.changes[0]) for tensor in tensors if tensor.changes]


def refuse_changed(uses: Uses, name: str) -> None:
    """RuntimeError if a leaf was changed since an operation of this name used it."""
    if any(changes[0] != count for changes, count in uses):
        raise RuntimeError(
            f"{name} used a leaf whose values were changed in place afterwards, by an optimizer's step() or "
            "an operator such as -=: call backward() before that, or run the forward pass again"
        )


class noting_uses:
    """`with noting_uses() as uses:` notes which leaves are used without being recorded."""

    def __enter__(self) -> Uses:
        self.before, _state.uses = _state.uses, []
        return _state.uses

    def __exit__(self, *exception) -> None:
        if self.before is not None:
            self.before.extend(_state.uses)
        _state.uses = self.before


def note_uses(uses: Uses) -> None:
    """Note what an operation used, if somebody asked."""
    if _state.uses is not None:
        _state.uses.extend(uses)
