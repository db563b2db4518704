"""The records of Tensor, of the tape, and of what may change while it exists."""

import numpy as np

import autograd as ag
from autograd import Tensor, no_grad, operation, recording, tape, tensor
from autograd.ops import operators
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


def rows_of_a_jacobian_from_one_refilled_buffer():
    """One backward pass each, whose upstream gradient is the same array with other values."""
    x, weight = leaf([1.0, 1.0]), leaf([[1.0, 2.0], [3.0, 4.0]])
    y = ag.linear(x, weight, activation="relu")
    rows, upstream = [], np.zeros(2)
    for i in range(2):
        upstream[:] = np.eye(2)[i]
        x.grad = None
        y.backward(upstream, retain_graph=True)
        rows.append(x.grad.tolist())
    assert rows == [[1, 3], [2, 4]]


def a_changed_leaf_is_refused():
    for forward in (lambda w, x: w * x, lambda w, x: no_grad()(lambda: w.reshape(2))() * x):
        w, x = leaf([[1.0, 2.0]]), leaf([3.0, 4.0])
        loss = forward(w, x).sum()
        with no_grad():
            w -= 1.0
        try:
            loss.backward()
        except RuntimeError:
            continue
        raise AssertionError("a gradient from the changed values")


def a_gradient_may_be_replaced():
    x = leaf([1.0, 2.0])
    for other in (np.array([10, 20], np.float32), [10, 20], np.array([10, 20]), Tensor([10.0, 20.0])):
        x.grad = other
        (x * x).sum().backward()
        assert x.grad.dtype == np.float64 and x.grad.tolist() == [12, 24]
    x.grad = np.broadcast_to(1.0, (2,))
    (x * x).sum().backward()
    assert x.grad.tolist() == [3, 5]


def a_gradient_of_another_shape_is_refused():
    x = leaf([1.0, 2.0])
    x.grad = np.ones(1)
    try:
        (x * x).sum().backward()
    except ValueError:
        return
    raise AssertionError("the gradient was broadcast")


def in_place_operators_train_a_leaf():
    w = leaf([1.0])
    for p in [w]:
        (p * p).backward()
        with no_grad():
            p -= 0.25 * p.grad  # noqa: PLW2901
    assert float(w) == 0.5


def in_place_operators_leave_the_tape_its_arrays():
    x, buffer = leaf([1.0, 2.0]), Tensor([1.0, 1.0], dtype=np.float64)
    y = (x * buffer).sum()
    buffer *= 100.0
    y.backward()
    assert x.grad.tolist() == [1, 1] and buffer.numpy().tolist() == [100, 100]


def a_generator_runs_without_the_tape():
    @no_grad
    def doubled(x):
        yield x * 2

    assert not next(doubled(leaf(1.0))).requires_grad


def nothing_else_than_numbers():
    for values in (None, "3", 1j):
        try:
            with np.errstate(all="ignore"):
                found = Tensor(values)
        except TypeError:
            continue
        raise AssertionError(f"Tensor({values!r}) became {found}")


RECORDS = [
    Record(
        tape.walk,
        checks=[
            a_gradient_shared_by_add_is_not_added_to,
            rows_of_a_jacobian_from_one_refilled_buffer,
            a_changed_leaf_is_refused,
        ],
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
            Bug(
                "a cache by identity outlives the visit of its node",
                right="gradients.pop(node).view()",
                wrong="gradients.pop(node)",
                caught_by="rows_of_a_jacobian_from_one_refilled_buffer",
            ),
            Bug(
                "a leaf that was changed is not noticed",
                right="refuse_changed(node.uses, node.name)",
                wrong="pass",
                caught_by="a_changed_leaf_is_refused",
            ),
        ],
    ),
    Record(
        tape.add_to_leaf,
        checks=[gradients_of_two_leaves_do_not_share_memory, a_gradient_may_be_replaced],
        bugs=[
            Bug("leaf gradient aliases the upstream gradient", "gradient.copy()", "gradient"),
            Bug(
                "= for += at a leaf used twice",
                right="leaf.grad += gradient",
                wrong="leaf.grad = gradient.copy()",
            ),
            Bug(
                "what users put into .grad is added to in place",
                right="elif _fits(leaf):",
                wrong="elif True:",
                caught_by="a_gradient_may_be_replaced",
            ),
        ],
    ),
    Record(
        tape._add_to_dict,
        bugs=[
            Bug(
                "gradcheck: = for += at an input used twice",
                right="gradients[leaf] += gradient",
                wrong="gradients[leaf] = gradient",
                caught_by="square",
            ),
        ],
    ),
    Record(
        tape.gradient_of,
        checks=[a_gradient_of_another_shape_is_refused],
        bugs=[Bug("a gradient of another shape is broadcast", "if grad.shape != leaf.shape:", "if False:")],
    ),
    Record(
        operation._shared_counter,
        bugs=[
            Bug(
                "a view of a leaf made under no_grad() counts nothing",
                right="if tensor.changes and _owner(output) is _owner(tensor.data):",
                wrong="if False:",
                caught_by="a_changed_leaf_is_refused",
            ),
        ],
    ),
    Record(
        operators._changed_leaf,
        checks=[in_place_operators_train_a_leaf],
        bugs=[
            Bug("an in-place operator binds another Tensor", "leaf.data[...] = result.data", "leaf = result"),
            Bug(
                "an in-place operator is not counted",
                right="leaf.changes[0] += 1",
                wrong="pass",
                caught_by="a_changed_leaf_is_refused",
            ),
        ],
    ),
    Record(
        operators._replaced,
        checks=[in_place_operators_leave_the_tape_its_arrays],
        bugs=[
            Bug(
                "an in-place operator writes into an array of the tape",
                right="x.data, x.changes = result.data, result.changes",
                wrong="x.data[...] = result.data",
            ),
        ],
    ),
    Record(
        recording._switched_generator,
        checks=[a_generator_runs_without_the_tape],
        bugs=[
            Bug(
                "a decorated generator runs with the tape",
                right="with switch():\n                    item = go_on(value)",
                wrong="item = go_on(value)",
            ),
        ],
    ),
    Record(
        tensor.numbers,
        checks=[nothing_else_than_numbers],
        bugs=[
            Bug("None and strings become numbers", 'if array.dtype.kind not in "fiub":', "if False:"),
        ],
    ),
]
