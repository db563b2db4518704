"""CUDA C on the CPU for notebook 12: the tests' emulator, with its watch for races switched on.

The emulator is tests/stand_ins/emulate.py. It is found from this file, and not by the name
`tests.stand_ins`: an installed library has no tests, and a learner's Python may have another package of that
name. The module made here is this workbook's own, so its compiler options can be too: with -fsanitize=thread
the compiler reports each access to memory, and tests/stand_ins/cuda_races.h, which stands before every source
here, looks at them.
"""

import dataclasses
import functools
import importlib.util
import os
import re
import subprocess
from pathlib import Path

import numpy as np

STAND_INS = Path(__file__).resolve().parents[2] / "tests" / "stand_ins"
WATCHING = ["-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-fno-exceptions", "-g1"]
FILLING = "-ftrivial-auto-var-init=pattern"  # variables without a first value hold -1.69e38; g++ 12 knows it
KINDS = ("race", "writes only", "unwritten", "outside")  # as in cuda_races.h
YOURS = "yours"  # what the compiler calls the file with a learner's lines
LOGGED = 2048


@functools.cache
def emulate():
    """The module tests/stand_ins/emulate.py, watching. OSError if this is no checkout of the repository."""
    spec = importlib.util.spec_from_file_location("watching_emulate", STAND_INS / "emulate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FLAGS = [*module.FLAGS, *WATCHING]
    if module.COMPILER and _knows(module.COMPILER, FILLING):
        module.FLAGS.append(FILLING)
    return module


def _knows(compiler, option):
    command = [compiler, option, "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True).returncode == 0


@functools.cache
def why_not():
    """Why kernels cannot be run here, with what to do about it; "" if they can."""
    try:
        module = emulate()
    except (OSError, AttributeError) as error:
        return (
            f"the emulator is not there ({type(error).__name__}). It is part of the repository: open this "
            "notebook in a checkout"
        )
    install = (
        "Debian and Ubuntu: `apt install g++`, then restart this notebook's kernel. macOS and Windows: a "
        "Linux container, or WSL"
    )
    if not module.COMPILER:
        return f"there is no C++ compiler, g++. {install}"
    try:
        out = np.zeros(1, np.float32)
        compile('extern "C" __global__ void one(float* out) { out[0] = 1.0f; }').run("one", 1, 1, (out,))
        return "" if out[0] == 1 else "the emulator gives wrong numbers"
    except (module.KernelError, OSError, AttributeError):
        name = Path(module.COMPILER).name
        return f"the compiler {name} cannot build the emulator; it takes g++ on Linux. {install}"


@dataclasses.dataclass
class Access:
    """One side of an event. line: of the source, as (file, number), or None."""

    thread: int
    block: int
    line: tuple
    writes: bool
    atomic: bool


@dataclasses.dataclass
class Event:
    """What the watch saw. array: its number, -1 in shared memory; index: there; size: of the array."""

    array: int
    index: int
    size: int
    first: Access
    second: Access


@dataclasses.dataclass
class Launch:
    """What became of a launch: the emulator's complaint or "", {kind: Event}, and accesses to shared memory.

    log: rows of thread, cell, whether it writes, whether it reads what nobody has written. busy: how many
    threads of a block used memory at all.
    """

    problem: str
    events: dict
    log: np.ndarray
    busy: int


class Program:
    """Compiled kernels."""

    def __init__(self, source):
        self.source = source

    def run(self, kernel, grid, block, args, order="ascending"):
        """Launch a kernel on NumPy arrays and scalars, with the threads' turns in this order."""
        module = emulate().compile(self.source, order)
        module.get_function("watch_begin")((1,), (1,), ())
        problem = ""
        try:
            module.get_function(kernel)(_tuple(grid), _tuple(block), args)
        except emulate().KernelError as error:
            problem = str(error).removeprefix(f"{kernel}: ")
        rows, counts = np.zeros((len(KINDS), 16), np.int64), np.zeros(2, np.int64)
        log = np.zeros((LOGGED, 4), np.int64)
        module.get_function("watch_end")((1,), (1,), (rows, log, counts))
        lines = lines_of(module.library._name, [row[i] for row in rows.tolist() if row[0] for i in (6, 11)])
        events = {
            kind: Event(*row[1:4].tolist(), _access(row[4:9], lines), _access(row[9:14], lines))
            for kind, row in zip(KINDS, rows, strict=True)
            if row[0]
        }
        return Launch(problem, events, log[: counts[0]], int(counts[1]))


def compile(source):
    """The Program of a CUDA C source. KernelError if it does not compile."""
    program = Program(_watched(source))
    emulate().compile(program.source)
    return program


def compile_side_by_side(sources):
    """Compile several sources on all cores, so that `compile` finds them ready."""
    emulate().compile_side_by_side([_watched(source) for source in sources])


def _watched(source):
    """The source as it is compiled."""
    watch = (STAND_INS / "cuda_races.h").read_text(encoding="utf-8")
    return watch + _shared_outside_templates(source)


def _shared_outside_templates(source):
    """The same source, with room for the shared arrays of templates (`__shared__ V parts[8][32]`) outside.

    g++ puts only variables outside of templates where the emulator and its watch look for shared memory.
    """
    room = []

    def reference(declaration):
        name, sizes = declaration.groups()
        room.append(f"__shared__ float4 room_for_{name}{sizes};\n")
        return f"V (&{name}){sizes} = reinterpret_cast<V (&){sizes}>(room_for_{name});"

    source = re.sub(r"__shared__ V (\w+)((?:\[\w+\])+);", reference, source)
    return "".join(dict.fromkeys(room)) + source


def _tuple(size):
    return size if isinstance(size, tuple) else (size,)


def _access(row, lines):
    thread, block, place, writes, atomic = row.tolist()
    return Access(thread, block, lines[place], bool(writes), bool(atomic))


def lines_of(library, places):
    """{place: (file, line)}: where code was compiled from. A place below 0 is a line of the learner's."""
    found = {place: (YOURS, -place) if place < 0 else None for place in places}
    code = [place for place in found if place >= 0]
    if not code:
        return found
    command = ["addr2line", "-e", library, *(hex(place - 1) for place in code)]  # the call, not its return
    try:
        text = subprocess.run(command, capture_output=True, text=True).stdout
    except OSError:  # without addr2line there are no line numbers
        return found
    for place, line in zip(code, text.splitlines(), strict=False):
        match = re.match(r"(.*):(\d+)", line)
        found[place] = (Path(match[1]).name, int(match[2])) if match else None
    return found
