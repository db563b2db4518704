import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.speed import check, gelu, gelu_slope, once

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- swiglu ---


@wrong("the sigmoid was held constant")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * s * y, lambda g: g * x * s)


@wrong("only the way through the sigmoid counts")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * x * y * s * (1 - s), lambda g: g * x * s)


@wrong("y multiplies only one of the two terms")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * (y * s + x * s * (1 - s)), lambda g: g * x * s)


@wrong("the slope of the sigmoid alone")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * s * (1 - s), lambda g: g * x * s)


@wrong("The factor y is missing in the gradient of x")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * s * (1 + x * (1 - s)), lambda g: g * x * s)


@wrong("the slope of the sigmoid is 1 - s")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * (s + x * (1 - s)), lambda g: g * x * s)


@wrong("is that of tanh")
def swiglu(x, y):
    s = sigmoid(x)
    return y * (x * s), (lambda g: g * y * (s + x * (1 - s**2)), lambda g: g * x * s)


@wrong("The sigmoid is missing in the gradient of y")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * s * (1 + x * (1 - s)), lambda g: g * x)


@wrong("The gradient of y contains y itself")
def swiglu(x, y):
    out = x * sigmoid(x) * y
    s = sigmoid(x)
    return out, (lambda g: g * y * s * (1 + x * (1 - s)), lambda g: g * out)


@wrong("The two pullbacks have changed places")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * x * s, lambda g: g * y * s * (1 + x * (1 - s)))


@wrong("x and y have changed places")
def swiglu(x, y):
    s = sigmoid(y)
    return x * s * y, (lambda g: g * y * s, lambda g: g * x * s * (1 + y * (1 - s)))


@wrong("does not contain g")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: y * s * (1 + x * (1 - s)), lambda g: g * x * s)


@wrong("The sign in the exponent")
def swiglu(x, y):
    s = 1 / (1 + np.exp(x))
    return x * s * y, (lambda g: g * y * (s + x * s * (1 - s)), lambda g: g * x * s)


@wrong("The second thing returned must hold 2 pullbacks")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, lambda g: g * y * s * (1 + x * (1 - s))


@wrong("A pullback is a function")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (y * s * (1 + x * (1 - s)), x * s)


@wrong("Return two things")
def swiglu(x, y):
    return x * sigmoid(x) * y


@wrong("changes its input y in place")
def swiglu(x, y):
    s = sigmoid(x)
    kept = y.copy()
    y *= x * s
    return y, (lambda g: g * kept * s * (1 + x * (1 - s)), lambda g: g * x * s)


@wrong("If the pullback of x is called a second time")
def swiglu(x, y):
    s = sigmoid(x)
    slope = y * s * (1 + x * (1 - s))

    def dx(g):
        slope[...] = slope * g
        return slope

    return x * s * y, (dx, lambda g: g * x * s)


@wrong("has the wrong sign, everywhere")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: -g * y * (s + x * s * (1 - s)), lambda g: g * x * s)


@wrong("(2) The sigmoid is missing in the gradient of y")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * s, lambda g: g * x)


@wrong("No typical mistake")
def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * (s + x**2 * s * (1 - s)), lambda g: g * x * s)


# --- in_blocks ---


@wrong("The bias is not added")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(0, len(x), rows):
        out[i : i + rows] = function(x[i : i + rows])
    return out


@wrong("The bias is added after the function")
def in_blocks(function, x, bias, rows):
    return np.concatenate([function(x[i : i + rows]) + bias for i in range(0, len(x), rows)])


@wrong("The bias was cut into blocks, too")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(0, len(x), rows):
        out[i : i + rows] = function(x[i : i + rows] + bias[i : i + rows])
    return out


