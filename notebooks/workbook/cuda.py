"""Checks of pieces of CUDA C, run by the emulator in several orders of the threads.

An answer is a function without arguments that returns CUDA C: the lines that a Task puts into their place.
Every case is a launch of its own, in four orders. What the emulator or its watch complains about is the
diagnosis; otherwise the numbers are compared with NumPy's, and with those of typical mistakes.
"""

import dataclasses
import functools
import inspect
import re
import textwrap
from collections.abc import Callable

import numpy as np

from workbook import emulator
from workbook.checking import Checks, Exercise, Wrong, is_unsolved, judge, report
from workbook.describing import agree
from workbook.emulator import YOURS

TASKS = {}  # by the names of the exercises
ORDERS = {"0, 1, 2, ...": "ascending", "backwards": "descending", "shuffled": 2, "shuffled again": 3}
BARE = np.uint32(0xFFFFFFFF).view(np.float32)  # a nan that nobody has written over
EXACT, ROUNDED = 1e-6, 5e-5  # tolerances: for numbers that float32 adds without error, and for others
HUGE = 1e30  # no number of a case comes near
OTHERS = 1001  # lines from this number on are not the learner's
HELPERS = """
#define FULL_WARP 0xffffffffu
__device__ float warp_sum(float x) {
    for (int offset = 16; offset; offset >>= 1) x += __shfl_xor_sync(FULL_WARP, x, offset);
    return x;
}
"""


class KernelChecks(Checks):
    """As Checks, where there is a C++ compiler. Otherwise answers stay unread."""

    def __call__(self, answer):
        name = getattr(answer, "__name__", "")
        reason = emulator.why_not()
        if name not in self.exercises or is_unsolved(answer):
            return super().__call__(answer)
        exercise = self.exercises[name]
        if reason:
            print(f"○ {name} cannot be checked: {reason.partition('. ')[0]}.")
            print("  The notebook goes on with the library's version.")
            return exercise.reference
        verdict = judge(exercise, answer)
        if verdict.status != "right":
            report(name, verdict, 1)
            return exercise.reference
        sizes = f"{len(exercise.cases)} sizes" if len(exercise.cases) > 1 else "one size"
        print(f"✓ {name} is right, for {sizes}, in {len(ORDERS)} orders of the threads.")
        if verdict.note:
            print(textwrap.fill(f"  Note: {verdict.note}", 100, subsequent_indent="  "))
        return answer


# --- a learner's lines in their place -------------------------------------------------------------


@dataclasses.dataclass
class Task:
    """What a learner's lines stand in.

    head: the function's first line; given: lines of its body that are there already; last: its last line.
    launch: case -> (grid, block, {name: array or number}), the kernel's arguments in order; an array without
    a number in it (all BARE) is an output, and so are those named in `adds_to`.
    parameters, call: of a kernel that calls the function, where it is no kernel itself.
    """

    name: str
    head: str
    launch: Callable
    given: str = ""
    last: str = ""
    helpers: str = HELPERS
    parameters: str = ""
    call: str = ""
    adds_to: tuple = ()

    def frame(self):
        """The function, with a gap."""
        lines = [*self.given.splitlines(), "...  // your lines", *self.last.splitlines()]
        return "\n".join([f"{self.head} {{", *(f"    {line}" for line in lines), "}"])

    def program(self, text, **watched):
        """All of the CUDA C: helpers, the learner's lines, and a kernel that has its arrays watched."""
        whole = re.search(rf"\b{self.name}\s*\([^;{{}}]*\)\s*\{{", text)  # with a head of its own
        lines = f'#line 1 "{YOURS}"\n{text}\n#line {OTHERS} "frame"\n'
        if not whole:
            lines = f"{self.head} {{\n{self.given}\n{lines}{self.last}\n}}\n"
        parameters = self.parameters or re.search(r"\((.*)\)", self.head, re.DOTALL)[1]
        names = re.findall(r"(\w+)\s*(?:,|$)", parameters)
        call = self.call or f"{self.name}({', '.join(names)});"
        arrays = re.findall(r"\*\s*(\w+)", parameters)
        sizes = "".join(f", long long bytes_of_{name}" for name in arrays)
        watch = "".join(
            f"    watch_array({i}, {name}, bytes_of_{name}, {str(watched[name]).lower()});\n"
            for i, name in enumerate(arrays)
        )
        return (
            f'#line {OTHERS} "frame"\n{self.helpers}{lines}'
            f'extern "C" __global__ void watched_kernel({parameters}{sizes}) {{\n{watch}    {call}\n}}\n'
        )


