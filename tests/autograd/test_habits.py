"""What people write with an engine, in autograd and in PyTorch: values, gradients, and what is refused.

To add a row, add a line to a group. A line is an expression of its leaves x, y, ...; const(values) is a
Tensor without a gradient. If PyTorch writes it differently, its form follows after " | ". To add a habit of
several lines, write a function with @habit. See tests/support/habits.py for how they are run.
"""

import copy
import functools
import importlib.util
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor
from tests.support.habits import INF, NAN, Group, Habit, ours

BOTH = ("float32", "float64")
SHAPES = [{"x": s} for s in [(), (0,), (1,), (3,), (2, 3), (2, 1, 3), (2, 0, 3), (2, 3, 1, 2)]]
PAIRS = [
    {"x": a, "y": b}
    for a, b in [
        ((), ()), ((2, 3), ()), ((), (2, 3)), ((3,), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)),
        ((0, 3), (1, 3)),
        ((1,), (2, 0)), ((4, 1, 3), (2, 1)),
    ]
]  # fmt: skip
SPECIAL = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    3.0,
    30.0,
    -30.0,
    100.0,
    -100.0,
    1e-30,
    1e20,
    -1e20,
    INF,
    -INF,
    NAN,
]
SPECIAL_PAIRS = {"x": np.repeat(SPECIAL, len(SPECIAL)), "y": np.tile(SPECIAL, len(SPECIAL))}
TIES = [[1.0, 2.0, 2.0], [3.0, 0.0, 3.0]]

# --- one expression a row -------------------------------------------------------------------------

