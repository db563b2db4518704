"""The gradient check itself: what it accepts, what it rejects, and how it says so."""

import numpy as np
import pytest

import autograd as ag
from autograd import GradcheckError, KinkError, Tensor, gradcheck
from autograd.tensor import op


def point(*values):
    return Tensor(np.array(values), requires_grad=True)


@op
def wrong_exp(x):
    return np.exp(x), lambda g: g * np.exp(x) * (1 + 1e-5)


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
def test_a_relative_error_of_1e5_is_found(mode):
    assert gradcheck(ag.exp, point(1.0, 2.0), mode=mode)
    with pytest.raises(GradcheckError):
        gradcheck(wrong_exp, point(1.0, 2.0), mode=mode)


def test_the_worst_entry_is_reported_with_both_numbers():
    @op
    def third_wrong(x):
        return x * 1.0, lambda g: g * np.array([1.0, 1.001, 2.0])

    with pytest.raises(
        GradcheckError, match=r"input 0, element \[2\]: the tape says [-\d.]+, the difference [-\d.]+"
    ):
        gradcheck(third_wrong, point(1.0, 2.0, 3.0))


def test_the_upstream_gradient_is_random():
    """softmax(x).sum() is constant, so a zero pullback would pass under an upstream gradient of ones."""

    @op
    def softmax_without_gradient(x):
        return ag.softmax.raw(x)[0], lambda g: np.zeros_like(g)

    with pytest.raises(GradcheckError):
        gradcheck(softmax_without_gradient, point(1.0, 2.0))


@pytest.mark.parametrize(
    "function", [ag.relu, ag.abs, lambda x: ag.maximum(x, -x), lambda x: ag.clip(x, 0.0, 5.0)]
)
def test_a_kink_is_called_a_kink(function):
    for value in (0.0, 0.5e-4, -1.5e-4):
        with pytest.raises(KinkError, match=r"element \[1\].*corner.*left.*right"):
            gradcheck(function, point(1.0, value))
    assert gradcheck(function, point(1.0, 0.01))


def test_steep_and_flat_functions_have_no_kinks():
    gradcheck(lambda x: ag.exp(x * 50.0), point(0.1, -0.2))
    gradcheck(lambda x: x * x * x, point(0.0))
    gradcheck(lambda x: ag.power(x, 2.0) * 1e-6, point(0.0, 1.0), atol=1e-14)
    gradcheck(lambda x: x * 0.0 + 1.0, point(2.0))


def test_float32_is_refused_with_an_explanation():
    with pytest.raises(TypeError, match="float32.*digits.*float64"):
        gradcheck(ag.exp, Tensor([1.0], requires_grad=True))


def test_other_misuse_is_explained():
    with pytest.raises(TypeError, match="requires_grad"):
        gradcheck(ag.exp, Tensor(np.ones(1)))
    with pytest.raises(GradcheckError, match="does not depend"):
        gradcheck(lambda x: x.detach() * 2, point(1.0))
    with pytest.raises(ValueError, match="elementwise or projected"):
        gradcheck(ag.exp, point(1.0), mode="fast")


def test_a_function_that_changes_its_input_is_caught():
    def spoil(x):
        y = x * 2.0
        x.data += 1
        return y

    with pytest.raises(GradcheckError, match="in place"):
        gradcheck(spoil, point(1.0))


def test_inputs_are_put_back():
    x = point(1.0, 2.0)
    for mode in ("elementwise", "projected"):
        gradcheck(ag.exp, x, mode=mode)
        assert x.data.tolist() == [1, 2]


def test_nan_does_not_pass():
    @op
    def nan_gradient(x):
        return x * 1.0, lambda g: g * np.nan

    for mode in ("elementwise", "projected"):
        with pytest.raises(GradcheckError):
            gradcheck(nan_gradient, point(1.0), mode=mode)
