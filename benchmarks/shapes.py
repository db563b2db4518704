"""A module `cupy` whose arrays have shapes but no values: a training step on it says what a GPU would do.

`with installed() as work:` puts it in CuPy's place. It needs neither CuPy nor a GPU, nor memory: an array has
shape, strides and dtype of the real one and no room for its elements. What CuPy itself would compute is
written down in `work`. Kernels are not run, and products are not computed; see benchmarks/estimate.py.
"""

import contextlib
import itertools
import math
import sys
import types
import weakref
from dataclasses import dataclass

import numpy as np

FUNCTIONS = ("add", "exp", "log", "sqrt", "tanh", "maximum", "minimum", "multiply", "where", "isfinite")
OPERATORS = ("add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge")
REDUCTIONS = ("sum", "max", "min", "mean", "all", "any")
COMPARISONS = {"eq", "ne", "lt", "le", "gt", "ge", "isfinite", "all", "any"}


@dataclass
class Work:
    """What a launch asks of a GPU."""

    label: str  # its kernel, or its product
    bytes: float  # read from and written to the GPU's memory
    flops: float = 0.0  # floating-point operations of a matrix product
    aligned: bool = True  # whether the rows of all its matrices begin at multiples of 16 bytes
    cached_bytes: float = 0.0  # read from the cache between the memory and the processors
    instructions: float = 0.0  # of integers; only where they are many


class Memory:
    """How many bytes of arrays there are, and were at most."""

    def __init__(self):
        self.now = self.most = 0

    def take(self, array, size):
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(array, self._give_back, size)

    def _give_back(self, size):
        self.now -= size


class ndarray:
    """An array of which there is only the shape. `ghost` is a NumPy array that must never be read."""

    __hash__ = None
    __array_ufunc__ = None  # NumPy leaves operators to us
    device = types.SimpleNamespace(id=0)
    work: list[Work]  # in the module that is installed
    memory: Memory

    def __init__(self, ghost):
        self.ghost = ghost

    shape = property(lambda self: self.ghost.shape)
    strides = property(lambda self: self.ghost.strides)
    dtype = property(lambda self: self.ghost.dtype)
    ndim = property(lambda self: self.ghost.ndim)
    size = property(lambda self: self.ghost.size)
    nbytes = property(lambda self: self.ghost.nbytes)
    itemsize = property(lambda self: self.ghost.itemsize)
    flags = property(lambda self: self.ghost.flags)
    T = property(lambda self: type(self)(self.ghost.T))
    data = property(lambda self: types.SimpleNamespace(ptr=self.ghost.ctypes.data))
    base = None

    def __len__(self):
        return len(self.ghost)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    # views: NumPy knows their shapes and strides

    def __getitem__(self, index):
        return type(self)(self.ghost[index])

    def view(self):
        return type(self)(self.ghost)

    def swapaxes(self, a, b):
        return type(self)(self.ghost.swapaxes(a, b))

    def transpose(self, *axes):
        return type(self)(self.ghost.transpose(*axes))

    def reshape(self, *shape):
        source = self if self.flags.c_contiguous else self.copy()
        return type(self)(source.ghost.reshape(*shape))

    def ravel(self):
        return self.reshape(-1)

    # what CuPy has a kernel for

    def copy(self):
        return self._new("copy", self.shape, self.dtype, self)

    def astype(self, dtype, copy=True):
        return self._new("astype", self.shape, dtype, self)

    def fill(self, value):
        self.work.append(Work("cupy fill", self.nbytes))

    def __setitem__(self, index, value):
        part = self[index]
        read = value.nbytes if isinstance(value, ndarray) else 0
        self.work.append(Work("cupy copy", part.nbytes + read))

    def _new(self, name, shape, dtype, *read):
        result = empty(type(self), shape, dtype)
        size = result.nbytes + sum(x.nbytes for x in read if isinstance(x, ndarray))
        self.work.append(Work(f"cupy {name}", size))
        return result

    def _elementwise(self, name, *others):
        operands = [self, *others]
        arrays = [x for x in operands if isinstance(x, (ndarray, np.ndarray))]
        shape = np.broadcast_shapes(*(x.shape for x in arrays))
        kinds = [x.dtype if isinstance(x, (ndarray, np.ndarray)) else x for x in operands]
        dtype = np.bool_ if name in COMPARISONS else np.result_type(*kinds)
        return self._new(name, shape, dtype, *arrays)

    def _in_place(self, name, other):
        read = other.nbytes if isinstance(other, ndarray) else 0
        self.work.append(Work(f"cupy {name}", 2 * self.nbytes + read))
        return self

    def _reduced(self, name, axis=None, keepdims=False):
        axes = range(self.ndim) if axis is None else [a % self.ndim for a in np.atleast_1d(axis)]
        kept = [1 if i in axes else n for i, n in enumerate(self.shape)]
        shape = kept if keepdims else [n for i, n in enumerate(kept) if i not in axes]
        return self._new(name, tuple(shape), np.bool_ if name in COMPARISONS else self.dtype, self)


