"""Reductions over an axis, several (a tuple) or all (None). keepdims keeps reduced axes, with length 1."""

import math

import numpy as np

from autograd.backend import array_module
from autograd.operation import op
from autograd.ops import arguments
from autograd.ops.elementwise import only_where, total

__all__ = ["logsumexp", "mean", "var"]  # not sum, max and min: `import *` must not hide Python's

Axis = int | tuple[int, ...] | None


def _reduced_axes(x, axis, keepdims):
    """The axes to reduce, counted from the front."""
    if not isinstance(keepdims, bool):  # x.sum(0, 1) for x.sum((0, 1))
        raise TypeError(f"keepdims must be True or False, not {keepdims!r}; several axes are one tuple")
    if axis is None:
        return tuple(range(x.ndim))
    axes = arguments.axes_of(axis, x.ndim or 1)
    return axes if x.ndim else ()  # as in NumPy, 0 is an axis of a number too


def _count(shape, axes):
    """How many elements go into each result."""
    return math.prod(shape[axis] for axis in axes)


def _without(axes, kept, keepdims):
    """A result whose reduced axes have length 1, without them unless keepdims."""
    return kept if keepdims else kept.squeeze(axes)


def _back_on_axes(reduced, shape, axes):
    """A reduced array with its lost axes again, with length 1, so that it broadcasts to the input's shape."""
    return reduced.reshape([1 if i in axes else n for i, n in enumerate(shape)])


@op
def sum(x, axis: Axis = None, keepdims: bool = False):
    xp, shape, axes = array_module(x), x.shape, _reduced_axes(x, axis, keepdims)
    out = _without(axes, total(x, axes), keepdims)
    return out, lambda g: xp.broadcast_to(_back_on_axes(g, shape, axes), shape)


@op
def mean(x, axis: Axis = None, keepdims: bool = False):
    """The mean; nan of nothing."""
    xp, shape, axes = array_module(x), x.shape, _reduced_axes(x, axis, keepdims)
    n = _count(shape, axes) or math.nan
    out = _without(axes, total(x, axes) / n, keepdims)
    return out, lambda g: xp.broadcast_to(_back_on_axes(g, shape, axes) / n, shape)


@op
def var(x, axis: Axis = None, keepdims: bool = False, ddof: float = 0):
    """The variance, divided by n - ddof: NumPy's convention and layer norm's (PyTorch's `var` has ddof=1).

    ValueError unless n is larger than ddof.
    """
    axes = _reduced_axes(x, axis, keepdims)
    n = _count(x.shape, axes)
    divisor = n - ddof
    if divisor <= 0:
        raise ValueError(f"the variance with ddof={ddof} needs more than {ddof} elements, but there are {n}")
    centered = x - total(x, axes) / n
    centered -= total(centered, axes) / n  # what rounding did to the mean, which matters far from 0
    # The mean depends on x as well, but its share vanishes: the centered values add up to 0.
    return (
        _without(axes, total(centered * centered, axes) / divisor, keepdims),
        lambda g: _back_on_axes(g, centered.shape, axes) * (2 / divisor) * centered,
    )


@op
def max(x, axis: Axis = None, keepdims: bool = False):
    """The largest element. ValueError if there is none."""
    return _extremum("max", x, axis, keepdims)


@op
def min(x, axis: Axis = None, keepdims: bool = False):
    """The smallest element. ValueError if there is none."""
    return _extremum("min", x, axis, keepdims)


def _extremum(name, x, axis, keepdims):
    """Maximum or minimum: the gradient goes to the extreme element, in equal parts if there are several."""
    axes = _reduced_axes(x, axis, keepdims)
    if _count(x.shape, axes) == 0:
        raise ValueError(f"{name} of nothing: shape {x.shape} has no element along the axes {axes}")
    kept = getattr(x, name)(axes, keepdims=True)

    def dx(g):
        chosen = (x == kept) | (x != x)  # nan is chosen too, though it equals nothing
        share = _back_on_axes(g, x.shape, axes) / chosen.sum(axes, keepdims=True).astype(x.dtype)
        return only_where(chosen, share)

    return _without(axes, kept, keepdims), dx


@op
def logsumexp(x, axis: Axis = None, keepdims: bool = False):
    """log(sum(exp(x))), shifted by the maximum so that it cannot overflow. Of nothing and of -inf it is -inf.

    The gradient of a row of -inf is 0.
    """
    xp, axes = array_module(x), _reduced_axes(x, axis, keepdims)
    kept = raw_logsumexp(x, axes)

    def dx(g):
        finite = xp.where(kept == -math.inf, 0, kept)  # -inf - -inf would be nan
        return _back_on_axes(g, x.shape, axes) * xp.exp(x - finite)

    return _without(axes, kept, keepdims), dx


def raw_logsumexp(x, axis):
    """logsumexp of an array, reduced axes kept."""
    xp, axes = array_module(x), arguments.axes_of(axis, x.ndim)
    if _count(x.shape, axes):
        shift = x.max(axes, keepdims=True)
        shift = xp.where(abs(shift) < math.inf, shift, 0)  # a row of -inf gives log(0) = -inf, not nan
    else:
        shift = 0.0
    with np.errstate(divide="ignore"):
        return shift + xp.log(total(xp.exp(x - shift), axes))
