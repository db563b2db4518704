"""no_grad() in all its forms, and leaves that change between forward and backward."""

import threading

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Tensor, no_grad
from autograd.recording import is_recording
from tests.operations.tape import leaf

# --- no_grad --------------------------------------------------------------------------------------


def test_no_grad_is_per_thread_and_restored():
    recorded = []
    with no_grad():
        thread = threading.Thread(target=lambda: recorded.append((leaf(1.0) * 2).requires_grad))
        thread.start()
        thread.join()
        assert not (leaf(1.0) * 2).requires_grad
    assert recorded == [True] and (leaf(1.0) * 2).requires_grad


def test_one_no_grad_may_be_nested_in_itself():
    switch = no_grad()
    with switch:
        with switch:
            pass
        assert not is_recording()
    assert is_recording()
    with pytest.raises(KeyError), switch:
        raise KeyError
    assert is_recording()


@no_grad()
def called(x):
    return x * 2


@no_grad
def bare(x):
    """Twice x."""
    return x * 2


class Doubler:
    @no_grad
    def method(self, x):
        return x * 2


def test_no_grad_as_a_decorator():
    x = leaf(1.0)
    for function in (called, bare, Doubler().method, no_grad(called)):
        assert not function(x).requires_grad and is_recording()
    assert bare.__name__ == "bare" and bare.__doc__ == "Twice x."


@pytest.mark.parametrize("decorate", [no_grad, no_grad()])
def test_no_grad_on_a_generator(decorate):
    seen = []

    @decorate
    def doubled(x):
        try:
            while True:
                seen.append(is_recording())
                try:
                    x = (yield x * 2) or x
                except KeyError:
                    seen.append(is_recording())
        finally:
            seen.append(is_recording())

    generator = doubled(leaf(1.0))
    assert not next(generator).requires_grad and is_recording()
    assert float(generator.send(leaf(5.0))) == 10 and is_recording()
    assert float(generator.throw(KeyError)) == 10 and is_recording()
    generator.close()
    assert not any(seen) and len(seen) == 5 and is_recording()

    @decorate
    def ends():
        yield 1
        return 2

    def outer():
        result = yield from ends()
        yield result, is_recording()

    assert list(outer()) == [1, (2, True)]


def test_no_grad_refuses_coroutines():
    async def later():
        pass

    with pytest.raises(TypeError, match="coroutine"):
        no_grad(later)


# --- checkpoint -----------------------------------------------------------------------------------


def test_backward_of_a_checkpoint_under_no_grad():
    x, w = leaf([1.0, 2.0]), leaf([3.0, 4.0])
    y = ag.checkpoint(lambda x: ag.exp(x * w), x)
    with no_grad():
        y.backward(np.ones(2))
    np.testing.assert_allclose(x.grad, w.data * np.exp(x.data * w.data))
    np.testing.assert_allclose(w.grad, x.data * np.exp(x.data * w.data))


def test_a_checkpoint_without_use_of_its_input():
    x, w = leaf([1.0]), leaf([3.0])
    ag.checkpoint(lambda x: w * 2, x).backward()
    assert x.grad.tolist() == [0] and w.grad.tolist() == [2]
    ag.checkpoint(lambda x: x.detach() * 2, x).backward()
    assert x.grad.tolist() == [0]
    with pytest.raises(TypeError, match="must return a Tensor, not tuple"):
        ag.checkpoint(lambda x: (x, x), x)


# --- leaves that change ---------------------------------------------------------------------------


def step(w):
    w.grad = np.ones(w.shape)
    AdamW([w]).step()


def flat_step(w):
    optimizer = AdamW([w])
    optimizer.flatten()
    optimizer.step()


def subtract_in_place(w):
    with no_grad():
        w -= 1.0


FORWARD = {
    "a product": lambda w, x: w * x,
    "a view of the leaf": lambda w, x: w[0] * x,
    "a detached alias": lambda w, x: w.detach() * x,
    "a view made under no_grad": lambda w, x: no_grad()(lambda: w.reshape(2, 2))() * x,
    "a checkpoint": lambda w, x: ag.checkpoint(lambda x: w * x, x),
    "a checkpoint within one": lambda w, x: ag.checkpoint(lambda x: ag.checkpoint(lambda x: w * x, x) * 2, x),
    "a checkpointed leaf": lambda w, x: ag.checkpoint(lambda w: w * x, w),
}


@pytest.mark.parametrize("change", [step, flat_step, subtract_in_place])
@pytest.mark.parametrize("forward", FORWARD.values(), ids=FORWARD)
def test_a_leaf_changed_after_forward_is_refused(forward, change):
    w, x = leaf([[1.0, 2.0], [3.0, 4.0]]), leaf([5.0, 6.0])
    loss = forward(w, x).sum()
    change(w)
    with pytest.raises(RuntimeError, match="changed in place afterwards"):
        loss.backward()
    forward(w, x).sum().backward()


def test_other_leaves_and_other_arrays_may_change():
    w, x, other = leaf([1.0, 2.0]), leaf([3.0, 4.0]), leaf([5.0, 6.0])
    copy = Tensor(w.data)
    with no_grad():
        result = w * 2  # no view: an array of its own
    loss = (w * x * result * copy).sum()
    step(other)
    subtract_in_place(other)
    copy *= 7.0
    loss.backward()
    np.testing.assert_allclose(x.grad, w.data * 2 * w.data * w.data)
    w.grad = None
    (w * x).sum().backward(retain_graph=True)
    step(w)


def test_two_backward_passes_with_a_step_in_between():
    w = leaf([1.0])
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    step(w)
    with pytest.raises(RuntimeError, match="changed in place afterwards"):
        loss.backward()


# --- what was handed in may be filled with other values --------------------------------------------


OPERANDS = {
    "a factor": (lambda x, buffer: x * buffer, np.array([2.0, 3.0])),
    "a divisor": (lambda x, buffer: x / buffer, np.array([0.5, 0.25])),
    "a matrix": (lambda x, buffer: x @ buffer, np.eye(2)),
    "a condition": (lambda x, buffer: ag.where(buffer, x, 0.0), np.array([True, False])),
    "a mask": (lambda x, buffer: ag.masked_fill(x, buffer, 0.0), np.array([True, False])),
    "an index": (lambda x, buffer: x[buffer], np.array([1, 1])),
    "a list of indices": (lambda x, buffer: x[buffer, ...], np.array([1, 1])),
    "ids": (lambda x, buffer: ag.embedding(x.reshape(2, 1), buffer), np.array([1, 1])),
    "targets": (lambda x, buffer: ag.cross_entropy(x, buffer), np.array(1)),
    "targets of rows": (lambda x, buffer: ag.cross_entropy(x.reshape(1, 2), buffer), np.array([1])),
    "a Tensor's": (lambda x, buffer: x * Tensor(buffer), np.array([2.0, 3.0])),
}


@pytest.mark.parametrize(("forward", "buffer"), OPERANDS.values(), ids=OPERANDS)
def test_a_buffer_that_is_refilled_after_forward(forward, buffer):
    x = leaf([1.0, 2.0])
    gradients = []
    for refill in (False, True):
        mine, x.grad = buffer.copy(), None
        y = forward(x, mine).sum()
        if refill:
            mine[...] = ~mine if mine.dtype == bool else 0
        y.backward()
        gradients.append(x.grad)
    np.testing.assert_array_equal(*gradients)
