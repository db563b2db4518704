"""Notebook 4: softmax, cross entropy, and a bigram model of a text."""

import numpy as np

import autograd as ag
from workbook.checking import Checks, Exercise, pullback_exercise, random_arrays
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels, reference_lines, with_values

check = Checks()
normal = random_arrays(4)


# --- softmax --------------------------------------------------------------------------------------


def softmax(logits):
    return ag.softmax.raw(logits)[0]


def _unstable(x):
    e = np.exp(x)
    return e / e.sum(-1, keepdims=True)


def _shifted(shift):
    """Softmax with another shift than each row's maximum."""

    def wrong(x):
        e = np.exp(x - shift(x))
        return e / e.sum(-1, keepdims=True)

    return wrong


def _normalised(axis):
    """Softmax with sums over other axes than the last."""

    def wrong(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        return e / e.sum(axis, keepdims=axis is not None)

    return wrong


def _without_keepdims(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1)


FAR_APART = np.array([[1000.0, 999.0, 0.0], [-1000.0, -1001.0, -1000.5]])
MILD = np.array([[0.3, -1.2, 0.8], [2.0, -0.4, 0.1]])
ONE_FAR_ABOVE = np.array([[1500.0, 0.0, 1.0, -3.0], [0.0, 800.0, 799.0, 801.0]])


def _large_logits(answer):
    """What to say if only large logits are a problem, or ""."""
    if not np.allclose(answer(MILD), softmax(MILD), 1e-9) or np.allclose(
        answer(FAR_APART), softmax(FAR_APART), 1e-9
    ):
        return ""
    return (
        "It is right for ordinary logits, but not for large ones (about 1000). Does an exp overflow, "
        "or become 0, or is something clipped? Subtract each row's maximum, and nothing like that can happen."
    )


check.add(
    "softmax",
    Exercise(
        softmax,
        [
            (normal(3, 3),),
            (normal(4, 5),),
            (FAR_APART,),
            (ONE_FAR_ABOVE,),
            (normal(2, 3, 4),),
            (normal(6) - 900,),
        ],
        {
            "Right for small numbers. But exp(1000) is infinite, and inf / inf is nan. "
            "Subtract each row's maximum first: "
            "the result does not change, and the largest exponent is 0.": _unstable,
            "You subtract the maximum of the whole array. "
            "A row far below it holds only exp(-1000) = 0, and 0 / 0 is nan. "
            "Each row needs its own: `max(-1, keepdims=True)`.": _shifted(lambda x: x.max()),
            "You subtract the minimum. That makes large numbers even larger. Subtract the maximum.": _shifted(
                lambda x: x.min(-1, keepdims=True)
            ),
            "You subtract a value from the middle of each row, as the mean is. "
            "If one logit lies far above the others, its exp is still infinite. "
            "Subtract each row's maximum.": _shifted(lambda x: x.mean(-1, keepdims=True)),
            "You subtract each row's first value. Those far above it still have an infinite exp. "
            "Subtract each row's maximum.": _shifted(lambda x: x[..., :1]),
            "You subtract the largest absolute value. If all logits are far below 0, that leaves only "
            "exp(-1000) = 0, and 0 / 0 is nan. Subtract the maximum.": _shifted(
                lambda x: np.abs(x).max(-1, keepdims=True)
            ),
            "You divide by the sum of the whole array. "
            "Each row is a distribution of its own: `sum(-1, keepdims=True)`.": (_normalised(None)),
            "Columns add up to 1 instead of rows: sum over the last axis, -1.": _normalised(0),
            "axis=1 is the last axis of a matrix only. For arrays with other numbers of axes write -1.": (
                _normalised(1)
            ),
            "axis=1 is the last axis of a matrix only. For other arrays write -1, in max and in sum.": (
                lambda x: (
                    np.exp(x - x.max(1, keepdims=True))
                    / np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)
                )
            ),
            "These are powers of 2. A softmax has powers of e: np.exp.": lambda x: softmax(x * np.log(2)),
            "The sign is flipped: the largest logit gets the smallest probability.": lambda x: softmax(-x),
            "Only the largest logit gets something, all of it. That is argmax; a softmax gives a share to "
            "each, by exp.": lambda x: (x == x.max(-1, keepdims=True)).astype(float),
            "The row sums have lost their axis, so NumPy divides columns by them. "
            "Keep it: `keepdims=True`.": _without_keepdims,
            "That is the sigmoid, which takes each logit by itself. "
            "A softmax divides by the sum over the row.": lambda x: 1 / (1 + np.exp(-x)),
            "You divide by the sum of the numbers themselves. "
            "First exp, then divide by the sum of those.": lambda x: x / x.sum(-1, keepdims=True),
            "The rows do not add up to 1: divide by their sum.": lambda x: np.exp(
                x - x.max(-1, keepdims=True)
            ),
            "This is the logarithm of the softmax. You will need it soon; "
            "here return the probabilities themselves.": (lambda x: ag.log_softmax.raw(x)[0]),
        },
        explain=_large_logits,
    ),
)


