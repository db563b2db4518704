"""Notebook 3: tensors and broadcasting."""

import numpy as np

import autograd as ag
from autograd.ops.elementwise import unbroadcast
from workbook.checking import Checks, Exercise, pullback_exercise, random_arrays
from workbook.pictures import BLUE, GREY, RED, Picture, heat_map, panels

check = Checks()
normal = random_arrays(3)
FORGOT_G = "It ignores the upstream gradient: it returns only the local slopes. g must be in every term."


def swap(x):
    return x.swapaxes(-1, -2)


# --- unbroadcast ----------------------------------------------------------------------------------


def _aligned_left(g, shape):
    g = g.sum(tuple(range(len(shape), g.ndim)))
    return g.sum(tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


def _reduced(g, shape, reduce, stretched=True):
    """Undo broadcasting with another reduction than the sum, or only of the axes in front."""
    front = tuple(range(g.ndim - len(shape)))
    g = reduce(g, front) if front else g
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] > 1) if stretched else ()
    return reduce(g, axes).reshape(shape) if axes else g


def _first(g, axes):
    return g[tuple(0 if i in axes else slice(None) for i in range(g.ndim))]


check.add(
    "unbroadcast",
    Exercise(
        unbroadcast,
        [
            (normal(3, 3), (3,)),
            (normal(4, 3), (4, 3)),
            (normal(2, 4, 3), (4, 3)),
            (normal(5, 3), (1, 3)),
            (normal(5, 3), (5, 1)),
            (normal(2, 4, 3), (4, 1)),
            (normal(2, 4, 3), (1, 1, 3)),
            (normal(2, 3), ()),
            (normal(1, 3), (1, 3)),
            (normal(2, 4, 3), (3,)),
            (normal(2, 3, 4, 5), (3, 1, 5)),
        ],
        {
            "You took the mean over the copies. "
            "Each copy moves the result by its own share, so their gradients add up: "
            "sum, do not average.": lambda g, shape: _reduced(g, shape, lambda a, axes: a.mean(axes)),
            "You took the gradient of one copy only. All copies are the same number: "
            "their gradients add up.": (lambda g, shape: _reduced(g, shape, _first)),
            "Only the first axis is summed. More than one can have been added in front: "
            "there are `g.ndim - len(shape)`.": lambda g, shape: _reduced(
                g.sum(0) if g.ndim > len(shape) else g, shape, _first
            ),
            "You summed over axes at the right. NumPy lines shapes up at the right end, "
            "so the axes were added at the left, in front.": _aligned_left,
            "The axes added in front are right; those of length 1 that were stretched are missing. "
            "Sum over them as well, and keep their length 1.": (
                lambda g, shape: _reduced(g, shape, lambda a, axes: a.sum(axes), stretched=False)
            ),
            "The right sums, but the axes of length 1 are lost: "
            "`sum(axis, keepdims=True)`, or `reshape(shape)` at the end.": (
                lambda g, shape: _reduced(g, shape, lambda a, axes: a.sum(axes)).squeeze()
            ),
        },
    ),
)


# --- matmul ---------------------------------------------------------------------------------------


def _matmul(dx, dy):
    """x @ y with other pullbacks."""

    def matmul(x, y):
        return x @ y, (lambda g: dx(x, y, g), lambda g: dy(x, y, g))

    return matmul


def right_dx(x, y, g):
    return unbroadcast(g @ swap(y), x.shape)


def right_dy(x, y, g):
    return unbroadcast(swap(x) @ g, y.shape)


def _shared(reduce):
    """matmul that undoes the broadcasting of a matrix shared by a stack in another way than by a sum."""
    return _matmul(lambda x, y, g: reduce(g @ swap(y), x), lambda x, y, g: reduce(swap(x) @ g, y))


def _over_stack(reduce):
    """The reduction, over the axes that a gradient has and its input has not."""

    def reduced(gradient, x):
        return reduce(gradient, tuple(range(gradient.ndim - x.ndim))) if gradient.ndim > x.ndim else gradient

    return reduced


