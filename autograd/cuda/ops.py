"""The fused operations on a GPU. Derivations and meaning stand in autograd/ops, beside the forms for the CPU."""

import numpy as np

from autograd.backend import array_module
from autograd.cuda.launch import THREADS, blocks_for, launch
from autograd.cuda.products import product
from autograd.ops.attention import check_qkv
from autograd.ops.linalg import Shared, as_rows, check_linear
from autograd.ops.nn import check_ids
from autograd.tensor import AddingPullback, is_recording

FUSED = {}  # name of an operation: its form for float32 arrays on a GPU
WARPS = 4  # per block, in kernels that give each row to a warp
ACTIVATIONS = {None: 0, "relu": 1, "gelu": 2, "gelu_exact": 3}  # as in elementwise.cu
NOTHING_IGNORED = -(2**63)
HEAD_CHUNK = 2**27  # logits held at a time: 512 MB


def fused(function):
    """Make a function the GPU's form of the operation with the same name."""
    FUSED[function.__name__] = function
    return function


@fused
def linear(x, weight, bias=None, activation=None):
    """A product, and one kernel for bias and activation."""
    check_linear(x, weight)
    xp, kind, M = array_module(x), ACTIVATIONS[activation], weight.shape[1]
    x2 = as_rows(x)  # (..., K) -> (N, K)
    out = pre = product(xp, x2, weight)  # (N, M)
    if activation in ("gelu", "gelu_exact"):  # their slope cannot be told from their value
        out = xp.empty(pre.shape, pre.dtype)
    if bias is not None or kind:
        has_bias, blocks = bias is not None, blocks_for(pre.size, 4 * THREADS)
        launch(
            xp,
            "bias_activation_forward",
            blocks,
            THREADS,
            pre,
            bias if has_bias else pre,
            out,
            pre.size,
            M,
            has_bias,
            kind,
        )
    x_shape, kept = x.shape, pre if kind else None

    def dpre_of(dout):
        dout = contiguous(as_rows(dout))
        if not kind:
            return dout
        dpre = xp.empty(dout.shape, dout.dtype)
        launch(
            xp,
            "activation_backward",
            blocks_for(dout.size, 4 * THREADS),
            THREADS,
            kept,
            dout,
            dpre,
            dout.size,
            kind,
        )
        return dpre

    dpre = Shared(dpre_of)
    return out.reshape(*x_shape[:-1], M), (
        lambda dout: product(xp, dpre(dout), weight.T).reshape(x_shape),
        AddingPullback(lambda dout, add_to: product(xp, x2.T, dpre(dout), add_to=add_to)),
        AddingPullback(lambda dout, add_to: column_sums(xp, dpre(dout), add_to)),
    )


@fused
def layer_norm(x, weight, bias=None, eps=1e-5):
    """Keeps x, and a mean and a 1 / standard deviation per row."""
    xp, shape = array_module(x), x.shape
    x2 = contiguous(as_rows(x))  # (..., C) -> (N, C)
    N, C = x2.shape
    out, mean, rstd = xp.empty(x2.shape, x2.dtype), xp.empty(N, x2.dtype), xp.empty(N, x2.dtype)
    has_bias, blocks = bias is not None, blocks_for(N, WARPS)
    bias = bias if has_bias else weight
    launch(
        xp, "layer_norm_forward", blocks, 32 * WARPS, x2, weight, bias, out, mean, rstd, N, C, has_bias, eps
    )

    def dx(dout):
        dout, result = contiguous(as_rows(dout)), xp.empty(x2.shape, x2.dtype)
        launch(xp, "layer_norm_backward", blocks, 32 * WARPS, dout, x2, weight, mean, rstd, result, N, C)
        return result.reshape(shape)

    def partial_sums_of(dout):  # (2, stretches, C): of dweight and dbias
        dout, stretches = contiguous(as_rows(dout)), stretches_of(N)
        partial = xp.empty((2, stretches, C), dout.dtype)
        grid = (blocks_for(C, 32), stretches)
        launch(xp, "layer_norm_weight_gradients", grid, (32, 8), dout, x2, mean, rstd, partial, N, C)
        return partial

    partial_sums = Shared(partial_sums_of)
    return out.reshape(shape), (
        dx,
        AddingPullback(lambda dout, add_to: column_sums(xp, partial_sums(dout)[0], add_to)),
        AddingPullback(lambda dout, add_to: column_sums(xp, partial_sums(dout)[1], add_to)),
    )


