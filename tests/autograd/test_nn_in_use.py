"""The operations of a GPT as people use them: as in PyTorch, or refused with one clear sentence.

What is checked without PyTorch stands in tests/operations, with bugs planted against it. What PyTorch
does with the same values is compared here, and the forms for a GPU are run on the stand-in.
"""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import autograd as ag
from autograd import Stream, Tensor
from autograd.backend import to_numpy
from autograd.random import check_dropout_rate
from tests.operations.checks import numbers
from tests.stand_ins import emulate, strict_cupy

INF = np.inf


def torch_forms():
    torch = pytest.importorskip("torch")
    F = torch.nn.functional

    def attention(qkv, n_head, scale=None):
        B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        q, k, v = (x.reshape(B, T, n_head, C // n_head).transpose(1, 2) for x in qkv.split(C, -1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        return out.transpose(1, 2).reshape(B, T, C)

    def cross_entropy(logits, targets, ignore_index=-100):
        flat, targets = logits.reshape(-1, logits.shape[-1]), torch.as_tensor(targets).reshape(-1)
        return F.cross_entropy(flat, targets, ignore_index=ignore_index)

    def head(x, w, b, *arguments):
        return cross_entropy(x @ w + (0 if b is None else b), *arguments)

    forms = SimpleNamespace(
        softmax=F.softmax,
        log_softmax=F.log_softmax,
        layer_norm=lambda x, *parameters, eps=1e-5: F.layer_norm(x, x.shape[-1:], *parameters, eps=eps),
        cross_entropy=cross_entropy,
        linear_cross_entropy=head,
        linear=lambda x, w, b=None: F.linear(x, w.T, b),
        embedding=lambda w, ids: F.embedding(torch.as_tensor(ids), w),
        causal_attention=attention,
        dropout=lambda x, p, stream: F.dropout(x, p),
    )
    return torch, forms


def put(x, index, value):
    x = x.copy()
    x[index] = value
    return x


X = numbers(3, 5)
HEAD = [numbers(3, 4), numbers(4, 5), numbers(5)]
IMPOSSIBLE = [*HEAD[:2], put(HEAD[2], [0, 3], -INF)]
QKV = numbers(2, 70, 12)
PARAMETERS = [numbers(768, seed=2), numbers(768, seed=3)]
CASES = {  # name: (the function of a library, arrays, further arguments)
    "softmax, -inf entries": ("softmax", [put(X, (0, 1), -INF)], [-1]),
    "softmax, a masked row": ("softmax", [put(X, 0, -INF)], [-1]),
    "softmax, inf": ("softmax", [put(X, (0, 1), INF)], [-1]),
    "softmax, first axis": ("softmax", [X * 1e4], [0]),
    "log_softmax, -inf entries": ("log_softmax", [put(X, (0, 1), -INF)], [-1]),
    "log_softmax, a masked row": ("log_softmax", [put(X, 0, -INF)], [-1]),
    "log_softmax, inf": ("log_softmax", [put(X, (0, 1), INF)], [-1]),
    "log_softmax, far from 0": ("log_softmax", [X + 1e4], [0]),
    "layer norm of constants": ("layer_norm", [np.full((2, 768), 100.1, np.float32), *PARAMETERS], []),
    "layer norm of one channel": ("layer_norm", [X[:, :1], X[0, :1], X[1, :1]], []),
    "layer norm of zeros": ("layer_norm", [X * 0, X[0], X[1]], []),
    "cross_entropy, huge logits": ("cross_entropy", [X * 1e30], [[0, 1, 2]]),
    "cross_entropy, far from 0": ("cross_entropy", [X + 1e4], [[0, 1, 2]]),
    "cross_entropy, -inf entries": ("cross_entropy", [put(X, (0, 1), -INF)], [[0, 1, 2]]),
    "cross_entropy, a target of -inf": ("cross_entropy", [put(X, (0, 1), -INF)], [[1, 1, 2]]),
    "cross_entropy, a masked row": ("cross_entropy", [put(X, 0, -INF)], [[1, 1, 2]]),
    "cross_entropy, inf": ("cross_entropy", [put(X, (0, 1), INF)], [[1, 1, 2]]),
    "cross_entropy, all ignored": ("cross_entropy", [X], [[4, 4, 4], 4]),
    "cross_entropy, zero rows": ("cross_entropy", [X[:0]], [np.zeros(0, int)]),
    "cross_entropy, three axes": ("cross_entropy", [X[None]], [[[4, 0, 1]], 4]),
    "head": ("linear_cross_entropy", HEAD, [[0, 1, 2]]),
    "head, all ignored": ("linear_cross_entropy", HEAD, [[2, 2, 2], 2]),
    "head, zero rows": ("linear_cross_entropy", [HEAD[0][:0], *HEAD[1:]], [np.zeros(0, int)]),
    "head, huge logits": ("linear_cross_entropy", [HEAD[0] * 1e30, *HEAD[1:]], [[0, 1, 2]]),
    "head, impossible classes": ("linear_cross_entropy", IMPOSSIBLE, [[1, 2, 0], 0]),
    "head, an impossible target": ("linear_cross_entropy", IMPOSSIBLE, [[0, 1, 2]]),
    "attention": ("causal_attention", [QKV], [2]),
    "attention, large scores": ("causal_attention", [QKV * 30], [2]),
    "attention, scale": ("causal_attention", [QKV], [4, 7.0]),
    "attention, one position": ("causal_attention", [QKV[:, :1]], [1]),
    "attention, no position": ("causal_attention", [QKV[:, :0]], [2]),
    "embedding, ids repeated": ("embedding", [X], [[[2, 2], [0, 2]]]),
    "embedding, no ids": ("embedding", [X], [np.zeros(0, int)]),
    "linear of no rows": ("linear", [X[:0], numbers(5, 2), numbers(2)], []),
    "linear of no columns": ("linear", [X[:, :0], numbers(0, 2), numbers(2)], []),
    "dropout, p = 0": ("dropout", [X], [0.0, None]),
    "dropout, p = 1": ("dropout", [X], [1.0, Stream(0)]),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, where a result is NaN in both libraries
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_pytorch(name, dtype):
    torch, theirs = torch_forms()
    function, arrays, arguments = CASES[name]
    results = []
    for library, leaf in ((ag, Tensor), (theirs, torch.tensor)):
        inputs = [leaf(x.astype(dtype), requires_grad=True) for x in arrays]
        out = getattr(library, function)(*inputs, *arguments)
        upstream = np.cos(np.arange(np.prod(out.shape, dtype=int))).reshape(tuple(out.shape)).astype(dtype)
        out.backward(upstream if library is ag else torch.tensor(upstream))
        results.append([out.numpy() if library is ag else out.detach().numpy()])
        results[-1] += [np.asarray(x.grad) for x in inputs]
    for ours, expected in zip(*results, strict=True):
        scale = np.abs(expected[np.isfinite(expected)]).max(initial=1)
        tolerance = 1e-10
        if dtype == np.float32:  # PyTorch's layer norm rounds the gradients of constant rows
            tolerance = 1e-3 if function == "layer_norm" else 3e-5
        np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance * scale)
        assert ours.dtype == dtype


def test_ordinary_infinities_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("softmax, -inf entries", "log_softmax, -inf entries", "cross_entropy, a target of -inf"):
            function, arrays, arguments = CASES[name]
            getattr(ag, function)(*(Tensor(x) for x in arrays), *arguments)


def test_options_that_are_numpy_numbers_do_not_promote():
    x, w = (Tensor(a, requires_grad=True) for a in (X, numbers(5)))
    stream = Stream(np.int64(2**62), step=np.int32(2**20), row=np.uint8(3))
    assert stream == Stream(2**62, step=2**20, row=3)
    for y in (
        ag.layer_norm(x, w, eps=np.float64(1e-5)),
        ag.dropout(x, np.float64(0.5), stream),
        ag.causal_attention(Tensor(QKV), np.int64(2), scale=np.float64(0.3)),
        ag.causal_attention(Tensor(QKV), 2, dropout=np.float64(0.3), stream=stream),
        ag.cross_entropy(x, [0, 1, 4], ignore_index=np.int64(4)),
        ag.linear_cross_entropy(x, numbers(5, 3), targets=[0, 1, 2], bias=numbers(3)),
    ):
        assert y.dtype == np.float32
    assert Stream(1).integers(5, np.int64(7)).tolist() == Stream(1).integers(5, 7).tolist()


def test_the_rate_of_dropout_that_is_rounded_is_kept_to():
    for p, rate in ((0.1, 26 / 256), (np.float32(0.5), 0.5), (0.002, 1 / 256), (0.998, 255 / 256)):
        check_dropout_rate(p)
        y = ag.dropout(Tensor(np.ones((512, 512))), p, Stream(3)).data
        assert abs((y == 0).mean() - rate) < 4e-3 and y.max() == pytest.approx(1 / (1 - rate))


needs_kernels = pytest.mark.skipif(not emulate.COMPILER, reason="running CUDA kernels on the CPU needs g++")


def same_on_the_stand_in(function, *arrays):
    """function(*Tensors) in float32, its gradients too, on the stand-in for a GPU and on the CPU."""
    with strict_cupy.installed() as cupy:
        results = []
        for move in (np.asarray, cupy.asarray):
            inputs = [Tensor(move(x), requires_grad=True) for x in arrays]
            out = function(*inputs)
            out.backward(move(numbers(*out.shape, seed=1)))
            results.append([to_numpy(a) for a in (out.data, *(x.grad for x in inputs)) if a is not None])
    for on_cpu, on_gpu in zip(*results, strict=True):
        scale = np.abs(on_cpu[np.isfinite(on_cpu)]).max(initial=1)
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=2e-5, atol=2e-5 * scale)


@needs_kernels
@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: ag.linear(x[::-1], w),
        lambda x, w: ag.linear(ag.broadcast_to(x[:1], (3, 5)), w),
        lambda x, w: ag.linear(x[:, ::2], w[::2]),
        lambda x, w: ag.linear(x, w[:, ::2], w[0, ::2]),
        lambda x, w: ag.layer_norm(x, w[:, 0], w[:, 1]),
        lambda x, w: ag.linear_cross_entropy(x[::-1], w[:, ::-1], w[0], [0, 1, 2]),
        lambda x, w: ag.embedding(w, []),
        lambda x, w: ag.linear(x, w[:, :0]),
        lambda x, w: ag.cross_entropy(x, np.array([0, 1, 255], np.uint8), 255),
    ],
)
def test_views_and_odd_arguments_are_the_same_on_a_gpu(function):
    same_on_the_stand_in(function, X, numbers(5, 4))


