"""Which array library an array belongs to: NumPy on the CPU, CuPy on a GPU.

CuPy is only ever imported by `device_module("cuda")`, so a machine without a GPU never needs it.
"""

import ctypes
import functools
import re
import sys
from typing import Any

import numpy as np

Array = np.ndarray  # in annotations: NumPy's or CuPy's, which behave alike


def array_module(array: Any) -> Any:
    """`numpy` or `cupy`, whichever owns `array`. Everything that is not a CuPy array belongs to NumPy."""
    # cupy.get_array_module is not used: its first call imports more modules, which fails between threads.
    cupy = sys.modules.get("cupy")
    return cupy if cupy and isinstance(array, cupy.ndarray) else np


def device_of(array: Array) -> str:
    """`"cpu"`, or `"cuda:N"` for a CuPy array on GPU N."""
    return "cpu" if array_module(array) is np else f"cuda:{array.device.id}"


def is_array(value: Any) -> bool:
    """True for a NumPy or CuPy array (not for scalars and lists)."""
    return isinstance(value, np.ndarray) or array_module(value) is not np


def has_kernels(array: Any) -> bool:
    """True for what the kernels of autograd/cuda can work on: float32 on a GPU, and not empty."""
    return not isinstance(array, np.ndarray) and array.dtype == np.float32 and array.size > 0


def to_numpy(array: Array) -> np.ndarray:
    """The values as a NumPy array: copied from a GPU, which is waited for; the same memory on the CPU."""
    return array if isinstance(array, np.ndarray) else array_module(array).asnumpy(array)


def device_module(device: str) -> Any:
    """The array library for "cpu", "cuda" or "cuda:N".

    Raises ValueError or RuntimeError saying what is missing.
    """
    if device == "cpu":
        return np
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"unknown device {device!r}: cpu, cuda or cuda:N")
    try:
        import cupy
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise RuntimeError(f"CuPy lacks the module {error.name}: install it again") from None
        raise RuntimeError(f"no CuPy for {device}: pip install -e '.[cuda12]' or '.[cuda13]'") from None
    return cupy


def move(array: Array, device: str) -> Array:
    """The array on another device; itself if it is there already."""
    if device == "cpu":
        return to_numpy(array)
    xp = device_module(device)
    with _gpu(xp, device):
        return xp.asarray(array)


def _gpu(xp, device):
    """CuPy's Device for "cuda" or "cuda:N"."""
    return xp.cuda.Device(_gpu_number(device))


def _gpu_number(device):
    return int(device.partition(":")[2] or 0)


def choose_device(wanted: str = "auto") -> tuple[str, str]:
    """(device, reason) for "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes a GPU that works and otherwise the CPU. Asking for a GPU that cannot be used raises
    RuntimeError. A GPU becomes the one that this thread works on.
    """
    if wanted == "cpu":
        return "cpu", "as asked"
    device = "cuda" if wanted == "auto" else wanted
    try:
        _probe(device)
    except RuntimeError as error:
        if wanted != "auto":
            raise
        return "cpu", str(error)
    _gpu(device_module(device), device).use()
    return device, "a GPU that works"


def _probe(device):
    """Use every lazily loaded library once: CuPy can be imported where none of them is installed.

    Raises RuntimeError with what to do about the first that fails.
    """
    xp = device_module(device)
    runtime = xp.cuda.runtime
    try:
        count = runtime.getDeviceCount()
        if _gpu_number(device) >= count:
            raise RuntimeError(f"this machine has {count}, numbered from 0")
        with _gpu(xp, device):
            x = xp.arange(4, dtype=xp.float32).reshape(2, 2)  # NVRTC and the headers
            if (x @ x).tolist() != [[2, 3], [6, 11]]:  # cuBLAS
                raise RuntimeError("a product of two matrices came out wrong")
    except Exception as error:
        reason = _remedy(error, runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000)
        raise RuntimeError(f"{device} cannot be used: {reason}") from None


def _remedy(error, driver, cuda):
    """One line on what CuPy's error means here.

    driver: the version of CUDA that the driver can do, 0 without one; cuda: the version of CuPy.
    """
    text = str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}"
    missing = f"not found; pip install 'cupy-cuda{cuda}x[ctk]' brings it"
    no_driver = "there is no NVIDIA driver; nvidia-smi should list the GPU"
    old_driver = (
        f"the NVIDIA driver can do CUDA {driver}, CuPy is made for {cuda}; update the driver, or take the "
        f"extra cuda{driver}"
    )
    for sign, meaning in (
        ("InsufficientDriver", old_driver if driver else no_driver),
        ("NoDevice", "the NVIDIA driver sees no GPU; look at nvidia-smi and CUDA_VISIBLE_DEVICES"),
        ("CUDA headers", f"CUDA's headers: {missing}"),
        ("nvrtc", f"CUDA's compiler NVRTC: {missing}"),
        ("cublas", f"CUDA's library cuBLAS: {missing}"),
        ("OutOfMemory|MemoryAllocation|ALLOC_FAILED", "its memory is full; nvidia-smi shows who uses it"),
    ):
        if re.search(sign, text):
            return meaning
    return text.partition("\n")[0]


def gpu_memory() -> int:
    """Bytes of the current GPU's memory that this program has taken or can still take."""
    cupy = sys.modules["cupy"]
    pool = cupy.get_default_memory_pool()
    obtainable = cupy.cuda.runtime.memGetInfo()[0] + pool.total_bytes()
    return min(obtainable, pool.get_limit() or obtainable)


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # from malloc.h


@functools.cache
def keep_freed_memory() -> None:
    """Tell glibc to reuse freed memory instead of returning it to the system at once.

    Otherwise every array above a few hundred kB is mapped anew and zeroed page by page: measured at the
    laptop configuration, 913,000 page faults instead of 19,000 in 100 steps, and 37 ms a step instead of 29.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option, value in (
            (M_MMAP_THRESHOLD, 1 << 30),
            (M_TRIM_THRESHOLD, (1 << 31) - 1),
            (M_ARENA_MAX, 1),
        ):
            libc.mallopt(option, value)
    except (OSError, AttributeError):
        pass  # another C library, with other settings
