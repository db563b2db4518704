"""The records of what checks: gradcheck and detect_anomaly."""

import numpy as np

import autograd as ag
from autograd import AnomalyError, anomaly, differences, gradcheck
from autograd.gradcheck import _gradients
from tests.operations.record import Bug, Record
from tests.operations.tape import leaf


def gradcheck_passes_near_a_pole():
    for distance in (1e-3, 1e-4, 1e-6):
        gradcheck(lambda x: 1 / x, leaf([distance]))


def gradcheck_leaves_gradients_alone():
    x, w = leaf([1.0]), leaf([2.0])
    x.grad, w.grad = np.array([7.0]), None
    before = x.grad
    gradcheck(lambda x: ag.checkpoint(lambda x: x * w, x) * w, x)
    assert x.grad is before and before.tolist() == [7] and w.grad is None


def a_mask_of_infinity_is_no_anomaly():
    x = leaf([1.0, 2.0])
    try:
        with ag.detect_anomaly():
            masked = ag.masked_fill(x, np.array([True, False]), -np.inf)
            ag.softmax(masked + np.array([0.0, -np.inf])).sum()
    except AnomalyError as error:
        assert "softmax" in str(error), error  # both are masked, so that its result is NaN
        return
    raise AssertionError("a softmax of nothing is NaN")


RECORDS = [
    Record(
        differences.refined_slope,
        checks=[gradcheck_passes_near_a_pole],
        bugs=[
            Bug(
                "gradcheck: a steep place passes for a corner",
                right="if last is not None and estimates[last].is_gone_in(estimates[last + 1]):",
                wrong="if last is not None:",
            ),
        ],
    ),
    Record(
        _gradients,
        checks=[gradcheck_leaves_gradients_alone],
        bugs=[
            Bug(
                "gradcheck: leftovers stay in .grad",
                right="start += result.size",
                wrong="start += result.size; inputs[0].grad = gradients.get(inputs[0])",
            ),
        ],
    ),
    Record(
        anomaly._which,
        checks=[a_mask_of_infinity_is_no_anomaly],
        bugs=[
            Bug(
                "detect_anomaly: an infinity that was given is one that was made",
                right="_is_floating(value) and holds(value)",
                wrong="False",
            ),
        ],
    ),
]
