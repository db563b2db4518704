"""The fused operations on a GPU. Their derivations stand in autograd/ops, beside the forms for the CPU."""

import functools
import math
import threading

import numpy as np

from autograd.backend import array_module
from autograd.cuda.launch import blocks_for, launch
from autograd.cuda.products import product
from autograd.ops import attention, linalg, nn
from autograd.ops.linalg import Shared, as_rows
from autograd.ops.nn import check_ids, check_targets
from autograd.random import check_dropout
from autograd.recording import is_recording
from autograd.tape import AddingPullback, SummingPullback, Target

MOST_ROWS = 2**16  # of blocks that take rows in turn
WARPS = 4  # per block, in kernels that give each row to a warp
SORTERS = 512  # threads of sort_by_id, as in loss.cu
THREADS_IN_ROW = 128  # per block, in kernels that give each row to a block
ACTIVATION_CODES = {None: 0, "relu": 1, "gelu": 2, "gelu_exact": 3}  # as in elementwise.cu
NOTHING_IGNORED = -(2**63)
GPU_LOGITS_AT_ONCE = 2**27  # of linear_cross_entropy: 512 MB
# Of causal_attention. Fewer queries at once means less work on keys that none of them sees. But it means more
# launches, and the gradients of keys and values are added to more often.
GPU_QUERY_BLOCK = 256
GPU_SCORES_AT_ONCE = 120_000_000  # 480 MB, and as much again for their gradients


@linalg.linear.on_gpu
def linear(x, weight, bias=None, activation=None):
    """A product, and one kernel for bias and activation; on the way back one for the slope and the sums."""
    linalg.check_linear(x, weight, bias, activation)
    if weight.size == 0:  # kernels want something to do
        return linalg.linear.raw(x, weight, bias, activation)
    xp, kind, M = array_module(x), ACTIVATION_CODES[activation], weight.shape[1]
    x2 = as_rows(x)  # (..., K) -> (N, K)
    out = pre = product(xp, x2, weight)  # (N, M)
    bias = None if bias is None else contiguous(bias)
    if activation in ("gelu", "gelu_exact"):  # their slope cannot be told from their value
        out = xp.empty(pre.shape, pre.dtype)
    if bias is not None or kind:
        blocks, arguments = min(len(pre), MOST_ROWS), dict(N=len(pre), M=M, kind=kind)
        arrays = dict(pre=pre, **given(bias, pre), out=out)
        launch(xp, "bias_activation_forward", blocks, THREADS_IN_ROW, **arrays, **arguments)

    # The slope is told from the product and the bias, or from the result that took the product's place.
    kept = dict(pre=pre, **given(None if out is pre else bias, pre), kind=kind) if kind else None

    def backward(dout, dpre, **sums):
        launch_sums(xp, "activation_backward", **sums, **kept, dout=dout, dpre=dpre)

    return out.reshape(*x.shape[:-1], M), pullbacks_of_product(xp, x, weight, backward if kind else None)


def given(bias, other):
    """Two arguments of a kernel: a bias, and whether there is one; if not, another array takes its place."""
    return dict(bias=other if bias is None else contiguous(bias), has_bias=bias is not None)


def pullbacks_of_product(xp, x, weight, backward):
    """Those of x (..., K), weight and bias in f(x @ weight + bias).

    backward(dout, dpre, ...) computes the gradient of the sum from that of the result, and with launch_sums
    that of the bias. None: both gradients are the same.
    """
    x_shape, x2, C = x.shape, as_rows(x), weight.shape[1]  # (..., K) -> (N, K)

    def gradients_of(dout):
        """dpre (N, C), and dbias (C) if it was computed with it."""
        dout = contiguous(as_rows(dout))
        if backward is None:
            return dout, None
        dpre, dbias = xp.empty(dout.shape, dout.dtype), sums_into(xp, C, bias_target.array)
        backward(dout, dpre, N=len(dout), C=C, dbias=dbias, add=bias_target.array is not None)
        return dpre, dbias

    def dbias_of(dout, add_to):
        dpre, dbias = gradients(dout)
        return column_sums(xp, dpre, add_to=add_to) if dbias is None else dbias

    gradients, bias_target = Shared(gradients_of), Target()
    return (
        lambda dout: product(xp, gradients(dout)[0], weight.T).reshape(x_shape),
        AddingPullback(lambda dout, add_to: product(xp, x2.T, gradients(dout)[0], add_to=add_to)),
        AddingPullback(dbias_of, bias_target),
    )


