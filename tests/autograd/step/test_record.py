"""What is recorded is what the engine computes: the same bits, and nothing is changed."""

import threading

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor, no_grad, step_through, tape
from autograd.step.record import Recording
from tests.autograd.step.losses import (
    LOSSES,
    checkpointed,
    checkpoints_in_a_checkpoint,
    leaf,
    partly_off_the_tape,
    scalars,
)


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)
def test_the_gradients_are_those_of_backward(make):
    loss, leaves = make()
    film = step_through(loss, **leaves)
    loss().backward()
    for name, x in leaves.items():
        np.testing.assert_array_equal(film.gradient(name), x.grad, strict=True)
        np.testing.assert_array_equal(film.node(name).value, x.data, strict=True)


@pytest.mark.parametrize("make", LOSSES, ids=lambda make: make.__name__)
def test_a_node_passes_on_what_its_users_have_added_up(make):
    film = step_through(make()[0])
    totals = {film.nodes[-1].id: np.ones(())}
    seen = []
    for step in (step for step in film.steps if step.kind == "backward"):
        np.testing.assert_array_equal(step.incoming, totals[step.node])
        assert step.adds == (step.to in totals)
        before = totals.get(step.to, 0)
        np.testing.assert_allclose(step.total, before + step.contribution, rtol=1e-12, atol=1e-15)
        totals[step.to] = step.total
        seen.append(step.node)
    assert seen == sorted(seen, reverse=True)  # the newest first, and all inputs of one at a time


def test_forward_steps_come_in_the_order_of_the_operations():
    film = step_through(scalars()[0])
    steps = [step for step in film.steps if step.kind == "forward"]
    assert [film.nodes[step.node].called for step in steps] == ["c", "d", "multiply"]
    assert [film.nodes[step.node].value.item() for step in steps] == [-6, -9, 54]
    assert [film.nodes[i].called for i in film.node("d").inputs] == ["c", "b"]


def test_a_long_film_goes_forward_a_module_at_a_time():
    class Half:
        def __call__(self, x):
            for _ in range(25):
                x = x * 0.9
            return x

        def named_parameters(self):
            return []

        def named_modules(self):
            return [("Half", self), ("inner", inner)]

    x, half, inner = leaf(2), Half(), Half()
    film = step_through(lambda: half(inner(x)).sum(), model=half)
    forward = [step for step in film.steps if step.kind == "forward"]
    assert [len(step.nodes) for step in forward] == [25, *[1] * 26]
    assert "inner computes: 25 operations" in forward[0].why


def test_gradients_and_tapes_of_the_user_stay():
    x, w = leaf(3), leaf(3, seed=1)
    x.grad = before = np.full(3, 7.0)
    h = x * w
    for loss in (lambda: (h * w).sum(), (h * w).sum()):
        film = step_through(loss, w=w)
        assert x.grad is before and before.tolist() == [7, 7, 7] and w.grad is None
        np.testing.assert_array_equal(film.gradient("w"), 2 * x.data * w.data)  # without the 7 of before
    h.sum().backward()
    np.testing.assert_array_equal(x.grad, 7 + w.data)


def test_values_are_those_of_the_moment():
    x = leaf(3)
    film = step_through(lambda: (x * x).sum())
    before = x.data.copy()
    with no_grad():
        x -= 1.0
    np.testing.assert_array_equal(film.node("x").value, before)


def test_a_loss_that_was_computed_before():
    x, w = leaf(2, 3), leaf(3, 3, seed=1)
    h = ag.linear(x, w, activation="gelu")
    loss = (h * h).sum()
    film = step_through(loss, h=h, weight=w)
    assert film.node("h").input_names == ["x", "weight"]
    np.testing.assert_array_equal(film.node("h").value, h.data)
    assert film.node("multiply").value is None and film.nodes[-1].value == loss.item()
    loss.backward()
    np.testing.assert_array_equal(film.gradient("weight"), w.grad)
    np.testing.assert_array_equal(film.gradient("h"), 2 * h.data)


