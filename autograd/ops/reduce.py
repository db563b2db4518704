"""Reductions over an axis, several (a tuple) or all (None). keepdims keeps reduced axes, with length 1."""

from autograd.backend import array_module
from autograd.tensor import op

__all__ = ["logsumexp", "mean", "var"]  # not sum, max and min: `import *` must not hide Python's

Axis = int | tuple[int, ...] | None


def _back_on_axes(reduced, shape, axis, keepdims):
    """A reduced array with its lost axes again, with length 1, so that it broadcasts to the input's shape."""
    if keepdims:
        return reduced
    lost = range(len(shape)) if axis is None else [i % len(shape) for i in _as_tuple(axis)]
    return reduced.reshape([1 if i in lost else n for i, n in enumerate(shape)])


def _as_tuple(axis):
    return axis if isinstance(axis, tuple) else (axis,)


def _count(x, axis):
    """How many elements go into each result."""
    if axis is None:
        return x.size
    count = 1
    for i in _as_tuple(axis):
        count *= x.shape[i]
    return count


@op
def sum(x, axis: Axis = None, keepdims: bool = False):
    xp, shape = array_module(x), x.shape
    out = x.sum(axis, keepdims=keepdims)
    return out, lambda g: xp.broadcast_to(_back_on_axes(g, shape, axis, keepdims), shape)


@op
def mean(x, axis: Axis = None, keepdims: bool = False):
    xp, shape, n = array_module(x), x.shape, _count(x, axis)
    out = x.mean(axis, keepdims=keepdims)
    return out, lambda g: xp.broadcast_to(_back_on_axes(g, shape, axis, keepdims) / n, shape)


@op
def var(x, axis: Axis = None, keepdims: bool = False, ddof: int = 0):
    """The variance, divided by n - ddof: NumPy's convention and layer norm's (PyTorch's `var` has ddof=1)."""
    n = _count(x, axis) - ddof
    centered = x - x.mean(axis, keepdims=True)
    # The mean depends on x as well, but its share vanishes: the centered values add up to 0.
    return (
        (centered * centered).sum(axis, keepdims=keepdims) / n,
        lambda g: _back_on_axes(g, centered.shape, axis, keepdims) * (2 / n) * centered,
    )


@op
def max(x, axis: Axis = None, keepdims: bool = False):
    return _extremum(x, x.max(axis, keepdims=True), axis, keepdims)


@op
def min(x, axis: Axis = None, keepdims: bool = False):
    return _extremum(x, x.min(axis, keepdims=True), axis, keepdims)


def _extremum(x, kept, axis, keepdims):
    """Maximum or minimum: the gradient goes to the extreme element, in equal parts if there are several."""
    chosen = x == kept
    share = chosen / chosen.sum(axis, keepdims=True).astype(x.dtype)
    out = kept if keepdims else kept.squeeze(tuple(range(x.ndim)) if axis is None else axis)
    return out, lambda g: _back_on_axes(g, share.shape, axis, keepdims) * share


@op
def logsumexp(x, axis: Axis = None, keepdims: bool = False):
    """log(sum(exp(x))), shifted by the maximum so that it cannot overflow."""
    kept = raw_logsumexp(x, axis)
    out = kept if keepdims else kept.squeeze(tuple(range(x.ndim)) if axis is None else axis)
    return out, lambda g: _back_on_axes(g, x.shape, axis, keepdims) * array_module(x).exp(x - kept)


def raw_logsumexp(x, axis):
    """logsumexp of an array, reduced axes kept."""
    xp = array_module(x)
    shift = x.max(axis, keepdims=True)
    shift = xp.where(abs(shift) < float("inf"), shift, 0)  # a row of -inf gives log(0) = -inf, not nan
    return shift + xp.log(xp.exp(x - shift).sum(axis, keepdims=True))
