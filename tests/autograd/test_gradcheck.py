"""The gradient check itself: what it accepts, what it rejects, and how it says so."""

import itertools
from contextlib import nullcontext

import numpy as np
import pytest

import autograd as ag
from autograd import GradcheckError, KinkError, Tensor, gradcheck, tape
from autograd.operation import op
from tests.operations import checking, checks_of


@pytest.mark.parametrize("check", checks_of(checking).values(), ids=checks_of(checking))
def test_what_checks(check):
    check()


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


# --- what it leaves behind ------------------------------------------------------------------------


def uses_a_weight(weight):
    return lambda x: (x * weight).sum()


def wrong_and_uses_a_weight(weight):
    return lambda x: wrong_exp(x * weight).sum()


def fails_at_the_differences(weight):
    calls = []

    def function(x):
        calls.append(x)
        if len(calls) > 3:
            raise OSError("no more")
        return x * weight

    return function


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
@pytest.mark.parametrize(
    ("make", "error"),
    [
        (uses_a_weight, None),
        (lambda weight: lambda x: ag.checkpoint(lambda y: y * weight, x), None),
        (wrong_and_uses_a_weight, GradcheckError),
        (fails_at_the_differences, OSError),
    ],
)
def test_gradients_and_values_are_as_they_were(make, error, mode):
    x, weight, unused = point(1.0, 2.0), point(3.0, 4.0), point(5.0)
    x.grad, values = np.array([7.0, 8.0]), x.data
    weight.grad = np.array([9.0, 10.0])
    before = [x.grad, weight.grad, unused.grad]
    with pytest.raises(error) if error else nullcontext():
        gradcheck(make(weight), x, mode=mode)
    assert all(leaf.grad is grad for leaf, grad in zip([x, weight, unused], before, strict=True))
    assert [x.grad.tolist(), weight.grad.tolist()] == [[7, 8], [9, 10]]
    assert x.data is values and values.tolist() == [1, 2]


def test_a_parameter_trains_on_after_a_check():
    """As if there had been none: the optimizer and the parameter still belong together."""
    ends = []
    for checks in (False, True):
        w = point(1.0, -2.0)
        optimizer = ag.AdamW([w], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (w * w).sum().backward()
            if checks:
                gradcheck(lambda w: w * w, w)
            optimizer.step()
        ends.append(w.data.tolist())
    assert ends[0] == ends[1] != [1.0, -2.0]


def test_a_graph_from_before_can_still_be_differentiated():
    x = point(3.0)
    loss = (x * x).sum()
    gradcheck(lambda x: x * x, x)
    loss.backward()
    assert x.grad.tolist() == [6.0]


# --- smooth functions and corners -----------------------------------------------------------------

STEEP = {
    "1 / x": lambda x: 1 / x,
    "1 / x²": lambda x: 1 / (x * x),
    "x ** -10": lambda x: x**-10,
    "log": ag.log,
    "sqrt": ag.sqrt,
    "(x + 1) / (x (x - 2.5))": lambda x: (x + 1) / (x * (x - 2.5)),
    "a large constant": lambda x: 1 / x + 5.0,
}


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
@pytest.mark.parametrize("name", STEEP)
def test_near_a_pole_there_is_no_corner(name, mode):
    for distance in (3e-8, 1e-6, 3e-5, 1.1e-4, 3e-4, 2.5e-3, 0.04):
        assert gradcheck(STEEP[name], point(distance, 0.7), mode=mode)


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (lambda x: ag.exp(x * 1e5), 1e-3),
        (lambda x: ag.tanh(x * 1e5), 0.0),
        (lambda x: ag.tanh(x * 1e4), 1e-3),  # 4e-9 below 1, and nearly flat
        (lambda x: x**4 * 1e10, 0.0),
        (lambda x: ag.relu(x) ** 2 * 1e5, 0.0),
        (ag.exp, 709.7),  # twice the step farther it overflows
        (lambda x: x * x, 1e12),
    ],
)
@pytest.mark.parametrize("mode", ["elementwise", "projected"])
def test_steep_functions_have_no_corners(function, value, mode):
    assert gradcheck(function, point(value), mode=mode)


def test_a_wrong_gradient_near_a_pole_is_found():
    @op
    def wrong_inverse(x):
        return 1 / x, lambda g: -g / (x * x) * (1 + 1e-5)

    for distance in (1e-6, 1.1e-4, 3e-3):
        with pytest.raises(GradcheckError, match=r"element \[0\]: the tape says") as error:
            gradcheck(wrong_inverse, point(distance, 0.7))
        assert not isinstance(error.value, KinkError)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: ag.relu(x) + x * x,
        lambda x: ag.abs(x) * ag.exp(x) + 5.0,
        lambda x: ag.maximum(x, 2 * x),
        lambda x: ag.concatenate([x, -x]).max(),
        lambda x: ag.abs(x) + 100 * x**4,
    ],
)
def test_corners_of_steep_or_curved_functions(function):
    for steps in (-1.9, -1.4, -2 / 3, -0.3, 0.0, 0.2, 0.7, 1.3, 1.95):
        with pytest.raises(KinkError, match="corner"):
            gradcheck(function, point(steps * 1e-4))