def _give_methods():
    for name in OPERATORS:
        setattr(ndarray, f"__{name}__", lambda self, other, name=name: self._elementwise(name, other))
        setattr(ndarray, f"__r{name}__", lambda self, other, name=name: self._elementwise(name, other))
        if name not in COMPARISONS:
            setattr(ndarray, f"__i{name}__", lambda self, other, name=name: self._in_place(name, other))
    for name in REDUCTIONS:
        setattr(ndarray, name, lambda self, *args, name=name, **kw: self._reduced(name, *args, **kw))


_give_methods()


def empty(kind, shape, dtype):
    """A contiguous array of this kind of ndarray, which takes no memory."""
    shape, dtype = (shape,) if isinstance(shape, int) else tuple(shape), np.dtype(dtype)
    below = itertools.accumulate(reversed(shape[1:]), lambda a, b: a * b, initial=dtype.itemsize)
    element = np.zeros(1, dtype)
    kind.memory.take(element, math.prod(shape) * dtype.itemsize)
    strides = tuple(below)[::-1] if shape else ()
    return kind(np.lib.stride_tricks.as_strided(element, shape, strides))


class Nothing:
    """Stands for whatever is only called or entered: devices, streams, handles, kernels."""

    def __call__(self, *args, **kwargs):
        return self

    def __getattr__(self, name):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass


def module():
    """The stand-in for cupy. Its ndarray has the lists `work` and the `memory` of this module alone."""
    cupy = types.ModuleType("cupy")

    class array(ndarray):
        work, memory = [], Memory()

    def like(x, dtype=None):
        return x if isinstance(x, ndarray) else empty(array, np.shape(x), dtype or np.asarray(x).dtype)

    def function(name):
        def call(*operands):
            first = next(x for x in operands if isinstance(x, ndarray))
            others = [x for x in operands if x is not first]
            return first._elementwise(name, *others)

        return call

    def zeros(shape, dtype=float):
        result = empty(array, shape, dtype)
        result.fill(0)
        return result

    for name in FUNCTIONS:
        setattr(cupy, name, function(name))
    cupy.ndarray, cupy.asarray, cupy.array, cupy.zeros = array, like, like, zeros
    cupy.empty = lambda shape, dtype=float: empty(array, shape, dtype)
    cupy.empty_like = lambda x: empty(array, x.shape, x.dtype)
    cupy.zeros_like = lambda x: zeros(x.shape, x.dtype)
    cupy.ones = cupy.zeros
    cupy.ascontiguousarray = lambda x: x if x.flags.c_contiguous else x.copy()
    cupy.float32, cupy.inf = np.float32, np.inf
    cupy.cuda = cupy.RawModule = cupy.get_default_memory_pool = Nothing()
    return cupy


@contextlib.contextmanager
def installed():
    """The stand-in as the module `cupy`, which must not be in use, and an empty cuBLAS. Yields the module."""
    if "cupy" in sys.modules:
        raise RuntimeError("CuPy is in use in this process; the stand-in needs one of its own")
    cupy, libs = module(), types.ModuleType("cupy_backends.cuda.libs")
    libs.cublas = Nothing()
    stand_ins = {"cupy": cupy, "cupy_backends.cuda.libs": libs}
    stand_ins |= {name: types.ModuleType(name) for name in ("cupy_backends", "cupy_backends.cuda")}
    sys.modules.update(stand_ins)
    try:
        yield cupy
    finally:
        for name in stand_ins:
            del sys.modules[name]
