"""Each fused operation equals its composition from primitives: values and all gradients, in float64."""

import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from autograd.ops import nn
from tests.support.opcases import tensors


def assert_same(fused, composed, inputs):
    """Both functions give the same result and the same gradients under one random upstream gradient."""
    results = []
    for function in (fused, composed):
        for x in inputs:
            x.grad = None
        output = function(*inputs)
        output.backward(np.random.default_rng(0).standard_normal(output.shape))
        results.append([output.data] + [x.grad for x in inputs])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(b).max()))


def softmax(x):
    e = ag.exp(x - ag.max(x, axis=-1, keepdims=True))
    return e / ag.sum(e, axis=-1, keepdims=True)


def layer_norm(x, weight, bias):
    centered = x - ag.mean(x, axis=-1, keepdims=True)
    return centered / ag.sqrt(ag.var(x, axis=-1, keepdims=True) + 1e-5) * weight + bias


def attention(qkv, n_head, scale=None, keep=None):
    """As in a textbook: scores, mask, softmax, dropout, weighted sum."""
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    q, k, v = (part.reshape(B, T, n_head, C // n_head).swapaxes(1, 2) for part in ag.split(qkv, 3, axis=-1))
    scores = q @ k.swapaxes(-1, -2) * (scale or (C // n_head) ** -0.5)
    weights = softmax(ag.masked_fill(scores, np.triu(np.ones((T, T), bool), 1), -np.inf))
    if keep is not None:
        weights = weights * (keep[0] * keep[1])
    return (weights @ v).swapaxes(1, 2).reshape(B, T, C)


def test_softmax_and_log_softmax():
    assert_same(ag.softmax, softmax, tensors((3, 5)))
    assert_same(ag.log_softmax, lambda x: ag.log(softmax(x)), tensors((3, 5)))
    assert_same(
        lambda x: ag.logsumexp(x, axis=-1), lambda x: ag.log(ag.sum(ag.exp(x), axis=-1)), tensors((3, 5))
    )


def test_layer_norm():
    assert_same(ag.layer_norm, layer_norm, tensors((2, 3, 7), (7,), (7,)))


def test_linear():
    assert_same(ag.linear, lambda x, w, b: x @ w + b, tensors((2, 3, 4), (4, 5), (5,)))
    for name, activation in (("relu", ag.relu), ("gelu", ag.gelu), ("gelu_exact", ag.gelu_exact)):
        assert_same(
            lambda x, w, b, name=name: ag.linear(x, w, b, activation=name),
            lambda x, w, b, activation=activation: activation(x @ w + b),
            tensors((2, 3, 4), (4, 5), (5,)),
        )


def test_gelu_forms():
    (x,) = tensors((50,))
    composed = lambda x: 0.5 * x * (1.0 + ag.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3.0)))
    assert_same(ag.gelu, composed, [x])
    assert np.abs(ag.gelu(x).data - ag.gelu_exact(x).data).max() < 1e-3


@pytest.mark.parametrize("T", [1, 5, 64, 129, 300])
@pytest.mark.parametrize("scale", [None, 0.3, 40.0])
def test_causal_attention(T, scale):
    assert_same(
        lambda x: ag.causal_attention(x, 2, scale=scale),
        lambda x: attention(x, 2, scale),
        tensors((2, T, 12), seed=T),
    )


@pytest.mark.parametrize("T", [5, 200])
def test_causal_attention_with_dropout(T):
    stream = Stream(3, step=4, site=5, row=6)
    keep = stream.keep_mask((2, 2, T, T), 0.3)
    assert_same(
        lambda x: ag.causal_attention(x, 2, dropout=0.3, stream=stream),
        lambda x: attention(x, 2, keep=keep),
        tensors((2, T, 12)),
    )


def test_attention_needs_no_maximum_for_small_scores_and_takes_it_for_large_ones():
    """Scores of 1,000 would overflow the exponential; both paths agree where both work."""
    qkv = Tensor(np.random.default_rng(0).standard_normal((1, 10, 12)) * 30)
    assert np.isfinite(ag.causal_attention(qkv, 1, scale=100.0).data).all()
    np.testing.assert_allclose(
        ag.causal_attention(qkv, 1, scale=0.01).data, attention(qkv, 1, 0.01).data, rtol=1e-10
    )


def test_cross_entropy():
    targets = np.array([[1, 0, 3], [2, -1, 0]])
    rows, columns = [0, 1, 2, 3, 5], [1, 0, 3, 2, 0]
    composed = lambda x: -ag.mean(ag.log(softmax(x)).reshape(6, 4)[rows, columns])
    assert_same(lambda x: ag.cross_entropy(x, targets, ignore_index=-1), composed, tensors((2, 3, 4)))


@pytest.mark.parametrize("chunk", [1, 2**20])
def test_linear_cross_entropy(monkeypatch, chunk):
    """A tied head (weight transposed, no bias) and a separate one; one chunk and several."""
    monkeypatch.setattr(nn, "HEAD_CHUNK", chunk)
    targets = np.random.default_rng(0).integers(0, 7, (3, 200))
    targets[0, ::3] = -1
    for head in (lambda w, b: (w.T, None), lambda w, b: (w.reshape(5, 7), b)):
        assert_same(
            lambda x, w, b: ag.linear_cross_entropy(x, *head(w, b), targets, ignore_index=-1) * 3.0 + b.sum(),
            lambda x, w, b: (
                ag.cross_entropy(ag.linear(x, *head(w, b)), targets, ignore_index=-1) * 3.0 + b.sum()
            ),
            tensors((3, 200, 5), (7, 5), (7,)),
        )


def test_checkpointed_blocks_give_the_same_gradients():
    stream = Stream(2)

    def block(x, w, b):
        return ag.dropout(ag.linear(ag.layer_norm(x, b, b), w, activation="gelu"), 0.3, stream)

    twice = lambda f: lambda x, w, b: f(lambda x: block(x, w, b), f(lambda x: block(x, w, b), x * 1.0))
    assert_same(twice(ag.checkpoint), twice(lambda f, x: f(x)), tensors((4, 6), (6, 6), (6,)))


def test_embedding():
    ids = np.array([[1, 1, 0], [3, 1, 1]])
    assert_same(lambda w: ag.embedding(w, ids), lambda w: Tensor(np.eye(4)[ids]) @ w, tensors((4, 3)))


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
