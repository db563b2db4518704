"""Compiling the kernels and launching them.

A kernel checks nothing, so each launch is checked against its signature.
"""

import functools
import re
from pathlib import Path

import numpy as np

COMMON = "common.cu"
FILES = (
    "elementwise.cu",
    "layer_norm.cu",
    "residual.cu",
    "heads.cu",
    "attention.cu",
    "loss.cu",
    "optimizer.cu",
)
THREADS = 256  # per block, where the kernel does not care
POINTERS = {"float*": np.dtype(np.float32), "int*": np.dtype(np.int32), "long long*": np.dtype(np.int64)}
SCALARS = {"float": np.float32, "long long": np.int64, "unsigned long long": np.uint64}


@functools.cache
def text_of(file):
    """A file of CUDA C."""
    return (Path(__file__).parent / file).read_text(encoding="utf-8")


def source():
    """All kernels as one text."""
    return "\n".join(text_of(file) for file in (COMMON, *FILES))


def unit(file):
    """What is compiled at once: the kernels of a file, and what all kernels share."""
    return f"{text_of(COMMON)}\n{text_of(file)}"


@functools.cache
def signatures():
    """{kernel: [(type, name), ...]}, for example ("float*", "x"), read from the source."""
    kernels = _kernels(source())
    return {name: [_parameter(text) for text in parameters.split(",")] for name, parameters in kernels}


def _kernels(text):
    return re.findall(r'extern "C" __global__ void (\w+)\((.*?)\)', text, re.DOTALL)


def _parameter(text):
    """("float*", "x") from "const float* x"."""
    *kind, name = text.replace("const ", "").split()
    return " ".join(kind), name


@functools.cache
def _module(xp, file):
    return xp.RawModule(code=unit(file))


@functools.cache
def _kernel(xp, name):
    file = next(file for file in FILES if name in dict(_kernels(text_of(file))))
    return _module(xp, file).get_function(name)


def launch(xp, kernel, blocks, threads, /, **arguments):
    """Queue a kernel on `blocks` blocks of `threads` threads, each a number or a tuple.

    arguments: the kernel's parameters by name. Numbers become the types that it declares. Raises TypeError if
    an argument is missing, unknown, or an array of another type or layout.
    """
    order, pointers, scalars = _plan(kernel, tuple(arguments))
    values = [arguments[name] for name in order]
    for position, name, kind in pointers:
        value = values[position]
        if value.dtype != POINTERS[kind] or not value.flags.c_contiguous:
            raise TypeError(
                f"{kernel}: {name} must be a contiguous {kind} array, not {value.dtype} with strides "
                f"{value.strides}"
            )
    for position, to_type in scalars:
        values[position] = to_type(values[position])
    _kernel(xp, kernel)(_as_tuple(blocks), _as_tuple(threads), tuple(values))


@functools.cache
def _plan(kernel, names):
    """How a call with arguments of these names becomes a launch: the same for all that a step repeats.

    (The names in the kernel's order; position, name and type of each array; position and type of each
    number.) TypeError if they are not the kernel's.
    """
    parameters = signatures()[kernel]
    order = [name for _, name in parameters]
    if sorted(names) != sorted(order):
        raise TypeError(f"{kernel} takes the arguments {', '.join(order)}, not {', '.join(names)}")
    numbered = [(position, *parameter) for position, parameter in enumerate(parameters)]
    pointers = [(position, name, kind) for position, kind, name in numbered if kind in POINTERS]
    return order, pointers, [(position, SCALARS[kind]) for position, kind, _ in numbered if kind in SCALARS]


def _as_tuple(size):
    return size if isinstance(size, tuple) else (size,)


def blocks_for(count, per_block=THREADS):
    """How many blocks cover `count` elements (or rows, or groups)."""
    return -(-count // per_block)
