"""The fused operations on a GPU. Their derivations stand in autograd/ops, beside the forms for the CPU."""

import math

import numpy as np

from autograd.backend import array_module
from autograd.cuda.launch import THREADS, blocks_for, launch
from autograd.cuda.products import product
from autograd.ops import attention, linalg, nn
from autograd.ops.linalg import Shared, as_rows
from autograd.ops.nn import check_ids, check_targets
from autograd.random import check_dropout
from autograd.recording import is_recording
from autograd.tape import AddingPullback

WARPS = 4  # per block, in kernels that give each row to a warp
ACTIVATION_CODES = {None: 0, "relu": 1, "gelu": 2, "gelu_exact": 3}  # as in elementwise.cu
NOTHING_IGNORED = -(2**63)
GPU_LOGITS_AT_ONCE = 2**27  # of linear_cross_entropy: 512 MB


@linalg.linear.on_gpu
def linear(x, weight, bias=None, activation=None):
    """A product, and one kernel for bias and activation."""
    linalg.check_linear(x, weight, bias, activation)
    if weight.size == 0:  # kernels want something to do
        return linalg.linear.raw(x, weight, bias, activation)
    xp, kind, M = array_module(x), ACTIVATION_CODES[activation], weight.shape[1]
    x2 = as_rows(x)  # (..., K) -> (N, K)
    out = pre = product(xp, x2, weight)  # (N, M)
    if activation in ("gelu", "gelu_exact"):  # their slope cannot be told from their value
        out = xp.empty(pre.shape, pre.dtype)
    if bias is not None or kind:
        add_bias_and_activate(xp, pre, bias, out, kind)
    x_shape, kept = x.shape, pre if kind else None

    def dpre_of(dout):
        dout = contiguous(as_rows(dout))
        if not kind:
            return dout
        dpre, size = xp.empty(dout.shape, dout.dtype), dout.size
        blocks = blocks_for(size, 4 * THREADS)
        launch(
            xp, "activation_backward", blocks, THREADS, pre=kept, dout=dout, dpre=dpre, size=size, kind=kind
        )
        return dpre

    dpre = Shared(dpre_of)
    return out.reshape(*x_shape[:-1], M), (
        lambda dout: product(xp, dpre(dout), weight.T).reshape(x_shape),
        AddingPullback(lambda dout, add_to: product(xp, x2.T, dpre(dout), add_to=add_to)),
        AddingPullback(lambda dout, add_to: column_sums(xp, dpre(dout), add_to)),
    )


def add_bias_and_activate(xp, pre, bias, out, kind):
    """pre (N, M) += bias (M) or None, in place; out = activation(pre), which may be the same array."""
    has_bias = bias is not None
    launch(
        xp,
        "bias_activation_forward",
        blocks_for(pre.size, 4 * THREADS),
        THREADS,
        pre=pre,
        bias=contiguous(bias) if has_bias else pre,  # a kernel wants an array
        out=out,
        size=pre.size,
        M=pre.shape[1],
        has_bias=has_bias,
        kind=kind,
    )


@nn.layer_norm.on_gpu
def layer_norm(x, weight, bias=None, eps=1e-5):
    """Keeps x, and per row its mean, in two parts, and 1 / its standard deviation."""
    nn.check_layer_norm(x, weight, bias)
    xp, shape = array_module(x), x.shape
    x2, weight = contiguous(as_rows(x)), contiguous(weight)  # (..., C) -> (N, C)
    N, C = x2.shape
    out, moments = xp.empty(x2.shape, x2.dtype), xp.empty((3, N), x2.dtype)
    kept = dict(x=x2, moments=moments, N=N, C=C)
    blocks, has_bias = blocks_for(N, WARPS), bias is not None
    beta = contiguous(bias) if has_bias else weight  # a kernel wants an array
    parameters = dict(weight=weight, bias=beta, has_bias=has_bias, eps=eps)
    launch(xp, "layer_norm_forward", blocks, 32 * WARPS, **kept, **parameters, out=out)

    def dx(dout):
        dout, result = contiguous(as_rows(dout)), xp.empty(x2.shape, x2.dtype)
        launch(xp, "layer_norm_backward", blocks, 32 * WARPS, **kept, weight=weight, dout=dout, dx=result)
        return result.reshape(shape)

    def partial_sums_of(dout):  # (2, stretches, C): of dweight and dbias
        dout, stretches = contiguous(as_rows(dout)), stretches_of(N)
        partial, grid = xp.empty((2, stretches, C), dout.dtype), (blocks_for(C, 32), stretches)
        launch(xp, "layer_norm_weight_gradients", grid, (32, 8), **kept, dout=dout, partial=partial)
        return partial

    partial_sums = Shared(partial_sums_of)
    return out.reshape(shape), (
        dx,
        AddingPullback(lambda dout, add_to: column_sums(xp, partial_sums(dout)[0], add_to)),
        AddingPullback(lambda dout, add_to: column_sums(xp, partial_sums(dout)[1], add_to)),
    )


