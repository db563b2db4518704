"""Checks that say what went wrong.

An exercise has the right function (the library's; the notebook goes on with it until yours is right), inputs
to try, and typical mistakes: wrong functions, each with a sentence that helps. An answer that computes the
same as a mistake, on every input, gets that sentence. For any other wrong answer the check describes how its
numbers differ.
"""

import copy
import dataclasses
import dis
import inspect
import itertools
import textwrap
import traceback
from collections.abc import Callable

import numpy as np

from workbook import pictures

TOLERANCE = 1e-9  # of the largest true value: far above rounding in float64, far below any mistake


class Wrong(Exception):  # noqa: N818 (it is an answer that is wrong, not a program that fails)
    """A diagnosis, raised where a check finds a mistake without comparing numbers."""


@dataclasses.dataclass
class Exercise:
    """What an answer is compared with.

    reference: the right function
    cases: argument tuples to try it on
    mistakes: {diagnosis: wrong function}; a tuple of diagnoses stands for several mistakes at once
    compute: (function, *arguments) -> {name: array}, what is compared; by default the function's result
    inspect: called with an answer whose numbers are right; raises Wrong for what numbers do not show
    """

    reference: Callable
    cases: list = dataclasses.field(default_factory=list)
    mistakes: dict = dataclasses.field(default_factory=dict)
    compute: Callable = lambda function, *arguments: {"the result": function(*arguments)}
    inspect: Callable = lambda function: None
    tolerance: float = TOLERANCE


@dataclasses.dataclass
class Verdict:
    """What a check found.

    status: "right", "open" (not written yet) or "wrong". If it is wrong: diagnosis says why, worst names the
    worst entry of the first wrong case, case describes its inputs, yours and true are the arrays to draw.
    """

    status: str
    diagnosis: str = ""
    worst: str = ""
    case: str = ""
    yours: object = None
    true: object = None


class Checks:
    """The exercises of a notebook by name.

    `f = check(f)` prints the verdict and returns the function to go on with.
    """

    def __init__(self):
        self.exercises = {}

    def add(self, name, exercise):
        self.exercises[name] = exercise

    def __call__(self, answer):
        name = answer.__name__
        if name not in self.exercises:
            raise ValueError(f"there is no exercise {name}; there are {', '.join(self.exercises)}")
        exercise = self.exercises[name]
        verdict = judge(exercise, answer)
        report(name, verdict, len(exercise.cases))
        return answer if verdict.status == "right" else exercise.reference


def judge(exercise, answer):
    """The Verdict on an answer."""
    if is_unsolved(answer):
        return Verdict("open")
    with np.errstate(all="ignore"):
        truths, _ = _run(exercise, exercise.reference, len(exercise.cases))
        results, error = _run(exercise, answer, len(exercise.cases))
        found = _compare(exercise, results, truths)  # numbers that are wrong say more than a crash later on
        if not found and not error:
            error = _objection(exercise, answer)
    return found or (_stopped(exercise, answer, results, error) if error else Verdict("right"))


def _objection(exercise, answer):
    """What `inspect` raises, or None."""
    try:
        exercise.inspect(answer)
    except Exception as error:
        return error
    return None


def _stopped(exercise, answer, results, error):
    """The Verdict on an answer that stops with an error, or whose check raises Wrong; it was right so far."""
    if isinstance(error, Wrong):
        return Verdict("wrong", str(error))
    return Verdict("wrong", several(*_known(exercise, results, error)) or _crash(answer, error))


def _compare(exercise, results, truths):
    """The Verdict on wrong results, or None if all results that there are agree."""
    failed = [i for i, yours in enumerate(results) if not _agree(yours, truths[i], exercise.tolerance)]
    if not failed:
        return None
    known = several(*(_known(exercise, results) or _known_by_output(exercise, results, truths)))
    case, yours, true = exercise.cases[failed[0]], results[failed[0]], truths[failed[0]]
    ill_formed = _form_fault(exercise, case, yours, true)
    if ill_formed:
        return Verdict("wrong", known or ill_formed)
    return _wrong(exercise, results, truths, failed, known)