def test_a_result_from_outside_is_known_from_its_use():
    hidden = [[leaf(3) * 2.0]]
    film = step_through(lambda: ag.exp(hidden[0][0]).sum())
    np.testing.assert_array_equal(film.node("multiply").value, hidden[0][0].data)


def test_constants_are_nodes():
    film = step_through(partly_off_the_tape()[0])
    shift = film.node("shift")
    assert (shift.kind, shift.name) == ("constant", "max") and film.node("shifted").inputs[1] == shift.id
    assert all(step.to != shift.id for step in film.steps)


def test_a_missing_bias_is_no_node():
    x, w = leaf(2, 3), leaf(3, 2, seed=1)
    assert step_through(lambda: ag.linear(x, w, None).sum()).node("linear").inputs[2] is None


def test_a_checkpoint_shows_what_it_computes_again():
    film = step_through(checkpointed()[0])
    node = film.node("checkpoint")
    assert [film.nodes[i].called for i in node.inputs] == ["h", "w", "b"]
    inside = node.inside
    assert [each.name for each in inside.nodes if each.kind == "operation"] == ["linear", "softmax", "matmul"]
    np.testing.assert_array_equal(inside.gradient("x"), film.gradient("h"))
    handed = next(step for step in film.steps if (step.node, step.to) == (node.id, film.node("b").id))
    np.testing.assert_array_equal(inside.gradient("b"), handed.contribution)


def test_a_checkpoint_in_a_checkpoint_opens_too():
    film = step_through(checkpoints_in_a_checkpoint()[0])
    outer = film.node("checkpoint")
    assert [film.nodes[i].called for i in outer.inputs] == ["x", "w"]
    inner = outer.inside.node("checkpoint")
    assert [node.name for node in inner.inside.nodes if node.kind == "operation"] == ["matmul", "tanh"]
    np.testing.assert_array_equal(outer.inside.gradient("x"), film.gradient("x"))


def test_it_works_where_nothing_is_recorded():
    x = leaf(2)
    with no_grad():
        assert step_through(lambda: (x * x).sum()).gradient("x") is not None


# --- what cannot be stepped through ---------------------------------------------------------------

X = leaf(2)


def freed():
    loss = (X * X).sum()
    loss.backward()
    X.grad = None
    return step_through(loss)


REFUSED = {
    "the function must return the loss, a Tensor, not None": lambda: step_through(lambda: None),
    "a Tensor, not float": lambda: step_through(lambda: X.sum().item()),
    "wanted a function that computes the loss, or a Tensor, not int": lambda: step_through(3),
    "from shape (2,) needs an upstream gradient": lambda: step_through(lambda: X * 2.0),
    "the loss is a leaf": lambda: step_through(Tensor(1.0, requires_grad=True)),
    "nothing to differentiate": lambda: step_through(lambda: Tensor(1.0) * 2.0),
    "the tape of this sum was freed": freed,
    "model must be a Tensor, or a model with named_parameters(), not int": lambda: step_through(
        lambda: X.sum(), model=3
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused(message):
    with pytest.raises((TypeError, RuntimeError)) as error:
        REFUSED[message]()
    assert message in str(error.value) and "\n" not in str(error.value)
    assert tape.watch is None and X.grad is None


def test_an_error_of_the_loss_is_the_users():
    with pytest.raises(ZeroDivisionError):
        step_through(lambda: X * (1 / 0))
    assert tape.watch is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_watch_around_it_looks_too():
    with pytest.raises(ag.AnomalyError, match="the result of exp"), ag.detect_anomaly():
        step_through(lambda: ag.exp(X * 1e5).sum())
    with pytest.raises(ag.AnomalyError, match="the gradient of input 0 of sqrt"), ag.detect_anomaly():
        step_through(lambda: ag.sqrt(X * 0.0).sum())
    assert tape.watch is None


def test_other_threads_are_not_recorded():
    with Recording() as recording:
        thread = threading.Thread(target=lambda: (X * 2.0).sum().backward())
        thread.start()
        thread.join()
        X * 3.0  # noqa: B018
    X.grad = None
    assert len(recording.events) == 1
