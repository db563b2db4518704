import numpy as np

from autograd.ops.elementwise import unbroadcast as sum_to
from tests.notebooks.wrong_answers import Catalogue
from workbook.tensors import check

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


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


def t(x):
    return x.swapaxes(-1, -2)


wrong_ones(
    "unbroadcast",
    {
        "is 2 times what it should be": lambda g, shape: 2 * sum_to(g, shape),
        "should hold float64": lambda g, shape: sum_to(g, shape).astype(np.float32),
        "the result has the shape (3, 3), but should have (3,)": lambda g, shape: g,
        "all zeros": lambda g, shape: np.zeros(shape),
        "It is right for gradient (4, 3)": lambda g, shape: np.resize(g, shape),
        "has the shape (5, 3), but should have (1, 3)": lambda g, shape: (
            g.sum(0) if g.ndim > len(shape) else g
        ),
    },
)
wrong_ones(
    "matmul",
    {
        "`unbroadcast(..., y.shape)`": lambda x, y: (
            x @ y, (lambda g: sum_to(g @ t(y), x.shape), lambda g: t(x) @ g)
        ),
        "`unbroadcast(..., x.shape)`": lambda x, y: (
            x @ y, (lambda g: g @ t(y), lambda g: sum_to(t(x) @ g, y.shape))
        ),
        "the gradient of x is 2 times what it should be, everywhere": lambda x, y: (
            x @ y, (lambda g: sum_to(2 * g @ t(y), x.shape), lambda g: sum_to(t(x) @ g, y.shape))
        ),
        "not always the same: 0.333333 times for": lambda x, y: (
            x @ y, (lambda g: sum_to(g @ t(y), x.shape) / len(g), lambda g: sum_to(t(x) @ g, y.shape))
        ),
        "the result has the shape": lambda x, y: (
            np.dot(x, y), (lambda g: sum_to(g @ t(y), x.shape), lambda g: sum_to(t(x) @ g, y.shape))
        ),
    },
)  # fmt: skip


@wrong("changes its input g in place")
def matmul(x, y):
    def dx(g):
        result = sum_to(g @ t(y), x.shape)
        g *= 0.0
        return result

    return x @ y, (dx, lambda g: sum_to(t(x) @ g, y.shape))


wrong_ones(
    "sum_over",
    {
        "All of g is added up": lambda x, axis: (x.sum(axis), lambda g: np.ones(x.shape) * g.sum()),
        "at the last axis": lambda x, axis: (x.sum(axis), lambda g: g[..., None] * np.ones(x.shape)),
        "is 2 times what it should be": lambda x, axis: (
            x.sum(axis), lambda g: 2 * np.expand_dims(g, axis) * np.ones(x.shape)
        ),
        "in other places": lambda x, axis: (
            x.sum(axis), lambda g: np.tile(g, x.shape[axis]).reshape(x.shape)
        ),
        "2 things at once": lambda x, axis: (
            x.mean(axis), lambda g: np.expand_dims(g, axis) * np.ones(x.shape) / x.shape[axis]
        ),
    },
)  # fmt: skip


@wrong("called a second time")
def embedding(weight, ids):
    gradient = np.zeros_like(weight)

    def dweight(g):
        np.add.at(gradient, ids, g)
        return gradient

    return weight[ids], dweight


@wrong("changes its input weight in place")
def embedding(weight, ids):
    def dweight(g):
        np.add.at(weight, ids, g)
        return weight

    return weight[ids], dweight


@wrong("off by the same amount everywhere (1)")
def embedding(weight, ids):
    def dweight(g):
        gradient = np.ones_like(weight)
        np.add.at(gradient, ids, g)
        return gradient

    return weight[ids], dweight


@wrong("are wrong: what do they have in common?")
def embedding(weight, ids):
    def dweight(g):
        gradient = np.zeros_like(weight)
        for v in set(ids.ravel().tolist()):
            gradient[v] = g[ids == v][0]
        return gradient

    return weight[ids], dweight