@dataclasses.dataclass
class Run:
    """A text's run on one case: the outputs in each order, and what was complained about.

    bare: {name: which places nobody wrote}, in the first order.
    """

    text: str
    block: tuple
    arrays: dict  # {name: shape}
    outputs: dict  # {order: {name: array}}
    launches: dict  # {order: Launch}
    bare: dict

    def event(self, kind):
        return next((done.events[kind] for done in self.launches.values() if kind in done.events), None)

    def problem(self):
        return next((launch.problem for launch in self.launches.values() if launch.problem), "")

    def first(self):
        return next(iter(self.outputs.values()))

    def depends_on_order(self):
        """Whether the orders give different numbers."""
        first = self.first()
        return any(
            not np.array_equal(outputs[name], first[name], equal_nan=True)
            for outputs in self.outputs.values()
            for name in first
        )


def bare(*shape):
    """An output before the launch."""
    return np.full(shape, BARE, np.float32)


def _source(name, text, arguments):
    """The CUDA C with a learner's text for an exercise. arguments: of the launch."""
    given = {key: not _is_bare(value) for key, value in arguments.items() if isinstance(value, np.ndarray)}
    return TASKS[name].program(text, **given)


def _is_bare(array):
    return bool((array.view(np.uint32) == BARE.view(np.uint32)).all())


@functools.lru_cache(maxsize=256)
def run(name, text, case):
    """The Run of a learner's text for an exercise, in all orders. KernelError if it does not compile."""
    task = TASKS[name]
    grid, block, arguments = task.launch(*case)
    arrays = {key: value for key, value in arguments.items() if isinstance(value, np.ndarray)}
    outputs = [key for key, value in arrays.items() if _is_bare(value) or key in task.adds_to]
    program = emulator.compile(_source(name, text, arguments))
    results, launches = {}, {}
    for words, order in ORDERS.items():
        values = {key: _argument(value) for key, value in arguments.items()}
        sizes = [np.int64(array.nbytes) for array in arrays.values()]
        launches[words] = program.run("watched_kernel", grid, block, [*values.values(), *sizes], order)
        results[words] = {key: values[key] for key in outputs}
    first = next(iter(results.values()))
    nobody = {key: first[key].view(np.uint32) == BARE.view(np.uint32) for key in outputs}
    shapes = {key: array.shape for key, array in arrays.items()}
    return Run(text, block if isinstance(block, tuple) else (block,), shapes, results, launches, nobody)


def _argument(value):
    """An array of its own, or a number of the kernel's type."""
    if isinstance(value, np.ndarray):
        return value.copy()
    return np.float32(value) if isinstance(value, float) else np.int32(value)


def compile_side_by_side(answers, exercises):
    ""
    """Compile several answers to these exercises on all cores, so that their checks find them ready."""
    sources = []
    for answer in answers:
        name, text = answer.__name__, answer()
        if isinstance(text, str):
            arguments = TASKS[name].launch(*exercises[name].cases[0])[2]
            sources.append(_source(name, text, arguments))
    emulator.compile_side_by_side(sources)


# --- what went wrong, in words --------------------------------------------------------------------


def text_of(answer):
    """The CUDA C that an answer returns. Wrong if it is none."""
    text = answer()
    if not isinstance(text, str):
        raise Wrong(
            f'Return a text with your lines of CUDA C: `return """..."""`. This is {type(text).__name__}.'
            f"{' Is a `return` missing?' if text is None else ''}"
        )
    return text


def objection(run, truth):
    """What is wrong with a run, whatever its numbers are; "" if nothing."""
    outside, race, unwritten = (run.event(kind) for kind in ("outside", "race", "unwritten"))
    if outside:
        return _words_of_outside(run, outside)
    hang = run.problem()
    if hang.startswith("divergent barrier") or "its own mask" in hang or "not end" in hang:
        return _words_of_hang(run, hang)
    if race:
        return _words_of_race(run, race, truth)
    writes = run.event("writes only")
    if writes and run.depends_on_order():
        return _words_of_race(run, writes, truth)
    if hang:
        return _words_of_problem(run, hang)
    if unwritten:
        return (
            f"{_thread(run, unwritten.first)} reads {_place(run, unwritten)}{_line(run, unwritten.first)} "
            "before anybody has written there. Such memory holds anything (here: nan). Is the index right? "
            "Does something have to be written, or set to 0, before? (+= reads, too.)"
        )
    return ""


def _words_of_outside(run, event):
    name = list(run.arrays)[event.array]
    what = f"{_thread(run, event.first)} {_does(event.first)} {name}[{event.index}]{_line(run, event.first)}"
    return (
        f"{what}, but {name} has {event.size} elements. "
        "Which threads should not get there? Or is the index wrong?"
    )


