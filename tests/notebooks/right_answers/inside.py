import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.inside import check
from workbook.softmax import softmax

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def looking_back(weights, distance):
    T = weights.shape[-1]
    return np.mean([weights[:, :, t, t - distance].mean(0) for t in range(distance, T)], axis=0)


@right
def looking_back(weights, distance):
    B, _, T, _ = weights.shape
    return np.trace(weights, -distance, -2, -1).sum(0) / (B * (T - distance))


@right
def looking_back(weights, distance):
    rows = np.arange(distance, weights.shape[2])
    return weights[:, :, rows, rows - distance].mean(axis=-1).mean(axis=0)


@right
def looking_back(weights, distance):
    """A list of numbers, one for each head."""
    heads = weights.swapaxes(0, 1)
    return [np.mean([np.diag(w, -distance) for w in head]) for head in heads]


@right
def without_head(heads, head, n_head):
    B, T, C = heads.shape
    keep = np.arange(n_head) != head
    return (heads.reshape(B, T, n_head, C // n_head) * keep[:, None]).reshape(B, T, C)


right_ones(
    "without_head",
    lambda heads, head, n_head: np.where(
        np.arange(heads.shape[-1]) // (heads.shape[-1] // n_head) == head, 0.0, heads
    ),
    lambda heads, head, n_head: heads * np.repeat(np.arange(n_head) != head, heads.shape[-1] // n_head),
    lambda heads, head, n_head: np.concatenate(
        [part * (i != head) for i, part in enumerate(np.split(heads, n_head, axis=-1))], axis=-1
    ),
)


@right
def logit_lens(x, norm, head):
    logits = head(norm(x))
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


right_ones(
    "logit_lens",
    lambda x, norm, head: np.stack([softmax(head(norm(row))) for row in x]),
    lambda x, norm, head: np.exp(head(norm(x)) - np.logaddexp.reduce(head(norm(x)), -1)[..., None]),
    lambda x, norm, head: softmax(head(norm(x.copy())) - 5.0),
)
