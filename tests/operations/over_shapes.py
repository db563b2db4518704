"""Hypothesis strategies for `over_shapes` of a record: calls of an operation on random shapes.

Shapes may be 0-d, empty and broadcast.
"""

from collections.abc import Callable
from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from autograd import Tensor
from tests.operations.checks import tensors

seeds = st.integers(0, 1000)
pairs = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)


@dataclass(frozen=True)
class Call:
    """A function of Tensors, its inputs, and the array that it must return, if that is known."""

    function: Callable[..., Tensor]
    inputs: list[Tensor]
    expected: np.ndarray | None = None


@st.composite
def unary(draw, function, positive=False, min_dims=0):
    """function(x). With min_dims, x has at least so many axes and is not empty."""
    shape = draw(array_shapes(min_dims=min_dims, max_dims=3, min_side=min(1, min_dims), max_side=4))
    return Call(function, tensors(shape, seed=draw(seeds), positive=positive))


@st.composite
def binary(draw, function, positive=False):
    """function(x, y) of shapes that broadcast."""
    return Call(function, tensors(*draw(pairs).input_shapes, seed=draw(seeds), positive=positive))


@st.composite
def reduction(draw, function, numpy_function=None):
    """function(x, axis, keepdims): over all axes, one, or several. As NumPy's function, if there is one."""
    shape = draw(array_shapes(min_dims=0, max_dims=3, max_side=4))
    axes = st.none()
    if shape:
        one = st.integers(-len(shape), len(shape) - 1)
        axes = st.one_of(axes, one, st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    options = dict(axis=draw(axes), keepdims=draw(st.booleans()))
    inputs = tensors(shape, seed=draw(seeds))
    expected = numpy_function(inputs[0].data, **options) if numpy_function else None
    return Call(lambda x: function(x, **options), inputs, expected)
