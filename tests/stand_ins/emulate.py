"""CUDA C kernels on the CPU: compiled by g++ with cuda_cpu.h, called as CuPy's RawModule and RawKernel are.

    module = compile(source, order="descending")
    module.get_function("scale")((2,), (128,), (x, np.float32(3), np.int32(x.size)))

Arrays are NumPy's, and the kernel's writes are in them when the call returns. Unlike a RawKernel a call
checks number, dtype and contiguity of its arguments; raises KernelError for what a GPU would hang on, ignore
or be silently wrong at.
"""

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_cpu.h")
# of the threads' turns; numbers from 2 on are seeds of random orders
ORDERS = (
    "ascending",
    "descending",
    2,
    3,
)
CHECKS = "bounds,alignment,null,shift-exponent,signed-integer-overflow,integer-divide-by-zero"
COMPILER = shutil.which(os.environ.get("CXX", "g++"))
FLAGS = "-O1 -std=c++17 -w -fPIC -fno-strict-aliasing -fno-gnu-unique -U_FORTIFY_SOURCE -D__CUDACC__ -D__CUDA_ARCH__=900".split()
MAX_SHARED = 227 * 1024  # bytes a block may have on a card of compute capability 9.0, when asked for


class KernelError(RuntimeError):
    """A kernel, or a call of it, that is wrong on a GPU."""


def compile(source, order="ascending", options=()):
    """The Module of CUDA C source; of NVRTC's options the -D ones count.

    KernelError shows the compiler's message.
    """
    defines = tuple(option for option in options if option.startswith("-D"))
    return Module(*_library(source, defines), order)


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
        self.launch.restype, self.launch.argtypes = (
            ctypes.c_char_p,
            [ctypes.c_void_p] * 2 + [ctypes.c_size_t, ctypes.c_uint64],
        )
        text = signature().decode()
        self.parameters = [text[i : i + 2] for i in range(0, len(text), 2)]
        self.library, self.name, self.order = library, name, order

    def __call__(self, grid, block, args, *, shared_mem=0):
        shape = self._shape(grid, block)
        if shared_mem > min(self.max_dynamic_shared_size_bytes, MAX_SHARED):
            raise KernelError(
                f"{self.name}: {shared_mem} bytes of shared memory; max_dynamic_shared_size_bytes allows "
                "fewer"
            )
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
        fits = all(
            1 <= n <= limit
            for n, limit in zip(grid + block, (2**31 - 1, 65535, 65535, 1024, 1024, 64), strict=True)
        )
        if not fits or np.prod(block) > 1024:
            raise KernelError(f"{self.name}: CUDA has no grid {grid} of blocks {block}")
        return (ctypes.c_uint * 6)(*grid, *block)


def _check(what, value, parameter):
    """Raise KernelError unless a value fits its parameter: S or P (p: const), then the letter of the dtype
    (V: any).
    """
    kind, letter = parameter
    if not isinstance(value, (np.ndarray, np.generic)):
        raise KernelError(
            f"{what} is a {type(value).__name__}; pass an array or a NumPy scalar, whose size is known"
        )
    if kind in "Pp" and isinstance(value, np.uintp) and value == 0:
        return  # a null pointer
    if isinstance(value, np.ndarray) != (kind in "Pp"):
        raise KernelError(
            f"{what} should be {'an array' if kind in 'Pp' else 'a NumPy scalar'}, not {value!r}"
        )
    if letter != "V" and value.dtype != np.dtype(letter):
        raise KernelError(f"{what} is {value.dtype}, the kernel takes {np.dtype(letter)}")
    if kind in "Pp" and not value.flags.c_contiguous:
        raise KernelError(f"{what} is not contiguous")


class _OnDevice:
    """Arrays copied to memory of their own, each ending where nothing may be touched, and copied back
    afterwards.

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
            # as far aligned as vectors of four need it
            start = self.map(last - first) - (last - first + 15) // 16 * 16
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
        """A message if bytes close to an array were written, too close to be forbidden."""
        for first, last, start in self.spans:
            size = last - first
            before = -(size + -size % 16) % 4096  # within the array's pages
            around = ctypes.string_at(start - before, before) + ctypes.string_at(start + size, -size % 16)
            if around.strip(b"\xff"):
                return f"write just outside an array of {size} bytes"
        return ""

    def __exit__(self, *exception):
        for first, last, start in self.spans:
            ctypes.memmove(first, start, last - first)
            self.unmap(start + (last - first + 15) // 16 * 16, last - first)


@functools.cache
def _library(source, defines):
    """The compiled source as a ctypes library, from the cache if it was compiled before, and its kernels'
    names.
    """
    names = _kernel_names(source, defines)
    text = _translate(source, names)
    key = hashlib.sha256(
        "\0".join([HEADER.read_text(), text, COMPILER, *FLAGS, *defines]).encode()
    ).hexdigest()[:20]
    folder = Path(tempfile.gettempdir()) / f"tinygpt-kernels-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{key}.so"
    if not path.exists():
        _build(text, defines, path)
    return ctypes.CDLL(str(path)), names


def _kernel_names(source, defines):
    """The names of the __global__ functions, after macros are expanded."""
    plain = re.sub(r"__launch_bounds__\s*\([^)]*\)", "", _run("-E", "-P", *defines, "-", input=source))
    return frozenset(re.findall(r"__global__\s+void\s+(\w+)\s*\(", plain))


def _translate(source, names):
    """The C++ of a CUDA source: in a nameless namespace, so that shared arrays of templates get no linkage of
    their own.
    """
    source = re.sub(
        r"extern\s+__shared__\s+([^;\[]*?)(\w+)\s*\[\s*\]\s*;",
        lambda m: "{0} *{1} = ({0} *)emulator::dynamic_shared;".format(
            re.sub(r"(__align__|alignas)\s*\(.*?\)", "", m[1]), m[2]
        ),
        source,
    )
    launchers = "\n".join(f"EMULATED({name})" for name in sorted(names))
    return f'#include "{HEADER}"\nnamespace {{\n#line 1\n{source}\n}}\n{launchers}\n'


def _build(text, defines, path):
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / "kernels"
        # -fsanitize when compiling but not when linking: the checks call cuda_cpu.h instead of a library
        _run(*FLAGS, f"-fsanitize={CHECKS}", *defines, "-c", "-o", made.with_suffix(".o"), "-", input=text)
        _run("-shared", "-o", made.with_suffix(".so"), made.with_suffix(".o"), language="none")
        made.with_suffix(".so").replace(path)


def _run(*arguments, input=None, language="c++"):
    result = subprocess.run(
        [COMPILER, "-x", language, *map(str, arguments)], input=input, capture_output=True, text=True
    )
    if result.returncode:
        raise KernelError(f"{Path(COMPILER).name} refused the source:\n{result.stderr}")
    return result.stdout
