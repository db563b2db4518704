"""The records of the operations of a GPT, except for attention."""

import hypothesis.strategies as st
import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from autograd.cuda import ops as gpu_forms
from autograd.ops import nn
from tests.operations.checks import numbers, same_on_gpu, tensors
from tests.operations.over_shapes import Call, seeds, unary
from tests.operations.record import Bug, Case, Composition, Record

IDS = np.array([[1, 0, 1], [1, 2, 1]])
TARGETS = np.array([[0, 3, -1], [2, 2, 1]])  # -1 is ignored
STREAM = Stream(seed=5, step=2, site=7)


# --- on random shapes -----------------------------------------------------------------------------


@st.composite
def layer_norm_over_shapes(draw):
    n, c = draw(st.integers(0, 4)), draw(st.integers(2, 6))
    return Call(ag.layer_norm, tensors((n, 2, c), (c,), (c,), seed=draw(seeds)))


@st.composite
def cross_entropy_over_shapes(draw):
    n, v, seed = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(seeds)
    targets = np.random.default_rng(seed).integers(0, v, n)
    return Call(lambda x: ag.cross_entropy(x, targets), tensors((n, v), seed=seed))


@st.composite
def embedding_over_shapes(draw):
    n, v, seed = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(seeds)
    ids = np.random.default_rng(seed).integers(0, v, n)
    return Call(lambda w: ag.embedding(w, ids), tensors((v, 3), seed=seed))


# --- from primitives ------------------------------------------------------------------------------


def softmax_from_exp(x):
    e = ag.exp(x - ag.max(x, axis=-1, keepdims=True))
    return e / ag.sum(e, axis=-1, keepdims=True)


def layer_norm_from_mean_and_var(x, weight, bias):
    centered = x - ag.mean(x, axis=-1, keepdims=True)
    return centered / ag.sqrt(ag.var(x, axis=-1, keepdims=True) + 1e-5) * weight + bias


def dropout(x):
    return ag.dropout(x, 0.4, STREAM)


def dropout_from_a_mask(x):
    keep, scale = STREAM.keep_mask(x.shape, 0.4)
    return x * (keep * scale)


def cross_entropy(x):
    return ag.cross_entropy(x, TARGETS, ignore_index=-1)


def cross_entropy_from_softmax(x):
    counted = TARGETS.reshape(-1) >= 0
    rows, columns = np.flatnonzero(counted), TARGETS.reshape(-1)[counted]
    return -ag.mean(ag.log(softmax_from_exp(x)).reshape(6, 4)[rows, columns])


def linear_cross_entropy(x, w, b):
    return ag.linear_cross_entropy(x, w, b, TARGETS, ignore_index=-1)


MANY_TARGETS = np.random.default_rng(0).integers(0, 7, (3, 200))
MANY_TARGETS[0, ::3] = -1


def tied_head(w, b):
    return w.T, None


def separate_head(w, b):
    return w.reshape(5, 7), b


def head_and_loss(head, logits_at_once):
    """linear_cross_entropy compared with linear and cross_entropy, for w (7, 5) and b (7)."""

    def fused(x, w, b):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nn, "LOGITS_AT_ONCE", logits_at_once)
            loss = ag.linear_cross_entropy(x, *head(w, b), MANY_TARGETS, ignore_index=-1)
        return loss * 3.0 + b.sum()

    def composed(x, w, b):
        return ag.cross_entropy(ag.linear(x, *head(w, b)), MANY_TARGETS, ignore_index=-1) * 3.0 + b.sum()

    return Composition(fused, composed, [(3, 200, 5), (7, 5), (7,)])


# --- the kernels ----------------------------------------------------------------------------------


def layer_norm_kernels(cupy):
    for n, c in ((1, 1), (3, 5), (7, 384), (300, 33)):
        x = numbers(n, c) * 3 + 5
        same_on_gpu(cupy, ag.layer_norm, x, numbers(c, seed=2), numbers(c, seed=3), rtol=2e-4)
        same_on_gpu(cupy, ag.layer_norm, x[None], numbers(c, seed=2), rtol=2e-4)