def is_unsolved(answer):
    """True while the function's body is still `...`, so that it does nothing but return None."""
    harmless = ("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_VALUE")
    is_none = lambda i: i.opname in ("LOAD_CONST", "RETURN_CONST") and i.argval is None
    return inspect.isfunction(answer) and all(
        i.opname in harmless or is_none(i) for i in dis.get_instructions(answer)
    )


def _compute(exercise, function, case):
    """What the function makes of a copy of the case, as {name: array}. Wrong if it changed the copy."""
    arguments = copy.deepcopy(case)
    results = exercise.compute(function, *arguments)
    for name, before, after in zip(argument_names(exercise.reference, case), case, arguments, strict=True):
        if isinstance(before, np.ndarray) and not np.array_equal(before, after, equal_nan=True):
            raise Wrong(
                f"It changes its input {name} in place. "
                "Others still need it: work on a new array (`x = x.copy()`)."
            )
    for name, value in results.items():
        if value is None:
            raise Wrong(f"{name} is None. Is a `return` missing, or does one of the lines end in `...`?")
    arrays = {name: np.asarray(value) for name, value in results.items()}
    return {name: array.astype(float) if array.dtype == bool else array for name, array in arrays.items()}


def argument_names(function, case):
    names = list(inspect.signature(function).parameters)
    return (names + ["g"] + [f"input {i}" for i in range(len(names) + 1, len(case))])[: len(case)]