@pytest.mark.parametrize("name", CASES)
def test_float64_on_a_gpu_is_the_same_without_kernels(name):
    function, arrays, arguments = CASES[name]
    with np.errstate(all="ignore"):
        same_on_the_stand_in(
            lambda *inputs: getattr(ag, function)(*inputs, *arguments), *(x.astype(float) for x in arrays)
        )


@needs_kernels
@pytest.mark.parametrize("name", CASES)
def test_float32_on_a_gpu_is_the_same(name):
    function, arrays, arguments = CASES[name]
    with np.errstate(all="ignore"):
        same_on_the_stand_in(lambda *inputs: getattr(ag, function)(*inputs, *arguments), *arrays)


@needs_kernels
def test_attention_on_a_gpu_reads_nothing_that_nobody_wrote():
    """The memory of `empty` is NaN there. Rates that were rounded to 0 once chose a buffer and left it so."""
    for p in (0.0, 0.002, 1.0):
        attend = lambda qkv, p=p: ag.causal_attention(qkv, 2, dropout=p, stream=Stream(3))
        same_on_the_stand_in(attend, QKV[:, :9])
    with strict_cupy.installed() as cupy, pytest.raises(ValueError, match="above 1/512"):
        ag.causal_attention(Tensor(cupy.asarray(QKV)), 2, dropout=0.001, stream=Stream(3))


