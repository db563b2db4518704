"""Notebook 11: from slow to fast."""

import inspect
import pstats
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
from matplotlib.patches import Rectangle

import autograd as ag
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.model import GPT
from workbook.checking import (
    Checks,
    Exercise,
    Wrong,
    named_results,
    pullback_exercise,
    random_arrays,
    with_pairs,
    with_pullback,
)
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels, reference_lines

check = Checks()
normal = random_arrays(11)


# --- swiglu ---------------------------------------------------------------------------------------


def sigmoid(x):
    return ag.sigmoid.raw(x)[0]


def swiglu(x, y):
    s = sigmoid(x)
    return x * s * y, (lambda g: g * y * (s + x * s * (1 - s)), lambda g: g * x * s)


def _swiglu(
    gate=sigmoid,
    value=lambda x, y, s: x * s * y,
    dx=lambda x, y, s: y * (s + x * s * (1 - s)),
    dy=lambda x, y, s: x * s,
    through_dx=lambda g, slope: g * slope,
    through_dy=lambda g, slope: g * slope,
):
    """`swiglu` from its parts, so that one or two of them can be wrong."""

    def wrong(x, y):
        s = gate(x)
        return value(x, y, s), (
            lambda g: through_dx(g, dx(x, y, s)),
            lambda g: through_dy(g, dy(x, y, s)),
        )

    return wrong


def _swiglu_swapped(x, y):
    out, (dx, dy) = swiglu(x, y)
    return out, (dy, dx)


def _gated_by_y(x, y):
    out, (dx, dy) = swiglu(y, x)
    return out, (dy, dx)


def _advise_swiglu(answer):
    x = np.array([-1000.0, 1000.0])
    out, pullbacks = answer(x, np.ones(2))
    if not all(np.isfinite(a).all() for a in (out, *(pull(np.ones(2)) for pull in pullbacks))):
        return "for x of -1000 or 1000 there is nan in it. `1 / (1 + np.exp(-x))` has none."
    return ""


check.add(
    "swiglu",
    pullback_exercise(
        ("x", "y"),
        swiglu,
        [tuple(normal(3, 4)), tuple(2 * normal(3, 2, 3)), tuple(normal(3, 5) * 4)],
        with_pairs(
            _swiglu,
            {
                "In the gradient of x, the sigmoid was held constant. x comes in twice: as a factor, and "
                "inside the sigmoid.": {"dx": lambda x, y, s: y * s},
                "In the gradient of x only the way through the sigmoid counts. x is a factor as well: "
                "the term with s alone is missing.": {"dx": lambda x, y, s: y * x * s * (1 - s)},
                "The factor y is missing in the gradient of x.": {"dx": lambda x, y, s: s + x * s * (1 - s)},
                "In the gradient of x the slope of the sigmoid is s. It is s * (1 - s).": {
                    "dx": lambda x, y, s: y * (s + x * s)
                },
                "In the gradient of x the slope of the sigmoid is 1 - s. It is s * (1 - s).": {
                    "dx": lambda x, y, s: y * (s + x * (1 - s))
                },
                "In the gradient of x the slope of the sigmoid is that of tanh, 1 - s². It is s * (1 - s).": {
                    "dx": lambda x, y, s: y * (s + x * (1 - s * s))
                },
                "In the gradient of x there is a minus where a plus belongs: s + x * s * (1 - s).": {
                    "dx": lambda x, y, s: y * (s - x * s * (1 - s))
                },
                "In the gradient of x the factor x at the sigmoid's slope is missing: s + x * s * (1 - s).": {
                    "dx": lambda x, y, s: y * (s + s * (1 - s))
                },
                "In the gradient of x, y multiplies only one of the two terms. Parentheses: "
                "y * (s + x * s * (1 - s)).": {"dx": lambda x, y, s: y * s + x * s * (1 - s)},
                "The gradient of x is the slope of the sigmoid alone. But the sigmoid is multiplied by x, so "
                "there are two terms.": {"dx": lambda x, y, s: y * s * (1 - s)},
                "The sigmoid is missing in the gradient of y.": {"dy": lambda x, y, s: x},
                "The factor x is missing in the gradient of y.": {"dy": lambda x, y, s: s},
                "The gradient of y contains y itself. y is a factor: its slope is what it is "
                "multiplied by.": {"dy": lambda x, y, s: x * s * y},
                "The gradient of x does not contain g. A pullback turns the upstream gradient into "
                "another.": {"through_dx": lambda g, slope: slope},
                "The gradient of y does not contain g. A pullback turns the upstream gradient into "
                "another.": {"through_dy": lambda g, slope: slope},
                "The sign in the exponent is wrong: sigmoid(x) is 1 / (1 + exp(-x)).": {
                    "gate": lambda x: sigmoid(-x)
                },
                "The factor x is missing in the result: x * sigmoid(x) * y.": {
                    "value": lambda x, y, s: s * y
                },
                "The factor y is missing in the result: x * sigmoid(x) * y.": {
                    "value": lambda x, y, s: x * s
                },
            },
        )
        | {
            "The two pullbacks have changed places: the first belongs to x, the second to y.": (
                _swiglu_swapped
            ),
            "x and y have changed places: the sigmoid is that of x.": _gated_by_y,
            "In the gradient of x the first term is 1 - s. It is s, the slope of x * s with s held "
            "constant.": _swiglu(dx=lambda x, y, s: y * ((1 - s) + x * s * (1 - s))),
        },
        advise=_advise_swiglu,
    ),
)


# --- in_blocks ------------------------------------------------------------------------------------


