"""Operations that move elements without changing them. Their pullbacks move the gradients back."""

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, device_of, is_array, move
from autograd.operation import op
from autograd.ops import arguments
from autograd.ops.elementwise import only_where, shape_of, unbroadcast
from autograd.tensor import Tensor

__all__ = [
    "broadcast_to",
    "concatenate",
    "expand_dims",
    "getitem",
    "masked_fill",
    "reshape",
    "split",
    "squeeze",
    "stack",
    "swapaxes",
    "to",
    "transpose",
    "tril",
]


@op
def reshape(x, shape: tuple[int, ...]):
    before, shape = x.shape, arguments.lengths(shape)
    if any(n < -1 for n in shape):
        raise ValueError(f"reshape: {shape} has a negative length that is not -1")
    return x.reshape(shape), lambda g: g.reshape(before)


@op
def transpose(x, axes: tuple[int, ...] | None = None):
    """Permute the axes (reverse them if none are given). ValueError unless each is named once."""
    order = tuple(range(x.ndim))[::-1] if axes is None else arguments.axes_of(axes, x.ndim)
    if len(order) != x.ndim:
        raise ValueError(
            f"transpose: {axes} does not name each axis of shape {x.shape} once; swapaxes exchanges two"
        )
    inverse = tuple(np.argsort(order).tolist())
    return x.transpose(order), lambda g: g.transpose(inverse)


@op
def swapaxes(x, a: int, b: int):
    a, b = arguments.one_axis(a, x.ndim), arguments.one_axis(b, x.ndim)
    return x.swapaxes(a, b), lambda g: g.swapaxes(a, b)


@op
def expand_dims(x, axis: int | tuple[int, ...]):
    """New axes of length 1, at these places of the result's shape."""
    before, axes = x.shape, arguments.integers(axis, "an axis")
    return array_module(x).expand_dims(x, axes), lambda g: g.reshape(before)


@op
def squeeze(x, axis: int | tuple[int, ...] | None = None):
    """Drop axes of length 1: these, or all. ValueError for one of another length."""
    before = x.shape
    axes = [i for i, n in enumerate(before) if n == 1] if axis is None else arguments.axes_of(axis, x.ndim)
    if any(before[i] != 1 for i in axes):
        raise ValueError(f"squeeze: axis {axis} of shape {before} does not have length 1")
    return x.squeeze(tuple(axes)), lambda g: g.reshape(before)


@op
def broadcast_to(x, shape: tuple[int, ...]):
    """x repeated along new axes and those of length 1. ValueError if the shapes do not fit."""
    before, shape = x.shape, arguments.lengths(shape)
    if arguments.broadcast_shape("broadcast_to", before, shape) != shape:
        raise ValueError(f"broadcast_to: shape {before} cannot become {shape}")
    return array_module(x).broadcast_to(x, shape), lambda g: unbroadcast(g, before)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join a sequence of Tensors along an existing axis.

    ValueError if there are none, or if their shapes differ along another axis.
    """
    return _concatenate(*_to_join(tensors, "concatenate"), axis=axis)


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join a sequence of Tensors of one shape along a new axis.

    ValueError if there are none, or if their shapes differ.
    """
    return _stack(*_to_join(tensors, "stack"), axis=axis)


def _to_join(tensors, name):
    if isinstance(tensors, Tensor) or is_array(tensors):
        raise TypeError(f"{name} takes a list: {name}([x, y])")
    tensors = list(tensors)
    if not tensors:
        raise ValueError(f"{name}: nothing to join")
    return tensors


@op
def _concatenate(*arrays, axis: int):
    shapes = [shape_of(array) for array in arrays]
    axis = arguments.one_axis(axis, len(shapes[0]))
    if len({(len(shape), shape[:axis], shape[axis + 1 :]) for shape in shapes}) > 1:
        raise ValueError(f"concatenate: the shapes {_listed(shapes)} do not fit along axis {axis}")
    ends = np.cumsum([shape[axis] for shape in shapes]).tolist()

    def part(start, stop):
        return lambda g: g[(slice(None),) * axis + (slice(start, stop),)]

    out = array_module(arrays[0]).concatenate(arrays, axis)
    return out, tuple(part(start, stop) for start, stop in pairwise([0, *ends]))


@op
def _stack(*arrays, axis: int):
    """Join arrays of one shape, or numbers, along a new axis."""
    shapes = [shape_of(array) for array in arrays]
    axis = arguments.one_axis(axis, len(shapes[0]) + 1)
    if len(set(shapes)) > 1:
        raise ValueError(f"stack: the shapes {_listed(shapes)} differ")
    like = next(array for array in arrays if is_array(array))
    xp = array_module(like)

    def part(i):
        return lambda g: g[(slice(None),) * axis + (i,)]

    out = xp.concatenate([xp.expand_dims(xp.asarray(array, like.dtype), axis) for array in arrays], axis)
    return out, tuple(part(i) for i in range(len(arrays)))