@nn.residual_linear.on_gpu
def residual_linear(x, h, weight, bias=None, p=0.0, stream=None):
    """A product, and one kernel for bias, dropout and sum. The mask is drawn again in the backward pass."""
    nn.check_residual_linear(x, h, weight, bias, p, stream)
    if x.ndim == 1:  # dropout takes each of its elements for a row
        return nn.residual_linear.raw(x, h, weight, bias, p, stream)
    xp, C, drawing = array_module(x), weight.shape[1], drawing_of(stream, p)
    x2, out = contiguous(as_rows(x)), product(xp, as_rows(h), weight)  # (..., C) -> (N, C)
    sizes = dict(N=len(x2), C=C, T=math.prod(x.shape[1:-1]))
    blocks = blocks_for(len(x2), WARPS)
    launch(xp, "residual_forward", blocks, 32 * WARPS, x=x2, y=out, **given(bias, x2), **sizes, **drawing)

    def backward(dout, dpre, **sums):
        launch_sums(xp, "residual_backward", **sums, dout=dout, dpre=dpre, T=sizes["T"], **drawing)

    drops = drawing["dropped"] > 0
    return out.reshape(x.shape), (
        lambda dout: dout,
        *pullbacks_of_product(xp, h, weight, backward if drops else None),
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
    blocks, parameters = blocks_for(N, WARPS), dict(weight=weight, **given(bias, weight), eps=eps)
    launch(xp, "layer_norm_forward", blocks, 32 * WARPS, **kept, **parameters, out=out)

    def dx(dout, plus):
        dout, result = contiguous(as_rows(dout)), xp.empty(x2.shape, x2.dtype)
        has_plus = plus is not None
        plus = contiguous(as_rows(plus)) if has_plus else dout  # a kernel wants an array
        arrays = dict(weight=weight, dout=dout, dx=result, plus=plus, has_plus=has_plus)
        launch(xp, "layer_norm_backward", blocks, 32 * WARPS, **kept, **arrays)
        return result.reshape(shape)

    def weight_gradients_of(dout):
        dweight, dbias = (sums_into(xp, C, target.array) for target in targets)
        adds = dict(add_weight=targets[0].array is not None, add_bias=targets[1].array is not None)
        arrays = dict(dout=contiguous(as_rows(dout)), dweight=dweight, dbias=dbias)
        launch_sums(xp, "layer_norm_weight_gradients", arrays=2, **kept, **arrays, **adds)
        return dweight, dbias

    weight_gradients, targets = Shared(weight_gradients_of), (Target(), Target())
    return out.reshape(shape), (
        SummingPullback(dx),
        AddingPullback(lambda dout, add_to: weight_gradients(dout)[0], targets[0]),
        AddingPullback(lambda dout, add_to: weight_gradients(dout)[1], targets[1]),
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
    """In blocks of queries, as on the CPU: for each, two products and a kernel, and on the way back five.

    Keeps q, k, v, the result, and two numbers for each row of the weights. With these the backward pass
    computes the weights again, as in FlashAttention (Dao et al. 2022). So memory grows with T, not with T².
    """
    attention.check_attention(qkv, n_head, dropout, stream)
    xp, (B, T, C) = array_module(qkv), (*qkv.shape[:2], qkv.shape[2] // 3)
    D = C // n_head
    scale = D**-0.5 if scale is None else scale
    blocks, drawing = query_blocks(B, n_head, T), drawing_of(stream, dropout)
    q, k, v = heads_from_rows(xp, qkv, 3, n_head, scale)  # (B * H, T, D) each, q scaled
    y, softmax = xp.empty(q.shape, q.dtype), xp.empty((2, *q.shape[:2]), q.dtype)
    for start, stop in blocks:
        weights = product(xp, q[:, start:stop], k[:, :stop].swapaxes(1, 2))  # (B * H, t, stop)
        arrays = dict(scores=weights, softmax=softmax)
        launch_on_scores(xp, "attention_forward", B, n_head, T, start, drawing, **arrays)
        product(xp, weights, v[:, :stop], out=y[:, start:stop])
        del weights, arrays  # before the next block asks for memory
    out = rows_from_heads(xp, y[None], B, n_head)  # (1, B * H, T, D) -> (B, T, C)

    def dqkv(dout):
        dout = contiguous(dout)
        (dy,) = heads_from_rows(xp, dout, 1, n_head)
        grad = xp.empty((3, *q.shape), q.dtype)
        dq, dk, dv = grad
        for start, stop in blocks:
            weights = product(xp, q[:, start:stop], k[:, :stop].swapaxes(1, 2))  # (B * H, t, stop)
            ds = product(xp, dy[:, start:stop], v[:, :stop].swapaxes(1, 2))
            arrays = dict(scores=weights, gradient=ds, softmax=softmax, out=out, dout=dout, D=D)
            launch_on_scores(xp, "attention_backward", B, n_head, T, start, drawing, **arrays)
            product(xp, ds, k[:, :stop], out=dq[:, start:stop])
            # The first of these blocks has all keys; the others add to what it wrote.
            where = "out" if stop == T else "add_to"
            product(xp, ds.swapaxes(1, 2), q[:, start:stop], **{where: dk[:, :stop]})
            product(xp, weights.swapaxes(1, 2), dy[:, start:stop], **{where: dv[:, :stop]})
            del weights, ds, arrays
        return rows_from_heads(xp, grad, B, n_head, scale)

    return out, dqkv


def query_blocks(B, n_head, T):
    """[(start, stop)] of the queries whose scores are in memory at once.

    The last come first: they see the most keys, and smaller arrays find room where a larger one was.
    """
    size = queries_at_once(B, n_head, T)
    return [(start, min(start + size, T)) for start in range(0, T, size)][::-1]


def queries_at_once(B, n_head, T):
    """GPU_QUERY_BLOCK, but fewer if there would be more than GPU_SCORES_AT_ONCE scores."""
    return min(T, GPU_QUERY_BLOCK, max(32, GPU_SCORES_AT_ONCE // (B * n_head * T) // 32 * 32))


def launch_on_scores(xp, kernel, B, n_head, T, first, drawing, *, scores, **arguments):
    """A kernel of attention, on the scores (B * H, t, K) of the queries from `first` on."""
    _, t, K = scores.shape
    # With dropout a warp takes so many rows that its lanes have a group of 32 elements each to draw for.
    groups = T // 32 + (2 if T % 32 else 0)  # that a row may touch
    rows = max(1, 32 // groups) if drawing["dropped"] else 1
    sizes = dict(B=B, H=n_head, t=t, K=K, T=T, first=first, rows=rows)
    blocks = blocks_for(B * n_head * t, rows * WARPS)
    launch(xp, kernel, blocks, 32 * WARPS, scores=scores, **arguments, **sizes, **drawing)


@attention.attend.on_gpu
def attend(q, k, v, y, scale):
    xp, (B, H, t, D), T = array_module(q), q.shape, k.shape[2]
    q, k, v = (x.reshape(B * H, x.shape[2], D) for x in (q * np.float32(scale), k, v))
    weights = product(xp, q, k.swapaxes(1, 2))  # (B * H, t, T)
    arrays = dict(scores=weights, softmax=xp.empty((2, B * H, T), q.dtype))
    launch_on_scores(xp, "attention_forward", B, H, T, T - t, drawing_of(None, 0), **arrays)
    y[...] = product(xp, weights, v).reshape(y.shape)  # (B * H, t, D) -> (B, H, t, D)


def heads_from_rows(xp, x, parts, n_head, scale=1.0):
    """(B, T, parts * H * D) -> `parts` arrays (B * H, T, D); the first multiplied by scale."""
    x, (B, T, width) = contiguous(x), x.shape
    D = width // (parts * n_head)
    heads = xp.empty((parts, B * n_head, T, D), x.dtype)
    sizes = dict(B=B, T=T, parts=parts, H=n_head, D=D)
    launch(xp, "heads_from_rows", B * T, THREADS_IN_ROW, rows=x, heads=heads, **sizes, scale=scale)
    return list(heads)


def rows_from_heads(xp, heads, B, n_head, scale=1.0):
    """(parts, B * H, T, D) -> (B, T, parts * H * D); the first part multiplied by scale."""
    parts, _, T, D = heads.shape
    x = xp.empty((B, T, parts * n_head * D), heads.dtype)
    sizes = dict(B=B, T=T, parts=parts, H=n_head, D=D)
    launch(xp, "rows_from_heads", B * T, THREADS_IN_ROW, heads=heads, rows=x, **sizes, scale=scale)
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
    # Rows of logits begin at multiples of 128 bytes: V may be odd, and for odd places cuBLAS is slow.
    stride = -(-V // 32) * 32
    rows = max(256, GPU_LOGITS_AT_ONCE // stride // 256 * 256)
    for start in range(0, N, rows):
        part = slice(start, start + rows)
        padded = xp.empty((min(rows, N - start), stride), x.dtype)
        logits = product(xp, x2[part], weight, out=padded[:, :V])  # (n, V)
        loss_of_rows = dict(losses=losses[part], share=share, ignored=ignored, wants_gradient=wants_gradients)
        cross_entropy_rows(xp, padded, V, targets[part], bias=bias, **loss_of_rows)
        if wants_gradients:  # the logits are their own gradients by now
            product(xp, logits, weight.T, out=dx[part])
            if start == 0:
                product(xp, logits.T, x2[part], out=dweight_t)
            else:
                product(xp, logits.T, x2[part], add_to=dweight_t)
            if bias is not None:
                dbias = column_sums(xp, padded, V, add_to=dbias)
        del padded, logits  # before the next rows ask for memory
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
    loss_of_rows = dict(losses=losses, share=share, ignored=ignored, wants_gradient=True)
    cross_entropy_rows(xp, grad, shape[-1], targets, **loss_of_rows)
    return sum_all(xp, losses), lambda dout: (grad * dout).reshape(shape)


def share_of_counted(xp, targets, ignored):
    """(1): 1 / the number of targets that are not ignored; infinite if all are."""
    share = xp.empty(1, np.float32)
    launch(xp, "share_of_counted", 1, 1024, targets=targets, share=share, N=len(targets), ignored=ignored)
    return share


def cross_entropy_rows(xp, logits, V, targets, losses, *, bias=None, **arguments):
    """losses (n) of logits (n, V or more) plus bias (V); with wants_gradient, gradients take their place."""
    n, stride = logits.shape
    arrays = dict(logits=logits, **given(bias, logits), targets=targets, losses=losses)
    threads = 32 if V <= 1024 else 256
    launch(xp, "cross_entropy", n, threads, **arrays, V=V, stride=stride, **arguments)


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
    arrays = dict(weight=contiguous(weight), ids=ids, out=out)
    launch(xp, "embedding_forward", len(ids), THREADS_IN_ROW, **arrays, C=C, V=V)

    def dweight(dout, add_to):
        dout, result = contiguous(as_rows(dout)), xp.zeros((V, C), dout.dtype) if add_to is None else add_to
        keys, places = sorted_by_id(xp, ids, V)
        grid = (blocks_for(len(ids), 8), blocks_for(C, 32))
        arrays = dict(dout=dout, keys=keys, places=places, dweight=result)
        launch(xp, "embedding_backward", grid, (32, 8), **arrays, N=len(ids), C=C, V=V)
        return result

    return out.reshape(*ids_shape, C), AddingPullback(dweight)


def sorted_by_id(xp, ids, V):
    """(ids in ascending order, where each was), both in the first of two rows; an id outside [0, V) as V."""
    N = len(ids)
    keys, places = xp.empty((2, N), np.int32), xp.empty((2, N), np.int32)
    passes = blocks_for(V.bit_length(), 8) * 2  # of 4 bits each, and an even number of them
    launch(xp, "sort_by_id", 1, SORTERS, ids=ids, keys=keys, places=places, N=N, V=V, passes=passes)
    return keys, places


def column_sums(xp, x, C=None, add_to=None):
    """(N, C or more) -> (C), in a fixed order; or added to an array."""
    N, stride = x.shape
    C = stride if C is None else C
    out = sums_into(xp, C, add_to)
    launch_sums(xp, "column_sums", N=N, C=C, x=x, out=out, stride=stride, add=add_to is not None)
    return out


def sums_into(xp, C, add_to):
    """Where a kernel puts its sums (C): into an array that it adds to, or a new one."""
    return xp.empty(C, np.float32) if add_to is None else add_to


def launch_sums(xp, kernel, N, C, arrays=1, **arguments):
    """A kernel that sums the columns of this many arrays (N, C). See `keep_sums` in common.cu."""
    stretches = max(1, min(256, N // 64))  # sets of rows, so that the whole GPU has work
    partial, grid = xp.empty((arrays, stretches, C), np.float32), (blocks_for(C, 32), stretches)
    arrived = zeros_of_stream(xp, blocks_for(C, 32))
    sizes = dict(partial=partial, arrived=arrived, N=N, C=C)
    launch(xp, kernel, grid, (32, 8), **sizes, **arguments)


def zeros_of_stream(xp, count):
    """At least `count` zeros (int32), the same in each call: for kernels that leave them as they were.

    Kernels of one stream run one after the other, so they can share them.
    """
    stream = xp.cuda.get_current_stream()
    return _zeros(xp, xp.cuda.Device().id, threading.get_ident(), stream.ptr, 2 ** (count - 1).bit_length())


@functools.lru_cache(256)
def _zeros(xp, device, thread, stream, count):
    return xp.zeros(count, np.int32)


def contiguous(x):
    """The array itself if its elements lie in order, else a copy."""
    return x if x.flags.c_contiguous else x.copy()
