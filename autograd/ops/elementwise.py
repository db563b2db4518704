"""Elementwise operations. Inputs broadcast as in NumPy; each derivative stands beside its forward rule."""

import math
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, is_array
from autograd.operation import op
from autograd.ops import arguments
from autograd.tensor import float_dtype

__all__ = [
    "add",
    "astype",
    "clip",
    "divide",
    "exp",
    "gelu",
    "gelu_exact",
    "log",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "power",
    "relu",
    "sigmoid",
    "sqrt",
    "subtract",
    "tanh",
    "where",
]


IN_CACHE = 65_536  # elements: four arrays of this length fit a cache of 1 MB


def unbroadcast(gradient, shape):
    """Sum a gradient over the axes along which broadcasting repeated an input of this shape.

    Every copy of a repeated element contributes to the result, so the element's gradient is the sum over its
    copies.
    """
    if gradient.shape == shape:
        return gradient
    new = gradient.ndim - len(shape)  # axes that broadcasting put in front
    stretched = tuple(new + i for i, n in enumerate(shape) if n == 1)
    return total(gradient, tuple(range(new)) + stretched).reshape(shape)


def total(x, axes):
    """The sum over a tuple of axes, which keep length 1.

    Over any axes but the last, NumPy adds one element after the other, and float32 would lose what is small
    beside the sum so far: 2**24 + 1 is 2**24. So long sums are taken in float64 there.
    """
    if array_module(x) is np and x.dtype == np.float32 and math.prod(x.shape[axis] for axis in axes) > 128:
        at_the_end = axes == tuple(range(x.ndim - len(axes), x.ndim))
        if not (at_the_end and x.flags.c_contiguous):
            return x.sum(axes, dtype=np.float64, keepdims=True).astype(np.float32)
    return x.sum(axes, keepdims=True)


def only_where(mask, gradient):
    """The gradient where the mask is True, else 0.

    Unlike in gradient * mask, an infinite slope that is left out gives 0, not nan: sqrt(relu(x)) below 0. On
    the CPU the numbers' bits, taken as an integer, are multiplied by 0 or 1, because NumPy's where() has a
    branch for every element.
    """
    xp = array_module(gradient)
    if xp is not np:
        return xp.where(mask, gradient, 0)
    bits = np.int32 if gradient.dtype == np.float32 else np.int64
    return (gradient.view(bits) * mask).view(gradient.dtype)


def shape_of(x):
    """The shape of an array or number."""
    return getattr(x, "shape", ())


def module_of(*inputs):
    """`numpy` or `cupy`, whichever owns the arrays among arrays and numbers."""
    return next((xp for xp in map(array_module, inputs) if xp is not np), np)


@op
def add(x, y):
    x_shape, y_shape = shape_of(x), shape_of(y)  # a pullback that named x would keep its values in memory
    return x + y, (lambda g: unbroadcast(g, x_shape), lambda g: unbroadcast(g, y_shape))


@op
def subtract(x, y):
    x_shape, y_shape = shape_of(x), shape_of(y)
    return x - y, (lambda g: unbroadcast(g, x_shape), lambda g: unbroadcast(-g, y_shape))


@op
def multiply(x, y):
    return x * y, (lambda g: unbroadcast(g * y, x.shape), lambda g: unbroadcast(g * x, y.shape))


@op
def divide(x, y):
    x_shape, out = shape_of(x), x / y
    # -g x / y², without y², which overflows or becomes 0 long before y does
    return out, (lambda g: unbroadcast(g / y, x_shape), lambda g: unbroadcast(-g / y * out, y.shape))


@op
def power(x, y):
    """x to the power y.

    A power of 0 is constant: its slope with respect to x is 0. So is that of 0**y with respect to y, for y of
    at least 0.
    """
    out = x**y
    xp = array_module(out)

    def dx(g):
        if not is_array(y):  # NumPy is quick at x**1, which it knows from the number
            return unbroadcast(g * (y * x ** (y - 1)) if y else xp.zeros(g.shape, g.dtype), x.shape)
        varies = y != 0
        slope = y * x ** xp.where(varies, y - 1, 0)
        return unbroadcast(only_where(varies, g * slope), x.shape)

    def dy(g):
        base = xp.asarray(x, out.dtype)
        slope = out * xp.log(xp.where((base == 0) & (y >= 0), 1, base))
        return unbroadcast(g * slope, y.shape)

    return out, (dx, dy)


@op
def negative(x):
    return -x, lambda g: -g


@op
def exp(x):
    out = array_module(x).exp(x)
    return out, lambda g: g * out


@op
def log(x):
    return array_module(x).log(x), lambda g: g / x


@op
def sqrt(x):
    out = array_module(x).sqrt(x)
    return out, lambda g: g / (2 * out)


@op
def tanh(x):
    out = array_module(x).tanh(x)
    return out, lambda g: g * (1 - out * out)


@op
def sigmoid(x):
    xp = array_module(x)
    # 1 / (1 + exp(-x)), and below 0 exp(x) / (1 + exp(x)): no exponential is above 1, and every digit of a
    # small result is kept
    out = xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))
    return out, lambda g: g * (out * (1 - out))


@op
def relu(x):
    xp = array_module(x)
    # Against a row of zeros, because NumPy's maximum with a scalar misses its SIMD path: 0.17 against 0.35
    # ns/element.
    out = xp.maximum(x, xp.zeros(x.shape[-1:], x.dtype))
    return out, lambda g: only_where(out != 0, g)


