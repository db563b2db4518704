import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.softmax import check
from workbook.softmax import softmax as right_softmax

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


@wrong("exp(1000) is infinite")
def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@wrong("maximum of the whole array")
def softmax(logits):
    e = np.exp(logits - np.max(logits))
    return e / e.sum(-1, keepdims=True)


@wrong("subtract the minimum")
def softmax(logits):
    e = np.exp(logits - logits.min(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@wrong("sum of the whole array")
def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum()


@wrong("Columns add up to 1")
def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(0, keepdims=True)


@wrong("row sums have lost their axis")
def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1)


@wrong("do not add up to 1")
def softmax(logits):
    return np.exp(logits - logits.max(-1, keepdims=True))


@wrong("sum of the numbers themselves")
def softmax(logits):
    return logits / logits.sum(-1, keepdims=True)


@wrong("in place")
def softmax(logits):
    logits -= logits.max(-1, keepdims=True)
    e = np.exp(logits)
    return e / e.sum(-1, keepdims=True)


@right
def softmax(logits):
    m = logits.max(-1, keepdims=True)
    return np.exp(logits - m - np.log(np.exp(logits - m).sum(-1, keepdims=True)))


@wrong("only the diagonal")
def softmax_pullback(p, g):
    return p * (1 - p) * g


@wrong("second term is missing")
def softmax_pullback(p, g):
    return p * g


@wrong("subtract the sum of g")
def softmax_pullback(p, g):
    return p * (g - g.sum(-1, keepdims=True))


@wrong("subtract the mean of g")
def softmax_pullback(p, g):
    return p * (g - g.mean(-1, keepdims=True))


@wrong("runs over columns")
def softmax_pullback(p, g):
    return p * (g - (g * p).sum(0))


@wrong("lost its axis")
def softmax_pullback(p, g):
    return p * (g - (g * p).sum(-1))


@wrong("factor p in front")
def softmax_pullback(p, g):
    return g - (g * p).sum(-1, keepdims=True)


@wrong("A plus where a minus")
def softmax_pullback(p, g):
    return p * (g + np.sum(p * g, -1, keepdims=True))


@wrong("ignores the upstream")
def softmax_pullback(p, g):
    return p * (1 - p)


@right
def softmax_pullback(p, g):
    V = p.shape[-1]
    jacobian = p[..., :, None] * (np.eye(V) - p[..., None, :])
    return np.einsum("...ij,...i->...j", jacobian, g)


def parts(logits, targets):
    n = np.arange(len(targets))
    m = logits.max(-1, keepdims=True)
    losses = m[:, 0] + np.log(np.exp(logits - m).sum(-1)) - logits[n, targets]
    return n, losses, right_softmax(logits)


def answer(loss=lambda n, losses, p, x, t: losses.mean(), gradient=None):
    def cross_entropy(logits, targets):
        n, losses, p = parts(logits, targets)

        def dlogits(g):
            if gradient:
                return gradient(n, p.copy(), targets, g)
            return g * (p - np.eye(p.shape[1])[targets]) / len(n)

        return loss(n, losses, p, logits, targets), dlogits

    return cross_entropy


def subtracted(n, p, targets, value=1.0):
    p[n, targets] -= value
    return p


CROSS_ENTROPY = {
    "lacks 1/N": answer(gradient=lambda n, p, t, g: g * subtracted(n, p, t)),
    "those of the sum": answer(
        lambda n, losses, *_: losses.sum(), lambda n, p, t, g: g * subtracted(n, p, t)
    ),
    "target is not subtracted": answer(gradient=lambda n, p, t, g: g * p / len(n)),
    "sign is flipped": answer(gradient=lambda n, p, t, g: -g * subtracted(n, p, t) / len(n)),
    "number of all entries": answer(gradient=lambda n, p, t, g: g * subtracted(n, p, t) / p.size),
    "ignores the upstream": answer(gradient=lambda n, p, t, g: subtracted(n, p, t) / len(n)),
    "subtracts in every row": answer(gradient=lambda n, p, t, g: g * subtracted(slice(None), p, t) / len(n)),
    "Never take the logarithm of a softmax": answer(lambda n, losses, p, x, t: -np.log(p[n, t]).mean()),
    "In logsumexp, take out": answer(lambda n, losses, p, x, t: (np.log(np.exp(x).sum(1)) - x[n, t]).mean()),
    "-log p, since log p is below 0": answer(lambda n, losses, *_: -losses.mean()),
    "you used log2": answer(lambda n, losses, *_: losses.mean() / np.log(2)),
}
for words, function in CROSS_ENTROPY.items():
    wrong(words)(function)


@wrong("Only the target's entry")
def cross_entropy(logits, targets):
    n, losses, p = parts(logits, targets)

    def dlogits(g):
        gradient = np.zeros_like(logits)
        gradient[n, targets] = p[n, targets] - 1
        return g * gradient / len(n)

    return losses.mean(), dlogits


@right
def cross_entropy(logits, targets):
    shifted = logits - logits.max(1)[:, None]
    log_p = shifted - np.log(np.exp(shifted).sum(1))[:, None]
    onehot = np.eye(logits.shape[1])[targets]
    return -(onehot * log_p).sum() / len(targets), lambda g: (np.exp(log_p) - onehot) * g / len(targets)
