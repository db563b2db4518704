"""Operations that move elements without changing them. Their pullbacks move the gradients back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, device_of, is_array, move
from autograd.ops.elementwise import unbroadcast
from autograd.tensor import Tensor, op

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
    return x.reshape(shape), lambda g: g.reshape(x.shape)


@op
def transpose(x, axes: tuple[int, ...] | None = None):
    """Permute the axes (reverse them if none are given)."""
    order = tuple(range(x.ndim))[::-1] if axes is None else axes
    inverse = tuple(np.argsort([axis % x.ndim for axis in order])) if x.ndim else ()
    return x.transpose(order), lambda g: g.transpose(inverse)


@op
def swapaxes(x, a: int, b: int):
    return x.swapaxes(a, b), lambda g: g.swapaxes(a, b)


@op
def expand_dims(x, axis: int | tuple[int, ...]):
    return array_module(x).expand_dims(x, axis), lambda g: g.reshape(x.shape)


@op
def squeeze(x, axis: int | tuple[int, ...] | None = None):
    return x.squeeze(axis), lambda g: g.reshape(x.shape)


@op
def broadcast_to(x, shape: tuple[int, ...]):
    return array_module(x).broadcast_to(x, shape), lambda g: unbroadcast(g, x.shape)


def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join a sequence of Tensors along an existing axis."""
    return _concatenate(*tensors, axis=axis)


@op
def _concatenate(*arrays, axis: int):
    ends = np.cumsum([array.shape[axis] for array in arrays]).tolist()

    def part(start, stop):
        return lambda g: g[(slice(None),) * (axis % g.ndim) + (slice(start, stop),)]

    out = array_module(arrays[0]).concatenate(arrays, axis)
    return out, tuple(part(start, stop) for start, stop in zip([0, *ends], ends, strict=False))


def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Join a sequence of Tensors of one shape along a new axis."""
    return concatenate([expand_dims(tensor, axis=axis) for tensor in tensors], axis)


def split(x: Tensor, sections: int | Sequence[int], axis: int = 0) -> list[Tensor]:
    """Cut a Tensor along an axis, into a number of equal parts or before the given positions."""
    length = x.shape[axis]
    if isinstance(sections, int):
        if length % sections:
            raise ValueError(f"cannot split {length} elements into {sections} equal parts")
        sections = range(length // sections, length, length // sections)
    before = (slice(None),) * (axis % x.ndim)
    return [
        getitem(x, index=before + (slice(start, stop),))
        for start, stop in zip([0, *sections], [*sections, length], strict=True)
    ]


@op
def getitem(x, index: Any):
    """x[index] for integers, slices, None, ..., boolean masks and integer arrays.

    The gradients of an entry that is taken several times add up.
    """
    index = _plain(index, x)
    xp = array_module(x)
    advanced = any(
        is_array(part) or isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,))
    )

    def dx(g):
        out = xp.zeros(x.shape, x.dtype)
        if advanced:
            xp.add.at(out, index, g)  # unlike out[index] += g, counts an entry as often as it was taken
        else:
            out[index] = g
        return out

    return x[index], dx


def _plain(index, x):
    """Refuse Tensors as indices, and put index arrays where x is."""
    if isinstance(index, tuple):
        return tuple(_plain(part, x) for part in index)
    if isinstance(index, Tensor):
        raise TypeError("a Tensor is a float array: index with plain integer arrays, slices or integers")
    return array_module(x).asarray(index) if is_array(index) or isinstance(index, list) else index


@op
def tril(x, k: int = 0):
    """The lower triangle of the last two axes (the diagonal and k above it); the rest becomes 0."""
    xp = array_module(x)
    return xp.tril(x, k), lambda g: xp.tril(g, k)


@op
def masked_fill(x, mask: Array, value: float):
    """x with `value` (a number) wherever `mask` is True.

    mask: a plain boolean array, of a shape that broadcasts to x's.
    """
    xp = array_module(x)
    return xp.where(mask, xp.asarray(value, x.dtype), x), lambda g: xp.where(mask, 0, g)


@op
def to(x, device: str):
    """The same values on another device, "cpu" or "cuda"; the gradient travels back."""
    return move(x, device), lambda g: move(g, device_of(x))
