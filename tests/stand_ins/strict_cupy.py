"""A stand-in for the module `cupy` where there is no GPU: CuPy's rules, with NumPy's arithmetic.

It refuses what CuPy refuses, or what would be slow or wrong there: mixing with NumPy arrays, NumPy functions
on device arrays, names outside NAMES, float64 results while `float32_only`. It counts what makes the host
wait for the device. Memory that nobody wrote is poisoned. Kernels run in the emulator. Products of cuBLAS
work on the addresses and strides that they are given. There are two devices: work on one refuses the arrays
of the other. A thread begins on device 0, as with CuPy.
"""

import contextlib
import ctypes
import sys
import threading
import types
import weakref

import numpy as np
import pytest

from tests.stand_ins import emulate

NAMES = (  # what the program uses; each exists in CuPy 14 with these arguments
    "abs add arange ascontiguousarray broadcast_to clip concatenate einsum exp exp2 expand_dims fmin full "
    "isfinite isnan log matmul maximum minimum multiply ones rint sign sqrt tanh tril triu vdot where zeros "
    "zeros_like"
).split()
METHODS = "all any max min sum mean reshape ravel squeeze swapaxes transpose copy fill view".split()
ATTRIBUTES = "shape dtype ndim size T flags itemsize strides nbytes".split()
MEMORY = 8 << 30  # bytes of a pretended device
DEVICES = 2
waits = []  # what made the host wait, in order
rules = types.SimpleNamespace(float32_only=False, may_wait=True)


@contextlib.contextmanager
def no_waiting():
    """Raise if the host waits for the device inside this block, or if anything becomes float64."""
    rules.may_wait, rules.float32_only = False, True
    try:
        yield
    finally:
        rules.may_wait, rules.float32_only = True, False


def _wait(what):
    waits.append(what)
    if not rules.may_wait:
        raise RuntimeError(f"the host waits for the device: {what}")


class _Thread(threading.local):
    """What a thread works on now."""

    device = 0
    stream = None


_thread = _Thread()


class Device:
    """cupy.cuda.Device."""

    def __init__(self, device=None):
        self.id = _thread.device if device is None else device
        self._before = []
        if not 0 <= self.id < DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")

    def use(self):
        _thread.device = self.id

    def __enter__(self):
        self._before.append(_thread.device)
        self.use()
        return self

    def __exit__(self, *exception):
        _thread.device = self._before.pop()


class Stream:
    """cupy.cuda.Stream. Work is done at once, whatever its stream."""

    done = True

    def __init__(self, non_blocking=False):
        self._before, self.ptr = [], id(self)

    def synchronize(self):
        _wait("synchronize")

    def __enter__(self):
        self._before.append(_thread.stream)
        _thread.stream = self
        return self

    def __exit__(self, *exception):
        _thread.stream = self._before.pop()


