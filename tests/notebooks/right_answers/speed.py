import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.speed import check, gelu, gelu_slope, once

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def swiglu(x, y):
    """The slope of x * sigmoid(x), multiplied out."""
    s = 1 / (1 + np.exp(-x))
    return x * s * y, (lambda g: g * y * s * (1 + x - x * s), lambda g: g * (x * s))


@right
def swiglu(x, y):
    """With tanh, and the pullbacks in a list."""
    half = np.tanh(x / 2)
    silu = x * (1 + half) / 2
    slope = (1 + half) / 2 + x * (1 - half**2) / 4
    return silu * y, [lambda g: g * y * slope, lambda g: g * silu]


@right
def swiglu(x, y):
    """e^x / (1 + e^x): right, but not for large x, which is worth a word."""
    e = np.exp(x)
    s = e / (1 + e)

    def dx(g):
        return g * y * (s + x * e / (1 + e) ** 2)

    def dy(g):
        return g * x * s

    return x * s * y, (dx, dy)


@right
def swiglu(x, y):
    """In place, on its own arrays."""
    s = np.exp(-x)
    s += 1
    np.reciprocal(s, out=s)
    silu = x * s

    def dx(g):
        slope = 1 - s
        slope *= silu
        slope += s
        slope *= y
        slope *= g
        return slope

    return silu * y, (dx, lambda g: silu * g)


@right
def in_blocks(function, x, bias, rows):
    """A list that is joined at the end."""
    return np.concatenate([function(x[i : i + rows] + bias) for i in range(0, len(x), rows)])


@right
def in_blocks(function, x, bias, rows):
    """With a while loop, and the last block by itself."""
    out, start = np.zeros(x.shape), 0
    while start + rows <= len(x):
        out[start : start + rows] = function(x[start : start + rows] + bias)
        start += rows
    if start < len(x):
        out[start:] = function(x[start:] + bias)
    return out


@right
def in_blocks(function, x, bias, rows):
    """NumPy cuts."""
    pieces = np.split(x, range(rows, len(x), rows))
    return np.vstack([function(piece + bias) for piece in pieces])