def dropout_kernel(cupy):
    stream = Stream(2**63 + 5, step=7, site=3, row=11)
    for shape in ((3, 5, 7), (2, 32), (1, 1), (40, 33), (3, 2, 999)):
        for p in (0.2, 0.999):
            same_on_gpu(cupy, lambda x, p=p: ag.dropout(x, p, stream), numbers(*shape))


def cross_entropy_kernels(cupy):
    for n, V in ((1, 1), (7, 3), (300, 65), (5, 1500)):
        targets = np.random.default_rng(0).integers(0, V, n)
        targets[n // 2 :: 3] = -1
        targets[0] = V - 1
        same_on_gpu(cupy, lambda x, t=targets: ag.cross_entropy(x, t, ignore_index=-1), numbers(n, V) * 30)
        all_count = abs(targets) % V
        same_on_gpu(cupy, lambda x, t=all_count: ag.cross_entropy(x, t), numbers(n, V) * 30)


def linear_cross_entropy_kernels(cupy):
    targets = np.random.default_rng(0).integers(0, 13, (3, 200))
    targets[1, 5:50] = -1
    with pytest.MonkeyPatch.context() as patch:
        for chunk in (gpu_forms.GPU_LOGITS_AT_ONCE, 1):  # all rows at once; 256 rows at a time
            patch.setattr(gpu_forms, "GPU_LOGITS_AT_ONCE", chunk)
            run = lambda x, w, b=None: ag.linear_cross_entropy(x, w, b, targets, ignore_index=-1)
            same_on_gpu(cupy, run, numbers(3, 200, 6), numbers(6, 13), numbers(13))
            same_on_gpu(cupy, run, numbers(3, 200, 6), numbers(6, 13))


def embedding_kernels(cupy):
    # in 64, 64, 2, 64 stretches and 1
    for n, V, C in ((1, 1, 1), (600, 5, 33), (300, 1500, 3), (2, 7, 130), (3, 4100, 1)):
        ids = np.random.default_rng(0).integers(0, V, (2, n))
        same_on_gpu(cupy, lambda w, ids=ids: ag.embedding(w, ids), numbers(V, C))


RECORDS = [
    Record(
        ag.softmax,
        cases={"softmax": Case(ag.softmax, [(3, 4)])},
        over_shapes=unary(ag.softmax, min_dims=2),
        composed={"softmax from exp": Composition(ag.softmax, softmax_from_exp, [(3, 5)])},
        bugs=[
            Bug(
                "softmax: only the diagonal of the Jacobian",
                right="dout - (dout * out).sum(axis, keepdims=True)",
                wrong="dout - dout * out",
            ),
        ],
    ),
    Record(
        ag.log_softmax,
        cases={"log_softmax": Case(ag.log_softmax, [(3, 4)])},
        over_shapes=unary(ag.log_softmax, min_dims=2),
        composed={
            "log_softmax from softmax": Composition(
                ag.log_softmax, lambda x: ag.log(softmax_from_exp(x)), [(3, 5)]
            ),
        },
        bugs=[
            Bug(
                "log_softmax: the mean of the gradient is subtracted",
                right="array_module(x).exp(out) * dout.sum(axis, keepdims=True)",
                wrong="dout.mean(axis, keepdims=True)",
            ),
        ],
    ),
    Record(
        ag.layer_norm,
        cases={"layer_norm": Case(ag.layer_norm, [(2, 3, 5), (5,), (5,)])},
        over_shapes=layer_norm_over_shapes(),
        composed={
            "layer_norm from mean and var": Composition(
                ag.layer_norm, layer_norm_from_mean_and_var, [(2, 3, 7), (7,), (7,)]
            ),
        },
        bugs=[
            Bug("layer_norm: std detached", "dxhat -= xhat * mean_dxhat_xhat", "pass"),
            Bug("layer_norm: mean detached", "dxhat -= mean_dxhat", "pass"),
            Bug("layer_norm: Bessel's variance", "dxhat *= rstd", "dxhat *= rstd * ((C - 1) / C) ** 0.5"),
            Bug(
                "layer_norm: dweight from x for xhat",
                right="dout.reshape(xhat.shape), xhat)",
                wrong="dout.reshape(xhat.shape), x2)",
            ),
            Bug(
                "layer_norm: eps is added to the standard deviation",
                right="(row_dots(xhat, xhat) / C + eps) ** -0.5",
                wrong="1 / ((row_dots(xhat, xhat) / C) ** 0.5 + eps)",
                caught_by="layer_norm from mean and var",
            ),
        ],
        kernel_checks=[layer_norm_kernels],
        kernel_bugs=[
            Bug(
                "a layer norm with Bessel's correction",
                right="warp_sum(squares) / C + eps",
                wrong="warp_sum(squares) / (C - 1) + eps",
            ),
            Bug("the layer norm's share along xhat stays", " - (x[j] - m) * r * xhat_share)", ")"),
            Bug("dweight without the standard deviation", "* rstd[row];", ";"),
        ],
    ),
    Record(
        ag.cross_entropy,
        cases={"cross_entropy": Case(cross_entropy, [(2, 3, 4)])},
        over_shapes=cross_entropy_over_shapes(),
        composed={
            "cross_entropy from softmax": Composition(cross_entropy, cross_entropy_from_softmax, [(2, 3, 4)]),
        },
        bugs=[
            Bug("cross_entropy: sum instead of mean", "counted * (dout / count)", "counted * dout"),
            Bug("cross_entropy: mean over ignored tokens too", "dout / count", "dout / len(rows)"),
            Bug("cross_entropy: forgets to subtract the target", "grad[rows, targets] -= 1", "pass"),
            Bug(
                "cross_entropy: ignored tokens get a gradient",
                right="(counted * (dout / count))[:, None]",
                wrong="(dout / count)",
            ),
        ],
        kernel_checks=[cross_entropy_kernels],
        kernel_bugs=[
            Bug(
                "the target's logit is read after it was overwritten",
                right='nanf("");\n    __syncthreads();',
                wrong='nanf("");',
            ),
            Bug("ignored targets count in the mean", "count += targets[i] != ignored", "count += 1"),
            Bug("the gradient at the target lacks the - 1", "(j == target ? 1.0f : 0.0f)", "0.0f"),
            Bug("the loss without the row's maximum", "logf(total) + largest -", "logf(total) -"),
        ],
    ),
    Record(
        ag.linear_cross_entropy,
        cases={
            "linear_cross_entropy": Case(linear_cross_entropy, [(2, 3, 5), (5, 4), (4,)]),
            "linear_cross_entropy_square": Case(linear_cross_entropy, [(2, 3, 4), (4, 4), (4,)]),
        },
        composed={
            "linear_cross_entropy of a tied head": head_and_loss(tied_head, logits_at_once=2**20),
            "linear_cross_entropy of a tied head in chunks": head_and_loss(tied_head, logits_at_once=1),
            "linear_cross_entropy of a separate head": head_and_loss(separate_head, logits_at_once=2**20),
            "linear_cross_entropy of a separate head in chunks": head_and_loss(
                separate_head, logits_at_once=1
            ),
        },
        bugs=[
            Bug(
                "linear_cross_entropy: forgets the division by the count",
                right=" / counted.sum().astype(x.dtype)",
                wrong="",
                caught_by="linear_cross_entropy of a separate head",  # value and gradients are wrong alike
            ),
            Bug(
                "linear_cross_entropy: ignored tokens count in the mean",
                right="counted.sum().astype(x.dtype)",
                wrong="x.dtype.type(len(counted))",
                caught_by="linear_cross_entropy of a separate head",
            ),
            Bug(
                "linear_cross_entropy: ignored tokens get a gradient",
                right="logits *= share[part, None]",
                wrong="logits *= share.max()",
            ),
            Bug(
                "linear_cross_entropy: target not subtracted",
                right="logits[n, targets[part]] -= share[part]",
                wrong="pass",
            ),
            Bug(
                "linear_cross_entropy: softmax not divided by its sum",
                right="share[part, None] / total",
                wrong="share[part, None]",
            ),
            Bug(
                "linear_cross_entropy: loss without the row's maximum",
                right="xp.log(total) + shift -",
                wrong="xp.log(total) -",
            ),
            Bug(
                "linear_cross_entropy: bias gradient averaged",
                right="column_sums(logits)",
                wrong="column_sums(logits) / len(logits)",
            ),
            Bug(
                "linear_cross_entropy: bias gradient of the last chunk alone",
                right="dbias += column_sums(logits)",
                wrong="dbias = column_sums(logits)",
                caught_by="linear_cross_entropy of a separate head in chunks",
            ),
            Bug(
                "linear_cross_entropy: weight gradient transposed",
                right="(dweight_t * dout).T",
                wrong="dweight_t * dout",
                caught_by="linear_cross_entropy_square",  # where no shape gives it away
            ),
            Bug(
                "linear_cross_entropy: the upstream gradient is left out",
                right="(dx * dout).reshape",
                wrong="dx.reshape",
            ),
        ],
        kernel_checks=[linear_cross_entropy_kernels],
        kernel_bugs=[
            Bug("ignored targets get a gradient", "part = counts ? share[0] : 0.0f", "part = share[0]"),
            Bug("the bias is read by rows", "bias[i % M]", "bias[i / M % M]"),
        ],
    ),
    Record(
        ag.embedding,
        cases={"embedding": Case(lambda w: ag.embedding(w, IDS), [(3, 2)])},
        over_shapes=embedding_over_shapes(),
        composed={
            "embedding from one-hot rows": Composition(
                lambda w: ag.embedding(w, IDS), lambda w: Tensor(np.eye(4)[IDS]) @ w, [(4, 3)]
            ),
        },
        bugs=[
            Bug(
                "embedding: repeated id assigned instead of added",
                right="out[sorted_ids[starts]] = np.add.reduceat(rows[order], starts, axis=0)",
                wrong="out[ids] = rows",
                inside=nn.sum_rows_by_id,
            ),
            Bug(
                "embedding: rows are added in the order of before the sort",
                right="np.add.reduceat(rows[order]",
                wrong="np.add.reduceat(rows",
                inside=nn.sum_rows_by_id,
            ),
        ],
        kernel_checks=[embedding_kernels],
        kernel_bugs=[
            Bug(
                "matches are read before all warps have written theirs",
                right="matches[threadIdx.x / 32] = mine;\n        __syncthreads();",
                wrong="matches[threadIdx.x / 32] = mine;",
            ),
            Bug(
                "matches are overwritten while they are read",
                right="            }\n        __syncthreads();\n",
                wrong="            }\n",
            ),
            Bug(
                "a stretch runs into the next",
                right="row < end && ids[row < end ? row : begin]",
                wrong="row < N && ids[row < N ? row : begin]",
            ),
        ],
    ),
    Record(
        ag.dropout,
        cases={"dropout": Case(dropout, [(4, 6)])},
        composed={"dropout from a mask": Composition(dropout, dropout_from_a_mask, [(4, 6)])},
        bugs=[
            Bug(
                "dropout: no mask in the pullback",
                right="return masked(x), masked",
                wrong="return masked(x), lambda g: g",
            ),
            Bug(
                "dropout: mask without its scale",
                right="return masked(x), masked",
                wrong="return masked(x), lambda g: g * keep",
            ),
        ],
        kernel_checks=[dropout_kernel],
        kernel_bugs=[
            Bug("what is kept is not scaled up", "keep ? x[at] * keep_scale : 0.0f", "keep ? x[at] : 0.0f"),
            Bug(
                "the last, partial group of a row runs into the next",
                right="        if (element >= per_row) continue;\n",
                wrong="",
            ),
        ],
    ),
]
