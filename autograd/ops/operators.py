"""The operators and methods of Tensor: x + y, x.sum(). They need the operations, which need Tensor."""

from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.backend import Array, is_array
from autograd.ops.elementwise import (
    abs_,
    add,
    astype,
    divide,
    exp,
    log,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sqrt,
    subtract,
    tanh,
)
from autograd.ops.linalg import matmul
from autograd.ops.reduce import max, mean, min, sum, var
from autograd.ops.shape import getitem, reshape, squeeze, swapaxes, to, transpose
from autograd.recording import is_recording
from autograd.tensor import Tensor, TensorLike

METHODS = (exp, log, sqrt, tanh, sigmoid, relu, sum, mean, var, max, min, squeeze, swapaxes, astype, to)
OPERATORS = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power, "matmul": matmul}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def complete_tensor() -> None:
    """Give Tensor its operators and methods."""
    for name, operation in OPERATORS.items():
        _add_operator(name, operation)
        _add_in_place_operator(name, operation)
    for name in COMPARISONS:
        _add_comparison(f"__{name}__")
    for method in METHODS:
        setattr(Tensor, method.__name__, method)
    Tensor.__pos__ = lambda x: x
    Tensor.__neg__ = lambda x: negative(x)
    Tensor.__abs__ = lambda x: abs_(x)
    Tensor.__getitem__ = lambda x, index: getitem(x, index=index)
    Tensor.reshape, Tensor.transpose = _reshape, _transpose
    Tensor.T = property(lambda x: transpose(x))


def _reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: x.reshape(2, 3) or x.reshape((2, 3))."""
    return reshape(x, shape=_as_one_argument(shape))


def _transpose(x: Tensor, *axes: Any) -> Tensor:
    """The axes in this order, or reversed: x.transpose(1, 0, 2), x.transpose((1, 0, 2)) or x.transpose()."""
    return transpose(x, axes=_as_one_argument(axes) or None)


def _as_one_argument(values):
    """(2, 3) from the arguments of f(2, 3), f((2, 3)) or f([2, 3])."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        return tuple(values[0])
    return values


def _add_operator(name, operation):
    """x + y, and 1 + y too, where Python asks the right operand."""
    setattr(Tensor, f"__{name}__", lambda x, y: operation(x, y))
    setattr(Tensor, f"__r{name}__", lambda x, y: operation(y, x))


def _add_in_place_operator(name, operation):
    """x += y: the Tensor x gets other values, or under no_grad() a leaf's own array does."""

    def in_place(x, y):
        if x.requires_grad and x.node is None:
            return _changed_leaf(x, lambda: operation(x, y))
        if x.node and not is_recording():
            raise RuntimeError(
                "an in-place operator under no_grad() would cut this result off from the tape; "
                "write y = x + 1 instead of x += 1"
            )
        return _replaced(x, operation(x, y))

    setattr(Tensor, f"__i{name}__", in_place)


def _changed_leaf(leaf: Tensor, compute: Callable[[], Tensor]) -> Tensor:
    """The leaf, with computed values in its array. It counts this, so that older tapes are refused."""
    if is_recording():
        raise RuntimeError(
            "a leaf with requires_grad=True cannot be changed in place while operations are recorded; "
            "update weights with `with no_grad(): p -= lr * p.grad`, or write y = x + 1 instead of x += 1"
        )
    result = compute()
    _check_same_shape(leaf, result)
    leaf.data[...] = result.data
    leaf.changes[0] += 1
    return leaf


def _replaced(x: Tensor, result: Tensor) -> Tensor:
    """The Tensor x, with the values and the history of a result.

    x gets another array: the one that it had may be on the tape, or belong to a detached Tensor too.
    """
    _check_same_shape(x, result)
    x.data, x.changes = result.data, result.changes
    x.node, x.requires_grad = result.node, result.requires_grad
    return x


def _check_same_shape(x, result):
    if result.shape != x.shape:
        raise ValueError(
            f"an in-place operator cannot change the shape {x.shape} to {result.shape}; "
            "write y = x + 1 instead of x += 1"
        )


def _add_comparison(name):
    """x < y as a plain boolean array, for where() and masked_fill()."""

    def compare(x: Tensor, y: TensorLike) -> Array:
        if isinstance(y, Tensor):
            y = y.data
        elif isinstance(y, (list, tuple)):
            y = np.asarray(y)
        if not is_array(y) and not isinstance(y, (bool, int, float, np.generic)):
            return NotImplemented  # x == None is False, x < None a TypeError
        return getattr(x.data, name)(y)

    setattr(Tensor, name, compare)
