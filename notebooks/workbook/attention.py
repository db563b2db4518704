"""Notebook 6: causal attention."""

import numpy as np

import autograd as ag
from autograd.ops import attention as library
from workbook.checking import Checks, Exercise, Wrong, named_results, random_arrays, with_pairs
from workbook.pictures import BLUE, GREY, RED, Picture, panels, reference_lines

check = Checks()
normal = random_arrays(6)


def swap(x):
    return x.swapaxes(-1, -2)


def softmax(x, axis=-1):
    return ag.softmax.raw(x, axis)[0]


def future(scores):
    """True where the key (column) comes after the query (row)."""
    return np.triu(np.ones(scores.shape[-2:], bool), 1)


# --- causal_weights -------------------------------------------------------------------------------


def causal_weights(scores):
    return softmax(np.where(future(scores), -np.inf, scores))


def _masked(mask=future, value=-np.inf, axis=-1):
    return lambda scores: softmax(np.where(mask(scores), value, scores), axis)


LEAKS = (
    "The weights of the future are small, but not 0, so a little of it leaks. "
    "The only score whose weight is 0, whatever the others are, is minus infinity."
)


def _leak(answer):
    """What to say if ordinary weights are right, but for a little of the future that is left; or ""."""
    scores = normal(6, 6)
    right = np.allclose(answer(scores), causal_weights(scores), 1e-6, 1e-6)
    return LEAKS if right and answer(60 * scores)[future(scores)].any() else ""


def _inspect_weights(answer):
    if answer(normal(6, 6))[future(np.zeros((6, 6)))].any():
        raise Wrong(LEAKS)


def _advise_weights(answer):
    if not np.isfinite(answer(np.full((2, 2), 1000.0))).all():
        return (
            "scores near 1000 give nan. Notebook 4's softmax, which subtracts each row's maximum, does not."
        )
    if not np.isfinite(answer(np.array([[0.0, 2000.0], [0.0, 0.0]]))).all():
        return (
            "where a score of the future is far above the others, this gives nan, because all other weights "
            "are 0 before the mask comes. Mask the scores, before the softmax."
        )
    return ""


check.add(
    "causal_weights",
    Exercise(
        causal_weights,
        [(normal(5, 5),), (normal(2, 3, 4, 4) * 3,), (normal(1, 1),), (60 * normal(3, 3),)],
        {
            "Nothing is masked: every position sees the future.": softmax,
            "The wrong triangle is masked: positions see only the future. "
            "Row i may look at columns 0 to i.": _masked(lambda s: np.tril(np.ones(s.shape[-2:], bool), -1)),
            "The diagonal is masked as well, so the first position sees nothing, and its row is nan. "
            "A position may look at itself: "
            "`np.triu(..., 1)`.": _masked(lambda s: np.triu(np.ones(s.shape[-2:], bool))),
            "One position of the future stays visible: the mask begins a diagonal too late. "
            "`np.triu(..., 1)`.": _masked(lambda s: np.triu(np.ones(s.shape[-2:], bool), 2)),
            "The future's scores are set to 0, and exp(0) is 1, not 0. "
            "The score whose weight is 0 is minus infinity.": _masked(value=0.0),
            "The weights were masked after the softmax, so rows no longer add up to 1. "
            "Mask the scores before it.": lambda s: np.where(future(s), 0.0, softmax(s)),
            "The softmax runs over the queries: "
            "columns add up to 1 instead of rows. Sum over the keys, axis -1.": _masked(axis=-2),
            "The softmax runs over axis 1. In a stack of matrices that is not the last axis: "
            "axis -1.": _masked(axis=1),
            "The future is masked, but the softmax is missing: these are scores.": lambda s: np.where(
                future(s), -np.inf, s
            ),
            "The future is masked with plus infinity. e to that power is infinite; it should be 0: "
            "minus infinity.": _masked(value=np.inf),
            "Masked, exponentiated, but rows do not add up to 1: divide by their sum.": lambda s: np.where(
                future(s), 0.0, np.exp(s - np.where(future(s), -np.inf, s).max(-1, keepdims=True))
            ),
        },
        inspect=_inspect_weights,
        advise=_advise_weights,
        explain=_leak,
    ),
)


# --- attention ------------------------------------------------------------------------------------


