"""CUDA C kernels on the CPU: compiled by g++ with cuda_cpu.h, and called like CuPy's RawModule and RawKernel.

    module = compile(source, order="descending")
    module.get_function("scale")((2,), (128,), (x, np.float32(3), np.int32(x.size)))

Arrays are NumPy's, and hold what the kernel wrote when the call returns. Unlike a RawKernel, a call checks
the number, dtype and contiguity of its arguments. It raises KernelError where a GPU would hang or be silently
wrong.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_cpu.h")
ORDERS = ("ascending", "descending", 2, 3)  # of the threads' turns; a number from 2 on seeds a random order
CHECKS = "bounds,alignment,null,shift-exponent,signed-integer-overflow,integer-divide-by-zero"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FLAGS = "-O1 -std=c++17 -w -fPIC -fno-strict-aliasing -fno-gnu-unique -U_FORTIFY_SOURCE".split()
FLAGS += ["-D__CUDACC__", "-D__CUDA_ARCH__=900"]
MAX_SHARED = 227 * 1024  # bytes a block may have on a card of compute capability 9.0, when asked for


class KernelError(RuntimeError):
    """A kernel, or a call of it, that is wrong on a GPU."""


def compile(source, order="ascending", options=()):
    """The Module of CUDA C source; of NVRTC's options only -D counts. KernelError if it does not compile."""
    defines = tuple(option for option in options if option.startswith("-D"))
    return Module(*_library(source, defines), order)


def compile_side_by_side(sources):
    """Compile several sources on all cores. `compile` then finds them ready, or says what is wrong."""

    def try_to_compile(source):
        with contextlib.suppress(KernelError):
            compile(source)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(try_to_compile, sources))


class Module:
    def __init__(self, library, names, order):
        self.library, self.names, self.order = library, names, order

    def get_function(self, name):
        if name not in self.names:
            raise KernelError(f"no kernel {name!r} in this source; it has {', '.join(sorted(self.names))}")
        return Kernel(self.library, name, self.order)


class Kernel:
    max_dynamic_shared_size_bytes = 48 * 1024  # as on a GPU, a kernel that needs more must set it first

    def __init__(self, library, name, order):
        signature = library[f"emulator_signature_{name}"]
        signature.restype = ctypes.c_char_p
        self.launch = library[f"emulator_launch_{name}"]
        self.launch.restype = ctypes.c_char_p
        self.launch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64]
        text = signature().decode()
        self.parameters = [text[i : i + 2] for i in range(0, len(text), 2)]
        self.library, self.name, self.order = library, name, order

    def __call__(self, grid, block, args, *, shared_mem=0):
        shape = self._shape(grid, block)
        if shared_mem > min(self.max_dynamic_shared_size_bytes, MAX_SHARED):
            too_much = f"{shared_mem} bytes of shared memory; max_dynamic_shared_size_bytes allows fewer"
            raise KernelError(f"{self.name}: {too_much}")
        if len(args) != len(self.parameters):
            raise KernelError(f"{self.name} takes {len(self.parameters)} arguments, not {len(args)}")
        for position, (value, parameter) in enumerate(zip(args, self.parameters, strict=True)):
            _check(f"{self.name}: argument {position}", value, parameter)
        with _OnDevice(self.library, [value for value in args if isinstance(value, np.ndarray)]) as device:
            values = [
                device.address(v) if isinstance(v, np.ndarray) else ctypes.create_string_buffer(v.tobytes())
                for v in args
            ]
            pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            order = ORDERS.index(self.order) if isinstance(self.order, str) else self.order
            problem = self.launch(pointers, shape, shared_mem, order).decode() or device.overrun()
        if problem:
            raise KernelError(f"{self.name}: {problem}")

    def _shape(self, grid, block):
        """grid and block as six numbers, refused where CUDA refuses them."""
        grid, block = ((*numbers, 1, 1)[:3] for numbers in (grid, block))
        limits = (2**31 - 1, 65535, 65535, 1024, 1024, 64)
        fits = all(1 <= n <= limit for n, limit in zip(grid + block, limits, strict=True))
        if not fits or np.prod(block) > 1024:
            raise KernelError(f"{self.name}: CUDA has no grid {grid} of blocks {block}")
        return (ctypes.c_uint * 6)(*grid, *block)


def _check(what, value, parameter):
    """Raise KernelError unless a value fits its parameter.

    A parameter is two letters: S for a scalar or P for a pointer (p: to const), then the dtype's (V: any).
    """
    kind, letter = parameter
    is_pointer = kind in "Pp"
    if not isinstance(value, (np.ndarray, np.generic)):
        found = type(value).__name__
        raise KernelError(f"{what} is a {found}; pass an array or a NumPy scalar, whose size is known")
    if is_pointer and isinstance(value, np.uintp) and value == 0:
        return  # a null pointer
    if isinstance(value, np.ndarray) != is_pointer:
        expected = "an array" if is_pointer else "a NumPy scalar"
        raise KernelError(f"{what} should be {expected}, not {value!r}")
    if letter != "V" and value.dtype != np.dtype(letter):
        raise KernelError(f"{what} is {value.dtype}, the kernel takes {np.dtype(letter)}")
    if is_pointer and not value.flags.c_contiguous:
        raise KernelError(f"{what} is not contiguous")