@needs_kernels
def test_what_is_wrong_is_refused_on_a_gpu_too():
    with strict_cupy.installed() as cupy:
        x, w = Tensor(cupy.asarray(X)), Tensor(cupy.asarray(numbers(5, 4)))
        for error, function, arguments in (
            (ValueError, ag.cross_entropy, (x, [1])),
            (ValueError, ag.linear_cross_entropy, (x, w, None, [[0, 1, 2]])),
            (ValueError, ag.linear_cross_entropy, (x, w, w[0, :3], [0, 1, 2])),
            (ValueError, ag.linear, (x, w, w[0, :3])),
            (ValueError, ag.linear, (x, w, None, "tanh")),
            (ValueError, ag.layer_norm, (x, w[0])),
            (ValueError, ag.embedding, (w[0], [0])),
            (ValueError, ag.dropout, (x, 2.0, Stream(0))),
            (TypeError, ag.dropout, (x, 0.5, None)),
            (TypeError, ag.embedding, (w, [0.5])),
            (TypeError, ag.embedding, (Tensor(X), cupy.asarray(np.array([0])))),
            (IndexError, ag.embedding, (w, [5])),
            (ValueError, ag.causal_attention, (x, 0)),
        ):
            with pytest.raises(error):
                function(*arguments)
        assert ag.dropout(x, 0, None).data is x.data