# --- softmax_pullback -----------------------------------------------------------------------------


def softmax_pullback(p, g):
    return p * (g - (g * p).sum(-1, keepdims=True))


def _cases():
    shapes = ((3, 3), (2, 5), (2, 3, 4), (6,), (1, 2))
    return [(softmax(normal(*shape)), normal(*shape)) for shape in shapes]


check.add(
    "softmax_pullback",
    Exercise(
        softmax_pullback,
        _cases(),
        {
            "This is only the diagonal of the Jacobian. "
            "If one logit rises, all other probabilities of its row fall: "
            "the terms -pᵢpⱼ are missing.": lambda p, g: g * p * (1 - p),
            "The whole second term is missing, "
            "as if the sum in the denominator were constant.": lambda p, g: g * p,
            "You subtract the sum of g. Each g must be weighted with its probability: "
            "(g * p).sum(...).": lambda p, g: p * (g - g.sum(-1, keepdims=True)),
            "You subtract the mean of g. It must be the mean weighted with p: "
            "(g * p).sum(...).": lambda p, g: p * (g - g.mean(-1, keepdims=True)),
            "The sum runs over columns. Each row is a softmax of its own: axis -1.": lambda p, g: (
                p * (g - (g * p).sum(0, keepdims=True))
            ),
            "The sum has lost its axis: "
            "`keepdims=True`, or NumPy lines it up with the columns.": lambda p, g: p * (g - (g * p).sum(-1)),
            "The sum runs over everything. Each row is a softmax of its own.": lambda p, g: (
                p * (g - (g * p).sum())
            ),
            "axis=1 is the last axis of a matrix only. Write -1.": lambda p, g: (
                p * (g - (g * p).sum(1, keepdims=True))
            ),
            "The mean of g * p is not the weighted mean: the weights p add up to 1 already, so sum.": (
                lambda p, g: p * (g - (g * p).mean(-1, keepdims=True))
            ),
            "The second term needs the factor p, too: p * (g - ...).": lambda p, g: (
                p * g - (g * p).sum(-1, keepdims=True)
            ),
            "The two terms are in the wrong order: g minus the weighted mean. The sign is flipped.": (
                lambda p, g: p * ((g * p).sum(-1, keepdims=True) - g)
            ),
            "The factor p in front is missing.": lambda p, g: g - (g * p).sum(-1, keepdims=True),
            "A plus where a minus belongs: "
            "a logit that rises takes probability away from the others.": lambda p, g: (
                p * (g + (g * p).sum(-1, keepdims=True))
            ),
            "It ignores the upstream gradient.": lambda p, g: p * (1 - p),
        },
    ),
)


# --- cross_entropy --------------------------------------------------------------------------------


def cross_entropy(logits, targets):
    return ag.cross_entropy.raw(logits, targets)


def _cross_entropy(dlogits, loss=None):
    """Cross entropy with another pullback (of p, one-hot targets, N and g), or with another loss."""

    def wrong(logits, targets):
        right = loss(logits, targets) if loss else cross_entropy(logits, targets)[0]
        onehot = (targets[:, None] == np.arange(logits.shape[1])).astype(float)
        return right, lambda g: dlogits(softmax(logits), onehot, len(targets), g)

    return wrong


def _right(p, onehot, n, g):
    return g * (p - onehot) / n


def _losses(logits, targets):
    return -ag.log_softmax.raw(logits)[0][np.arange(len(targets)), targets]


def _columns(p, onehot, n, g):
    return g * (p - onehot.max(0)) / n


