"""A stand-in for the module `cupy` where there is no GPU: NumPy's numbers behind CuPy's manners.

It refuses what CuPy refuses or what would be slow or wrong there: mixing with NumPy arrays, NumPy functions on device
arrays, names outside NAMES, float64 results while `float32_only`. It counts what makes the host wait for the device.
"""

import contextlib
import sys
import types

import numpy as np

NAMES = (  # what the program uses; each exists in CuPy 14 with these arguments
    "abs add arange broadcast_to clip concatenate einsum empty exp exp2 expand_dims full log matmul maximum minimum "
    "multiply ones rint sign sqrt tanh tril triu vdot where zeros"
).split()
METHODS = "max min sum mean reshape ravel squeeze swapaxes transpose copy fill".split()
ATTRIBUTES = "shape dtype ndim size T flags itemsize".split()
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


def _unwrap(value, name):
    if isinstance(value, ndarray):
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


class ndarray:
    """An array on the pretended device."""

    __hash__ = None
    __array_priority__ = 100
    device = types.SimpleNamespace(id=0)

    def __init__(self, host):
        self._host = host

    def _refuse(self, *args, **kwargs):
        raise TypeError("a device array in a NumPy function: use xp, or .get()")

    __array__ = __array_ufunc__ = __array_function__ = _refuse

    def __getattr__(self, name):
        if name in ATTRIBUTES:
            return _wrap(getattr(self._host, name))
        if name in METHODS:
            return lambda *args, **kwargs: _call(name, getattr(self._host, name), args, kwargs)
        raise AttributeError(f"cupy.ndarray is not known to have {name!r}")

    def astype(self, dtype, copy=True):
        return _wrap(self._host.astype(dtype, copy=copy))

    def __len__(self):
        return len(self._host)

    def __getitem__(self, index):
        return _wrap(self._host[_unwrap(index, "index")])

    def __setitem__(self, index, value):
        self._host[_unwrap(index, "index")] = _unwrap(value, "assignment")

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


def _give_operators():
    for name in "add sub mul truediv pow matmul and or xor eq ne lt le gt ge".split():
        for prefix in ("", "r", "i"):
            method = f"__{prefix}{name}__"
            if not hasattr(np.ndarray, method):
                continue

            def apply(self, other, method=method, in_place=prefix == "i"):
                result = _call(method, getattr(self._host, method), (other,), {})
                return self if in_place else result

            setattr(ndarray, method, apply)
    for name in ("__neg__", "__abs__", "__invert__"):
        setattr(ndarray, name, lambda self, name=name: _wrap(getattr(self._host, name)()))


_give_operators()


def module():
    """The stand-in, to be put into sys.modules as "cupy"."""
    cupy = types.ModuleType("cupy")
    for name in NAMES:
        function = getattr(np, name)
        setattr(cupy, name, lambda *args, _f=function, _n=name, **kwargs: _call(_n, _f, args, kwargs))
    cupy.add.at = lambda a, index, values: np.add.at(a._host, _unwrap(index, "add.at"), _unwrap(values, "add.at"))
    cupy.ndarray, cupy.inf, cupy.float32, cupy.int32 = ndarray, np.inf, np.float32, np.int32
    cupy.asnumpy = lambda array: array.get() if isinstance(array, ndarray) else np.asarray(array)
    cupy.asarray = lambda a, dtype=None: ndarray(np.array(a._host if isinstance(a, ndarray) else a, dtype=dtype))
    cupy.get_array_module = lambda *arrays: cupy if any(isinstance(a, ndarray) for a in arrays) else np
    cupy.cuda = types.SimpleNamespace(Device=lambda number: contextlib.nullcontext())
    return cupy


@contextlib.contextmanager
def installed():
    """The stand-in as the module `cupy`."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy = module()
    try:
        yield cupy
    finally:
        del sys.modules["cupy"]
        if before:
            sys.modules["cupy"] = before
