"""A short training run on any device, for comparing a GPU with the CPU."""

import numpy as np

from autograd import AdamW, Stream
from tests.stand_ins import strict_cupy
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.generate import generate
from tinygpt.model import GPT
from tinygpt.parallel.workers import Workers
from tinygpt.text.data import Dataset
from tinygpt.text.tokenizer import CharTokenizer


class Training:
    """A small model in float32, with dropout, on batches of random tokens that are drawn on the device."""

    def __init__(self, architecture, device):
        config = GPTConfig(
            17, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.2, **ARCHITECTURES[architecture]
        )
        self.model = GPT(config, seed=2).to(device)
        self.optimizer = AdamW(self.model.parameter_groups(0.1), lr=3e-3)
        self.workers = Workers(self.model, self.optimizer, threads=1, micro_batch=4)
        tokenizer = CharTokenizer("abcdefghijklmnopq")
        text = "".join("abcdefghijklmnopq"[i] for i in Stream(0).integers(400, 17))
        self.dataset = Dataset(text, tokenizer, config.block_size).to(device)

    def step(self, number):
        """The loss and the gradient's norm, still on the device."""
        ids, targets = self.dataset.batch("train", 4, Stream(1, step=number))
        loss = self.workers.loss_and_gradients(ids, targets, Stream(5, step=number))
        norm = self.optimizer.clip_grad_norm(1.0)
        self.workers.update()
        return loss, norm


def train(architecture, device, steps=5):
    """Losses and gradient norms, {name: weights} and a sample of a short training run."""
    training, losses = Training(architecture, device), []
    for number in range(steps):
        with strict_cupy.no_waiting():  # the host runs ahead of the device during a whole step
            results = training.step(number)
        losses.append([float(x) for x in results])
    losses.append(float(training.workers.loss(*training.dataset.batch("val", 4, Stream(1)))))
    sample = list(generate(training.model, [1, 2], 20, seed=1))
    weights = {name: p.to("cpu").numpy() for name, p in training.model.named_parameters()}
    return losses, weights, sample


def without_key_biases(weights):
    """The weights, as a list, without what another rounding may move anywhere.

    A bias of the keys adds the same to all scores of a query, which changes no weight of attention. So its
    gradient is nothing but rounding, which Adam scales up as if it were one.
    """
    kept = []
    for name, values in weights.items():
        if name.endswith("attn.c_attn.bias"):  # those of queries, keys and values
            queries, _, values = np.split(values, 3)
            values = np.concatenate([queries, values])
        kept.append(values)
    return kept
