"""Films for the tests of the player, and the page of one taken apart."""

import base64
import functools
import json

import numpy as np

import autograd as ag
from autograd import Tensor, step_through
from tests.autograd.step import losses
from tests.support.elements import Elements
from tinygpt.config import GPTConfig
from tinygpt.model import GPT


def film_of(case):
    """The film of one of the losses in losses.py."""
    loss, names = case()
    return step_through(loss, **names)


@functools.cache
def scalar_film():
    return film_of(losses.scalars)


@functools.cache
def array_film():
    """h = x @ W, tanh(h) used twice; small arrays, one of them vectors."""
    x, W, b = losses.leaf(4, 3), losses.leaf(3, 5, seed=1), losses.leaf(5, seed=2)

    def loss():
        h = ag.tanh(x @ W + b)
        return (h * h).mean()

    return step_through(loss, x=x, W=W, b=b)


@functools.cache
def block_film(size=32, length=16):
    """A block of a GPT with 4 heads."""
    config = GPTConfig(vocab_size=65, block_size=length, n_layer=1, n_head=4, n_embd=size)
    block = GPT(config).transformer.h[0]
    values = np.random.default_rng(0).standard_normal((2, length, size))
    x = Tensor(values, requires_grad=True, dtype=np.float32)

    def loss():
        y = block(x, None)
        return (y * y).mean()

    return step_through(loss, model=block, x=x)


@functools.cache
def gpt_film():
    """A whole GPT with two blocks."""
    model = GPT(GPTConfig(vocab_size=13, block_size=8, n_layer=2, n_head=2, n_embd=8))
    ids = np.random.default_rng(0).integers(0, 13, (2, 9))
    return step_through(lambda: model.loss(ids[:, :-1], ids[:, 1:]), model=model)


class Page(Elements):
    """The elements of a player's page, and the film in it."""

    @property
    def film(self):
        return json.loads(self.texts["film"])


def unpacked(array):
    """The matrix of an array in a page."""
    raw = base64.b64decode(array["data"])
    values = np.frombuffer(raw, {"f4": "<f4", "i2": "<i2"}[array["type"]]).astype(np.float64)
    return values.reshape(array["rows"], array["columns"]) * array.get("scale", 1)