@nn.dropout.on_gpu
def dropout(x, p, stream):
    """The mask is drawn again in the backward pass rather than kept."""
    check_dropout(p, stream)
    if p == 0:
        return x, lambda dout: dout
    xp, drawing = array_module(x), drawing_of(stream, p)

    def masked(values):
        values = contiguous(values)
        out, rows = xp.empty(values.shape, values.dtype), math.prod(values.shape[:1])  # of 0-d: one row
        per_row = values.size // rows
        blocks = blocks_for(rows * blocks_for(per_row, 32), 32 * WARPS)
        sizes = dict(rows=rows, per_row=per_row)
        launch(xp, "dropout", blocks, 32 * WARPS, x=values, out=out, **sizes, **drawing)
        return out

    return masked(x), masked


def drawing_of(stream, p):
    """What the kernels need to know to drop with probability p; seed and place come from the stream.

    `dropped` is 0 where p is, and only there.
    """
    if not p:
        return dict(seed=0, step_and_site=0, first_row=0, dropped=0, keep_scale=1.0)
    (seed, step_and_site), dropped = stream.key(), stream.drop_threshold(p)
    place = dict(seed=seed, step_and_site=step_and_site, first_row=stream.row)
    return place | dict(dropped=dropped, keep_scale=stream.keep_scale(dropped))