GROUPS = {
    "elementwise functions over shapes": Group(
        """
        ag.exp(x)
        ag.log(ag.abs(x))
        ag.sqrt(x * x)
        ag.tanh(x)
        ag.sigmoid(x)
        ag.relu(x)
        ag.gelu(x)
        ag.gelu_exact(x)
        ag.negative(x)
        ag.clip(x, -1, 0.5)
        x ** 3
        """,
        SHAPES,
        BOTH,
    ),
    "elementwise functions of special values": Group(
        """
        x.exp()
        x.log()
        x.sqrt()
        x.tanh()
        x.sigmoid()
        x.relu()
        ag.gelu(x)
        ag.gelu_exact(x)
        abs(x)
        -x
        +x
        ag.clip(x, -1.0, 2.0)
        ag.clip(x, low=0.5)
        ag.clip(x, high=0.5)
        ag.clip(x, 2.0, -1.0)
        x ** 2
        x ** 0
        x ** 1
        x ** -1
        x ** 0.5
        x ** 3.0
        2.0 ** x
        0.0 ** x
        1 / x
        x / 0
        x - inf
        x * nan
        ag.log(ag.sigmoid(x))
        ag.sqrt(ag.relu(x))
        ag.where(x == 0, 0.0, x * x + 1)
        ag.where(x > 0, ag.log(x), 0.0)
        """,
        [{"x": [value]} for value in SPECIAL],
        BOTH,
        atol=0.02,
    ),
    "pairs of special values": Group(
        """
        x + y
        x - y
        x * y
        x / y
        ag.maximum(x, y)
        ag.minimum(x, y)
        ag.where(x < y, x, y)
        x == y
        x != y
        x < y
        x <= y
        x > y
        x >= y
        """,
        [SPECIAL_PAIRS],
        BOTH,
        atol=0.0,
    ),
    "powers": Group(
        "x ** y",
        [{"x": [a], "y": [b]} for a in (0.0, 1.0, 0.5, 2.0, -2.0, INF, 1e-30) for b in (0, 1, 2, 3, -1, 0.5)],
        BOTH,
        atol=0.0,
    ),
    "broadcasting": Group(
        """
        x + y
        x - y
        x * y
        x / (y + 3)
        ag.add(x, y)
        ag.subtract(x, y)
        ag.multiply(x, y=y)
        ag.divide(y=y + 3, x=x)
        ag.maximum(x, y)
        ag.minimum(x, y)
        ag.power(ag.abs(x) + 1, y)
        ag.where(x < y, x, y)
        x < y
        x == y
        """,
        PAIRS,
        BOTH,
    ),
    "plain numbers keep the dtype": Group(
        """
        x * 2
        2 * x
        x * 2.5
        x * True
        x + np.float64(2)
        x + np.float32(2)
        x * np.int64(3)
        np.float64(2) * x | 2.0 * x
        np.int64(3) - x | 3 - x
        np.float32(3) / x | 3 / x
        x * np.array([1, 2, 3]) | x * const([1, 2, 3])
        np.array([1, 2, 3]) * x | const([1, 2, 3]) * x
        x * [1, 2, 3] | x * const([1, 2, 3])
        x - np.array([1.5, 2.0, 3.0]) | x - const([1.5, 2, 3])
        np.array([1.5, 2.0, 3.0]) - x | const([1.5, 2, 3]) - x
        x ** np.int64(2) | x ** 2
        x ** [1, 2, 3] | x ** const([1, 2, 3])
        np.float64(2) ** x | 2.0 ** x
        x / np.arange(1, 4) | x / const([1, 2, 3])
        x + np.array(2.0) | x + 2
        ag.add(1, x)
        ag.add(x, np.ones((2, 3))) | x + const(np.ones((2, 3)))
        ag.where(x > 0, x, np.float64(1)) | ag.where(x > 0, x, 1.0)
        ag.where(x > 0, 1, x)
        ag.clip(x, np.float64(-1), np.int64(1)) | ag.clip(x, -1, 1)
        ag.masked_fill(x, [True, False, True], np.float64(3)) | ag.masked_fill(x, [True, False, True], 3)
        ag.layer_norm(x, const(np.ones(3)), eps=np.float64(1e-5))
        x.mean() * np.sqrt(2) | x.mean() * 2 ** 0.5
        """,
        [{"x": (3,)}],
        BOTH,
    ),
    "reductions over axes": Group(
        "\n".join(
            f"ag.{name}(x{arguments})"
            for name in ("sum", "mean", "var", "max", "min", "logsumexp")
            for arguments in (
                "",
                ", 0",
                ", -1",
                ", axis=1",
                ", axis=(0, 1)",
                ", axis=(-1, 0)",
                ", axis=0, keepdims=True",
                ", keepdims=True",
                ", axis=(0, 2), keepdims=True",
                ", 5",
                ", axis=(0, 0)",
                ", axis=-9",
            )
        ),
        [{"x": (2, 3)}, {"x": (2, 3, 4)}, {"x": ()}],
    ),  # fmt: skip
    "reductions in float32, stored by column": Group(
        """
        x.sum(axis=0)
        x.mean(axis=1)
        ag.var(x, axis=(0, 1), ddof=1)
        x.var(axis=0, ddof=1) | x.var(0)
        x.var(axis=0) | x.var(0, correction=0)
        x.max(axis=1) | x.amax(1)
        x.min(axis=1, keepdims=True) | x.amin(1, True)
        x.max()
        ag.softmax(x, axis=0)
        ag.log_softmax(x)
        ag.softmax(x=x, axis=-2)
        """,
        [{"x": (2, 3)}, {"x": (5, 1, 2)}],
        BOTH,
        order="F",
    ),
    "reductions of nothing": Group(
        """
        x.sum()
        x.sum(axis=0)
        x.sum(axis=1)
        x.mean(axis=1)
        x.mean()
        x.max() | x.amax((0, 1))
        x.max(axis=0) | x.amax(0)
        x.min(axis=1) | x.amin(1)
        ag.logsumexp(x, axis=0)
        ag.logsumexp(x, axis=1)
        ag.softmax(x)
        ag.log_softmax(x)
        """,
        [{"x": (0, 3)}],
        BOTH,
    ),
    "reductions of special values and ties": Group(
        """
        ag.max(x, axis=-1)
        ag.min(x, axis=-1)
        ag.max(x)
        ag.sum(x, axis=-1)
        ag.mean(x, axis=0)
        ag.logsumexp(x, axis=-1)
        ag.softmax(x)
        ag.log_softmax(x)
        ag.softmax(ag.masked_fill(x, x > 1, -inf))
        """,
        [
            {"x": TIES},
            {"x": [[1e20, -1e20, 3.0]]},
            {"x": [[NAN, 1.0, 2.0]]},
            {"x": [[1000.0, -1000.0, 999.0]]},
            {"x": [[-INF, 1.0, 2.0]]},
            {"x": [[0.0, 0.0, 0.0]]},
            {"x": [[-104.0, 0.0, 88.0]]},
            {"x": [[INF, 1.0, 0.0]]},
        ],
        BOTH,
    ),  # fmt: skip
    "shapes": Group(
        """
        x.reshape(3, 2)
        x.reshape((3, 2))
        x.reshape([3, 2])
        x.reshape(-1)
        x.reshape(6, -1)
        ag.reshape(x, (1, 6))
        ag.reshape(x, shape=[6])
        x.reshape(4, 2)
        x.reshape(-1, -1)
        x.T
        x.transpose() | x.T
        x.transpose(1, 0)
        x.transpose((1, 0)) | x.permute(1, 0)
        x.transpose([1, 0]) | x.permute(1, 0)
        x.transpose(-1, 0)
        ag.transpose(x)
        ag.transpose(x, (0, 0))
        ag.transpose(x, axes=(1,))
        ag.swapaxes(x, 0, -1)
        x.swapaxes(0, 1)
        x.swapaxes(0, 2)
        ag.expand_dims(x, 0)
        ag.expand_dims(x, -1)
        ag.expand_dims(x, axis=(0, -1))
        ag.expand_dims(x, 4)
        ag.squeeze(ag.expand_dims(x, 1))
        ag.squeeze(ag.expand_dims(x, 1), 1)
        ag.expand_dims(x, 0).squeeze(axis=0)
        ag.broadcast_to(x, (4, 2, 3))
        ag.broadcast_to(x, (3, 3))
        ag.broadcast_to(x[0], (2, 3))
        ag.concatenate([x, x * 2])
        ag.concatenate([x, x[:, :1]], axis=1)
        ag.concatenate((x, x), axis=-1)
        ag.concatenate([x])
        ag.concatenate([])
        ag.concatenate([x, x[0]])
        ag.concatenate([x, x], axis=2)
        ag.stack([x, x * 2])
        ag.stack([x, x], axis=-1)
        ag.stack([x, x], axis=1)
        ag.stack([x[0], x[1, :2]])
        ag.stack([])
        ag.split(x, 3, axis=1)
        ag.split(x, [1], axis=1)
        ag.split(x, (1, 2), axis=-1)
        ag.split(x, 2)
        ag.split(x, 2, axis=2)
        ag.tril(x)
        ag.tril(x, 1)
        ag.tril(x, k=-1)
        ag.tril(x[0])
        ag.masked_fill(x, x > 0, 5)
        ag.masked_fill(x, [True, False, True], -1.5)
        ag.masked_fill(x, mask=np.array([[True], [False]]), value=0)
        ag.masked_fill(x, [True, False], 0)
        ag.masked_fill(x[0], np.ones((2, 3), bool), 0)
        ag.masked_fill(x, [1, 0, 1], 0)
        ag.where([1, 0, 1], x, 0.0)
        ag.where([True, False], x, 0.0)
        x.to("cpu")
        ag.to(x, device="cpu")
        x.to("nowhere")
        x.astype("float32") | x.float()
        x.astype(np.float64) | x.double()
        ag.astype(x, dtype=np.float32)
        x.astype(int) | x.to(__import__("torch").nothing)
        """,
        [{"x": (2, 3)}],
        BOTH,
    ),
    "indices": Group(
        """
        x[0]
        x[-1]
        x[1, 2]
        x[..., 0]
        x[:, None]
        x[None]
        x[1:]
        x[:, ::2]
        x[:, 1:-1]
        x[...]
        x[()]
        x[2:1]
        x[np.int64(1)]
        x[True]
        x[False]
        x[[0, 1, 1]]
        x[[0, 2], [1, 1]]
        x[(0, 0), (1, 1)]
        x[[0, 0]]
        x[[]]
        x[[[0, 1], [1, 0]]]
        x[[-1, -3]]
        x[np.array([0, 2, 2])]
        x[np.array([[0, 1]]), :2]
        x[:, [0, 3]]
        x[:, [0, 0, 3]]
        x[[0, 1], None]
        x[range(2)] | x[[0, 1]]
        x[np.arange(3) > 0]
        x[[True, False, True]]
        x[np.array([[True] * 4, [False] * 4, [True] * 4])]
        x[:, np.array([True, False, True, True])]
        x[x.detach() > 0]
        x[x > 0]
        x[x == 0]
        x[3]
        x[-4]
        x[0, 0, 0]
        x[[0, 3]]
        x[1.0]
        x[[0.5]]
        x["a"]
        x[[True, False]]
        x[0][1]
        ag.getitem(x, index=(slice(None), 1))
        list(x)
        len(x)
        [row.sum() for row in x]
        sum(x)
        """,
        [{"x": (3, 4)}],
        BOTH,
    ),
    "matrix products": Group(
        """
        x @ y
        ag.matmul(x, y)
        ag.matmul(x, y=y)
        """,
        [
            {"x": a, "y": b}
            for a, b in [
                ((2, 3), (3, 4)),
                ((3,), (3,)),
                ((2, 3), (3,)),
                ((3,), (3, 2)),
                ((5, 2, 3), (3, 4)),
                ((5, 1, 2, 3), (4, 3, 2)),
                ((2, 0), (0, 3)),
                ((0, 3), (3, 2)),
                ((2, 3), (2, 3)),
                ((), (3,)),
                ((3,), ()),
                ((4, 2, 3), (3,)),
                ((3,), (4, 3, 2)),
                ((2, 2, 3), (4, 3, 2)),
            ]
        ],
        BOTH,
    ),  # fmt: skip
    "matrix products with lists and arrays": Group(
        """
        x @ [1.0, 2.0, 3.0] | x @ const([1, 2, 3])
        x @ np.ones((3, 2)) | x @ const(np.ones((3, 2)))
        np.ones((4, 2)) @ x | const(np.ones((4, 2))) @ x
        [[1, 2]] @ x | const([[1, 2]]) @ x
        x @ 2
        2 @ x
        x @ x.T
        x @ x
        """,
        [{"x": (2, 3)}],
        BOTH,
        order="F",
    ),
    "linear": Group(
        """
        ag.linear(x, w)
        ag.linear(x, w, b)
        ag.linear(x, weight=w, bias=b)
        ag.linear(x, w, None, "relu")
        ag.linear(x, w, b, "gelu")
        ag.linear(x, w, b, activation="gelu_exact")
        ag.linear(x, w, b, "swish")
        ag.linear(x, w.T, b)
        ag.linear(x, w, b[:2])
        """,
        [
            {"x": s, "w": (3, 4), "b": (4,)}
            for s in [(3,), (2, 3), (2, 5, 3), (0, 3), (2, 2, 2, 3), (2, 4), ()]
        ],
        BOTH,
    ),
    "layer norm": Group(
        """
        ag.layer_norm(x, w, b)
        ag.layer_norm(x, w)
        ag.layer_norm(x, w, bias=b)
        ag.layer_norm(x, weight=w, bias=b, eps=1e-3)
        ag.layer_norm(x, w[:2], b)
        """,
        [{"x": s, "w": (3,), "b": (3,)} for s in [(3,), (2, 3), (2, 5, 3), (0, 3), (2, 2, 2, 3)]],
        BOTH,
        atol=10.0,
    ),
    "layer norm far from 0": Group(
        "ag.layer_norm(x, w, b)",
        [
            {"x": np.full((2, 768), 100.1), "w": np.linspace(0.5, 2, 768), "b": np.linspace(-1, 1, 768)},
            {"x": [[0.0, 0.0, 0.0]], "w": [1.0, 2.0, 3.0], "b": [0.0, 0.0, 1.0]},
            {"x": [[1e-5, 2e-5, -1e-5]], "w": [1.0, 2.0, 3.0], "b": [0.0, 0.0, 1.0]},
            {"x": [[16000.3 + np.sin(i) for i in range(768)]], "w": [1.0] * 768, "b": [0.0] * 768},
        ],
        BOTH,
        atol=100.0,
    ),
    "softmax over shapes": Group(
        """
        ag.softmax(x)
        ag.log_softmax(x)
        ag.softmax(x, 0)
        ag.log_softmax(x, axis=0)
        ag.softmax(x, 7)
        """,
        [{"x": s} for s in [(3,), (2, 3), (2, 1, 3), (2, 3, 1, 2), (0, 3), (2, 0, 3)]],
        BOTH,
    ),
    "cross entropy": Group(
        """
        ag.cross_entropy(x, np.array([1, 0, 4, 2]))
        ag.cross_entropy(x, [1, 0, 4, 2])
        ag.cross_entropy(x, (1, 0, 4, 2))
        ag.cross_entropy(x, targets=np.array([1, 0, 4, 2], np.int32).astype(np.int64))
        ag.cross_entropy(x, [1, -1, 4, 2], ignore_index=-1)
        ag.cross_entropy(x, [1, 3, 4, 2], 3)
        ag.cross_entropy(x, [-1, -1, -1, -1], ignore_index=-1)
        ag.cross_entropy(x, [1, 0, 5, 2])
        ag.cross_entropy(x, [1, 0, -1, 2])
        ag.cross_entropy(x, [2])
        ag.cross_entropy(x, 2)
        ag.cross_entropy(x, [[1], [0], [4], [2]])
        ag.cross_entropy(x, [1, 0, 4, 2, 1])
        ag.cross_entropy(x[0], 3)
        ag.cross_entropy(x.reshape(2, 2, 5), [[1, 0], [4, 2]])
        ag.cross_entropy(x.reshape(2, 2, 5), [1, 0, 4, 2])
        ag.cross_entropy(x[:0], np.zeros(0, int))
        ag.cross_entropy(x * 1000, [1, 0, 4, 2])
        ag.cross_entropy(ag.masked_fill(x, x > 1, -inf), [2, 2, 2, 2])
        """,
        [{"x": [[0.5, -1.0, 0.3, 1.5, 0.1], [0, 0, 0, 0, 0], [1, 2, -0.3, 0.4, 0.5], [-2, -1, 0, 1, 2]]}],
        BOTH,
    ),
    "the head of a language model": Group(
        """
        ag.linear_cross_entropy(x, w, b, [1, 0])
        ag.linear_cross_entropy(x, w, None, [1, 0])
        ag.linear_cross_entropy(x, w, targets=[1, 0])
        ag.linear_cross_entropy(x, w, bias=b, targets=[1, 0], ignore_index=0)
        ag.linear_cross_entropy(x, w, b, [-1, -1], ignore_index=-1)
        ag.linear_cross_entropy(x, w, b + const([0, -inf, 0, 0]), [0, -1], -1)
        ag.linear_cross_entropy(x, w, b, [1])
        ag.linear_cross_entropy(x, w, b, [1, 4])
        ag.linear_cross_entropy(x, w.T, b, [1, 0])
        """,
        [{"x": (2, 3), "w": (3, 4), "b": (4,)}],
        BOTH,
    ),
    "embedding": Group(
        """
        ag.embedding(x, np.array([0, 2, 2]))
        ag.embedding(x, [0, 2, 2])
        ag.embedding(x, ids=[[0, 1], [1, 3]])
        ag.embedding(x, 2)
        ag.embedding(x, np.zeros((2, 0), int))
        ag.embedding(x, [4])
        ag.embedding(x, [-1])
        ag.embedding(x, [0.5])
        """,
        [{"x": (4, 3)}],
        BOTH,
    ),
    "causal attention": Group(
        """
        ag.causal_attention(x, 1)
        ag.causal_attention(x, n_head=2)
        ag.causal_attention(x, 2, scale=0.3)
        ag.causal_attention(x, 4, 1.0)
        ag.causal_attention(x, 3)
        """,
        [{"x": s} for s in [(1, 1, 12), (2, 5, 12), (1, 3, 24)]],
        BOTH,
        atol=10.0,
    ),
    "dropout that keeps or drops all": Group(
        """
        ag.dropout(x, 0, ag.Stream(0)) | ag.dropout(x, 0, None)
        ag.dropout(x, 0.0, stream=ag.Stream(0)) | ag.dropout(x, 0.0, None)
        ag.dropout(x, p=1.0, stream=ag.Stream(0)) | ag.dropout(x, 1.0, None)
        ag.dropout(x, 1, ag.Stream(0)) | ag.dropout(x, 1, None)
        ag.dropout(x, -0.1, ag.Stream(0)) | ag.dropout(x, -0.1, None)
        ag.dropout(x, 1.5, ag.Stream(0)) | ag.dropout(x, 1.5, None)
        """,
        [{"x": (2, 3)}, {"x": (3,)}],
        BOTH,
    ),
    "one number as Python's": Group(
        """
        float(x)
        int(x)
        bool(x)
        x.item()
        round(float(x), 1)
        f"{x.item():.3f}"
        f"{x.detach():.2f}"
        1 if x else 2
        not x
        x.shape
        x.ndim
        """,
        [{"x": 1.5}, {"x": 0.0}, {"x": [2.5]}, {"x": [[-3.75]]}, {"x": NAN}],
        BOTH,
    ),
    "Python's protocols": Group(
        """
        bool(x)
        float(x)
        int(x)
        x.item()
        len(x)
        f"{x.detach():.2f}"
        3.0 in x
        1.25 in x
        sum([x, x * 2])
        sum([x, x * 2], 1.0)
        [a * 2 for a in x]
        x == None
        x != None
        x == "a"
        x < "a"
        x < None
        hash(x) == hash(x)
        x is x
        x[0] == 3.0
        max(x[0], x[1])
        sorted([x[1], x[0]])
        list(map(float, x))
        [*x]
        dict(a=x)["a"]
        (x > 1) & (x < 2)
        (x > 1).any()
        (x > 1).all()
        ~(x > 1)
        (x > 1).sum()
        1 < x
        x >= 1
        np.float64(1) < x | 1 < x
        x == [1.25, 3.0] | x == const([1.25, 3.0])
        x % 1
        x // 1
        x[0] + True
        x + "a"
        x + None
        x * {}
        divmod(x, 2)
        """,
        [{"x": [1.25, 3.0]}, {"x": 3.0}],
        BOTH,
    ),
    "numbers without a Tensor": Group(
        """
        ag.exp(1.0)
        ag.add(1, 2) | ag.add(1, 2)
        ag.sum(ag.stack([x, x]))
        ag.multiply(x=x, y=x)
        ag.multiply(x)
        ag.multiply(x, x, x)
        ag.exp()
        ag.softmax(x=x)
        ag.sum(x, axis="rows")
        ag.sum(x, axis=0.5)
        """,
        [{"x": 2.0}],
    ),
}