def _words_of_hang(run, problem):
    if "not end" in problem:
        return "It does not end. Which loop goes on for ever? What changes its counter?"
    mask = re.search(r"line (\d+): lane (\d+) is not in its own mask (\w+)", problem)
    if mask:
        return (
            f"Lane {mask[2]} takes part in the exchange{_quoted(run.text, int(mask[1]))}, but the mask "
            f"{mask[3]} does not name it. All 32 lanes take part: FULL_WARP."
        )
    sides = [_translated(run, side) for side in re.findall(r"thread \d[^,]*,\d+,\d+ [^,]*", problem)]
    if "lanes" in problem:
        what = "lanes of a warp get to the same exchange", "An exchange waits for every lane of its mask"
    else:
        what = "threads of a block get to the same barrier", "A barrier waits for every thread"
    return (
        f"Not all {what[0]}: {', '.join(sides[:2])}. {what[1]}, so on a GPU this hangs, or goes on with "
        f"wrong "
        "numbers. Put it where all pass by: outside of an `if`, and before any `return`."
    )


def _translated(run, side):
    """A side of the emulator's complaint about a barrier, with the line's text."""
    x, y, _ = map(int, re.search(r"thread (\d+),(\d+),(\d+)", side).groups())
    line = re.search(r"in line (\d+)", side)
    if "has left" in side:
        what = "has left the kernel"
    else:
        what = "waits for its warp" if "lanes" in side else "waits at __syncthreads()"
        if line:
            what += " in warp_sum()" if int(line[1]) >= OTHERS else _quoted(run.text, int(line[1]))
    return f"thread {(x, y) if len(run.block) > 1 else x} {what}"


def _words_of_race(run, event, truth):
    a, b = event.first, event.second
    both = a.block == b.block
    between = "no barrier for both stands between" if both else "blocks never wait for each other"
    place = _place(run, event)
    writes = run.event("writes only")
    if writes and a.line and a.line == b.line and not (a.atomic or b.atomic) and event is not writes:
        add = (
            f"A race: several threads change {place}{_line(run, a)} at the same time, for example "
            f"{_thread(run, a).lower()} and {_thread(run, b).lower()}. To change is to read, add and write. "
            f"Two "
            "may read before either writes, and then one of the two numbers is lost."
        )
        return add + _effect(run, truth)
    if event is writes and a.line == b.line:
        return (
            f"A race: {_thread(run, a).lower()} and {_thread(run, b).lower()} both write {place}"
            f"{_line(run, b)}, with different numbers, and {between}. The last one wins."
            + _effect(run, truth)
        )
    here = _line(run, b)
    if a.line and a.line == b.line and both:
        looped = re.search(r"\b(for|while)\b", run.text)
        here = " in the same line" + (" (perhaps in another round of the loop)" if looped else "")
    return (
        f"A race: {_thread(run, a).lower()} {_does(a)} {place}{_line(run, a)}, {_thread(run, b).lower()} "
        f"{_does(b)} it{here}, and {between}. Who comes first?" + _effect(run, truth)
    )


def _effect(run, truth):
    """What different orders of the threads make of the first output that they disagree on."""
    for name, first in run.first().items():
        all_orders = np.stack([outputs[name] for outputs in run.outputs.values()])
        differ = np.argwhere(~((all_orders == first) | (np.isnan(all_orders) & np.isnan(first))).all(0))
        if len(differ):
            values = list(dict.fromkeys(f"{v:.6g}" for v in all_orders[(slice(None), *differ[0])]))
            place = f"{name}[{', '.join(map(str, differ[0].tolist()))}]"
            return (
                f" In {len(all_orders)} orders of the threads {place} comes out as {', '.join(values)}; it "
                f"should "
                f"be {truth[name][tuple(differ[0])]:.6g}."
            )
    if all(np.allclose(run.first()[name], truth[name], ROUNDED) for name in truth):
        return (
            " (Here the numbers come out right all the same: threads of the emulator take turns only at "
            "barriers. Those of a GPU do not.)"
        )
    return ""


def _words_of_problem(run, problem):
    """Any other complaint of the emulator."""
    line = re.search(r"line (\d+): ", problem)
    where = _quoted(run.text, int(line[1])) if line else ""
    what = re.sub(r"^line \d+: | \(block.*\)$|, at address \w+", "", problem)
    who = re.search(r"\(block (\d+).*thread (\d+)", problem)
    return f"{what[0].upper()}{what[1:]}{where}" + (f", thread {who[2]} of block {who[1]}." if who else ".")


