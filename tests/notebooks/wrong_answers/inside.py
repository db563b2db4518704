import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.inside import check
from workbook.softmax import softmax

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


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


@right
def looking_back(weights, distance):
    T = weights.shape[-1]
    return np.mean([weights[:, :, t, t - distance].mean(0) for t in range(distance, T)], axis=0)


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


@right
def without_head(heads, head, n_head):
    B, T, C = heads.shape
    keep = np.arange(n_head) != head
    return (heads.reshape(B, T, n_head, C // n_head) * keep[:, None]).reshape(B, T, C)


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


@right
def logit_lens(x, norm, head):
    logits = head(norm(x))
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
