"""Every differentiable operation with inputs to check it on: used by the gradient tests and by the planted
bugs.
"""

import numpy as np

import autograd as ag
from autograd import Stream, Tensor, gradcheck


def tensors(*shapes, seed=0, positive=False):
    """float64 Tensors with values within about ±2 (or from 0.3 to 4.3) in random order, on one grid for all
    of them.

    No two are closer than 0.004 and none is closer than 0.002 to 0, which is far, for the steps of gradcheck,
    from the corners of relu, abs, max and maximum.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    size = sum(sizes)
    grid = (np.arange(size) - size // 2 + 0.5) * max(0.004, 4 / (size + 1))
    if positive and size:
        grid += 0.3 - grid.min()
    parts = np.split(np.random.default_rng(seed).permutation(grid), np.cumsum(sizes)[:-1])
    return [
        Tensor(part.reshape(shape), requires_grad=True) for part, shape in zip(parts, shapes, strict=True)
    ]


def check(function, *inputs):
    """The result, after gradcheck, and after seeing that a non-contiguous input gives the same."""
    inputs = list(inputs)
    gradcheck(function, *inputs, mode="elementwise" if sum(x.size for x in inputs) < 80 else "projected")
    twisted = [Tensor(x.data.T.copy().T) for x in inputs]
    expected = function(*inputs)
    np.testing.assert_allclose(function(*twisted).numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    return expected


UNARY = {
    name: getattr(ag, name)
    for name in (
        "negative",
        "exp",
        "tanh",
        "sigmoid",
        "relu",
        "gelu",
        "gelu_exact",
        "abs",
        "log_softmax",
        "softmax",
    )
} | {"clip": lambda x: ag.clip(x, -1.003, 1.003), "tril": lambda x: ag.tril(x, -1)}
POSITIVE = {"log": ag.log, "sqrt": ag.sqrt}
BINARY = {name: getattr(ag, name) for name in ("add", "subtract", "multiply", "maximum", "minimum")}
POSITIVE_BINARY = {"divide": ag.divide, "power": ag.power}
REDUCTIONS = {name: getattr(ag, name) for name in ("sum", "mean", "var", "max", "min", "logsumexp")}
NEEDS_ROWS = ("softmax", "log_softmax", "tril")  # at least one axis (tril: two)

IDS = np.array([[1, 0, 1], [1, 2, 1]])
TARGETS = np.array([[0, 3, -1], [2, 2, 1]])
DROPOUT = dict(dropout=0.4, stream=Stream(seed=5, step=2, site=7))


def attention_128(qkv):
    return ag.causal_attention(qkv, 2)


# name -> (function, inputs): one small, telling example per operation
CASES = {
    "add": lambda: (ag.add, tensors((2, 3), (3,))),
    "add_twice": lambda: (lambda x, y: (x + y) + x, tensors((2, 3), (2, 3))),
    "subtract": lambda: (ag.subtract, tensors((2, 3), (2, 1))),
    "multiply": lambda: (ag.multiply, tensors((2, 3), (3,))),
    "multiply_stretched": lambda: (ag.multiply, tensors((2, 1, 3), (4, 1))),
    "square": lambda: (lambda x: x * x, tensors((3,))),
    "divide": lambda: (ag.divide, tensors((2, 3), (3,), positive=True)),
    "power": lambda: (ag.power, tensors((2, 3), (3,), positive=True)),
    "tanh": lambda: (ag.tanh, tensors((5,))),
    "sigmoid": lambda: (ag.sigmoid, tensors((5,))),
    "relu": lambda: (ag.relu, tensors((2, 5))),
    "gelu": lambda: (ag.gelu, tensors((2, 5))),
    "gelu_exact": lambda: (ag.gelu_exact, tensors((2, 5))),
    "maximum": lambda: (ag.maximum, tensors((2, 3), (3,))),
    "where": lambda: (lambda x, y: ag.where(IDS > 0, x, y), tensors((2, 3), (3,))),
    "clip": lambda: (UNARY["clip"], tensors((2, 7))),
    "sum": lambda: (lambda x: ag.sum(x, axis=1), tensors((2, 3))),
    "mean": lambda: (lambda x: ag.mean(x, axis=(0, 2)), tensors((2, 3, 4))),
    "var": lambda: (lambda x: ag.var(x, axis=-1), tensors((2, 5))),
    "max": lambda: (lambda x: ag.max(x, axis=0), tensors((4, 3))),
    "logsumexp": lambda: (lambda x: ag.logsumexp(x, axis=-1), tensors((2, 5))),
    "transpose": lambda: (lambda x: ag.transpose(x, (1, 2, 0)), tensors((2, 3, 4))),
    "concatenate": lambda: (lambda x, y: ag.concatenate([x, y], axis=1), tensors((2, 3), (2, 1))),
    "stack": lambda: (lambda x, y: ag.stack([x, y], axis=-1), tensors((2, 3), (2, 3))),
    "split": lambda: (lambda x: ag.split(x, [1, 3], axis=1)[1] * ag.split(x, 2, axis=1)[0], tensors((2, 4))),
    "slice": lambda: (lambda x: x[1:, ::-2], tensors((3, 4))),
    "gather": lambda: (lambda x: x[IDS], tensors((3, 2))),
    "broadcast_to": lambda: (lambda x: ag.broadcast_to(x, (4, 2, 3)), tensors((2, 1))),
    "masked_fill": lambda: (lambda x: ag.masked_fill(x, IDS > 1, -7.0), tensors((2, 3))),
    "matmul": lambda: (ag.matmul, tensors((2, 3), (3, 4))),
    "matmul_batched": lambda: (ag.matmul, tensors((2, 1, 3, 2), (4, 2, 3))),
    "matmul_vector": lambda: (ag.matmul, tensors((2, 3, 4), (4,))),
    "linear": lambda: (ag.linear, tensors((2, 3, 4), (4, 2), (2,))),
    "linear_relu": lambda: (
        lambda x, w, b: ag.linear(x, w, b, activation="relu"),
        tensors((2, 4), (4, 3), (3,)),
    ),
    "linear_gelu": lambda: (
        lambda x, w, b: ag.linear(x, w, b, activation="gelu"),
        tensors((2, 4), (4, 3), (3,)),
    ),
    "softmax": lambda: (ag.softmax, tensors((3, 4))),
    "log_softmax": lambda: (ag.log_softmax, tensors((3, 4))),
    "layer_norm": lambda: (ag.layer_norm, tensors((2, 3, 5), (5,), (5,))),
    "cross_entropy": lambda: (lambda x: ag.cross_entropy(x, TARGETS, ignore_index=-1), tensors((2, 3, 4))),
    "linear_cross_entropy": lambda: (
        lambda x, w, b: ag.linear_cross_entropy(x, w, b, TARGETS, ignore_index=-1),
        tensors((2, 3, 5), (5, 4), (4,)),
    ),
    "embedding": lambda: (lambda w: ag.embedding(w, IDS), tensors((3, 2))),
    "dropout": lambda: (lambda x: ag.dropout(x, 0.4, DROPOUT["stream"]), tensors((4, 6))),
    "causal_attention": lambda: (lambda x: ag.causal_attention(x, 2), tensors((2, 4, 12))),
    "causal_attention_blocks": lambda: (lambda x: ag.causal_attention(x, 1), tensors((1, 150, 6))),
    "causal_attention_dropout": lambda: (lambda x: ag.causal_attention(x, 2, **DROPOUT), tensors((2, 4, 12))),
    "causal_attention_steep": lambda: (lambda x: ag.causal_attention(x, 1, scale=60.0), tensors((1, 4, 6))),
}


def check_case(name):
    """Raise unless the operation's gradients are right on its example."""
    function, inputs = CASES[name]()
    check(function, *inputs)
