"""Derivatives of a function of one number from differences: where it is smooth, steep, or has a corner."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

TINY = 1e-300  # in place of a divisor 0


class GradcheckError(AssertionError):
    """The tape and the finite differences disagree."""


class KinkError(GradcheckError):
    """The function has a corner at this point, so there is no derivative to compare with."""


class Change(NamedTuple):
    """By how much the weighted sum of the results differs from that at the point, and its rounding error."""

    value: float
    rounding: float


class Line(NamedTuple):
    """A line through the point: what the function does along it."""

    where: str
    change_at: Callable[[float], Change]  # the change at a distance from the point
    step: float
    smallest: float  # below this step, rounding leaves nothing of it
    analytic: float  # the tape's derivative along the line


class Tolerance(NamedTuple):
    rtol: float
    atol: float

    def around(self, slope):
        return self.atol + self.rtol * abs(slope)

    def excess(self, analytic, numeric):
        """How many times the tolerance the two derivatives differ."""
        excess = abs(analytic - numeric) / max(self.around(numeric), TINY)
        return math.inf if math.isnan(excess) else excess


class Estimate(NamedTuple):
    """What the changes at -2, -1, 1 and 2 steps tell.

    The bend, the fourth difference per step, tells a corner from a curve. Where the function is smooth, it is
    about step³ times the fourth derivative: it shrinks eightfold when the step is halved. Across a corner it
    is as large as the jump of the slope.
    """

    slope: float  # by the five-point formula
    bend: float
    steepest: float  # the largest change per step
    rounding: float  # of a change, per step
    left: float  # the slope between -2 and -1 steps
    right: float  # the slope between 1 and 2 steps

    def is_bent(self, floor):
        """Whether there may be a corner: the bend is above the floor, and no small part of the slope."""
        return not self.bend <= 1e-3 * self.steepest + floor

    def is_sharp(self, around):
        """Whether rounding, were it a bend, could not pass for a corner."""
        return 16 * self.rounding <= 1e-3 * self.steepest + around

    def is_gone_in(self, smaller):
        """Whether the bend is gone at once in the estimate from half the step. From infinity it is not."""
        rest = max(smaller.bend, 16 * smaller.rounding)
        is_less = self.bend > 100 * rest
        is_less_of_the_slope = self.bend * smaller.steepest >= 100 * rest * self.steepest
        return math.isfinite(self.bend) and is_less and is_less_of_the_slope


def _estimate(left2, left, right, right2, step):
    changes = (left2, left, right, right2)
    l2, l1, r1, r2 = (change.value for change in changes)
    return Estimate(
        slope=(l2 - 8 * l1 + 8 * r1 - r2) / (12 * step),
        bend=abs(l2 - 4 * l1 - 4 * r1 + r2) / step,
        steepest=max(abs(l2), abs(l1), abs(r1), abs(r2)) / step,
        rounding=max(change.rounding for change in changes) / step,
        left=(l1 - l2) / step,
        right=(r2 - r1) / step,
    )


def _at_full_step(line):
    return _estimate(*(line.change_at(k * line.step) for k in (-2, -1, 1, 2)), line.step)


def slope(line, tolerance):
    """The derivative along the line: from four values, if they look like those of a smooth function."""
    first = _at_full_step(line)
    if first.is_bent(_floor_at_full_step(line, first)):
        return refined_slope(line, tolerance)
    return first.slope


def _floor_at_full_step(line, first):
    return 1e-10 / line.step + 1e5 * first.rounding


def refined_slope(line, tolerance):
    """The derivative along the line, from the step at which two estimates agree best (Ridders, 1982).

    KinkError at a corner. Near a pole, or where the function is otherwise too steep for the first step, the
    bend shrinks gradually with the step. At a corner it does not shrink, or it is gone at once when the step
    has become too small to reach the corner.
    """
    estimates = [_at_full_step(line)]
    bent = [estimates[0].is_bent(_floor_at_full_step(line, estimates[0]))]
    best, smallest_error = None, math.inf
    for estimate in _at_smaller_steps(line, estimates[0].rounding * line.step):
        around = tolerance.around(estimate.slope)
        error = (abs(estimate.slope - estimates[-1].slope) + estimate.rounding) / max(around, TINY)
        estimates.append(estimate)
        bent.append(estimate.is_bent(16 * estimate.rounding + around))
        if not bent[-1] and estimate.is_sharp(around) and error < smallest_error:
            best, smallest_error = len(estimates) - 1, error
            if error < 1e-3:
                break
    if best is None:
        if bent[0]:
            raise _kink(line, estimates)
        return estimates[0].slope
    last = max((i for i in range(best) if bent[i]), default=None)
    if last is not None and estimates[last].is_gone_in(estimates[last + 1]):
        raise _kink(line, estimates[last:])
    return estimates[best].slope


def _at_smaller_steps(line, rounding) -> Iterator[Estimate]:
    """Estimates at steps that are halved again and again: powers of 2, so that point + step is exact.

    rounding: of the changes at the full step. Below a certain step there are none, which proves nothing.
    """
    step = 2.0 ** math.floor(math.log2(line.step))
    left2, right2 = line.change_at(-2 * step), line.change_at(2 * step)
    for _ in range(60):
        if step < line.smallest:
            return
        left, right = line.change_at(-step), line.change_at(step)
        estimate = _estimate(left2, left, right, right2, step)
        rounding = max(rounding, estimate.rounding * step)
        yield estimate._replace(rounding=rounding / step)
        step, left2, right2 = step / 2, left, right


def _kink(line, estimates):
    finite = [estimate for estimate in estimates if math.isfinite(estimate.bend)]
    if not finite:
        return KinkError(
            f"{line.where}: the function ends here: beside this point it is NaN or infinite. Move the point "
            "away from it (log and sqrt end at 0)."
        )
    return KinkError(
        f"{line.where}: there is a corner here: the slope is {finite[0].left:.6g} to the left and "
        f"{finite[0].right:.6g} to the right. Move the point away from it (relu and abs have one at 0)."
    )
