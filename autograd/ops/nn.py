"""The operations of a GPT, fused: one forward pass and one derivative worked out by hand for each.

Written straight from primitives, each would record several operations and keep every intermediate array. Each
is tested to equal that composition. Names as in llm.c: dout is the gradient that comes in, dx the one that
goes out.
"""

import numpy as np

from autograd.backend import Array, array_module, device_of, is_array
from autograd.operation import op
from autograd.ops import arguments
from autograd.ops.elementwise import shape_of
from autograd.ops.linalg import Shared, as_rows, check_product, column_sums, row_dots, row_sums
from autograd.random import Stream, check_dropout
from autograd.recording import is_recording
from autograd.tensor import Tensor

__all__ = [
    "cross_entropy",
    "dropout",
    "embedding",
    "layer_norm",
    "linear_cross_entropy",
    "log_softmax",
    "residual_linear",
    "softmax",
]

LOGITS_AT_ONCE = 2**20  # of linear_cross_entropy: 4 MB in float32
FAR_FROM_0 = 10.0  # of layer_norm: a row's mean, in its standard deviations


@op
def softmax(x, axis: int = -1):
    """exp(x) / sum(exp(x)) along an axis.  dx = out * (dout - sum(dout * out))"""
    axis = arguments.one_axis(axis, x.ndim or 1)
    if not x.size:  # which has no maximum
        return x, lambda dout: dout
    xp = array_module(x)
    out = xp.exp(x - x.max(axis, keepdims=True))
    out /= out.sum(axis, keepdims=True)
    return out, lambda dout: out * (dout - (dout * out).sum(axis, keepdims=True))


@op
def log_softmax(x, axis: int = -1):
    """x - logsumexp(x) along an axis.  dx = dout - softmax(x) * sum(dout)"""
    axis = arguments.one_axis(axis, x.ndim or 1)
    if not x.size:
        return x, lambda dout: dout
    xp = array_module(x)
    out = x - x.max(axis, keepdims=True)  # first, so that no digits are lost beside a large maximum
    out -= xp.log(xp.exp(out).sum(axis, keepdims=True))
    return out, lambda dout: dout - xp.exp(out) * dout.sum(axis, keepdims=True)


