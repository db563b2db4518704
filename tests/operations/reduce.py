"""The records of the reductions."""

import numpy as np

import autograd as ag
from autograd import Tensor
from autograd.ops import arguments, reduce
from tests.operations.checks import refused
from tests.operations.over_shapes import reduction
from tests.operations.record import Bug, Case, Record, composition

REDUCTIONS = [ag.sum, ag.mean, ag.var, ag.max, ag.min, ag.logsumexp]


def a_list_of_axes_is_as_good_as_a_tuple():
    x = Tensor(np.arange(24.0).reshape(2, 3, 4), requires_grad=True)
    for function in REDUCTIONS:
        results = [function(x, axis=axis).numpy() for axis in ([0, -1], (0, 2))]
        np.testing.assert_array_equal(*results, err_msg=function.__name__)
    x.sum([0, -1]).backward(np.array([1.0, 2.0, 3.0]))
    assert x.grad[1, :, 3].tolist() == [1, 2, 3]


def axes_that_are_not_there():
    x = Tensor(np.ones((2, 3)))
    for function in REDUCTIONS:
        for axis in (2, -3, (0, 5)):
            refused(ValueError, "out of bounds", lambda f=function, a=axis: f(x, axis=a))
        refused(ValueError, "repeated axis", lambda f=function: f(x, axis=(0, -2)))
        refused(TypeError, "an axis must be an integer, not True", lambda f=function: f(x, True))
        refused(TypeError, "an axis must be an integer, not 1.0", lambda f=function: f(x, axis=1.0))
        refused(TypeError, "several axes are one tuple", lambda f=function: f(x, 0, 1))


def a_mean_of_nothing_is_nan():
    x = Tensor(np.ones((2, 0)), requires_grad=True)
    out = ag.mean(x, axis=1)
    out.backward(np.ones(2))
    assert np.isnan(out.numpy()).all() and x.grad.shape == (2, 0)


def a_variance_far_from_0():
    for values in (np.full(768, 100.1), 16000.3 + np.random.default_rng(0).standard_normal(768)):
        x = Tensor(values, dtype=np.float32, requires_grad=True)
        exact = Tensor(x.numpy(), dtype=np.float64, requires_grad=True)
        for tensor in (x, exact):
            tensor.var().backward()
        np.testing.assert_allclose(x.var().numpy(), exact.var().numpy(), rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(x.grad, exact.grad, rtol=1e-4, atol=1e-9)


def a_variance_of_too_few():
    message = "the variance with ddof=1 needs more than 1 elements, but there are 1"
    refused(ValueError, message, lambda: Tensor([[1.0], [2.0]]).var(axis=1, ddof=1))
    refused(ValueError, "but there are 0", lambda: Tensor(np.ones((2, 0))).var(axis=1))


def an_extremum_of_nan():
    """It is nan, and the gradient goes there; in the other row nothing changes."""
    x = Tensor([[1.0, np.nan, 2.0], [3.0, 3.0, 1.0]], requires_grad=True)
    ag.max(x, axis=1).backward(np.ones(2))
    assert x.grad.tolist() == [[0, 1, 0], [0.5, 0.5, 0]]


def an_extremum_of_nothing():
    x = Tensor(np.ones((2, 0)))
    for function in (ag.max, ag.min):
        message = f"{function.__name__} of nothing: shape (2, 0) has no element along the axes (1,)"
        refused(ValueError, message, lambda f=function: f(x, axis=1))
    assert ag.max(x, axis=0).shape == (0,)


def logsumexp_of_infinite_rows():
    """As the product of no probabilities: log(0). A row that nothing reaches gets no gradient."""
    x = Tensor([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 1.0]], requires_grad=True)
    with np.errstate(invalid="ignore"):
        out = ag.logsumexp(x, axis=1)
        out.backward(np.ones(3))
    np.testing.assert_array_equal(out.numpy(), [-np.inf, np.inf, 1])
    np.testing.assert_array_equal(x.grad, [[0, 0], [np.nan, 0], [0, 1]])
    assert ag.logsumexp(Tensor(np.ones((1, 0))), axis=1).numpy() == [-np.inf]


