"""The tape: recorded operations, and the walk that takes a gradient back through them."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections.abc import Callable

import numpy as np

from autograd.backend import Array, is_array

_order = itertools.count()
_state = threading.local()  # each worker thread switches recording on and off for itself
watch = None  # the detect_anomaly() that looks at every result, if one is active


def is_recording() -> bool:
    """True unless inside `no_grad()`."""
    return getattr(_state, "recording", True)


class no_grad:
    """Do not record operations: `with no_grad(): ...`, or `@no_grad()`. Saves the memory of the tape."""

    def __enter__(self) -> None:
        self.before = is_recording()
        _state.recording = False

    def __exit__(self, *exception) -> None:
        _state.recording = self.before

    def __call__(self, function: Callable) -> Callable:
        @functools.wraps(function)
        def without_tape(*args, **kwargs):
            with no_grad():
                return function(*args, **kwargs)

        return without_tape


class Node:
    """One recorded operation: it turns the gradient of its output into the gradients of its inputs.

    `pullbacks` holds one function per input. `parents` holds, per input, the Node that made it, the Tensor
    itself if it is a leaf, or None if it needs no gradient. A Node does not know its own output, so there is
    no reference cycle: memory is freed with its last user, without the garbage collector.
    """

    __slots__ = ("order", "name", "parents", "pullbacks", "shape", "dtype")

    def __init__(self, name: str, parents: list, pullbacks: tuple, output: Array):
        self.order = next(_order)
        self.name, self.parents, self.pullbacks = name, parents, pullbacks
        self.shape, self.dtype = output.shape, output.dtype


class AddingPullback:
    """A pullback, function(g, add_to), that can add its result to an array instead of returning it.

    `add_to` is the gradient that a leaf has already, or None. On a GPU this saves a launch per parameter.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, gradient: Array, add_to: Array | None = None) -> Array:
        return self.function(gradient, add_to)


def walk(root: Node, gradient: Array, retain_graph: bool) -> None:
    """Visit the nodes from root, the newest, to the oldest, and hand gradients down to the leaves.

    An operation is recorded after its inputs were. So descending order of creation is a reverse topological
    order: when it is a node's turn, every user of its output has added its part of the gradient.
    """
    gradients = {root: gradient}
    owned = set()  # nodes whose gradient is a sum made here, so that it may be added to in place
    queue = [(-root.order, root)]
    while queue:
        # 1. The newest node that is left: its gradient is complete.
        node = heapq.heappop(queue)[1]
        gradient = gradients.pop(node)
        _refuse_freed(node)
        for position, (parent, pullback) in enumerate(zip(node.parents, node.pullbacks, strict=False)):
            if parent is None:
                continue
            # 2. Pull the gradient back to this input.
            if _adds_in_place(pullback, parent):
                pullback(gradient, add_to=parent.grad)
                continue
            contribution = _checked(pullback(gradient), parent, node, position)
            if watch:
                watch.gradient(node, position, contribution)
            # 3. Add it to what the input's other users have contributed.
            if not isinstance(parent, Node):
                add_to_leaf(parent, contribution)
            elif parent not in gradients:
                gradients[parent] = contribution
                heapq.heappush(queue, (-parent.order, parent))
            elif parent in owned:
                gradients[parent] += contribution
            else:  # the array may belong to another node too: (x + y) hands the same one to both
                gradients[parent] = gradients[parent] + contribution
                owned.add(parent)
        # 4. Free the activations that the pullbacks hold.
        if not retain_graph:
            node.pullbacks, node.parents = None, ()


def _refuse_freed(node):
    if node.pullbacks is None:
        raise RuntimeError(
            f"the tape of this {node.name} was freed by an earlier backward(): run the forward pass again, "
            "or call the first backward(retain_graph=True)"
        )


def _adds_in_place(pullback, parent):
    """Whether the pullback can add to the gradient of a leaf. (An anomaly watch wants to see it alone.)"""
    if not isinstance(pullback, AddingPullback) or isinstance(parent, Node) or watch:
        return False
    return parent.grad is not None


def _checked(gradient, parent, node, position):
    """The gradient as an array, after checking that it fits the input it belongs to."""
    gradient = gradient if is_array(gradient) else np.asarray(gradient)
    if gradient.shape != parent.shape or gradient.dtype != parent.dtype:
        raise AssertionError(
            f"{node.name}: the gradient of input {position} is {gradient.shape} {gradient.dtype}, "
            f"but the input is {parent.shape} {parent.dtype}"
        )
    return gradient


def add_to_leaf(leaf, gradient: Array) -> None:
    """Add a gradient to `.grad` of a leaf Tensor."""
    if leaf.grad is None:
        leaf.grad = gradient.copy()  # a copy, since later passes add to it in place
    else:
        leaf.grad += gradient
