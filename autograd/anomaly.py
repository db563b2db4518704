"""Looking at every operation: finding the one that makes the first NaN or infinity."""

import math
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from autograd import tape
from autograd.backend import Array, array_module, is_array


class AnomalyError(ArithmeticError):
    """An operation made a NaN or an infinity."""


class detect_anomaly:
    """`with detect_anomaly(): ...` raises AnomalyError at the first NaN or infinity that an operation makes.

    A result must hold no NaN, and no infinity unless an input or an option of the operation does: a mask of
    -inf is meant. A gradient must hold neither. The error names the operation. It looks at every array, which
    takes time, and on a GPU waits for each.

    where() is called as operations are recorded; what it returns (the module at work, say) stands before the
    operation's name. The block holds for all threads; of several blocks, the one that was entered last looks.
    """

    def __init__(self, where: Callable[[], str] = lambda: ""):
        if not callable(where):
            raise TypeError(f"detect_anomaly: where must be a function that returns a text, not {where!r}")
        self.where = where
        self.places = {}  # of recorded nodes, for their gradients

    def __enter__(self) -> None:
        add_watch(self)

    def __exit__(self, *exception) -> None:
        remove_watch(self)

    def result(
        self, operation: Callable, output: Array, node: tape.Node | None, inputs: list, options: dict
    ) -> None:
        """Called with the result of each operation, and the arrays, numbers and options it worked on."""
        place = self.where()
        if node is not None and place:
            self.places[node.order] = place
        if all_finite(output) or not hasattr(operation, "raw"):  # checkpoint: its operations were seen
            return
        name, given = operation.__name__.strip("_"), [*inputs, *options.values()]
        if holds_nan(output):
            held = _which(holds_nan, given)
            before = f": its input {held[0]} held it before" if held else ""
            raise AnomalyError(f"{place}the result of {name} holds NaN{before}")
        if not _which(holds_infinity, given):
            raise AnomalyError(f"{place}the result of {name} holds infinity")

    def gradient(self, node: tape.Node, position: int, incoming: Array, contribution: Array) -> None:
        """Called with the gradient of each node's result, and what its pullback hands to an input."""
        if not all_finite(contribution):
            place = self.places.get(node.order, "")
            found = "NaN" if holds_nan(contribution) else "infinity"
            raise AnomalyError(f"{place}the gradient of input {position} of {node.name} holds {found}")


# Those who look at operations, the last one first in line. Blocks of several threads may end in any order.
_watches: list = []
_watches_lock = threading.Lock()


def add_watch(watch: Any) -> None:
    """Let an object with the methods `result` and `gradient` look at all operations."""
    with _watches_lock:
        _watches.append(watch)
        tape.watch = watch


def remove_watch(watch: Any) -> None:
    """The end of what add_watch began."""
    with _watches_lock:
        last = len(_watches) - 1 - _watches[::-1].index(watch)
        del _watches[last]
        tape.watch = _watches[-1] if _watches else None


def module_at_work(names: Mapping[int, str]) -> str | None:
    """The name of the innermost of some objects whose method is running now; None if none is.

    names: {id(module): name}.
    """
    frame = sys._getframe(1)
    while frame:
        name = names.get(id(frame.f_locals.get("self")))
        if name is not None:
            return name
        frame = frame.f_back
    return None


def all_finite(array: Array) -> bool:
    return bool(array_module(array).isfinite(array).all())


def holds_nan(value: Array | float) -> bool:
    """Whether an array or a number is NaN somewhere."""
    return bool(array_module(value).isnan(value).any())


def holds_infinity(value: Array | float) -> bool:
    """Whether an array or a number is infinite somewhere."""
    return bool((array_module(value).abs(value) == math.inf).any())


def _which(holds, inputs):
    """The positions of those floating arrays and numbers among the inputs that hold something."""
    return [i for i, value in enumerate(inputs) if _is_floating(value) and holds(value)]


def _is_floating(value):
    return isinstance(value, (float, np.floating)) or (is_array(value) and value.dtype.kind == "f")
