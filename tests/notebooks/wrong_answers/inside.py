import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.inside import check
from workbook.softmax import softmax

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


@wrong("the future, where all weights are 0")
def looking_back(weights, distance):
    return np.diagonal(weights, distance, axis1=2, axis2=3).mean((0, 2))


@wrong("looks at itself")
def looking_back(weights, distance):
    return np.diagonal(weights, axis1=2, axis2=3).mean((0, 2))


@wrong("You divide by all T rows")
def looking_back(weights, distance):
    B, H, T, _ = weights.shape
    total = np.zeros(H)
    for t in range(distance, T):
        total += weights[:, :, t, t - distance].mean(0)
    return total / T


@wrong("That is the sum")
def looking_back(weights, distance):
    return np.diagonal(weights, -distance, axis1=2, axis2=3).sum((0, 2))


@wrong("averaged over the heads as well")
def looking_back(weights, distance):
    return np.diagonal(weights, -distance, axis1=2, axis2=3).mean()


@wrong("along a diagonal")
def looking_back(weights, distance):
    return weights[:, :, :, distance].mean(axis=(0, 2))


@wrong("Average over the batch")
def looking_back(weights, distance):
    return np.diagonal(weights, -distance, axis1=2, axis2=3).mean(2)


@wrong("Only one channel")
def without_head(heads, head, n_head):
    heads = heads.copy()
    heads[:, :, head] = 0
    return heads


@wrong("every n_head-th channel")
def without_head(heads, head, n_head):
    heads = heads.copy()
    heads[..., head::n_head] = 0
    return heads


@wrong("begins at `head`")
def without_head(heads, head, n_head):
    D = heads.shape[-1] // n_head
    heads = heads.copy()
    heads[..., head : head + D] = 0
    return heads


@wrong("everything *but* this head")
def without_head(heads, head, n_head):
    D = heads.shape[-1] // n_head
    out = np.zeros_like(heads)
    out[..., head * D : (head + 1) * D] = heads[..., head * D : (head + 1) * D]
    return out


@wrong("positions, or texts")
def without_head(heads, head, n_head):
    D = heads.shape[-1] // n_head
    heads = heads.copy()
    heads[:, head * D : (head + 1) * D] = 0
    return heads


@wrong("in place")
def without_head(heads, head, n_head):
    D = heads.shape[-1] // n_head
    heads[..., head * D : (head + 1) * D] = 0
    return heads


@wrong("last norm is missing")
def logit_lens(x, norm, head):
    return softmax(head(x))


@wrong("the softmax is missing, too")
def logit_lens(x, norm, head):
    return head(x)


@wrong("These are logits")
def logit_lens(x, norm, head):
    return head(norm(x))


@wrong("The head is missing")
def logit_lens(x, norm, head):
    return softmax(norm(x))


@wrong("wrong axis")
def logit_lens(x, norm, head):
    e = np.exp(head(norm(x)))
    return e / e.sum(1, keepdims=True)


@wrong("only the last position")
def logit_lens(x, norm, head):
    return softmax(head(norm(x[:, -1])))


@wrong("most likely ids")
def logit_lens(x, norm, head):
    return softmax(head(norm(x))).argmax(-1)


wrong_ones(
    "looking_back",
    {
        "one place too far back": lambda w, d: (
            np.diagonal(w, -d - 1, 2, 3).mean((0, 2)) if d < w.shape[2] - 1 else np.zeros(w.shape[1])
        ),
        "That is the largest weight": lambda w, d: np.diagonal(w, -d, 2, 3).max((0, 2)),
        "The numbers are right": lambda w, d: np.diagonal(w, -d, 2, 3).mean((0, 2), keepdims=True),
        "every entry of the result differs": lambda w, d: w[..., d:, :].mean((0, 2, 3)),
    },
)


def with_channels(change):
    """`heads` with something else than 0 in this head's channels."""

    def without_head(heads, head, n_head):
        D = heads.shape[-1] // n_head
        out = heads.copy()
        out[..., head * D : (head + 1) * D] = change(heads)
        return out

    return without_head


wrong_ones(
    "without_head",
    {
        "Nothing is switched off": lambda heads, head, n_head: heads,
        "All heads are off": lambda heads, head, n_head: 0 * heads,
        "-inf belongs into scores": with_channels(lambda heads: -np.inf),
        "12 of 48 entries of the result are wrong": with_channels(lambda heads: heads.mean()),
        "has the shape (2, 3, 7)": lambda heads, head, n_head: np.delete(heads, head, axis=-1),
    },
)
wrong_ones(
    "logit_lens",
    {
        "wrong order: the last norm comes before": lambda x, norm, head: softmax(norm(head(x))),
        "norm twice": lambda x, norm, head: softmax(head(norm(norm(x)))),
        "These are exp(logits)": lambda x, norm, head: np.exp(head(norm(x))),
        "is 2 times what it should be": lambda x, norm, head: 2 * softmax(head(norm(x))),
        "the sigmoid": lambda x, norm, head: 1 / (1 + np.exp(-head(norm(x)))),
    },
)
