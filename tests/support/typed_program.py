"""A program of a user's, for a type checker: .ci/run lets mypy read it. It is never run."""

from collections.abc import Iterator
from typing import assert_type

import numpy as np

import autograd as ag
from autograd import AdamW, Stream, Tensor, clip_grad_norm, gradcheck, no_grad, op, warmup_cosine
from tinygpt import GPT, GPTConfig, generate


@op
def cube(x):
    return x**3, lambda g: 3 * g * x**2


def engine() -> None:
    x, w = Tensor(np.ones((2, 3)), requires_grad=True), Tensor(np.ones((3, 2)), requires_grad=True)
    y = (2 * x @ w + 1.0 - x.sum() / 3) ** 2
    assert_type(y, Tensor)
    assert_type(ag.softmax(y, axis=-1), Tensor)
    assert_type(cube(x), Tensor)
    loss = -abs(y).mean() + ag.sum(ag.exp(x[0])) + x.reshape(3, 2).T.max() + ag.causal_attention(x, 1).var()
    loss.backward()
    assert_type(loss.item(), float)
    optimizer = AdamW([{"params": [x], "weight_decay": 0.1}, {"params": [w]}], lr=0.1)
    schedule = warmup_cosine(1.0, warmup_steps=1, max_steps=10, min_lr=0.1)
    optimizer.groups[0]["lr"] = schedule(3)
    clip_grad_norm(optimizer.parameters(), 1.0)
    optimizer.step()
    with no_grad():
        assert_type(x.numpy(), np.ndarray)
    assert_type(gradcheck(lambda a: (a * a).sum(), x), bool)


def model() -> None:
    gpt = GPT(GPTConfig(vocab_size=65, n_layer=2))
    ids = np.zeros((1, 8), np.int64)
    assert_type(gpt.loss(ids, ids, Stream(seed=1)), Tensor)
    assert_type(generate(gpt, [0], n_tokens=5), Iterator[int])
