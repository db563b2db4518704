"""Recording: the real engine runs, and a watch notes every result and every gradient that is handed down."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from autograd import tape
from autograd.anomaly import add_watch, module_at_work, remove_watch
from autograd.backend import Array, is_array, to_numpy
from autograd.recording import enable_grad
from autograd.step.sources import code_of
from autograd.tape import Node, gradients_aside
from autograd.tensor import Tensor


class Given(NamedTuple):
    """An array that an operation worked on, to know it again, and a copy, since users may change it."""

    array: Array
    copy: np.ndarray


@dataclass
class Made:
    """An operation's result, as the watch saw it.

    node: None if it was not put on the tape. inputs: Given, numbers and None, by position. Of what was made
    before the watch, only the node is known, and perhaps the value.
    """

    node: Node | None
    operation: Callable | None = None
    output: Array | None = None
    value: np.ndarray | None = None  # a copy
    inputs: list = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    module: str = ""

    def __post_init__(self):
        """Keep what the walk may free."""
        self.parents = list(self.node.parents) if self.node else []
        self.pullbacks = list(self.node.pullbacks or ()) if self.node else []

    @property
    def name(self) -> str:
        return self.node.name if self.node else self.operation.__name__.strip("_")

    def given(self) -> list[Given]:
        return [value for value in self.inputs if isinstance(value, Given)]


@dataclass
class Handed:
    """A gradient that a node handed to the input at a position. inner: what the pullback recorded itself."""

    node: Node
    position: int
    incoming: np.ndarray
    contribution: np.ndarray
    inner: list[Made | Handed] = field(default_factory=list)

    def to_other_leaves(self) -> Iterator[tuple[Tensor, np.ndarray]]:
        """(leaf, gradient) of what a backward pass inside the pullback, as checkpoint's, handed to leaves.

        Without those that stand for a result, as a checkpoint inside a checkpoint makes one.
        """
        made = [event for event in self.inner if isinstance(event, Made)]
        parents, outputs = {each.node: each.parents for each in made}, {id(each.output) for each in made}
        for event in self.inner:
            if isinstance(event, Handed) and event.node in parents:
                leaf = parents[event.node][event.position]
                if isinstance(leaf, Tensor) and id(leaf.data) not in outputs:
                    yield leaf, event.contribution


class Recording:
    """`with Recording() as recording:` fills `events`, Made and Handed in order, of this thread alone.

    modules: {id(module): name}, to say which module was at work. function: whose variables should be known.
    """

    def __init__(self, modules: dict[int, str] | None = None, function: Callable | None = None):
        self.events: list[Made | Handed] = []
        self._modules = modules
        self._code = code_of(function)
        self._frame: FrameType | None = None
        self._given: dict[int, Given] = {}  # by id(array)

    def __enter__(self) -> Recording:
        self._thread, self._before = threading.get_ident(), tape.watch
        add_watch(self)
        return self

    def __exit__(self, *exception) -> None:
        remove_watch(self)

    def result(self, operation: Callable, output: Array, node: Node | None, inputs: list, options: dict):
        """Called by each operation."""
        if self._before:  # a detect_anomaly around this
            self._before.result(operation, output, node, inputs, options)
        if threading.get_ident() != self._thread:
            return
        made = Made(node, operation, output, copied(output))
        made.inputs = [self._known(value) if is_array(value) else value for value in inputs]
        made.options = {name: copied(value) if is_array(value) else value for name, value in options.items()}
        made.module = module_at_work(self._modules) or "" if self._modules else ""
        self.events.append(made)
        if is_array(output):
            self._given[id(output)] = Given(output, made.value)
        if self._code and not self._frame:
            self._frame = _running(self._code)

    def gradient(self, node: Node, position: int, incoming: Array, contribution: Array):
        """Called with each gradient that a node hands down."""
        if self._before:
            self._before.gradient(node, position, incoming, contribution)
        if threading.get_ident() == self._thread:
            self.events.append(Handed(node, position, copied(incoming), copied(contribution)))

    def variables(self) -> dict[str, Any]:
        """The local variables of the function at its end: {name: value}."""
        return dict(self._frame.f_locals) if self._frame else {}

    def _known(self, array):
        if id(array) not in self._given:
            self._given[id(array)] = Given(array, copied(array))
        return self._given[id(array)]


def _running(code):
    """The innermost frame that runs this code."""
    frame = sys._getframe(1)
    while frame and frame.f_code is not code:
        frame = frame.f_back
    return frame


def copied(array: Any) -> np.ndarray:
    """A copy on the CPU, in one piece, of an array or a NumPy scalar."""
    return np.array(to_numpy(array) if is_array(array) else array, order="C")


@dataclass
class Recorded:
    """What a film is made from: both passes of one loss.

    made: what the loss was made of, oldest first. off_tape: results without a node. handed: the gradients.
    """

    made: list[Made]
    off_tape: list[Made]
    handed: list[Handed]


def forward(
    compute: Callable[[], Any], modules: dict[int, str] | None = None, function: Callable | None = None
) -> tuple[Any, list, dict]:
    """(what compute() returns, the events meanwhile, the local variables of it or of another function)."""
    with Recording(modules, function or compute) as recording, enable_grad():
        result = compute()
    return result, recording.events, recording.variables()


def backward(loss: Tensor, events: list, gradient: Array | None = None) -> Recorded:
    """Both passes, from the events of the forward pass. The tape and every `.grad` stay as they are."""
    made = _below(loss.node, events) if loss.node else []
    with Recording() as recording, gradients_aside():
        loss.backward(gradient, retain_graph=True)
    if made and made[-1].value is None:
        made[-1].value = copied(loss.data)
    return from_events(made, events, recording.events)


def again(handed: Handed) -> Recorded | None:
    """What the pullback of a checkpoint recorded: its function, forward and backward. None of another."""
    root = next((event.node for event in handed.inner if isinstance(event, Handed)), None)
    return root and from_events(_below(root, handed.inner), handed.inner, handed.inner)


def from_events(made: list[Made], before: list, events: list) -> Recorded:
    """Sort the events: gradients of the nodes made, each with what was recorded since the one before."""
    nodes, handed, inner = {each.node for each in made}, [], []
    for event in events:
        if isinstance(event, Handed) and event.node in nodes:
            event.inner, inner = inner, []
            handed.append(event)
        else:
            inner.append(event)
    off_tape = [event for event in before if isinstance(event, Made) and event.node is None]
    return Recorded(made, off_tape, handed)


def _below(root, events):
    """Everything that a node was made of, oldest first."""
    seen = {event.node: event for event in events if isinstance(event, Made) and event.node}
    found, todo = {root: seen.get(root) or Made(root)}, [root]
    while todo:
        for parent in found[todo.pop()].parents:
            if isinstance(parent, Node) and parent not in found:
                found[parent] = seen.get(parent) or Made(parent)
                todo.append(parent)
    return [found[node] for node in sorted(found, key=lambda node: node.order)]
