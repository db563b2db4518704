"""Every operation against finite differences, on its examples and over random shapes.

Shapes are 0-d, empty and broadcast too, and arrays not contiguous.
"""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import autograd as ag
from autograd import Tensor, gradcheck
from tests.operations import CASES, FAMILIES, OVER_SHAPES, checks_of
from tests.operations.checks import check, tensors


@pytest.mark.parametrize("name", CASES)
def test_each_operation_on_its_examples(name):
    CASES[name]()


@pytest.mark.parametrize("check", checks_of(*FAMILIES).values(), ids=checks_of(*FAMILIES))
def test_what_finite_differences_cannot_see(check):
    check()


@pytest.mark.parametrize("name", OVER_SHAPES)
@given(data=st.data())
def test_over_shapes(name, data):
    call = data.draw(OVER_SHAPES[name])
    result = check(call.function, *call.inputs)
    if call.expected is not None:
        np.testing.assert_allclose(result.numpy(), call.expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", [ag.sum, ag.mean])
def test_sums_of_nothing(function):
    check(lambda x: function(x, axis=1), *tensors((0, 3)))


@pytest.mark.parametrize(
    "index", [1, -1, slice(None), (slice(1), 2), (..., 0), None, [0, 0, 2], ([0, 0], [1, 1]), np.eye(3) > 0]
)
def test_indexing(index):
    x = tensors((3, 3))[0]
    np.testing.assert_array_equal(check(lambda x: x[index], x).numpy(), x.data[index])


def test_operators_and_their_reflections():
    x, y = tensors((2, 3), (3,), positive=True)
    for function in (
        lambda x, y: 2 - x * y / 3,
        lambda x, y: 1 / y + x**2 - y,
        lambda x, y: -(2**x) @ y + abs(y).sum(),
        lambda x, y: np.ones((2, 3)) * x - np.ones(3) / y,
        lambda x, y: x.exp().log().sqrt().tanh().sigmoid().relu() + y.mean() + y.var() + y.max() + y.min(),
    ):
        check(function, x, y)


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32(name):
    inputs = in_float32(CASES[name].inputs())
    output = CASES[name].function(*inputs)
    assert output.dtype == np.float32
    output.backward(np.ones(output.shape))
    assert all(x.grad.dtype == np.float32 for x in inputs)


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name):
    double = CASES[name].inputs()
    single = in_float32(double)
    for inputs in (double, single):
        output = CASES[name].function(*inputs)
        output.backward(np.ones(output.shape))
    for x, y in zip(double, single, strict=True):
        np.testing.assert_allclose(y.grad, x.grad, rtol=1e-3, atol=1e-4)


def in_float32(inputs):
    return [Tensor(x.data, requires_grad=True, dtype=np.float32) for x in inputs]


def test_python_and_numpy_scalars_do_not_promote():
    x = Tensor([1.0, 2.0])
    assert (x * 2.5 + np.float64(1)).dtype == (x * np.ones(2)).dtype == np.float32


def test_projected_mode_on_a_large_input():
    x = Tensor(np.random.default_rng(0).standard_normal((100, 100)), requires_grad=True)
    assert gradcheck(ag.softmax, x, mode="projected")