# --- habits of several lines ----------------------------------------------------------------------

HABITS = []


def habit(known=None, refused="", alone=False, **variants):
    """Add a function of ag. known: what it gives. refused: a part of the error's text instead.

    variants: values=[...] of one more argument makes a habit for each of them. alone: PyTorch has no such
    thing.
    """

    def add(function):
        if not variants:
            HABITS.append(Habit(function.__name__, function, known, refused, alone))
        for argument, values in variants.items():
            for value in values:
                call = functools.partial(function, **{argument: value})
                shown = getattr(value, "__name__", value)
                HABITS.append(Habit(f"{function.__name__}({argument}={shown})", call, known, refused, alone))
        return function

    return add


def descend(ag, between=lambda ag, w, optimizer: optimizer.zero_grad(), steps=30, **settings):
    """w = 1 after steps of AdamW on w²."""
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w], **dict(lr=0.1) | settings)
    for _ in range(steps):
        between(ag, w, optimizer)
        (w * w).sum().backward()
        optimizer.step()
    return w


DESCENDED = [-0.0303651250]


@habit(known=DESCENDED)
def adamw_with_zero_grad(ag):
    return descend(ag)


@habit(known=DESCENDED)
def adamw_with_grad_set_to_none(ag):
    return descend(ag, lambda ag, w, optimizer: setattr(w, "grad", None))