_null_stream = Stream()


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory.OutOfMemoryError."""


class MemoryPool:
    """cupy.cuda.MemoryPool. Of its limit it knows only that no array may be larger."""

    _limit = 0

    def set_limit(self, size):
        self._limit = size

    def get_limit(self):
        return self._limit

    def total_bytes(self):
        return 0

    def free_all_blocks(self):
        pass


def _unwrap(value, name):
    if isinstance(value, ndarray):
        if value.device.id != _thread.device:
            raise RuntimeError(f"{name} on device {_thread.device} got an array on device {value.device.id}")
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"cupy: unsupported type numpy.ndarray in {name}")
    if isinstance(value, (tuple, list)):
        return type(value)(_unwrap(item, name) for item in value)
    if isinstance(value, slice):
        return slice(*(_unwrap(part, name) for part in (value.start, value.stop, value.step)))
    return value


def _wrap(value):
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    if rules.float32_only and value.dtype == np.float64:
        raise TypeError("a float64 result on the device")
    return ndarray(np.asarray(value))


def _call(name, function, args, kwargs):
    out = kwargs.get("out")
    kwargs = {key: _unwrap(value, name) for key, value in kwargs.items()}
    result = function(*(_unwrap(value, name) for value in args), **kwargs)
    return out if out is not None else _wrap(result)


_on_device = weakref.WeakValueDictionary()  # id of a NumPy array -> the ndarray that stands for it


class ndarray:
    """An array on the pretended device."""

    __hash__ = None
    __array_priority__ = 100

    def __init__(self, host):
        self._host = host
        self.device = Device()
        _on_device.setdefault(id(host), self)

    def _refuse(self, *args, **kwargs):
        raise TypeError("a device array in a NumPy function: use xp, or .get()")

    __array__ = __array_ufunc__ = __array_function__ = _refuse

    @property
    def base(self):
        return _on_device.get(id(self._host.base))

    @property
    def data(self):
        return types.SimpleNamespace(ptr=_unwrap(self, "data").ctypes.data)

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            return _wrap(getattr(_unwrap(self, name) if name == "T" else self._host, name))
        if name in METHODS:
            return lambda *args, **kwargs: _call(name, getattr(_unwrap(self, name), name), args, kwargs)
        raise AttributeError(f"cupy.ndarray is not known to have {name!r}")

    def astype(self, dtype, copy=True):
        return _wrap(_unwrap(self, "astype").astype(dtype, copy=copy))

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        return _wrap(_unwrap(self, "index")[_unwrap(index, "index")])

    def __setitem__(self, index, value):
        _unwrap(self, "assignment")[_unwrap(index, "index")] = _unwrap(value, "assignment")

    def get(self):
        _wait("copy to the host")
        return self._host.copy()

    def item(self):
        _wait("item")
        return self._host.item()

    def tolist(self):
        _wait("tolist")
        return self._host.tolist()

    def __float__(self):
        _wait("float")
        return float(self._host)

    def __bool__(self):
        _wait("bool")
        return bool(self._host)


def _operator(method):
    """The operator of this name, such as __add__ or __iadd__."""

    def apply(self, other):
        result = _call(method, getattr(_unwrap(self, method), method), (other,), {})
        return self if method.startswith("__i") else result

    return apply


def _unary_operator(method):
    return lambda self: _wrap(getattr(_unwrap(self, method), method)())


def _give_operators():
    for name in "add sub mul truediv pow matmul and or xor eq ne lt le gt ge".split():
        for prefix in ("", "r", "i"):
            method = f"__{prefix}{name}__"
            if not hasattr(np.ndarray, method) or method == "__imatmul__":  # CuPy has no a @= b
                continue
            setattr(ndarray, method, _operator(method))
    for method in ("__neg__", "__abs__", "__invert__"):
        setattr(ndarray, method, _unary_operator(method))


_give_operators()


class RawModule:
    """cupy.RawModule, its kernels run on the CPU."""

    order = "ascending"  # of the threads' turns

    def __init__(self, code):
        self.module = emulate.compile(code, self.order)

    def get_function(self, name):
        kernel = self.module.get_function(name)

        def launch(grid, block, args):
            launches.append(name)
            kernel(grid, block, [_unwrap(value, name) for value in args])

        return launch


launches = []  # the kernels that ran and the products that were asked for, in order


def gemm_strided_batched_ex(
    handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, stride_a, b, b_type, ldb, stride_b,
    beta, c, c_type, ldc, stride_c, count, compute_type, algorithm,
):  # fmt: skip
    """cublasGemmStridedBatchedEx on host addresses: C = alpha op(A) op(B) + beta C.

    Every matrix is stored by columns.
    """
    launches.append("gemm")
    assert (a_type, b_type, c_type) == (0, 0, 0) and compute_type in (68, 75, 77)
    assert min(stride_a, stride_b, stride_c) >= 0
    alpha, beta = (ctypes.c_float.from_address(address).value for address in (alpha, beta))
    for i in range(count):
        A = _operand(op_a, a, i * stride_a, m, k, lda)
        B = _operand(op_b, b, i * stride_b, k, n, ldb)
        C = _columns(c, i * stride_c, m, n, ldc)
        result = alpha * A @ B
        C[...] = result + beta * C if beta else result  # with beta = 0, C may hold anything before


def _operand(transposed, address, offset, rows, columns, leading):
    """op(A) of shape (rows, columns): the stored matrix, or its transpose."""
    if transposed:
        return _columns(address, offset, columns, rows, leading).T
    return _columns(address, offset, rows, columns, leading)


def _columns(address, offset, rows, columns, leading):
    """The matrix (rows, columns) stored by columns, `leading` elements apart."""
    assert leading >= max(1, rows), f"leading dimension {leading} of {rows} rows"
    first = ctypes.cast(address + 4 * offset, ctypes.POINTER(ctypes.c_float))
    memory = np.ctypeslib.as_array(first, (max((columns - 1) * leading + rows, 0),))
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), (4, 4 * leading))


def gemm_ex(
    handle, op_a, op_b, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
    compute_type, algorithm,
):  # fmt: skip
    """cublasGemmEx: a batch of one."""
    a, b, c = (a, a_type, lda, 0), (b, b_type, ldb, 0), (c, c_type, ldc, 0)
    gemm_strided_batched_ex(handle, op_a, op_b, m, n, k, alpha, *a, *b, beta, *c, 1, compute_type, algorithm)


def cublas():
    """The stand-in for cupy_backends.cuda.libs.cublas."""
    module = types.ModuleType("cupy_backends.cuda.libs.cublas")
    module.gemmStridedBatchedEx, module.gemmEx = gemm_strided_batched_ex, gemm_ex
    return module


def _function(name):
    """NumPy's function of this name, on device arrays."""
    return lambda *args, **kwargs: _call(name, getattr(np, name), args, kwargs)


