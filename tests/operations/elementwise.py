"""The records of the elementwise operations."""

import hypothesis.strategies as st
import numpy as np

import autograd as ag
from autograd import Tensor
from autograd.ops import arguments, elementwise
from tests.operations.checks import refused, slopes, tensors
from tests.operations.over_shapes import Call, binary, pairs, seeds, unary
from tests.operations.record import Bug, Case, Record, composition

CONDITION = np.array([[True, False, True], [True, True, False]])


@st.composite
def where_over_shapes(draw):
    pair, seed = draw(pairs), draw(seeds)
    condition = np.random.default_rng(seed).random(pair.result_shape) < 0.5
    return Call(lambda x, y: ag.where(condition, x, y), tensors(*pair.input_shapes, seed=seed))


def clip(x):
    return ag.clip(x, -1.003, 1.003)


def astype_sends_the_gradient_back_in_the_original_dtype():
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x.astype(np.float64) * 3.0).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3, 3]


def a_long_sum_over_copies_loses_nothing():
    """2**24 + 1 is 2**24 in float32."""
    x = Tensor(np.zeros(2, np.float32), requires_grad=True)
    upstream = np.ones((1000, 2), np.float32)
    upstream[0] = 2.0**24
    (x + np.zeros((1000, 2))).backward(upstream)
    assert x.grad.tolist() == [np.float32(2**24 + 999)] * 2


def slopes_of_quotients_of_extreme_numbers():
    np.testing.assert_allclose(slopes(ag.divide, 1e20, 1e20), [1e-20, -1e-20], rtol=1e-6)
    np.testing.assert_allclose(slopes(ag.divide, 0.0, 1e-30), [1e30, 0], rtol=1e-6)
    np.testing.assert_allclose(slopes(ag.divide, 1e-30, 1e-30), [1e30, -1e30], rtol=1e-6)


def slopes_of_powers_at_0():
    for x, y, expected in (
        (0.0, 0.0, [0, 0]),
        (0.0, 1.0, [1, 0]),
        (0.0, 2.0, [0, 0]),
        (-2.0, 0.0, [0, np.nan]),
        (0.0, -1.0, [-np.inf, -np.inf]),
    ):
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(slopes(ag.power, x, y), expected, err_msg=f"{x} ** {y}")
    for exponent, expected in ((0, 0), (1, 1), (2, 0), (3.0, 0)):  # plain numbers
        np.testing.assert_array_equal(slopes(lambda x, n=exponent: x**n, 0.0), [expected])


def float32_powers_stay_float32():
    """The exponent, or the base, is a plain number: it must not make float64 of the rest."""
    x = np.array([0.5, 2.0], np.float32)
    (dx, _), (_, dy) = ag.power.raw(x, 3)[1], ag.power.raw(3, x)[1]
    assert dx(x).dtype == dy(x).dtype == np.float32


def log_of_a_small_sigmoid():
    for x in (-20.0, -80.0):
        np.testing.assert_allclose(slopes(lambda x: ag.log(ag.sigmoid(x)), x), [1], rtol=1e-6)
        np.testing.assert_allclose(ag.log(ag.sigmoid(Tensor(x))).numpy(), x, rtol=1e-6)


def what_is_cut_off_has_slope_0():
    """Though the slope of what comes after is infinite there."""
    for cut in (
        ag.relu,
        lambda x: ag.clip(x, 0, None),
        lambda x: ag.maximum(x, 0),
        lambda x: ag.where(x > 0, x, 0),
        lambda x: ag.masked_fill(x, x <= 0, 0),
    ):
        with np.errstate(divide="ignore"):
            assert slopes(lambda x, cut=cut: ag.sqrt(cut(x)), -1.0) == [0]


def gelu_far_from_0():
    for function in (ag.gelu, ag.gelu_exact):
        for x, expected in ((1e15, 1), (-1e15, 0), (1e18, 1), (-1e18, 0)):
            with np.errstate(over="ignore"):
                assert slopes(function, x) == [expected]


def erf_of_nan_is_nan():
    assert np.isnan(elementwise.erf(np.array([np.nan, 1.0]))).tolist() == [True, False]
    assert np.isnan(ag.gelu_exact(Tensor([np.nan])).numpy()).all()


def a_number_and_an_array_may_be_compared_in_either_order():
    for function in (ag.maximum, ag.minimum):
        assert slopes(lambda x, f=function: f(0.5, x) + f(x, 0.5), 0.5) == [1]


def a_condition_that_is_filled_anew():
    x, y, condition = *tensors((3,), (3,)), np.array([True, False, True])
    out = ag.where(condition, x, y)
    condition[:] = False
    out.backward(np.ones(3))
    assert x.grad.tolist() == [1, 0, 1] and y.grad.tolist() == [0, 1, 0]


