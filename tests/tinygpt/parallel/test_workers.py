"""Micro-batches and threads change the time, not the result."""

import numpy as np
import pytest

from autograd import AdamW, Stream
from tinygpt.config import ARCHITECTURES, GPTConfig, TrainConfig
from tinygpt.model import GPT
from tinygpt.parallel.workers import Workers, choose_division

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
        workers.update()
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


MACHINES = {  # cores, memory in GB, settings, model -> threads, micro-batch
    "one core": (1, 8, dict(batch_size=64), dict(), (1, 4)),
    "two cores": (2, 8, dict(batch_size=64), dict(), (2, 4)),
    "two cores, short context": (2, 8, dict(batch_size=12, block_size=64), dict(block_size=64), (2, 6)),
    "64 cores": (64, 256, dict(batch_size=64), dict(), (64, 1)),
    "more cores than sequences": (64, 256, dict(batch_size=4), dict(), (4, 1)),
    "124M, much memory": (8, 64, dict(batch_size=8, block_size=1024), "gpt2", (1, 1)),
    "124M, many cores": (64, 256, dict(batch_size=8, block_size=1024), "gpt2", (8, 1)),
    "124M, many cores, little memory": (64, 8, dict(batch_size=8, block_size=1024), "gpt2", (4, 1)),
    "flags win": (2, 8, dict(batch_size=64, threads=3, micro_batch=5), dict(), (3, 5)),
}


@pytest.mark.parametrize("name", MACHINES)
def test_automatic_choices(name):
    cores, gigabytes, settings, model, expected = MACHINES[name]
    if model == "gpt2":
        model = dict(block_size=1024, n_layer=12, n_head=12, n_embd=768) | ARCHITECTURES["gpt2"]
    vocab_size = 50_257 if "tied_head" in model else 65
    config = TrainConfig(preset="x", **settings)
    assert (
        choose_division(config, GPTConfig(vocab_size, **model), cores=cores, memory=gigabytes * 1e9)
        == expected
    )


def test_a_gpu_takes_the_batch_whole():
    assert choose_division(TrainConfig(preset="x", batch_size=64), GPTConfig(65), "cuda") == (1, 64)
    assert choose_division(TrainConfig(preset="x", batch_size=64, micro_batch=8), GPTConfig(65), "cuda") == (
        1,
        8,
    )
