"""What a record is: one per operation, with everything that its tests need.

A new operation's side of the tests is one Record in the file of its family. Copy a neighbour's.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from hypothesis.strategies import SearchStrategy

from autograd import Tensor
from autograd.step.compositions import composition_of
from tests.operations.checks import assert_same, check, tensors


@dataclass(frozen=True)
class Case:
    """A small, telling example: a function of Tensors and the shapes of its inputs."""

    function: Callable[..., Tensor]
    shapes: list[tuple]
    positive: bool = False  # whether the inputs must lie above 0

    def inputs(self):
        return tensors(*self.shapes, positive=self.positive)

    def __call__(self):
        """Raise unless the gradients are right."""
        check(self.function, *self.inputs())


@dataclass(frozen=True)
class Composition:
    """A fused function, and the same composed from primitives."""

    fused: Callable[..., Tensor]
    composed: Callable[..., Tensor]
    shapes: list[tuple]
    seed: int = 0

    def __call__(self):
        """Raise unless both give the same result and gradients."""
        assert_same(self.fused, self.composed, tensors(*self.shapes, seed=self.seed))


def composition(operation, shapes, seed=0, **options):
    """An operation, and its composition in autograd/step, with the same options."""
    composed = composition_of(operation)
    return Composition(partial(operation, **options), partial(composed, **options), shapes, seed)


@dataclass(frozen=True)
class Bug:
    """A mistake that is easily made: where the source says `right`, the bug says `wrong`."""

    what: str
    right: str
    wrong: str
    caught_by: str = ""  # the check that must fail; the first of its record if left out
    inside: Callable | None = None  # the function that holds the text, if it is not the record's own


@dataclass(frozen=True)
class Record:
    """What the tests know of one function. Names of cases, compositions and checks are unique in all records.

    function: an operation, or any other function that bugs are planted in.
    cases, composed, checks: what must hold. `cases` go through gradcheck, and through every device.
    over_shapes: draws calls of the function on random shapes (see over_shapes.py).
    kernel_checks: functions of the module `cupy`. They run the GPU's form, if the function has one.
    kernel_bugs: the texts stand in autograd/cuda/*.cu.
    """

    function: Callable
    cases: dict[str, Case] = field(default_factory=dict)
    over_shapes: SearchStrategy | None = None
    composed: dict[str, Composition] = field(default_factory=dict)
    checks: list[Callable[[], None]] = field(default_factory=list)
    bugs: list[Bug] = field(default_factory=list)
    kernel_checks: list[Callable] = field(default_factory=list)
    kernel_bugs: list[Bug] = field(default_factory=list)

    def first_check(self):
        """The name of the check that catches the record's bugs, unless they name another."""
        return next(iter([*self.cases, *self.composed, *named(self.checks)]), None)

    def first_kernel_check(self):
        return next(iter(named(self.kernel_checks)), None)


def named(functions):
    """{name: function}"""
    return {function.__name__: function for function in functions}


def plant(patch, bug, function):
    """Replace the function that holds the bug's text by one with the bug, for as long as the patch lasts."""
    place = bug.inside or function
    source = inspect.getsource(getattr(place, "raw", place))
    name, module = place.__name__, sys.modules[place.__module__]
    made = {}
    exec(with_bug(source, bug, where=name), vars(module), made)
    if hasattr(place, "raw"):  # others hold the operation itself, so only its form on arrays is replaced
        patch.setattr(place, "raw", made[name].raw)
    else:
        patch.setattr(module, name, made[name])


def with_bug(source, bug, where):
    """The source with the bug in it. AssertionError unless the right text stands there once."""
    found = source.count(bug.right)
    assert found == 1, f"{where} holds {bug.right!r} {found} times; change the bug {bug.what!r} with the code"
    return source.replace(bug.right, bug.wrong)
