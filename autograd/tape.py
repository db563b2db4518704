"""The tape: recorded operations, and the walk that takes a gradient back through them."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

import numpy as np

from autograd.backend import Array, array_module, is_array
from autograd.recording import Uses, refuse_changed

_order = itertools.count()
watch = None  # who looks at every result and gradient, if anybody does: see anomaly.py


class Node:
    """One recorded operation: it turns the gradient of its output into the gradients of its inputs.

    `pullbacks` holds one function per input. `parents` holds, per input, the Node that made it, the Tensor
    itself if it is a leaf, or None if it needs no gradient. `uses` are the leaves whose memory it works on. A
    Node does not know its own output, so there is no reference cycle: memory is freed with its last user,
    without the garbage collector.
    """

    __slots__ = ("order", "name", "parents", "pullbacks", "uses", "shape", "dtype")

    def __init__(self, name: str, parents: list, pullbacks: tuple, uses: Uses, output: Array):
        self.order = next(_order)
        self.name, self.parents, self.pullbacks, self.uses = name, parents, pullbacks, uses
        self.shape, self.dtype = output.shape, output.dtype


class Target:
    """Where a pullback may add its result: `array`, the gradient that a leaf has already; or None."""

    array: Array | None = None


class AddingPullback:
    """A pullback, function(g, add_to), that can add its result to an array instead of returning it.

    `add_to` is its target's array. On a GPU this saves a launch per parameter. The targets of all inputs of a
    node are set before the first of its pullbacks is called, since one kernel may serve several of them.
    """

    def __init__(self, function: Callable, target: Target | None = None):
        self.function, self.target = function, target or Target()

    def __call__(self, gradient: Array) -> Array:
        return self.function(gradient, self.target.array)


class SummingPullback:
    """A pullback, function(g, plus), that returns its result plus an array, `plus` (or None), as a new array.

    `plus` is what the input's other users have contributed. On a GPU this saves a launch.
    """

    def __init__(self, function: Callable):
        self.function = function

    def __call__(self, gradient: Array, plus: Array | None = None) -> Array:
        return self.function(gradient, plus)


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
        _refuse_freed(node)
        refuse_changed(node.uses, node.name)
        # An array object of its own for each visit, since linalg.Shared goes by identity.
        gradient = gradients.pop(node).view()
        edges = list(zip(node.parents, node.pullbacks, strict=False))
        _set_targets(edges)
        for position, (parent, pullback) in enumerate(edges):
            if parent is None:
                continue
            # 2. Pull the gradient back to this input.
            if isinstance(pullback, AddingPullback) and pullback.target.array is not None:
                pullback(gradient)
                continue
            if isinstance(pullback, SummingPullback) and parent in gradients and not watch:
                total = pullback(gradient, plus=gradients[parent])
                gradients[parent] = _checked(total, parent, node, position)
                owned.add(parent)
                continue
            contribution = _checked(pullback(gradient), parent, node, position)
            if (watching := watch) is not None:  # read once: another thread may end it
                watching.gradient(node, position, gradient, contribution)
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
            node.pullbacks, node.parents, node.uses = None, (), []


def _refuse_freed(node):
    if node.pullbacks is None:
        raise RuntimeError(
            f"the tape of this {node.name} was freed by an earlier backward(): run the forward pass again, "
            "or call the first backward(retain_graph=True)"
        )


def _set_targets(edges):
    """Tell the pullbacks that can add to a leaf's gradient where it is: all, before the first is called."""
    for parent, pullback in edges:
        if isinstance(pullback, AddingPullback):
            pullback.target.array = parent.grad if _can_be_added_to(parent) else None


def _can_be_added_to(parent):
    """Whether a pullback may add to a leaf's gradient itself. (An anomaly watch wants to see it alone.)"""
    if parent is None or isinstance(parent, Node) or watch or _aside.gradients is not None:
        return False
    return _fits(parent) and parent.grad.flags.c_contiguous


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
    if _aside.gradients is not None:
        _add_to_dict(_aside.gradients, leaf, gradient)
    elif leaf.grad is None:
        leaf.grad = gradient.copy()  # a copy, since later passes add to it in place
    elif _fits(leaf):
        leaf.grad += gradient
    else:
        leaf.grad = gradient_of(leaf) + gradient


def _add_to_dict(gradients, leaf, gradient):
    if leaf in gradients:
        gradients[leaf] += gradient
    else:
        gradients[leaf] = gradient.copy()


def _fits(leaf):
    """Whether `.grad` of a leaf is an array as the tape makes it, which can be added to in place."""
    grad, data = leaf.grad, leaf.data
    if type(grad) is not type(data) or grad.shape != data.shape or grad.dtype != data.dtype:
        return False
    return not isinstance(grad, np.ndarray) or grad.flags.writeable


def gradient_of(leaf) -> Array:
    """`.grad` of a leaf as an array of its dtype: users may have put a Tensor, a list or another dtype there.

    ValueError if it has another shape.
    """
    grad = leaf.grad
    if isinstance(grad, type(leaf)):
        grad = grad.data
    grad = array_module(leaf.data).asarray(grad, leaf.dtype)
    if grad.shape != leaf.shape:
        raise ValueError(f".grad has shape {grad.shape}, but its Tensor has {leaf.shape}")
    return grad


class _Aside(threading.local):
    gradients: dict | None = None


_aside = _Aside()


class gradients_aside:
    """`with gradients_aside() as gradients:` puts what this thread's backward passes give leaves into a dict.

    {leaf: gradient}; every `.grad` stays as it is.
    """

    def __enter__(self) -> dict:
        self.before, _aside.gradients = _aside.gradients, {}
        return _aside.gradients

    def __exit__(self, *exception) -> None:
        _aside.gradients = self.before


def take_gradient(leaf) -> Array | None:
    """The gradient that backward passes left for a leaf. It is forgotten there."""
    if _aside.gradients is not None:
        return _aside.gradients.pop(leaf, None)
    gradient, leaf.grad = leaf.grad, None
    return gradient