@fused
def dropout(x, p, stream):
    """The mask is drawn again in the backward pass rather than kept."""
    xp, drawing = array_module(x), drawing_of(stream, p)

    def masked(values):
        values = contiguous(values)
        out, rows = xp.empty(values.shape, values.dtype), values.shape[0]
        per_row = values.size // rows
        groups = rows * blocks_for(per_row, 32)
        launch(
            xp,
            "dropout",
            blocks_for(groups, 32 * WARPS),
            32 * WARPS,
            values,
            values,
            out,
            rows,
            per_row,
            False,
            *drawing,
        )
        return out

    return masked(x), masked


def drawing_of(stream, p):
    """(seed, step and site, row, threshold, scale): what the kernels need to know to drop with probability p."""
    if not p:
        return 0, 0, 0, 0, 1.0
    dropped = stream.drop_threshold(p)
    return *stream.key(), stream.row, dropped, 256 / (256 - dropped)


@fused
def causal_attention(qkv, n_head, scale=None, dropout=0.0, stream=None):
    """Whole matrices of scores: five products and one kernel between them in each pass.

    Keeps q, k, v and the weights.
    """
    check_qkv(qkv, n_head)
    xp, (B, T, C) = array_module(qkv), (*qkv.shape[:2], qkv.shape[2] // 3)
    scale = (C // n_head) ** -0.5 if scale is None else scale
    drawing = drawing_of(stream, dropout)
    q, k, v = heads_from_rows(xp, qkv, 3, n_head, scale)  # (B * H, T, D) each, q scaled
    weights = product(xp, q, k.swapaxes(1, 2))  # (B * H, T, T)

    def on_weights(kernel, *arrays):
        launch(xp, kernel, blocks_for(B * n_head * T, WARPS), 32 * WARPS, *arrays, B, n_head, T, T, *drawing)

    dropped = xp.empty(weights.shape, weights.dtype) if dropout else weights
    on_weights("attention_forward", weights, dropped)
    out = rows_from_heads(xp, product(xp, dropped, v)[None], B, n_head)  # (1, B * H, T, D) -> (B, T, C)

    def dqkv(dout):
        (dy,) = heads_from_rows(xp, dout, 1, n_head)
        grad = xp.empty((3, *q.shape), q.dtype)
        ds = product(xp, dy, v.swapaxes(1, 2))  # (B * H, T, T)
        dropped = xp.empty(weights.shape, weights.dtype) if dropout else weights
        on_weights("attention_backward", weights, ds, dropped)
        product(xp, ds, k, out=grad[0])
        product(xp, ds.swapaxes(1, 2), q, out=grad[1])
        product(xp, dropped.swapaxes(1, 2), dy, out=grad[2])
        return rows_from_heads(xp, grad, B, n_head, scale)

    return out, dqkv


def attend(q, k, v, y, scale):
    """y = softmax(scale q kᵀ) v for the last t of T positions, without dropout: q, y (B, H, t, D), k, v (B,
    H, T, D).
    """
    xp, (B, H, t, D), T = array_module(q), q.shape, k.shape[2]
    q, k, v = (contiguous(x).reshape(B * H, x.shape[2], D) for x in (q * np.float32(scale), k, v))
    weights = product(xp, q, k.swapaxes(1, 2))  # (B * H, t, T)
    launch(
        xp,
        "attention_forward",
        blocks_for(B * H * t, WARPS),
        32 * WARPS,
        weights,
        weights,
        B,
        H,
        t,
        T,
        *drawing_of(None, 0),
    )
    y[...] = product(xp, weights, v).reshape(y.shape)


def heads_from_rows(xp, x, parts, n_head, scale=1.0):
    """(B, T, parts * H * D) -> `parts` arrays (B * H, T, D); the first multiplied by scale."""
    x, (B, T, width) = contiguous(x), x.shape
    D = width // (parts * n_head)
    heads = xp.empty((parts, B * n_head, T, D), x.dtype)
    launch(
        xp,
        "heads_from_rows",
        blocks_for(x.size, 4 * THREADS),
        THREADS,
        x,
        heads,
        B,
        T,
        parts,
        n_head,
        D,
        scale,
    )
    return list(heads)


def rows_from_heads(xp, heads, B, n_head, scale=1.0):
    """(parts, B * H, T, D) -> (B, T, parts * H * D); the first part multiplied by scale."""
    parts, _, T, D = heads.shape
    x = xp.empty((B, T, parts * n_head * D), heads.dtype)
    launch(
        xp,
        "rows_from_heads",
        blocks_for(x.size, 4 * THREADS),
        THREADS,
        heads,
        x,
        B,
        T,
        parts,
        n_head,
        D,
        scale,
    )
    return x


@fused
def linear_cross_entropy(x, weight, bias, targets, ignore_index=None):
    """Gradients are computed with the loss, a chunk of rows at a time, as on the CPU."""
    xp, shape, V = array_module(x), x.shape, weight.shape[1]
    x2, targets = (
        contiguous(as_rows(x)),
        contiguous(check_ids(targets, V, "target", like=x, ignore=ignore_index).reshape(-1)),
    )
    N = len(x2)
    wants_gradients, ignored = is_recording(), NOTHING_IGNORED if ignore_index is None else ignore_index
    share, losses, loss = xp.empty(1, x.dtype), xp.empty(N, x.dtype), xp.empty((), x.dtype)
    launch(xp, "share_of_counted", 1, 1024, targets, share, N, ignored)
    if wants_gradients:
        dx, dweight_t, dbias = xp.empty(x2.shape, x.dtype), xp.empty(weight.T.shape, x.dtype), None
    rows = max(256, HEAD_CHUNK // V)
    for start in range(0, N, rows):
        part, again = slice(start, start + rows), start > 0
        logits = product(xp, x2[part], weight)  # (n, V)
        if bias is not None:
            blocks = blocks_for(logits.size, 4 * THREADS)
            launch(
                xp, "bias_activation_forward", blocks, THREADS, logits, bias, logits, logits.size, V, True, 0
            )
        cross_entropy_rows(xp, logits, targets[part], share, losses[part], ignored, wants_gradients)
        if wants_gradients:
            product(xp, logits, weight.T, out=dx[part])
            product(xp, logits.T, x2[part], **({"add_to": dweight_t} if again else {"out": dweight_t}))
            if bias is not None:
                dbias = column_sums(xp, logits, add_to=dbias)
    launch(xp, "sum_all", 1, 1024, losses, loss, N)
    return loss, (
        lambda dout: (dx * dout).reshape(shape),
        lambda dout: (dweight_t * dout).T,
        lambda dout: dbias * dout,
    )


def cross_entropy_rows(xp, logits, targets, share, losses, ignored, wants_gradient):
    """losses (n) of logits (n, V); the logits become their gradients."""
    n, V = logits.shape
    launch(
        xp,
        "cross_entropy",
        n,
        32 if V <= 1024 else 256,
        logits,
        targets,
        share,
        losses,
        V,
        ignored,
        wants_gradient,
    )


@fused
def cross_entropy(logits, targets, ignore_index=None):
    xp, shape = array_module(logits), logits.shape
    targets = contiguous(
        check_ids(targets, shape[-1], "target", like=logits, ignore=ignore_index).reshape(-1)
    )
    ignored = NOTHING_IGNORED if ignore_index is None else ignore_index
    grad, N = as_rows(logits).copy(), len(targets)
    share, losses, loss = xp.empty(1, grad.dtype), xp.empty(N, grad.dtype), xp.empty((), grad.dtype)
    launch(xp, "share_of_counted", 1, 1024, targets, share, N, ignored)
    cross_entropy_rows(xp, grad, targets, share, losses, ignored, True)
    launch(xp, "sum_all", 1, 1024, losses, loss, N)
    return loss, lambda dout: (grad * dout).reshape(shape)


@fused
def embedding(weight, ids):
    """Gradients of rows with the same id are added in a fixed order, without atomic additions."""
    xp, (V, C) = array_module(weight), weight.shape
    ids_shape, ids = ids.shape, contiguous(check_ids(ids, V, "token id", like=weight).reshape(-1))
    N = len(ids)
    out = xp.empty((N, C), weight.dtype)
    launch(
        xp,
        "embedding_forward",
        blocks_for(out.size, 4 * THREADS),
        THREADS,
        contiguous(weight),
        ids,
        out,
        N,
        C,
        V,
    )

    def dweight(dout, add_to):
        threads, stretches = 128, max(1, min(64, 4096 // V))
        partial = xp.empty((stretches, V * C), dout.dtype)
        grid = (V, blocks_for(C, threads), stretches)
        launch(xp, "embedding_backward", grid, threads, contiguous(as_rows(dout)), ids, partial, N, C, V)
        return column_sums(xp, partial, None if add_to is None else add_to.reshape(V * C)).reshape(V, C)

    return out.reshape(*ids_shape, C), AddingPullback(dweight)


def column_sums(xp, x, add_to=None):
    """(N, C) -> (C), in two rounds if there are many rows; or added to an array."""
    (N, C), stretches = x.shape, stretches_of(x.shape[0])
    last = stretches == 1
    out = add_to if last and add_to is not None else xp.empty((stretches, C), x.dtype)
    launch(
        xp, "column_sums", (blocks_for(C, 32), stretches), (32, 8), x, out, N, C, last and add_to is not None
    )
    return out.reshape(C) if last else column_sums(xp, out, add_to)


def stretches_of(rows):
    """Into how many sets to divide rows that are summed, so that the whole GPU has work."""
    return max(1, min(128, rows // 128))


def contiguous(x):
    """The array itself if its elements lie in order, else a copy."""
    return x if x.flags.c_contiguous else x.copy()
