"""Every CUDA kernel, run on the CPU by the emulator, against the same operation in float64 on NumPy.

Sizes are odd, threads take their turns in ascending, descending and random order, and in the end bugs are
planted in the CUDA sources: the same checks must catch each.
"""

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Stream, Tensor
from autograd.cuda import launch, ops, products
from autograd.ops.attention import attend_to_cache
from tests.stand_ins import emulate, strict_cupy

pytestmark = pytest.mark.skipif(not emulate.COMPILER, reason="running CUDA kernels on the CPU needs g++")


@pytest.fixture
def cupy():
    with strict_cupy.installed() as module:
        yield module


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def on_gpu(cupy, array):
    """The array on the pretended GPU, its axes stored in another order if it has several: kernels want copies
    of such.
    """
    return cupy.asarray(array.T.copy()).T if array.ndim > 1 else cupy.asarray(array)


def same(cupy, function, *arrays, rtol=2e-5):
    """function(*Tensors), and its gradients for a random upstream gradient, on the GPU in float32 as on the
    CPU in float64.
    """
    cpu = [Tensor(x.astype(np.float64), requires_grad=True) for x in arrays]
    gpu = [Tensor(on_gpu(cupy, x), requires_grad=True) for x in arrays]
    expected, found = function(*cpu), function(*gpu)
    upstream = numbers(*expected.shape, seed=1)
    expected.backward(upstream.astype(np.float64))
    found.backward(on_gpu(cupy, upstream))
    close(found.data, expected.data, rtol)
    for a, b in zip(gpu, cpu, strict=True):
        close(a.grad, b.grad, rtol)
        b.grad *= 2
    function(*gpu).backward(on_gpu(cupy, upstream))
    for a, b in zip(gpu, cpu, strict=True):  # a second pass adds to what is there
        close(a.grad, b.grad, rtol)


def close(found, expected, rtol=2e-5):
    assert found.dtype == np.float32 and found.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-30)
    np.testing.assert_allclose(found.get(), expected, rtol=rtol, atol=rtol * scale)


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


@case
def linear(cupy):
    for n, k, m in ((5, 7, 3), (1, 1, 1), (260, 3, 33)):
        for activation in (None, "relu", "gelu", "gelu_exact"):
            run = lambda *tensors, a=activation: ag.linear(*tensors, activation=a)
            same(cupy, run, numbers(2, n, k), numbers(k, m), numbers(m))
            same(cupy, run, numbers(n, k), numbers(k, m))


@case
def layer_norm(cupy):
    for n, c in ((1, 1), (3, 5), (7, 384), (300, 33)):
        x = numbers(n, c) * 3 + 5
        same(cupy, ag.layer_norm, x, numbers(c, seed=2), numbers(c, seed=3), rtol=2e-4)
        same(cupy, ag.layer_norm, x[None], numbers(c, seed=2), rtol=2e-4)


@case
def dropout(cupy):
    for shape in ((3, 5, 7), (2, 32), (1, 1), (40, 33), (3, 2, 999)):
        for p in (0.2, 0.999):
            same(
                cupy,
                lambda x, p=p: ag.dropout(x, p, Stream(2**63 + 5, step=7, site=3, row=11)),
                numbers(*shape),
            )


@case
def attention(cupy):
    for T, n_head, D, p in (
        (1, 1, 1, 0.0),
        (5, 2, 3, 0.3),
        (33, 3, 4, 0.0),
        (40, 1, 8, 0.25),
        (64, 2, 2, 0.2),
        (37, 1, 2, 0.9),
    ):
        stream = Stream(3, step=2, site=5, row=1)
        run = lambda x, h=n_head, p=p, s=stream: ag.causal_attention(x, h, dropout=p, stream=s)
        same(cupy, run, numbers(2, T, 3 * n_head * D))


@case
def long_attention(cupy):
    """More keys than the 1,024 for which the lanes of a warp draw at once."""
    qkv = numbers(1, 1060, 3)
    qkv[0, 100, :2] = 30  # a score of 900: the exponential needs the row's maximum taken off
    same(cupy, lambda x: ag.causal_attention(x, 1, dropout=0.2, stream=Stream(3)), qkv, rtol=2e-4)


