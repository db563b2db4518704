import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.attention import causal_weights as right_weights
from workbook.attention import check

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def t(x):
    return x.swapaxes(-1, -2)


@right
def causal_weights(scores):
    """Not stable, and told so; but right."""
    weights = np.exp(scores) * np.tril(np.ones(scores.shape[-2:]))
    return weights / weights.sum(-1, keepdims=True)


@right
def causal_weights(scores):
    return softmax(scores + np.triu(np.full(scores.shape[-2:], -1e9), 1))


@right
def causal_weights(scores):
    """On a copy, in place."""
    scores = scores.copy()
    T = scores.shape[-1]
    scores[..., np.arange(T)[:, None] < np.arange(T)] = -np.inf
    return softmax(scores)


@right
def causal_weights(scores):
    """Row by row, over the past only."""
    weights = np.zeros(scores.shape)
    for i in range(scores.shape[-1]):
        weights[..., i, : i + 1] = softmax(scores[..., i, : i + 1])
    return weights


@right
def causal_weights(scores):
    """Masked late, and made to add up again."""
    weights = np.tril(softmax(scores))
    return weights / weights.sum(axis=-1)[..., None]


@right
def attention(q, k, v):
    p = right_weights(np.einsum("...id,...jd->...ij", q, k / q.shape[-1] ** 0.5))
    return np.einsum("...ij,...jd->...id", p, v), p


@right
def attention(q, k, v):
    *_, T, D = q.shape
    scores = np.where(np.tri(T, dtype=bool), np.matmul(q, t(k)) / np.sqrt(D), -np.inf)
    return [softmax(scores) @ v, softmax(scores)]


@right
def attention(q, k, v):
    """One query after the other."""
    out, p = np.zeros(q.shape), np.zeros((*q.shape[:-1], q.shape[-2]))
    for i in range(q.shape[-2]):
        scores = (k[..., : i + 1, :] * q[..., i : i + 1, :]).sum(-1) / q.shape[-1] ** 0.5
        p[..., i, : i + 1] = softmax(scores)
        out[..., i, :] = (p[..., i, :, None] * v).sum(-2)
    return out, p


@right
def attention_pullback(dout, q, k, v, p):
    """The row sums from the results (delta), as the fast kernels do."""
    ds = p * (dout @ t(v) - (dout * (p @ v)).sum(-1, keepdims=True)) / np.sqrt(q.shape[-1])
    return ds @ k, t(ds) @ q, t(p) @ dout


@right
def attention_pullback(dout, q, k, v, p):
    scale = q.shape[-1] ** -0.5
    dv = np.einsum("...ij,...id->...jd", p, dout)
    dp = np.einsum("...id,...jd->...ij", dout, v)
    ds = p * dp - p * np.sum(p * dp, axis=-1)[..., None]
    return [np.einsum("...ij,...jd->...id", ds, k) * scale, (t(q) @ ds * scale).swapaxes(-1, -2), dv]


@right
def attention_pullback(dout, q, k, v, p):
    """With the Jacobian of each row's softmax."""
    dp = dout @ t(v)
    jacobian = p[..., :, None] * (np.eye(p.shape[-1]) - p[..., None, :])  # (..., T, T, T)
    ds = (dp[..., None, :] @ jacobian)[..., 0, :]
    ds *= 1 / np.sqrt(q.shape[-1])
    return ds @ k, (t(q) @ ds).swapaxes(-1, -2), (t(dout) @ p).swapaxes(-1, -2)


right_ones(
    "split_heads",
    lambda x, n_head: np.stack(np.split(x, n_head, axis=-1), axis=1),
    lambda x, n_head: x.reshape(x.shape[0], x.shape[1], n_head, -1).transpose(0, 2, 1, 3),
    lambda x, n_head: np.moveaxis(np.reshape(x, (*x.shape[:2], n_head, -1)), 2, 1).copy(),
    lambda x, n_head: np.array(
        [[x[b, :, h::1][:, : x.shape[2] // n_head] for h in range(0, x.shape[2], x.shape[2] // n_head)]
         for b in range(len(x))]
    ),
)  # fmt: skip
