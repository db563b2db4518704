"""What is compared of a function of Tensors: its result, and the gradients of all that it was given."""

import copy

import numpy as np

import autograd as ag
from workbook.checking import TOLERANCE, Exercise, Wrong
from workbook.describing import same


def tensor_exercise(inputs, reference, cases, mistakes):
    """An Exercise for functions of Tensors; `inputs` are the names of the first arguments."""
    compute = on_tensors(*inputs)

    def explain(answer):
        for case in cases:
            yours, true = (compute(function, *copy.deepcopy(case)) for function in (answer, reference))
            wrong = [name for name in true if not same(yours[name], true[name], TOLERANCE)]
            if wrong:
                return "" if wrong[0] == "the result" else _past_the_tape(wrong)
        return ""

    return Exercise(reference, cases, mistakes, compute, explain=explain, separate=False)


def _past_the_tape(wrong):
    others = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return (
        f"The result is right, but {wrong[0]}{others} is not: something goes past the tape. "
        "Use only operations on Tensors: no `.data`, no `detach()`, no functions of NumPy."
    )


def on_tensors(*inputs):
    """A `compute` for functions of Tensors; these are the names of the first arguments.

    Arrays of floats, also those in a dictionary, are given as Tensors, anything else as it is. The right
    result is not enough: whatever goes past the tape (`x.data`, NumPy's functions) loses gradients.
    """

    def compute(function, *arguments):
        arguments = [_as_tensors(value) for value in arguments]
        out = function(*arguments)
        if out is None:
            return {"the result": None}
        if not isinstance(out, ag.Tensor) or not out.requires_grad:
            raise Wrong(
                f"It returns {type(out).__name__} with no tape behind it: nothing was recorded. "
                "Use the operations of `ag`, or the operators and methods of the Tensors themselves."
            )
        out.backward(np.random.default_rng(0).normal(size=out.shape))
        leaves = _leaves(dict(zip(inputs, arguments, strict=False)))
        return {"the result": out.data} | {f"the gradient of {n}": _gradient(x) for n, x in leaves.items()}

    return compute


def _as_tensors(value):
    if isinstance(value, dict):
        return {name: _as_tensors(item) for name, item in value.items()}
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return ag.Tensor(value, requires_grad=True) if is_float else value


def _leaves(values):
    """The Tensors among named values, also those in dictionaries, by name."""
    leaves = {}
    for name, value in values.items():
        leaves |= _leaves(value) if isinstance(value, dict) else {name: value}
    return {name: value for name, value in leaves.items() if isinstance(value, ag.Tensor)}


def _gradient(leaf):
    """The leaf's gradient: 0 if none has arrived."""
    return np.zeros(leaf.shape) if leaf.grad is None else leaf.grad
