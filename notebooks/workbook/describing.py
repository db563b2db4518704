"""Words for results that are wrong in no typical way. They claim no more than the numbers show.

One number is always some multiple of another, and differs from it by some amount. So "three times what it
should be" is only said where the same factor fits several numbers that have nothing to do with each other.
Where nothing of the kind fits, the cases are shown side by side.
"""

import inspect
import math

import numpy as np

ENOUGH = 3  # so many numbers with the same factor, or the same difference, are no coincidence
LAST_DIGITS = 1e-4  # a relative error below this is a matter of digits
MOST_CASES = 5  # side by side


# --- comparing ------------------------------------------------------------------------------------


def agree(yours, true, tolerance):
    """Whether all results by name are those that they should be."""
    return all(same(yours[name], true[name], tolerance) for name in true)


def same(yours, true, tolerance):
    """Whether an array has the right shape and the right numbers, in float64 where they should be."""
    return has_form(yours, true) and bool(close(yours, true, tolerance).all())


def has_form(yours, true):
    """Whether an array has the right shape and kind, so that its numbers can be compared."""
    return yours.shape == true.shape and not _kind_fault(yours, true)


def _kind_fault(yours, true):
    """What is wrong with the kind of numbers, or ""."""
    if yours.dtype.kind not in "biufc":
        return f"should hold numbers, but {{}} {yours.dtype}."
    if yours.dtype.kind == "c":
        return f"should hold real numbers, but {{}} {yours.dtype}."
    if yours.dtype.kind == "f" and true.dtype.kind in "iu":
        return f"should hold integers, but {{}} {yours.dtype}: they cannot be used as ids."
    if yours.dtype.kind == true.dtype.kind == "f" and yours.itemsize < true.itemsize:
        return f"should hold float64, as the inputs do, but {{}} {yours.dtype}: half of the digits get lost."
    return ""


def close(yours, true, tolerance):
    """For each entry whether it is right: to within the tolerance, as a part of the largest true value."""
    return (
        (np.abs(yours - true) <= tolerance * _size(true))
        | (yours == true)
        | (np.isnan(yours) & np.isnan(true))
    )


def _size(true):
    return np.abs(true[np.isfinite(true)]).max(initial=0.0) or 1.0


def form_fault(function, case, yours, true, tolerance):
    """What is wrong with the shape or the kind of a result of this case, or ""."""
    for name, value in yours.items():
        fault = _kind_fault(value, true[name])
        if value.dtype.kind in "biufc" and value.shape != true[name].shape:
            return (
                f"{name} {_verb(name, 'has', 'have')} the shape {value.shape}, "
                f"but should have {_shape(true[name])} ({', '.join(describe(function, case))})."
                f"{_shape_hint(value, true[name], tolerance)}"
            )
        if fault:
            return f"{name} {fault.format(_verb(name, 'holds', 'hold'))}"
    return ""


def _verb(name, one, many):
    """The verb for "the gradient of logits", or for "the targets"."""
    return many if name.split()[1:] and name.split()[1].strip(",").endswith("s") else one


def _is(name):
    return f"{name} {_verb(name, 'is', 'are')}"


def _holds(name):
    return f"{name} {_verb(name, 'holds', 'hold')}"


def _shape(array):
    return array.shape if array.ndim else "() (one number)"


def _shape_hint(value, true, tolerance):
    if value.size == true.size and close(value.reshape(true.shape), true, tolerance).all():
        return " The numbers are right."
    if value.shape == true.shape[::-1] and close(value.T, true, tolerance).all():
        return " It is transposed."
    return ""


# --- describing -----------------------------------------------------------------------------------