def random_arrays(seed):
    """A function normal(*shape) that makes random arrays to try answers on, the same in every run."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape)

    return normal


def named_results(*names, otherwise):
    """A `compute` for answers that return a tuple of arrays, which get these names.

    otherwise: the diagnosis for an answer that returns something else.
    """

    def compute(function, *case):
        answer = function(*case)
        if not isinstance(answer, tuple) or len(answer) != len(names):
            raise Wrong(otherwise)
        return dict(zip(names, answer, strict=True))

    return compute


def with_pullback(*inputs):
    """A `compute` for answers that return a result and its pullback, or a pullback for each of these inputs.

    The last argument of each case is the upstream gradient g.
    """

    def compute(function, *case):
        *arguments, g = case
        answer = function(*arguments)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Wrong(
                "Return two things: the result and its pullback (a function of the upstream gradient g)."
            )
        result, pullbacks = answer
        pullbacks = (pullbacks,) if len(inputs) == 1 and not isinstance(pullbacks, tuple) else pullbacks
        if not isinstance(pullbacks, tuple) or len(pullbacks) != len(inputs):
            raise Wrong(
                f"The second thing returned must hold {len(inputs)} pullbacks in a tuple, "
                f"for {', '.join(inputs)}."
            )
        if not all(map(callable, pullbacks)):
            raise Wrong(
                "A pullback is a function: `lambda g: ...`. "
                "It cannot be a number, because g is only known later."
            )
        gradients = {
            f"the gradient of {name}": pull(copy.deepcopy(g))
            for name, pull in zip(inputs, pullbacks, strict=True)
        }
        return {"the result": result, **gradients}

    return compute


def _form_fault(exercise, case, yours, true):
    """What is wrong with the shape or the kind of a result, or None."""
    for name, value in yours.items():
        if value.shape != true[name].shape:
            hint = " It looks transposed." if value.ndim > 1 and value.shape == true[name].shape[::-1] else ""
            return (
                f"{name} has the shape {value.shape}, "
                f"but should have {true[name].shape} ({describe(exercise.reference, case)}).{hint}"
            )
        if value.dtype.kind not in "biufc":
            return f"{name} should hold numbers, but holds {value.dtype}."
        if true[name].dtype == np.float64 and value.dtype == np.float32:
            return f"{name} is float32, although the inputs are float64: half of the digits get lost."
    return None


def _agree(yours, true, tolerance):
    return all(_same(yours[name], true[name], tolerance) for name in true)


def _same(yours, true, tolerance):
    if (
        yours.shape != true.shape
        or yours.dtype.kind not in "biufc"
        or (yours.dtype == np.float32) != (true.dtype == np.float32)
    ):
        return False
    return bool(_close(yours, true, tolerance).all())


def _close(yours, true, tolerance):
    scale = np.abs(true[np.isfinite(true)]).max(initial=0.0) or 1.0
    return (np.abs(yours - true) <= tolerance * scale) | (yours == true) | (np.isnan(yours) & np.isnan(true))


def _wrong(exercise, results, truths, failed, known):
    first = failed[0]
    same = lambda name: _same(results[first][name], truths[first][name], exercise.tolerance)
    name = next(name for name in truths[first] if not same(name))
    yours, true = results[first][name], truths[first][name]
    diagnosis = known or describe_difference(name, yours, true)
    if len(failed) < len(results) and diagnosis.startswith("No typical"):
        right = next(i for i in range(len(results)) if i not in failed)
        diagnosis += (
            f" It is right for {describe(exercise.reference, exercise.cases[right])}, "
            f"but wrong for {describe(exercise.reference, exercise.cases[first])}."
        )
    index = _worst_index(yours, true)
    place = f"{name}[{', '.join(map(str, index))}]" if index else name
    worst = f"{place} is {yours[index]:.6g}, should be {true[index]:.6g}"
    return Verdict(
        "wrong", diagnosis, worst, describe(exercise.reference, exercise.cases[first]), yours, true
    )


def _known(exercise, results, error=None):
    """The diagnoses, in a list, of the typical mistake that does the same as the answer.

    That is: it computes the same results. If the answer then stopped with an error, so does the mistake.
    """
    for text, mistake in exercise.mistakes.items():
        theirs, their_error = _run(exercise, mistake, len(results) + (error is not None))
        same = len(theirs) == len(results) and type(their_error) is type(error)
        if same and all(_agree(y, t, exercise.tolerance) for y, t in zip(results, theirs, strict=True)):
            return as_list(text)
    return []


def _known_by_output(exercise, results, truths):
    """As above, output by output (the gradient of x, that of y, ...), for answers with a mistake in each."""
    same = lambda name, a, b: all(
        _same(x[name], y[name], exercise.tolerance) for x, y in zip(a, b, strict=False)
    )
    known, unknown = [], []
    for name in truths[0]:
        if same(name, results, truths):
            continue
        for text, mistake in exercise.mistakes.items():
            theirs, _ = _run(exercise, mistake, len(results))
            if len(theirs) == len(results) and same(name, results, theirs):
                known += as_list(text)
                break
        else:
            unknown.append(f"{name} is wrong, but not in a typical way.")
    return list(dict.fromkeys(known + unknown)) if known else []


def as_list(text):
    """The diagnoses that a key of Exercise.mistakes stands for: itself, or the members of a tuple."""
    return list(text) if isinstance(text, tuple) else [text]


def several(*texts):
    """Diagnoses in one; "" for none."""
    if len(texts) < 2:
        return "".join(texts)
    return f"{len(texts)} things at once." + "".join(f"\n({i}) {text}" for i, text in enumerate(texts, 1))


def with_pairs(variant, changes):
    """Mistakes {diagnosis: function}. `variant(**change)` makes a wrong answer.

    changes: {diagnosis: change}. Learners also make two mistakes at once, so any two changes of different
    arguments are added as {(one, other): function}.
    """
    mistakes = {text: variant(**change) for text, change in changes.items()}
    for (a, x), (b, y) in itertools.combinations(changes.items(), 2):
        if not x.keys() & y.keys():
            mistakes[a, b] = variant(**x, **y)
    return mistakes


def _run(exercise, function, count):
    """(results of the first `count` cases, error): fewer results if an error stopped it, otherwise None."""
    results = []
    for case in exercise.cases[:count]:
        try:
            results.append(_compute(exercise, function, case))
        except Exception as error:
            return results, error
    return results, None


def _worst_index(yours, true):
    difference = np.abs(yours - true, dtype=float)
    worst = np.argmax(np.where(np.isnan(difference), np.inf, difference))
    return tuple(int(i) for i in np.unravel_index(worst, true.shape))


def describe_difference(name, yours, true):
    """How a wrong array differs, when no typical mistake explains it."""
    if not np.isfinite(yours).all() and np.isfinite(true).all():
        what = "nan" if np.isnan(yours).any() else "inf"
        return f"{name} holds {what}: look for a division by 0, log(0), or exp of a large number."
    if not yours.any():
        return f"{name} is all zeros: nothing was written into it, or its terms cancel."
    if _close(yours, -true, TOLERANCE).all():
        return f"{name} has the wrong sign, everywhere. Otherwise it is right."
    largest = np.argmax(np.abs(true))
    ratio = yours.flat[largest] / true.flat[largest]
    if _close(yours, ratio * true, TOLERANCE).all():
        return (
            f"{name} is {ratio:.6g} times what it should be, everywhere. "
            "Which factor is missing, or there by mistake?"
        )
    if true.ndim == 2 and true.shape[0] == true.shape[1] and _close(yours, true.T, TOLERANCE).all():
        return f"{name} is transposed: rows and columns are swapped."
    off = yours - true
    if true.ndim and _close(yours, true + off.flat[0], TOLERANCE).all():
        return (
            f"{name} is off by the same amount everywhere ({off.flat[0]:.6g}). "
            "Which term is missing, or there by mistake?"
        )
    wrong = int((~_close(yours, true, TOLERANCE)).sum())
    if wrong < true.size:
        return (
            f"No typical mistake. {wrong} of {true.size} entries of {name} are wrong: "
            "what do they have in common?"
        )
    return (
        f"No typical mistake: every entry of {name} differs. "
        "Compare the derivation line by line, or open a hint."
    )


def describe(function, case):
    """The arguments in words: arrays by their shape, numbers by their value."""
    words = []
    for name, value in zip(argument_names(function, case), case, strict=True):
        if isinstance(value, np.ndarray):
            short = value.ndim == 1 and value.size <= (8 if value.dtype.kind == "i" else 3)
            words.append(f"{name} {value.round(3).tolist() if short else value.shape}")
        elif isinstance(value, int | float | tuple | str):
            words.append(f"{name} {value!r}")
        elif value is not None:
            words.append(f"{name} {getattr(value, '__name__', type(value).__name__)}")
    return ", ".join(words)


def _crash(answer, error):
    """What an answer's own exception says, with the line of the answer that raised it."""
    own = getattr(getattr(answer, "__code__", None), "co_filename", None)  # the library has lambdas, too
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    where = f" in `{lines[-1].line.partition('  #')[0]}`" if lines and lines[-1].line else ""
    if isinstance(error, TypeError) and "NoneType" in str(error) and not lines:
        return f"A part of the result is None ({error}). Is a `return` missing?"
    unset = " Something there is None: has it not been set yet?" if "NoneType" in str(error) else ""
    return f"It stops with {type(error).__name__}{where}: {error}.{unset}"


def report(name, verdict, cases):
    """Print a verdict, and draw yours, the true one and the difference where that helps."""
    if verdict.status == "right":
        tried = f", on {cases} inputs in float64" if cases > 1 else ""
        print(f"✓ {name} is right{tried}.")
        return
    if verdict.status == "open":
        print(f"○ {name} is not written yet. The notebook goes on with the library's version.")
        return
    for line in f"✗ {name}: {verdict.diagnosis}".split("\n"):
        print(textwrap.fill(line, 100, subsequent_indent="  "))
    if verdict.worst:
        print(f"  worst entry: {verdict.worst}")
        print(f"  with: {verdict.case}")
    print("  The notebook goes on with the library's version until yours is right.")
    if verdict.true is not None and verdict.true.ndim and verdict.true.size > 1:
        pictures.show(pictures.comparison(verdict.yours, verdict.true))