@habit()
def adamw_without_zero_grad(ag):
    return descend(ag, lambda ag, w, optimizer: None)


@habit(known=DESCENDED)
def adamw_with_data_replaced(ag):
    def replace(ag, w, optimizer):
        optimizer.zero_grad()
        w.data = w.data * 1.0

    return descend(ag, replace)


@habit()
def adamw_with_gradients_replaced(ag):
    w = ag.leaf([1.0, -3.0])
    optimizer = ag.AdamW([w], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (w * w).sum().backward()
        w.grad = w.grad.clip(-1, 1)
        optimizer.step()
    return w, w.grad


@habit()
def weights_loaded_after_adamw_was_made(ag):
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w], lr=0.1)
    w.data = ag.array([5.0])
    (w * w).sum().backward()
    optimizer.step()
    return w


@habit()
def weights_loaded_in_place(ag):
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w], lr=0.1)
    w.data[...] = ag.array([5.0])
    (w * w).sum().backward()
    optimizer.step()
    return w


@habit()
def two_optimizers_of_one_parameter(ag):
    w = ag.leaf([1.0])
    for optimizer in [ag.AdamW([w], lr=0.1), ag.AdamW([w], lr=0.01), ag.AdamW([w], lr=0.1)] * 2:
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
    return w


@habit(again=[copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def a_copy_of_parameters_and_optimizer(ag, again):
    w = ag.leaf([1.0, 2.0])
    optimizer = ag.AdamW([w], lr=0.1)
    ends = []
    for w, optimizer in [(w, optimizer), again((w, optimizer))]:  # noqa: B020
        for _ in range(3):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()
        ends.append(w)
    return ends


@habit(known=[[0.899], [1.0], None])
def a_parameter_that_the_loss_does_not_use(ag):
    used, unused = ag.leaf([1.0]), ag.leaf([1.0])
    optimizer = ag.AdamW([used, unused], lr=0.1)
    (used * used).sum().backward()
    optimizer.step()
    return used, unused, unused.grad


@habit()
def a_parameter_that_is_used_later(ag):
    used, late = ag.leaf([1.0]), ag.leaf([1.0])
    optimizer = ag.AdamW([used, late], lr=0.1)
    for step in range(4):
        optimizer.zero_grad()
        (used * used + late * step if step > 1 else used * used).sum().backward()
        optimizer.step()
    return used, late


@habit(known=[[2.0], [0.899]])
def gradients_from_before_adamw_was_made(ag):
    w = ag.leaf([1.0])
    (w * w).sum().backward()
    optimizer = ag.AdamW([w], lr=0.1)
    before = w.grad.tolist()
    optimizer.step()
    return before, w


@habit()
def groups_with_settings_of_their_own(ag):
    a, b, c = ag.leaf([1.0, 2.0]), ag.leaf([3.0]), ag.leaf(4.0)
    groups = [dict(params=[a], lr=0.1), dict(params=[b, c], weight_decay=0.0, betas=(0.5, 0.9), eps=1e-3)]
    optimizer = ag.AdamW(groups, lr=0.2, weight_decay=0.3)
    for _ in range(3):
        optimizer.zero_grad()
        ((a * a).sum() * b * c).sum().backward()
        optimizer.step()
    return a, b, c


@habit(refused="at least 0", name=["lr", "weight_decay", "eps"])
def settings_that_are_negative(ag, name):
    return ag.AdamW([ag.leaf([1.0])], **{name: -0.1})


@habit(refused="betas", betas=[(1.0, 0.9), (0.9, -0.1), (0.9, 1.0)])
def betas_out_of_range(ag, betas):
    return ag.AdamW([ag.leaf([1.0])], betas=betas)


@habit(refused="leaves")
def adamw_of_a_result(ag):
    return ag.AdamW([ag.leaf([1.0]) * 2])


@habit(refused="TypeError")
def adamw_of_a_bare_tensor(ag):
    return ag.AdamW(ag.leaf([1.0]))


@habit(refused="no parameters")
def adamw_of_nothing(ag):
    return ag.AdamW([])


@habit(refused="twice")
def adamw_of_the_same_parameter_in_two_groups(ag):
    w = ag.leaf([1.0])
    return ag.AdamW([{"params": [w]}, {"params": [w]}])


@habit(refused="twice")
def adamw_of_the_same_parameter_in_one_group(ag):
    w = ag.leaf([1.0])
    return bool(ag.AdamW([w, w]))


@habit(refused="TypeError")
def adamw_of_two_dtypes(ag):
    return bool(ag.AdamW([ag.leaf([1.0]), ag.leaf([1.0], "float32")]))


@habit()
def adamw_of_a_generator(ag):
    w = [ag.leaf([1.0]), ag.leaf([2.0])]
    optimizer = ag.AdamW((p for p in w), lr=0.1)
    (w[0] * w[1]).sum().backward()
    optimizer.step()
    return w


@habit(kind=["float32", "float64"])
def a_learning_rate_that_changes(ag, kind):
    w = ag.leaf([1.0, -2.0], kind)
    optimizer = ag.AdamW([w], lr=0.1)
    for step in range(4):
        if step == 2:
            (optimizer.groups if hasattr(optimizer, "groups") else optimizer.param_groups)[0]["lr"] = 0.01
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
    return w


@habit(known=[5.0, [0.6, 0.8], None], max_norm=[1.0, 1])
def clip_grad_norm(ag, max_norm):
    w, unused = ag.leaf([1.0, 1.0]), ag.leaf([1.0])
    (w * ag.const([3.0, 4.0])).sum().backward()
    return ag.clip_grad_norm([w, unused], max_norm), w.grad, unused.grad


@habit(known=[5.0, [3.0, 4.0]])
def clip_grad_norm_that_need_not(ag):
    w = ag.leaf([1.0, 1.0])
    (w * ag.const([3.0, 4.0])).sum().backward()
    return ag.clip_grad_norm(w, 100.0), w.grad


@habit()
def clip_grad_norm_of_several_shapes(ag):
    a, b = ag.leaf([[1.0, 2.0]]), ag.leaf(3.0)
    (a * a * b).sum().backward()
    return ag.clip_grad_norm((p for p in (a, b)), 0.5), a.grad, b.grad


@habit()
def clip_grad_norm_of_no_gradients(ag):
    return float(ag.clip_grad_norm([ag.leaf([1.0])], 1.0))


# --- in place -------------------------------------------------------------------------------------


@habit(known=[[0.64, -1.28], 0])
def gradient_descent_under_no_grad(ag):
    p = w = ag.leaf([1.0, -2.0])
    for _ in range(2):
        (p * p).sum().backward()
        with ag.no_grad():
            p -= 0.1 * p.grad
        p.grad = None
    return p, 0 if p is w else 1


@habit(known=[[1.0], [2.0], [0.5], [9.0]])
def every_operator_in_place_under_no_grad(ag):
    a, b, c, d = ag.leaf([0.0]), ag.leaf([1.0]), ag.leaf([1.0]), ag.leaf([3.0])
    with ag.no_grad():
        a += 1
        b *= 2.0
        c /= 2
        d **= 2
    return a, b, c, d


@habit(refused="no_grad")
def a_leaf_changed_in_place_while_recording(ag):
    w = ag.leaf([1.0])
    w += 1
    return w


@habit(known=[[6.0], [2.0]])
def a_result_changed_in_place(ag):
    w = ag.leaf([2.0])
    y = w * 1.0
    y += 1
    y *= 2
    y.sum().backward()
    return y, w.grad


@habit(known=[3.0, [1.0, 1.0]])
def a_sum_that_is_added_up(ag):
    w = ag.leaf([1.0, 2.0])
    total = 0
    for part in w:
        total += part
    total.backward()
    return total, w.grad


@habit(known=[[1.0, 2.0]])
def a_sum_that_begins_with_a_constant(ag):
    w, total = ag.leaf([1.0, 2.0]), ag.const(0.0)
    for part in w:
        total += part * part / 2
    total.backward()
    return (w.grad,)


@habit(refused="changed in place")
def a_leaf_changed_between_forward_and_backward(ag):
    w = ag.leaf([1.0])
    loss = (w * w).sum()
    with ag.no_grad():
        w += 1
    loss.backward()
    return w.grad


@habit(refused="changed in place")
def an_optimizer_step_between_forward_and_backward(ag):
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w])
    (w * w).sum().backward()
    loss = (w * w).sum()
    optimizer.step()
    loss.backward()
    return w.grad


