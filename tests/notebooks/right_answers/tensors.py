import numpy as np

from autograd.ops.elementwise import unbroadcast as sum_to
from tests.notebooks.wrong_answers import Catalogue
from workbook.tensors import check

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def unbroadcast(g, shape):
    """Entry by entry."""
    full = (1,) * (g.ndim - len(shape)) + tuple(shape)
    out = np.zeros(full)
    for index in np.ndindex(g.shape):
        out[tuple(0 if n == 1 else i for i, n in zip(index, full, strict=True))] += g[index]
    return out.reshape(shape)


@right
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(0)
    for axis, (have, want) in enumerate(zip(g.shape, shape, strict=True)):
        if have != want:
            g = g.sum(axis=axis, keepdims=True)
    return g


@right
def unbroadcast(g, shape):
    if g.shape == shape:
        return g
    new = g.ndim - len(shape)
    return g.sum((*range(new), *(new + i for i, n in enumerate(shape) if n == 1))).reshape(shape)


@right
def unbroadcast(g, shape):
    """einsum, with the names of the axes that stay."""
    letters = "abcdefgh"[: g.ndim]
    kept = "".join(c for c, n in zip(letters[g.ndim - len(shape) :], shape, strict=True) if n != 1)
    return np.einsum(f"{letters}->{kept}", g).reshape(shape)


@right
def matmul(x, y):
    dx = lambda g: sum_to(np.einsum("...nm,...km->...nk", g, y), x.shape)
    dy = lambda g: sum_to(np.einsum("...nk,...nm->...km", x, g), y.shape)
    return x @ y, (dx, dy)


@right
def matmul(x, y):
    """Lists, and sums over the stack by hand."""

    def over_stack(gradient, shape):
        extra = gradient.ndim - len(shape)
        return gradient.sum(tuple(range(extra))) if extra else gradient

    def turned(a):
        return np.moveaxis(a, -1, -2)

    return [
        np.matmul(x, y),
        [lambda g: over_stack(g @ turned(y), x.shape), lambda g: over_stack(turned(x) @ g, y.shape)],
    ]


@right
def matmul(x, y):
    """The transposed product: (y gᵀ)ᵀ."""
    t = lambda a: a.swapaxes(-2, -1)
    dx = lambda g: sum_to(t(y @ t(g)), x.shape)
    dy = lambda g: sum_to(t(t(g) @ x), y.shape)
    return x @ y, (dx, dy)


right_ones(
    "sum_over",
    lambda x, axis: (x.sum(axis), lambda g: np.stack([g] * x.shape[axis], axis)),
    lambda x, axis: [np.sum(x, axis=axis), [lambda g: np.expand_dims(g, axis) * np.ones_like(x)]],
    lambda x, axis: (
        np.add.reduce(x, axis),
        lambda g: np.repeat(np.expand_dims(g, axis), x.shape[axis], axis),
    ),
    lambda x, axis: (
        x.sum(axis, keepdims=True).squeeze(axis),
        (lambda g: np.zeros(x.shape) + np.reshape(g, x.sum(axis, keepdims=True).shape),),
    ),
)


@right
def embedding(weight, ids):
    """The lookup as a product with one-hot rows."""

    def dweight(g):
        onehot = (ids.reshape(-1)[:, None] == np.arange(len(weight))).astype(float)
        return onehot.T @ g.reshape(-1, weight.shape[1])

    return weight[ids], dweight


@right
def embedding(weight, ids):
    def dweight(g):
        gradient = np.zeros(weight.shape)
        for row, i in zip(g.reshape(-1, weight.shape[1]), ids.ravel(), strict=True):
            gradient[i] += row
        return gradient

    return [np.take(weight, ids, axis=0), [dweight]]


@right
def embedding(weight, ids):
    dweight = lambda g: np.array([g[ids == v].sum(0) for v in range(len(weight))])
    return weight[ids], (dweight,)
