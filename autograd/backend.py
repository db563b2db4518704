"""Which array library an array belongs to: NumPy on the CPU, CuPy on a GPU.

CuPy is only ever imported by `device_module("cuda")`, so a machine without a GPU never needs it.
"""

import contextlib
import ctypes
import functools
import glob
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray  # in annotations: NumPy's or CuPy's, which behave alike


class NoCuPy(RuntimeError):
    """CuPy is not installed."""


def array_module(array: Any) -> Any:
    """`numpy` or `cupy`, whichever owns `array`. Everything that is not a CuPy array belongs to NumPy."""
    # cupy.get_array_module is not used: its first call imports more modules, which fails between threads.
    cupy = sys.modules.get("cupy")
    # A broken CuPy may have no ndarray.
    return cupy if cupy and isinstance(array, getattr(cupy, "ndarray", ())) else np


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


def wait_for(array: Array) -> None:
    """Return once all work that was queued on the array's device is done: at once on a CPU."""
    xp = array_module(array)
    if xp is not np:
        xp.cuda.get_current_stream().synchronize()


def device_module(device: str) -> Any:
    """The array library for "cpu", "cuda" or "cuda:N".

    Raises ValueError for another name, and RuntimeError saying why CuPy cannot be imported.
    """
    if device == "cpu":
        return np
    if not re.fullmatch(r"cuda(:\d+)?", device):
        raise ValueError(f"unknown device {device!r}: cpu, cuda or cuda:N")
    try:
        import cupy

        cupy.ndarray, cupy.cuda  # noqa: B018  # an empty folder called cupy can be imported too
    except Exception as error:  # whatever a broken installation raises
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise NoCuPy(f"no CuPy for {device}: pip install -e '.[cuda12]' or '.[cuda13]'") from None
        raise RuntimeError(
            f"CuPy is broken ({_in_one_line(error)}); remove every package whose name begins with cupy, then "
            "pip install -e '.[cuda12]' or '.[cuda13]'"
        ) from None
    return cupy


def _in_one_line(error):
    """What went wrong at first, for example "ImportError: libcuda.so.1: no such file"."""
    while error.__cause__ is not None:  # CuPy wraps it into a page of advice
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return ": ".join([type(error).__name__, *lines[:1]])


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


def choose_device(wanted: str = "auto", place: int = 0) -> tuple[str, str]:
    """(device, reason) for "auto", "cpu", "cuda" or "cuda:N".

    "auto" takes a GPU that works and otherwise the CPU. Asking for a GPU that cannot be used raises
    RuntimeError. A GPU becomes the one that this thread works on. place: of this process among those that
    share this machine and its GPUs. Without a number, each takes another GPU, as far as there are enough.
    """
    if wanted == "cpu":
        return "cpu", "as asked"
    device = "cuda" if wanted == "auto" else wanted
    try:
        if device == "cuda" and place > 0:
            device = f"cuda:{place % max(_gpu_count(), 1)}"
        _probe(device)
    except RuntimeError as error:
        if wanted != "auto":
            raise
        if isinstance(error, NoCuPy) and not nvidia_signs():
            return "cpu", "no NVIDIA GPU found"
        return "cpu", str(error)
    _gpu(device_module(device), device).use()
    return device, "a GPU that works"


def nvidia_signs(root: str = "/") -> list[str]:
    """Where this machine shows that it has an NVIDIA GPU: its tool, its driver's files, a graphics card.

    These are only looked at, so this is quick. root: where the system's files are.
    """
    signs = [path for path in (shutil.which("nvidia-smi"),) if path]
    for pattern in ("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "usr/lib/wsl/lib/nvidia-smi"):
        signs += glob.glob(pattern, root_dir=root)
    for card in glob.glob("sys/bus/pci/devices/*", root_dir=root):
        with contextlib.suppress(OSError):
            vendor, kind = (Path(root, card, name).read_text() for name in ("vendor", "class"))
            if vendor.startswith("0x10de") and kind.startswith("0x03"):  # NVIDIA's, for graphics
                signs.append(card)
    return signs


def _probe(device):
    """Use every lazily loaded library once: CuPy can be imported where none of them is installed.

    Raises RuntimeError with what to do about the first that fails.
    """
    xp = device_module(device)
    try:
        count = xp.cuda.runtime.getDeviceCount()
        if _gpu_number(device) >= count:
            raise RuntimeError(f"this machine has {count}, numbered from 0")
        with _gpu(xp, device):
            x = xp.arange(4, dtype=xp.float32).reshape(2, 2)  # NVRTC and the headers
            if (x @ x).tolist() != [[2, 3], [6, 11]]:  # cuBLAS
                raise RuntimeError("a product of two matrices came out wrong")
    except Exception as error:
        raise RuntimeError(f"{device} cannot be used: {_remedy(error, *_versions(xp))}") from None


def _gpu_count():
    """How many GPUs CuPy sees: 0 where it cannot tell, since the probe will say why."""
    try:
        return device_module("cuda").cuda.runtime.getDeviceCount()
    except Exception:
        return 0


def _versions(xp):
    """The versions of CUDA that the driver can do and that CuPy is made for; 0 where CuPy cannot tell."""
    try:
        runtime = xp.cuda.runtime
        return runtime.driverGetVersion() // 1000, runtime.runtimeGetVersion() // 1000
    except Exception:  # of a broken installation
        return 0, 0


def _remedy(error, driver, cuda):
    """One line on what CuPy's error means here.

    driver: the version of CUDA that the driver can do, 0 without one; cuda: that of CuPy, 0 if it is broken.
    """
    text = str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}".strip()
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
        if cuda and re.search(sign, text):
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
