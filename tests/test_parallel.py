"""Micro-batches and threads change the time, not the result."""

import numpy as np
import pytest

from autograd import AdamW, Stream
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.model import GPT
from tinygpt.parallel import Workers, choose

CONFIG = GPTConfig(vocab_size=13, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.3)


def train(threads, micro_batch, dtype=np.float32, steps=3, rows=7):
    """Losses, gradients of the last step and final weights."""
    model = GPT(CONFIG, seed=1)
    for p in model.parameters():
        p.data = p.data.astype(dtype)
    optimizer = AdamW(model.parameter_groups(0.1), lr=1e-2)
    workers = Workers(model, optimizer, threads, micro_batch)
    losses = []
    for step in range(steps):
        ids = np.random.default_rng(step).integers(0, 13, (rows, 13))
        losses.append(workers.loss_and_gradients(ids[:, :-1], ids[:, 1:], Stream(5, step=step)))
        optimizer.step(workers.run)
    losses.append(workers.loss(ids[:, :-1], ids[:, 1:]))
    return losses, [p.grad.copy() for p in model.parameters()], [p.data.copy() for p in model.parameters()]


@pytest.mark.parametrize(("threads", "micro_batch"), [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (4, 4)])
def test_any_split_equals_the_whole_batch(threads, micro_batch):
    whole, parts = train(1, 7, np.float64), train(threads, micro_batch, np.float64)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    for a, b in zip(parts[1] + parts[2], whole[1] + whole[2], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("threads", "micro_batch"), [(1, 7), (2, 2), (3, 1)])
def test_same_counts_same_bits(threads, micro_batch):
    first, second = train(threads, micro_batch), train(threads, micro_batch)
    assert first[0] == second[0]
    for a, b in zip(first[1] + first[2], second[1] + second[2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_automatic_choices_are_sensible():
    threads, micro_batch = choose(TrainConfig(preset="x", batch_size=12, block_size=64))
    assert threads >= 1 and 1 <= micro_batch <= 12
    assert choose(TrainConfig(preset="x", threads=3, micro_batch=5)) == (3, 5)
    assert choose(TrainConfig(preset="x", batch_size=1, block_size=4096)) == (1, 1)
