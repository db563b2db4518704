"""Each fused operation equals its composition from primitives: values and all gradients, in float64."""

import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from autograd.step import compositions
from tests.operations import COMPOSITIONS
from tests.operations.checks import assert_same, tensors


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_fused_equals_composed(name):
    COMPOSITIONS[name]()


def test_both_forms_of_gelu_are_close():
    (x,) = tensors((50,))
    assert np.abs(ag.gelu(x).data - ag.gelu_exact(x).data).max() < 1e-3


def test_attention_needs_no_maximum_for_small_scores_and_takes_it_for_large_ones():
    """Scores of 1,000 would overflow the exponential; both paths agree where both work."""
    qkv = Tensor(np.random.default_rng(0).standard_normal((1, 10, 12)) * 30)
    assert np.isfinite(ag.causal_attention(qkv, 1, scale=100.0).data).all()
    np.testing.assert_allclose(
        ag.causal_attention(qkv, 1, scale=0.01).data,
        compositions.causal_attention(qkv, 1, scale=0.01).data,
        rtol=1e-10,
    )


@pytest.mark.parametrize("T", [1, 33, 300])
def test_attention_in_blocks_of_queries(T):
    """300 positions are several of the large blocks, 33 are two of the small ones."""
    (qkv,) = tensors((2, T, 12))
    assert_same(lambda x: ag.causal_attention(x, 2), lambda x: compositions.causal_attention(x, 2), [qkv])


def test_attention_to_nothing_has_an_empty_gradient():
    (qkv,) = tensors((2, 0, 12))
    ag.causal_attention(qkv, 2).backward(np.zeros((2, 0, 4)))
    assert qkv.grad.shape == (2, 0, 12)


def test_gelu_works_through_all_parts():
    """It works on 65,536 elements at a time."""
    x = Tensor(np.linspace(-4, 4, 150_000).reshape(300, 500), requires_grad=True)
    once = Tensor(x.data[:100], requires_grad=True), Tensor(x.data[100:], requires_grad=True)
    upstream = np.random.default_rng(0).standard_normal(x.shape)
    y = ag.gelu(x)
    y.backward(upstream)
    parts = [ag.gelu(part) for part in once]
    np.testing.assert_array_equal(y.data, np.concatenate([part.data for part in parts]))
    for part, g in zip(parts, (upstream[:100], upstream[100:]), strict=True):
        part.backward(g)
    np.testing.assert_array_equal(x.grad, np.concatenate([part.grad for part in once]))


def test_checkpointed_blocks_give_the_same_gradients():
    stream = Stream(2)

    def block(x, w, b):
        return ag.dropout(ag.linear(ag.layer_norm(x, b, b), w, activation="gelu"), 0.3, stream)

    twice = lambda f: lambda x, w, b: f(lambda x: block(x, w, b), f(lambda x: block(x, w, b), x * 1.0))
    assert_same(twice(ag.checkpoint), twice(lambda f, x: f(x)), tensors((4, 6), (6, 6), (6,)))


def test_softmax_does_not_notice_a_shift():
    (x,) = tensors((3, 5))
    np.testing.assert_allclose(ag.softmax(x + 1000.0).data, ag.softmax(x).data, rtol=1e-9)
    assert np.isfinite(ag.log_softmax(x * 1e5).data).all()


def test_cross_entropy_of_huge_logits_is_finite():
    assert float(ag.cross_entropy(Tensor([[1e4, -1e4]]), np.array([0]))) == 0
    assert float(ag.cross_entropy(Tensor([[1e4, -1e4]]), np.array([1]))) == 2e4


def test_attention_is_causal():
    """Changing the future changes nothing."""
    (x,) = tensors((1, 140, 12))
    before = ag.causal_attention(x, 2).data
    y = x.data.copy()
    y[:, 70:] += 5
    after = ag.causal_attention(Tensor(y), 2).data
    # not bit for bit: a maximum may be subtracted
    np.testing.assert_allclose(before[:, :70], after[:, :70], rtol=1e-12)
    assert np.abs(before[:, 70:] - after[:, 70:]).min() > 1e-6


def test_dropout_keeps_the_mean_and_the_mask():
    x = Tensor(np.ones((50, 1000)), requires_grad=True)
    y = ag.dropout(x, 0.2, Stream(1))
    assert set(np.unique(y.data)) == {0, 256 / 205}
    assert abs(y.data.mean() - 1) < 0.01 and abs((y.data == 0).mean() - 51 / 256) < 0.01
    y.backward(np.ones(y.shape))
    np.testing.assert_array_equal(x.grad, y.data)
