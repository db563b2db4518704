"""What users hand in beside Tensors: axes, shapes and masks, checked and made uniform."""

import operator
from collections.abc import Iterable

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from autograd.backend import is_array


def integer(value, what):
    """The value as Python's int. TypeError, which says `what` it is, for anything else, True too."""
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise TypeError(f"{what} must be an integer, not {value!r}")


def integers(values, what):
    """One integer, or a tuple of several from any sequence. TypeError, which says `what` it is."""
    try:
        return integer(values, what)
    except TypeError:
        if not isinstance(values, Iterable) or isinstance(values, str):
            raise
    return tuple(integer(value, what) for value in values)


def lengths(shape):
    """A shape as a tuple of ints, from one integer or several. TypeError for anything else."""
    found = integers(shape, "a length in a shape")
    return (found,) if isinstance(found, int) else found


def axes_of(axis, ndim):
    """One axis, or several in a tuple or list, as a tuple that counts from the front.

    TypeError for what is no integer, ValueError for an axis that is not there or comes twice.
    """
    several = axis if isinstance(axis, (tuple, list)) else [axis]
    return normalize_axis_tuple([integer(one, "an axis") for one in several], ndim)


def one_axis(axis, ndim):
    """An axis that counts from the front. Errors as those of axes_of."""
    return axes_of((axis,), ndim)[0]


def broadcast_shape(name, *shapes):
    """The shape that arrays of these shapes broadcast to. ValueError, which names them, if they do not."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"{name}: the shapes {', '.join(map(str, shapes))} do not fit together") from None


def own_mask(mask, what, xp):
    """A copy of a mask as a boolean array of the module xp.

    A copy, because pullbacks keep it and its owner may fill it anew. TypeError, which says `what` it is, if
    it is not boolean.
    """
    array = mask if is_array(mask) else np.asarray(mask)
    if array.dtype != bool:
        raise TypeError(f"{what} must be boolean, not {array.dtype}; write mask != 0, or a comparison")
    return xp.asarray(array).copy()