@right
def in_blocks(function, x, bias, rows):
    """The bias first, for the whole array: right, but one more pass."""
    z, out = x + bias, np.empty_like(x)
    for number in range(-(-len(x) // rows)):
        out[number * rows : (number + 1) * rows] = function(z[number * rows : (number + 1) * rows])
    return out


@right
def in_blocks(function, x, bias, rows):
    """Row by row: right, and slow."""
    return np.concatenate([function(x[i : i + 1] + bias) for i in range(len(x))])


@right
def linear_gelu(x, weight, bias):
    """Without once: the same work three times."""
    pre = x @ weight + bias
    slope = gelu_slope(pre)
    return gelu(pre), (
        lambda g: (g * slope) @ weight.T,
        lambda g: x.T @ (g * slope),
        lambda g: (g * slope).sum(axis=0),
    )


@right
def linear_gelu(x, weight, bias):
    """In a list, with einsum."""
    pre = np.einsum("nk,km->nm", x, weight) + bias
    dpre = once(lambda g: gelu_slope(pre) * g)
    return gelu(pre), [
        lambda g: np.einsum("nm,km->nk", dpre(g), weight),
        lambda g: np.einsum("nk,nm->km", x, dpre(g)),
        lambda g: np.ones(len(x)) @ dpre(g),
    ]


@right
def linear_gelu(x, weight, bias):
    """In place, on its own array; functions with names."""
    pre = x @ weight
    pre += bias

    def dpre(g):
        d = gelu_slope(pre)
        d *= g
        return d

    def dx(g):
        return (weight @ dpre(g).T).T

    def dweight(g):
        return (dpre(g).T @ x).T

    def dbias(g):
        return np.sum(dpre(g), 0)

    return gelu(pre), (dx, dweight, dbias)


@right
def micro_batches(loss_and_gradient, x, y, size):
    """Sums over rows, divided once at the end."""
    total, gradient = 0.0, np.zeros(x.shape[1])
    for i in range(0, len(x), size):
        loss, its = loss_and_gradient(x[i : i + size], y[i : i + size])
        n = len(y[i : i + size])
        total += n * loss
        gradient += n * its
    return total / len(x), gradient / len(x)


@right
def micro_batches(loss_and_gradient, x, y, size):
    """np.average with weights."""
    cuts = range(size, len(x), size)
    parts = list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
    losses, gradients = zip(*[loss_and_gradient(*part) for part in parts], strict=True)
    rows = [len(part[0]) for part in parts]
    return np.average(losses, weights=rows), np.average(gradients, axis=0, weights=rows)


@right
def micro_batches(loss_and_gradient, x, y, size):
    """A running mean, in a list."""
    seen, loss, gradient = 0, 0.0, 0.0
    while seen < len(x):
        stop = min(seen + size, len(x))
        new_loss, new_gradient = loss_and_gradient(x[seen:stop], y[seen:stop])
        loss = loss + (new_loss - loss) * (stop - seen) / stop
        gradient = gradient + (new_gradient - gradient) * (stop - seen) / stop
        seen = stop
    return [loss, gradient]


@right
def micro_batches(loss_and_gradient, x, y, size):
    """One row at a time: micro-batches may be smaller than `size`."""
    parts = [loss_and_gradient(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    return sum(p[0] for p in parts) / len(x), sum(p[1] for p in parts) / len(x)


@right
def recomputing(function, x):
    def pullback(g):
        _, own = function(x)
        return own(g)

    return function(x)[0], pullback


@right
def recomputing(function, x):
    """The pullback in a tuple."""
    out = function(x)[0]
    return out, (lambda g: function(x)[-1](g),)


@right
def recomputing(function, x):
    """Forgets the first pullback by hand, keeps its own copy of x, returns a list."""
    out, pullback = function(x)
    del pullback
    kept = x.copy()
    return [out, lambda upstream: function(kept)[1](upstream)]


@right
def cached_attention(q, k, v, keys, values, t):
    """With products of stacks of matrices."""
    keys[:, t, :] = k
    values[:, t, :] = v
    past, seen = keys[:, : t + 1], values[:, : t + 1]
    scores = (past @ q[:, :, None])[:, :, 0] / np.sqrt(q.shape[-1])
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    return (p[:, None, :] @ seen)[:, 0]


@right
def cached_attention(q, k, v, keys, values, t):
    """A loop over heads."""
    out = np.zeros_like(q)
    for h in range(len(q)):
        keys[h, t], values[h, t] = k[h], v[h]
        scores = keys[h][: t + 1] @ q[h] * q.shape[1] ** -0.5
        e = np.exp(scores - max(scores))
        out[h] = e / sum(e) @ values[h][: t + 1]
    return out


@right
def cached_attention(q, k, v, keys, values, t):
    """All places, with a mask."""
    keys[:, t], values[:, t] = k, v
    scores = (q[:, None] * keys).sum(-1) / q.shape[-1] ** 0.5
    scores[:, np.arange(keys.shape[1]) > t] = -np.inf
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return ((e / e.sum(-1, keepdims=True))[..., None] * values).sum(1)


@right
def linear_gelu(x, weight, bias):
    """All three gradients at once, kept for the g that they belong to."""
    pre = x @ weight + bias
    out = gelu(pre)

    @once
    def gradients(g):
        d = g * gelu_slope(pre)
        return d @ weight.T, x.T @ d, d.sum(0)

    return out, tuple(lambda g, i=i: gradients(g)[i] for i in range(3))


@right
def recomputing(function, x):
    """As a class with __call__."""

    class Pullback:
        def __call__(self, g):
            out, pull = function(x)
            return pull(g)

    result, _ = function(x)
    return result, Pullback()


@right
def cached_attention(q, k, v, keys, values, t):
    """Without the maximum, and with the scale in the query."""
    keys[:, t] = k
    values[:, t] = v
    q = q / q.shape[-1] ** 0.5
    e = np.exp(np.matmul(keys[:, : t + 1], q[..., None]))
    return np.sum(e * values[:, : t + 1], axis=1) / e.sum(axis=1)
