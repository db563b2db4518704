"""Compiling the kernels and launching them.

A kernel checks nothing, so each launch is checked against its signature.
"""

import functools
import re
from pathlib import Path

import numpy as np

FILES = ("common.cu", "elementwise.cu", "layer_norm.cu", "attention.cu", "loss.cu", "optimizer.cu")
THREADS = 256  # per block, where the kernel does not care
POINTERS = {"float*": np.dtype(np.float32), "long long*": np.dtype(np.int64)}
SCALARS = {"float": np.float32, "long long": np.int64, "unsigned long long": np.uint64}


@functools.cache
def source():
    """All kernels as one text of CUDA C."""
    return "\n".join((Path(__file__).parent / name).read_text(encoding="utf-8") for name in FILES)


@functools.cache
def signatures():
    """{kernel: [(type, name), ...]}, for example ("float*", "x"), read from the source."""
    kernels = re.findall(r'extern "C" __global__ void (\w+)\((.*?)\)', source(), re.DOTALL)
    return {name: [_parameter(text) for text in parameters.split(",")] for name, parameters in kernels}


def _parameter(text):
    """("float*", "x") from "const float* x"."""
    *kind, name = text.replace("const ", "").split()
    return " ".join(kind), name


@functools.cache
def _module(xp):
    return xp.RawModule(code=source())


@functools.cache
def _kernel(xp, name):
    return _module(xp).get_function(name)


def launch(xp, kernel, blocks, threads, /, **arguments):
    """Queue a kernel on `blocks` blocks of `threads` threads, each a number or a tuple.

    arguments: the kernel's parameters by name. Numbers become the types that it declares. Raises TypeError if
    an argument is missing, unknown, or an array of another type or layout.
    """
    parameters = signatures()[kernel]
    names = [name for _, name in parameters]
    if arguments.keys() != set(names):
        raise TypeError(f"{kernel} takes the arguments {', '.join(names)}, not {', '.join(arguments)}")
    checked = tuple(_checked(kernel, kind, name, arguments[name]) for kind, name in parameters)
    grid, block = (size if isinstance(size, tuple) else (size,) for size in (blocks, threads))
    _kernel(xp, kernel)(grid, block, checked)


def _checked(kernel, kind, name, value):
    if kind in SCALARS:
        return SCALARS[kind](value)
    if value.dtype != POINTERS[kind] or not value.flags.c_contiguous:
        raise TypeError(
            f"{kernel}: {name} must be a contiguous {kind} array, not {value.dtype} with strides "
            f"{value.strides}"
        )
    return value


def blocks_for(count, per_block=THREADS):
    """How many blocks cover `count` elements (or rows, or groups)."""
    return -(-count // per_block)
