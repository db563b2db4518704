"""Every operation against finite differences, over random shapes: 0-d, empty, broadcast and non-contiguous
included.
"""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import autograd as ag
from autograd import Tensor, gradcheck
from tests.support.opcases import (
    BINARY,
    CASES,
    NEEDS_ROWS,
    POSITIVE,
    POSITIVE_BINARY,
    REDUCTIONS,
    UNARY,
    check,
    check_case,
    tensors,
)

shapes = array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
pairs = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, min_side=0, max_side=4)
seeds = st.integers(0, 1000)


@pytest.mark.parametrize("name", CASES)
def test_each_operation_on_its_example(name):
    check_case(name)


@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
@given(shape=shapes, seed=seeds)
def test_unary_over_shapes(name, shape, seed):
    if name in NEEDS_ROWS and (len(shape) < 2 or 0 in shape):
        return
    check((UNARY | POSITIVE)[name], *tensors(shape, seed=seed, positive=name in POSITIVE))


@pytest.mark.parametrize("name", [*BINARY, *POSITIVE_BINARY])
@given(pair=pairs, seed=seeds)
def test_binary_over_broadcastable_shapes(name, pair, seed):
    check(
        (BINARY | POSITIVE_BINARY)[name],
        *tensors(*pair.input_shapes, seed=seed, positive=name in POSITIVE_BINARY),
    )


@given(pair=pairs, seed=seeds)
def test_where_over_broadcastable_shapes(pair, seed):
    condition = np.random.default_rng(seed).random(pair.result_shape) < 0.5
    check(lambda x, y: ag.where(condition, x, y), *tensors(*pair.input_shapes, seed=seed))


@pytest.mark.parametrize("name", REDUCTIONS)
@given(
    data=st.data(), shape=array_shapes(min_dims=0, max_dims=3, max_side=4), keepdims=st.booleans(), seed=seeds
)
def test_reductions_over_axes(name, data, shape, keepdims, seed):
    axes = st.none()
    if shape:
        one = st.integers(-len(shape), len(shape) - 1)
        axes = st.one_of(axes, one, st.sets(st.integers(0, len(shape) - 1), min_size=1).map(tuple))
    axis = data.draw(axes)
    result = check(lambda x: REDUCTIONS[name](x, axis=axis, keepdims=keepdims), *tensors(shape, seed=seed))
    if name != "logsumexp":
        expected = getattr(np, name)(tensors(shape, seed=seed)[0].data, axis=axis, keepdims=keepdims)
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_of_nothing(name):
    check(lambda x: REDUCTIONS[name](x, axis=1), *tensors((0, 3)))


@given(
    st.sampled_from(
        [
            ((3,), (3,)),
            ((3,), (2, 3, 4)),
            ((2, 3), (3,)),
            ((5, 1, 2, 3), (4, 3, 2)),
            ((0, 3), (3, 2)),
            ((2, 0), (0, 3)),
        ]
    ),
    seeds,
)
def test_matmul_as_numpy(pair, seed):
    x, y = tensors(*pair, seed=seed)
    result = check(ag.matmul, x, y)
    np.testing.assert_allclose(result.numpy(), x.data @ y.data)


@given(seeds, st.integers(1, 5), st.integers(0, 4), st.integers(1, 4), st.booleans())
def test_linear_over_shapes(seed, n, k, m, bias):
    check(ag.linear, *tensors((n, 2, k), (k, m), *[(m,)] * bias, seed=seed))


@given(seeds, st.integers(0, 4), st.integers(2, 6))
def test_layer_norm_over_shapes(seed, n, c):
    check(ag.layer_norm, *tensors((n, 2, c), (c,), (c,), seed=seed))


@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.25]),
)
def test_attention_over_shapes(seed, b, t, heads, d, p):
    stream = ag.Stream(seed)
    check(
        lambda x: ag.causal_attention(x, heads, dropout=p, stream=stream),
        *tensors((b, t, 3 * heads * d), seed=seed),
    )


@given(seeds, st.integers(1, 6), st.integers(1, 5))
def test_embedding_and_cross_entropy_over_shapes(seed, n, v):
    ids = np.random.default_rng(seed).integers(0, v, n)
    check(lambda w: ag.embedding(w, ids), *tensors((v, 3), seed=seed))
    check(lambda x: ag.cross_entropy(x, ids), *tensors((n, v), seed=seed))


@pytest.mark.parametrize(
    "index", [1, -1, slice(None), (slice(1), 2), (..., 0), None, [0, 0, 2], ([0, 0], [1, 1]), np.eye(3) > 0]
)
def test_indexing(index):
    x = tensors((3, 3))[0]
    np.testing.assert_array_equal(check(lambda x: x[index], x).numpy(), x.data[index])


def test_shape_operations():
    (x,) = tensors((2, 1, 3))
    for function in (
        lambda x: x.reshape(3, -1),
        lambda x: x.reshape((6,)),
        lambda x: x.T,
        lambda x: x.transpose(-1, 0, 1),
        lambda x: x.swapaxes(0, -1),
        lambda x: ag.expand_dims(x, axis=-1),
        lambda x: ag.expand_dims(x, axis=(0, 2)),
        lambda x: x.squeeze(),
        lambda x: x.squeeze(1),
        lambda x: ag.concatenate([x, x, x], axis=-1),
    ):
        check(function, x)


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
    function, inputs = CASES[name]()
    inputs = [Tensor(x.data, requires_grad=True, dtype=np.float32) for x in inputs]
    output = function(*inputs)
    assert output.dtype == np.float32
    output.backward(np.ones(output.shape))
    assert all(x.grad.dtype == np.float32 for x in inputs)


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name):
    function, inputs = CASES[name]()
    single = [Tensor(x.data, requires_grad=True, dtype=np.float32) for x in inputs]
    for values in (inputs, single):
        output = function(*values)
        output.backward(np.ones(output.shape))
    for x, y in zip(inputs, single, strict=True):
        np.testing.assert_allclose(y.grad, x.grad, rtol=1e-3, atol=1e-4)


def test_python_and_numpy_scalars_do_not_promote():
    x = Tensor([1.0, 2.0])
    assert (x * 2.5 + np.float64(1)).dtype == (x * np.ones(2)).dtype == np.float32


def test_astype_sends_the_gradient_back_in_the_original_dtype():
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x.astype(np.float64) * 3.0).sum().backward()
    assert x.grad.dtype == np.float32 and x.grad.tolist() == [3, 3]


def test_projected_mode_on_a_large_input():
    x = Tensor(np.random.default_rng(0).standard_normal((100, 100)), requires_grad=True)
    assert gradcheck(ag.softmax, x, mode="projected")
