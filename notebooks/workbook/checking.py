"""Checks that say what went wrong.

An exercise has the right function (the library's; the notebook goes on with it until yours is right), inputs
to try, and typical mistakes: wrong functions, each with a sentence that helps. An answer that computes the
same as a mistake, on every input, gets that sentence. For any other wrong answer the check describes how its
numbers differ (describing.py), and claims no more than the numbers show.
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
from workbook.describing import (
    agree,
    argument_names,
    describe,
    describe_difference,
    form_fault,
    has_form,
    same,
)

TOLERANCE = 1e-9  # of the largest true value: far above rounding in float64, far below any mistake
ROUNDING = 1e-12  # x[i] += h and x[i] -= h give x back, but for its last digit


class Wrong(Exception):  # noqa: N818 (it is an answer that is wrong, not a program that fails)
    """A diagnosis, raised where a check finds a mistake without comparing numbers."""


def _nothing(answer):
    """A hook that has nothing to say."""
    return ""


@dataclasses.dataclass
class Exercise:
    """What an answer is compared with.

    reference: the right function
    cases: argument tuples to try it on
    mistakes: {diagnosis: wrong function}; a tuple of diagnoses stands for several mistakes at once
    compute: (function, *arguments) -> {name: array}, what is compared; by default the function's result

    The other functions get an answer, and say more about it. All but `inspect` return a text, or "":
    inspect: of one whose numbers are right; raises Wrong for what numbers do not show
    advise: of a right one: what a teacher would add
    also_right: of one with other numbers: why it is right all the same
    explain: of one that is wrong in no typical way: what is wrong
    """

    reference: Callable
    cases: list = dataclasses.field(default_factory=list)
    mistakes: dict = dataclasses.field(default_factory=dict)
    compute: Callable = lambda function, *arguments: {"the result": function(*arguments)}
    inspect: Callable = _nothing
    advise: Callable = _nothing
    also_right: Callable = _nothing
    explain: Callable = _nothing
    tolerance: float = TOLERANCE
    separate: bool = True  # whether each result by name can be wrong in its own way

    def __post_init__(self):
        self.outcomes = {}  # what the reference and the mistakes compute, once it was needed


@dataclasses.dataclass
class Verdict:
    """What a check found.

    status: "right", "open" (not written yet) or "wrong". note: what a teacher adds to a right answer; usable
    is False if the notebook cannot go on with it. If it is wrong: diagnosis says why, worst names the worst
    entry of the first wrong case, case describes its inputs, yours and true are the arrays to draw. If all
    results are single numbers, side_by_side has a line for each case instead.
    """

    status: str
    diagnosis: str = ""
    worst: str = ""
    case: str = ""
    yours: object = None
    true: object = None
    side_by_side: list = dataclasses.field(default_factory=list)
    note: str = ""
    usable: bool = True


class Checks:
    """The exercises of a notebook by name.

    `f = check(f)` prints the verdict and returns the function to go on with.
    """

    def __init__(self):
        self.exercises = {}

    def add(self, name, exercise):
        self.exercises[name] = exercise

    def __call__(self, answer):
        name = getattr(answer, "__name__", type(answer).__name__)
        if name not in self.exercises:
            raise ValueError(
                f"there is no exercise {name}; there are {', '.join(self.exercises)}. "
                "Write your answer as `def NAME(...):`, with one of these names"
            )
        exercise = self.exercises[name]
        verdict = judge(exercise, answer)
        report(name, verdict, len(exercise.cases))
        return answer if verdict.status == "right" and verdict.usable else exercise.reference


# --- judging --------------------------------------------------------------------------------------


def judge(exercise, answer):
    """The Verdict on an answer."""
    if is_unsolved(answer):
        return Verdict("open")
    with np.errstate(all="ignore"):
        truths = [
            _outcome(exercise, "the truth", exercise.reference, i)[0] for i in range(len(exercise.cases))
        ]
        results, error = _run(exercise, answer)
        # numbers that are wrong say more than a crash later on
        found = _compare(exercise, answer, results, truths)
        if found:
            reason = _ask(exercise.also_right, answer)
            return Verdict("right", note=reason) if reason else found
        error = error or _objection(exercise, answer)
        if error:
            return _stopped(exercise, answer, results, error)
        return _praise(exercise, answer)


def _ask(hook, answer):
    """What a function of the exercise says about the answer: "" if the answer makes it fail."""
    try:
        return hook(answer)
    except Exception:
        return ""


def _objection(exercise, answer):
    """What `inspect` raises, or None."""
    try:
        exercise.inspect(answer)
    except Exception as error:
        return error
    return None


def _praise(exercise, answer):
    """The Verdict on a right answer, with what a teacher would add."""
    if exercise.cases:
        results = exercise.compute(answer, *copy.deepcopy(exercise.cases[0]))
        lists = [name for name, value in results.items() if isinstance(value, list | tuple)]
        if lists:
            advice = (
                f"the numbers are right, but {' and '.join(lists)} should be an array, not a list: "
                "`np.array(...)`. The notebook goes on with the library's version."
            )
            return Verdict("right", note=advice, usable=False)
    return Verdict("right", note=_ask(exercise.advise, answer))


def _stopped(exercise, answer, results, error):
    """The Verdict on an answer that stops with an error, or whose check raises Wrong; it was right so far."""
    if isinstance(error, Wrong):
        return Verdict("wrong", str(error))
    return Verdict("wrong", several(*_known(exercise, results, error)) or crash(answer, error))


def _compare(exercise, answer, results, truths):
    """The Verdict on wrong results, or None if all results that there are agree."""
    failed = [i for i, yours in enumerate(results) if not agree(yours, truths[i], exercise.tolerance)]
    if not failed:
        return None
    first = failed[0]
    yours, true = results[first], truths[first]
    fault = form_fault(exercise.reference, exercise.cases[first], yours, true, exercise.tolerance)
    known = several(
        *(
            _known(exercise, results)
            or _reordered(exercise, results, truths)
            or _known_by_output(exercise, results, truths)
        )
    )
    if fault:
        return Verdict("wrong", known or fault)
    return _wrong(exercise, results, truths, first, known or _ask(exercise.explain, answer))


def _wrong(exercise, results, truths, first, diagnosis):
    """The Verdict on results that are right in form but wrong in case number `first`."""
    name = next(
        name for name, t in truths[first].items() if not same(results[first][name], t, exercise.tolerance)
    )
    yours, true = results[first][name], truths[first][name]
    index = _worst_index(yours, true)
    place = f"{name}[{', '.join(map(str, index))}]" if index else name
    verdict = Verdict(
        "wrong",
        diagnosis,
        f"{place} is {yours[index]:.6g}, should be {true[index]:.6g}",
        ", ".join(describe(exercise.reference, exercise.cases[first])),
        yours,
        true,
    )
    if not diagnosis:
        words = [describe(exercise.reference, case) for case in exercise.cases]
        of_form = lambda i: name in truths[i] and has_form(results[i][name], truths[i][name])
        chosen = [i for i in range(len(results)) if of_form(i)]
        verdict.diagnosis, verdict.side_by_side = describe_difference(
            name,
            [results[i][name] for i in chosen],
            [truths[i][name] for i in chosen],
            [words[i] for i in chosen],
            exercise.tolerance,
        )
        others = [i for i in range(len(results)) if name in truths[i] and i not in chosen]
        if others:
            verdict.diagnosis += f" (For {', '.join(words[others[0]])} its shape or kind is wrong, too.)"
    return verdict


def is_unsolved(answer):
    """True while the function's body is still `...`, so that it does nothing but return None."""
    harmless = ("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL", "RETURN_VALUE")
    is_none = lambda i: i.opname in ("LOAD_CONST", "RETURN_CONST") and i.argval is None
    return inspect.isfunction(answer) and all(
        i.opname in harmless or is_none(i) for i in dis.get_instructions(answer)
    )


