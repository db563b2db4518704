"""The records of the matrix products."""

import hypothesis.strategies as st
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import autograd as ag
from autograd import Tensor
from autograd.cuda import products
from autograd.ops import linalg
from tests.operations.checks import close, numbers, off_by_one, refused, same_on_gpu, tensors
from tests.operations.over_shapes import Call, seeds
from tests.operations.record import Bug, Case, Record, composition
from tests.stand_ins import strict_cupy

MATMUL_SHAPES = [
    ((3,), (3,)),
    ((3,), (2, 3, 4)),
    ((2, 3), (3,)),
    ((5, 1, 2, 3), (4, 3, 2)),
    ((0, 3), (3, 2)),
    ((2, 0), (0, 3)),
]


@st.composite
def matmul_over_shapes(draw):
    x, y = tensors(*draw(st.sampled_from(MATMUL_SHAPES)), seed=draw(seeds))
    return Call(ag.matmul, [x, y], expected=x.data @ y.data)


@st.composite
def linear_over_shapes(draw):
    n, k, m = draw(st.integers(1, 5)), draw(st.integers(0, 4)), draw(st.integers(1, 4))
    shapes = [(n, 2, k), (k, m), (m,)]
    has_bias = draw(st.booleans())
    return Call(ag.linear, tensors(*(shapes if has_bias else shapes[:2]), seed=draw(seeds)))


def linear_with(activation):
    return lambda x, w, b: ag.linear(x, w, b, activation=activation)


def shapes_that_do_not_fit_a_product_are_refused():
    x, w, b = tensors((2, 3), (3, 4), (4,))
    for wrong, shapes in (
        ((x, w, b[:1]), "bias (1,) does not fit weight (3, 4)"),
        ((x, w, b.reshape(1, 4)), "bias (1, 4) does not fit weight (3, 4)"),
        ((x, w, 1.0), "bias () does not fit weight (3, 4)"),
        ((x, w.T, b), "x (2, 3) does not fit weight (4, 3)"),
        ((x, b), "x (2, 3) does not fit weight (4,)"),
    ):
        refused(ValueError, f"linear: {shapes}", ag.linear, *wrong)
        if len(wrong) == 3:
            refused(ValueError, f"linear_cross_entropy: {shapes}", ag.linear_cross_entropy, *wrong, [0, 1])


def an_unknown_activation_is_refused():
    x, w = tensors((2, 3), (3, 4))
    message = "unknown activation 'tanh'; choose from None, 'relu', 'gelu', 'gelu_exact'"
    refused(ValueError, message, ag.linear, x, w, activation="tanh")


def linear_kernels(cupy):
    for n, k, m in ((5, 7, 3), (1, 1, 1), (150, 2, 36)):
        for activation in (None, "relu", "gelu", "gelu_exact"):
            run = lambda *tensors, a=activation: ag.linear(*tensors, activation=a)
            same_on_gpu(cupy, run, numbers(2, n, k), numbers(k, m), numbers(m))
            same_on_gpu(cupy, run, numbers(n, k), numbers(k, m))
    run = lambda *tensors: ag.linear(*tensors, activation="gelu")
    same_on_gpu(cupy, run, numbers(150, 2), numbers(2, 33), numbers(33))
    same_on_gpu(cupy, run, numbers(5, 3), numbers(3, 8), numbers(8), place=off_by_one)


def linear_kernels_at_extremes(cupy):
    """NaN stays, and slopes are 1 and 0 where the square of an activation's input overflows."""
    one = Tensor(cupy.asarray(np.ones((1, 1), np.float32)))
    x = Tensor(cupy.asarray(np.array([[1e20], [-1e20], [np.nan]], np.float32)), requires_grad=True)
    for activation in ("relu", "gelu", "gelu_exact"):
        x.grad, y = None, ag.linear(x, one, activation=activation)
        y.backward(cupy.asarray(np.ones((3, 1), np.float32)))
        np.testing.assert_array_equal(y.numpy()[:, 0], [np.float32(1e20), 0, np.nan])
        np.testing.assert_array_equal(x.grad.get()[:2, 0], [1, 0])


def products_of_any_strides():
    """cuBLAS gets addresses and a distance between rows, so what it cannot read that way must be copied."""
    with strict_cupy.installed() as cupy:
        stack = numbers(2, 6, 5)
        for what, view in {
            "rows backwards": lambda x: x[..., ::-1, :],
            "columns backwards": lambda x: x[..., ::-1],
            "one row, repeated": lambda x: cupy.broadcast_to(x[..., :1, :], x.shape),
            "one column, repeated": lambda x: cupy.broadcast_to(x[..., :1], x.shape),
            "rows apart": lambda x: x[..., ::2, :],
            "elements apart": lambda x: x[..., ::2],
            "one column": lambda x: x[..., 1:2],
            "one column, backwards": lambda x: x[..., ::-1, 1:2],
            "one row": lambda x: x[..., 1:2, ::-1],
            "rows that overlap": lambda x: strict_cupy.ndarray(
                sliding_window_view(x._host[..., 0].copy(), 3, -1)
            ),
            "stack backwards": lambda x: x[::-1],
        }.items():
            for x in (stack, stack[0])[: 1 if what.startswith("stack") else 2]:
                a = view(cupy.asarray(x))
                b = cupy.asarray(numbers(*x.shape[:-2], a.shape[-1], 3))
                expected = a._host.astype(np.float64) @ b._host
                close(products.product(cupy, a, b), expected)
                close(
                    products.product(cupy, b.swapaxes(-1, -2), a.swapaxes(-1, -2)), expected.swapaxes(-1, -2)
                )