def test_the_end_of_a_domain():
    @op
    def square_root(x):
        return np.sqrt(x), lambda g: g * 0.5

    with pytest.raises(KinkError, match="the function ends here"):
        gradcheck(square_root, point(0.0))


def test_a_large_result_does_not_hide_a_small_one():
    gradcheck(lambda x: 1 / x, point(1e-8, 1.0, 3.0))

    @op
    def wrong_in_the_last(x):
        return 1 / x, lambda g: -g / (x * x) * np.array([1.0, 1.0, 1 + 1e-5])

    with pytest.raises(GradcheckError, match=r"element \[2\]"):
        gradcheck(wrong_in_the_last, point(1e-8, 1.0, 3.0))


# --- what functions return ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
@pytest.mark.parametrize("kind", [tuple, list])
def test_several_results(kind, mode):
    x, y = point(1.0, 2.0), point(3.0)
    gradcheck(lambda x, y: kind([x * y, ag.exp(x).sum(), x]), x, y, mode=mode)
    gradcheck(lambda x, y: kind([x * y, (x * 3.0).detach(), Tensor(1.0)]), x, y, mode=mode)
    gradcheck(lambda x, y: kind(ag.split(x * y, 2)), x, y, mode=mode)
    with pytest.raises(GradcheckError, match="wrong gradient"):
        gradcheck(lambda x, y: kind([x * y, wrong_exp(x)]), x, y, mode=mode)


@pytest.mark.parametrize(
    ("returns", "error", "match"),
    [
        (lambda x: x.numpy(), TypeError, "must return a Tensor.*it returned ndarray"),
        (lambda x: None, TypeError, "it returned NoneType"),
        (lambda x: float(x.sum()), TypeError, "it returned float"),
        (lambda x: {"loss": x}, TypeError, "it returned dict"),
        (lambda x: (x, None), TypeError, "it returned a tuple with NoneType"),
        (lambda x: x > 0, TypeError, "it returned ndarray"),
        (lambda x: (), GradcheckError, "does not depend"),
        (lambda x: point(1.0), GradcheckError, "does not depend"),
        (lambda x: x.astype(np.float32), TypeError, "float32, too coarse"),
        (lambda x: ag.log(x - 1.0), GradcheckError, "the result holds NaN or infinity"),
        (lambda x: ag.where(x > 1.5, x, np.nan), GradcheckError, "the result holds NaN or infinity"),
        (lambda x: x * next(numbers), GradcheckError, "another result each time"),
    ],
)
def test_other_results_are_refused(returns, error, match):
    with np.errstate(all="ignore"), pytest.raises(error, match=match):
        gradcheck(returns, point(1.0, 2.0))


numbers = itertools.count(1)


# --- what is given to it --------------------------------------------------------------------------


def same_twice():
    x = point(1.0)
    return x, x


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            lambda: (ag.exp, point(1.0) * 2),
            TypeError,
            "not a leaf: detach.. it, or check the function of its",
        ),
        (lambda: (ag.multiply, *same_twice()), ValueError, "input 1 is the same Tensor"),
        (lambda: (ag.multiply, [point(1.0), point(2.0)]), TypeError, "input 0 is a list; .* one by one"),
        (lambda: (ag.exp, np.ones(2)), TypeError, "must be a Tensor.*not ndarray"),
        (lambda: (ag.exp, 1.0), TypeError, "must be a Tensor.*not float"),
        (lambda: (ag.exp,), TypeError, "no input"),
        (lambda: (point(1.0), ag.exp), TypeError, "the function comes first"),
        (lambda: (ag.exp, point(np.inf)), ValueError, "input 0 holds NaN or infinity"),
    ],
)
def test_other_inputs_are_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        gradcheck(*arguments())


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1, 1)])
def test_inputs_of_every_shape(shape, mode):
    assert gradcheck(lambda x: ag.exp(x) * 2.0, Tensor(np.ones(shape), requires_grad=True), mode=mode)


def test_inputs_that_share_memory_count_as_two():
    x, y = point(1.0, 2.0), point(0.0, 0.0)
    y.data = x.data
    assert gradcheck(lambda x, y: x * x * y, x, y) and y.data is x.data
    x.data = np.broadcast_to(np.array(3.0), (2,))  # cannot be written to
    assert gradcheck(lambda x: x * x, x)


@pytest.mark.parametrize("mode", ["elementwise", "projected"])
def test_under_no_grad_and_detect_anomaly(mode):
    with ag.no_grad():
        assert gradcheck(ag.exp, point(1.0, 2.0), mode=mode)
        assert not (point(1.0) * 2).requires_grad
    with ag.detect_anomaly():
        assert gradcheck(ag.log, point(1e-5, 2.0), mode=mode)
        with np.errstate(all="ignore"), pytest.raises(ag.AnomalyError, match="log holds NaN"):
            gradcheck(ag.log, point(-1.0), mode=mode)
    assert tape.watch is None


@pytest.mark.parametrize("step", [0.0, -1.0, np.nan])
def test_a_step_must_be_positive(step):
    with pytest.raises(ValueError, match="step"):
        gradcheck(ag.exp, point(1.0), step=step)