def attention(q, k, v):
    p = causal_weights(q @ swap(k) * q.shape[-1] ** -0.5)
    return p @ v, p


def _attention(
    scale=lambda q: q.shape[-1] ** -0.5,
    scores=lambda q, k, v: q @ swap(k),
    weights=causal_weights,
    mix=lambda p, k, v: p @ v,
):
    """`attention` from its parts, so that one or two of them can be wrong."""

    def wrong(q, k, v):
        p = weights(scores(q, k, v) * scale(q))
        return mix(p, k, v), p

    return wrong


def _scaled_late(q, k, v):
    p = causal_weights(q @ swap(k)) * q.shape[-1] ** -0.5
    return p @ v, p


def _with_scores(q, k, v):
    return attention(q, k, v)[0], q @ swap(k) * q.shape[-1] ** -0.5


_two = named_results(
    "the result",
    "the weights",
    otherwise="Return two arrays: the result (..., T, D) and the weights (..., T, T).",
)


def _weights_first(function, *case):
    """The weights come first: if they are wrong, so is the result."""
    return dict(reversed(_two(function, *case).items()))


def _inspect_future(answer):
    """The numbers are right already; this checks what the mask is for."""
    q, k, v = normal(3, 6, 4)
    changed = [np.concatenate([a[:4], normal(2, 4)]) for a in (q, k, v)]
    if not np.array_equal(answer(q, k, v)[0][:4], answer(*changed)[0][:4]):
        raise Wrong(
            "Changing the last two positions changes the results of the first four: the future leaks."
        )


check.add(
    "attention",
    Exercise(
        attention,
        [
            (normal(4, 4), normal(4, 4), normal(4, 4)),
            (normal(5, 9), normal(5, 9), normal(5, 9)),
            tuple(normal(3, 2, 2, 4, 3)),
        ],
        with_pairs(
            _attention,
            {
                "The scores are not scaled. Divide them by √D. "
                "Without this, the softmax becomes a hard choice as D grows.": {"scale": lambda q: 1.0},
                "The scale is 1/D. It is 1/√D: a sum of D random products grows like √D.": {
                    "scale": lambda q: 1 / q.shape[-1]
                },
                "The scale is √D, but should be 1/√D: divide, do not multiply.": {
                    "scale": lambda q: q.shape[-1] ** 0.5
                },
                "You scale by √T, the number of positions. It is D, "
                "the number of channels that a score sums over.": {"scale": lambda q: q.shape[-2] ** -0.5},
                "Queries and keys are swapped: entry (i, j) of the scores must belong to query i and key j, "
                "q @ kᵀ.": {"scores": lambda q, k, v: k @ swap(q)},
                "`.T` reverses all axes of a stack. Swap only the last two: `.swapaxes(-1, -2)`.": {
                    "scores": lambda q, k, v: q @ k.T
                },
                "The scores are made of queries and values. They are made of queries and keys.": {
                    "scores": lambda q, k, v: q @ swap(v)
                },
                "Nothing is masked: every position sees the future.": {"weights": softmax},
                "The weights mix the keys instead of the values: p @ v.": {"mix": lambda p, k, v: p @ k},
                "The weights are transposed before they multiply the values. "
                "It is p @ v: row i mixes what query i looks at.": {"mix": lambda p, k, v: swap(p) @ v},
            },
        )
        | {
            "The scale is applied after the softmax, where rows no longer add up to 1. "
            "Scale the scores.": _scaled_late,
            "The second thing returned are the scores. Return the weights, after the softmax.": _with_scores,
        },
        _weights_first,
        _inspect_future,
    ),
)


# --- attention_pullback ---------------------------------------------------------------------------


def attention_pullback(dout, q, k, v, p):
    scale = q.shape[-1] ** -0.5
    dp = dout @ swap(v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) * scale
    return ds @ k, swap(ds) @ q, swap(p) @ dout


def _pullback(
    ds=lambda p, dp: p * (dp - (p * dp).sum(-1, keepdims=True)),
    scale=lambda width: width**-0.5,
    dq=lambda ds, q, k: ds @ k,
    dk=lambda ds, q, k: swap(ds) @ q,
    dv=lambda p, dout, v: swap(p) @ dout,
):
    """The pullback from its parts, so that one or two of them can be wrong."""

    def wrong(dout, q, k, v, p):
        scaled = ds(p, dout @ swap(v)) * scale(q.shape[-1])
        return dq(scaled, q, k), dk(scaled, q, k), dv(p, dout, v)

    return wrong