@wrong("smaller")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(len(x) // rows):
        out[i * rows : (i + 1) * rows] = function(x[i * rows : (i + 1) * rows] + bias)
    return out


@wrong("The last rows are left out")
def in_blocks(function, x, bias, rows):
    out = np.zeros_like(x)
    for i in range(0, len(x) - rows + 1, rows):
        out[i : i + rows] = function(x[i : i + rows] + bias)
    return out


@wrong("The last rows are missing from the result")
def in_blocks(function, x, bias, rows):
    whole = len(x) - len(x) % rows
    return np.concatenate([function(x[i : i + rows] + bias) for i in range(0, whole, rows)] + [x[:0]])


@wrong("blocks of columns")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(0, x.shape[1], rows):
        out[:, i : i + rows] = function(x[:, i : i + rows] + bias[i : i + rows])
    return out


@wrong("the function gets 11 rows at once where `rows` is 4")
def in_blocks(function, x, bias, rows):
    return function(x + bias)


@wrong("the function gets 38 rows in all")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(len(x)):  # a step of 1
        out[i : i + rows] = function(x[i : i + rows] + bias)
    return out


@wrong("Only the first block is right")
def in_blocks(function, x, bias, rows):
    out = np.zeros_like(x)
    for i in range(0, len(x), rows):
        out[i:rows] = function(x[i:rows] + bias)
    return out


@wrong("`return` comes after the loop")
def in_blocks(function, x, bias, rows):
    out = np.full(x.shape, 7.0)
    for i in range(0, len(x), rows):
        out[i : i + rows] = function(x[i : i + rows] + bias)
        break  # as a `return` inside the loop does
    return out


@wrong("All blocks get the result of the first")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(0, len(x), rows):
        out[i : i + rows] = function(x[:rows] + bias)[: len(out[i : i + rows])]
    return out


@wrong("It changes its input x in place")
def in_blocks(function, x, bias, rows):
    for i in range(0, len(x), rows):
        x[i : i + rows] = function(x[i : i + rows] + bias)
    return x


@wrong("It returns a list of blocks")
def in_blocks(function, x, bias, rows):
    return [function(x[i : i + rows] + bias) for i in range(0, len(x), rows)]


@wrong("The last row of each block is missing")
def in_blocks(function, x, bias, rows):
    out = np.zeros_like(x)
    for i in range(0, len(x), rows):
        stop = min(i + rows, len(x)) - 1
        out[i:stop] = function(x[i:stop] + bias)
    return out


@wrong("Only the first row of each block is right")
def in_blocks(function, x, bias, rows):
    out = np.zeros_like(x)
    for i in range(0, len(x), rows):
        out[i] = function(x[i : i + 1] + bias)[0]
    return out


@wrong("Only the last block comes back")
def in_blocks(function, x, bias, rows):
    for i in range(0, len(x), rows):
        out = function(x[i : i + rows] + bias)
    return out


@wrong("`np.array` cannot join blocks of different lengths")
def in_blocks(function, x, bias, rows):
    return np.array([function(x[i : i + rows] + bias) for i in range(0, len(x), rows)])


@wrong("It calls gelu")
def in_blocks(function, x, bias, rows):
    return np.concatenate([gelu(x[i : i + rows] + bias) for i in range(0, len(x), rows)])


@wrong("6 rows at once where `rows` is 2")
def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for i in range(rows):  # every rows-th row
        out[i::rows] = function(x[i::rows] + bias)
    return out


@wrong("The function is not called")
def in_blocks(function, x, bias, rows):
    return np.concatenate([x[i : i + rows] + bias for i in range(0, len(x), rows)])


# --- linear_gelu ---


def fused(pre=None, out=None, dpre=None, dx=None, dweight=None, dbias=None):
    """An answer in which some parts are replaced by functions of what a learner has at hand."""

    def linear_gelu(x, weight, bias):
        z = pre(x, weight, bias) if pre else x @ weight + bias
        slope = once(lambda g: dpre(g, z) if dpre else g * gelu_slope(z))
        return out(z, x, weight, bias) if out else gelu(z), (
            lambda g: dx(slope(g), g, weight) if dx else slope(g) @ weight.T,
            lambda g: dweight(slope(g), g, x) if dweight else x.T @ slope(g),
            lambda g: dbias(slope(g), g) if dbias else slope(g).sum(0),
        )

    return linear_gelu


wrong_ones(
    "linear_gelu",
    {
        "The bias is not added": fused(pre=lambda x, w, b: x @ w),
        "The bias is added after the gelu": fused(out=lambda z, x, w, b: gelu(x @ w) + b),
        "The gelu is missing in the result": fused(out=lambda z, x, w, b: z),
        "The slope of the gelu is missing in all three": fused(dpre=lambda g, z: g),
        "The slope is taken at the result": fused(dpre=lambda g, z: g * gelu_slope(gelu(z))),
        "g is multiplied by gelu(pre)": fused(dpre=lambda g, z: g * gelu(z)),
        "g is missing in all three": fused(dpre=lambda g, z: gelu_slope(z)),
        "The gradient of x goes past the gelu": fused(dx=lambda d, g, w: g @ w.T),
        "The gradient of weight goes past the gelu": fused(dweight=lambda d, g, x: x.T @ g),
        "The gradient of bias goes past the gelu": fused(dbias=lambda d, g: g.sum(0)),
        "The transpose is missing in the gradient of x": fused(dx=lambda d, g, w: d @ w),
        "The gradient of weight is transposed": fused(dweight=lambda d, g, x: d.T @ x),
        "The gradient of bias is not summed": fused(dbias=lambda d, g: d),
        "The gradient of bias is averaged": fused(dbias=lambda d, g: d.mean(axis=0)),
        "The gradient of bias is summed over the channels": fused(dbias=lambda d, g: d.sum(1)),
        "(1) The slope is taken at the result": fused(
            dpre=lambda g, z: g * gelu_slope(gelu(z)), dbias=lambda d, g: d.mean(0)
        ),
        "the gradient of bias has the shape (1, 5), but should have (5,)": fused(
            dbias=lambda d, g: d.sum(0, keepdims=True)
        ),
        "the gradient of x is 2 times what it should be, everywhere": fused(dx=lambda d, g, w: 2 * d @ w.T),
    },
)


@wrong("The pullbacks of x and weight have changed places")
def linear_gelu(x, weight, bias):
    pre = x @ weight + bias
    dpre = once(lambda g: g * gelu_slope(pre))
    return gelu(pre), (
        lambda g: x.T @ dpre(g),
        lambda g: dpre(g) @ weight.T,
        lambda g: dpre(g).sum(0),
    )


@wrong("changes its input x in place")
def linear_gelu(x, weight, bias):
    x += 0.0001
    pre = x @ weight + bias
    dpre = once(lambda g: g * gelu_slope(pre))
    return gelu(pre), (
        lambda g: dpre(g) @ weight.T,
        lambda g: x.T @ dpre(g),
        lambda g: dpre(g).sum(0),
    )


@wrong("It changes its input g in place")
def linear_gelu(x, weight, bias):
    pre = x @ weight + bias

    def dpre(g):
        g *= gelu_slope(pre)
        return g

    return gelu(pre), (
        lambda g: dpre(g) @ weight.T,
        lambda g: x.T @ dpre(g),
        lambda g: dpre(g).sum(0),
    )


# --- micro_batches ---


def accumulated(share, share_of_gradient=None, last=True):
    """Means of micro-batches, added with these shares: functions of (rows here, size, all rows)."""

    def micro_batches(loss_and_gradient, x, y, size):
        loss, gradient = 0.0, 0.0
        for i in range(0, len(x) if last else len(x) - len(x) % size, size):
            its_loss, its_gradient = loss_and_gradient(x[i : i + size], y[i : i + size])
            here = (len(x[i : i + size]), size, len(x))
            loss = loss + share(*here) * its_loss
            gradient = gradient + (share_of_gradient or share)(*here) * its_gradient
        return loss, gradient

    return micro_batches


wrong_ones(
    "micro_batches",
    {
        "Means are added as they are": accumulated(lambda n, size, rows: 1),
        "Every micro-batch counts the same": accumulated(lambda n, size, rows: 1 / np.ceil(rows / size)),
        "Every micro-batch counts size / len(x)": accumulated(lambda n, size, rows: size / rows),
        "Divide by all rows": accumulated(lambda n, size, rows: n),
        "but not multiplied by how many rows": accumulated(lambda n, size, rows: 1 / rows),
        "The gradients are added without their weights": accumulated(
            lambda n, size, rows: n / rows, lambda n, size, rows: 1
        ),
        "The losses are added without their weights": accumulated(
            lambda n, size, rows: 1, lambda n, size, rows: n / rows
        ),
        "The last rows are left out": accumulated(lambda n, size, rows: n / rows, last=False),
        "in the wrong order: the gradient where the loss should be": lambda *case: accumulated(
            lambda n, size, rows: n / rows
        )(*case)[::-1],
        "11 rows are computed at once where `size` is 4": lambda f, x, y, size: f(x, y),
        "has the wrong sign": lambda *case: (lambda loss, gradient: (loss, -gradient))(
            *accumulated(lambda n, size, rows: n / rows)(*case)
        ),
        "Return two things": lambda *case: accumulated(lambda n, size, rows: n / rows)(*case)[0],
    },
)


@wrong("Only the last micro-batch is left")
def micro_batches(loss_and_gradient, x, y, size):
    for i in range(0, len(x), size):
        loss, gradient = loss_and_gradient(x[i : i + size], y[i : i + size])
    return loss, gradient


@wrong("Every micro-batch counts the same")
def micro_batches(loss_and_gradient, x, y, size):
    results = [loss_and_gradient(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]
    return np.mean([r[0] for r in results]), np.mean([r[1] for r in results], axis=0)


@wrong("22 rows are computed in all")
def micro_batches(loss_and_gradient, x, y, size):
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    loss = sum(len(x[p]) * loss_and_gradient(x[p], y[p])[0] for p in parts)
    gradient = sum(len(x[p]) * loss_and_gradient(x[p], y[p])[1] for p in parts)
    return loss / len(x), gradient / len(x)


@wrong("Only the first micro-batch counts")
def micro_batches(loss_and_gradient, x, y, size):
    loss, gradient = 0.0, 0.0
    for i in range(0, len(x), size):
        its_loss, its_gradient = loss_and_gradient(x[i : i + size], y[i : i + size])
        share = len(x[i : i + size]) / len(x)
        loss, gradient = loss + share * its_loss, gradient + share * its_gradient
        break  # as a `return` inside the loop does
    return loss, gradient


@wrong("The loss is that of the last micro-batch alone")
def micro_batches(loss_and_gradient, x, y, size):
    gradient = 0.0
    for i in range(0, len(x), size):
        loss, its_gradient = loss_and_gradient(x[i : i + size], y[i : i + size])
        gradient = gradient + len(x[i : i + size]) / len(x) * its_gradient
    return loss, gradient


@wrong("Some rows never reach `loss_and_gradient`: of 11 rows, 4 at a time, it gets 8")
def micro_batches(loss_and_gradient, x, y, size):
    """The rows that are left over are left out, and the others count more."""
    blocks, loss, gradient = max(1, len(x) // size), 0.0, 0.0
    for b in range(blocks):
        rows = slice(b * size, (b + 1) * size)
        its_loss, its_gradient = loss_and_gradient(x[rows], y[rows])
        loss, gradient = loss + its_loss / blocks, gradient + its_gradient / blocks
    return loss, gradient


@wrong("It is right where `size` divides the number of rows")
def micro_batches(loss_and_gradient, x, y, size):
    """The last one counts one row too few."""
    loss, gradient = 0.0, 0.0
    for i in range(0, len(x), size):
        its_loss, its_gradient = loss_and_gradient(x[i : i + size], y[i : i + size])
        n = len(x[i : i + size])
        share = (n if n == size else n - 1) / len(x)
        loss, gradient = loss + share * its_loss, gradient + share * its_gradient
    return loss, gradient


# --- recomputing ---

wrong_ones(
    "recomputing",
    {
        "the first pullback is kept": lambda f, x: f(x),
        "the function runs 2 times": lambda f, x: (f(x)[0], f(x)[1]),
        "it starts from the result": lambda f, x: (lambda out: (out, lambda g: f(out)[1](g)))(f(x)[0]),
        "The pullback gives the function's result": lambda f, x: (f(x)[0], lambda g: f(x)[0]),
        "The pullback multiplies by g once more": lambda f, x: (f(x)[0], lambda g: f(x)[1](g) * g),
        "g is handed on as it came": lambda f, x: (f(x)[0], lambda g: g),
        "g does not arrive": lambda f, x: (f(x)[0], lambda g: f(x)[1](np.ones(g.shape))),
        "The result is x": lambda f, x: (x, lambda g: f(x)[1](g)),
        "call it with g.": lambda f, x: (f(x)[0], lambda g: f(x)),
        "The pullback returns a function": lambda f, x: (f(x)[0], lambda g: f(x)[1]),
        "Take the first of the two": lambda f, x: (f(x), lambda g: f(x)[1](g)),
        "Return two things": lambda f, x: f(x)[0],
        "The result is a function": lambda f, x: (f(x)[1], lambda g: f(x)[0]),
        "A pullback is a function": lambda f, x: (f(x)[0], None),
        "the pullback runs the function 2 times": lambda f, x: (f(x)[0], lambda g: (f(x), f(x)[1](g))[1]),
        "2 times what it should be": lambda f, x: (f(x)[0], lambda g: 2 * f(x)[1](g)),
    },
)


@wrong("the first pullback is kept")
def recomputing(function, x):
    out, pullback = function(x)
    return out, lambda g: pullback(g)


@wrong("at g, not at x")
def recomputing(function, x):
    return function(x)[0], lambda g: function(g)[1](g)


# --- cached_attention ---


def softmax(scores, axis=-1):
    e = np.exp(scores - scores.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def cached(stop=lambda t: t + 1, scale=lambda q, keys: q.shape[-1] ** 0.5, soft=softmax, start=lambda t: 0):
    def cached_attention(q, k, v, keys, values, t):
        keys[:, t], values[:, t] = k, v
        part = slice(start(t), stop(t))
        p = soft(np.einsum("hd,htd->ht", q, keys[:, part]) / scale(q, keys))
        return np.einsum("ht,htd->hd", p, values[:, part])

    return cached_attention


wrong_ones(
    "cached_attention",
    {
        "but not at t itself": cached(stop=lambda t: t),
        "It looks at all places of the cache": cached(stop=lambda t: None),
        "one place too far": cached(stop=lambda t: t + 2),
        "looks at itself only": cached(start=lambda t: t),
        "The scores are not scaled": cached(scale=lambda q, keys: 1),
        "The scale is 1/D": cached(scale=lambda q, keys: q.shape[-1]),
        "The scale is √D": cached(scale=lambda q, keys: q.shape[-1] ** -0.5),
        "You scale by √T": cached(scale=lambda q, keys: keys.shape[1] ** 0.5),
        "You scale by √H": cached(scale=lambda q, keys: len(q) ** 0.5),
        "The softmax runs over the heads": cached(soft=lambda s: softmax(s, 0)),
        "One softmax for all heads": cached(soft=lambda s: softmax(s, (0, 1))),
        "The softmax is missing": cached(soft=lambda s: s),
        "the weights do not add up to 1": cached(soft=np.exp),
    },
)


@wrong("Nothing is stored")
def cached_attention(q, k, v, keys, values, t):
    keys = np.concatenate([keys[:, :t], k[:, None]], axis=1)
    values = np.concatenate([values[:, :t], v[:, None]], axis=1)
    p = softmax(np.einsum("hd,htd->ht", q, keys) / q.shape[-1] ** 0.5)
    return np.einsum("ht,htd->hd", p, values)


@wrong("before it has stored k and v")
def cached_attention(q, k, v, keys, values, t):
    p = softmax(np.einsum("hd,htd->ht", q, keys[:, : t + 1]) / q.shape[-1] ** 0.5)
    out = np.einsum("ht,htd->hd", p, values[:, : t + 1])
    keys[:, t], values[:, t] = k, v
    return out


@wrong("k and v have changed places")
def cached_attention(q, k, v, keys, values, t):
    return cached()(q, v, k, keys, values, t)


@wrong("`=`, not `+=`")
def cached_attention(q, k, v, keys, values, t):
    return cached()(q, keys[:, t] + k, values[:, t] + v, keys, values, t)


@wrong("fill all places from t on")
def cached_attention(q, k, v, keys, values, t):
    out = cached()(q, k, v, keys, values, t)
    keys[:, t:], values[:, t:] = k[:, None], v[:, None]
    return out


@wrong("v is not stored")
def cached_attention(q, k, v, keys, values, t):
    return cached()(q, k, values[:, t].copy(), keys, values, t)


@wrong("mix the keys instead of the values")
def cached_attention(q, k, v, keys, values, t):
    keys[:, t], values[:, t] = k, v
    p = softmax(np.einsum("hd,htd->ht", q, keys[:, : t + 1]) / q.shape[-1] ** 0.5)
    return np.einsum("ht,htd->hd", p, keys[:, : t + 1])


@wrong("k asks instead of q")
def cached_attention(q, k, v, keys, values, t):
    return cached()(k, k, v, keys, values, t)


@wrong("Return one array")
def cached_attention(q, k, v, keys, values, t):
    return cached()(q, k, v, keys, values, t), keys, values


@wrong("It changes its input q in place")
def cached_attention(q, k, v, keys, values, t):
    q /= q.shape[-1] ** 0.5
    return cached(scale=lambda q, keys: 1)(q, k, v, keys, values, t)