check.add(
    "matmul",
    pullback_exercise(
        ("x", "y"),
        ag.matmul.raw,
        [
            (normal(3, 3), normal(3, 3), normal(3, 3)),
            (normal(4, 3), normal(3, 5), normal(4, 5)),
            (normal(2, 3, 3), normal(2, 3, 3), normal(2, 3, 3)),
            (normal(2, 4, 3), normal(3, 5), normal(2, 4, 5)),
            (normal(4, 3), normal(2, 3, 5), normal(2, 4, 5)),
            (normal(2, 3, 4, 3), normal(3, 5), normal(2, 3, 4, 5)),
            (normal(1, 1), normal(1, 1), normal(1, 1)),
        ],
        {
            "The transposes are missing: dx = g @ yᵀ and dy = xᵀ @ g. "
            "(With square matrices the shapes do not show it.)": _matmul(
                lambda x, y, g: g @ y, lambda x, y, g: x @ g
            ),
            "In dx the order is reversed: g stands on the left, g @ yᵀ.": _matmul(
                lambda x, y, g: swap(y) @ g, right_dy
            ),
            "In dy the order is reversed: g stands on the right, xᵀ @ g.": _matmul(
                right_dx, lambda x, y, g: g @ swap(x)
            ),
            "dx lacks the transpose: g @ yᵀ.": _matmul(lambda x, y, g: g @ y, right_dy),
            "dy lacks the transpose: xᵀ @ g.": _matmul(right_dx, lambda x, y, g: x @ g),
            "The two pullbacks are in the wrong order: first the one for x, then the one for y.": _matmul(
                right_dy, right_dx
            ),
            FORGOT_G: _matmul(lambda x, y, g: swap(y), lambda x, y, g: swap(x)),
            "`*` multiplies element by element. The gradients of a matrix product are matrix products: "
            "`@`.": (_matmul(lambda x, y, g: g * swap(y), lambda x, y, g: swap(x) * g)),
            "`.T` reverses all axes of a stack of matrices. Swap only the last two: "
            "`.swapaxes(-1, -2)`.": _matmul(lambda x, y, g: g @ y.T, lambda x, y, g: x.T @ g),
            "One matrix multiplied a whole stack, so it was broadcast: "
            "sum its gradient over the stack, `unbroadcast(..., y.shape)`.": _shared(lambda dy, y: dy),
            "x multiplied a whole stack, so it was broadcast: sum its gradient over the stack, "
            "`unbroadcast(..., x.shape)`.": _matmul(lambda x, y, g: g @ swap(y), right_dy),
            "y multiplied a whole stack, so it was broadcast: sum its gradient over the stack, "
            "`unbroadcast(..., y.shape)`.": _matmul(right_dx, lambda x, y, g: swap(x) @ g),
            "One matrix multiplied a whole stack. Its gradients add up; you took the mean.": _shared(
                _over_stack(lambda gradient, axes: gradient.mean(axes))
            ),
            "One matrix multiplied a whole stack. Its gradients add up; you took the mean, and only over the "
            "first axis.": _shared(_over_stack(lambda gradient, axes: gradient.mean(0))),
            "One matrix multiplied a whole stack. You took the gradient of the stack's first product only: "
            "all of them add up.": _shared(_over_stack(_first)),
            "A stack can have more than one axis: sum over all that were added in front, "
            "`unbroadcast(..., y.shape)`.": _shared(_over_stack(lambda gradient, axes: gradient.sum(0))),
        },
    ),
)


# --- sum ------------------------------------------------------------------------------------------


def sum_over(x, axis):
    out = x.sum(axis)
    return out, lambda g: np.broadcast_to(np.expand_dims(g, axis), x.shape).copy()


def _sum(dx):
    def wrong(x, axis):
        return x.sum(axis), lambda g: dx(x, axis, g)

    return wrong


check.add(
    "sum_over",
    pullback_exercise(
        ("x",),
        sum_over,
        [
            (normal(3, 3), 1, normal(3)),
            (normal(4, 3), 0, normal(3)),
            (normal(2, 3, 3), 1, normal(2, 3)),
            (normal(2, 3), -1, normal(2)),
            (normal(2, 3, 4), -3, normal(3, 4)),
            (normal(3), 0, np.array(0.7)),
            (normal(3, 1), 1, normal(3)),
        ],
        {
            "The lost axis was not put back, "
            "so NumPy lined g up with the wrong one (with a square matrix it does not complain). "
            "First `np.expand_dims(g, axis)`.": _sum(lambda x, axis, g: np.broadcast_to(g, x.shape)),
            "That is the pullback of the mean. In a sum every element counts fully: divide by nothing.": _sum(
                lambda x, axis, g: np.broadcast_to(np.expand_dims(g, axis), x.shape) / x.shape[axis]
            ),
            FORGOT_G: _sum(lambda x, axis, g: np.ones(x.shape)),
            "You return g as it is. Every element of x gets a gradient, so the result has x's shape: "
            "copy g along the axis.": (_sum(lambda x, axis, g: g)),
            "Only the copying is missing: the axis is back, with length 1. "
            "`np.broadcast_to(..., x.shape)` stretches it.": (
                _sum(lambda x, axis, g: np.expand_dims(g, axis))
            ),
            "All of g is added up. Each entry of x gets only the entry of g whose sum it was in.": _sum(
                lambda x, axis, g: np.full(x.shape, g.sum())
            ),
            "g is put back at the last axis, whatever the axis was: `np.expand_dims(g, axis)`.": _sum(
                lambda x, axis, g: np.broadcast_to(np.expand_dims(g, -1), x.shape)
            ),
            "You multiplied by x. The slope of a sum with respect to each of its terms is 1.": _sum(
                lambda x, axis, g: x * np.expand_dims(g, axis)
            ),
        },
    ),
)


# --- embedding ------------------------------------------------------------------------------------