def conditions_that_do_not_fit():
    x = Tensor([1.0, 2.0])
    refused(TypeError, "condition of where must be boolean, not int", lambda: ag.where([1, 0], x, 0.0))
    refused(TypeError, "not float32; write mask != 0", lambda: ag.where(x.numpy(), x, 0.0))
    message = "where: the shapes (3,), (2,), () do not fit together"
    refused(ValueError, message, lambda: ag.where([True, False, True], x, 0.0))


def limits_that_cross_have_slope_0():
    assert [slopes(lambda x: ag.clip(x, 2, 1), x) for x in (0.5, 1.0, 1.5, 2.0, 3.0)] == [[0]] * 5


def limits_that_are_no_numbers():
    x = Tensor([1.0, 2.0])
    refused(TypeError, "must be numbers", lambda: ag.clip(x, np.zeros(2), 1.0))
    refused(ValueError, "clip needs low, high or both", lambda: ag.clip(x))


def only_two_dtypes():
    for dtype in (int, "int64", bool, np.float16, None):
        refused(TypeError, "float32 or float64", lambda d=dtype: Tensor([1.0]).astype(d))


RECORDS = [
    Record(
        ag.add,
        cases={
            "add": Case(ag.add, [(2, 3), (3,)]),
            "add_twice": Case(lambda x, y: (x + y) + x, [(2, 3), (2, 3)]),
        },
        over_shapes=binary(ag.add),
        checks=[a_long_sum_over_copies_loses_nothing],
        bugs=[
            Bug(
                "a long sum over rows, one after the other in float32",
                right="x.sum(axes, dtype=np.float64, keepdims=True).astype(np.float32)",
                wrong="x.sum(axes, keepdims=True)",
                caught_by="a_long_sum_over_copies_loses_nothing",
                inside=elementwise.total,
            ),
            Bug(
                "un-broadcast takes the first copy instead of the sum",
                right="total(gradient, tuple(range(new)) + stretched).reshape(shape)",
                wrong="gradient[(0,) * new][tuple(slice(n) for n in shape)]",
                inside=elementwise.unbroadcast,
            ),
        ],
    ),
    Record(
        ag.subtract,
        cases={"subtract": Case(ag.subtract, [(2, 3), (2, 1)])},
        over_shapes=binary(ag.subtract),
        bugs=[
            Bug("subtract forgets its sign", "unbroadcast(-g, y_shape)", "unbroadcast(g, y_shape)"),
            Bug(
                "missing un-broadcast of a stretched axis",
                right="total(gradient, tuple(range(new)) + stretched).reshape(shape)",
                wrong="gradient.sum(tuple(range(new)))[tuple(slice(n) for n in shape)]",
                inside=elementwise.unbroadcast,
            ),
        ],
    ),
    Record(
        ag.multiply,
        cases={
            "multiply": Case(ag.multiply, [(2, 3), (3,)]),
            "multiply_stretched": Case(ag.multiply, [(2, 1, 3), (4, 1)]),
            "square": Case(lambda x: x * x, [(3,)]),
        },
        over_shapes=binary(ag.multiply),
        bugs=[
            Bug("one percent off", "unbroadcast(g * y,", "unbroadcast(1.01 * g * y,"),
            Bug("multiply: each input gets its own value", "unbroadcast(g * y,", "unbroadcast(g * x,"),
        ],
    ),
    Record(
        ag.divide,
        cases={"divide": Case(ag.divide, [(2, 3), (3,)], positive=True)},
        over_shapes=binary(ag.divide, positive=True),
        checks=[slopes_of_quotients_of_extreme_numbers],
        bugs=[
            Bug("divide: 1/y for 1/y²", "-g / y * out", "-g * out"),
            Bug("divide: forgets its sign", "-g / y * out", "g / y * out"),
            Bug(
                "divide: y² overflows",
                right="-g / y * out",
                wrong="-g * x / (y * y)",
                caught_by="slopes_of_quotients_of_extreme_numbers",
            ),
        ],
    ),
    Record(
        ag.power,
        cases={
            "power": Case(ag.power, [(2, 3), (3,)], positive=True),
            "power_of_a_number": Case(lambda x: x**3 + 2**x, [(2, 3)]),
        },
        over_shapes=binary(ag.power, positive=True),
        checks=[slopes_of_powers_at_0, float32_powers_stay_float32],
        bugs=[
            Bug("power: x**y for x**(y-1)", "xp.where(varies, y - 1, 0)", "xp.where(varies, y, 0)"),
            Bug("power: y is taken for a constant", "slope = out * xp.log(", "slope = 0 * xp.log("),
            Bug("power: x**1 for x**y of a plain y", "x ** (y - 1)) if y", "x) if y", "power_of_a_number"),
            Bug(
                "power: the log of a base of 0",
                right="xp.where((base == 0) & (y >= 0), 1, base)",
                wrong="base",
                caught_by="slopes_of_powers_at_0",
            ),
            Bug(
                "power: 0**-1 of a constant 0**0",
                right="only_where(varies, g * slope)",
                wrong="g * y * x ** (y - 1)",
                caught_by="slopes_of_powers_at_0",
            ),
            Bug(
                "power: a plain base makes float64",
                right="xp.asarray(x, out.dtype)",
                wrong="xp.asarray(x)",
                caught_by="float32_powers_stay_float32",
            ),
        ],
    ),
    Record(
        ag.negative,
        cases={"negative": Case(ag.negative, [(2, 3)])},
        over_shapes=unary(ag.negative),
        bugs=[Bug("negative forgets its sign", "lambda g: -g", "lambda g: g")],
    ),
    Record(
        ag.exp,
        cases={"exp": Case(ag.exp, [(5,)])},
        over_shapes=unary(ag.exp),
        bugs=[Bug("exp: the rule for powers, x e^(x-1)", "g * out", "g * x * out / math.e")],
    ),
    Record(
        ag.log,
        cases={"log": Case(ag.log, [(5,)], positive=True)},
        over_shapes=unary(ag.log, positive=True),
        bugs=[Bug("log: the slope of log10", "g / x", "g / (x * math.log(10))")],
    ),
    Record(
        ag.sqrt,
        cases={"sqrt": Case(ag.sqrt, [(5,)], positive=True)},
        over_shapes=unary(ag.sqrt, positive=True),
        bugs=[Bug("sqrt: 1/2x for 1/2√x", "g / (2 * out)", "g / (2 * x)")],
    ),
    Record(
        ag.tanh,
        cases={"tanh": Case(ag.tanh, [(5,)])},
        over_shapes=unary(ag.tanh),
        bugs=[
            Bug("tanh: 1 - out for 1 - out²", "(1 - out * out)", "(1 - out)"),
            Bug("tanh: x for its result", "(1 - out * out)", "(1 - x * x)"),
        ],
    ),
    Record(
        ag.sigmoid,
        cases={"sigmoid": Case(ag.sigmoid, [(5,)])},
        over_shapes=unary(ag.sigmoid),
        composed={"sigmoid from exp": composition(ag.sigmoid, [(50,)])},
        checks=[log_of_a_small_sigmoid],
        bugs=[
            Bug(
                "sigmoid: 1 + tanh rounds small results away",
                right="xp.exp(xp.minimum(x, 0)) / (1 + xp.exp(-abs(x)))",
                wrong="0.5 + 0.5 * xp.tanh(0.5 * x)",
                caught_by="log_of_a_small_sigmoid",
            ),
            Bug("sigmoid: missing 1 - out", "(out * (1 - out))", "out"),
            Bug("sigmoid: x for its result", "(out * (1 - out))", "(x * (1 - x))"),
        ],
    ),
    Record(
        ag.relu,
        cases={"relu": Case(ag.relu, [(2, 5)])},
        over_shapes=unary(ag.relu),
        checks=[what_is_cut_off_has_slope_0],
        bugs=[
            Bug("relu lets everything through", "only_where(out != 0, g)", "g"),
            Bug("relu looks at the gradient's sign", "only_where(out != 0, g)", "g * (g > 0)"),
            Bug(
                "relu: 0 times inf",
                right="only_where(out != 0, g)",
                wrong="g * (out != 0)",
                caught_by="what_is_cut_off_has_slope_0",
            ),
        ],
    ),
    Record(
        ag.gelu,
        cases={"gelu": Case(ag.gelu, [(2, 5)])},
        over_shapes=unary(ag.gelu),
        composed={"gelu from tanh": composition(ag.gelu, [(50,)])},
        checks=[gelu_far_from_0],
        bugs=[
            Bug(
                "gelu: x³ overflows before it meets 0",
                right="1 - t * t  # before x: this is 0 where x³ would be inf\n            slope *= x_part",
                wrong="x_part\n            slope *= 1 - t * t",
                caught_by="gelu_far_from_0",
            ),
            Bug("gelu: derivative of the exact form", "return out, dx", "return out, gelu_exact.raw(x)[1]"),
            Bug("gelu: the inner slope without its factor 3", "slope *= 3 * a * c", "slope *= a * c"),
            Bug("gelu: a wrong constant", "/ math.pi), 0.044715", "/ math.pi), 0.44715", "gelu from tanh"),
        ],
    ),
    Record(
        ag.gelu_exact,
        cases={"gelu_exact": Case(ag.gelu_exact, [(2, 5)])},
        over_shapes=unary(ag.gelu_exact),
        checks=[erf_of_nan_is_nan],
        bugs=[
            Bug("gelu_exact: Φ(x) is taken for a constant", "(normal_cdf + x * normal_pdf)", "normal_cdf"),
            Bug(
                "erf: nan becomes a number",
                right="xp.sign(x) * total",
                wrong="xp.where(x < 0, -total, total)",
                caught_by="erf_of_nan_is_nan",
                inside=elementwise.erf,
            ),
        ],
    ),
    Record(
        ag.abs,
        cases={"abs": Case(ag.abs, [(5,)])},
        over_shapes=unary(ag.abs),
        bugs=[Bug("abs: slope 1 on both sides", "g * array_module(x).sign(x)", "g")],
    ),
    Record(
        ag.maximum,
        cases={"maximum": Case(ag.maximum, [(2, 3), (3,)])},
        over_shapes=binary(ag.maximum),
        checks=[a_number_and_an_array_may_be_compared_in_either_order],
        bugs=[
            Bug(
                "maximum: both inputs get the whole gradient where they are equal",
                right="0.5 * g",
                wrong="g",
                caught_by="a_number_and_an_array_may_be_compared_in_either_order",
                inside=elementwise._choose,
            ),
            Bug(
                "maximum: both inputs get the gradient",
                right="only_where((mine == out) | (other != out), g)",
                wrong="g",
                inside=elementwise._choose,
            ),
        ],
    ),
    Record(
        ag.minimum,
        cases={"minimum": Case(ag.minimum, [(2, 3), (3,)])},
        over_shapes=binary(ag.minimum),
        bugs=[
            Bug(
                "minimum: the gradient goes to the larger input",
                right="(mine == out) | (other != out)",
                wrong="mine >= other",
                inside=elementwise._choose,
            ),
        ],
    ),
    Record(
        ag.where,
        cases={"where": Case(lambda x, y: ag.where(CONDITION, x, y), [(2, 3), (3,)])},
        over_shapes=where_over_shapes(),
        checks=[a_condition_that_is_filled_anew, conditions_that_do_not_fit],
        bugs=[
            Bug("where: y gets the gradient of x", "only_where(~condition, g)", "only_where(condition, g)"),
            Bug("where: x gets the whole gradient", "only_where(condition, g)", "g"),
            Bug(
                "where: the pullback reads the caller's condition",
                right="xp.asarray(array).copy()",
                wrong="xp.asarray(array)",
                caught_by="a_condition_that_is_filled_anew",
                inside=arguments.own_mask,
            ),
            Bug(
                "where: numbers for booleans",
                right="array.dtype != bool",
                wrong="array.dtype == object",
                caught_by="conditions_that_do_not_fit",
                inside=arguments.own_mask,
            ),
        ],
    ),
    Record(
        ag.clip,
        cases={"clip": Case(clip, [(2, 7)])},
        over_shapes=unary(clip),
        checks=[limits_that_cross_have_slope_0, limits_that_are_no_numbers],
        bugs=[
            Bug("clip lets everything through", "only_where((x >= above) & (x <= below), g)", "g"),
            Bug(
                "clip: slope 1 at a limit that the other overrules",
                right="(x >= above) & (x <= below)",
                wrong="(x >= min(above, below)) & (x <= below)",
                caught_by="limits_that_cross_have_slope_0",
            ),
            Bug(
                "clip: arrays for limits",
                right="isinstance(limit, (int, float))",
                wrong="limit is not None",
                caught_by="limits_that_are_no_numbers",
            ),
        ],
    ),
    Record(
        ag.astype,
        cases={"astype": Case(lambda x: x.astype(x.dtype), [(2, 3)])},
        checks=[astype_sends_the_gradient_back_in_the_original_dtype, only_two_dtypes],
        bugs=[
            Bug(
                "astype: any dtype",
                right="x.astype(float_dtype(dtype))",
                wrong="x.astype(dtype)",
                caught_by="only_two_dtypes",
            ),
            Bug(
                "astype: the gradient keeps the dtype of the result",
                right="g.astype(before)",
                wrong="g",
                caught_by="astype_sends_the_gradient_back_in_the_original_dtype",
            ),
            Bug("astype: the gradient always comes back as float32", "g.astype(before)", 'g.astype("f4")'),
        ],
    ),
]