def _case(*shape):
    q, k, v, dout = (normal(*shape) for _ in range(4))
    return dout, q, k, v, attention(q, k, v)[1]


check.add(
    "attention_pullback",
    Exercise(
        attention_pullback,
        [_case(4, 4), _case(5, 3), _case(2, 2, 4, 6), _case(1, 3)],
        with_pairs(
            _pullback,
            {
                "In dq and dk the scale is missing: it multiplied the scores on the way forward, "
                "so it multiplies on the way back.": {"scale": lambda width: 1.0},
                "The scale is in dq and dk twice.": {"scale": lambda width: 1 / width},
                "The softmax's normalisation was held constant: the term - sum(p * dp) is missing.": {
                    "ds": lambda p, dp: p * dp
                },
                "Only the diagonal of the softmax's Jacobian: if one key gets more weight, "
                "all others of its row get less.": {"ds": lambda p, dp: p * (1 - p) * dp},
                "The softmax was skipped on the way back: dS is not dP. Use your pullback of notebook 4.": {
                    "ds": lambda p, dp: dp
                },
                "The factor p in front of the softmax's pullback is missing. "
                "Without it even the masked future gets gradients.": {
                    "ds": lambda p, dp: dp - (p * dp).sum(-1, keepdims=True)
                },
                "In the softmax's pullback the sum runs over queries. Each row of p is a softmax: "
                "sum over keys, axis -1.": {"ds": lambda p, dp: p * (dp - (p * dp).sum(-2, keepdims=True))},
                "In the softmax's pullback the sum has lost its axis, "
                "so it lines up with the keys instead of the queries: "
                "`keepdims=True`.": {"ds": lambda p, dp: p * (dp - (p * dp).sum(-1))},
                "In the softmax's pullback dp is not weighted with p: sum(p * dp).": {
                    "ds": lambda p, dp: p * (dp - dp.sum(-1, keepdims=True))
                },
                "dq has the scale, dk has not. The scores were made from both and then scaled.": {
                    "dk": lambda ds, q, k: swap(ds) @ q * q.shape[-1] ** 0.5
                },
                "dk has the scale, dq has not. The scores were made from both and then scaled.": {
                    "dq": lambda ds, q, k: ds @ k * q.shape[-1] ** 0.5
                },
                "In the softmax's pullback there is a mean where the sum belongs: sum(p * dp).": {
                    "ds": lambda p, dp: p * (dp - (p * dp).mean(-1, keepdims=True))
                },
                "dv is made of v itself. It is made of dout: dv = pᵀ @ dout.": {
                    "dv": lambda p, dout, v: swap(p) @ v
                },
                "dv is dout, as if each query had used only its own value. dv = pᵀ @ dout.": {
                    "dv": lambda p, dout, v: dout
                },
                "dq is made of q itself: dq = dS @ k.": {"dq": lambda ds, q, k: ds @ q},
                "dk is made of k itself: dk = dSᵀ @ q.": {"dk": lambda ds, q, k: swap(ds) @ k},
                "The transpose is missing in dv: all queries i used the value of key j, so dv = pᵀ @ dout.": {
                    "dv": lambda p, dout, v: p @ dout
                },
                "The transpose is missing in dk: dk = dSᵀ @ q.": {"dk": lambda ds, q, k: ds @ q},
                "dq needs no transpose: dq = dS @ k.": {"dq": lambda ds, q, k: swap(ds) @ k},
                "The sign of the softmax's second term: p * (dp - sum(p * dp)), with a minus.": {
                    "ds": lambda p, dp: p * (dp + (p * dp).sum(-1, keepdims=True))
                },
                "dq and dk come in the wrong order.": {
                    "dq": lambda ds, q, k: swap(ds) @ q,
                    "dk": lambda ds, q, k: ds @ k,
                },
                "dq is made from q, dk from k. It is the other way round: q was multiplied by k.": {
                    "dq": lambda ds, q, k: ds @ q,
                    "dk": lambda ds, q, k: swap(ds) @ k,
                },
            },
        ),
        named_results("dq", "dk", "dv", otherwise="Return three arrays: dq, dk, dv."),
    ),
)


# --- split_heads ----------------------------------------------------------------------------------


