import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.softmax import check
from workbook.softmax import softmax as right_softmax

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


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


def shares(e, axis=-1):
    return e / e.sum(axis, keepdims=True)


wrong_ones(
    "softmax",
    {
        "from the middle of each row": lambda x: shares(np.exp(x - x.mean(-1, keepdims=True))),
        "each row's first value": lambda x: shares(np.exp(x - x[..., :1])),
        "largest absolute value": lambda x: shares(np.exp(x - np.abs(x).max(-1, keepdims=True))),
        "not for large ones": lambda x: shares(np.exp(np.clip(x, -700, 700))),
        "axis=1 is the last axis of a matrix only": lambda x: shares(np.exp(x - x.max(1, keepdims=True)), 1),
        "powers of 2": lambda x: shares(2.0 ** (x - x.max(-1, keepdims=True))),
        "sign is flipped": lambda x: shares(np.exp(x.min(-1, keepdims=True) - x)),
        "right to about 8 digits": lambda x: (lambda e: e / (e.sum(-1, keepdims=True) + 1e-8))(
            np.exp(x - x.max(-1, keepdims=True))
        ),
        "right to about 7 digits": lambda x: right_softmax(x.astype(np.float32)).astype(float),
        "not always the same: 3 times for": lambda x: right_softmax(x) * x.shape[-1],
        "the sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    },
)
wrong_ones(
    "softmax_pullback",
    {
        "axis=1 is the last axis of a matrix only": lambda p, g: p * (g - (g * p).sum(1, keepdims=True)),
        "needs the factor p, too": lambda p, g: p * g - (p * g).sum(-1, keepdims=True),
        "is 2 times what it should be": lambda p, g: 2 * p * (g - (g * p).sum(-1, keepdims=True)),
        "is not the weighted mean": lambda p, g: p * (g - (g * p).mean(-1, keepdims=True)),
        "every entry of the result differs": lambda p, g: g * (1 - p),
        "are wrong: what do they": lambda p, g: p * (g - g @ p.T) if p.shape == (3, 3) else p,
    },
)


CROSS_ENTROPY = {
    "hides the infinity": answer(lambda n, losses, p, x, t: -np.log(p[n, t] + 1e-12).mean()),
    "maximum of the whole array": answer(
        lambda n, losses, p, x, t: (x.max() + np.log(np.exp(x - x.max()).sum(1)) - x[n, t]).mean()
    ),
    "not put back": answer(
        lambda n, losses, p, x, t: (np.log(np.exp(x - x.max(1)[:, None]).sum(1)) - x[n, t]).mean()
    ),
    "the number of characters, V": answer(gradient=lambda n, p, t, g: g * subtracted(n, p, t) / p.shape[1]),
    "are both missing": answer(gradient=lambda n, p, t, g: subtracted(n, p, t)),
    "1 is subtracted everywhere": answer(gradient=lambda n, p, t, g: g * (p - 1) / len(n)),
    "off by the same amount everywhere (1)": answer(lambda n, losses, *_: losses.mean() + 1),
    "No typical mistake in the result. Compare the cases": answer(
        lambda n, losses, *_: losses.mean() / len(n)
    ),
}
for words, function in CROSS_ENTROPY.items():
    wrong(words)(function)


@wrong("called a second time")
def cross_entropy(logits, targets):
    n, losses, p = parts(logits, targets)

    def dlogits(g):
        p[n, targets] -= 1
        return g * p / len(n)

    return losses.mean(), dlogits
