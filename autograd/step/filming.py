"""From a loss to its Film, and from a fused operation to the film inside it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.step.compositions import composition_of
from autograd.step.film import Film
from autograd.step.names import Names
from autograd.step.nodes import Nodes, parameters_of
from autograd.step.record import Given, Handed, Made, Recorded, again, backward, forward
from autograd.step.steps import steps_of
from autograd.tensor import Tensor


def film_of(loss: Callable[[], Any] | Tensor, names: Names) -> Film:
    """See step_through."""
    if isinstance(loss, Tensor):
        title, tensor, events = "A loss that was computed before", loss, []
    elif callable(loss):
        title = _title(loss)
        names.add_surroundings(loss)
        tensor, events, variables = forward(loss, names.modules)
        if isinstance(tensor, Film):  # of a function that steps through a loss itself
            return tensor
        names.add_variables(variables)
    else:
        raise TypeError(
            f"step_through: wanted a function that computes the loss, or a Tensor, not {_kind(loss)}"
        )
    if not isinstance(tensor, Tensor):
        raise TypeError(f"step_through: the function must return the loss, a Tensor, not {_kind(tensor)}")
    if tensor.requires_grad and tensor.node is None:
        raise RuntimeError("step_through: the loss is a leaf: no operation made it, so there are no steps")
    return film_from(title, backward(tensor, events), names, is_loss=True)


def film_from(title: str, recorded: Recorded, names: Names, is_loss: bool = False) -> Film:
    """The film of what was recorded. is_loss: whether the way back begins with 1."""
    nodes = Nodes(recorded, names)
    for made in recorded.made:
        handed = [each for each in recorded.handed if each.node is made.node]
        nodes.list[nodes.number[made.node]].make_inside = _opener(made, handed, names)
    return Film(title, nodes.list, steps_of(recorded, nodes, is_loss), nodes.sources.texts)


def _opener(made: Made, handed: list[Handed], names: Names) -> Callable[[], Film | None] | None:
    """A function that makes the film inside an operation; None for a primitive."""
    if not handed:
        return None
    if computed_again := again(handed[0]):
        inner = names.and_arrays({id(given.array): "x" for given in made.given()})
        return lambda: film_from(f"{made.name}: computed again", computed_again, inner)
    composition = composition_of(made.operation)
    if composition is None or not all(given.copy.size for given in made.given()):
        return None
    return lambda: _composed(composition, made, handed)


def _composed(composition: Callable, made: Made, handed: list[Handed]) -> Film | None:
    """The film of a composition of primitives, on the same inputs and with the same incoming gradient.

    None if it is no operation at all, as a dropout that drops nothing, or if it meets NaN or infinity where
    the fused operation does not.
    """
    kinds = parameters_of(made)
    tensors, values = {}, []
    for (name, is_input), parent, value in zip(kinds, made.parents, made.inputs, strict=True):
        value = value.copy if isinstance(value, Given) else value
        if is_input and isinstance(value, np.ndarray):
            value = tensors[name] = Tensor(value, requires_grad=parent is not None)
        values.append(value)
    with np.errstate(all="ignore"):
        compute = functools.partial(composition, *values, **made.options)
        output, events, variables = forward(compute, function=composition)
        if output.node is None:
            return None
        names = Names(tensors)
        names.add_variables(variables)
        film = film_from(f"{made.name}, from primitives", backward(output, events, handed[0].incoming), names)
    fused = [made.value, *(each.contribution for each in handed)]
    composed = [output.data, *(film.gradient(kinds[each.position][0]) for each in handed)]
    return film if all(map(_finite_alike, fused, composed)) else None


def _finite_alike(x, y):
    return x is not None and y is not None and np.array_equal(np.isfinite(x), np.isfinite(y))


def _title(function):
    text = inspect.getdoc(function) if inspect.isroutine(function) else None
    name = getattr(function, "__name__", "loss")
    return text.partition("\n")[0] if text else name.replace("<lambda>", "loss")


def _kind(value):
    return "None" if value is None else type(value).__name__