def words_of_compiler(text, problem):
    """The compiler's first error."""
    found = re.search(r"(\S+?):(\d+):\d+: (?:fatal )?error: (.*)", problem)
    if not found:
        return "It does not compile."
    file, line, message = found.groups()
    message = re.sub("\u2018(.*?)\u2019", r"`\1`", message).replace("\u2019", "'")
    if file == YOURS:
        return f"It does not compile{_quoted(text, int(line))}: {message}."
    return f"It does not compile: {message}. Does every brace and parenthesis have its partner?"


def _thread(run, access):
    x, y = access.thread % run.block[0], access.thread // run.block[0]
    return f"Thread {(x, y) if len(run.block) > 1 else x} of block {access.block}"


def _does(access):
    return "writes" if access.writes else "reads"


def _place(run, event):
    if event.array < 0:
        return "a place in shared memory"
    name, shape = list(run.arrays.items())[event.array]
    return f"{name}[{', '.join(str(int(i)) for i in np.unravel_index(event.index, shape))}]"


def _line(run, access):
    return _quoted(run.text, access.line[1]) if access.line and access.line[0] == YOURS else ""


def _quoted(text, number):
    """The place of a line, with its code."""
    lines = text.split("\n")
    if not 0 < number <= len(lines):
        return ""
    code = lines[number - 1].partition("//")[0].strip()
    shift = len(lines) - len(text.lstrip("\n").split("\n"))  # a text that begins with an empty line
    return f" in line {number - shift} (`{code}`)"


# --- exercises ------------------------------------------------------------------------------------


class InNumpy:
    """What a kernel computes, or would compute with a mistake in it: {name: array}."""

    def __init__(self, function):
        self.function = function

    def __call__(self, task, case):
        grid, block, arguments = task.launch(*case)
        values = {k: v.astype(float) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
        wanted = inspect.signature(self.function).parameters
        values |= {"grid": grid, "block": block}
        with np.errstate(all="ignore"):
            outputs = self.function(**{name: values[name] for name in wanted})
        return {name: np.asarray(value, float) for name, value in outputs.items()}


def kernel_exercise(
    task, reference, cases, truth, mistakes, tolerance=EXACT, advise=lambda run: "", explain=lambda right: ""
):
    """The Exercise for a Task. truth and mistakes: functions for InNumpy; advise: of the Run of a case.

    explain: of an answer that is wrong in no typical way, from whether it is right in each case.
    """
    TASKS[task.name] = task
    # The cases have names, though answers have no arguments.
    reference.__signature__ = inspect.signature(task.launch)
    truth = InNumpy(truth)

    def compute(function, *case):
        if function is reference:
            return truth(task, case)
        if isinstance(function, InNumpy):
            return function(task, case)
        text = text_of(function)
        try:
            result = run(task.name, text, case)
        except emulator.emulate().KernelError as error:
            raise Wrong(words_of_compiler(text, str(error))) from None
        right = truth(task, case)
        words = objection(result, right)
        if words:
            raise Wrong(words)
        return {name: result.first()[name].astype(float) for name in right}

    def explanation(function):
        for case in cases:
            result = run(task.name, text_of(function), case)
            if objection(result, truth(task, case)):  # it did not come to its end
                break
            for name, nobody in result.bare.items():
                if nobody.any():
                    index = ", ".join(map(str, np.argwhere(nobody)[0].tolist()))
                    return (
                        f"Nobody writes {name}[{index}] ({nobody.sum()} of {nobody.size} places of {name} "
                        "stay as they were). Which thread should?"
                    )
                values = result.first()[name]
                huge = values[np.abs(values) > HUGE]
                if huge.size:
                    return (
                        f"{name} holds {huge[0]:.3g}. Here a variable that never got a first value holds "
                        "-1.69e38; on a GPU, anything. Do all sums begin with = 0.0f? Is each array that "
                        "threads share __shared__? Or is something divided by 0?"
                    )
        return explain([agree(compute(function, *case), truth(task, case), tolerance) for case in cases])

    def advice(function):
        result = run(task.name, text_of(function), cases[0])
        if max(launch.busy for launch in result.launches.values()) == 1:
            return (
                "the numbers are right, but one thread of a block does all the work, and the others watch. "
                "A GPU is fast only if all of them work."
            )
        twice = result.event("writes only")
        if twice:
            who = (
                "several threads write" if twice.first.block == twice.second.block else "several blocks write"
            )
            return (
                f"{who} the same number to {_place(result, twice)}{_line(result, twice.second)}. It does no "
                f"harm, "
                "but is work for nothing: let one of them do it, or each its own part."
            )
        return advise(result)

    hooks = dict(explain=explanation, advise=advice, tolerance=tolerance)
    known = {words: InNumpy(function) for words, function in mistakes.items()}
    return Exercise(reference, cases, known, compute, **hooks)


def show_frame(name):
    """Print what an exercise's lines stand in."""
    print(TASKS[name].frame())
