"""A GPT to step through: `python -m autograd.step tinygpt.stepping:gpt`, or `:block`.

The real model, small enough that every number of its backward pass can be looked at.
"""

import numpy as np

import autograd as ag
from tinygpt.config import GPTConfig
from tinygpt.model import GPT, Block, Module

CONFIG = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=12, activation="gelu")
IDS = np.array([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])  # (B, T)
TARGETS = np.roll(IDS, -1, axis=1)  # each token's next, and the first after the last
MODEL = GPT(CONFIG, seed=1)


def gpt() -> ag.Tensor:
    """A GPT of two blocks, from token ids to the loss"""
    return MODEL.loss(IDS, TARGETS)


class BlockAndHead(Module):
    """One block, with the loss of a head on it."""

    def __init__(self):
        self.block: Block = MODEL.transformer.h[0]
        self.head = MODEL.lm_head

    def loss(self, x: ag.Tensor) -> ag.Tensor:
        """The cross entropy after the block's work on x (B, T, C)."""
        return ag.linear_cross_entropy(self.block(x, stream=None), self.head.weight, self.head.bias, TARGETS)


BLOCK = BlockAndHead()


def block() -> ag.Tensor:
    """One block of a GPT, and the loss of a head on it"""
    shape = (*IDS.shape, CONFIG.n_embd)
    x = ag.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)
    return BLOCK.loss(x)
