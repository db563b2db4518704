"""Matrix products."""

import math

import numpy as np

from autograd.backend import array_module
from autograd.operation import op
from autograd.ops import elementwise
from autograd.ops.elementwise import shape_of, unbroadcast

__all__ = ["linear", "matmul"]


@op
def matmul(x, y):
    """x @ y with NumPy's rules: stacks of matrices broadcast; a 1-D x is a row, a 1-D y a column."""
    if not shape_of(x) or not shape_of(y):
        raise ValueError(
            f"matmul needs at least one axis on each side, got shapes {shape_of(x)} and {shape_of(y)}"
        )
    x2 = x[None, :] if x.ndim == 1 else x  # (..., n, k)
    y2 = y[:, None] if y.ndim == 1 else y  # (..., k, m)

    def as_matrices(g):  # (..., n, m): with the axis that a 1-D operand lost
        g = g[..., None] if y.ndim == 1 else g
        return g[..., None, :] if x.ndim == 1 else g

    def dx(g):
        return unbroadcast(as_matrices(g) @ y2.swapaxes(-1, -2), x2.shape).reshape(x.shape)

    def dy(g):
        return unbroadcast(x2.swapaxes(-1, -2) @ as_matrices(g), y2.shape).reshape(y.shape)

    return x @ y, (dx, dy)


ACTIVATIONS = {
    "relu": elementwise.relu.raw,
    "gelu": elementwise.gelu.raw,
    "gelu_exact": elementwise.gelu_exact.raw,
}


@op
def linear(x, weight, bias=None, activation: str | None = None):
    """activation(x @ weight + bias), as one operation.

    x (..., K), weight (K, M) as in GPT-2's Conv1D, bias (M) or None; activation None or a name in
    ACTIVATIONS. All leading axes are folded into one, so that each pass is a single two-dimensional product:
    dpre = dout * activation'(pre), dx = dpre @ weightᵀ, dweight = xᵀ @ dpre, dbias = sum of dpre over rows.
    Raises ValueError for shapes that do not fit and for an unknown activation.
    """
    check_linear(x, weight, bias, activation)
    x2 = as_rows(x)  # (..., K) -> (N, K)
    out = x2 @ weight
    if bias is not None:
        out += bias
    pull_through_activation = None
    if activation is not None:
        out, pull_through_activation = ACTIVATIONS[activation](out)

    x_shape, out_shape = x.shape, out.shape

    def dpre_of(dout):
        dout = dout.reshape(out_shape)
        return pull_through_activation(dout) if pull_through_activation else dout

    dpre = Shared(dpre_of)
    return out.reshape(*x_shape[:-1], weight.shape[1]), (
        lambda dout: (dpre(dout) @ weight.T).reshape(x_shape),
        lambda dout: x2.T @ dpre(dout),
        lambda dout: column_sums(dpre(dout)),
    )


def check_linear(x, weight, bias, activation):
    check_product("linear", x, weight, bias)
    if activation is not None and activation not in list(ACTIVATIONS):
        names = ", ".join(map(repr, ACTIVATIONS))
        raise ValueError(f"linear: unknown activation {activation!r}; choose from None, {names}")


def check_product(name, x, weight, bias):
    """Raise ValueError unless the shapes fit those of x @ weight + bias; `name` is the operation's."""
    x, weight = shape_of(x), shape_of(weight)
    if len(weight) != 2 or x[-1:] != weight[:1]:
        raise ValueError(f"{name}: x {x} does not fit weight {weight}; wanted (..., K) and (K, M)")
    if bias is not None and shape_of(bias) != weight[1:]:
        raise ValueError(
            f"{name}: bias {shape_of(bias)} does not fit weight {weight}; wanted (M,) and (K, M)"
        )


class Shared:
    """A function that keeps its last result, for pullbacks of one operation that begin with the same work.

    It knows an argument again by identity. That is safe because the tape hands a new array object to each
    visit of a node, even if a caller refills one buffer, and because the argument kept here stays alive.
    """

    def __init__(self, function):
        self.function, self.argument, self.result = function, None, None

    def __call__(self, argument):
        if self.argument is not argument:
            self.argument, self.result = argument, self.function(argument)
        return self.result


def as_rows(x):
    """(..., C) -> (N, C). The count is spelled out because -1 is ambiguous for empty arrays."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


# Sums as products with a vector of ones: BLAS does them in 0.05 ns per element, sum() takes 0.06 to 0.3.


def column_sums(x):
    """(N, C) -> (C)"""
    return array_module(x).ones(x.shape[0], x.dtype) @ x


def row_dots(x, y):
    """(..., C), (..., C) -> (..., 1): the dot product of each pair of rows."""
    xp = array_module(x)
    # NumPy's vecdot takes half as long as its einsum. CuPy has none.
    dots = np.vecdot(x, y) if xp is np else xp.einsum("...c,...c->...", x, y)
    return dots[..., None]


def row_sums(x):
    """(..., C) -> (..., 1)"""
    return (x @ array_module(x).ones(x.shape[-1], x.dtype))[..., None]
