"""The records of the matrix products."""

import hypothesis.strategies as st

import autograd as ag
from tests.operations.checks import numbers, same_on_gpu, tensors
from tests.operations.over_shapes import Call, seeds
from tests.operations.record import Bug, Case, Composition, Record

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


def linear_kernels(cupy):
    for n, k, m in ((5, 7, 3), (1, 1, 1), (260, 3, 33)):
        for activation in (None, "relu", "gelu", "gelu_exact"):
            run = lambda *tensors, a=activation: ag.linear(*tensors, activation=a)
            same_on_gpu(cupy, run, numbers(2, n, k), numbers(k, m), numbers(m))
            same_on_gpu(cupy, run, numbers(n, k), numbers(k, m))


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
            "linear from matmul and add": Composition(
                ag.linear, lambda x, w, b: x @ w + b, [(2, 3, 4), (4, 5), (5,)]
            ),
            "linear and relu": Composition(
                linear_with("relu"), lambda x, w, b: ag.relu(x @ w + b), [(2, 3, 4), (4, 5), (5,)]
            ),
            "linear and gelu": Composition(
                linear_with("gelu"), lambda x, w, b: ag.gelu(x @ w + b), [(2, 3, 4), (4, 5), (5,)]
            ),
            "linear and gelu_exact": Composition(
                linear_with("gelu_exact"), lambda x, w, b: ag.gelu_exact(x @ w + b), [(2, 3, 4), (4, 5), (5,)]
            ),
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
        kernel_checks=[linear_kernels],
        kernel_bugs=[
            Bug(
                "the slope of relu is 1 at negative values",
                right="x > 0.0f ? 1.0f : 0.0f",
                wrong="x < 0.0f ? 1.0f : 0.0f",
            ),
            Bug("gelu's inner slope without its factor 3", "0.134145f", "0.044715f"),
        ],
    ),
]