def in_blocks(function, x, bias, rows):
    out = np.empty_like(x)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        out[part] = function(x[part] + bias)
    return out


def wave(x):
    return np.sin(x) + x


def shares(x):
    """Of each row: it must be whole."""
    return ag.softmax.raw(x)[0]


class Watched:
    """A function that notes how many rows it gets in each call."""

    def __init__(self, function):
        self.function, self.__name__, self.rows = function, function.__name__, []

    def __call__(self, x, *others):
        self.rows.append(len(x))
        return self.function(x, *others)


def _one_array(function, *case):
    result = function(*case)
    if isinstance(result, list | tuple):
        raise Wrong(
            "It returns a list of blocks. Write each block into its place in one array, "
            "which you make before the loop: `np.empty_like(x)`."
        )
    return {"the result": result}


def _blocks_of(function, pieces, add=lambda x, bias, part: x[part] + bias):
    """`in_blocks` over other pieces (a function of n and rows); what no piece covers stays 0."""

    def wrong(f, x, bias, rows):
        out = np.zeros_like(x)
        for part in pieces(len(x), rows):
            out[part] = function(f, x, bias, part) if function else f(add(x, bias, part))
        return out

    return wrong


def _starts(n, rows):
    return [slice(start, start + rows) for start in range(0, n, rows)]


def _columns(f, x, bias, rows):
    out = np.empty_like(x)
    for start in range(0, x.shape[1], rows):
        part = slice(start, start + rows)
        out[:, part] = f(x[:, part] + bias[part])
    return out


def _explain_blocks(answer):
    """Which rows are right, where memory that nobody wrote makes the rest look random; or ""."""
    x, bias = normal(11, 3), normal(3)
    right = np.isclose(answer(wave, x.copy(), bias, 4), in_blocks(wave, x, bias, 4)).all(-1)
    if right[:8].all() and not right[8:].any():
        return (
            "The last rows are wrong, those of the block that is smaller than the others. "
            "`range(0, len(x), rows)` has a start for it, too."
        )
    if right[:4].all() and not right[4:].any():
        return (
            "Only the first block is right. Does the loop go on to the others? They start at rows, 2 * rows, "
            "..., each runs from `start` to `start + rows`, and `return` comes after the loop."
        )
    if right[::4].all() and not np.delete(right, [0, 4, 8]).any():
        return (
            "Only the first row of each block is right. Write the whole block into its place: "
            "`out[start : start + rows] = ...`"
        )
    if right[:3].all() and not right[3::4].any() and right[4:7].all():
        return "The last row of each block is missing: a slice ends *before* its second number."
    return ""


def _inspect_blocks(answer):
    """The numbers are right; this asks whether there are blocks, and whether they overlap."""
    for n, rows in ((11, 4), (12, 2)):
        watched = Watched(wave)
        answer(watched, normal(n, 3), normal(3), rows)
        if max(watched.rows, default=0) > rows:
            raise Wrong(
                f"The numbers are right, but the function gets {max(watched.rows)} rows at once where "
                f"`rows` is {rows}. Cut x into blocks of that size, and call it for each."
            )
        if sum(watched.rows) > n:
            raise Wrong(
                f"The numbers are right, but the function gets {sum(watched.rows)} rows in all, and x has "
                f"{n}. Your blocks overlap: the next one starts `rows` later."
            )


def memory_of(function, *arguments):
    """(kept, peak): bytes that live on in the function's result, and the most there were while it ran."""
    tracemalloc.start()
    try:
        result = function(*arguments)
        kept, peak = tracemalloc.get_traced_memory()
        del result
        return kept, peak
    finally:
        tracemalloc.stop()


def _advise_blocks(answer):
    watched = Watched(wave)
    answer(watched, normal(11, 3), normal(3), 4)
    if len(watched.rows) > 3:
        return (
            f"it makes {len(watched.rows)} calls, for blocks smaller than `rows`. "
            "That is right, but calls cost time, too."
        )
    x, bias = normal(2000, 40), normal(40)
    if memory_of(answer, wave, x, bias, 20)[1] > 1.7 * x.nbytes:
        return (
            "it needs twice the memory of its result: `x + bias` is made for the whole array, or the blocks "
            "are collected and copied at the end. Add the bias inside the loop, and write each block into "
            "its place in one array."
        )
    return ""


