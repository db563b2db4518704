"""Compare the tape's derivatives with finite differences: the proof of a hand-written backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autograd.anomaly import AnomalyError
from autograd.backend import array_module, to_numpy
from autograd.differences import Change, GradcheckError, KinkError, Line, Tolerance, refined_slope, slope
from autograd.random import Stream
from autograd.recording import enable_grad, no_grad
from autograd.tape import gradients_aside
from autograd.tensor import Tensor

__all__ = ["GradcheckError", "KinkError", "gradcheck"]

STEP = 1e-4  # with the five-point formula its error is about 1e-16 (formula) plus 1e-12 (rounding in float64)
LEAST_GAPS = 2**30  # a step is at least that many times the gap to the next number: else it is rounded off


def gradcheck(
    function: Callable[..., Tensor | Sequence[Tensor]],
    *inputs: Tensor,
    mode: str = "elementwise",
    rtol: float = 1e-6,
    atol: float = 1e-8,
    step: float = STEP,
    seed: int = 0,
) -> bool:
    """Check d function / d inputs against finite differences. Returns True or raises GradcheckError.

    function: Tensors -> Tensor of any shape, or a tuple or list of them; it must give the same result each
    time. Results that need no gradient do not count. inputs: float64 leaves with requires_grad=True. They
    hold other values during the check. Afterwards their `data` and the `grad` of all leaves are what they
    were. The results are multiplied by random upstream gradients, because a plain sum hides errors: the
    gradient of softmax(x).sum() is 0 whatever the pullback does.

    mode "elementwise" tries every element of every input. "projected" tries one random direction through all
    inputs at once, which takes four evaluations however large the function is. Where the function is too
    steep for the step, smaller steps are tried.

    The error names the worst entry and both its numbers. Raises TypeError or ValueError for what cannot be
    checked (float32, a Tensor that is not a leaf), and KinkError where the function has a corner within two
    steps.
    """
    _check_request(function, inputs, mode, step)
    with _CopiesOfValues(inputs) as copies:
        with enable_grad():
            output = function(*inputs)
            which = _differentiable(output, inputs)
            results = [_as_list(output)[i] for i in which]
            upstream = _random_like(_flat(results), seed, site=0)
            grads = _gradients(results, upstream, inputs)
            copies.refuse_changed()
        changes = _Changes(function, inputs, which, upstream, _flat(results))
        lines_through = _random_line if mode == "projected" else _lines_of_elements
        _compare(lines_through(changes, grads, step, seed), Tolerance(rtol, atol))
    return True


# --- what can be checked --------------------------------------------------------------------------


def _check_request(function, inputs, mode, step):
    if not callable(function) or isinstance(function, Tensor):
        raise TypeError(f"gradcheck: the function comes first, then its inputs; not {_kind(function)}")
    if mode not in ("elementwise", "projected"):
        raise ValueError(f"mode {mode!r}: elementwise or projected")
    if not 0 < step < math.inf:
        raise ValueError(f"gradcheck: the step must be a number above 0, not {step}")
    if not inputs:
        raise TypeError("gradcheck: there is no input; write gradcheck(function, x, y)")
    for i, x in enumerate(inputs):
        _check_input(i, x)
        if any(x is other for other in inputs[:i]):
            raise ValueError(
                f"gradcheck: input {i} is the same Tensor as an input before it; check lambda x: f(x, x)"
            )


def _check_input(i, x):
    if isinstance(x, (list, tuple, dict)):
        raise TypeError(f"gradcheck: input {i} is a {_kind(x)}; give its Tensors one by one, as in f, x, y")
    if not isinstance(x, Tensor):
        raise TypeError(f"gradcheck: input {i} must be a Tensor with requires_grad=True, not {_kind(x)}")
    if x.node is not None:
        raise TypeError(f"gradcheck: input {i} is not a leaf: detach() it, or check the function of its leaf")
    if not x.requires_grad:
        raise TypeError(f"gradcheck: input {i} must be a Tensor with requires_grad=True")
    if x.dtype != np.float64:
        raise TypeError(
            f"gradcheck: input {i} is {x.dtype}. A finite difference subtracts two nearly equal numbers; "
            "of float32's 7 digits about 3 survive, too few to prove anything. Make it Tensor(..., "
            "dtype=np.float64)."
        )
    if not np.isfinite(to_numpy(x.data)).all():
        raise ValueError(f"gradcheck: input {i} holds NaN or infinity, where there are no differences")


def _kind(value):
    return type(value).__name__


def _differentiable(output, inputs):
    """The positions of the results that may depend on the inputs, after a look at all of them."""
    results = _as_list(output)
    for result in results:
        if not isinstance(result, Tensor):
            container = f"a {_kind(output)} with " if result is not output else ""
            raise TypeError(
                "gradcheck: the function must return a Tensor, or a tuple or list of Tensors; it returned "
                f"{container}{_kind(result)}"
            )
    which = [i for i, result in enumerate(results) if _may_depend(result, inputs)]
    if not which:
        raise GradcheckError("the result does not depend on any input: it was computed outside of the tape")
    for result in [results[i] for i in which]:
        if result.dtype != np.float64:
            raise TypeError(f"gradcheck: the result is {result.dtype}, too coarse for finite differences")
        if not np.isfinite(to_numpy(result.data)).all():
            raise GradcheckError("the result holds NaN or infinity at this point: it has no differences")
    return which


def _may_depend(result, inputs):
    return result.requires_grad and (result.node is not None or any(result is x for x in inputs))


def _as_list(output):
    return list(output) if isinstance(output, (tuple, list)) else [output]


def _flat(results):
    """The values of all results, one after another, in one NumPy array."""
    return np.concatenate([to_numpy(result.data).ravel() for result in results])


class _CopiesOfValues:
    """While it lasts, each input works on a copy of its values. Afterwards it has its own array again."""

    def __init__(self, inputs):
        self.inputs = inputs

    def __enter__(self):
        self.originals = [x.data for x in self.inputs]
        self.copies = [original.copy() for original in self.originals]
        for x, copy in zip(self.inputs, self.copies, strict=True):
            x.data = copy
        return self

    def __exit__(self, *exception):
        for x, original in zip(self.inputs, self.originals, strict=True):
            x.data = original

    def refuse_changed(self):
        """GradcheckError if the function changed an input."""
        for i, (x, copy, original) in enumerate(zip(self.inputs, self.copies, self.originals, strict=True)):
            if x.data is not copy or not (copy == original).all():
                raise GradcheckError(f"the function changed its input {i} in place")


# --- the tape's side ------------------------------------------------------------------------------


def _gradients(results, upstream, inputs):
    """The tape's gradient of each input, as NumPy arrays. The `grad` of every leaf stays as it is."""
    start = 0
    with gradients_aside() as gradients:
        for result in results:
            part = upstream[start : start + result.size].reshape(result.shape)  # (size) -> the result's shape
            result.backward(part, retain_graph=len(results) > 1)
            start += result.size
    return [to_numpy(gradients[x]) if x in gradients else np.zeros(x.shape) for x in inputs]