def _listed(shapes):
    """The different shapes, as text."""
    return " and ".join(map(str, dict.fromkeys(shapes)))


def split(x: Tensor, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut a Tensor along an axis, into a number of equal parts or before the given positions.

    As NumPy's split; PyTorch's takes the length of a part. ValueError if the parts cannot be equal.
    """
    x = x if isinstance(x, Tensor) else Tensor(x)
    axis = arguments.one_axis(axis, x.ndim)
    length, cuts = x.shape[axis], arguments.integers(sections, "a section of split")
    if isinstance(cuts, int):
        parts = cuts
        if parts < 1 or length % parts:
            raise ValueError(f"split: {length} elements do not make {parts} equal parts")
        cuts = range(length // parts, length, length // parts) if length else (0,) * (parts - 1)
    before = (slice(None),) * axis
    return [getitem(x, index=(*before, slice(start, stop))) for start, stop in pairwise([0, *cuts, length])]


@op
def getitem(x, index: Any):
    """x[index] with NumPy's indices: integers, slices, None, ..., boolean masks, and arrays of integers.

    Lists, tuples, ranges and the arrays of other libraries are arrays here, also inside a tuple. The
    gradients of an entry that is taken several times add up. IndexError for an index that is out of range or
    not an integer, TypeError for a Tensor.
    """
    xp, shape, dtype = array_module(x), x.shape, x.dtype
    index = _plain_index(index, x)
    repeats = any(is_array(part) and part.dtype != bool for part in index)

    def dx(g):
        out = xp.zeros(shape, dtype)
        if repeats:
            xp.add.at(out, index, g)  # unlike out[index] += g, counts an entry as often as it was taken
        else:
            out[index] = g
        return out

    return x[index], dx


def _plain_index(index, x):
    """An index as a tuple of what NumPy and CuPy know. Its arrays are copies, for the pullback to keep."""
    index = tuple(_plain_part(part) for part in (index if isinstance(index, tuple) else (index,)))
    xp = array_module(x)
    if xp is np:
        return index
    if not any(isinstance(part, xp.ndarray) for part in index):
        # A GPU does not look whether an index is out of range, so the CPU does.
        np.broadcast_to(np.zeros((), bool), x.shape)[index]
    return tuple(xp.asarray(part) if isinstance(part, np.ndarray) else part for part in index)


def _plain_part(part):
    """One part of an index: None, ..., a slice of integers, a number, or an array of integers or booleans."""
    if part is None or part is Ellipsis or isinstance(part, (bool, np.bool_)):
        return part
    if isinstance(part, Tensor):
        raise TypeError("a Tensor is a float array: index with plain integer arrays, slices or integers")
    if isinstance(part, slice):
        ends = (part.start, part.stop, part.step)
        return slice(*(None if end is None else operator.index(end) for end in ends))
    array = part.copy() if is_array(part) else np.array(part)
    if array.size == 0 and not hasattr(part, "__array__"):
        array = array.astype(np.intp)  # NumPy would take [] for an array of floats
    if array.dtype.kind not in "iub":
        raise IndexError(f"an index must be integers or booleans, not {part!r}")
    return array.item() if isinstance(array, np.ndarray) and array.ndim == 0 else array


@op
def tril(x, k: int = 0):
    """The lower triangle of the last two axes (the diagonal and k above it); the rest becomes 0.

    ValueError if there are no two axes.
    """
    if x.ndim < 2:
        raise ValueError(f"tril needs two axes, but the shape is {x.shape}")
    xp, k = array_module(x), arguments.integer(k, "k of tril")
    return xp.tril(x, k), lambda g: xp.tril(g, k)


@op
def masked_fill(x, mask: Array, value: float):
    """x with `value` (a number) wherever `mask` is True.

    mask: booleans, of a shape that broadcasts to x's. TypeError if they are not boolean, ValueError if the
    shape does not fit.
    """
    xp = array_module(x)
    mask = arguments.own_mask(mask, "the mask of masked_fill", xp)
    if arguments.broadcast_shape("masked_fill", mask.shape, x.shape) != x.shape:
        raise ValueError(f"masked_fill: a mask of shape {mask.shape} does not fit an x of shape {x.shape}")
    if not isinstance(value, (int, float)):
        raise TypeError(f"masked_fill fills in one number, not {value!r}; where() takes arrays")
    return xp.where(mask, xp.asarray(value, x.dtype), x), lambda g: only_where(~mask, g)


@op
def to(x, device: str):
    """The same values on another device, "cpu" or "cuda"; the gradient travels back."""
    return move(x, device), lambda g: move(g, device_of(x))
