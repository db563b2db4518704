"""Causal self-attention, fused."""

import functools
import math
from typing import NamedTuple

import numpy as np

from autograd.backend import Array, array_module
from autograd.dispatch import dispatched
from autograd.operation import op
from autograd.ops.linalg import row_dots, row_sums
from autograd.random import Stream, check_dropout

__all__ = ["causal_attention"]

SAFE_EXPONENT = 64.0  # 2**±64, and sums of a million of them, are far from the limits of float32
LOG2_E = math.log2(math.e)


class WeightsBlock(NamedTuple):
    """The weights of queries start to stop over the keys that they see: e * kept * factor."""

    start: int
    stop: int
    e: Array  # (B, H, stop - start, keys): the exponentials
    kept: Array | None  # of the same shape: False where dropout drops
    factor: Array  # (B, H, stop - start, 1): 1 / sum of the exponentials, and dropout's scale


@op
def causal_attention(
    qkv, n_head: int, scale: float | None = None, dropout: float = 0.0, stream: Stream | None = None
):
    """Attention of every position to itself and its past: dropout(softmax(scale q kᵀ)) v for each head.

    qkv (B, T, 3C) holds queries, keys and values side by side, each split into n_head heads of D = C / n_head
    channels; the result is (B, T, C). scale is 1/√D unless given. With dropout > 0, stream says what is
    dropped; the rate is a multiple of 1/256, as in `dropout`.

    With weights P = softmax(S) and their dropped form Pd = P * keep / (1 - p):
        dv = Pdᵀ dout,   dP = (dout vᵀ) * keep / (1 - p),
        dS = P * (dP - delta) with delta = sum over keys of P * dP = sum over channels of dout * out,
        dq = scale dS k,   dk = scale dSᵀ q
    (delta as in FlashAttention, Dao et al. 2022.) P is kept as e / sum(e), and the division acts on the D
    channels of the result instead of on the weights. Powers of 2 replace the exponential, with log2(e) folded
    into the queries: NumPy's exp2 takes 0.3 ns per element, exp 0.5.
    """
    check_attention(qkv, n_head, dropout, stream)
    xp = array_module(qkv)
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    scale = (C // n_head) ** -0.5 if scale is None else scale
    q, k, v = split_heads(qkv, 3, n_head)  # (B, H, T, D) each
    keep, keep_scale = None, 1.0
    if dropout:
        keep, keep_scale = stream.keep_mask((B, n_head, T, T), dropout)
        keep = xp.asarray(keep)
    out = xp.empty((B, T, C), qkv.dtype)
    (y,) = split_heads(out, 1, n_head)  # the same memory as (B, H, T, D)
    blocks = _attend_in_blocks(q, k, v, y, scale, keep, keep_scale)

    def dqkv(dout):
        grad = xp.empty(qkv.shape, qkv.dtype)
        dq, dk, dv = split_heads(grad, 3, n_head)
        (dy_all,) = split_heads(dout, 1, n_head)
        v_t = _transposed(v)
        # The last queries first: they see all keys. What others add, goes into arrays of their own, since
        # NumPy adds to contiguous ones five times as fast.
        for start, stop, e, kept, factor in reversed(blocks):
            # 1. The gradient of the weights, up to the factor that e lacks: dout vᵀ, dropped as they were.
            dy = dy_all[:, :, start:stop] * factor  # (B, H, t, D)
            delta = row_dots(dy, y[:, :, start:stop]) / keep_scale
            ds = _dropped(dy @ v_t[..., :stop], kept)  # (B, H, t, stop)
            # 2. Through the softmax.
            ds -= delta
            ds *= e
            # 3. To this block's queries, and to all keys and values that they saw.
            xp.multiply(ds @ k[:, :, :stop], scale, out=dq[:, :, start:stop])
            dk_part = ds.swapaxes(-1, -2) @ (q[:, :, start:stop] * scale)
            dv_part = _dropped(e, kept).swapaxes(-1, -2) @ dy
            if stop == T:
                dk_sum, dv_sum = dk_part, dv_part
            else:
                dk_sum[:, :, :stop] += dk_part
                dv_sum[:, :, :stop] += dv_part
        if blocks:
            dk[...], dv[...] = dk_sum, dv_sum
        return grad

    return out, dqkv


def check_attention(qkv, n_head, dropout, stream):
    if not isinstance(n_head, int):
        raise TypeError(f"causal_attention: n_head is {n_head!r}; it must be an integer")
    if qkv.ndim != 3 or n_head < 1 or qkv.shape[-1] % (3 * n_head):
        raise ValueError(
            f"causal_attention: wanted (B, T, 3C) with C divisible by {n_head} heads, got {qkv.shape}"
        )
    check_dropout(dropout, stream)


@dispatched
def attend(q, k, v, y, scale):
    """Write into y (B, H, t, D) the attention of queries q to keys k and values v (B, H, T, D), T >= t.

    The queries belong to the last t positions. Without dropout and without a derivative.
    """
    _attend_in_blocks(q, k, v, y, scale)


def _attend_in_blocks(q, k, v, y, scale, keep=None, keep_scale=1.0):
    """As `attend`, with dropout. Returns the weights, which the pullback needs, in WeightsBlocks."""
    xp = array_module(q)
    past = k.shape[2] - q.shape[2]
    # On a GPU always: to look at the bound would wait for everything before it.
    shift = xp is not np or _score_bound(q, k) * abs(scale) * LOG2_E > SAFE_EXPONENT
    # A copy costs less than it saves, unless there is only one query.
    k_t = _transposed(k) if q.shape[2] > 1 else k.swapaxes(-1, -2)
    size, blocks = query_block(q.shape[2]), []
    for start in range(0, q.shape[2], size):
        stop = min(start + size, q.shape[2])
        seen = past + stop
        # 1. Scores of these queries and the keys that they see: (B, H, stop - start, seen)
        e = (q[:, :, start:stop] * (scale * LOG2_E)) @ k_t[..., :seen]
        if stop - start > 1:
            e[..., past + start :] += _future(xp, stop - start, e.dtype)
        # 2. The softmax, up to the division by the sum of each row.
        if shift:
            e -= e.max(-1, keepdims=True)
        xp.exp2(e, out=e)
        factor = keep_scale / row_sums(e)  # (B, H, stop - start, 1)
        # 3. The weighted sum of the values.
        kept = None if keep is None else keep[:, :, start:stop, :seen]
        xp.multiply(_dropped(e, kept) @ v[:, :, :seen], factor, out=y[:, :, start:stop])
        blocks.append(WeightsBlock(start, stop, e, kept, factor))
    return blocks


def query_block(T):
    """How many of T queries are handled at once.

    Their keys end where they end, so small blocks compute less of the future, and large ones multiply faster.
    """
    return 32 if T <= 256 else 128


def _transposed(x):
    """(..., T, D) -> (..., D, T), copied: BLAS multiplies small matrices by it 1.6 times as fast."""
    return array_module(x).ascontiguousarray(x.swapaxes(-1, -2))


def attend_to_cache(qkv, n_head, keys, values, start, last_only=False, scale=None):
    """Attention of new positions to all positions so far, for sampling: no derivative, no dropout.

    qkv (B, t, 3C) belongs to positions start to start + t; keys and values (B, H, T, D) hold those of the
    positions before and receive the new ones. Returns an array (B, t, C), or (B, 1, C) if only the last
    position is wanted. scale is 1/√D unless given.
    """
    B, t, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    stop = start + t
    q, k, v = split_heads(qkv, 3, n_head)  # (B, H, t, D)
    keys[:, :, start:stop], values[:, :, start:stop] = k, v
    if last_only:
        q = q[:, :, -1:]
    out = array_module(qkv).empty((B, q.shape[2], C), qkv.dtype)
    (y,) = split_heads(out, 1, n_head)
    scale = (C // n_head) ** -0.5 if scale is None else scale
    attend(q, keys[:, :, :stop], values[:, :, :stop], y, scale)
    return out


def split_heads(x, parts, n_head):
    """Views (B, H, T, D) of the `parts` slices of x (B, T, parts * H * D)."""
    B, T, C = x.shape
    x = x.reshape(B, T, parts, n_head, C // (parts * n_head))  # (B, T, parts * H * D) -> (B, T, parts, H, D)
    return [x[:, :, part].swapaxes(1, 2) for part in range(parts)]


@functools.lru_cache(8)
def _future(xp, n, dtype):
    """(n, n), added to the scores of a block on the diagonal: -inf where the key comes after the query."""
    return xp.triu(xp.full((n, n), -xp.inf, dtype), 1)


def _score_bound(q, k):
    """An upper bound for every |q·k| (Cauchy-Schwarz), from T D elements instead of T².

    If no score can overflow the exponential, there is no need to find each row's maximum and subtract it,
    which would take as long as the exponential itself.
    """
    if not q.size:
        return 0.0
    longest_q, longest_k = (math.sqrt(row_dots(x, x).max()) for x in (q, k))
    return longest_q * longest_k


def _dropped(weights, kept):
    return weights if kept is None else weights * kept
