"""The real CuPy on a machine without a GPU or a driver: everything happens except the arithmetic.

CuPy calls CUDA through tables of C functions in two of its modules. install() puts our own functions there:
memory is the host's, copies copy, streams and events are numbers, and a launch is only written down. All
above that is real: names, dtypes, shapes, TypeErrors, NVRTC. So the results of kernels and products are
garbage, but what a program asks of the GPU is known: `with recording() as events: ...`.

    python -m tests.stand_ins.dryrun train.py --device cuda ...    # a script on the pretended GPU
    python -m tests.stand_ins.dryrun --without=nvrtc train.py ...  # where something is missing: see install()

It uses CuPy's private parts, so pyproject's `dryrun` asks for one exact version. Nothing may have imported
CuPy before. The process should end with os._exit: CuPy calls these functions even while Python shuts down.
"""

import collections
import contextlib
import ctypes
import itertools
import os
import re
import runpy
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

MEMORY = 140 << 30  # bytes of the pretended device
Event = collections.namedtuple("Event", "kind name")  # kinds: launch, product, copy, wait, allocation
WAITS = {"streamSynchronize", "deviceSynchronize", "eventSynchronize", "memcpy"}  # memcpyAsync does not wait
PRODUCTS = re.compile("Gemm|Gemv|Syrk|Trsm|Dot|Ger")  # among the functions of cuBLAS
ATTRIBUTES = {  # cudaDeviceAttr -> value, of an H200
    1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 48 * 1024, 10: 32, 12: 65536,
    16: 132, 39: 2048, 81: 228 * 1024, 82: 65536, 97: 227 * 1024, 106: 32, 115: 1,
}  # fmt: skip

events = []
functions = {}  # handle -> the kernel's name
memory = {}  # address -> size of what was allocated on the device
_handles = itertools.count(0x1000)
_products = {}  # cuBLAS function -> its counter in the stub
_kept = []  # what C code points to
_libc = ctypes.CDLL(None)
_libc.calloc.restype, _libc.calloc.argtypes = ctypes.c_ssize_t, [ctypes.c_size_t] * 2
_libc.free.argtypes = [ctypes.c_ssize_t]


@contextlib.contextmanager
def recording():
    """The list of Events inside this block (complete once it ends)."""
    found, start = [], len(events)
    before = {name: counter.value for name, counter in _products.items()}
    yield found
    found += events[start:]
    for name, counter in _products.items():
        found += [Event("product", name)] * (counter.value - before[name])


def table(found):
    """Lines "count  kind name", the most frequent first."""
    counts = collections.Counter(found)
    return "\n".join(f"{n:6d}  {event.kind} {event.name}" for event, n in counts.most_common())


def install(compute_capability=(9, 0), without=()):
    """The module cupy, on one pretended GPU.

    without: what this machine lacks, among "nvrtc", "headers", "cublas", "gpu", "memory", "new driver".
    """
    if "cupy" in sys.modules:
        raise RuntimeError("cupy is imported already; the pretended driver must come first")
    os.environ.setdefault("CUPY_ACCELERATORS", "")  # CUB is compiled code that asks for a GPU of its own
    os.environ.setdefault("CUPY_CACHE_DIR", str(Path(tempfile.gettempdir(), f"tinygpt-dryrun-{os.getuid()}")))
    from cupy_backends.cuda.api import driver, runtime

    fakes = _fakes(compute_capability)
    if "gpu" in without:
        fakes["getDeviceCount"] = lambda *_: runtime.check_status(100)  # raises cudaErrorNoDevice
    if "new driver" in without:
        fakes["driverGetVersion"] = lambda *_: 12040
        fakes["getDeviceCount"] = lambda *_: runtime.check_status(35)  # cudaErrorInsufficientDriver
    for module in (runtime, driver):
        _replace_functions(module, fakes)
    _load_stub("libcurand.so", "curand")
    if "cublas" not in without:
        _load_stub("libcublasLt.so", None)
        _products.update(_load_stub("libcublas.so", "cublas"))
    _hide(without)
    import cupy

    if "memory" in without:
        cupy.get_default_memory_pool().set_limit(size=1)
    return cupy