@habit(refused="changed in place")
def an_optimizer_step_before_the_backward_of_a_sum(ag):
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w])
    loss = (w + 1).sum()
    loss.backward(retain_graph=True)
    optimizer.step()
    loss.backward()
    return w.grad


# --- backward -------------------------------------------------------------------------------------


@habit(known=[[1.0, 3.0], [2.0, 4.0]], activation=["relu", "gelu", None])
def a_one_hot_gradient_that_is_refilled(ag, activation):
    """The Jacobian's rows, with one buffer."""
    x, w = ag.leaf([[10.0, 20.0]]), ag.leaf([[1.0, 2.0], [3.0, 4.0]])
    y = ag.linear(x, w, None, activation)
    buffer, rows = ag.array([[0.0, 0.0]]), []
    for i in range(2):
        buffer[...] = 0
        buffer[0, i] = 1
        x.grad = None
        y.backward(buffer, retain_graph=True)
        rows.append(x.grad[0].tolist())
    return rows


@habit(known=[[4.0, 12.0]])
def backward_twice_with_retain_graph(ag):
    w = ag.leaf([1.0, 3.0])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return (w.grad,)


@habit(refused="freed")
def backward_twice(ag):
    w = ag.leaf([1.0, 3.0])
    loss = (w * w).sum()
    loss.backward()
    loss.backward()
    return w.grad


@habit(refused="freed")
def backward_over_a_shared_part_twice(ag):
    w = ag.leaf([1.0, 3.0])
    shared = w * w
    (shared * 2).sum().backward()
    (shared * 3).sum().backward()
    return w.grad


