"""The records of the tape."""

import numpy as np

from autograd import Tensor, tape
from tests.operations.record import Bug, Record


def leaf(values):
    return Tensor(values, requires_grad=True, dtype=np.float64)


def a_gradient_shared_by_add_is_not_added_to():
    """z = (x + y) + x: add hands one array to both parents; an in-place sum would give dz/dy = 2."""
    x, y = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    ((x + y) + x).backward(np.ones(2))
    assert x.grad.tolist() == [2, 2] and y.grad.tolist() == [1, 1]
    a, b = leaf([1.0]), leaf([2.0])
    p, q = a * 1.0, b * 1.0  # the same, between nodes
    ((p + q) + p + p).backward()
    assert a.grad.tolist() == [3] and b.grad.tolist() == [1]


def gradients_of_two_leaves_do_not_share_memory():
    x, y = leaf([1.0]), leaf([2.0])
    (x + y).backward()
    (x * 5.0).backward()
    assert x.grad.tolist() == [6] and y.grad.tolist() == [1]


RECORDS = [
    Record(
        tape.walk,
        checks=[a_gradient_shared_by_add_is_not_added_to],
        bugs=[
            Bug(
                "gradients added in place to a shared array",
                right="gradients[parent] = gradients[parent] + contribution",
                wrong="gradients[parent] += contribution",
            ),
            Bug(
                "the second use of a node replaces the first",
                right="gradients[parent] = gradients[parent] + contribution",
                wrong="gradients[parent] = contribution",
            ),
        ],
    ),
    Record(
        tape.add_to_leaf,
        checks=[gradients_of_two_leaves_do_not_share_memory],
        bugs=[
            Bug("leaf gradient aliases the upstream gradient", "gradient.copy()", "gradient"),
            Bug(
                "= for += at a leaf used twice",
                right="leaf.grad += gradient",
                wrong="leaf.grad = gradient.copy()",
                caught_by="square",
            ),
        ],
    ),
]