def _random_like(array, seed, site):
    """Values of magnitude 0.5 to 1.5 and random sign: no entry is small enough to hide an error."""
    draw = Stream(seed, site=site).uniform(array.size).reshape(array.shape)
    return np.where(draw < 0.5, 0.5 + 2 * draw, -2 * draw + 0.5)


# --- the side of the finite differences -----------------------------------------------------------


class _Changes:
    """Evaluates the function where the inputs stand: how its results differ from those at the point.

    Differences are taken before the results are summed: a large result must not hide the others.
    """

    def __init__(self, function, inputs, which, upstream, results):
        self.function, self.inputs, self.which, self.upstream = function, inputs, which, upstream
        self.center = self._results()
        if self.center.shape != results.shape or not np.allclose(self.center, results, rtol=1e-9, atol=1e-12):
            raise GradcheckError("the function gives another result each time: is there dropout in it?")

    def __call__(self) -> Change:
        with np.errstate(all="ignore"):  # a point beside this one may lie outside of the function's domain
            try:
                difference = self._results() - self.center
            except AnomalyError:
                return Change(math.nan, 0.0)
            moved = (self.center * self.upstream)[difference != 0]
            return Change(float((difference * self.upstream).sum()), 1e-15 * float(np.abs(moved).sum()))

    def _results(self):
        with no_grad():
            output = _as_list(self.function(*self.inputs))
        return _flat([output[i] for i in self.which])


def _lines_of_elements(changes, grads, step, seed) -> Iterator[Line]:
    """One line for each element of each input."""
    for i, (x, grad) in enumerate(zip(changes.inputs, grads, strict=True)):
        gaps = _gaps(x)
        for index in np.ndindex(x.shape):
            gap = float(gaps[index])
            yield Line(
                where=f"input {i}, element {list(index)}",
                change_at=_moving_element(changes, x, index),
                step=max(step, LEAST_GAPS * gap),
                smallest=16 * gap,
                analytic=float(grad[index]),
            )


def _gaps(x):
    """How far the next number is from each element: what rounding leaves of a move is a multiple of it."""
    return np.spacing(np.abs(to_numpy(x.data)))


def _moving_element(changes, x, index):
    original = float(x.data[index])

    def change_at(t):
        x.data[index] = original + t
        change = changes()
        x.data[index] = original
        return change

    return change_at


def _random_line(changes, grads, step, seed) -> Iterator[Line]:
    """One line, along which all elements of all inputs move."""
    inputs = changes.inputs
    originals = [x.data.copy() for x in inputs]
    # Large numbers move by more, as each would alone.
    directions = [
        _random_like(x.data, seed, site=1 + i) * np.maximum(1.0, LEAST_GAPS * _gaps(x) / STEP)
        for i, x in enumerate(inputs)
    ]

    def change_at(t):
        for x, original, direction in zip(inputs, originals, directions, strict=True):
            x.data[...] = original + array_module(original).asarray(t * direction)
        return changes()

    yield Line(
        where="along a random direction",
        change_at=change_at,
        # All elements move at once, so each by less: the distance between the points stays that of one
        # moving element.
        step=step / max(1, sum(x.size for x in inputs)) ** 0.5,
        smallest=2**14 * max((float(_gaps(x).max()) for x in inputs if x.size), default=0.0),
        analytic=sum(float((g * d).sum()) for g, d in zip(grads, directions, strict=True)),
    )


def _compare(lines, tolerance):
    """GradcheckError that names the line where the two derivatives differ most."""
    doubtful = []
    for line in lines:
        excess = tolerance.excess(line.analytic, slope(line, tolerance))
        if excess > 1:
            doubtful.append((excess, line))
    # The worst first: if it is wrong with smaller steps too, the others need no second look.
    for _, line in sorted(doubtful, key=lambda pair: -pair[0]):
        numeric = refined_slope(line, tolerance)
        excess = tolerance.excess(line.analytic, numeric)
        if excess > 1:
            raise GradcheckError(
                f"wrong gradient, {line.where}: the tape says {line.analytic:.12g}, the difference "
                f"{numeric:.12g} ({excess:.3g} times the tolerance)"
            )