@habit(known=[[2.0, 6.0]])
def gradients_add_up(ag):
    w = ag.leaf([1.0, 3.0])
    for _ in range(2):
        (w * w / 2).sum().backward()
    return (w.grad,)


@habit(refused="upstream gradient")
def backward_of_several_elements(ag):
    (ag.leaf([1.0, 2.0]) * 2).backward()


@habit(known=[[[6.0]]])
def backward_of_one_element(ag):
    w = ag.leaf([[3.0]])
    (w * w).backward()
    return (w.grad,)


@habit(refused="ValueError")
def backward_with_a_gradient_of_another_shape(ag):
    (ag.leaf([1.0, 2.0]) * 2).backward(ag.array([1.0]))


@habit(known=[[2.0, 20.0]])
def backward_by_keyword(ag):
    w = ag.leaf([1.0, 2.0])
    (w * 2).backward(gradient=ag.array([1.0, 10.0]))
    return (w.grad,)


@habit(known=[[2.0, 20.0]])
def backward_with_a_tensor(ag):
    w = ag.leaf([1.0, 2.0])
    (w * 2).backward(ag.const([1.0, 10.0]))
    return (w.grad,)


@habit(known=[[5.0]])
def backward_of_a_leaf(ag):
    w = ag.leaf([1.0])
    w.backward(ag.array([5.0]))
    return (w.grad,)


@habit(refused="nothing to differentiate")
def backward_of_a_constant(ag):
    ag.const([1.0]).sum().backward()


@habit(refused="nothing to differentiate")
def backward_under_no_grad(ag):
    with ag.no_grad():
        loss = ag.leaf([1.0]).sum()
    loss.backward()


@habit(known=[[3.0]])
def backward_called_under_no_grad(ag):
    w = ag.leaf([1.0])
    loss = (w * 3).sum()
    with ag.no_grad():
        loss.backward()
    return (w.grad,)


@habit(known=[None])
def gradients_of_results_are_not_kept(ag):
    w = ag.leaf([1.0])
    y = w * 2
    y.sum().backward()
    return (y.grad,)


@habit(known=[[1.0, 2.0], [2.0, 4.0]])
def a_gradient_belongs_to_its_leaf_alone(ag):
    x, y = ag.leaf([1.0, 2.0]), ag.leaf([3.0, 4.0])
    upstream = ag.array([1.0, 2.0])
    (x + y).backward(upstream)
    y.grad *= 2
    return x.grad, y.grad


@habit(known=[[1.0, 2.0], [3.0, 4.0]])
def the_gradient_handed_in_stays_as_it_is(ag):
    x, upstream = ag.leaf([1.0, 2.0]), ag.array([1.0, 2.0])
    for _ in range(2):
        (x + x * 0.5).backward(upstream)
    return upstream, x.grad * ag.array([1.0, 2 / 3])


# --- detach, copies, switches ---------------------------------------------------------------------


@habit(known=[[6.0], False])
def detach(ag):
    w = ag.leaf([2.0])
    d = w.detach()
    (w * d * 3).sum().backward()
    return w.grad, d.requires_grad


@habit(known=[[7.0], [2.0]])
def a_detached_tensor_keeps_its_values(ag):
    """The other one's array is not changed in place. PyTorch would change both."""
    w = ag.leaf([2.0]) * 1.0
    d = w.detach()
    w += 5
    return w, d


@habit(known=[False, False, True], form=["with", "decorator", "bare decorator", "nested"])
def no_grad(ag, form):
    w = ag.leaf([1.0])
    double = lambda: w * 2
    if form == "with":
        with ag.no_grad():
            y, z = double(), double()
    elif form == "decorator":
        y, z = ag.no_grad()(double)(), ag.no_grad()(double)()
    elif form == "bare decorator":
        y, z = ag.no_grad(double)(), ag.no_grad(double)()
    else:
        with ag.no_grad():
            with ag.no_grad():
                y = double()
            z = double()
    return y.requires_grad, z.requires_grad, double().requires_grad


@habit(known=[[False, False], [True, True]])
def no_grad_on_a_generator(ag):
    w = ag.leaf([1.0])

    @ag.no_grad()
    def doubles():
        for _ in range(2):
            yield w * 2

    inside, outside = [], []
    for y in doubles():
        inside.append(y.requires_grad)
        outside.append((w * 2).requires_grad)
    return inside, outside


@habit(known=[True, False])
def no_grad_is_over_after_an_error(ag):
    w = ag.leaf([1.0])
    try:
        with ag.no_grad():
            inside = (w * 2).requires_grad
            raise KeyError
    except KeyError:
        return (w * 2).requires_grad, inside