def _fakes(compute_capability):
    """{name: function} for what must do more than return 0, None or a new handle."""
    attributes = ATTRIBUTES | dict(zip((75, 76), compute_capability, strict=True))
    major, minor = compute_capability
    properties = {
        "name": b"pretended", "major": major, "minor": minor, "warpSize": 32, "multiProcessorCount": 132,
        "maxThreadsPerBlock": 1024, "sharedMemPerBlock": 48 * 1024, "totalGlobalMem": MEMORY,
    }  # fmt: skip

    def allocate(size, *_):
        events.append(Event("allocation", "of device memory"))
        address = _libc.calloc(max(size, 1), 1)
        memory[address] = size
        return address

    def allocate_on_host(size, *_):
        return _libc.calloc(max(size, 1), 1)

    def free(address, *_):
        memory.pop(address, None)
        _libc.free(address)

    def copy(target, source, size, *_):
        events.append(Event("copy", f"{_place(source)} to {_place(target)}"))
        ctypes.memmove(target, source, size)

    def fill(target, value, size, *_):
        ctypes.memset(target, value, size)

    def get_function(module, name, *_):
        handle = next(_handles)
        functions[handle] = name
        return handle

    def launch(function, *_):
        events.append(Event("launch", functions[function]))

    return dict(
        getDeviceCount=lambda *_: 1, deviceGetAttribute=lambda number, *_: attributes.get(number, 0),
        getDeviceProperties=lambda *_: properties, deviceGetPCIBusId=lambda *_: "0000:00:00.0",
        driverGetVersion=lambda *_: 13000, runtimeGetVersion=lambda *_: 13000,
        memGetInfo=lambda *_: (MEMORY, MEMORY), eventElapsedTime=lambda *_: 1.0,
        malloc=allocate, mallocAsync=allocate, mallocManaged=allocate, hostAlloc=allocate_on_host,
        free=free, freeAsync=free, freeHost=free,
        memcpy=copy, memcpyAsync=copy, memset=fill, memsetAsync=fill,
        moduleGetFunction=get_function, launchKernel=launch, launchCooperativeKernel=launch,
        occupancyMaxPotentialBlockSize=lambda *_: (132, 256),
        occupancyMaxActiveBlocksPerMultiprocessor=lambda *_: 8,
    )  # fmt: skip


def _place(address):
    return "device" if any(start <= address < start + size for start, size in memory.items()) else "host"


# ---- CuPy's table of C functions: `module.__pyx_capi__` holds a capsule for each, named by its signature

C_TYPES = {
    "int": ctypes.c_int, "unsigned int": ctypes.c_uint, "size_t": ctypes.c_size_t,
    "intptr_t": ctypes.c_ssize_t, "uintmax_t": ctypes.c_uint64, "float": ctypes.c_float,
    "PyObject *": ctypes.py_object, "CUdevice": ctypes.c_int, "cudaMemcpyKind": ctypes.c_int,
    "int __pyx_skip_dispatch": ctypes.c_int,
}  # fmt: skip
KEPT = ("check_status", "get_build_version", "_getCUDAMajorVersion")  # need no driver
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype = ctypes.py_object
_new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
_capsule_name = ctypes.pythonapi.PyCapsule_GetName
_capsule_name.restype, _capsule_name.argtypes = ctypes.c_char_p, [ctypes.py_object]


def _replace_functions(module, fakes):
    for name, capsule in list(module.__pyx_capi__.items()):
        signature = _capsule_name(capsule)
        types = _c_types(signature.decode())
        if types is None or name in KEPT:
            continue
        fake = _fake(name, types[0], fakes.get(name))
        pointer = ctypes.CFUNCTYPE(*types)(fake)
        _kept.extend((pointer, signature))
        module.__pyx_capi__[name] = _new_capsule(ctypes.cast(pointer, ctypes.c_void_p), signature, None)
        if hasattr(module, name):
            setattr(module, name, fake)


def _c_types(signature):
    """The types of a signature like "intptr_t (size_t, int __pyx_skip_dispatch)": [result, argument, ...].

    None for a variable, and for types that cannot be passed on.
    """
    match = re.fullmatch(r"(.+?) ?\((.*)\)", signature)
    if not match:
        return None
    words = [match[1], *(word for word in match[2].split(", ") if word != "void")]
    types = [ctypes.c_void_p if word.startswith("struct") else C_TYPES.get(word) for word in words]
    return None if None in types or match[1].startswith("struct") else types