@attention.causal_attention.on_gpu
def causal_attention(qkv, n_head, scale=None, dropout=0.0, stream=None):
    """Whole matrices of scores: five products in all, and one kernel between them in each pass.

    Keeps q, k, v and the weights.
    """
    attention.check_attention(qkv, n_head, dropout, stream)
    xp, (B, T, C) = array_module(qkv), (*qkv.shape[:2], qkv.shape[2] // 3)
    scale = (C // n_head) ** -0.5 if scale is None else scale
    sizes, drawing = dict(B=B, H=n_head, t=T, T=T), drawing_of(stream, dropout)
    drops, blocks = drawing["dropped"] > 0, blocks_for(B * n_head * T, WARPS)
    q, k, v = heads_from_rows(xp, qkv, 3, n_head, scale)  # (B * H, T, D) each, q scaled
    weights = product(xp, q, k.swapaxes(1, 2))  # (B * H, T, T)
    dropped = xp.empty(weights.shape, weights.dtype) if drops else weights
    arrays = dict(weights=weights, dropped_weights=dropped)
    launch(xp, "attention_forward", blocks, 32 * WARPS, **arrays, **sizes, **drawing)
    out = rows_from_heads(xp, product(xp, dropped, v)[None], B, n_head)  # (1, B * H, T, D) -> (B, T, C)

    def dqkv(dout):
        (dy,) = heads_from_rows(xp, dout, 1, n_head)
        grad = xp.empty((3, *q.shape), q.dtype)
        ds = product(xp, dy, v.swapaxes(1, 2))  # (B * H, T, T)
        dropped = xp.empty(weights.shape, weights.dtype) if drops else weights
        arrays = dict(weights=weights, gradient=ds, dropped_weights=dropped)
        launch(xp, "attention_backward", blocks, 32 * WARPS, **arrays, **sizes, **drawing)
        product(xp, ds, k, out=grad[0])
        product(xp, ds.swapaxes(1, 2), q, out=grad[1])
        product(xp, dropped.swapaxes(1, 2), dy, out=grad[2])
        return rows_from_heads(xp, grad, B, n_head, scale)

    return out, dqkv


@attention.attend.on_gpu
def attend(q, k, v, y, scale):
    xp, (B, H, t, D), T = array_module(q), q.shape, k.shape[2]
    q, k, v = (contiguous(x).reshape(B * H, x.shape[2], D) for x in (q * np.float32(scale), k, v))
    weights = product(xp, q, k.swapaxes(1, 2))  # (B * H, t, T)
    sizes = dict(B=B, H=H, t=t, T=T) | drawing_of(None, 0)
    blocks = blocks_for(B * H * t, WARPS)
    launch(xp, "attention_forward", blocks, 32 * WARPS, weights=weights, dropped_weights=weights, **sizes)
    y[...] = product(xp, weights, v).reshape(y.shape)  # (B * H, t, D) -> (B, H, t, D)


def heads_from_rows(xp, x, parts, n_head, scale=1.0):
    """(B, T, parts * H * D) -> `parts` arrays (B * H, T, D); the first multiplied by scale."""
    x, (B, T, width) = contiguous(x), x.shape
    D = width // (parts * n_head)
    heads = xp.empty((parts, B * n_head, T, D), x.dtype)
    sizes, blocks = dict(B=B, T=T, parts=parts, H=n_head, D=D), blocks_for(x.size, 4 * THREADS)
    launch(xp, "heads_from_rows", blocks, THREADS, rows=x, heads=heads, **sizes, scale=scale)
    return list(heads)


def rows_from_heads(xp, heads, B, n_head, scale=1.0):
    """(parts, B * H, T, D) -> (B, T, parts * H * D); the first part multiplied by scale."""
    parts, _, T, D = heads.shape
    x = xp.empty((B, T, parts * n_head * D), heads.dtype)
    sizes, blocks = dict(B=B, T=T, parts=parts, H=n_head, D=D), blocks_for(x.size, 4 * THREADS)
    launch(xp, "rows_from_heads", blocks, THREADS, heads=heads, rows=x, **sizes, scale=scale)
    return x


@nn.linear_cross_entropy.on_gpu
def linear_cross_entropy(x, weight, bias=None, targets=None, ignore_index=None):
    """Gradients are computed with the loss, a chunk of rows at a time, as on the CPU."""
    linalg.check_product("linear_cross_entropy", x, weight, bias)
    xp, shape, V = array_module(x), x.shape, weight.shape[1]
    x2 = contiguous(as_rows(x))  # (..., C) -> (N, C)
    targets, N = check_targets(targets, V, x, ignore_index), len(x2)  # (N)
    wants_gradients, ignored = is_recording(), NOTHING_IGNORED if ignore_index is None else ignore_index
    losses, share = xp.empty(N, x.dtype), share_of_counted(xp, targets, ignored)
    if wants_gradients:
        dx, dweight_t, dbias = xp.empty(x2.shape, x.dtype), xp.empty(weight.T.shape, x.dtype), None
    rows = max(256, GPU_LOGITS_AT_ONCE // V)
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        logits = product(xp, x2[part], weight)  # (n, V)
        if bias is not None:
            add_bias_and_activate(xp, logits, bias, logits, ACTIVATION_CODES[None])
        cross_entropy_rows(xp, logits, targets[part], share, losses[part], ignored, wants_gradients)
        if wants_gradients:  # the logits are their own gradients by now
            product(xp, logits, weight.T, out=dx[part])
            if start == 0:
                product(xp, logits.T, x2[part], out=dweight_t)
            else:
                product(xp, logits.T, x2[part], add_to=dweight_t)
            if bias is not None:
                dbias = column_sums(xp, logits, add_to=dbias)
    return sum_all(xp, losses), (
        lambda dout: (dx * dout).reshape(shape),
        lambda dout: (dweight_t * dout).T,
        lambda dout: dbias * dout,
    )


@nn.cross_entropy.on_gpu
def cross_entropy(logits, targets, ignore_index=None):
    nn.check_logits(logits)
    xp, shape = array_module(logits), logits.shape
    targets = check_targets(targets, shape[-1], logits, ignore_index)  # (N)
    ignored = NOTHING_IGNORED if ignore_index is None else ignore_index
    grad, losses = as_rows(logits).copy(), xp.empty(len(targets), logits.dtype)
    share = share_of_counted(xp, targets, ignored)
    cross_entropy_rows(xp, grad, targets, share, losses, ignored, wants_gradient=True)
    return sum_all(xp, losses), lambda dout: (grad * dout).reshape(shape)


def share_of_counted(xp, targets, ignored):
    """(1): 1 / the number of targets that are not ignored; infinite if all are."""
    share = xp.empty(1, np.float32)
    launch(xp, "share_of_counted", 1, 1024, targets=targets, share=share, N=len(targets), ignored=ignored)
    return share


def cross_entropy_rows(xp, logits, targets, share, losses, ignored, wants_gradient):
    """losses (n) of logits (n, V); the logits become their gradients."""
    n, V = logits.shape
    arrays = dict(logits=logits, targets=targets, share=share, losses=losses)
    threads = 32 if V <= 1024 else 256
    launch(xp, "cross_entropy", n, threads, **arrays, V=V, ignored=ignored, wants_gradient=wants_gradient)


def sum_all(xp, x):
    """(N) -> (): the sum of all elements, in a fixed order."""
    total = xp.empty((), x.dtype)
    launch(xp, "sum_all", 1, 1024, x=x, out=total, n=x.size)
    return total


@nn.embedding.on_gpu
def embedding(weight, ids):
    """Gradients of rows with the same id are added in a fixed order, without atomic additions."""
    nn.check_embedding(weight)
    xp, (V, C) = array_module(weight), weight.shape
    ids = check_ids(ids, V, "token id", like=weight)
    if ids.size == 0:  # kernels want something to do
        return nn.embedding.raw(weight, ids)
    ids_shape, ids = ids.shape, ids.reshape(-1)  # (...) -> (N)
    out = xp.empty((len(ids), C), weight.dtype)
    sizes, blocks = dict(N=len(ids), C=C, V=V), blocks_for(out.size, 4 * THREADS)
    launch(xp, "embedding_forward", blocks, THREADS, weight=contiguous(weight), ids=ids, out=out, **sizes)

    def dweight(dout, add_to):
        threads, stretches = 128, max(1, min(64, 4096 // V))
        dout, partial = contiguous(as_rows(dout)), xp.empty((stretches, V * C), dout.dtype)
        grid = (V, blocks_for(C, threads), stretches)
        launch(xp, "embedding_backward", grid, threads, dout=dout, ids=ids, partial=partial, **sizes)
        add_to = None if add_to is None else add_to.reshape(V * C)
        return column_sums(xp, partial, add_to).reshape(V, C)

    return out.reshape(*ids_shape, C), AddingPullback(dweight)


def column_sums(xp, x, add_to=None):
    """(N, C) -> (C), in two rounds if there are many rows; or added to an array."""
    (N, C), stretches = x.shape, stretches_of(x.shape[0])
    last = stretches == 1
    add = last and add_to is not None
    out = add_to if add else xp.empty((stretches, C), x.dtype)
    launch(xp, "column_sums", (blocks_for(C, 32), stretches), (32, 8), x=x, out=out, N=N, C=C, add=add)
    return out.reshape(C) if last else column_sums(xp, out, add_to)


def stretches_of(rows):
    """Into how many sets to divide rows that are summed, so that the whole GPU has work."""
    return max(1, min(128, rows // 128))


def contiguous(x):
    """The array itself if its elements lie in order, else a copy."""
    return x if x.flags.c_contiguous else x.copy()