def _hidden_zero(answer):
    """What to say if the loss is right but where a probability is nearly 0, or ""."""
    mild, _ = answer(MILD, np.array([1, 0]))
    far, _ = answer(FAR_APART, np.array([2, 0]))
    right = cross_entropy(MILD, np.array([1, 0]))[0]
    if abs(mild - right) > 1e-6 * right or not np.isfinite(far) or far > 499:
        return ""
    return (
        "The loss is right for ordinary logits, but too small where the target's probability is nearly 0. "
        "A small number inside the logarithm, or a clip, hides the infinity and keeps the mistake. "
        "Compute logsumexp(x) - x[target]."
    )


check.add(
    "cross_entropy",
    pullback_exercise(
        ("logits",),
        cross_entropy,
        [
            (normal(4, 3), np.array([0, 2, 2, 1]), 1.7),
            (normal(3, 3), np.array([1, 1, 0]), -0.6),
            (normal(1, 5), np.array([3]), 1.0),
            (FAR_APART, np.array([2, 0]), 0.9),
        ],
        {
            "The gradient lacks 1/N. The loss is the mean over N places, "
            "so each counts only 1/N.": _cross_entropy(lambda p, o, n, g: g * (p - o)),
            "Loss and gradient are those of the sum. "
            "Take the mean, so that the learning rate does not depend on the batch's size.": _cross_entropy(
                lambda p, o, n, g: g * (p - o), lambda x, t: _losses(x, t).sum()
            ),
            "The target is not subtracted: this only pushes every logit down. "
            "It is p - 1 at the target, p elsewhere.": (_cross_entropy(lambda p, o, n, g: g * p / n)),
            "The gradient's sign is flipped: it is p - onehot. With yours, "
            "training would make the loss larger.": _cross_entropy(lambda p, o, n, g: g * (o - p) / n),
            "Only the target's entry has a gradient. But the other logits matter as well, "
            "through the sum in the denominator.": (_cross_entropy(lambda p, o, n, g: g * (p - 1) * o / n)),
            "You divide by the number of characters, V. There are N places with one loss each: "
            "divide by N.": _cross_entropy(lambda p, o, n, g: g * (p - o) / p.shape[1]),
            "1/N and the upstream gradient g are both missing: g * (p - onehot) / N.": _cross_entropy(
                lambda p, o, n, g: p - o
            ),
            "-1/p is the slope of -log p with respect to the probability. "
            "Go on through the softmax: with respect to the logits it is p - onehot.": _cross_entropy(
                lambda p, o, n, g: -g * o / p / n
            ),
            "You divide by the number of all entries. There are N places with one loss each: "
            "divide by N.": _cross_entropy(lambda p, o, n, g: g * (p - o) / p.size),
            "It ignores the upstream gradient g (a number here).": _cross_entropy(
                lambda p, o, n, g: (p - o) / n
            ),
            "`grad[:, targets] -= 1` subtracts in every row. "
            "Pair each row with its target: `grad[np.arange(N), targets]`.": (_cross_entropy(_columns)),
            "The loss has the wrong sign: it is -log p, since log p is below 0.": _cross_entropy(
                _right, lambda x, t: -_losses(x, t).mean()
            ),
            "log(0): a probability was so small that it became 0, and its logarithm infinite. "
            "Never take the logarithm of a softmax. Compute logsumexp(x) - x[target].": _cross_entropy(
                _right, lambda x, t: -np.log(softmax(x)[np.arange(len(t)), t]).mean()
            ),
            "exp(1000) is infinite. In logsumexp, take out each row's maximum first: "
            "m + log(sum(exp(x - m))).": _cross_entropy(
                _right, lambda x, t: (np.log(np.exp(x).sum(-1)) - x[np.arange(len(t)), t]).mean()
            ),
            "In logsumexp you take out the maximum of the whole array. A row far below it holds only "
            "exp(-1000) = 0, and log(0) is infinite. Each row needs its own.": _cross_entropy(
                _right,
                lambda x, t: (x.max() + np.log(np.exp(x - x.max()).sum(-1)) - x[np.arange(len(t)), t]).mean(),
            ),
            "The maximum is taken out of the exponents, but not put back: m + log(...).": _cross_entropy(
                _right,
                lambda x, t: (
                    np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1)) - x[np.arange(len(t)), t]
                ).mean(),
            ),
            "Each loss is logsumexp alone: subtract the target's logit.": _cross_entropy(
                _right, lambda x, t: (_losses(x, t) + x[np.arange(len(t)), t]).mean()
            ),
            "1 is subtracted everywhere. Subtract it only at each row's target.": _cross_entropy(
                lambda p, o, n, g: g * (p - 1) / n
            ),
            "The loss is in bits: you used log2. Use the natural logarithm, "
            "whose slope is 1/x.": _cross_entropy(_right, lambda x, t: _losses(x, t).mean() / np.log(2)),
        },
        explain=_hidden_zero,
    ),
)