# --- running --------------------------------------------------------------------------------------


def _run(exercise, function):
    """(results of the cases, error): fewer results if an error stopped it, otherwise None."""
    results = []
    for case in exercise.cases:
        try:
            results.append(_compute(exercise, function, case))
        except Exception as error:
            return results, error
    return results, None


def _outcome(exercise, name, function, i):
    """(result of the i-th case, error) of the reference or of a mistake; one of them is None."""
    if (name, i) not in exercise.outcomes:
        try:
            outcome = _compute(exercise, function, exercise.cases[i]), None
        except Exception as error:
            outcome = None, error
        exercise.outcomes[name, i] = outcome
    return exercise.outcomes[name, i]


def _compute(exercise, function, case):
    """What the function makes of a copy of the case, as {name: array}. Wrong if it changed the copy."""
    arguments = copy.deepcopy(case)
    results = exercise.compute(function, *arguments)
    for name, before, after in zip(argument_names(exercise.reference, case), case, arguments, strict=True):
        refuse_changed(name, before, after)
    for name, value in results.items():
        if value is None:
            raise Wrong(f"{name} is None. Is a `return` missing, or does one of the lines end in `...`?")
    arrays = {name: np.asarray(value) for name, value in results.items()}
    return {name: array.astype(float) if array.dtype == bool else array for name, array in arrays.items()}


