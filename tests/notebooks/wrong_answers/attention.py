import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.attention import causal_weights as right_weights
from workbook.attention import check

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def t(x):
    return x.swapaxes(-1, -2)


@wrong("Nothing is masked")
def causal_weights(scores):
    return softmax(scores)


@wrong("wrong triangle")
def causal_weights(scores):
    return softmax(np.where(np.tril(np.ones(scores.shape[-2:]), -1) == 1, -np.inf, scores))


@wrong("The diagonal is masked as well")
def causal_weights(scores):
    return softmax(np.where(np.triu(np.ones(scores.shape[-2:])) == 1, -np.inf, scores))


@wrong("One position of the future stays visible")
def causal_weights(scores):
    return softmax(np.where(np.triu(np.ones(scores.shape[-2:]), 2) == 1, -np.inf, scores))


@wrong("exp(0) is 1")
def causal_weights(scores):
    return softmax(scores * np.tril(np.ones(scores.shape[-2:])))


@wrong("masked after the softmax")
def causal_weights(scores):
    return softmax(scores) * np.tril(np.ones(scores.shape[-2:]))


@wrong("runs over the queries")
def causal_weights(scores):
    return softmax(np.where(np.triu(np.ones(scores.shape[-2:]), 1) == 1, -np.inf, scores), axis=-2)


@wrong("in place")
def causal_weights(scores):
    scores[..., np.triu(np.ones(scores.shape[-2:], bool), 1)] = -np.inf
    return softmax(scores)


def through(p, v):
    return p @ v, p


ATTENTION = {
    "not scaled": lambda q, k, v: through(right_weights(q @ t(k)), v),
    "The scale is 1/D": lambda q, k, v: through(right_weights(q @ t(k) / q.shape[-1]), v),
    "divide, do not multiply": lambda q, k, v: through(right_weights(q @ t(k) * q.shape[-1] ** 0.5), v),
    "You scale by √T": lambda q, k, v: through(right_weights(q @ t(k) / np.sqrt(q.shape[-2])), v),
    "swapped": lambda q, k, v: through(right_weights(k @ t(q) / np.sqrt(q.shape[-1])), v),
    "after the softmax": lambda q, k, v: through(right_weights(q @ t(k)) / np.sqrt(q.shape[-1]), v),
    "Nothing is masked": lambda q, k, v: through(softmax(q @ t(k) / np.sqrt(q.shape[-1])), v),
    "mix the keys": lambda q, k, v: (
        right_weights(q @ t(k) / np.sqrt(q.shape[-1])) @ k,
        right_weights(q @ t(k) / np.sqrt(q.shape[-1])),
    ),
    "transposed before they multiply": lambda q, k, v: (
        t(right_weights(q @ t(k) / np.sqrt(q.shape[-1]))) @ v,
        right_weights(q @ t(k) / np.sqrt(q.shape[-1])),
    ),
    "Return two arrays": lambda q, k, v: right_weights(q @ t(k) / np.sqrt(q.shape[-1])) @ v,
}
for words, answer in ATTENTION.items():
    answer.__name__ = "attention"
    wrong(words)(answer)


def pullback(ds=None, dq="ds @ k", dk="t(ds) @ q", dv="t(p) @ dout", scale="1 / np.sqrt(q.shape[-1])"):
    """attention_pullback from its lines, so that one of them can be wrong."""
    ds = ds or "p * (dp - (p * dp).sum(-1, keepdims=True))"

    def attention_pullback(dout, q, k, v, p):
        names = {"dout": dout, "q": q, "k": k, "v": v, "p": p, "t": t, "np": np, "dp": dout @ t(v)}
        names["ds"] = eval(ds, names) * eval(scale, names)  # noqa: S307
        return tuple(eval(line, names) for line in (dq, dk, dv))  # noqa: S307

    return attention_pullback


