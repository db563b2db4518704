"""The operators and methods of Tensor: x + y, x.sum(). They need the operations, which need Tensor."""

from typing import Any

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
from autograd.tensor import Tensor

METHODS = (exp, log, sqrt, tanh, sigmoid, relu, sum, mean, var, max, min, squeeze, swapaxes, astype, to)
OPERATORS = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power, "matmul": matmul}
COMPARISONS = ("lt", "le", "gt", "ge")


def complete_tensor() -> None:
    """Give Tensor its operators and methods."""
    for name, operation in OPERATORS.items():
        _add_operator(name, operation)
    for name in COMPARISONS:
        _add_comparison(f"__{name}__")
    for method in METHODS:
        setattr(Tensor, method.__name__, method)
    Tensor.__neg__ = lambda x: negative(x)
    Tensor.__abs__ = lambda x: abs_(x)
    Tensor.__getitem__ = lambda x, index: getitem(x, index=index)
    Tensor.reshape, Tensor.transpose = _reshape, _transpose
    Tensor.T = property(lambda x: transpose(x))


def _reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: x.reshape(2, 3) or x.reshape((2, 3))."""
    return reshape(x, shape=shape[0] if isinstance(shape[0], tuple) else shape)


def _transpose(x: Tensor, *axes: int) -> Tensor:
    """The axes in this order, or reversed: x.transpose(1, 0, 2) or x.transpose()."""
    return transpose(x, axes=axes or None)


def _add_operator(name, operation):
    """x + y, and 1 + y too, where Python asks the right operand."""
    setattr(Tensor, f"__{name}__", lambda x, y: operation(x, y))
    setattr(Tensor, f"__r{name}__", lambda x, y: operation(y, x))


def _add_comparison(name):
    """x < y as a plain boolean array, for where() and masked_fill()."""
    setattr(Tensor, name, lambda x, y: getattr(x.data, name)(y.data if isinstance(y, Tensor) else y))