# --- a text as numbers, and what counting can say about it ----------------------------------------


def entropies(ids, vocab_size):
    """Losses in nats: of guessing evenly, of knowing each character's frequency, and each pair's."""
    pairs = np.zeros((vocab_size, vocab_size))
    np.add.at(pairs, (ids[:-1], ids[1:]), 1.0)
    frequency = pairs.sum(0) / pairs.sum()
    given = pairs / np.maximum(pairs.sum(1, keepdims=True), 1)
    log = lambda p: np.log(np.where(p > 0, p, 1.0))
    return {
        "guessing (ln V)": float(np.log(vocab_size)),
        "single characters": float(-(frequency * log(frequency)).sum()),
        "pairs": float(-(pairs / pairs.sum() * log(given)).sum()),
    }


# --- pictures -------------------------------------------------------------------------------------


def name_of(character):
    return {"\n": "↵", " ": "␣"}.get(character, character)


def plot_prefixes(text):
    """Every prefix of a text is an example: what has been read, and what comes next."""
    figure, axes = panels(width=4, height=0.28 * len(text))
    for i in range(1, len(text)):
        axes.text(
            0.5, -i, text[:i].replace(" ", "␣"), family="monospace", ha="right", va="center", color=GREY
        )
        axes.text(0.6, -i, "→", ha="center", va="center")
        axes.text(0.7, -i, name_of(text[i]), family="monospace", ha="center", va="center", color=RED)
    axes.set(xlim=(0, 1), ylim=(-len(text), 0))
    axes.axis("off")
    return Picture(figure, f"the {len(text) - 1} examples in {text!r}")


def plot_push_and_pull(logits, target, characters):
    """Probabilities, the target, and their difference: how the gradient pushes down and pulls up."""
    p = softmax(logits)
    onehot = (np.arange(len(p)) == target).astype(float)
    figure, axes = panels(3, width=9, height=2.8)
    labels = [name_of(c) for c in characters]
    for ax, values, title in zip(
        axes,
        (p, onehot, p - onehot),
        ("p: what it says", "one-hot: what came", "gradient p − one-hot"),
        strict=True,
    ):
        colors = [BLUE if v >= 0 else RED for v in values] if ax is axes[2] else GREY
        ax.bar(labels, values, color=colors)
        ax.axhline(0, color="k", lw=0.6)
        ax.set(title=title, ylim=(-1.05, 1.05) if ax is axes[2] else (0, 1.05))
    axes[2].text(target + 0.55, -0.85, "training pulls it up", color=RED, fontsize=9)
    axes[2].text(len(p) / 2, 0.75, "training pushes these down", color=BLUE, ha="center", fontsize=9)
    return Picture(figure, "probabilities, target and gradient")


def plot_bigrams(probabilities, characters, frequency, most=32):
    """The matrix of p(next | this) for the most frequent characters."""
    order = np.argsort(-frequency, kind="stable")[:most]
    figure, axes = panels(width=7.5, height=7)
    axes.imshow(probabilities[np.ix_(order, order)] ** 0.5, cmap="Blues", vmin=0, vmax=1)
    labels = [name_of(characters[i]) for i in order]
    axes.set(
        xticks=range(len(order)), yticks=range(len(order)), xlabel="next character", ylabel="this character"
    )
    axes.set_xticklabels(labels, fontsize=9)
    axes.set_yticklabels(labels, fontsize=9)
    return Picture(figure, "probabilities of pairs of characters")


def plot_losses(curves, references, ylim=None):
    """Loss curves by name, with dashed lines for what simpler models reach."""
    figure, axes = panels(width=7.5, height=3.8)
    for (name, curve), color in zip(curves.items(), (BLUE, RED, GOLD, GREEN), strict=False):
        axes.plot(curve, color=color, label=name, lw=1.5)
    reference_lines(axes, with_values(references))
    axes.set(xlabel="step", ylabel="loss (nats per character)", ylim=ylim)
    axes.legend(loc="upper center")
    return Picture(figure, "losses")