check.add(
    "in_blocks",
    Exercise(
        in_blocks,
        [
            (wave, normal(7, 3), normal(3), 3),
            (shares, normal(6, 4), normal(4), 2),
            (shares, normal(3, 5), normal(5), 8),
            (wave, normal(4, 2), normal(2), 1),
        ],
        {
            "The bias is not added.": _blocks_of(None, _starts, lambda x, bias, part: x[part]),
            "The bias is added after the function. It belongs inside: function(x + bias).": _blocks_of(
                lambda f, x, bias, part: f(x[part]) + bias, _starts
            ),
            "The bias is subtracted. Add it.": _blocks_of(
                None, _starts, lambda x, bias, part: x[part] - bias
            ),
            "The bias was cut into blocks, too. It has one number per channel, not per row: every block "
            "gets all of it.": _blocks_of(None, _starts, lambda x, bias, part: x[part] + bias[part]),
            "The last rows are left out. If `rows` does not divide the number of rows, the last block is "
            "smaller: `range(0, len(x), rows)` has a start for it, too.": _blocks_of(
                None, lambda n, rows: _starts(n - n % rows, rows)
            ),
            "The last rows are missing from the result. If `rows` does not divide the number of rows, the "
            "last block is smaller.": lambda f, x, bias, rows: f(x[: len(x) - len(x) % rows] + bias),
            "The blocks are blocks of columns. A function of rows, such as softmax, needs each row whole: "
            "cut the first axis.": _columns,
            "The function is not called.": _blocks_of(lambda f, x, bias, part: x[part] + bias, _starts),
            "It calls gelu. Call `function`, whichever that is.": _blocks_of(
                lambda f, x, bias, part: gelu(x[part] + bias), _starts
            ),
            "Only the last block comes back: each replaces the one before. Write each into its place in one "
            "array, which you make before the loop.": lambda f, x, bias, rows: f(
                x[(len(x) - 1) // rows * rows :] + bias
            ),
            "`np.array` cannot join blocks of different lengths. Use `np.concatenate`, or write each into "
            "its place in one array.": lambda f, x, bias, rows: np.array(
                [f(x[i : i + rows] + bias) for i in range(0, len(x), rows)]
            ),
            "All blocks get the result of the first. Slice with the block's own start.": _blocks_of(
                lambda f, x, bias, part: f(x[: part.stop - part.start] + bias)[: len(x[part])], _starts
            ),
        },
        _one_array,
        inspect=_inspect_blocks,
        advise=_advise_blocks,
        explain=_explain_blocks,
    ),
)


# --- linear_gelu ----------------------------------------------------------------------------------

A, C = 0.044715, (2 / np.pi) ** 0.5  # of the gelu of GPT-2


def gelu(x):
    """0.5 x (1 + tanh(c (x + a x³))), in plain NumPy: eight passes over memory."""
    return 0.5 * x * (1 + np.tanh(C * (x + A * x * x * x)))


def gelu_slope(x):
    """The slope of gelu at each element of x."""
    t = np.tanh(C * (x + A * x * x * x))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * C * (1 + 3 * A * x * x)


def once(function):
    """A function of an array that keeps its last result, for pullbacks that begin with the same work."""
    kept = [None, None]  # the last argument, and the function of it

    def remembering(array):
        if kept[0] is not array:
            kept[:] = array, function(array)
        return kept[1]

    return remembering


def linear_gelu(x, weight, bias):
    pre = x @ weight + bias
    dpre = once(lambda g: g * gelu_slope(pre))
    return gelu(pre), (
        lambda g: dpre(g) @ weight.T,
        lambda g: x.T @ dpre(g),
        lambda g: dpre(g).sum(0),
    )


def _linear_gelu(
    pre=lambda x, w, b: x @ w + b,
    result=lambda pre, x, w, b: gelu(pre),
    dpre=lambda g, pre: g * gelu_slope(pre),
    dx=lambda d, g, w: d @ w.T,
    dweight=lambda d, g, x: x.T @ d,
    dbias=lambda d, g: d.sum(0),
):
    """`linear_gelu` from its parts, so that one or two of them can be wrong."""

    def wrong(x, weight, bias):
        z = pre(x, weight, bias)
        return result(z, x, weight, bias), (
            lambda g: dx(dpre(g, z), g, weight),
            lambda g: dweight(dpre(g, z), g, x),
            lambda g: dbias(dpre(g, z), g),
        )

    return wrong


def _linear_case(n, k, m):
    return normal(n, k), normal(k, m), normal(m), normal(n, m)


check.add(
    "linear_gelu",
    pullback_exercise(
        ("x", "weight", "bias"),
        linear_gelu,
        [_linear_case(4, 3, 5), _linear_case(2, 6, 3), _linear_case(1, 2, 4)],
        with_pairs(
            _linear_gelu,
            {
                "The bias is not added.": {"pre": lambda x, w, b: x @ w},
                "The bias is added after the gelu. It belongs inside: gelu(x @ weight + bias).": {
                    "result": lambda pre, x, w, b: gelu(x @ w) + b
                },
                "The gelu is missing in the result.": {"result": lambda pre, x, w, b: pre},
                "The slope of the gelu is missing in all three gradients: dpre = g * gelu_slope(pre).": {
                    "dpre": lambda g, pre: g
                },
                "The slope is taken at the result, gelu(pre). Take it at pre, where the gelu was applied.": {
                    "dpre": lambda g, pre: g * gelu_slope(gelu(pre))
                },
                "g is multiplied by gelu(pre). The chain rule wants the slope: gelu_slope(pre).": {
                    "dpre": lambda g, pre: g * gelu(pre)
                },
                "The slope is taken at g. Take it at pre.": {"dpre": lambda g, pre: g * gelu_slope(g)},
                "g is missing in all three gradients: dpre = g * gelu_slope(pre).": {
                    "dpre": lambda g, pre: gelu_slope(pre)
                },
                "The gradient of x goes past the gelu: it is made of g, not of dpre.": {
                    "dx": lambda d, g, w: g @ w.T
                },
                "The gradient of weight goes past the gelu: it is made of g, not of dpre.": {
                    "dweight": lambda d, g, x: x.T @ g
                },
                "The gradient of bias goes past the gelu: it is made of g, not of dpre.": {
                    "dbias": lambda d, g: g.sum(0)
                },
                "The transpose is missing in the gradient of x: dpre @ weight.T.": {
                    "dx": lambda d, g, w: d @ w
                },
                "The gradient of weight is transposed: x.T @ dpre, of the shape of weight.": {
                    "dweight": lambda d, g, x: d.T @ x
                },
                "The transpose is missing in the gradient of weight: x.T @ dpre.": {
                    "dweight": lambda d, g, x: x @ d
                },
                "The gradient of bias is not summed. The same bias was added in every row: sum(0).": {
                    "dbias": lambda d, g: d
                },
                "The gradient of bias is averaged over the rows. Uses add up: sum(0).": {
                    "dbias": lambda d, g: d.mean(0)
                },
                "The gradient of weight is averaged over the rows. Uses add up: x.T @ dpre.": {
                    "dweight": lambda d, g, x: x.T @ d / len(x)
                },
                "The gradient of bias is summed over the channels. Each channel has its own bias: "
                "sum over rows.": {"dbias": lambda d, g: d.sum(-1)},
            },
        )
        | {
            "The pullbacks of x and weight have changed places.": lambda x, w, b: (
                linear_gelu(x, w, b)[0],
                tuple(linear_gelu(x, w, b)[1][i] for i in (1, 0, 2)),
            ),
        },
    ),
)


# --- micro_batches --------------------------------------------------------------------------------


def micro_batches(loss_and_gradient, x, y, size):
    loss, gradient = 0.0, 0.0
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        its_loss, its_gradient = loss_and_gradient(x[part], y[part])
        weight = len(x[part]) / len(x)
        loss = loss + weight * its_loss
        gradient = gradient + weight * its_gradient
    return loss, gradient


def fit(x, y):
    """The mean squared error of a line through the rows, and its gradient."""
    error = x @ np.linspace(-1, 1, x.shape[1]) - y
    return (error**2).mean(), 2 * x.T @ error / len(x)


def logistic(x, y):
    """The mean of log(1 + exp(-y z)), z along the rows, and its gradient."""
    z = y * (x @ np.linspace(0.5, -0.5, x.shape[1]))
    return np.log1p(np.exp(-z)).mean(), x.T @ (-y * sigmoid(-z)) / len(x)


def _accumulated(
    loss_weight=lambda n, size, rows, blocks: n / rows,
    gradient_weight=lambda n, size, rows, blocks: n / rows,
    starts=lambda rows, size: range(0, rows, size),
    sizes=lambda size: size,
    keep=lambda total, new: total + new,
):
    """`micro_batches` from its parts, so that one or two of them can be wrong."""

    def wrong(loss_and_gradient, x, y, size):
        loss, gradient, rows = 0.0, 0.0, len(x)
        blocks = -(-rows // size)
        for start in starts(rows, size):
            part = slice(start, start + sizes(size))
            its_loss, its_gradient = loss_and_gradient(x[part], y[part])
            n = len(x[part])
            loss = keep(loss, loss_weight(n, size, rows, blocks) * its_loss)
            gradient = keep(gradient, gradient_weight(n, size, rows, blocks) * its_gradient)
        return loss, gradient

    return wrong


def _both(weight):
    return {"loss_weight": weight, "gradient_weight": weight}


_loss_and_gradient = named_results(
    "the loss", "the gradient", otherwise="Return two things: the loss (a number) and the gradient."
)


def _inspect_micro_batches(answer):
    watched = Watched(fit)
    answer(watched, normal(11, 3), normal(11), 4)
    if max(watched.rows) > 4:
        raise Wrong(
            f"The numbers are right, but {max(watched.rows)} rows are computed at once where `size` is 4. "
            "That needs the memory of all of them."
        )
    if sum(watched.rows) > 11:
        raise Wrong(
            f"The numbers are right, but {sum(watched.rows)} rows are computed in all, and x has 11: "
            "take loss and gradient from the same call, and let no blocks overlap."
        )


def _explain_micro_batches(answer):
    watched = Watched(fit)
    answer(watched, normal(11, 3), normal(11), 4)
    if sum(watched.rows) < 11:
        return (
            "Some rows never reach `loss_and_gradient`: of 11 rows, 4 at a time, it gets "
            f"{sum(watched.rows)}. The last micro-batch may be smaller than the others."
        )
    x, y = normal(6, 3), normal(6)
    even = all(
        np.allclose(a, b) for a, b in zip(answer(fit, x, y, 3), micro_batches(fit, x, y, 3), strict=True)
    )
    if even:
        return (
            "It is right where `size` divides the number of rows. Otherwise the last micro-batch is smaller: "
            "its mean is one of fewer rows, so it must count less."
        )
    return ""


check.add(
    "micro_batches",
    Exercise(
        micro_batches,
        [
            (fit, normal(7, 3), normal(7), 3),
            (logistic, normal(8, 2), np.sign(normal(8)), 2),
            (fit, normal(5, 4), normal(5), 1),
            (logistic, normal(3, 2), np.sign(normal(3)), 8),
        ],
        with_pairs(
            _accumulated,
            {
                "Means are added as they are, so the sum grows with the number of micro-batches. "
                "Each counts with its part of the rows: len(part) / len(x).": _both(lambda n, s, rows, b: 1),
                "Every micro-batch counts the same. The last one may be smaller, and its mean must count "
                "less: len(part) / len(x).": _both(lambda n, s, rows, b: 1 / b),
                "Every micro-batch counts size / len(x), also the last one, which may be smaller. "
                "Use the number of rows that it really has.": _both(lambda n, s, rows, b: s / rows),
                "Each micro-batch counts with the number of its rows. Divide by all rows: "
                "len(part) / len(x).": _both(lambda n, s, rows, b: n),
                "These are the micro-batches' means divided by `size`. Each counts with its part of the "
                "rows: len(part) / len(x).": _both(lambda n, s, rows, b: 1 / s),
                "The means are divided by the number of rows, but not multiplied by how many rows each "
                "micro-batch has.": _both(lambda n, s, rows, b: 1 / rows),
            },
        )
        | {
            "The gradients are added without their weights. Each counts as much as its loss does: "
            "len(part) / len(x).": _accumulated(gradient_weight=lambda n, s, r, b: 1),
            "The losses are added without their weights. Each counts as much as its gradient does: "
            "len(part) / len(x).": _accumulated(loss_weight=lambda n, s, r, b: 1),
            "Only the last micro-batch is left: each one replaces what came before. Add them up.": (
                _accumulated(keep=lambda total, new: new)
            ),
            "The last rows are left out. If `size` does not divide the number of rows, the last "
            "micro-batch is smaller.": _accumulated(
                starts=lambda rows, size: range(0, rows - rows % size, size)
            ),
            "Only the first micro-batch counts. The others must be added: `return` comes after the loop.": (
                _accumulated(starts=lambda rows, size: [0])
            ),
            "Only the last micro-batch is left, with the weight 1. Add them all up, each with "
            "len(part) / len(x).": _accumulated(**_both(lambda n, s, r, b: 1), keep=lambda total, new: new),
            "The loss is that of the last micro-batch alone. Add the losses up, as the gradients.": (
                lambda f, x, y, size: (
                    f(x[(len(x) - 1) // size * size :], y[(len(x) - 1) // size * size :])[0],
                    f(x, y)[1],
                )
            ),
        },
        _loss_and_gradient,
        inspect=_inspect_micro_batches,
        explain=_explain_micro_batches,
    ),
)


# --- recomputing ----------------------------------------------------------------------------------


def recomputing(function, x):
    out, _ = function(x)
    return out, lambda g: function(x)[1](g)


def cubed(x):
    return x**3, lambda g: g * 3 * x**2


def softened(x):
    """A softmax of each row, and its pullback."""
    return ag.softmax.raw(x)


def mixed(x):
    """sin(x) times a matrix: the result has another shape than x."""
    weight = np.linspace(-1, 1, x.shape[-1] * 2).reshape(x.shape[-1], 2)
    return np.sin(x) @ weight, lambda g: (g @ weight.T) * np.cos(x)


_x_pulled_back = with_pullback("x")


def _recomputed(answer, function, x, g):
    results = _x_pulled_back(answer, function, x, g)
    if isinstance(results["the gradient of x"], tuple):
        raise Wrong(
            "The pullback returns all that function(x) returns. The second of these is a function: "
            "call it with g."
        )
    if callable(results["the gradient of x"]):
        raise Wrong("The pullback returns a function. Call it with g, and return what that gives.")
    if callable(results["the result"]):
        raise Wrong("The result is a function. Of the two things that function(x) returns, take the first.")
    if isinstance(results["the result"], tuple):
        raise Wrong("The result is all that function(x) returns. Take the first of the two.")
    return results


class _Counted:
    """A function with a pullback that counts its calls, and knows which of its pullbacks are alive."""

    def __init__(self):
        self.calls, self.pullbacks, self.__name__ = 0, [], "mixed"

    def __call__(self, x):
        self.calls += 1
        out, pullback = mixed(x)
        self.pullbacks.append(weakref.ref(pullback))
        return out, pullback


def _inspect_recomputing(answer):
    function, g = _Counted(), normal(3, 2)
    out, pullback = answer(function, normal(3, 4))
    if function.calls > 1:
        raise Wrong(
            f"The numbers are right, but on the way forward the function runs {function.calls} times. "
            "Once is enough: the second time belongs into the pullback."
        )
    if any(alive() for alive in function.pullbacks):
        raise Wrong(
            "The numbers are right, but the first pullback is kept, and with it all arrays that it needs. "
            "Forget it, and call the function again when g has come."
        )
    pullback = pullback[0] if isinstance(pullback, tuple | list) else pullback
    pullback(g)
    if function.calls > 2:
        raise Wrong(f"The numbers are right, but the pullback runs the function {function.calls - 1} times.")


check.add(
    "recomputing",
    Exercise(
        recomputing,
        [
            (mixed, normal(3, 4), normal(3, 2)),
            (cubed, normal(5), normal(5)),
            (softened, normal(2, 4), normal(2, 4)),
        ],
        {
            "The pullback is that of function(function(x)): it starts from the result. Start from x, which "
            "you keep.": lambda f, x: (f(x)[0], lambda g: f(f(x)[0])[1](g)),
            "The pullback gives the function's result, not its gradient. Take the second of the two things "
            "that the function returns, and call it with g.": lambda f, x: (f(x)[0], lambda g: f(x)[0]),
            "The pullback multiplies by g once more. function(x)[1](g) has the chain rule in it "
            "already.": lambda f, x: (f(x)[0], lambda g: g * f(x)[1](g)),
            "The function is computed again at g. Compute it at x; g is what its pullback "
            "gets.": lambda f, x: (f(x)[0], lambda g: f(g)[1](x)),
            "The function is computed again at g, not at x.": lambda f, x: (f(x)[0], lambda g: f(g)[1](g)),
            "g is handed on as it came. The pullback must call function(x)[1] with it.": lambda f, x: (
                f(x)[0],
                lambda g: g,
            ),
            "g does not arrive: the function's pullback gets ones instead.": lambda f, x: (
                f(x)[0],
                lambda g: f(x)[1](np.ones_like(g)),
            ),
            "The result is x. Return what the function makes of it, the first of the two.": lambda f, x: (
                x,
                lambda g: f(x)[1](g),
            ),
            "The function's pullback gets the result instead of g.": lambda f, x: (
                f(x)[0],
                lambda g: f(x)[1](f(x)[0]),
            ),
        },
        _recomputed,
        inspect=_inspect_recomputing,
    ),
)


# --- cached_attention -----------------------------------------------------------------------------


def cached_attention(q, k, v, keys, values, t):
    keys[:, t], values[:, t] = k, v
    scores = np.einsum("hd,htd->ht", q, keys[:, : t + 1]) * q.shape[-1] ** -0.5
    return np.einsum("ht,htd->hd", softened(scores)[0], values[:, : t + 1])


def _put(array, t, row):
    """A copy of an array (H, T, D) with other rows at place t, or at a slice of places."""
    array = array.copy()
    array[:, t] = row
    return array


def _cached(
    stored=lambda keys, values, k, v, t: (_put(keys, t, k), _put(values, t, v)),
    read=lambda old, new: new,
    seen=lambda t, T: slice(0, t + 1),
    query=lambda q, k, v: q,
    scale=lambda keys: keys.shape[-1] ** -0.5,
    weights=lambda scores: ag.softmax.raw(scores, -1)[0],
    mixed_ones=lambda keys, values: values,
    keep=lambda old, new: new,
):
    """`cached_attention` from its parts, so that one or two of them can be wrong.

    read: which of the arrays before and after storing it looks at; keep: which of them it leaves behind.
    """

    def wrong(q, k, v, keys, values, t):
        old, new = (keys.copy(), values.copy()), stored(keys, values, k, v, t)
        all_keys, all_values = read(old, new)
        part = seen(t, keys.shape[1])
        scores = np.einsum("hd,htd->ht", query(q, k, v), all_keys[:, part]) * scale(keys)
        mixed_up = mixed_ones(all_keys, all_values)[:, part]
        keys[...], values[...] = keep(old, new)
        return np.einsum("ht,htd->hd", weights(scores), mixed_up)

    return wrong


def _cached_step(function, q, k, v, keys, values, t):
    """Its own copies of keys and values, since these shall be changed."""
    keys, values = keys.copy(), values.copy()
    result = function(q, k, v, keys, values, t)
    if isinstance(result, tuple | list):
        raise Wrong("Return one array, the result (H, D). `keys` and `values` are changed in place.")
    return {"the result": result, "the keys": keys, "the values": values}


def _cached_case(H, T, D, t):
    return *normal(3, H, D), *normal(2, H, T, D), t


check.add(
    "cached_attention",
    Exercise(
        cached_attention,
        [
            _cached_case(2, 6, 4, 3),
            _cached_case(3, 5, 2, 1),
            _cached_case(2, 4, 3, 3),
            _cached_case(1, 7, 9, 5),
            _cached_case(2, 3, 5, 0),
        ],
        with_pairs(
            _cached,
            {
                "Nothing is stored: `keys` and `values` stay as they were. The next step will miss this "
                "position.": {"keep": lambda old, new: old},
                "It looks at the cache before it has stored k and v, so it sees what stood at place t "
                "before.": {"read": lambda old, new: old},
                "k and v are stored at the wrong place, one too early. They belong at place t.": {
                    "stored": lambda keys, values, k, v, t: (_put(keys, t - 1, k), _put(values, t - 1, v))
                },
                "k and v have changed places in the cache.": {
                    "stored": lambda keys, values, k, v, t: (_put(keys, t, v), _put(values, t, k))
                },
                "k and v are added to what stood at place t. Put them there: `=`, not `+=`.": {
                    "stored": lambda keys, values, k, v, t: (
                        _put(keys, t, keys[:, t] + k),
                        _put(values, t, values[:, t] + v),
                    )
                },
                "k and v fill all places from t on. They belong at place t alone: [:, t].": {
                    "stored": lambda keys, values, k, v, t: (
                        _put(keys, slice(t, None), k[:, None]),
                        _put(values, slice(t, None), v[:, None]),
                    )
                },
                "v is not stored.": {"stored": lambda keys, values, k, v, t: (_put(keys, t, k), values)},
                "k is not stored.": {"stored": lambda keys, values, k, v, t: (keys, _put(values, t, v))},
                "It looks at all places of the cache, also at those after t, which are not filled yet. "
                "Take the first t + 1.": {"seen": lambda t, T: slice(0, T)},
                "Position t looks at itself only. Take places 0 to t: [:, : t + 1].": {
                    "seen": lambda t, T: slice(t, t + 1)
                },
                "It looks one place too far: take the first t + 1.": {"seen": lambda t, T: slice(0, t + 2)},
                "The scores are not scaled. Divide them by √D.": {"scale": lambda keys: 1.0},
                "The scale is 1/D. It is 1/√D.": {"scale": lambda keys: 1 / keys.shape[-1]},
                "The scale is √D, but should be 1/√D: divide, do not multiply.": {
                    "scale": lambda keys: keys.shape[-1] ** 0.5
                },
                "You scale by √T, the places in the cache. It is D, the number of channels.": {
                    "scale": lambda keys: keys.shape[1] ** -0.5
                },
                "You scale by √H, the number of heads. It is D, the number of channels.": {
                    "scale": lambda keys: keys.shape[0] ** -0.5
                },
                "The softmax runs over the heads. Each head makes its own choice: axis -1.": {
                    "weights": lambda scores: ag.softmax.raw(scores, 0)[0]
                },
                "One softmax for all heads together. Each head makes its own choice: axis -1, "
                "keepdims=True.": {
                    "weights": lambda scores: ag.softmax.raw(scores.ravel(), -1)[0].reshape(scores.shape)
                },
                "The softmax is missing: the scores themselves mix the values.": {
                    "weights": lambda scores: scores
                },
                "exp is there, but the weights do not add up to 1: divide by their sum.": {
                    "weights": lambda scores: np.exp(scores)
                },
                "The weights mix the keys instead of the values.": {"mixed_ones": lambda keys, values: keys},
                "k asks instead of q: the scores are q · keys.": {"query": lambda q, k, v: k},
            },
        )
        | {
            "It looks at the places before t, but not at t itself. Take the first t + 1: [:, : t + 1].": (
                _cached(seen=lambda t, T: slice(0, t))
            ),
        },
        _cached_step,
    ),
)


# --- reading the engine ---------------------------------------------------------------------------


def code_of(function):
    """The lines of a function or class as they stand in its file, without its docstring."""
    lines = inspect.getsource(function).rstrip().split("\n")
    marks = [i for i, line in enumerate(lines) if '"""' in line]
    if function.__doc__ and marks:
        first = marks[0]
        last = first if lines[first].count('"""') == 2 else marks[1]
        del lines[first : last + 1]
        while first < len(lines) and not lines[first].strip():
            del lines[first]
    return "\n".join(lines)


def nodes_below(tensor):
    """How many operations the tape below a Tensor holds."""
    seen, queue = set(), [tensor.node]
    while queue:
        node = queue.pop()
        if node not in seen:
            seen.add(node)
            queue += [parent for parent in node.parents if hasattr(parent, "pullbacks")]
    return len(seen)


def top_functions(profile):
    """[(share of the time, calls, "name (file)")] of a cProfile.Profile: what each function spent itself."""
    stats = pstats.Stats(profile).stats  # {(file, line, name): (_, calls, own seconds, all seconds, callers)}
    total = sum(own for _, _, own, _, _ in stats.values())
    rows = [
        (own / total, calls, f"{name.strip('<>')} ({Path(file).name})" if line else name.strip("<>"))
        for (file, line, name), (_, calls, own, _, _) in stats.items()
    ]
    return sorted(rows, reverse=True)


# --- something to measure -------------------------------------------------------------------------


def small_gpt(width, n_layer=2, n_head=4, length=64, vocab_size=65):
    """A GPT-2 in small, untrained."""
    config = GPTConfig(vocab_size, length, n_layer, n_head, width, **ARCHITECTURES["gpt2"])
    return GPT(config)


def products_of(model, rows):
    """Pairs of arrays: the factors of all matrix products in a training step with `rows` windows."""
    config = model.config
    width, T, heads = config.n_embd, config.block_size, config.n_head
    array = lambda *shape: np.ones(shape, np.float32)
    layers = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)] * config.n_layer
    pairs = []
    for n_in, n_out in [*layers, (width, config.vocab_size)]:
        x, weight, dout = array(rows * T, n_in), array(n_in, n_out), array(rows * T, n_out)
        pairs += [(x, weight), (dout, weight.T), (x.T, dout)]
    some, scores = array(rows, heads, T, width // heads), array(rows, heads, T, T)
    turned = lambda x: x.swapaxes(-1, -2)
    forward = [(some, turned(some)), (scores, some)]
    backward = [(some, turned(some)), (scores, some), (turned(scores), some), (turned(scores), some)]
    return pairs + (forward + backward) * config.n_layer


# --- pictures -------------------------------------------------------------------------------------


def _box(axes, center, words, color):
    """A box of fixed size with a title and, below it, what it holds."""
    x, y = center
    axes.add_patch(Rectangle((x - 1.0, y - 0.42), 2.0, 0.84, fc="w", ec=color, lw=1.6, zorder=2))
    title, _, below = words.partition("\n")
    axes.text(x, y + 0.17, title, ha="center", va="center", fontsize=10, zorder=3)
    axes.text(x, y - 0.19, below, ha="center", va="center", fontsize=8.5, color=GREY, zorder=3)


def plot_tape():
    """How Tensors and Nodes hold on to each other: loss = (x * w).sum()."""
    figure, axes = panels(width=9, height=3.1)
    boxes = {
        "Tensor x\ndata · grad": ((0.8, 2.1), BLUE),
        "Tensor w\ndata · grad": ((0.8, 0.5), BLUE),
        "Node multiply\nparents · pullbacks": ((3.9, 1.3), GOLD),
        "Node sum\nparents · pullbacks": ((7.0, 1.3), GOLD),
        "Tensor loss\ndata · node": ((10.1, 1.3), BLUE),
        "Tensor x * w\ndata · node": ((5.6, 2.75), GREY),
    }
    for words, (center, color) in boxes.items():
        _box(axes, center, words, color)
    for start, end, color in (
        ((9.1, 1.3), (8.0, 1.3), BLUE),
        ((6.0, 1.3), (4.9, 1.3), GOLD),
        ((2.9, 1.45), (1.8, 2.0), GOLD),
        ((2.9, 1.15), (1.8, 0.6), GOLD),
        ((4.6, 2.5), (4.2, 1.72), GREY),
    ):
        axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.6})
    axes.text(6.75, 2.75, "nobody points to it: it may be forgotten", va="center", color=GREY, fontsize=9)
    axes.text(7.0, 0.45, "each arrow leads to what was there before", ha="center", color=GREY, fontsize=9)
    axes.set(xlim=(-0.3, 11.2), ylim=(-0.05, 3.3))
    axes.axis("off")
    return Picture(figure, "Tensors hold Nodes, Nodes hold older Nodes and the leaves")


def plot_shares(steps):
    """{width: {part: seconds}}: a bar for each model, cut into what its step is spent on."""
    figure, axes = panels(width=8, height=0.8 + 0.45 * len(steps))
    for y, parts in enumerate(reversed(steps.values())):
        total, left = sum(parts.values()), 0.0
        for (name, seconds), color in zip(parts.items(), (BLUE, GOLD, RED), strict=True):
            share = 100 * seconds / total
            axes.barh(y, share, left=left, color=color, label=name if y == 0 else None, height=0.7)
            if share > 6:
                text = f"{share:.0f} %"
                axes.text(left + share / 2, y, text, ha="center", va="center", color="w", fontsize=9)
            left += share
        axes.text(101, y, f"{1e3 * total:.1f} ms", va="center", fontsize=9, color=GREY)
    axes.set(xlim=(0, 100), xlabel="% of a step", ylabel="channels")
    axes.set_yticks(range(len(steps)), [str(width) for width in reversed(steps)])
    axes.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return Picture(figure, "products, passes over memory and Python in a training step")


def plot_blocks(curves, channels, itemsize=4):
    """{name: {rows of a block: ns per element}}."""
    figure, axes = panels(width=7.5, height=3.4)
    for (name, curve), color in zip(curves.items(), (RED, BLUE), strict=False):
        sizes = [rows * channels * itemsize / 1024 for rows in curve]
        axes.semilogx(sizes, list(curve.values()), "o-", color=color, label=name, base=2)
    axes.axvspan(256, 2048, color=GREY, alpha=0.15, lw=0)
    words, across = "second-level caches\nof most processors", axes.get_xaxis_transform()
    axes.text(724, 0.97, words, transform=across, ha="center", va="top", color=GREY, fontsize=8)
    rows = list(next(iter(curves.values())))
    ticks = [n * channels * itemsize / 1024 for n in rows]
    axes.set_xticks(ticks, [f"{size:,.0f} KB\n{n:,}" for size, n in zip(ticks, rows, strict=True)])
    axes.tick_params(axis="x", labelsize=8)
    axes.minorticks_off()
    axes.set(xlabel="a block's size, and its rows", ylabel="ns per element", ylim=(0, None))
    axes.legend(loc="lower left")
    return Picture(figure, "time per element against the size of a block")


def plot_micro_batches(memory, seconds):
    """{rows at once: bytes} and {rows at once: seconds}, side by side."""
    figure, (left, right) = panels(2, width=8.5, height=2.9)
    names = [str(size) for size in memory]
    left.bar(names, [b / 1e6 for b in memory.values()], color=GOLD)
    left.set(xlabel="rows at once", ylabel="MB at the peak", title="memory")
    right.bar(names, [1e3 * s for s in seconds.values()], color=BLUE)
    right.set(xlabel="rows at once", ylabel="ms", title="time for the same gradient")
    return Picture(figure, "memory and time of a batch, cut into micro-batches")


def plot_threads(gains):
    """{elements: how many times faster two threads are}."""
    figure, axes = panels(width=7, height=3)
    axes.semilogx(list(gains), list(gains.values()), "o-", color=BLUE)
    reference_lines(axes, {"twice as fast": 2, "no gain": 1})
    axes.set(xlabel="elements of each array", ylabel="two threads, times faster", ylim=(0, 2.3))
    return Picture(figure, "the gain of a second thread against the size of the arrays")


def plot_memory(logs):
    """{name: bytes at each look, forward and then backward}."""
    figure, axes = panels(len(logs), width=9, height=3, sharey=True)
    for ax, (name, log), color in zip(axes, logs.items(), (RED, BLUE), strict=True):
        ax.fill_between(range(len(log)), np.array(log) / 1e6, color=color, alpha=0.25, lw=0)
        ax.plot(np.array(log) / 1e6, color=color)
        ax.axhline(max(log) / 1e6, color=GREY, ls="--", lw=0.8)
        ax.set(title=f"{name}: {max(log) / 1e6:.0f} MB at most", xticks=[], xlabel="forward, then back")
    axes[0].set(ylabel="MB", ylim=(0, None))
    return Picture(figure, "memory during a step: " + ", ".join(logs))


def plot_tokens(curves):
    """{name: {place in the text: seconds for the next token}}."""
    figure, axes = panels(width=7, height=3)
    for (name, curve), color in zip(curves.items(), (RED, BLUE, GREEN), strict=False):
        axes.plot(list(curve), [1e3 * s for s in curve.values()], color=color, label=name)
    axes.set(xlabel="tokens before it", ylabel="ms for a token", ylim=(0, None))
    axes.legend()
    return Picture(figure, "time for a token against the length of the text")


def plot_rounding(steps, errors, of_backward):
    """{float64: errors, float32: errors} of differences at these steps; the error of float32's backward."""
    figure, axes = panels(width=7.5, height=3.8)
    for (name, curve), color in zip(errors.items(), (BLUE, RED), strict=True):
        axes.loglog(steps, np.maximum(curve, 1e-12), "o-", ms=3, color=color, label=f"difference, {name}")
    axes.axhline(of_backward, color=GREEN, ls="--", label="backward in float32")
    axes.set(xlabel="step h", ylabel="relative error of the slope", ylim=(1e-12, 1e2))
    axes.legend(loc="lower right", fontsize=9)
    return Picture(figure, "the error of a difference over its step, in float32 and float64")


def plot_gains(gains):
    """{what was done: how many times faster or smaller}."""
    figure, axes = panels(width=8, height=0.8 + 0.35 * len(gains))
    names, values = list(gains)[::-1], list(gains.values())[::-1]
    colors = [GOLD if "memory" in name else BLUE for name in names]
    axes.barh(names, values, color=colors)
    axes.axvline(1, color=GREY, ls="--", lw=0.8)
    for y, value in enumerate(values):
        beside = max(value, 1) + 0.01 * max(values)
        axes.text(beside, y, f"{value:.1f}", va="center", fontsize=9, color=GREY)
    axes.set(xlabel="times less time (blue) or memory (gold)", xlim=(0, max(values) * 1.12))
    return Picture(figure, "what each idea brought")