def _room(first, last):
    """Bytes from the multiple of 16 at or below `first` to that at or above `last`."""
    return -(-last // 16) * 16 - first // 16 * 16


class _OnDevice:
    """Arrays copied to memory between forbidden addresses, and copied back afterwards.

    Arrays that share memory share it there as well.
    """

    def __init__(self, library, arrays):
        self.map, self.unmap = library.emulator_map, library.emulator_unmap
        self.map.restype, self.map.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self.unmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.spans = []  # first and last host address, and the last address here
        for first, last in sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays if a.nbytes):
            if self.spans and first < self.spans[-1][1]:
                self.spans[-1][1] = max(last, self.spans[-1][1])
            else:
                self.spans.append([first, last])

    def __enter__(self):
        for span in self.spans:
            first, last = span
            # aligned to 16 bytes as on the host, since vectors of four floats must be
            start = self.map(_room(first, last)) - _room(first, last) + first % 16
            ctypes.memmove(start, first, last - first)
            span.append(start)
        return self

    def address(self, array):
        """The array's address here, as a ctypes value."""
        for first, last, start in self.spans:
            if first <= array.ctypes.data < last:
                return ctypes.c_void_p(start + array.ctypes.data - first)
        return ctypes.c_void_p(0)  # empty

    def overrun(self):
        """A message if bytes just beside an array were written, where addresses are not forbidden."""
        for first, last, start in self.spans:
            size, before = last - first, start % 4096
            after = -last % 16  # with what is before it, within the array's pages
            around = ctypes.string_at(start - before, before) + ctypes.string_at(start + size, after)
            if around.strip(b"\xff"):
                return f"write just outside an array of {size} bytes"
        return ""

    def __exit__(self, *exception):
        for first, last, start in self.spans:
            ctypes.memmove(first, start, last - first)
            self.unmap(start - first % 16 + _room(first, last), _room(first, last))


@functools.cache
def _library(source, defines):
    """(library, names): the compiled source, from the cache on disk if it is there, and its kernels."""
    names = _kernel_names(source, defines)
    text = _translate(source, names)
    everything = "\0".join([HEADER.read_text(), text, COMPILER, *FLAGS, *defines])
    path = _folder() / f"{hashlib.sha256(everything.encode()).hexdigest()[:20]}.so"
    if not path.exists():
        _build(text, defines, path)
    return ctypes.CDLL(str(path)), names


def _folder():
    """The cache."""
    folder = Path(tempfile.gettempdir()) / f"tinygpt-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _kernel_names(source, defines):
    """The names of the __global__ functions, after macros are expanded."""
    plain = re.sub(r"__launch_bounds__\s*\([^)]*\)", "", _run("-E", "-P", *defines, "-", input=source))
    return frozenset(re.findall(r"__global__\s+void\s+(\w+)\s*\(", plain))


def _translate(source, names):
    """The C++ of a CUDA source, in a nameless namespace: shared arrays of templates then stay local to it."""

    def dynamic_shared(declaration):
        """`extern __shared__ float part[];` becomes a pointer to the launch's shared memory."""
        kind = re.sub(r"(__align__|alignas)\s*\(.*?\)", "", declaration[1])
        return f"{kind} *{declaration[2]} = ({kind} *)emulator::dynamic_shared;"

    source = re.sub(r"extern\s+__shared__\s+([^;\[]*?)(\w+)\s*\[\s*\]\s*;", dynamic_shared, source)
    launchers = "\n".join(f"EMULATED({name})" for name in sorted(names))
    return f"namespace {{\n#line 1\n{source}\n}}\n{launchers}\n"


@functools.cache
def _header(defines):
    """The header, compiled once for all sources: it takes longer than most of them."""
    key = hashlib.sha256("\0".join([HEADER.read_text(), COMPILER, *FLAGS, *defines]).encode()).hexdigest()[
        :20
    ]
    header = _folder() / f"{key}.h"
    if not header.with_suffix(".h.gch").exists():
        with tempfile.TemporaryDirectory(dir=_folder()) as folder:
            made = Path(folder) / "header.gch"
            _run(*FLAGS, f"-fsanitize={CHECKS}", *defines, "-o", made, HEADER, language="c++-header")
            shutil.copy(HEADER, header)
            made.replace(header.with_suffix(".h.gch"))
    return header


def _build(text, defines, path):
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernels"
        # -fsanitize is for compiling only: the checks call cuda_cpu.h, so no library is linked for them.
        options = (*FLAGS, f"-fsanitize={CHECKS}", *defines, "-include", _header(defines))
        _run(*options, "-c", "-o", made.with_suffix(".o"), "-", input=text)
        _run("-shared", "-o", made.with_suffix(".so"), made.with_suffix(".o"), language="none")
        made.with_suffix(".so").replace(path)


def _run(*arguments, input=None, language="c++"):
    command = [COMPILER, "-x", language, *map(str, arguments)]
    result = subprocess.run(command, input=input, capture_output=True, text=True)
    if result.returncode:
        raise KernelError(f"{Path(COMPILER).name} refused the source:\n{result.stderr}")
    return result.stdout
