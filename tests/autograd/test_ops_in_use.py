"""The operations as people call them: every form of index and argument, extreme values, long sums.

What must be refused, and how, stands in tests/operations.
"""

import array
import warnings

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor
from tests.operations import elementwise, reduce, shape
from tests.operations.checks import slopes, tensors
from tests.stand_ins import strict_cupy

CASES = {
    name: case
    for family in (elementwise, reduce, shape)
    for record in family.RECORDS
    for name, case in record.cases.items()
}

# --- indices --------------------------------------------------------------------------------------

MASK = np.arange(24).reshape(3, 4, 2) % 3 == 0

# of an array of shape (3, 4, 2)
INDICES = [
    *(0, -1, np.int64(1), np.array(1), np.array(-1, np.int8), np.uint8(2), True, False, np.True_),
    *(None, ..., (), slice(None), slice(None, None, -1), slice(np.int64(1), np.array(3)), slice(5, 9)),
    *(
        (0, 1),
        (0, 1, 1),
        (-1, ..., -1),
        (None, 0, None),
        (..., None),
        (slice(1), 2),
        (0, slice(None, None, 2)),
    ),
    *([], [0], [0, 0, 2], [-1, 2], [[0, 1], [1, 0]], [[]], range(0), range(2), range(2, -1, -1)),
    *(((0, 0), (1, 1)), ([0, 0], [1, 1]), ([0, 1], [0]), ([[0], [1]], [0, 1, 0]), ((0, -3), (1, -3))),
    *((range(3), range(3)), (slice(None), [0, 0]), (..., [0, 0, 1]), ([0, 0], slice(None), [1, 1])),
    *((0, [1, 1]), (0, slice(None), (0, 0)), (None, [0, 0]), ([0, 0], None, [0, 0]), (np.array(0), [1, 1])),
    *((True, [0, 0]), ([], []), ((), 0), (slice(None), ()), (slice(2), [True, False, True, True])),
    *([True, False, True], np.array([True, False, True]), MASK, MASK[:, :, 0], np.zeros(3, bool)),
    *((MASK[:, 0, 0], 0), (slice(None), MASK[0]), (MASK[:, :, 0], [0]), (MASK[:, 0, 0], [[0], [0]])),
    *(np.array([1, 1], np.uint8), np.array([1, 1], np.int32), np.array([2, -1]), np.zeros((0, 2), int)),
    *((np.array([1, 1]), np.array([0, 0])), (np.array([[1], [1]]), np.array([0, 0])), ([2, 2], -1, None)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_every_form_of_index_takes_what_numpys_takes(index):
    """And the gradients of an entry that is taken several times add up."""
    (x,) = tensors((3, 4, 2))
    out = x[index]
    np.testing.assert_array_equal(out.numpy(), x.numpy()[index])
    assert out.shape == x.numpy()[index].shape
    upstream, expected = np.cos(np.arange(out.size)).reshape(out.shape), np.zeros(x.shape)
    np.add.at(expected, index, upstream)
    out.backward(upstream)
    np.testing.assert_array_equal(x.grad, expected)


class OfAnotherLibrary:
    """An array that NumPy can only ask for its values."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


def test_indices_and_masks_of_other_libraries():
    arrays = [OfAnotherLibrary, lambda values: memoryview(np.asarray(values))]
    for foreign in arrays:
        x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        (x[foreign([0, 0, -1])].sum() + x[foreign([True, False, True])].sum()).backward()
        assert x.grad.tolist() == [3, 0, 2]
        assert x[..., foreign([0])].shape == ag.where(foreign([True]), x[0], 0.0).shape == (1,)
        assert ag.masked_fill(x, foreign([True, False, True]), 0.0).numpy().tolist() == [0, 2, 0]
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[array.array("i", [0, 0])].sum() + x[OfAnotherLibrary(2)]).backward()
    assert x.grad.tolist() == [2, 0, 1]


def test_indices_of_pytorch():
    torch = pytest.importorskip("torch")
    for index in (torch.tensor([0, 0, -1]), torch.tensor(1), torch.tensor([True, False, True])):
        x, y = Tensor([1.0, 2.0, 3.0], requires_grad=True), torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
        x[index].sum().backward()
        y[index].sum().backward()
        assert x.grad.tolist() == y.grad.tolist()


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sections", [2, np.int64(2), np.array(2), [1], (1, 3), np.array([1, 3]), [0, -1], [9], []]
)
def test_split_as_numpys(sections):
    (x,) = tensors((4, 2))
    parts = ag.split(x, sections, axis=np.int64(-2))
    for part, expected in zip(parts, np.split(x.numpy(), sections, axis=-2), strict=True):
        np.testing.assert_array_equal(part.numpy(), expected)
    ag.concatenate(parts).backward(np.ones((4, 2)))
    assert (x.grad == 1).all() or sections == [0, -1]


def test_what_may_be_joined():
    x = Tensor([1.0, 2.0], requires_grad=True)
    joined = ag.concatenate(x for _ in range(2))  # a generator
    mixed = ag.concatenate([[7], x, np.array([8, 9])], axis=np.int64(-1))
    stacked = ag.stack((x, [0, 0], np.ones(2)), axis=-1)
    assert joined.shape == (4,) and mixed.numpy().tolist() == [7, 1, 2, 8, 9] and mixed.dtype == np.float32
    assert stacked.numpy().tolist() == [[1, 0, 1], [2, 0, 1]] and stacked.dtype == np.float32
    (joined.sum() + mixed.sum() + stacked.sum()).backward()
    assert x.grad.tolist() == [4, 4]


def test_options_may_be_numpys_scalars_and_lists():
    x, one = Tensor([[1.0, -2.0], [3.0, 4.0]], requires_grad=True), np.int64(1)
    results = [
        ag.sum(x, axis=one, keepdims=np.True_),
        ag.max(x, axis=np.array(1)),
        ag.var(x, axis=[0, one], ddof=one),
        ag.logsumexp(x, axis=[-1]),
        ag.clip(x, np.float64(0), np.float64(1)),
        ag.clip(x, high=np.array(1.0)),
        ag.masked_fill(x, [[True, False], [False, False]], np.float64(7)),
        ag.where([True, False], x, np.float64(7)),
        ag.where(True, x, np.int64(7)),
        ag.where(x[0] > 0, x, [7, 8]),
        ag.tril(x, np.int64(-1)),
        ag.reshape(x, np.array([4, 1])),
        ag.reshape(x, [one, -one]),
        ag.reshape(x, 4),
        ag.broadcast_to(x, [2, 2, 2]),
        ag.transpose(x, [one, 0]),
        ag.swapaxes(x, one, -one),
        ag.expand_dims(x, [0, one]),
        ag.squeeze(ag.expand_dims(x, 0), [0]),
        ag.power(x, np.float64(2)),
        ag.maximum(np.float64(0.5), x),
        x.astype("float32"),
    ]
    assert {result.dtype for result in results} == {np.dtype(np.float32)}
    for result in results:
        result.backward(np.ones(result.shape))
    assert x.grad.dtype == np.float32 and x.grad.shape == (2, 2)


# --- numbers --------------------------------------------------------------------------------------

INF = np.inf

# (function, x, its value, its slope), in float32
EXTREMES = [
    (ag.sigmoid, -80, 1.8048513878454153e-35, 1.8048513878454153e-35),
    (ag.sigmoid, -1e20, 0, 0),
    (ag.sigmoid, 1e20, 1, 0),
    (ag.sigmoid, INF, 1, 0),
    (ag.sigmoid, -INF, 0, 0),
    (lambda x: -ag.log(ag.sigmoid(x)), -20, 20, -1),
    (lambda x: -ag.log(ag.sigmoid(x)), -80, 80, -1),
    (ag.tanh, -1e20, -1, 0),
    (ag.exp, -200, 0, 0),
    (ag.log, 1e-30, -69.07755, 1e30),
    (ag.sqrt, 1e-30, 1e-15, 5e14),
    (ag.relu, -INF, 0, 0),
    (ag.gelu, 1e15, 1e15, 1),
    (ag.gelu, -1e15, 0, 0),
    (ag.gelu_exact, 1e20, 1e20, 1),
    (ag.gelu_exact, -1e20, 0, 0),
    (lambda x: x / 1e20, 1e20, 1, 1e-20),
    (lambda x: 1e20 / x, 1e20, 1, -1e-20),
    (lambda x: 0 / x, 1e-30, 0, 0),
    (lambda x: 1e-10 * (1 / x), 1e-20, 1e10, -1e30),
    (lambda x: x**2, 1e-30, 0, 2e-30),
    (lambda x: x**-1, 1e15, 1e-15, -1e-30),
    (lambda x: x**0, 0, 1, 0),
    (lambda x: 0.0**x, 0, 1, 0),
    (lambda x: 0.0**x, 2, 0, 0),
    (lambda x: ag.clip(x, -1e20, 1e20), INF, 1e20, 0),
    (lambda x: ag.sqrt(ag.relu(x)), -1, 0, 0),
    (lambda x: ag.log(ag.maximum(x, 0)) * 0, -1, np.nan, 0),
    (lambda x: ag.where(x > 0, ag.log(abs(x) + 1), 0), 0, 0, 0),
    (lambda x: ag.logsumexp(ag.stack([x, x - 1e20])), 1e20, 1e20, 1),
    (lambda x: ag.logsumexp(ag.stack([x, x + INF])), 0, INF, np.nan),
    (lambda x: ag.logsumexp(ag.stack([x - INF, x - INF])), 0, -INF, 0),
]


@pytest.mark.parametrize("number", range(len(EXTREMES)))
def test_extreme_values(number):
    function, x, value, slope = EXTREMES[number]
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(function(Tensor(x)).numpy(), value, rtol=2e-6, atol=1e-45)
        np.testing.assert_allclose(slopes(function, x), [slope], rtol=2e-6, atol=1e-45)


def test_long_sums_in_float32():
    values = np.random.default_rng(0).random((30_000, 5), np.float32)
    exact = values.astype(np.float64)
    for x, double in ((values, exact), (values[:, ::2], exact[:, ::2]), (values[:, :1], exact[:, :1])):
        for axis in (0, (0, 1)):
            for function in (ag.sum, ag.mean, ag.var, ag.logsumexp):
                result, expected = function(Tensor(x), axis=axis), function(Tensor(double), axis=axis)
                assert result.dtype == np.float32
                np.testing.assert_allclose(result.numpy(), expected.numpy(), rtol=4e-7)
    bias = Tensor(np.zeros(5, np.float32), requires_grad=True)
    (bias + np.zeros((30_000, 5))).backward(values)
    np.testing.assert_allclose(bias.grad, exact.sum(0), rtol=2e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_warnings_in_everyday_use(dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in CASES.values():
            inputs = [Tensor(x.numpy(), dtype=dtype, requires_grad=True) for x in case.inputs()]
            out = case.function(*inputs)
            out.backward(np.ones(out.shape))
        x = Tensor([-200.0, -1.0, 0.0, 1.0, 200.0], dtype=dtype, requires_grad=True)
        for function in (
            *(
                ag.relu,
                ag.abs,
                ag.sigmoid,
                ag.tanh,
                ag.gelu,
                ag.gelu_exact,
                ag.mean,
                ag.var,
                ag.max,
                ag.logsumexp,
            ),
            *(
                lambda x: x**2,
                lambda x: x**3.0,
                lambda x: x**0,
                lambda x: x**1,
                lambda x: x ** Tensor([2.0], dtype=dtype),
            ),
            *(
                lambda x: ag.maximum(x, 0),
                lambda x: ag.clip(x, 0, 1),
                lambda x: x / 3,
                lambda x: 2 ** (x / 8),
            ),
            lambda x: ag.logsumexp(ag.masked_fill(x, x < 0, -INF)),
            lambda x: ag.logsumexp(ag.masked_fill(x, x < INF, -INF)),  # a row that is masked as a whole
        ):
            out = function(x)
            out.backward(np.ones(out.shape))
        ag.mean(x[:0]).backward()
        assert np.isfinite(x.grad).all()


def test_nothing_waits_for_a_gpu_or_becomes_float64_there():
    with strict_cupy.installed() as cupy:
        for case in CASES.values():
            inputs = [
                Tensor(cupy.asarray(x.numpy().astype(np.float32)), requires_grad=True) for x in case.inputs()
            ]
            with strict_cupy.no_waiting():
                out = case.function(*inputs)
                out.backward(cupy.asarray(np.ones(out.shape, np.float32)))


def test_conditions_and_masks_go_to_the_gpu():
    with strict_cupy.installed():
        x = Tensor([1.0, 2.0]).to("cuda")
        for mask in ([True, False], np.array([True, False]), x < 2):
            assert ag.where(mask, x, 0.0).numpy().tolist() == [1, 0]
            assert ag.where(mask, 0.0, x).numpy().tolist() == [0, 2]
            assert ag.masked_fill(x, mask, 0.0).numpy().tolist() == [0, 2]
        assert ag.maximum(1.5, x).numpy().tolist() == [1.5, 2]
        assert (2.0**x).numpy().tolist() == [2, 4]