def embedding(weight, ids):
    return ag.embedding.raw(weight, ids)


def _embedding(dweight):
    def wrong(weight, ids):
        return weight[ids], lambda g: dweight(weight, ids, g)

    return wrong


def _assigned(weight, ids, g):
    gradient = np.zeros_like(weight)
    gradient[ids] = g
    return gradient


def _added(weight, ids, g):
    gradient = np.zeros_like(weight)
    np.add.at(gradient, ids, g)
    return gradient


def _averaged(weight, ids, g):
    return _added(weight, ids, g) / np.maximum(np.bincount(ids.ravel(), minlength=len(weight)), 1)[:, None]


check.add(
    "embedding",
    pullback_exercise(
        ("weight",),
        embedding,
        [
            (normal(5, 3), np.array([2, 0, 2, 2]), normal(4, 3)),
            (normal(6, 2), np.array([[1, 0, 1], [5, 1, 0]]), normal(2, 3, 2)),
            (normal(4, 4), np.array([3, 1, 0]), normal(3, 4)),
            (normal(3, 1), np.array([[[2], [2]]]), normal(1, 2, 1, 1)),
        ],
        {
            "Where an id comes more than once, only its last place counts. "
            "`gradient[ids] += g` does that too: NumPy reads all rows, adds, and writes them back, "
            "so one write wins. `np.add.at(gradient, ids, g)` adds every time.": (_embedding(_assigned)),
            "You divide by how often each id comes. "
            "Each place that used a row moves the loss: add them all up.": (_embedding(_averaged)),
            FORGOT_G: _embedding(lambda w, ids, g: _added(w, ids, np.ones_like(g))),
            "You return g. But the gradient is that of the table: "
            "it has the table's shape, and mostly zeros in it.": (_embedding(lambda w, ids, g: g)),
            "You look up rows of g. It is the other way: add the rows of g into the table.": _embedding(
                lambda w, ids, g: g[ids]
            ),
            "Every row of the table gets the sum of all g. "
            "Row v gets only those g whose id is v.": _embedding(
                lambda w, ids, g: np.broadcast_to(g.reshape(-1, w.shape[1]).sum(0), w.shape)
            ),
            "The rows are multiplied by the table. The slope of a lookup is 1: add up g alone.": _embedding(
                lambda w, ids, g: _added(w, ids, g * w[ids])
            ),
        },
    ),
)


# --- pictures -------------------------------------------------------------------------------------


def jacobian(f, x, h=1e-6):
    """d f(x).ravel() / d x.ravel() by nudging, a matrix (outputs, inputs)."""
    columns = []
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        columns.append((f(x + nudge) - f(x - nudge)).ravel() / (2 * h))
    return np.stack(columns, 1)


def plot_jacobians(functions, x):
    """The Jacobians of functions (by name) at x, as pictures."""
    figure, axes = panels(len(functions), width=9, height=3.2)
    for ax, (name, f) in zip(axes, functions.items(), strict=True):
        matrix = jacobian(f, x)
        heat_map(
            ax,
            matrix,
            f"{name}\n{matrix.shape[0]} × {matrix.shape[1]}",
            numbers=False,
            ylabel="outputs",
            xlabel="inputs",
        )
    return Picture(figure, "Jacobians of " + ", ".join(functions))


def plot_broadcast(bias, g):
    """Forward: one row copied for every row. Backward: the copies' gradients summed into one row."""
    figure, axes = panels(4, width=9, height=2.4, width_ratios=[1, 1, 1, 1])
    copies = np.broadcast_to(bias, g.shape)
    for ax, (matrix, title, color) in zip(
        axes,
        [
            (bias[None], f"bias {bias.shape}", BLUE),
            (copies, f"copied to {g.shape} ↓", BLUE),
            (g, f"upstream g {g.shape}", RED),
            (g.sum(0)[None], f"summed to {bias.shape} ↓", RED),
        ],
        strict=True,
    ):
        heat_map(ax, matrix, "", numbers=True)
        ax.set_title(title, color=color)
    return Picture(figure, "a bias copied forward, its gradient summed backward")


def plot_embedding_gradients(ids, right, wrong):
    """The size of each table row's gradient, summed and overwritten, and how often its id came."""
    figure, (top, bottom) = panels(1, 2, width=7, height=3.6, sharex=True)
    rows = np.arange(len(right))
    top.bar(rows, np.bincount(ids, minlength=len(right)), color=GREY)
    top.set(ylabel="times used")
    bottom.bar(rows - 0.2, np.linalg.norm(right, axis=1), 0.4, color=BLUE, label="added up")
    bottom.bar(rows + 0.2, np.linalg.norm(wrong, axis=1), 0.4, color=RED, label="overwritten")
    bottom.set(
        ylabel="|gradient|",
        xlabel="row of the table",
        xticks=rows,
        xticklabels=[chr(ord("a") + i) for i in rows],
    )
    bottom.legend()
    return Picture(figure, "gradients of the rows of a table")