@op
def layer_norm(x, weight, bias=None, eps: float = 1e-5):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis; x (..., C), weight and bias (C).

    With xhat = (x - mean) * rstd and dxhat = dout * weight:
    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat)): what is left of dxhat when its share along
    the constant and along xhat is taken out, because the output does not change in these directions.
    """
    check_layer_norm(x, weight, bias)
    x2 = as_rows(x)  # (..., C) -> (N, C)
    xp, shape, C = array_module(x), x.shape, x.shape[-1]
    mean = row_sums(x2) / C  # (N, 1)
    xhat = x2 - mean
    rstd = reciprocal_std(xhat, eps)  # (N, 1)
    # The mean is rounded, and far from 0 that is an error as large as xhat. The mean of xhat corrects it. If
    # no row is far, this second pass is saved. Not on a GPU: to look would wait for everything before it.
    far = abs(mean) * rstd > FAR_FROM_0
    if xp is not np or far.any():
        xhat -= xp.where(far, row_sums(xhat) / C, 0)
        rstd = reciprocal_std(xhat, eps)
    xhat *= rstd
    out = xhat * weight
    if bias is not None:
        out += bias

    def dx(dout):
        dxhat = dout.reshape(xhat.shape) * weight
        mean_dxhat, mean_dxhat_xhat = row_sums(dxhat) / C, row_dots(dxhat, xhat) / C
        dxhat -= mean_dxhat
        dxhat -= xhat * mean_dxhat_xhat
        dxhat *= rstd
        return dxhat.reshape(shape)

    return out.reshape(shape), (
        dx,
        lambda dout: array_module(dout).einsum("nc,nc->c", dout.reshape(xhat.shape), xhat),
        lambda dout: column_sums(dout.reshape(xhat.shape)),
    )


def check_layer_norm(x, weight, bias):
    x, shapes = shape_of(x), [shape_of(parameter) for parameter in (weight, bias) if parameter is not None]
    if not x or any(shape != x[-1:] for shape in shapes):
        found = " and bias ".join(map(str, shapes))
        raise ValueError(f"layer_norm: x {x} does not fit weight {found}; wanted (..., C), (C,) and (C,)")


def reciprocal_std(centred, eps):
    """1 / sqrt(variance + eps) of rows (N, C) whose mean is 0: (N, 1)"""
    return (row_dots(centred, centred) / centred.shape[1] + eps) ** -0.5


@op
def cross_entropy(logits, targets: Array, ignore_index: int | None = None):
    """The mean over tokens of -log softmax(logits)[target]; a 0-d result.

    logits (..., V); targets: integers of shape (...), IndexError outside [0, V). Tokens whose target is
    ignore_index do not count, neither in the sum nor in the mean. If no token counts, the result is NaN and
    the gradient 0.
    dlogits = (softmax(logits) - onehot(target)) / count
    """
    check_logits(logits)
    xp, shape = array_module(logits), logits.shape
    targets, counted, count = counted_targets(targets, shape[-1], logits, ignore_index)
    logits = as_rows(logits)  # (..., V) -> (N, V)
    rows = xp.arange(len(targets))
    shift = logits.max(-1, keepdims=True)
    total = row_sums(xp.exp(logits - shift))  # (N, 1)
    losses = xp.where(counted, xp.log(total)[:, 0] - (logits[rows, targets] - shift[:, 0]), 0)

    def dlogits(dout):
        share = counted * (dout / xp.maximum(count, 1))  # (N)
        grad = xp.exp(logits - shift)
        grad *= share[:, None] / total
        grad[rows, targets] -= share
        return grad.reshape(shape)

    return mean_of_counted(losses.sum(), count), dlogits


def check_logits(logits):
    if logits.ndim == 0:
        raise ValueError("cross_entropy: wanted logits (..., V), got a single number")


def counted_targets(targets, V, rows, ignore):
    """Targets (N) of the rows (..., C), which (N) count, and their number, in the dtype of the rows.

    The targets that do not count become 0.
    """
    xp, targets = array_module(rows), check_targets(targets, V, rows, ignore)
    counted = targets != ignore if ignore is not None else xp.ones(targets.shape, bool)
    return xp.where(counted, targets, 0), counted, counted.sum().astype(rows.dtype)


def mean_of_counted(total, count):
    """total / count: NaN, without a warning, if nothing counts."""
    with np.errstate(invalid="ignore"):
        return total / count


@op
def linear_cross_entropy(x, weight, bias=None, targets: Array | None = None, ignore_index: int | None = None):
    """cross_entropy(linear(x, weight, bias), targets): the head of a language model, fused.

    x (..., C), weight (C, V), bias (V) or None, targets (...), which cannot be left out. The logits never
    exist all at once: rows are handled in chunks. Each chunk's logits turn in place into dlogits = (softmax -
    onehot) / count, and these are used at once for its parts of dx, dweight and dbias. So when the forward
    pass ends the gradients are ready, except for the factor dout, and memory does not grow with rows times
    vocabulary.
    """
    check_product("linear_cross_entropy", x, weight, bias)
    xp = array_module(x)
    targets, counted, count = counted_targets(targets, weight.shape[1], x, ignore_index)
    x2 = as_rows(x)  # (..., C) -> (N, C)
    share = counted.astype(x.dtype) / xp.maximum(count, 1)  # (N): each row's part in the mean
    wants_gradients = is_recording()
    if wants_gradients:
        dx = xp.empty(x2.shape, x.dtype)
        dweight_t = None  # (V, C), the layout of a head tied to the embedding
        dbias = xp.zeros(weight.shape[1], x.dtype)
    loss = mean_of_counted(xp.zeros((), x.dtype), count)  # 0, or NaN if nothing counts
    rows = rows_at_once(*weight.shape)
    for start in range(0, max(1, len(x2)), rows):
        # 1. This chunk's logits.
        part = slice(start, start + rows)
        logits = x2[part] @ weight  # (n, V)
        if bias is not None:
            logits += bias
        # 2. Its part of the loss: log(sum(exp(logits))) - logits[target], both after each row's maximum is
        # taken off. A row that does not count may have any logits, also -inf.
        n = xp.arange(len(logits))
        logits -= logits.max(-1, keepdims=True)
        at_target = logits[n, targets[part]]
        xp.exp(logits, out=logits)
        total = row_sums(logits)
        loss += (share[part] * xp.where(counted[part], xp.log(total)[:, 0] - at_target, 0)).sum()
        # 3. From exp(logits) to dlogits, and from these to the gradients.
        if wants_gradients:
            logits *= share[part, None] / total
            logits[n, targets[part]] -= share[part]
            xp.matmul(logits, weight.T, out=dx[part])
            dweight_part = logits.T @ x2[part]
            dweight_t = dweight_part if dweight_t is None else xp.add(dweight_t, dweight_part, out=dweight_t)
            dbias += column_sums(logits)
    shape = x.shape
    return loss, (
        lambda dout: (dx * dout).reshape(shape),
        lambda dout: (dweight_t * dout).T,
        lambda dout: dbias * dout,
    )


def rows_at_once(C, V):
    """How many rows linear_cross_entropy handles in a chunk.

    Their logits are rows * V numbers. A second chunk needs C * V more, for its part of dweight, and time to
    add that. So chunks of about C rows take no more memory than small ones, and less time.
    """
    return max(C + 256, LOGITS_AT_ONCE // V)


@op
def embedding(weight, ids: Array):
    """The rows of weight (V, C) that integers ids (...) name: a result of shape (..., C).

    IndexError for an id outside [0, V).
    dweight[v] = sum of dout over all places where ids == v
    """
    check_embedding(weight)
    ids = check_ids(ids, weight.shape[0], "token id", like=weight)

    def dweight(dout):
        return sum_rows_by_id(as_rows(dout), ids.reshape(-1), weight.shape[0])

    return weight[ids], dweight


def check_embedding(weight):
    if weight.ndim != 2:
        raise ValueError(f"embedding: wanted a weight (V, C), got shape {weight.shape}")


def sum_rows_by_id(rows, ids, n):
    """(N, C), (N) -> (n, C): the sum of the rows that carry each id.

    Sorting brings equal ids together, in order.
    """
    xp = array_module(rows)
    out = xp.zeros((n, rows.shape[1]), rows.dtype)
    if len(ids) == 0:
        return out
    if xp is not np:  # atomic additions come in any order; a product with a one-hot matrix always in the same
        if n * len(ids) <= 2**26:
            return (xp.arange(n)[:, None] == ids).astype(rows.dtype) @ rows
        xp.add.at(out, ids, rows)
        return out
    order = np.argsort(ids, kind="stable")
    sorted_ids = ids[order]
    starts = np.flatnonzero(np.diff(sorted_ids, prepend=-1))
    out[sorted_ids[starts]] = np.add.reduceat(rows[order], starts, axis=0)
    return out


def as_ids(ids, what):
    """Integers as an array: from nested lists, or an array of any library, of any integer type.

    TypeError for what is not plain integers, ValueError for lists that are not equally long.
    """
    if isinstance(ids, Tensor):
        ids = ids.data
    try:
        array = ids if is_array(ids) else np.asarray(ids)
    except ValueError:
        raise ValueError(f"{what}s must form a regular array: some lists are longer than others") from None
    if array.size == 0 and not hasattr(ids, "dtype"):
        array = array.astype(np.int64)  # NumPy makes floats of an empty list
    if array.dtype.kind not in "iu":
        found = type(ids).__name__ if array.dtype == object else array.dtype
        raise TypeError(f"{what}s must be plain integers, not {found}")
    return array


def check_ids(ids, n, what, like, ignore=None):
    """The ids as a new int64 array on the device of the array `like`.

    It is a copy, because pullbacks keep it and callers refill their buffers. IndexError for an id outside
    [0, n), where NumPy would count from the end; those equal to `ignore` may be. Ids that are on a GPU
    already are not looked at, since that would mean waiting for it.
    """
    ids, xp = as_ids(ids, what), array_module(like)
    if isinstance(ids, np.ndarray):
        counted = ids if ignore is None else ids[ids != ignore]
        if counted.size and (counted.min() < 0 or counted.max() >= n):
            worst = counted.min() if counted.min() < 0 else counted.max()
            raise IndexError(f"{what} {worst} is out of range: there are {n}, from 0 to {n - 1}")
    elif xp is np:
        raise TypeError(f"{what}s are on {device_of(ids)}, what they belong to is on the CPU")
    ids = ids.astype(np.int64)
    return ids if array_module(ids) is xp else xp.asarray(ids)


def check_targets(targets, n, rows, ignore):
    """Targets (N) as check_ids gives them. ValueError unless there is one for each row of rows (..., C)."""
    if targets is None:
        raise TypeError("linear_cross_entropy needs targets")
    if ignore is not None and not isinstance(ignore, int):
        raise TypeError(f"ignore_index is {ignore!r}; it must be an integer")
    targets = as_ids(targets, "target")
    if targets.shape != rows.shape[:-1]:
        raise ValueError(
            f"targets of shape {targets.shape} do not fit an input of shape {rows.shape}: "
            f"wanted {rows.shape[:-1]}"
        )
    return check_ids(targets, n, "target", like=rows, ignore=ignore).reshape(-1)  # (...) -> (N)


@op
def dropout(x, p: float, stream: Stream):
    """x with elements set to 0 with probability p, and the others scaled by 1 / (1 - p).

    What is dropped depends on the stream and the row's number alone; x[i] is row stream.row + i. p is rounded
    to a multiple of 1/256: ValueError for one outside [0, 1], and for one that would become 0 or 1.
    """
    check_dropout(p, stream)
    if p == 0:
        return x, lambda dout: dout
    keep, scale = stream.keep_mask(x.shape, p)
    keep = array_module(x).asarray(keep)

    def masked(values):
        out = values * keep
        out *= scale
        return out

    return masked(x), masked


@op
def residual_linear(x, h, weight, bias=None, p: float = 0.0, stream: Stream | None = None):
    """x + dropout(h @ weight + bias): what a block adds to the residual stream, as one operation.

    x (..., M), h (..., K), weight (K, M), bias (M) or None; p and stream as in `dropout`.
    dx = dout. With dpre = dout * keep / (1 - p), dh, dweight and dbias are as in `linear`. Raises ValueError
    for shapes that do not fit.
    """
    check_residual_linear(x, h, weight, bias, p, stream)
    h_shape, h2 = h.shape, as_rows(h)  # (..., K) -> (N, K)
    out = h2 @ weight  # (N, M)
    if bias is not None:
        out += bias
    if p:
        keep, scale = stream.keep_mask(x.shape, p)
        keep = as_rows(array_module(x).asarray(keep))
        out *= keep
        out *= scale
    out += as_rows(x)

    def dpre_of(dout):
        dout = as_rows(dout)
        if p:
            dout = dout * keep
            dout *= scale
        return dout

    dpre = Shared(dpre_of)
    return out.reshape(x.shape), (
        lambda dout: dout,
        lambda dout: (dpre(dout) @ weight.T).reshape(h_shape),
        lambda dout: h2.T @ dpre(dout),
        lambda dout: column_sums(dpre(dout)),
    )


def check_residual_linear(x, h, weight, bias, p, stream):
    check_product("residual_linear", h, weight, bias)
    x, wanted = shape_of(x), (*shape_of(h)[:-1], shape_of(weight)[1])
    if x != wanted:
        raise ValueError(f"residual_linear: x {x} does not fit the product, which is {wanted}")
    check_dropout(p, stream)
