"""The nodes of a film: leaves, constants and operations, from what was recorded."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from autograd.backend import is_array
from autograd.step.film import FilmNode, Place
from autograd.step.names import Names
from autograd.step.record import Given, Made, Recorded, copied
from autograd.step.sources import Sources
from autograd.tape import Node
from autograd.tensor import Tensor, TensorLike


class Nodes:
    """`list` holds the FilmNodes; `number` is {Node or leaf: its place in the list}.

    places: {Node: where the pullback of each of its inputs stands}. inputs: {Node: the positions of its
    differentiable inputs}. others: {Node: leaves that are no inputs, but get a gradient from it, since a
    checkpoint's function uses them}.
    """

    def __init__(self, recorded: Recorded, names: Names):
        self.list: list[FilmNode] = []
        self.number: dict[Any, int] = {}
        self.sources = Sources()
        self.places: dict[Node, list[Place | None]] = {}
        self.inputs: dict[Node, list[int]] = {}
        self._names, self._off_tape = names, {id(made.output): made for made in recorded.off_tape}
        _learn_values(recorded.made, names)
        self.others = _other_leaves(recorded)
        for made in recorded.made:
            self._add_operation(made)
        titles = [node.label or node.name for node in self.list]
        count = Counter(titles)
        for node, title in zip(self.list, titles, strict=True):
            node.called = title if count[title] == 1 else f"{title} #{node.id}"

    def receivers(self, made: Made) -> list[int]:
        """The numbers of the nodes that an operation hands gradients to, once for each time."""
        parents = [parent for parent in made.parents if parent is not None]
        return [self.number[parent] for parent in [*parents, *self.others[made.node]]]

    def _add_operation(self, made):
        key = self.sources.of_operation(made.operation)
        places = [self.sources.place_of(pullback, key) for pullback in made.pullbacks]
        key = key or next((place.source for place in places if place), None)
        kinds = parameters_of(made, self.sources.arguments(key))
        positions = [i for i, (_, is_input) in enumerate(kinds) if is_input]
        given = zip(kinds, made.inputs, strict=False)
        options = [(name, value) for (name, is_input), value in given if not is_input]
        others = self.others[made.node]
        names = [kinds[i][0] for i in positions] + [self._names.of(leaf) or "leaf" for leaf in others]
        inputs = [self._input(made, i) for i in positions] + [self._leaf(leaf, made) for leaf in others]
        self.places[made.node], self.inputs[made.node] = places, positions
        self._add(
            made.node,
            kind="operation",
            name=made.name,
            label=self._names.of(made.node),
            shape=tuple(made.node.shape),
            dtype=str(made.node.dtype),
            value=made.value,
            module=made.module,
            inputs=inputs,
            input_names=names,
            options=", ".join(filter(None, (brief(*pair) for pair in [*options, *made.options.items()]))),
            source=key,
        )

    def _input(self, made, position):
        """The number of an input; None for what is not there, or not known."""
        parent = made.parents[position]
        if isinstance(parent, Node):
            return self.number[parent]
        if isinstance(parent, Tensor):
            return self._leaf(parent, made)
        value = made.inputs[position] if made.inputs else None
        if value is None:
            return None
        return self._array(value, made) if isinstance(value, Given) else self._constant(value, made)

    def _leaf(self, leaf, user):
        if leaf in self.number:
            return self.number[leaf]
        label = self._names.of(leaf)
        value = next((given.copy for given in user.given() if given.array is leaf.data), None)
        value = copied(leaf.data) if value is None else value
        module = self._names.module_of(label) or user.module
        return self._add_value(leaf, "leaf", "leaf", label, value, module)

    def _array(self, given, user):
        """An array that needs no gradient: the user's, or what an operation made of such."""
        key = id(given.array)
        if key in self.number:
            return self.number[key]
        name = self._off_tape[key].name if key in self._off_tape else "constant"
        label = self._names.of_array(given.array)
        return self._add_value(key, "constant", name, label, given.copy, user.module)

    def _constant(self, number, user):
        value = np.asarray(number, user.node.dtype)
        return self._add_value(object(), "constant", f"{value:.4g}", "", value, user.module)

    def _add_value(self, key, kind, name, label, value, module):
        shown = dict(name=name, label=label, value=value, module=module)
        return self._add(key, kind=kind, shape=value.shape, dtype=str(value.dtype), **shown)

    def _add(self, key, **known):
        self.number[key] = len(self.list)
        self.list.append(FilmNode(id=len(self.list), **known))
        return self.number[key]


def _learn_values(made: list[Made], names: Names) -> None:
    """Of results that were not recorded: from the Tensors that have names, and from what their users got."""
    by_node = {each.node: each for each in made}
    for tensor in names.tensors:
        if (found := by_node.get(tensor.node)) and found.value is None:
            found.value = copied(tensor.data)
    for user in made:
        for parent, value in zip(user.parents, user.inputs, strict=False):
            if isinstance(parent, Node) and by_node[parent].value is None and isinstance(value, Given):
                by_node[parent].value = value.copy


def _other_leaves(recorded):
    """{Node: the leaves that its pullback gave a gradient to by a backward pass of its own}."""
    given = {made.node: {id(value.array) for value in made.given()} for made in recorded.made}
    others = {node: {} for node in given}  # of dicts, since == of Tensors compares elements
    for handed in recorded.handed:
        for leaf, _ in handed.to_other_leaves():
            if id(leaf.data) not in given[handed.node]:
                others[handed.node][leaf] = True
    return {node: list(leaves) for node, leaves in others.items()}


def parameters_of(made: Made, arguments: list[tuple[str, bool]] = ()) -> list[tuple[str, bool]]:
    """(name, whether it is a differentiable input) of each value that an operation got by position.

    arguments: the same as far as the source tells, for an operation that was not recorded.
    """
    n = len(made.parents)
    if made.operation is None:
        fits = len(arguments) >= n  # else the source is a pullback's alone, outside of the operation
        return list(arguments[:n]) if fits else [(f"input {i}", True) for i in range(n)]
    parameters = list(inspect.signature(made.operation, eval_str=True).parameters.values())
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return [(f"{parameters[0].name}[{i}]", True) for i in range(n)]
    kinds = [(p.name, p.annotation in (TensorLike, Tensor)) for p in parameters]
    if not hasattr(made.operation, "raw"):  # checkpoint: only its Tensor is on the tape
        kinds = [kind for kind in kinds if kind[1]]
    return kinds[:n]


def brief(name: str, value: Any) -> str:
    """An option as text: "axis=-1", "ids=(2, 8) int64"; "" for what says nothing."""
    value = value.copy if isinstance(value, Given) else value
    if value is None or isinstance(value, Callable):
        return ""
    if is_array(value):
        few = value.size <= 8 and value.ndim < 2
        return f"{name}={value.tolist() if few else f'{value.shape} {value.dtype}'}"
    text = repr(value)
    return f"{name}={text}" if len(text) <= 40 else f"{name}=..."