@case
def attention_to_the_past(cupy):
    B, H, D, T = 2, 3, 4, 9
    for start, t, last_only in ((0, 5, False), (5, 1, False), (3, 4, True)):
        past, qkv = numbers(2, B, H, T, D, seed=5), numbers(B, t, 3 * H * D)
        keys, values = past.astype(np.float64)
        expected = attend_to_cache(qkv.astype(np.float64), H, keys, values, start, last_only)
        on_device = [cupy.asarray(x) for x in past]
        close(attend_to_cache(cupy.asarray(qkv), H, *on_device, start, last_only), expected)
        close(on_device[0], keys)


@case
def cross_entropy(cupy):
    for n, V in ((1, 1), (7, 3), (300, 65), (5, 1500)):
        targets = np.random.default_rng(0).integers(0, V, n)
        targets[n // 2 :: 3] = -1
        targets[0] = V - 1
        same(cupy, lambda x, t=targets: ag.cross_entropy(x, t, ignore_index=-1), numbers(n, V) * 30)
        same(cupy, lambda x, t=abs(targets) % V: ag.cross_entropy(x, t), numbers(n, V) * 30)


@case
def linear_cross_entropy(cupy):
    targets = np.random.default_rng(0).integers(0, 13, (3, 200))
    targets[1, 5:50] = -1
    with pytest.MonkeyPatch.context() as patch:
        for chunk in (ops.HEAD_CHUNK, 1):  # all rows at once; 256 rows at a time
            patch.setattr(ops, "HEAD_CHUNK", chunk)
            run = lambda x, w, b=None: ag.linear_cross_entropy(x, w, b, targets, ignore_index=-1)
            same(cupy, run, numbers(3, 200, 6), numbers(6, 13), numbers(13))
            same(cupy, run, numbers(3, 200, 6), numbers(6, 13))


@case
def embedding(cupy):
    for n, V, C in (
        (1, 1, 1),
        (600, 5, 33),
        (300, 1500, 3),
        (2, 7, 130),
        (3, 4100, 1),
    ):  # in 64, 64, 2, 64 stretches and 1
        ids = np.random.default_rng(0).integers(0, V, (2, n))
        same(cupy, lambda w, ids=ids: ag.embedding(w, ids), numbers(V, C))


@case
def adamw_and_norm(cupy):
    runs = []
    for to_device, dtype in ((np.asarray, np.float64), (cupy.asarray, np.float32)):
        parameters = [
            Tensor(to_device(numbers(*shape, seed=4).astype(dtype)), requires_grad=True)
            for shape in ((300, 7), (5,))
        ]
        optimizer = AdamW(
            [
                {"params": parameters[:1], "weight_decay": 0.3},
                {"params": parameters[1:], "weight_decay": 0.0},
            ],
            lr=0.01,
        )
        for step in range(3):
            for p in parameters:
                p.grad[...] = to_device(numbers(*p.shape, seed=step).astype(dtype)) * (
                    10.0 if step == 1 else 0.001
                )
            norm = optimizer.clip_grad_norm(5.0)
            optimizer.step()
        runs.append([p.data for p in parameters] + [norm])
    for expected, found in zip(*runs, strict=True):
        close(found, expected)


@pytest.mark.parametrize("order", emulate.ORDERS)
@pytest.mark.parametrize("name", CASES)
def test_kernels(cupy, monkeypatch, name, order):
    monkeypatch.setattr(strict_cupy.RawModule, "order", order)
    CASES[name](cupy)


def test_every_kernel_is_checked(cupy):
    strict_cupy.launches.clear()
    for check in CASES.values():
        check(cupy)
    assert set(strict_cupy.launches) == set(launch.signatures()) | {"gemm"}


def test_ids_out_of_range(cupy):
    """From the host they are refused; what is on the GPU already turns into NaN, since looking would mean
    waiting.
    """
    weight = Tensor(cupy.asarray(numbers(3, 2)))
    for ids in (np.array([0, 3]), np.array([-1])):
        with pytest.raises(IndexError, match="is out of range: there are 3, from 0 to 2"):
            ag.embedding(weight, ids)
        assert np.isnan(ag.embedding(weight, cupy.asarray(ids)).numpy()[-1]).all()
        assert np.isnan(
            float(ag.cross_entropy(Tensor(cupy.asarray(numbers(len(ids), 3))), cupy.asarray(ids)))
        )


def test_a_launch_is_checked_against_the_signature(cupy):
    x = cupy.asarray(numbers(4, 4))
    with pytest.raises(TypeError, match="column_sums takes 5 arguments, not 3"):
        launch.launch(cupy, "column_sums", 1, (32, 8), x, x, 4)
    for wrong in (x.T, cupy.asarray(numbers(4, 4).astype(np.float64)), x[:, :2]):
        with pytest.raises(TypeError, match=r"column_sums: x must be a contiguous float\* array"):
            launch.launch(cupy, "column_sums", 1, (32, 8), wrong, x, 4, 4, 0)


def test_products_of_every_layout(cupy):
    stack = numbers(3, 4, 5), numbers(3, 5, 6)
    for a, b in (
        stack,
        (stack[0][0], stack[1][0]),
        (stack[0][:, :1], stack[1][:, :, :1]),
        (stack[0][:1], stack[1][:1]),
    ):
        for flip_a in (False, True):
            for flip_b in (False, True):
                on_device = []
                for x, flip in ((a, flip_a), (b, flip_b)):
                    y = (
                        cupy.asarray(x.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
                        if flip
                        else cupy.asarray(x.copy())
                    )
                    on_device.append(y)
                found = products.product(cupy, *on_device)
                close(found, a.astype(np.float64) @ b)
                close(products.product(cupy, *on_device, add_to=found), 2 * (a.astype(np.float64) @ b))
    part = numbers(3, 9, 8)[:, 2:6, 1:6]
    found = products.product(cupy, cupy.asarray(numbers(3, 9, 8))[:, 2:6, 1:6], cupy.asarray(stack[1]))
    close(found, part.astype(np.float64) @ stack[1])
    a, b = map(cupy.asarray, stack)
    for wrong in ((a, a), (a[:, ::2, ::2], b[:, :3])):
        with pytest.raises(ValueError, match="matrix product"):
            products.product(cupy, *wrong)


def test_precision_is_handed_to_cublas(cupy, monkeypatch):
    seen = []
    monkeypatch.setattr(strict_cupy, "gemm_strided_batched_ex", lambda *arguments: seen.append(arguments[-2]))
    x = cupy.asarray(numbers(2, 2))
    try:
        for name, number in (("tf32", 77), ("bf16", 75), ("fp32", 68)):  # cuBLAS's cublasComputeType_t
            products.set_precision(name)
            products.product(cupy, x, x)
            assert seen[-1] == number
    finally:
        products.set_precision("fp32")


BUGS = [  # (what it is, the right text, the wrong one, the check that must catch it)
    ("the first reader does not wait for the sums of all warps", "    __syncthreads();\n    return warp_sum(", "    return warp_sum(", "cross_entropy"),
    ("half of each warp is left out of a sum", "for (int offset = 16; offset; offset >>= 1) x +=", "for (int offset = 8; offset; offset >>= 1) x +=", "layer_norm"),
    ("the counter starts at 0, not at 1", "* groups + group + 1)", "* groups + group)", "dropout"),
    ("the row of the stream is forgotten", "(place.row + row) * groups", "row * groups", "dropout"),
    ("nine rounds of Philox", "round < 10", "round < 9", "dropout"),
    ("a byte equal to the threshold drops", "& 255) >= dropped", "& 255) > dropped", "attention"),
    ("what is kept is not scaled up", "keep ? x[at] * scale : 0.0f", "keep ? x[at] : 0.0f", "dropout"),
    ("the last, partial group of a row runs into the next", "        if (element >= per_row) continue;\n", "", "dropout"),
    ("the rows of a block are added without waiting", "    parts[threadIdx.y][threadIdx.x] = total;\n    __syncthreads();", "    parts[threadIdx.y][threadIdx.x] = total;", "linear"),
    ("a block's last columns lie beyond the array", "if (threadIdx.y == 0 && column < C) {", "if (threadIdx.y == 0) {", "linear"),
    ("a bias's gradient is not added to what is there", "total + (add ? out", "total + (false ? out", "linear"),
    ("the slope of relu is 1 at negative values", "x > 0.0f ? 1.0f : 0.0f", "x < 0.0f ? 1.0f : 0.0f", "linear"),
    ("gelu's inner slope without its factor 3", "0.134145f", "0.044715f", "linear"),
    ("heads and positions change places", "t = i / D % T, h = i / (D * T) % H", "h = i / D % H, t = i / (D * H) % T", "attention"),
    ("keys are scaled as well as queries", "heads[i] = part == 0 ?", "heads[i] = part <= 1 ?", "attention"),
    ("a layer norm with Bessel's correction", "warp_sum(squares) / C + eps", "warp_sum(squares) / (C - 1) + eps", "layer_norm"),
    ("the layer norm's share along xhat stays", " - (x[j] - m) * r * xhat_share)", ")", "layer_norm"),
    ("dweight without the standard deviation", "* rstd[row];\n", ";\n", "layer_norm"),
    ("a query sees the key after it", "T - t + index % t + 1}", "T - t + index % t + 2}", "attention"),
    ("a query does not see itself", "T - t + index % t + 1}", "T - t + index % t}", "attention"),
    ("the past is forgotten", "T - t + index % t + 1}", "index % t + 1}", "attention_to_the_past"),
    ("the row's maximum is not taken off", "total += expf(weights[j] - largest)", "total += expf(weights[j])", "long_attention"),
    ("the weights' derivative without delta", "weights[j] * (gradient[j] - delta)", "weights[j] * gradient[j]", "attention"),
    ("delta from weights that were dropped twice", "delta += weights[j] * dp", "delta += weights[j] * dp * keep_scale", "attention"),
    ("only the first 1,024 keys draw", "group <= last; group += 32) {\n", "group <= last && group < begin + 32; group += 32) {\n", "long_attention"),
    ("the target's logit is read after it was overwritten", "    __syncthreads();  // every thread has read", "    // every thread has read", "cross_entropy"),
    ("ignored targets count in the mean", "count += targets[i] != ignored", "count += 1", "cross_entropy"),
    ("the gradient at the target lacks the - 1", "(j == target ? 1.0f : 0.0f)", "0.0f", "cross_entropy"),
    ("matches are read before all warps have written theirs", "matches[threadIdx.x / 32] = mine;\n        __syncthreads();", "matches[threadIdx.x / 32] = mine;", "embedding"),
    ("matches are overwritten while they are read", "            }\n        __syncthreads();\n", "            }\n", "embedding"),
    ("a stretch runs into the next", "row < end && ids[row < end ? row : begin]", "row < N && ids[row < N ? row : begin]", "embedding"),
    ("the second moment without its correction", "sqrtf(square / bias_v)", "sqrtf(square)", "adamw_and_norm"),
    ("weight decay that is not decoupled", "p[i] * (1.0f - lr * weight_decay)", "p[i] * (1.0f - weight_decay)", "adamw_and_norm"),
    ("the norm adds up values, not squares", "total += x[i] * x[i]", "total += x[i]", "adamw_and_norm"),
]  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "check"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_a_planted_bug_is_caught(monkeypatch, right, wrong, check):
    source = launch.source()
    assert right in source and wrong != right
    monkeypatch.setattr(launch, "source", lambda: source.replace(right, wrong))
    caught = []
    for order in emulate.ORDERS:
        monkeypatch.setattr(strict_cupy.RawModule, "order", order)
        with strict_cupy.installed() as cupy:
            try:
                CASES[check](cupy)
            except (AssertionError, emulate.KernelError):
                caught.append(order)
    assert caught