RECORDS = [
    Record(
        ag.matmul,
        cases={
            "matmul": Case(ag.matmul, [(2, 3), (3, 4)]),
            "matmul_batched": Case(ag.matmul, [(2, 1, 3, 2), (4, 2, 3)]),
            "matmul_vector": Case(ag.matmul, [(2, 3, 4), (4,)]),
        },
        over_shapes=matmul_over_shapes(),
        bugs=[
            Bug(
                "matmul: reshapes where it should transpose",
                right="y2.swapaxes(-1, -2)",
                wrong="y2.reshape(y2.shape[::-1])",
            ),
            Bug(
                "matmul: a repeated matrix gets the gradient of its first product",
                right="unbroadcast(x2.swapaxes(-1, -2) @ as_matrices(g), y2.shape)",
                wrong="(x2.swapaxes(-1, -2) @ as_matrices(g))[0]",
                caught_by="matmul_batched",
            ),
        ],
    ),
    Record(
        ag.linear,
        cases={
            "linear": Case(ag.linear, [(2, 3, 4), (4, 2), (2,)]),
            "linear_relu": Case(linear_with("relu"), [(2, 4), (4, 3), (3,)]),
            "linear_gelu": Case(linear_with("gelu"), [(2, 4), (4, 3), (3,)]),
        },
        over_shapes=linear_over_shapes(),
        composed={
            "linear from matmul and add": composition(ag.linear, [(2, 3, 4), (4, 5), (5,)]),
            "linear without a bias": composition(ag.linear, [(2, 3, 4), (4, 5)]),
        }
        | {
            f"linear and {name}": composition(ag.linear, [(2, 3, 4), (4, 5), (5,)], activation=name)
            for name in ("relu", "gelu", "gelu_exact")
        },
        bugs=[
            Bug(
                "linear: bias gradient averaged",
                right="column_sums(dpre(dout))",
                wrong="column_sums(dpre(dout)) / len(x2)",
            ),
            Bug(
                "linear: activation left out of the pullback",
                right="pull_through_activation(dout) if pull_through_activation else dout",
                wrong="dout",
                caught_by="linear_relu",
            ),
            Bug(
                "linear: weight gradient without the activation",
                right="x2.T @ dpre(dout)",
                wrong="x2.T @ dout",
                caught_by="linear_gelu",
            ),
        ],
        checks=[an_unknown_activation_is_refused],
        kernel_checks=[linear_kernels, linear_kernels_at_extremes],
        kernel_bugs=[
            Bug(
                "the slope of relu is 1 at negative values",
                right="x > 0.0f ? 1.0f : 0.0f",
                wrong="x < 0.0f ? 1.0f : 0.0f",
            ),
            Bug(
                "the slope without the bias",
                "slope(part(x, i) + part(shift, i), kind)",
                "slope(part(x, i), kind)",
            ),
            Bug(
                "the bias's gradient of the last row alone",
                right="            store(dpre + row * C + column, d);\n            add_to(total, d);",
                wrong="            store(dpre + row * C + column, d);\n            total = d;",
            ),
            Bug("gelu's inner slope without its factor 3", "0.134145f", "0.044715f"),
            Bug(
                "relu turns NaN into 0",
                right="return x < 0.0f ? 0.0f : x;",
                wrong="return fmaxf(x, 0.0f);",
                caught_by="linear_kernels_at_extremes",
            ),
            Bug(
                "gelu's slope overflows",
                right="x = x > 10.0f ? 10.0f : x < -10.0f ? -10.0f : x;",
                wrong="",
                caught_by="linear_kernels_at_extremes",
            ),
        ],
    ),
    Record(
        linalg.check_product,
        checks=[shapes_that_do_not_fit_a_product_are_refused],
        bugs=[
            Bug("a bias of any shape is broadcast", "shape_of(bias) != weight[1:]", "False"),
            Bug("a weight may have any number of rows", "or x[-1:] != weight[:1]", ""),
        ],
    ),
    Record(
        linalg.check_linear,
        bugs=[
            Bug(
                "linear: an unknown activation is found out by a KeyError",
                right="activation is not None and activation not in list(ACTIVATIONS)",
                wrong="False",
                caught_by="an_unknown_activation_is_refused",
            ),
        ],
    ),
    Record(
        products._layout,
        checks=[products_of_any_strides],
        bugs=[
            Bug("product: rows may run backwards", "(down >= 4 * m or n == 1)", "True"),
            Bug("product: rows may overlap", "(down >= 4 * m or n == 1)", "(down > 0 or n == 1)"),
            Bug("product: columns may overlap", "(right >= 4 * n or m == 1)", "(right > 0 or m == 1)"),
            Bug("product: a stack may run backwards", "x.strides[0] < 0", "False"),
        ],
    ),
]
