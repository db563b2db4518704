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
