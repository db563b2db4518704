"""The steps of a film: what is computed, and how each gradient goes back, with a sentence for each."""

from __future__ import annotations

import functools
import operator
from collections import Counter
from collections.abc import Iterator

import numpy as np

from autograd.step import why
from autograd.step.film import Step
from autograd.step.nodes import Nodes
from autograd.step.record import Made, Recorded

FORWARD_STEP_EACH = 40  # operations: in a longer film a forward step is all that a module does in a row


def steps_of(recorded: Recorded, nodes: Nodes, is_loss: bool) -> list[Step]:
    """First forward, then backward. is_loss: whether the way back begins with 1."""
    return [*forward_steps(recorded.made, nodes), *Backward(recorded, nodes, is_loss)]


def forward_steps(made: list[Made], nodes: Nodes) -> list[Step]:
    each, steps = len(made) <= FORWARD_STEP_EACH, []
    for number in (nodes.number[one.node] for one in made):
        module = nodes.list[number].module
        if not each and steps and module and nodes.list[steps[-1].node].module == module:
            steps[-1].node = number
            steps[-1].nodes.append(number)
            steps[-1].why = why.computes_several(module, len(steps[-1].nodes))
        else:
            inputs = [nodes.list[i].called for i in nodes.list[number].inputs if i is not None]
            steps.append(
                Step("forward", number, why.computes(nodes.list[number].called, inputs), nodes=[number])
            )
    return steps


class Backward:
    """Goes through the gradients as they were handed down, and keeps count of what was there before each."""

    def __init__(self, recorded: Recorded, nodes: Nodes, is_loss: bool):
        self.recorded, self.nodes, self.is_loss = recorded, nodes, is_loss
        self.made = {made.node: made for made in recorded.made}
        self.uses = Counter(number for made in recorded.made for number in nodes.receivers(made))
        self.totals: dict[int, np.ndarray] = {}
        self.parts, self.visited = Counter(), set()
        self.waiting = {nodes.number[recorded.made[-1].node]}  # operations that have a gradient

    def __iter__(self) -> Iterator[Step]:
        for handed in self.recorded.handed:
            number = self.nodes.number[handed.node]
            turn = self._turn(number)
            self.visited.add(number)
            self.waiting.discard(number)
            for position, to, gradients in self._parts(handed):
                yield self._step(handed, position, to, gradients, turn)
                turn = why.next_input(self.nodes.list[number].called)

    def _turn(self, number):
        """Why it is this node's turn."""
        called = self.nodes.list[number].called
        if number in self.visited:
            return why.next_input(called)
        if not self.visited:
            return why.starts(called) if self.is_loss else why.starts_inside(called)
        return why.turn(called, self.uses[number], len(self.waiting), newest=number == max(self.waiting))

    def _parts(self, handed):
        """(position among the inputs, receiver, gradients) of all that one pullback gave."""
        made = self.made[handed.node]
        receivers, inputs = self.nodes.number, self.nodes.inputs[handed.node]
        yield inputs.index(handed.position), receivers[made.parents[handed.position]], [handed.contribution]
        for i, leaf in enumerate(self.nodes.others[handed.node]):
            given = [gradient for other, gradient in handed.to_other_leaves() if other is leaf]
            yield len(inputs) + i, receivers[leaf], given

    def _step(self, handed, position, to, gradients, turn):
        adds = to in self.totals
        self.totals[to] = _sum([self.totals[to], *gradients] if adds else gradients)
        self.parts[to] += 1
        if self.nodes.list[to].kind == "operation":
            self.waiting.add(to)
        arrival = why.arrives(self.nodes.list[to].called, self.parts[to], self.uses[to])
        return Step(
            "backward",
            self.nodes.number[handed.node],
            f"{turn} {arrival}",
            input=position,
            to=to,
            incoming=handed.incoming,
            contribution=_sum(gradients),
            total=self.totals[to],
            adds=adds,
            place=self.nodes.places[handed.node][handed.position],
        )


def _sum(arrays):
    """Added one after the other, as the tape does it."""
    return np.asarray(functools.reduce(operator.add, arrays))