def split_heads(x, n_head):
    return library.split_heads(x, 1, n_head)[0]


check.add(
    "split_heads",
    Exercise(
        split_heads,
        [
            (normal(2, 4, 8), 2),
            (normal(3, 2, 6), 3),
            (normal(1, 4, 4), 2),
            (normal(2, 3, 4), 1),
            (normal(2, 3, 4), 4),
        ],
        {
            "One reshape is not enough: "
            "it tears positions apart and mixes them into heads. First reshape to (B, T, "
            "H, D), then swap the axes T and H.": lambda x, h: x.reshape(x.shape[0], h, x.shape[1], -1),
            "The channels are dealt out to the heads in turn. "
            "Head 0 has the first D channels: reshape to (B, T, "
            "H, D), H before D.": lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(0, 3, 1, 2),
            "The axes T and H are not swapped yet: (B, T, H, D) -> (B, H, T, D).": lambda x, h: x.reshape(
                *x.shape[:2], h, -1
            ),
            "The last two axes are swapped: (B, H, D, T) instead of (B, H, T, D).": lambda x, h: x.reshape(
                *x.shape[:2], h, -1
            ).transpose(0, 2, 3, 1),
            "The heads come before the batch: (H, B, T, D) instead of (B, H, T, D).": lambda x, h: x.reshape(
                *x.shape[:2], h, -1
            ).transpose(2, 0, 1, 3),
            "Positions were cut into heads, not channels: (B, T, C) -> (B, T, H, D) cuts the last axis.": (
                lambda x, h: (
                    x.swapaxes(1, 2)
                    .reshape(x.shape[0], h, -1, x.shape[1])
                    .reshape(x.shape[0], h, x.shape[1], -1)
                )
            ),
        },
    ),
)


def merge_heads(x):
    """(B, H, T, D) -> (B, T, H * D), the inverse of split_heads."""
    B, H, T, D = x.shape
    return x.swapaxes(1, 2).reshape(B, T, H * D)


# --- a task to learn ------------------------------------------------------------------------------


def letters(rng, rows=32, length=16, vocab_size=12):
    """Random letters (rows, length)."""
    return rng.integers(vocab_size, size=(rows, length))


# --- pictures -------------------------------------------------------------------------------------


def plot_maps(maps, labels=None):
    """Attention maps by name: row i shows what position i looks at."""
    figure, axes = panels(len(maps), width=min(9, 3.2 * len(maps)), height=3.4)
    for ax, (name, weights) in zip(np.atleast_1d(axes), maps.items(), strict=True):
        ax.imshow(weights, cmap="Blues", vmin=0, vmax=max(weights.max(), 0.3))
        ax.set(title=name, xlabel="looks at")
        ticks = range(len(weights)) if labels else []
        ax.set(xticks=ticks, yticks=ticks, xticklabels=labels or [], yticklabels=labels or [])
    np.atleast_1d(axes)[0].set(ylabel="position")
    return Picture(figure, "attention maps: " + ", ".join(maps))


def plot_scale(widths, rng):
    """How sharp the softmax gets with and without scaling as the number of channels grows."""
    figure, axes = panels(width=6, height=3)
    for name, power, color in (("q · k", 0.0, RED), ("q · k / √D", -0.5, BLUE)):
        largest = []
        for D in widths:
            q, k = rng.normal(size=(2, 300, 16, D))
            scores = np.einsum("nd,njd->nj", q[:, 0], k) * D**power
            largest.append(softmax(scores).max(-1).mean())
        axes.semilogx(widths, largest, "o-", color=color, label=name, base=2)
    axes.axhline(1 / 16, color=GREY, ls="--", lw=0.8)
    axes.text(widths[-1], 1 / 16 + 0.02, "all 16 the same", color=GREY, fontsize=8, ha="right")
    axes.set(xlabel="channels D", ylabel="largest of 16 weights", ylim=(0, 1))
    axes.legend()
    return Picture(figure, "sharpness of attention against width")


def plot_curves(curves, reference, name):
    """Loss curves with one dashed line."""
    figure, axes = panels(width=6.5, height=3)
    for (label, curve), color in zip(curves.items(), (BLUE, RED), strict=False):
        axes.plot(curve, color=color, label=label)
    reference_lines(axes, {name: reference})
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    axes.legend()
    return Picture(figure, "losses")