def _fake(name, result_type, function):
    """What is called for the C function `name`: `function`, or what makes up a result of this type."""
    make_up = {ctypes.c_ssize_t: lambda *_: next(_handles), ctypes.py_object: lambda *_: None}
    function = function or make_up.get(result_type, lambda *_: 0)

    def fake(*arguments):
        if name in WAITS:
            events.append(Event("wait", name))
        return function(*arguments)

    return fake


# ---- shared libraries that need not be installed: a stub with all names that CuPy's module imports from it


def _load_stub(library, module):
    """Build and load a stub. Returns {function: a ctypes number that counts its calls} of its products.

    module: that of CuPy which imports from the library; None for a library that only has to be there.
    """
    import cupy_backends

    folder = Path(cupy_backends.__path__[0]) / "cuda" / "libs"
    wanted = _undefined_symbols(next(folder.glob(f"{module}.*.so"))) if module else []
    versions = {version for _, version in wanted} or {f"{library}.{_major_version(folder)}"}
    soname = versions.pop()
    with tempfile.TemporaryDirectory() as work:
        Path(work, "stub.c").write_text("".join(_counting_function(name) for name, _ in wanted))
        Path(work, "stub.map").write_text(f"{soname} {{ global: *; }};\n")
        built = Path(work, soname)
        flags = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{soname}", f"-Wl,--version-script={work}/stub.map"]
        subprocess.run(["gcc", *flags, "-o", built, f"{work}/stub.c"], check=True)
        # CuPy's module finds it by its soname.
        stub = ctypes.CDLL(str(built), mode=ctypes.RTLD_GLOBAL)
    _kept.append(stub)
    return {name: ctypes.c_long.in_dll(stub, f"n_{name}") for name, _ in wanted if PRODUCTS.search(name)}


def _counting_function(name):
    """C source of a function that counts its calls in n_NAME, and gives a handle if it is to create one."""
    output = "*out = (void *)1; " if "Create" in name else ""
    return f"long n_{name}; int {name}(void **out) {{ n_{name}++; {output}return 0; }}\n"


def _undefined_symbols(path):
    """[(name, version)] of the CUDA functions that a shared library imports.

    For example ("cublasSgemm_v2", "libcublas.so.13").
    """
    listed = subprocess.run(["nm", "-D", path], check=True, capture_output=True, text=True).stdout
    symbols = [line.split() for line in listed.splitlines()]
    return [tuple(name.split("@")) for kind, name, *_ in symbols if kind == "U" and name.startswith("cu")]


def _major_version(folder):
    return _undefined_symbols(next(folder.glob("cublas.*.so")))[0][1].rpartition(".")[2]


def _hide(libraries):
    """Let CuPy find neither these libraries nor, if "headers" is among them, CUDA's headers."""
    import cuda.pathfinder as finder

    load = finder.load_nvidia_dynamic_lib

    def load_unless_hidden(name):
        if name in libraries:
            raise finder.DynamicLibNotFoundError(
                f'Failure finding "lib{name}.so.13": No such file: lib{name}.so.13'
            )
        return load(name)

    finder.load_nvidia_dynamic_lib = load_unless_hidden
    if "headers" in libraries:
        finder.find_nvidia_header_directory = lambda name: None
    if libraries:
        # Kernels in CuPy's cache on disk would need neither compiler nor headers.
        os.environ["CUPY_CACHE_IN_MEMORY"] = "1"


def main(arguments):
    """Run a script on the pretended GPU.

    Unless something is missing, autograd's probe of the GPU (a matrix product) counts as passed.
    """
    without = []
    while arguments[0].startswith("--without="):
        without.append(arguments.pop(0).partition("=")[2])
    install(without=without)
    if not without:
        import autograd.backend

        autograd.backend._probe = lambda device: None
    sys.argv = arguments
    sys.path.insert(0, "")
    try:
        runpy.run_path(arguments[0], run_name="__main__")
        code = 0
    except SystemExit as exit:
        code = exit.code or 0
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