def refuse_changed(name, before, after):
    """Raise Wrong if an array, or one in a dictionary, holds other values than before (but for rounding)."""
    if isinstance(before, dict):
        for key, value in before.items():
            refuse_changed(f"{name}[{key!r}]", value, after[key])
    elif isinstance(before, np.ndarray) and not (
        before.shape == after.shape and np.allclose(before, after, ROUNDING, ROUNDING, equal_nan=True)
    ):
        raise Wrong(
            f"It changes its input {name} in place. "
            "Others still need it: work on a new array, or on a copy (`.copy()`)."
        )


def random_arrays(seed):
    """A function normal(*shape) that makes random arrays to try answers on, the same in every run."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape)

    return normal


def named_results(*names, otherwise):
    """A `compute` for answers that return several arrays, which get these names.

    otherwise: the diagnosis for an answer that returns something else.
    """

    def compute(function, *case):
        answer = function(*case)
        if not isinstance(answer, tuple | list) or len(answer) != len(names):
            raise Wrong(otherwise)
        return dict(zip(names, answer, strict=True))

    return compute


def with_pullback(*inputs):
    """A `compute` for answers that return a result and its pullback, or a pullback for each of these inputs.

    The last argument of each case is the upstream gradient g.
    """

    def compute(function, *case):
        *arguments, g = case
        result, pullbacks = _result_and_pullbacks(function(*arguments), inputs)
        gradients = {
            f"the gradient of {name}": pull(copy.deepcopy(g))
            for name, pull in zip(inputs, pullbacks, strict=True)
        }
        return {"the result": result, **gradients}

    return compute


def _result_and_pullbacks(answer, inputs):
    """The two things that an answer returned, the second as a list; Wrong if it is something else."""
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        raise Wrong("Return two things: the result and its pullback (a function of the upstream gradient g).")
    result, pullbacks = answer
    if len(inputs) == 1 and not isinstance(pullbacks, tuple | list):
        pullbacks = (pullbacks,)
    if not isinstance(pullbacks, tuple | list) or len(pullbacks) != len(inputs):
        number = "one pullback" if len(inputs) == 1 else f"{len(inputs)} pullbacks in a tuple"
        raise Wrong(f"The second thing returned must hold {number}, for {', '.join(inputs)}.")
    if not all(map(callable, pullbacks)):
        raise Wrong(
            "A pullback is a function: `lambda g: ...`. It cannot be a number, because g is only known later."
        )
    return result, list(pullbacks)


def pullback_exercise(inputs, reference, cases, mistakes, **hooks):
    """An Exercise for answers that return a result and a pullback for each of these inputs."""

    def inspect(answer):
        for *arguments, g in cases:
            _, pullbacks = _result_and_pullbacks(answer(*copy.deepcopy(arguments)), inputs)
            for name, pull in zip(inputs, pullbacks, strict=True):
                upstream = copy.deepcopy(g)
                once = np.array(pull(upstream))
                refuse_changed("g", g, upstream)
                if not np.allclose(once, pull(upstream), ROUNDING, ROUNDING, equal_nan=True):
                    raise Wrong(
                        f"If the pullback of {name} is called a second time, it gives another gradient: "
                        "it changes something that it keeps. Let it work on a copy."
                    )

    return Exercise(reference, cases, mistakes, with_pullback(*inputs), inspect, **hooks)


# --- typical mistakes -----------------------------------------------------------------------------


def _known(exercise, results, error=None):
    """The diagnoses, in a list, of the typical mistake that does the same as the answer.

    That is: it computes the same results. If the answer then stopped with an error, so does the mistake, with
    the same message.
    """
    for text, mistake in exercise.mistakes.items():
        if not all(_does(exercise, text, mistake, i, yours) for i, yours in enumerate(results)):
            continue
        if error is None or repr(_outcome(exercise, text, mistake, len(results))[1]) == repr(error):
            return as_list(text)
    return []


def _does(exercise, text, mistake, i, yours, names=None):
    """Whether a mistake gives your results in the i-th case: all of them, or those with these names."""
    theirs, _ = _outcome(exercise, text, mistake, i)
    names = names or yours
    return theirs is not None and all(same(yours[n], theirs[n], exercise.tolerance) for n in names)


def _reordered(exercise, results, truths):
    """The diagnosis, in a list, if all results are there but in another order."""
    pairs = list(zip(results, truths, strict=False))
    names = [name for name in truths[0] if all(name in true for _, true in pairs)]
    is_in_all = lambda name, other: all(same(y[name], t[other], exercise.tolerance) for y, t in pairs)
    found = {name: next((other for other in names if is_in_all(name, other)), None) for name in names}
    if not exercise.separate or set(found.values()) != set(names):
        return []
    moved = [f"{other} where {name} should be" for name, other in found.items() if other != name]
    return [f"Everything is right, but in the wrong order: {', '.join(moved)}."]


def _known_by_output(exercise, results, truths):
    """As above, output by output (the gradient of x, that of y, ...), for answers with a mistake in each.

    A mistake that spoils more than you did is another one. Those that spoil only this output come first.
    """
    wrong = _wrong_outputs(exercise, results, truths)
    known, unknown = [], []
    for name in wrong if exercise.separate else [n for n in wrong if n == list(truths[0])[0]]:
        found = [
            (len(theirs), text)
            for text, mistake in exercise.mistakes.items()
            if all(_does(exercise, text, mistake, i, yours, [name]) for i, yours in enumerate(results))
            and set(theirs := _wrong_outputs_of(exercise, text, mistake, truths[: len(results)]))
            <= set(wrong)
        ]
        if found:
            known += as_list(min(found, key=lambda pair: pair[0])[1])
        else:
            unknown.append(f"{name} is wrong, but not in a typical way.")
    return list(dict.fromkeys(known + unknown)) if known else []


def _wrong_outputs(exercise, results, truths):
    """The names of the results that are wrong in one case or more."""
    wrong = {}
    for yours, true in zip(results, truths, strict=False):
        wrong |= {name: 1 for name in true if not same(yours[name], true[name], exercise.tolerance)}
    return list(wrong)


def _wrong_outputs_of(exercise, text, mistake, truths):
    outcomes = [_outcome(exercise, text, mistake, i)[0] for i in range(len(truths))]
    return _wrong_outputs(exercise, outcomes, truths)


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


# --- words ----------------------------------------------------------------------------------------


def _worst_index(yours, true):
    difference = np.abs(yours - true, dtype=float)
    worst = np.argmax(np.where(np.isnan(difference), np.inf, difference))
    return tuple(int(i) for i in np.unravel_index(worst, true.shape))


def crash(answer, error):
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
        if verdict.note:
            print(textwrap.fill(f"  Note: {verdict.note}", 100, subsequent_indent="  "))
        return
    if verdict.status == "open":
        print(f"○ {name} is not written yet. The notebook goes on with the library's version.")
        return
    for line in f"✗ {name}: {verdict.diagnosis}".split("\n"):
        print(textwrap.fill(line, 100, subsequent_indent="  "))
    if verdict.side_by_side:
        print(*(f"    {line}" for line in verdict.side_by_side), sep="\n")
    elif verdict.worst:
        print(f"  worst entry: {verdict.worst}")
        print(f"  with: {verdict.case}")
    print("  The notebook goes on with the library's version until yours is right.")
    if verdict.true is not None and verdict.true.ndim and verdict.true.size > 1:
        pictures.show(pictures.comparison(verdict.yours, verdict.true))