def _add_at(a, index, values):
    np.add.at(a._host, _unwrap(index, "add.at"), _unwrap(values, "add.at"))


pool = MemoryPool()


def _empty(shape, dtype=float):
    """NaN or the largest integer, so that a result which depends on memory that nobody wrote is seen."""
    poison = np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    host = np.full(shape, poison, dtype)
    if 0 < pool.get_limit() < host.nbytes:
        raise OutOfMemoryError(f"Out of memory allocating {host.nbytes:,} bytes")
    return _wrap(host)


def _empty_like(array):
    return _empty(array.shape, array.dtype)


def _asnumpy(array):
    return array.get() if isinstance(array, ndarray) else np.asarray(array)


def _array(a, dtype=None):
    host = a._host if isinstance(a, ndarray) else a
    return ndarray(np.array(host, dtype=dtype))


def _asarray(a, dtype=None):
    """The array itself if it is on the device and of the dtype already, else a copy."""
    fits = isinstance(a, ndarray) and (dtype is None or a.dtype == dtype)
    return a if fits else _array(a, dtype)


def module():
    """The stand-in, to be put into sys.modules as "cupy"."""
    cupy = types.ModuleType("cupy")
    for name in NAMES:
        setattr(cupy, name, _function(name))
    cupy.add.at = _add_at
    cupy.ndarray, cupy.inf, cupy.float32, cupy.int32 = ndarray, np.inf, np.float32, np.int32
    cupy.asnumpy, cupy.asarray, cupy.array = _asnumpy, _asarray, _array
    cupy.empty, cupy.empty_like = _empty, _empty_like
    device = types.SimpleNamespace(get_cublas_handle=lambda: 0)
    runtime = types.SimpleNamespace(
        memGetInfo=lambda: (MEMORY, MEMORY), getDeviceCount=lambda: DEVICES,
        driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000,
    )  # fmt: skip
    cupy.cuda = types.SimpleNamespace(
        Device=Device, Stream=Stream, device=device, runtime=runtime,
        get_current_stream=lambda: _thread.stream or _null_stream,
    )  # fmt: skip
    cupy.get_default_memory_pool = lambda: pool
    cupy.RawModule = RawModule
    return cupy


@contextlib.contextmanager
def installed():
    """The stand-in as the module `cupy`."""
    libs = types.ModuleType("cupy_backends.cuda.libs")
    libs.cublas = cublas()
    cupy = module()
    packages = [types.ModuleType(name) for name in ("cupy_backends", "cupy_backends.cuda")]
    with pytest.MonkeyPatch.context() as patch:
        for each in (cupy, *packages, libs, libs.cublas):
            patch.setitem(sys.modules, each.__name__, each)
        try:
            yield cupy
        finally:
            _thread.device = 0  # a device that was chosen is no longer there