@op
def gelu(x):
    """x Φ(x), in the tanh form of GPT-2: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
    xp, c, a = array_module(x), math.sqrt(2 / math.pi), 0.044715

    def tanh_of_inner(x, t):
        xp.multiply(x, x, out=t)
        t *= a * c
        t += c
        t *= x  # c (x + a x³)
        return xp.tanh(t, out=t)

    out = xp.empty(x.shape, x.dtype)
    for x_part, out_part in in_cache(x, out):
        tanh_of_inner(x_part, out_part)
        out_part += 1
        out_part *= x_part
        out_part *= 0.5

    def dx(g):  # 0.5 (1 + t) + 0.5 x (1 - t²) c (1 + 3 a x²)
        grad = xp.empty(x.shape, x.dtype)
        for x_part, g_part, slope in in_cache(x, g, grad):
            # again, at 0.4 ns per element, rather than kept: a seventh of GPT-2's activations
            t = tanh_of_inner(x_part, xp.empty_like(x_part))
            xp.multiply(x_part, x_part, out=slope)
            slope *= 3 * a * c
            slope += c
            slope *= 1 - t * t  # before x: this is 0 where x³ would be inf
            slope *= x_part
            slope += t
            slope += 1
            slope *= 0.5
            slope *= g_part
        return grad

    return out, dx


def in_cache(*arrays):
    """Parts of arrays of one shape, all cut in the same way. The last one, new and contiguous, is written to.

    On a CPU a part has IN_CACHE elements, so that a chain of operations finds it in the second-level cache.
    """
    flat = [array.reshape(-1) for array in arrays]
    n = flat[0].size
    size = IN_CACHE if array_module(flat[0]) is np else max(1, n)
    for start in range(0, n, size):
        yield [array[start : start + size] for array in flat]


@op
def gelu_exact(x):
    """x Φ(x) with the exact normal distribution Φ(x) = (1 + erf(x / √2)) / 2."""
    normal_cdf = 0.5 * (1 + erf(x / math.sqrt(2)))

    def dx(g):
        normal_pdf = array_module(x).exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
        return g * (normal_cdf + x * normal_pdf)

    return x * normal_cdf, dx


_ERF_STEP = 1 / 32
_ERF_TABLE = np.array([math.erf(i * _ERF_STEP) for i in range(6 * 32 + 1)])  # erf(6) is 1 to the last bit


def erf(x):
    """The error function of an array, to rounding. NumPy has none: Taylor's series around a table's entry.

    Its derivatives follow f⁽ⁿ⁺¹⁾(c) = -2c f⁽ⁿ⁾(c) - 2(n-1) f⁽ⁿ⁻¹⁾(c), starting with f'(c) = 2/√π exp(-c²).
    """
    xp = array_module(x)
    distance = xp.fmin(abs(x), 6.0)  # 6 for nan too: an index must be a number
    index = xp.rint(distance / _ERF_STEP).astype(xp.int32)
    center = index.astype(x.dtype) * _ERF_STEP
    d = distance - center  # at most 1/64, so eight terms reach 1e-16
    total = xp.asarray(_ERF_TABLE, dtype=x.dtype)[index]
    term, previous = 2 / math.sqrt(math.pi) * xp.exp(-center * center) * d, 0.0
    for n in range(1, 9):  # term is f⁽ⁿ⁾(c) dⁿ / n!
        total = total + term
        term, previous = -2 * d / (n + 1) * (center * term + (n - 1) / n * d * previous), term
    return xp.sign(x) * total


@op
def abs_(x):
    return abs(x), lambda g: g * array_module(x).sign(x)


@op
def maximum(x, y):
    return _choose(x, y, module_of(x, y).maximum)


@op
def minimum(x, y):
    return _choose(x, y, module_of(x, y).minimum)


def _choose(x, y, chooser):
    """Maximum or minimum: the gradient goes to the chosen input, half to each where they are equal."""
    out = chooser(x, y)

    def share(g, mine, other):
        g = array_module(g).where(mine == other, 0.5 * g, g)
        return unbroadcast(only_where((mine == out) | (other != out), g), mine.shape)

    return out, (lambda g: share(g, x, y), lambda g: share(g, y, x))


@op
def where(condition: Array, x, y):
    """x where the condition holds, else y.

    condition: booleans, of a shape that broadcasts with those of x and y. TypeError if they are not boolean,
    ValueError if the shapes do not broadcast.
    """
    xp = module_of(x, y)
    condition = arguments.own_mask(condition, "the condition of where", xp)
    arguments.broadcast_shape("where", condition.shape, shape_of(x), shape_of(y))
    return xp.where(condition, x, y), (
        None,
        lambda g: unbroadcast(only_where(condition, g), x.shape),
        lambda g: unbroadcast(only_where(~condition, g), y.shape),
    )


@op
def clip(x, low: float | None = None, high: float | None = None):
    """x limited to [low, high] (numbers or None). The slope is 1 inside and at the limits, 0 outside.

    If low is larger than high, every element becomes high. ValueError if both are None.
    """
    limits = [limit for limit in (low, high) if limit is not None]
    if not limits:
        raise ValueError("clip needs low, high or both")
    if not all(isinstance(limit, (int, float)) for limit in limits):
        raise TypeError("the limits of clip must be numbers; for arrays there are maximum and minimum")
    above = -math.inf if low is None else low
    below = math.inf if high is None else high
    return array_module(x).clip(x, low, high), lambda g: only_where((x >= above) & (x <= below), g)


@op
def astype(x, dtype: Any):
    """The same values as float32 or float64; the gradient comes back in the original dtype.

    TypeError for another dtype.
    """
    if dtype is None:  # float64 to NumPy
        raise TypeError("astype needs a dtype: float32 or float64")
    before = x.dtype
    return x.astype(float_dtype(dtype)), lambda g: g.astype(before)
