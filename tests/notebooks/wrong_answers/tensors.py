import numpy as np

from autograd.ops.elementwise import unbroadcast as sum_to
from tests.notebooks.wrong_answers import Catalogue
from workbook.tensors import check

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


@wrong("mean over the copies")
def unbroadcast(g, shape):
    g = g.mean(axis=tuple(range(g.ndim - len(shape))))
    for axis, length in enumerate(shape):
        if length == 1:
            g = g.mean(axis, keepdims=True)
    return g


@wrong("one copy only")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g[0]
    for axis, length in enumerate(shape):
        if length == 1:
            g = g.take([0], axis)
    return g


@wrong("axes at the right")
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(-1)
    for axis, length in enumerate(shape):
        if length == 1:
            g = g.sum(axis, keepdims=True)
    return g


@wrong("those of length 1 that were stretched are missing")
def unbroadcast(g, shape):
    return g.sum(axis=tuple(range(g.ndim - len(shape))))


@wrong("axes of length 1 are lost")
def unbroadcast(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


@wrong("stops with ValueError in `return g.reshape(shape)`")
def unbroadcast(g, shape):
    return g.reshape(shape)


@right
def unbroadcast(g, shape):
    full = (1,) * (g.ndim - len(shape)) + tuple(shape)
    out = np.zeros(full)
    for index in np.ndindex(g.shape):
        out[tuple(0 if n == 1 else i for i, n in zip(index, full, strict=True))] += g[index]
    return out.reshape(shape)


def matmul_with(dx, dy):
    return lambda x, y: (x @ y, (lambda g: dx(x, y, g), lambda g: dy(x, y, g)))


@wrong("transposes are missing")
def matmul(x, y):
    return x @ y, (lambda g: g @ y, lambda g: x @ g)


@wrong("In dx the order is reversed")
def matmul(x, y):
    return x @ y, (lambda g: y.swapaxes(-1, -2) @ g, lambda g: sum_to(x.swapaxes(-1, -2) @ g, y.shape))


@wrong("In dy the order is reversed")
def matmul(x, y):
    return x @ y, (lambda g: sum_to(g @ y.swapaxes(-1, -2), x.shape), lambda g: g @ x.swapaxes(-1, -2))


@wrong("two pullbacks are in the wrong order")
def matmul(x, y):
    return x @ y, (lambda g: x.T @ g, lambda g: g @ y.T)


@wrong("ignores the upstream gradient")
def matmul(x, y):
    return x @ y, (lambda g: y.swapaxes(-1, -2), lambda g: x.swapaxes(-1, -2))


@wrong("`*` multiplies element by element")
def matmul(x, y):
    return x @ y, (lambda g: g * y.T, lambda g: x.T * g)


@wrong("reverses all axes of a stack")
def matmul(x, y):
    return x @ y, (lambda g: g @ y.T, lambda g: sum_to(x.T @ g, y.shape))


@wrong("sum its gradient over the stack")
def matmul(x, y):
    return x @ y, (lambda g: g @ y.swapaxes(-1, -2), lambda g: x.swapaxes(-1, -2) @ g)


@wrong("you took the mean")
def matmul(x, y):
    def dy(g):
        dy = x.swapaxes(-1, -2) @ g
        return dy.mean(0) if dy.ndim > y.ndim else dy

    return x @ y, (lambda g: g @ y.swapaxes(-1, -2), dy)


@right
def matmul(x, y):
    dx = lambda g: np.einsum("...nm,...km->...nk", g, y)
    dy = lambda g: sum_to(np.einsum("...nk,...nm->...km", x, g), y.shape)
    return x @ y, (dx, dy)


@wrong("lost axis was not put back")
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.broadcast_to(g, x.shape)


@wrong("pullback of the mean")
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.expand_dims(g, axis) * np.ones(x.shape) / x.shape[axis]


@wrong("ignores the upstream gradient")
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.ones_like(x)


@wrong("return g as it is")
def sum_over(x, axis):
    return x.sum(axis), lambda g: g


@wrong("stretches it")
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.expand_dims(g, axis)


@wrong("multiplied by x")
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.expand_dims(g, axis) * x


@right
def sum_over(x, axis):
    return x.sum(axis), lambda g: np.stack([g] * x.shape[axis], axis)


@wrong("only its last place counts")
def embedding(weight, ids):
    def dweight(g):
        gradient = np.zeros_like(weight)
        gradient[ids] += g
        return gradient

    return weight[ids], dweight


@wrong("only its last place counts")
def embedding(weight, ids):
    def dweight(g):
        gradient = np.zeros_like(weight)
        gradient[ids] = g
        return gradient

    return weight[ids], dweight


@wrong("divide by how often")
def embedding(weight, ids):
    def dweight(g):
        return np.stack(
            [
                g[ids == v].mean(0) if (ids == v).any() else np.zeros(weight.shape[1])
                for v in range(len(weight))
            ]
        )

    return weight[ids], dweight


@wrong("ignores the upstream gradient")
def embedding(weight, ids):
    def dweight(g):
        counts = np.bincount(ids.ravel(), minlength=len(weight))
        return np.repeat(counts[:, None], weight.shape[1], 1)

    return weight[ids], dweight


@wrong("You return g")
def embedding(weight, ids):
    return weight[ids], lambda g: g


@right
def embedding(weight, ids):
    def dweight(g):
        onehot = (ids.reshape(-1)[:, None] == np.arange(len(weight))).astype(float)
        return onehot.T @ g.reshape(-1, weight.shape[1])

    return weight[ids], dweight
