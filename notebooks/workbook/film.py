"""The player for notebook 2's engine: the learner's own graph, rules and walk as a Film of autograd.step."""

import math

import numpy as np

from autograd import Tensor
from autograd.step.filming import film_from
from autograd.step.names import Names
from autograd.step.record import Handed, Made, Recorded
from autograd.tape import Node
from workbook import scalar


def step_through(root, walk=scalar.backward, /, **names):
    """The Film of a walk back from root. For any class with data, parents, pullbacks, name, grad and order.

    walk: a backward(root). It runs once, and every pullback that it calls is recorded. No grad changes.
    names: Values to be called by name. A rule that was filled in from the library does not show its source,
    since that is the solution.

    Raises ValueError if root is a leaf, or if the walk hands on a gradient that is not complete.
    """
    if not root.parents:
        raise ValueError("step_through: this is a leaf: no operation made it, so there are no steps")
    values = sorted(scalar.topological_order(root), key=lambda value: value.order)
    calls = _recorded(values, root, walk)
    _check_complete(calls, root)
    tensors = _on_tape(values)
    made = [Made(tensors[value].node, value=tensors[value].data) for value in values if value.parents]
    handed = [
        Handed(tensors[value].node, position, np.array(gradient), np.array(contribution))
        for value, position, gradient, contribution in calls
    ]
    known = Names({name: tensors[value] for name, value in names.items() if value in tensors})
    film = film_from("Your own engine", Recorded(made, [], handed), known, is_loss=True)
    _hide_solutions(film, values)
    return film


def _recorded(values, root, walk):
    """(value, position, gradient, contribution) of each pullback that the walk calls, in order."""
    calls = []

    def recording(value, position, pullback):
        def call(gradient):
            contribution = pullback(gradient)
            calls.append((value, position, float(gradient), float(contribution)))
            return contribution

        return call

    before = [(value, value.pullbacks, value.grad) for value in values]
    try:
        for value, pullbacks, _ in before:
            value.pullbacks = tuple(recording(value, i, pullback) for i, pullback in enumerate(pullbacks))
        walk(root)
    finally:
        for value, pullbacks, grad in before:
            value.pullbacks, value.grad = pullbacks, grad
    return calls


def _check_complete(calls, root):
    """The sentences of a film are true only of a walk that hands on whole gradients."""
    if not calls:
        raise ValueError("step_through: your walk hands on no gradient at all: it calls no pullback")
    total = {root: 1.0}
    for value, position, _, contribution in calls:
        parent = value.parents[position]
        total[parent] = total.get(parent, 0.0) + contribution
    for value, _, gradient, _ in calls:
        if not math.isclose(gradient, total[value], rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(
                f"step_through: your walk hands on {gradient:.4g} from {value.name}, to which "
                f"{total[value]:.4g} comes in all. Let check(backward) look at it first"
            )


def _on_tape(values):
    """{Value: Tensor}: the same graph on the library's tape, with the rules' own pullbacks."""
    tensors = {}
    for value in values:
        data = np.array(float(value.data))
        if value.parents:
            parents = [tensors[parent].node or tensors[parent] for parent in value.parents]
            tensors[value] = Tensor._result(data, Node(value.name, parents, value.pullbacks, [], data))
        else:
            tensors[value] = Tensor(data, requires_grad=True)
    return tensors


def _hide_solutions(film, values):
    """Take out the sources of rules from the workbook. (They have named the inputs.)"""
    operations = [node for node in film.nodes if node.kind == "operation"]
    made = [value for value in values if value.parents]
    hidden = {
        node.id for node, value in zip(operations, made, strict=True) if any(map(_is_ours, value.pullbacks))
    }
    for number in hidden:
        film.nodes[number].source = None
    for step in film.steps:
        step.place = None if step.node in hidden else step.place
    shown = {node.source for node in film.nodes} | {step.place.source for step in film.steps if step.place}
    film.sources = {key: source for key, source in film.sources.items() if key in shown}


def _is_ours(pullback):
    code = getattr(pullback, "__code__", None)
    return code is not None and code.co_filename == scalar.add.__code__.co_filename