for words, answer in {
    "the scale is missing": pullback(scale="1.0"),
    "twice": pullback(scale="1 / q.shape[-1]"),
    "dq has the scale, dk has not": pullback(dk="t(ds) @ q * np.sqrt(q.shape[-1])"),
    "dk has the scale, dq has not": pullback(dq="ds @ k * np.sqrt(q.shape[-1])"),
    "normalisation was held constant": pullback("p * dp"),
    "Only the diagonal": pullback("p * (1 - p) * dp"),
    "softmax was skipped": pullback("dp"),
    "The factor p in front": pullback("dp - (p * dp).sum(-1, keepdims=True)"),
    "the sum runs over queries": pullback("p * (dp - (p * dp).sum(-2, keepdims=True))"),
    "dp is not weighted": pullback("p * (dp - dp.sum(-1, keepdims=True))"),
    "missing in dv": pullback(dv="p @ dout"),
    "missing in dk": pullback(dk="ds @ q"),
    "dq needs no transpose": pullback(dq="t(ds) @ k"),
    "in the wrong order": pullback(dq="t(ds) @ q", dk="ds @ k"),
    "the other way round": pullback(dq="ds @ q", dk="t(ds) @ k"),
}.items():
    wrong(words)(answer)


@wrong("tears positions apart")
def split_heads(x, n_head):
    B, T, C = x.shape
    return x.reshape(B, n_head, T, C // n_head)


@wrong("dealt out to the heads in turn")
def split_heads(x, n_head):
    B, T, C = x.shape
    return x.reshape(B, T, C // n_head, n_head).transpose(0, 3, 1, 2)


@wrong("not swapped yet")
def split_heads(x, n_head):
    B, T, C = x.shape
    return x.reshape(B, T, n_head, C // n_head)


@wrong("last two axes are swapped")
def split_heads(x, n_head):
    B, T, C = x.shape
    return x.reshape(B, T, n_head, C // n_head).transpose(0, 2, 3, 1)


def future(scores):
    return np.triu(np.ones(scores.shape[-2:], bool), 1)


wrong_ones(
    "causal_weights",
    {
        "so a little of it leaks": lambda s: softmax(np.where(future(s), -100.0, s)),
        "axis 1. In a stack": lambda s: softmax(np.where(future(s), -np.inf, s), 1),
        "plus infinity": lambda s: softmax(np.where(future(s), np.inf, s)),
        "the softmax is missing": lambda s: np.where(future(s), -np.inf, s),
        "0 * inf": lambda s: softmax(s + future(s) * -np.inf),
        "stops with ValueError": lambda s: softmax(np.where(np.triu(np.ones((5, 5)), 1) > 0, -np.inf, s)),
    },
)


def attending(p, mix=lambda p, q, k, v: p @ v):
    return lambda q, k, v: (mix(p(q, k, v), q, k, v), p(q, k, v))


def weights(q, k, v):
    return right_weights(q @ t(k) / np.sqrt(q.shape[-1]))


wrong_ones(
    "attention",
    {
        "made of queries and values": attending(lambda q, k, v: weights(q, v, v)),
        "the result where the weights should be": lambda q, k, v: attending(weights)(q, k, v)[::-1],
        "It is right for q (4, 4)": attending(lambda q, k, v: right_weights(q @ t(k) / 2.0)),
        "every entry of the result differs": attending(weights, lambda p, q, k, v: p @ v + q),
        "The second thing returned are the scores": lambda q, k, v: (
            weights(q, k, v) @ v, q @ t(k) / np.sqrt(q.shape[-1])
        ),
    },
)  # fmt: skip


def reordered(dout, q, k, v, p):
    dq, dk, dv = pullback()(dout, q, k, v, p)
    return dv, dq, dk


wrong_ones(
    "attention_pullback",
    {
        "dv where dq should be": reordered,
        "a mean where the sum belongs": pullback("p * (dp - (p * dp).mean(-1, keepdims=True))"),
        "dv is made of v itself": pullback(dv="t(p) @ v"),
        "dv is dout": pullback(dv="dout"),
        "dk is made of k itself": pullback(dk="t(ds) @ k"),
        "dq is 2 times what it should be, everywhere": pullback(dq="2 * ds @ k"),
        "dv is right but for a factor, which is not always the same: 0.5 times": pullback(
            dv="t(p) @ dout / np.sqrt(q.shape[-1])"
        ),
    },
)
wrong_ones(
    "split_heads",
    {
        "The heads come before the batch": lambda x, n_head: np.stack(np.split(x, n_head, axis=-1)),
        "Positions were cut into heads": lambda x, n_head: t(x).reshape(
            x.shape[0], n_head, x.shape[1], x.shape[2] // n_head
        ),
        "in other places": lambda x, n_head: np.stack(np.split(x, n_head, axis=-1)[::-1], axis=1),
        "has the shape (3, 2, 2, 3)": lambda x, n_head: x.reshape(*x.shape[:2], 2, -1).swapaxes(1, 2),
    },
)
