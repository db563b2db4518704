"""The records of the elementwise operations."""

import hypothesis.strategies as st
import numpy as np

import autograd as ag
from autograd import Tensor
from autograd.ops import elementwise
from tests.operations.checks import tensors
from tests.operations.over_shapes import Call, binary, pairs, seeds, unary
from tests.operations.record import Bug, Case, Composition, Record

CONDITION = np.array([[True, False, True], [True, True, False]])


@st.composite
def where_over_shapes(draw):
    pair, seed = draw(pairs), draw(seeds)
    condition = np.random.default_rng(seed).random(pair.result_shape) < 0.5
    return Call(lambda x, y: ag.where(condition, x, y), tensors(*pair.input_shapes, seed=seed))


def clip(x):
    return ag.clip(x, -1.003, 1.003)


def gelu_from_tanh(x):
    return 0.5 * x * (1.0 + ag.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3.0)))


def astype_sends_the_gradient_back_in_the_original_dtype():
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x.astype(np.float64) * 3.0).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3, 3]


RECORDS = [
    Record(
        ag.add,
        cases={
            "add": Case(ag.add, [(2, 3), (3,)]),
            "add_twice": Case(lambda x, y: (x + y) + x, [(2, 3), (2, 3)]),
        },
        over_shapes=binary(ag.add),
        bugs=[
            Bug(
                "un-broadcast takes the first copy instead of the sum",
                right="gradient.sum(tuple(range(new)) + stretched, keepdims=True).reshape(shape)",
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
                right="gradient.sum(tuple(range(new)) + stretched, keepdims=True).reshape(shape)",
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
        bugs=[
            Bug("divide: 1/y for 1/y²", "-g * x / (y * y)", "-g * x / y"),
            Bug("divide: forgets its sign", "-g * x / (y * y)", "g * x / (y * y)"),
        ],
    ),
    Record(
        ag.power,
        cases={"power": Case(ag.power, [(2, 3), (3,)], positive=True)},
        over_shapes=binary(ag.power, positive=True),
        bugs=[
            Bug("power: x**y for x**(y-1)", "1.0, y - 1)", "1.0, y)"),
            Bug("power: y is taken for a constant", "g * out * xp.log(", "0 * out * xp.log("),
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
        bugs=[
            Bug("sigmoid: missing 1 - out", "(out * (1 - out))", "out"),
            Bug("sigmoid: x for its result", "(out * (1 - out))", "(x * (1 - x))"),
        ],
    ),
    Record(
        ag.relu,
        cases={"relu": Case(ag.relu, [(2, 5)])},
        over_shapes=unary(ag.relu),
        bugs=[
            Bug("relu lets everything through", "g * (out > 0)", "g"),
            Bug("relu looks at the gradient's sign", "g * (out > 0)", "g * (g > 0)"),
        ],
    ),
    Record(
        ag.gelu,
        cases={"gelu": Case(ag.gelu, [(2, 5)])},
        over_shapes=unary(ag.gelu),
        composed={"gelu from tanh": Composition(ag.gelu, gelu_from_tanh, [(50,)])},
        bugs=[
            Bug("gelu: derivative of the exact form", "return out, dx", "return out, gelu_exact.raw(x)[1]"),
            Bug("gelu: the inner slope without its factor 3", "slope *= 3 * a * c", "slope *= a * c"),
            Bug("gelu: a wrong constant", "/ math.pi), 0.044715", "/ math.pi), 0.44715", "gelu from tanh"),
        ],
    ),
    Record(
        ag.gelu_exact,
        cases={"gelu_exact": Case(ag.gelu_exact, [(2, 5)])},
        over_shapes=unary(ag.gelu_exact),
        bugs=[Bug("gelu_exact: Φ(x) is taken for a constant", "(normal_cdf + x * normal_pdf)", "normal_cdf")],
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
        bugs=[
            Bug(
                "maximum: both inputs get the gradient",
                right="g * (0.5 * (mine == out) + 0.5 * (other != out)).astype(out.dtype)",
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
                right="(0.5 * (mine == out) + 0.5 * (other != out))",
                wrong="(0.5 * (mine > other) + 0.5 * (mine >= other))",
                inside=elementwise._choose,
            ),
        ],
    ),
    Record(
        ag.where,
        cases={"where": Case(lambda x, y: ag.where(CONDITION, x, y), [(2, 3), (3,)])},
        over_shapes=where_over_shapes(),
        bugs=[
            Bug("where: y gets the gradient of x", "where(condition, 0, g)", "where(condition, g, 0)"),
            Bug("where: x gets the whole gradient", "xp.where(condition, g, 0)", "g"),
        ],
    ),
    Record(
        ag.clip,
        cases={"clip": Case(clip, [(2, 7)])},
        over_shapes=unary(clip),
        bugs=[Bug("clip lets everything through", "g * (x == out)", "g")],
    ),
    Record(
        ag.astype,
        cases={"astype": Case(lambda x: x.astype(x.dtype), [(2, 3)])},
        checks=[astype_sends_the_gradient_back_in_the_original_dtype],
        bugs=[
            Bug(
                "astype: the gradient keeps the dtype of the result",
                right="g.astype(x.dtype)",
                wrong="g",
                caught_by="astype_sends_the_gradient_back_in_the_original_dtype",
            ),
            Bug("astype: the gradient always comes back as float32", "g.astype(x.dtype)", 'g.astype("f4")'),
        ],
    ),
]
