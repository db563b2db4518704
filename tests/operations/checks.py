"""How the parts of a record are checked: against finite differences, compositions and other devices."""

import numpy as np

from autograd import Tensor, gradcheck
from autograd.backend import device_of, to_numpy


def tensors(*shapes, seed=0, positive=False):
    """float64 Tensors with values within about ±2 (or from 0.3 to 4.3) in random order, on one grid for all.

    No two are closer than 0.004 and none is closer than 0.002 to 0, which is far, for the steps of gradcheck,
    from the corners of relu, abs, max and maximum.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    size = sum(sizes)
    grid = (np.arange(size) - size // 2 + 0.5) * max(0.004, 4 / (size + 1))
    if positive and size:
        grid += 0.3 - grid.min()
    parts = np.split(np.random.default_rng(seed).permutation(grid), np.cumsum(sizes)[:-1])
    return [
        Tensor(part.reshape(shape), requires_grad=True) for part, shape in zip(parts, shapes, strict=True)
    ]


def check(function, *inputs):
    """The result, after gradcheck, and after seeing that a non-contiguous input gives the same."""
    gradcheck(function, *inputs, mode="elementwise" if sum(x.size for x in inputs) < 80 else "projected")
    twisted = [Tensor(x.data.T.copy().T) for x in inputs]
    expected = function(*inputs)
    np.testing.assert_allclose(function(*twisted).numpy(), expected.numpy(), rtol=1e-12, atol=1e-12)
    return expected


def slopes(function, *values):
    """The derivatives of function at one point, in float32, as a list."""
    inputs = [Tensor(value, requires_grad=True) for value in values]
    function(*inputs).backward()
    return [x.grad.tolist() for x in inputs]


def assert_same(fused, composed, inputs):
    """Both functions give the same result and the same gradients under one random upstream gradient."""
    results = []
    for function in (fused, composed):
        for x in inputs:
            x.grad = None
        output = function(*inputs)
        output.backward(np.random.default_rng(0).standard_normal(output.shape))
        results.append([output.data] + [x.grad for x in inputs])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(b).max()))


def check_on_gpu(cupy, case, rtol, atol):
    """A case in float64 on the GPU, its result and gradients too, as on the CPU."""
    on_cpu = case.inputs()
    on_gpu = [Tensor(cupy.asarray(x.data), requires_grad=True) for x in on_cpu]
    results = []
    for inputs in (on_cpu, on_gpu):
        output = case.function(*inputs)
        output.backward(np.cos(np.arange(output.size)).reshape(output.shape))
        results.append([output.data] + [x.grad for x in inputs])
    assert {device_of(array) for array in results[1]} == {"cuda:0"}
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(to_numpy(found), expected, rtol=rtol, atol=atol)


def refused(error, message, function, *arguments, **options):
    """AssertionError unless the call raises this kind of error, with the message in its text."""
    try:
        function(*arguments, **options)
    except Exception as found:
        assert isinstance(found, error) and message in str(found), f"{type(found).__name__}: {found}"
    else:
        raise AssertionError(f"accepted: {message}")


# --- kernels --------------------------------------------------------------------------------------


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def on_gpu(cupy, array):
    """The array on the GPU.

    If it has several axes they are stored in another order: kernels want copies of such arrays.
    """
    return cupy.asarray(array.T.copy()).T if array.ndim > 1 else cupy.asarray(array)


def off_by_one(cupy, array):
    """The array on the GPU, contiguous, from a place on that is no multiple of 16 bytes.

    There a kernel cannot load four numbers at a time.
    """
    room = cupy.asarray(np.concatenate([np.zeros(1, array.dtype), array.ravel()]))
    return room[1:].reshape(array.shape)


def same_on_gpu(cupy, function, *arrays, rtol=2e-5, place=on_gpu):
    """function(*Tensors) and its gradients on the GPU in float32, as on the CPU in float64.

    place: how the arrays lie in memory.
    """
    cpu = [Tensor(x.astype(np.float64), requires_grad=True) for x in arrays]
    gpu = [Tensor(place(cupy, x), requires_grad=True, copy=False) for x in arrays]
    expected, found = function(*cpu), function(*gpu)
    upstream = numbers(*expected.shape, seed=1)
    expected.backward(upstream.astype(np.float64))
    found.backward(place(cupy, upstream))
    close(found.data, expected.data, rtol)
    for a, b in zip(gpu, cpu, strict=True):
        close(a.grad, b.grad, rtol)
        b.grad *= 2
    function(*gpu).backward(place(cupy, upstream))
    for a, b in zip(gpu, cpu, strict=True):  # a second pass adds to what is there
        close(a.grad, b.grad, rtol)


def close(found, expected, rtol=2e-5):
    """The float32 array on the GPU equals the one on the CPU."""
    assert found.dtype == np.float32 and found.shape == expected.shape
    scale = np.abs(expected).max(initial=1e-30)
    np.testing.assert_allclose(found.get(), expected, rtol=rtol, atol=rtol * scale)
