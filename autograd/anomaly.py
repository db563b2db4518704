"""Finding the operation that makes the first NaN or infinity."""

from collections.abc import Callable

from autograd import tape
from autograd.backend import Array, array_module


class AnomalyError(ArithmeticError):
    """An operation made a NaN or an infinity."""


class detect_anomaly:
    """`with detect_anomaly(): ...` raises AnomalyError at the first result or gradient that is not finite.

    The error names the operation. It looks at every array, which takes time, and on a GPU waits for each.
    where() is called as operations are recorded; what it returns (the module at work, say) stands before the
    operation's name.
    """

    def __init__(self, where: Callable[[], str] = lambda: ""):
        self.where = where
        self.places = {}  # of recorded nodes, for their gradients

    def __enter__(self) -> None:
        self.before, tape.watch = tape.watch, self

    def __exit__(self, *exception) -> None:
        tape.watch = self.before

    def result(self, name: str, output: Array, node: tape.Node | None = None) -> None:
        """Called with the result of each operation."""
        place = self.where()
        if node is not None:
            self.places[node.order] = place
        if not all_finite(output):
            raise AnomalyError(f"{place}the result of {name} holds {_culprit(output)}")

    def gradient(self, node: tape.Node, position: int, gradient: Array) -> None:
        """Called with each gradient that a node hands down."""
        if not all_finite(gradient):
            place = self.places.get(node.order, "")
            raise AnomalyError(
                f"{place}the gradient of input {position} of {node.name} holds {_culprit(gradient)}"
            )


def all_finite(array: Array) -> bool:
    return bool(array_module(array).isfinite(array).all())


def _culprit(array):
    return "NaN" if bool(array_module(array).isnan(array).any()) else "infinity"
