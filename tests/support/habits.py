"""The same program in autograd and in PyTorch, for tables that compare the two.

A row is one line of text: an expression of leaves x, y, ... and of `ag`, which is autograd, or PyTorch under
autograd's names. Where the two are written differently, PyTorch's form follows after " | ". A habit is a
function of several lines that does the same with both.
"""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

import autograd

INF, NAN = float("inf"), float("nan")


# --- the two sides --------------------------------------------------------------------------------


@functools.cache
def ours():
    """autograd, with `leaf`, `const` and `array` beside its own names."""
    names = {name: getattr(autograd, name) for name in [*autograd.__all__, "sum", "max", "min", "abs"]}
    return SimpleNamespace(
        **names,
        leaf=lambda values, dtype="float64": autograd.Tensor(values, requires_grad=True, dtype=dtype),
        const=lambda values, dtype="float64": autograd.Tensor(values, dtype=dtype),
        array=lambda values, dtype="float64": np.array(values, dtype),
    )


@functools.cache
def theirs():
    """PyTorch under autograd's names. ImportError without it."""
    import torch
    from torch.nn import functional as F  # noqa: N812
    from torch.utils.checkpoint import checkpoint

    def tensors(*values):
        """The values as Tensors, of the dtype of the first Tensor among them."""
        dtype = next((v.dtype for v in values if isinstance(v, torch.Tensor)), torch.float32)
        return [
            v if isinstance(v, torch.Tensor) else torch.as_tensor(np.asarray(v), dtype=dtype) for v in values
        ]

    def elementwise(function):
        def call(*values, x=None, y=None):
            return function(*tensors(*(v for v in (*values, x, y) if v is not None)))

        return call

    def axes(x, axis):
        return tuple(range(x.ndim)) if axis is None else axis

    def reduction(function):
        def reduce(x, axis=None, keepdims=False):
            return function(x, dim=axes(x, axis), keepdim=keepdims)

        return reduce

    def where(condition, x, y):
        return torch.where(torch.as_tensor(condition), *tensors(x, y))

    def var(x, axis=None, keepdims=False, ddof=0):
        return torch.var(x, dim=axes(x, axis), keepdim=keepdims, correction=ddof)

    def astype(x, dtype):
        return x.to(
            {"float32": torch.float32, "float64": torch.float64, "int64": torch.int64}[np.dtype(dtype).name]
        )

    def expand_dims(x, axis):
        several = axis if isinstance(axis, tuple) else (axis,)
        ndim = x.ndim + len(several)
        for place in sorted(i % ndim if -ndim <= i < ndim else i for i in several):
            x = x.unsqueeze(place)
        return x

    activations = {None: lambda x: x, "relu": F.relu, "gelu": functools.partial(F.gelu, approximate="tanh")}
    activations["gelu_exact"] = F.gelu

    def linear(x, weight, bias=None, activation=None):
        return activations[activation](F.linear(x, weight.T, bias))

    def layer_norm(x, weight, bias=None, eps=1e-5):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def cross_entropy(logits, targets, ignore_index=None):
        # (..., V) -> (first, V, ...): where PyTorch wants the classes
        logits = logits.movedim(-1, 1) if logits.ndim > 1 else logits
        ignored = -100 if ignore_index is None else ignore_index
        return F.cross_entropy(logits, torch.as_tensor(np.asarray(targets)), ignore_index=ignored)

    def linear_cross_entropy(x, weight, bias=None, targets=None, ignore_index=None):
        return cross_entropy(linear(x, weight, bias), targets, ignore_index)

    def causal_attention(qkv, n_head, scale=None):
        B, T, C = qkv.shape  # noqa: N806
        q, k, v = qkv.reshape(B, T, 3, n_head, C // 3 // n_head).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        return y.transpose(1, 2).reshape(B, T, C // 3)

    def float_tensor(values, dtype, **more):
        return torch.tensor(values, dtype=getattr(torch, dtype), **more)

    return SimpleNamespace(
        add=elementwise(torch.add), subtract=elementwise(torch.subtract),
        multiply=elementwise(torch.multiply),
        divide=elementwise(torch.divide), power=elementwise(torch.pow), maximum=elementwise(torch.maximum),
        minimum=elementwise(torch.minimum), negative=elementwise(torch.negative), exp=elementwise(torch.exp),
        log=elementwise(torch.log), sqrt=elementwise(torch.sqrt), tanh=elementwise(torch.tanh),
        sigmoid=elementwise(torch.sigmoid), relu=elementwise(torch.relu), abs=elementwise(torch.abs),
        gelu=elementwise(functools.partial(F.gelu, approximate="tanh")), gelu_exact=elementwise(F.gelu),
        where=where, clip=lambda x, low=None, high=None: torch.clamp(x, low, high), astype=astype,
        sum=reduction(torch.sum), mean=reduction(torch.mean), max=reduction(torch.amax),
        min=reduction(torch.amin), logsumexp=reduction(torch.logsumexp), var=var,
        matmul=elementwise(torch.matmul), linear=linear, layer_norm=layer_norm, cross_entropy=cross_entropy,
        linear_cross_entropy=linear_cross_entropy, causal_attention=causal_attention,
        softmax=lambda x, axis=-1: torch.softmax(x, axis),
        log_softmax=lambda x, axis=-1: torch.log_softmax(x, axis),
        embedding=lambda weight, ids: F.embedding(torch.as_tensor(np.asarray(ids)), weight),
        dropout=lambda x, p, stream: F.dropout(x, p),
        reshape=lambda x, shape: torch.reshape(x, shape),
        transpose=lambda x, axes=None: x.permute(*range(x.ndim)[::-1] if axes is None else axes),
        swapaxes=lambda x, a, b: torch.swapaxes(x, a, b), expand_dims=expand_dims,
        squeeze=lambda x, axis=None: x.squeeze() if axis is None else x.squeeze(axis),
        broadcast_to=torch.broadcast_to, concatenate=lambda xs, axis=0: torch.cat(xs, axis),
        stack=lambda xs, axis=0: torch.stack(xs, axis), getitem=lambda x, index: x[index],
        split=lambda x, sections, axis=0: torch.tensor_split(x, sections, axis),
        tril=lambda x, k=0: torch.tril(x, k), to=lambda x, device: x.to(device),
        masked_fill=lambda x, mask, value: x.masked_fill(torch.as_tensor(mask), value),
        Tensor=torch.tensor, AdamW=torch.optim.AdamW,
        no_grad=torch.no_grad, detect_anomaly=torch.autograd.detect_anomaly,
        clip_grad_norm=torch.nn.utils.clip_grad_norm_, gradcheck=torch.autograd.gradcheck,
        checkpoint=lambda function, x: checkpoint(function, x, use_reentrant=False),
        leaf=lambda values, dtype="float64": float_tensor(values, dtype, requires_grad=True),
        const=lambda values, dtype="float64": float_tensor(values, dtype),
        array=lambda values, dtype="float64": float_tensor(values, dtype),
    )  # fmt: skip


# --- rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One expression, with the values of its leaves."""

    name: str
    form: str  # ours
    their_form: str
    leaves: dict[str, np.ndarray]
    atol: float

    def run(self, side, form):
        """What it gives: ("error", type and text), or ("values", result and gradients)."""
        leaves = {name: as_leaf(side, values) for name, values in self.leaves.items()}
        dtype = str(next(iter(self.leaves.values())).dtype) if leaves else "float64"
        const = functools.partial(side.const, dtype=dtype)
        names = dict(ag=side, np=np, inf=INF, nan=NAN, const=const, dtype=dtype, **leaves)
        return outcome(lambda: with_gradients(_compiled(form)(names), leaves))

    def difference(self):
        """ "" if autograd and PyTorch agree."""
        a, b = self.run(ours(), self.form), self.run(theirs(), self.their_form)
        return differing(a, b, self.atol)


def as_leaf(side, values):
    """A leaf with these values, stored in their order in memory, which need not be the usual one."""
    leaf = side.leaf(values, str(values.dtype))
    if isinstance(leaf, autograd.Tensor):
        leaf.data = values.copy("K")
    return leaf


@functools.cache
def _compiled(form):
    code = compile(form, form, "eval")
    return lambda names: eval(code, names)


def outcome(run):
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return "values", run()
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"


def with_gradients(result, leaves):
    """The result, and the gradients of the leaves after backward passes from all its parts."""
    parts = list(result) if isinstance(result, (tuple, list)) else [result]
    for part in parts:
        if getattr(part, "requires_grad", False):
            upstream = np.cos(np.arange(np.prod(part.shape, dtype=int))).reshape(tuple(part.shape))
            part.backward(as_upstream(part, upstream), retain_graph=True)
    return [plain(result), {name: plain(leaf.grad) for name, leaf in leaves.items()}]


def as_upstream(part, values):
    if isinstance(part, autograd.Tensor):
        return values
    return part.new_tensor(values)


def plain(value):
    """A result without Tensors: arrays, numbers, texts, lists of them."""
    if isinstance(value, autograd.Tensor):
        return value.numpy()
    if type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        return value.detach().numpy()
    if isinstance(value, (tuple, list)) or type(value).__name__ == "Size":
        return [plain(part) for part in value]
    return value


def differing(a, b, atol):
    """In words, how two outcomes differ; "" if they agree. Which error it is does not matter."""
    if a[0] != b[0]:
        return f"autograd: {a[1]}; PyTorch: {b[1]}"
    return "" if a[0] == "error" else _differing(a[1], b[1], atol, "")


def _differing(a, b, atol, where):
    if isinstance(a, list) and isinstance(b, list):
        if len(a) != len(b):
            return f"{where} has {len(a)} and {len(b)} parts"
        names = ("result", "gradients") if where == "" and len(a) == 2 else range(len(a))
        parts = zip(names, a, b, strict=True)
    elif isinstance(a, dict):
        parts = ((name, a[name], b[name]) for name in a)
    elif a is None or b is None or isinstance(a, str):
        return "" if type(a) is type(b) and a == b else f"{where}: {a!r} and {b!r}"
    else:
        return _differing_arrays(np.asarray(a), np.asarray(b), atol, where)
    return "; ".join(filter(None, (_differing(x, y, atol, f"{where} {name}") for name, x, y in parts)))


def _differing_arrays(a, b, atol, where):
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{where}: {a.dtype} {a.shape} and {b.dtype} {b.shape}"
    if a.dtype.kind != "f":
        return "" if (a == b).all() else f"{where}: {a} and {b}"
    rtol = 1e-10 if a.dtype == np.float64 else 1e-5
    if np.allclose(a, b, rtol=rtol, atol=atol * rtol, equal_nan=True):
        return ""
    far = ~np.isclose(a, b, rtol=rtol, atol=atol * rtol, equal_nan=True)
    return f"{where}: {a[far][:3]} and {b[far][:3]}, at {np.argwhere(far)[:3].tolist()}"


# --- tables ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """Lines that are tried with every set of leaves and every dtype.

    leaves: dicts of shapes or values, {"x": (2, 3)} or {"x": [0.0, -1.0]}. order: "C", or "F" for arrays
    that are stored column by column. atol: an absolute difference that is allowed, in units of the relative.
    """

    lines: str
    leaves: list[dict] = field(default_factory=lambda: [{}])
    dtypes: tuple[str, ...] = ("float64",)
    order: str = "C"
    atol: float = 1.0

    def rows(self):
        for line in filter(None, map(str.strip, self.lines.splitlines())):
            if line.startswith("#"):
                continue
            form, _, other = line.partition(" | ")
            for leaves in self.leaves:
                for dtype in self.dtypes if leaves else ("float64",):
                    arrays = {
                        name: values_of(x, i, dtype, self.order) for i, (name, x) in enumerate(leaves.items())
                    }
                    yield Row(
                        name=f"{form.strip()}  # {_described(arrays)}{' by column' * (self.order == 'F')}",
                        form=form.strip(),
                        their_form=(other or form).strip(),
                        leaves=arrays,
                        atol=self.atol,
                    )


def values_of(shape_or_values, seed, dtype, order):
    """An array with these values, or of this shape: different values from -2 to 2, none of them near 0."""
    if not isinstance(shape_or_values, tuple):
        return np.array(shape_or_values, dtype)
    size = int(np.prod(shape_or_values, dtype=int))
    grid = (np.arange(size) - size // 2 + 0.5) * 4 / (size + 1)
    return np.random.default_rng(seed).permutation(grid).reshape(shape_or_values).astype(dtype, order)


def _described(arrays):
    """x (2, 3) float32; if there are few values, x [1. 2.] float32."""
    sizes = {name: x.tolist() if 0 < x.size < 4 else x.shape for name, x in arrays.items()}
    return ", ".join(f"{name} {sizes[name]} {x.dtype}" for name, x in arrays.items())


# --- habits ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habit:
    """A function of `ag` that does the same with autograd and PyTorch. known: what it gives, or None."""

    name: str
    function: Callable
    known: object = None
    refused: str = ""  # a part of the message of our error
    alone: bool = False  # whether PyTorch has no such thing

    def run(self, side):
        return outcome(lambda: plain(self.function(side)))

    def difference(self):
        return differing(self.run(ours()), self.run(theirs()), 1.0)

    def wrong(self):
        """In words, how our outcome differs from what is known; "" if it does not."""
        kind, found = self.run(ours())
        if self.refused:
            return "" if kind == "error" and self.refused in found else f"{found}, not {self.refused!r}"
        if kind == "error":
            return found
        return "" if self.known is None else _differing_known(found, self.known)


def _differing_known(found, known):
    if isinstance(known, (list, tuple)):
        if len(found) != len(known):
            return f"{found}, not {known}"
        return "; ".join(filter(None, map(_differing_known, found, known)))
    if known is None or isinstance(known, (str, bool)):
        return "" if found is known or found == known else f"{found!r}, not {known!r}"
    return "" if np.allclose(found, known, rtol=1e-5, atol=0, equal_nan=True) else f"{found}, not {known}"