RECORDS = [
    Record(
        ag.sum,
        cases={"sum": Case(lambda x: ag.sum(x, axis=1), [(2, 3)])},
        over_shapes=reduction(ag.sum, np.sum),
        checks=[a_list_of_axes_is_as_good_as_a_tuple, axes_that_are_not_there],
        bugs=[
            Bug(
                "sum: divides by the count, as mean does",
                right="_back_on_axes(g, shape, axes)",
                wrong="_back_on_axes(g, shape, axes) / _count(shape, axes)",
            ),
            Bug(
                "the decimals of an axis are cut off",
                right='integer(one, "an axis")',
                wrong="int(one)",
                caught_by="axes_that_are_not_there",
                inside=arguments.axes_of,
            ),
            Bug(
                "keepdims: anything will do",
                right="isinstance(keepdims, bool)",
                wrong="isinstance(keepdims, int)",
                caught_by="axes_that_are_not_there",
                inside=reduce._reduced_axes,
            ),
        ],
    ),
    Record(
        ag.mean,
        cases={"mean": Case(lambda x: ag.mean(x, axis=(0, 2)), [(2, 3, 4)])},
        over_shapes=reduction(ag.mean, np.mean),
        composed={"mean from sum": composition(ag.mean, [(2, 3, 4)], axis=(0, 2))},
        checks=[a_mean_of_nothing_is_nan],
        bugs=[
            Bug("mean: missing 1/N", "axes) / n, shape)", "axes), shape)"),
            Bug("mean: 0 of nothing", "or math.nan", "or 1", "a_mean_of_nothing_is_nan"),
        ],
    ),
    Record(
        ag.var,
        cases={"var": Case(lambda x: ag.var(x, axis=-1), [(2, 5)])},
        over_shapes=reduction(ag.var, np.var),
        composed={
            f"var from mean, ddof {ddof}": composition(ag.var, [(2, 5)], axis=-1, ddof=ddof)
            for ddof in (0, 1)
        },
        checks=[a_variance_far_from_0, a_variance_of_too_few],
        bugs=[
            Bug("var: Bessel's n - 1", "(2 / divisor)", "(2 / (divisor - 1))"),
            Bug("var: the 2 of the square is lost", "(2 / divisor)", "(1 / divisor)"),
            Bug(
                "var: the mean is off by its rounding",
                right="centered -= total(centered, axes) / n",
                wrong="pass",
                caught_by="a_variance_far_from_0",
            ),
            Bug("var: of too few elements", "divisor <= 0", "divisor < 0", "a_variance_of_too_few"),
        ],
    ),
    Record(
        ag.max,
        cases={"max": Case(lambda x: ag.max(x, axis=0), [(4, 3)])},
        over_shapes=reduction(ag.max, np.max),
        checks=[an_extremum_of_nan, an_extremum_of_nothing],
        bugs=[
            Bug(
                "max: gradient to every element",
                right="only_where(chosen, share)",
                wrong="share + 0 * x",
                inside=reduce._extremum,
            ),
            Bug(
                "max: several largest elements get the whole gradient each",
                right="chosen.sum(axes, keepdims=True)",
                wrong="(0 * kept + 1)",
                caught_by="an_extremum_of_nan",
                inside=reduce._extremum,
            ),
            Bug(
                "max: nan equals nothing",
                right="(x == kept) | (x != x)",
                wrong="x == kept",
                caught_by="an_extremum_of_nan",
                inside=reduce._extremum,
            ),
        ],
    ),
    Record(
        ag.min,
        cases={"min": Case(lambda x: ag.min(x, axis=0), [(4, 3)])},
        over_shapes=reduction(ag.min, np.min),
        bugs=[
            Bug(
                "min: gradient to the largest element",
                right="(x == kept)",
                wrong="(x == x.max(axes, keepdims=True))",
                inside=reduce._extremum,
            ),
        ],
    ),
    Record(
        ag.logsumexp,
        cases={"logsumexp": Case(lambda x: ag.logsumexp(x, axis=-1), [(2, 5)])},
        over_shapes=reduction(ag.logsumexp),
        composed={
            f"logsumexp over {axis}": composition(ag.logsumexp, [(3, 5)], axis=axis) for axis in (-1, None)
        },
        checks=[logsumexp_of_infinite_rows],
        bugs=[
            Bug("logsumexp: exp(x) is not divided by its sum", ".exp(x - finite)", ".exp(x)"),
            Bug(
                "logsumexp: -inf - -inf",
                right=".exp(x - finite)",
                wrong=".exp(x - kept)",
                caught_by="logsumexp_of_infinite_rows",
            ),
        ],
    ),
]