@habit(again=[copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def a_copy_of_a_leaf(ag, again):
    w = ag.leaf([1.0, 2.0])
    (w * w).sum().backward()
    twin = again(w)
    (twin * 3).sum().backward()
    return twin, twin.requires_grad, w.grad


@habit(refused="leaves")
def a_deepcopy_of_a_result(ag):
    return copy.deepcopy(ag.leaf([1.0]) * 2)


@habit(known=[[[3.0, 4.0], [1.0, 2.0]]])
def unpacking(ag):
    w = ag.leaf([[1.0, 2.0], [3.0, 4.0]])
    a, b = w
    (a * b).sum().backward()
    return (w.grad,)


@habit(known=[[4.0, 2.0]])
def sum_of_a_list(ag):
    w = ag.leaf([1.0, 2.0])
    sum([w[0] * 2, w[0] * 2, w[1] * 2]).backward()
    return (w.grad,)


@habit(known=[[[2.0, 0.0], [0.0, 0.0]]])
def an_entry_that_is_taken_twice(ag):
    x = ag.leaf([[1.0, 2.0], [3.0, 4.0]])
    x[(0, 0), (0, 0)].sum().backward()
    return (x.grad,)


@habit(known=[[[0.0, 2.0], [0.0, 0.0]]])
def an_entry_that_is_taken_twice_by_tuples(ag):
    x = ag.leaf([[1.0, 2.0], [3.0, 4.0]])
    x[(0, 0), (1, 1)].sum().backward()
    return (x.grad,)


@habit(known=[[0.0, 5.0], [0.0, 4.0]])
def where_with_an_equality(ag):
    x = ag.leaf([0.0, 2.0])
    y = ag.where(x == 0, 0.0, x * x + 1)
    y.sum().backward()
    return y, x.grad


@habit(known=[20.0, -1.0])
def minus_log_of_a_small_sigmoid(ag):
    x = ag.leaf(-20.0, "float32")
    loss = -ag.log(ag.sigmoid(x))
    loss.backward()
    return loss, x.grad


@habit(known=[-1e-20, 0.0])
def the_gradient_of_a_quotient_at_extreme_values(ag):
    grads = []
    for values in [(1e20, 1e20), (0.0, 1e-30)]:
        x, y = (ag.leaf(value, "float32") for value in values)
        (x / y).backward()
        grads.append(y.grad)
    return grads


@habit(known=[0.0, 0.0])
def layer_norm_of_a_constant(ag):
    x, ones = ag.leaf([[100.1] * 768], "float32"), ag.const([1.0] * 768, "float32")
    y = ag.layer_norm(x, ones, ones * 0)
    (y * y).sum().backward()
    return float(abs(y).max()), float(abs(x.grad).max())


@habit(known=[NAN, [[0.0, 0.0]]])
def all_targets_ignored(ag):
    x = ag.leaf([[1.0, 2.0]])
    loss = ag.cross_entropy(x, [-1], ignore_index=-1)
    loss.backward()
    return loss, x.grad


@habit(known=[NAN, [[0.0, 0.0]]])
def all_targets_of_a_head_ignored(ag):
    x, w = ag.leaf([[1.0, 2.0]]), ag.leaf([[1.0, 2.0], [3.0, 4.0]])
    loss = ag.linear_cross_entropy(x, w, None, [-1], ignore_index=-1)
    loss.backward()
    return loss, x.grad


# --- checkpoint -----------------------------------------------------------------------------------


@habit(known=[[4.0, 12.0], [1.0, 9.0]])
def checkpoint(ag):
    x, w = ag.leaf([1.0, 3.0]), ag.leaf([2.0, 2.0])
    y = ag.checkpoint(lambda x: x * x * w, x)
    y.sum().backward()
    return x.grad, w.grad


@habit(known=[[4.0, 12.0]])
def backward_of_a_checkpoint_under_no_grad(ag):
    x = ag.leaf([1.0, 3.0])
    y = ag.checkpoint(lambda x: x * x * 2, x).sum()
    with ag.no_grad():
        y.backward()
    return (x.grad,)


@habit(known=[[8.0]])
def checkpoint_inside_checkpoint(ag):
    x = ag.leaf([2.0])
    inner = lambda x: ag.checkpoint(lambda x: x * x, x)
    ag.checkpoint(lambda x: inner(x) * 2, x).sum().backward()
    return (x.grad,)


@habit(known=[[[1.0, 2.0]], False])
def checkpoint_under_no_grad(ag):
    x = ag.leaf([[1.0, 2.0]])
    with ag.no_grad():
        y = ag.checkpoint(lambda x: x * 1.0, x)
    return y, y.requires_grad


@habit()
def training_through_a_checkpoint(ag):
    w = ag.leaf([1.0])
    optimizer = ag.AdamW([w], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        ag.checkpoint(lambda x: (x * w).sum(), w * 2).backward()
        optimizer.step()
    return w


@habit(known=[True])
def gradcheck_leaves_gradients_alone(ag):
    w = ag.leaf([1.0, 2.0])
    (w * w).sum().backward()
    before = w.grad
    ag.gradcheck(lambda w: w * w, w) if isinstance(w, Tensor) else None
    return (w.grad is before,)


@habit(values=[None, "3", 1j, [None], ["a"], [1j]], refused="real numbers")
def tensors_of_what_is_no_number(ag, values):
    return ag.Tensor(values)


@habit(refused="stack")
def a_tensor_of_a_list_of_tensors(ag):
    a, b = ag.leaf(1.0), ag.leaf(2.0)
    return ag.Tensor([a * a, b * b])


@habit(refused=".numpy()", alone=True, function=[np.sum, np.mean, np.stack, np.asarray])
def numpy_functions_of_a_tensor(ag, function):
    return function(ag.leaf([1.0, 2.0]))


@habit(known=[[[0.0, 0.0]], 1.0], alone=True)
def a_head_whose_bias_is_minus_infinity_with_ignored_rows(ag):
    """As in the composed form."""
    ends = []
    for fused in (True, False):
        x, w = ag.leaf([[1.0, 2.0], [3.0, 4.0]]), ag.const([[1.0, 2.0], [3.0, 5.0]])
        bias = ag.const([0.0, -INF])
        if fused:
            loss = ag.linear_cross_entropy(x, w, bias, [0, -1], -1)
        else:
            loss = ag.cross_entropy(ag.linear(x, w, bias), [0, -1], -1)
        loss.backward()
        ends.append([loss.item(), x.grad.tolist()])
    return ends[0][1][1:], float(ends[0] == ends[1])


@habit(known=["float32"] * 10, alone=True)
def float32_stays_float32(ag):
    x = ag.leaf([1.0, 2.0, 3.0], "float32")
    ones = ag.const(np.ones(3), "float32")
    results = [
        x * np.array([1, 2, 3]),
        x * [1, 2, 3],
        x + np.int64(2),
        np.float64(2) * x,
        x - np.ones(3),
        x**2,
        ag.where(x > 0, np.ones(3), x),
        ag.layer_norm(x, ones, eps=np.float64(1e-5)),
        ag.clip(x, np.float64(0), np.int64(2)),
    ]
    for y in results:
        y.sum().backward()
    return [str(y.dtype) for y in results] + [str(x.grad.dtype)]


@habit(known=[[[1.0, 2.0]], [0.5, 0.5], [2.0, 6.0]], alone=True)
def inputs_by_keyword(ag):
    x, ones, zeros = ag.leaf([[1.0, 2.0]]), ag.const([1.0, 1.0]), ag.const([0.0, 0.0])
    y = ag.linear(x, weight=np.eye(2), bias=zeros)
    ag.layer_norm(x, ones, bias=zeros)
    return y, ag.softmax(x=zeros), ag.multiply(x[0], y=ag.const([2.0, 3.0]))


@habit(known=[[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]], alone=True)
def dropout_of_all_and_of_nothing(ag):
    x = ag.leaf([1.0, 2.0])
    y = ag.dropout(x, 1.0, ag.Stream(0))
    y.sum().backward()
    return y, x.grad, ag.dropout(x, 0.0, ag.Stream(0))


@habit(refused="must be a number from 0 to 1", alone=True, p=[-0.1, 1.1, NAN, "0.5"])
def dropout_with_another_p(ag, p):
    return ag.dropout(ag.leaf([1.0, 2.0]), p, ag.Stream(0))


@habit(refused="ValueError", alone=True, p=[0.001, 0.9995])
def dropout_with_a_p_that_a_byte_cannot_tell(ag, p):
    return ag.dropout(ag.leaf([1.0, 2.0]), p, ag.Stream(0))


@habit(known=[0.1, 1.0, 0.55, 0.1], alone=True)
def schedules(ag):
    warmup = ag.warmup_cosine(1.0, 10, 110, 0.1)
    return ag.constant(0.1)(7), warmup(9), warmup(60), warmup(200)


@habit(known=[[3.0, 12.0]])
def an_operation_of_ones_own(ag):
    x = ag.leaf([1.0, 2.0])
    if isinstance(x, Tensor):
        ag.op(lambda x: (x**3, lambda g: g * 3 * x**2))(x).sum().backward()
    else:
        (x**3).sum().backward()
    return (x.grad,)


@habit(known=True)
def a_mask_of_minus_infinity_is_no_anomaly(ag):
    x = ag.leaf([1.0, 2.0, 3.0])
    with ag.detect_anomaly():
        ag.softmax(ag.masked_fill(x, [False, True, False], -INF)).sum().backward()
    return True


# What is refused, and a part of the sentence that says so.
REFUSED = {
    "ag.concatenate([])": "nothing to join",
    "ag.stack([])": "nothing to join",
    "x @ [1.0]": "matmul",
    "ag.reshape(x, [4, 2])": "reshape",
    "x.transpose((0, 0))": "axis",
    "ag.var(x[0, :1], ddof=1)": "needs more than 1",
    "ag.masked_fill(x, [True, False], 0)": "masked_fill: the shapes (2,), (2, 3) do not fit",
    "ag.masked_fill(x, [1, 0, 1], 0)": "must be boolean",
    "ag.where([True, False], x, 0)": "do not fit",
    "ag.where([1, 0, 1], x, 0)": "must be boolean",
    "ag.Tensor(None)": "real numbers",
    "ag.Tensor('3')": "real numbers",
    "ag.Tensor([1], dtype=int)": "float32 or float64",
    "x.astype(int)": "float32 or float64",
    "ag.clip(x)": "needs low, high or both",
    "ag.cross_entropy(x, [2])": "(1,)",
    "ag.cross_entropy(x, [[2, 1]])": "(1, 2)",
    "ag.cross_entropy(x, [2, 3])": "out of range",
    "ag.embedding(x, [0.5])": "integers",
    "x[0.5]": "integers",
    "bool(x)": "ambiguous",
    "float(x)": "one element",
    "iter(x[0, 0])": "without axes",
    "x.sum(0, 1)": "keepdims",
    "ag.linear(x, x)": "does not fit",
    "ag.linear(x, x.T, activation='swish')": "unknown activation 'swish'",
    "ag.layer_norm(x, x)": "layer_norm",
    "ag.exp()": "exp",
    "ag.multiply(x)": "multiply",
    "x + ag.const([1.0], 'float32')": "astype",
    "x * 'a'": "TypeError",
}


# --- the comparison -------------------------------------------------------------------------------

# Where the two differ on purpose: rows, as regular expressions, and the reason. Each must still differ.
DIFFERENT = {
    r"abs\(x\)  # x \[nan\]": "the slope of nan is nan; 0 in PyTorch",
    r"x \*\* 0.5  # x \[-(0.0|inf)\]": "as IEEE 754's pow; PyTorch takes its sqrt",
    r"ag.log\(ag.sigmoid\(x\)\)  # x \[-100.0\] float32": "a sigmoid of 4e-44 is kept; 0 in PyTorch",
    r"ag.layer_norm\(x, w, b\)  # x \(1, 768\) float32": "PyTorch is off by 1e-3 far from 0",
    r"ag.(max|min)\(x.*nan": "the gradient goes to the nan, which was chosen; PyTorch's is nan everywhere",
    r"ag.masked_fill\(x\[0\], np.ones\(\(2, 3\)": "a mask does not enlarge x",
    r"x\[\[\[0, 1\], \[1, 0\]\]\]": "a list of lists is one array, as in NumPy",
    r"x\[\[0.5\]\]": "an index is not rounded",
    r"f\"\{x.detach\(\):.2f\}\"  # x \[(2.5|\[)": "one element has a format, whatever its shape",
    r"x % 1": "there is no such operation",
    r"adamw_of_the_same_parameter_in_one_group": "PyTorch warns, and updates it twice",
    r"adamw_of_two_dtypes": "one group of one dtype",
    r"an_optimizer_step_before_the_backward_of_a_sum": "every leaf counts, also one that is not kept",
    r"a_detached_tensor_keeps_its_values": "arrays of others are never changed in place",
    r"tensors_of_what_is_no_number\(values=(1j|\[1j\])": "there are no complex numbers",
    r"a_tensor_of_a_list_of_tensors": "PyTorch loses the tape, with a warning",
}

# Public names that PyTorch has no form of, and where they are tested.
ELSEWHERE = {
    "AnomalyError": "test_anomaly.py",
    "GradcheckError": "test_gradcheck.py",
    "KinkError": "test_gradcheck.py",
    "PRECISIONS": "test_face.py",
    "draw": "test_draw.py",
    "residual_linear": "test_fused.py",
    "set_precision": "test_face.py",
    "step_through": "step/test_record.py",
}

ROWS = {name: list(group.rows()) for name, group in GROUPS.items()}
needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is not installed")


def different(name):
    return [pattern for pattern in DIFFERENT if re.match(pattern, name)]


def surprises(pairs):
    """The (name, difference) pairs that should be otherwise: by DIFFERENT, or in agreement."""
    found = []
    for name, difference in pairs:
        if difference and not different(name):
            found.append(f"{name}: {difference}")
        if not difference and different(name):
            found.append(f"{name}: no longer differs; take it out of DIFFERENT")
    return "\n".join(found)


@needs_torch
@pytest.mark.parametrize("group", GROUPS)
def test_rows_as_in_pytorch(group):
    assert not surprises((row.name, row.difference()) for row in ROWS[group])


@needs_torch
def test_habits_as_in_pytorch():
    assert not surprises((habit.name, habit.difference()) for habit in HABITS if not habit.alone)


@pytest.mark.parametrize("habit", HABITS, ids=[habit.name for habit in HABITS])
def test_habits_give_what_is_known(habit):
    assert not habit.wrong()


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_explained(line):
    row = next(Group(line.replace(" | ", " or "), [{"x": (2, 3)}]).rows())
    kind, found = row.run(ours(), line)
    assert kind == "error" and REFUSED[line] in found and "\n" not in found, found


def test_the_tables_are_whole():
    names = [row.name for rows in ROWS.values() for row in rows] + [habit.name for habit in HABITS]
    assert len(names) > 3000
    for table in (HABITS, *ROWS.values()):
        assert len({row.name for row in table}) == len(table), "a row stands there twice"
    assert all(any(re.match(pattern, name) for name in names) for pattern in DIFFERENT)
    text = Path(__file__).read_text()
    missing = [name for name in ag.__all__ if f"ag.{name}" not in text and name not in ELSEWHERE]
    assert not missing and not ELSEWHERE.keys() - set(ag.__all__)


def test_the_counts_in_the_tests_readme_are_those_of_the_tables():
    text = " ".join((Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8").split())
    rows = sum(map(len, ROWS.values()))
    assert f"compares {rows:,} expressions and {len(HABITS)} habits" in text
    assert f"The {len(DIFFERENT)} differences are meant" in text


@needs_torch
def test_a_difference_is_found():
    """A table that cannot fail proves nothing."""
    group = Group(
        "x * 2 | x * 2.01\nx * 1.0 | x.detach()\nx.sum() | x.double().sum()\nx[0] | x[9]",
        [{"x": (3,)}],
        ["float32"],
    )
    assert all(row.difference() for row in group.rows())