def describe_difference(name, yours, true, cases, tolerance):
    """(diagnosis, lines that show the cases side by side) for results that are wrong.

    yours, true: this result in every case, a list of arrays; cases: the inputs in words, lists of them.
    """
    right = [bool(close(y, t, tolerance).all()) for y, t in zip(yours, true, strict=True)]
    wrong = [i for i, is_right in enumerate(right) if not is_right]
    some = ""
    if any(right):
        some = _right_and_wrong(cases[right.index(True)], cases[wrong[0]])
    first = (name, yours[wrong[0]], true[wrong[0]])
    failed = [(yours[i], true[i]) for i in wrong]
    single = all(t.size == 1 for t in true)
    pattern = _last_digits(name, failed)
    if not (single and any(right)):
        pattern = _not_finite(*first) or _zeros(name, failed) or pattern
    if pattern:
        return pattern + some, []
    # 0 is a multiple of anything: such cases neither speak for a factor nor against it
    telling = [i for i, t in enumerate(true) if t.any()]
    if telling == wrong:
        pattern = _one_factor(name, failed, tolerance)
    if not pattern and not any(right):
        pattern = _differences(name, failed, cases, tolerance)
    if pattern:
        return pattern, []
    pattern = _moved(name, failed, tolerance)
    pattern = pattern or _factors_by_case(name, failed, [cases[i] for i in wrong], tolerance)
    if pattern:
        return pattern + some, []
    if single:
        return _single_numbers(name, yours, true, right, cases)
    return _count_of_wrong(*first, tolerance) + some, []


def _right_and_wrong(right, wrong):
    """Where it is right and where it is wrong: the inputs that make the difference, if there are few."""
    different = (
        [(a, b) for a, b in zip(right, wrong, strict=False) if a != b] if len(right) == len(wrong) else []
    )
    a, b = zip(*different, strict=True) if different else (right, wrong)
    return f" It is right for {', '.join(a)}, but wrong for {', '.join(b)}."


def _not_finite(name, yours, true):
    if np.isfinite(yours).all() or not np.isfinite(true).all():
        return ""
    what = "nan" if np.isnan(yours).any() else "inf"
    return f"{_holds(name)} {what}: look for a division by 0, log(0), 0 * inf, or exp of a large number."


def _zeros(name, failed):
    if not all((np.abs(yours) <= 1e-12 * _size(true)).all() for yours, true in failed):
        return ""
    return (
        f"{_is(name)} {'all zeros' if failed[0][1].ndim else '0'}: nothing gets into it, or its terms cancel."
    )


def _last_digits(name, failed):
    errors = [float(np.abs(yours - true).max() / _size(true)) for yours, true in failed]
    error = errors[0]
    if not (error < LAST_DIGITS and max(errors) < 10 * LAST_DIGITS):
        return ""
    return (
        f"{_is(name)} right to about {int(-math.log10(error))} digits, but not further. "
        "Is a small number added or left out? Is a constant rounded, or something computed in float32?"
    )


def _one_factor(name, pairs, tolerance):
    factor = _factor(*pairs[0])
    fits = factor is not None and all(close(y, factor * t, tolerance).all() for y, t in pairs)
    if not fits or sum(_numbers_in(true) for _, true in pairs) < ENOUGH:
        return ""
    if abs(factor + 1) < 1e-6:
        return f"{name} {_verb(name, 'has', 'have')} the wrong sign, everywhere. Otherwise it is right."
    return (
        f"{_is(name)} {factor:.6g} times what {_verb(name, 'it', 'they')} should be, everywhere. "
        "Which factor is missing, or there by mistake?"
    )


def _factors_by_case(name, pairs, cases, tolerance):
    factors = [_factor(yours, true) for yours, true in pairs]
    if (
        None in factors
        or min(_numbers_in(true) for _, true in pairs) < ENOUGH
        or not all(close(y, f * t, tolerance).all() for f, (y, t) in zip(factors, pairs, strict=True))
    ):
        return ""
    if np.allclose(factors, factors[0], 1e-6, 0):
        it, it_is = _verb(name, "it", "they"), _verb(name, "it is", "they are")
        return f"{_is(name)} {factors[0]:.6g} times what {it} should be, where {it_is} wrong."
    return (
        f"{_is(name)} right but for a factor, which is not always the same: "
        f"{_by_case(factors, cases, ' times')}. What has these values there?"
    )


