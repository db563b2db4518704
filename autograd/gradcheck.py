"""Compare the tape's derivatives with finite differences: the proof of a hand-written backward pass."""

from collections.abc import Callable

import numpy as np

from autograd.random import Stream
from autograd.tape import no_grad
from autograd.tensor import Tensor

STEP = 1e-4  # with the five-point formula its error is about 1e-16 (formula) plus 1e-12 (rounding in float64)


class GradcheckError(AssertionError):
    """The tape and the finite differences disagree."""


class KinkError(GradcheckError):
    """The function has a corner at this point, so there is no derivative to compare with."""


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Tensor,
    mode: str = "elementwise",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    step: float = STEP,
    seed: int = 0,
) -> bool:
    """Check d function / d inputs against finite differences. Returns True or raises GradcheckError.

    function: Tensors -> Tensor of any shape; it must give the same result each time. inputs: float64 Tensors
    with requires_grad=True; their values are changed during the check and restored. The result is multiplied
    by a random upstream gradient, because a plain sum hides errors: the gradient of softmax(x).sum() is 0
    whatever the pullback does.

    mode "elementwise" tries every element of every input. "projected" tries one random direction through all
    inputs at once, which takes four evaluations however large the function is.

    The error names the worst entry and both its numbers. Raises TypeError for float32, and KinkError where
    the function has a corner within two steps.
    """
    _check_inputs(inputs)
    originals = [x.data.copy() for x in inputs]
    output = function(*inputs)
    upstream = _random_like(output.data, seed, site=0)
    if not output.requires_grad:
        raise GradcheckError("the result does not depend on any input: it was computed outside of the tape")
    for x in inputs:
        x.grad = None
    output.backward(upstream)
    grads = [np.zeros(x.shape) if x.grad is None else x.grad.copy() for x in inputs]
    for i, (x, original) in enumerate(zip(inputs, originals, strict=True)):
        if not np.array_equal(x.data, original, equal_nan=True):
            raise GradcheckError(f"the function changed its input {i} in place")

    def value():
        with no_grad():
            return float((function(*inputs).data * upstream).sum())

    if mode == "projected":
        _compare_projected(value, inputs, grads, step, rtol, atol, seed)
    elif mode == "elementwise":
        _compare_elements(value, inputs, grads, step, rtol, atol)
    else:
        raise ValueError(f"mode {mode!r}: elementwise or projected")
    return True


def _check_inputs(inputs):
    for i, x in enumerate(inputs):
        if not isinstance(x, Tensor) or not x.requires_grad:
            raise TypeError(f"gradcheck: input {i} must be a Tensor with requires_grad=True")
        if x.dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {i} is {x.dtype}. A finite difference subtracts two nearly equal numbers; "
                "of float32's 7 digits about 3 survive, too few to prove anything. Make it Tensor(..., "
                "dtype=np.float64)."
            )


def _random_like(array, seed, site):
    """Values of magnitude 0.5 to 1.5 and random sign: no entry is small enough to hide an error."""
    draw = Stream(seed, site=site).uniform(array.size).reshape(array.shape)
    return np.where(draw < 0.5, 0.5 + 2 * draw, -2 * draw + 0.5)


def slope(value_at: Callable[[float], float], step: float = STEP) -> float:
    """The derivative at 0 of a function of one number, by the five-point formula.

    Raises KinkError at a corner: where a function is smooth, its second difference grows fourfold when the
    step doubles; across a corner it grows linearly.
    """
    center = value_at(0.0)
    left2, left, right, right2 = (value_at(k * step) for k in (-2, -1, 1, 2))
    derivative = (left2 - 8 * left + 8 * right - right2) / (12 * step)
    second, second2 = right - 2 * center + left, right2 - 2 * center + left2
    scale = max(abs(right - center), abs(left - center), abs(right2 - center), abs(left2 - center))
    if abs(second2 - 4 * second) > 1e-3 * scale + 1e-10 * max(1.0, abs(center)):
        raise KinkError(
            f"there is a corner here: the slope is {(center - left) / step:.6g} to the left and "
            f"{(right - center) / step:.6g} to the right. Move the point away from it (relu and abs have one "
            "at 0)."
        )
    return derivative


def _compare_projected(value, inputs, grads, step, rtol, atol, seed):
    originals = [x.data.copy() for x in inputs]
    directions = [_random_like(x.data, seed, site=1 + i) for i, x in enumerate(inputs)]

    def value_at(t):
        for x, original, direction in zip(inputs, originals, directions, strict=True):
            x.data[...] = original + t * direction
        return value()

    # All elements move at once, so each by less: the distance between the points stays that of one moving
    # element.
    distance = step / max(1, sum(x.size for x in inputs)) ** 0.5
    try:
        numeric = slope(value_at, distance)
    finally:
        for x, original in zip(inputs, originals, strict=True):
            x.data[...] = original
    analytic = sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True))
    if not abs(analytic - numeric) <= atol + rtol * abs(numeric):
        raise GradcheckError(
            f"along a random direction the tape says {analytic:.12g}, the difference {numeric:.12g}"
        )


def _compare_elements(value, inputs, grads, step, rtol, atol):
    worst, message = 0.0, None
    for i, (x, grad) in enumerate(zip(inputs, grads, strict=True)):
        for index in np.ndindex(x.shape):
            numeric = _element_slope(value, x, index, step, where=f"input {i}, element {list(index)}: ")
            analytic = float(grad[index])
            excess = abs(analytic - numeric) / (atol + rtol * abs(numeric))
            if not excess <= 1 and not excess <= worst:
                worst = excess
                where = f"input {i}, element {list(index)}"
                message = f"{where}: the tape says {analytic:.12g}, the difference {numeric:.12g}"
    if message:
        raise GradcheckError(f"wrong gradient, worst at {message} ({worst:.3g} times the tolerance)")


def _element_slope(value, x, index, step, where):
    original = x.data[index]

    def value_at(t):
        x.data[index] = original + t
        return value()

    try:
        return slope(value_at, step)
    except KinkError as error:
        raise KinkError(where + str(error)) from None
    finally:
        x.data[index] = original