def _factor(yours, true):
    """The quotient where the true value is largest; None if that is 0."""
    largest = np.argmax(np.abs(true))
    return yours.flat[largest] / true.flat[largest] if true.flat[largest] else None


def _numbers_in(true):
    """How many different numbers an array holds that are not (nearly) 0."""
    return len(np.unique(true[np.abs(true) > 1e-6 * _size(true)]))


def _differences(name, pairs, cases, tolerance):
    differences = [(yours - true).flat[0] for yours, true in pairs]
    if not all(close(y, t + d, tolerance).all() for d, (y, t) in zip(differences, pairs, strict=True)):
        return ""
    sizes = [true.size for _, true in pairs]
    if np.allclose(differences, differences[0], 1e-6, 0) and sum(sizes) >= ENOUGH:
        return (
            f"{_is(name)} off by the same amount everywhere ({differences[0]:.6g}). "
            "Which term is missing, or there by mistake?"
        )
    if min(sizes) >= ENOUGH:
        return (
            f"{_is(name)} off by the same amount everywhere, but not in all cases by the same: "
            f"{_by_case(differences, cases)}. Which term is missing, or there by mistake?"
        )
    return ""


def _by_case(values, cases, unit=""):
    return "; ".join(
        f"{value:.6g}{unit} for {', '.join(case)}"
        for value, case in list(zip(values, cases, strict=True))[:3]
    )


def _moved(name, failed, tolerance):
    square = all(t.ndim == 2 and t.shape[0] == t.shape[1] for _, t in failed)
    if square and all(close(y, t.T, tolerance).all() for y, t in failed):
        return f"{_is(name)} transposed: rows and columns are swapped."
    if all(t.size > ENOUGH and close(np.sort(y, None), np.sort(t, None), tolerance).all() for y, t in failed):
        return (
            f"{_holds(name)} the right numbers, but in other places. Follow one of them through your lines."
        )
    return ""


def _single_numbers(name, yours, true, right, cases):
    order = sorted(range(len(right)), key=lambda i: right[i])  # wrong ones first
    some_wrong, some_right = [i for i in order if not right[i]], [i for i in order if right[i]][:2]
    shown = sorted(some_wrong[: MOST_CASES - len(some_right)] + some_right)
    lines = [
        f"{'✓' if right[i] else '✗'} {', '.join(cases[i]) or name}: "
        f"yours {yours[i].item():.6g}, should be {true[i].item():.6g}"
        for i in shown
    ]
    look = "Compare the derivation line by line, or open a hint."
    if len(lines) > 1:
        look = "Compare the cases: for which inputs is it too large, too small, right?"
    return f"No typical mistake in {name}. {look}", lines


def _count_of_wrong(name, yours, true, tolerance):
    wrong = int((~close(yours, true, tolerance)).sum())
    if wrong < true.size:
        return (
            f"No typical mistake. {wrong} of {true.size} entries of {name} are wrong: "
            "what do they have in common?"
        )
    return (
        f"No typical mistake: every entry of {name} differs. "
        "Compare the derivation line by line, or open a hint."
    )


# --- the inputs in words --------------------------------------------------------------------------


def argument_names(function, case):
    names = list(inspect.signature(function).parameters)
    return (names + ["g"] + [f"input {i}" for i in range(len(names) + 1, len(case))])[: len(case)]


def describe(function, case):
    """The arguments in words, a list: arrays by their shape, numbers by their value."""
    words = []
    for name, value in zip(argument_names(function, case), case, strict=True):
        if isinstance(value, np.ndarray):
            short = value.ndim == 1 and value.size <= (8 if value.dtype.kind == "i" else 3)
            words.append(f"{name} {value.round(3).tolist() if short else value.shape}")
        elif isinstance(value, int | float | tuple | str):
            words.append(f"{name} {value!r}")
        elif value is not None:
            words.append(f"{name} {getattr(value, '__name__', type(value).__name__)}")
    return words
