"""The tape: what it records, when it forgets, and what it refuses."""

import gc
import weakref

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor, no_grad
from tests.operations import checks_of, tape
from tests.operations.tape import leaf


@pytest.mark.parametrize("check", checks_of(tape).values(), ids=checks_of(tape))
def test_the_tape(check):
    check()


def test_backward_leaves_the_upstream_gradient_alone():
    x, upstream = leaf([1.0, 2.0]), np.array([1.0, 3.0])
    (x + x).backward(upstream)
    (x + 0.0).backward(upstream)
    assert upstream.tolist() == [1, 3] and x.grad.tolist() == [3, 9]


def test_gradients_add_up_over_backward_passes():
    x = leaf([3.0])
    for _ in range(3):
        (x * x).backward()
    assert x.grad.tolist() == [18]


def test_chain_of_50000_operations():
    x = leaf(1.0)
    y = x
    for _ in range(50_000):
        y = y + 1.0
    y.backward()
    assert float(y) == 50_001 and float(x.grad) == 1
    z = x
    for _ in range(50_000):
        z = z + 1.0
    del z  # never differentiated: taking it apart must not overflow the stack either


def test_diamond_of_depth_1000():
    """Every level uses the one below twice; walking the paths, not the nodes, would take 2**1000 steps."""
    x = leaf(1.0)
    y = x
    for _ in range(1000):
        y = (y + y) * 0.5
    y.backward()
    assert float(x.grad) == 1


def test_order_of_a_node_used_early_and_late():
    x = leaf(2.0)
    a = x * x
    b = a * a
    (a * b * a).backward()  # x**8
    assert float(x.grad) == 8 * 2.0**7


def test_memory_of_the_tape_goes_without_the_garbage_collector():
    gc.disable()
    try:
        x = leaf(np.ones((50, 50)))
        hidden = ag.softmax(ag.layer_norm(x @ x, x[0], x[1]))
        arrays = [weakref.ref(hidden), weakref.ref(hidden.data)]
        loss = (hidden * hidden).mean()
        del hidden
        assert arrays[1]() is not None, "the tape should still hold the array"
        loss.backward()
        assert [reference() for reference in arrays] == [None] * 2
        unused = ag.exp(x * 2.0)
        reference = weakref.ref(unused.data)
        del unused
        assert reference() is None, "a result that is dropped without backward should go too"
    finally:
        gc.enable()


def test_activations_go_while_backward_is_running():
    x = leaf(np.ones(3))
    first = ag.exp(x)
    seen = []
    reference = weakref.ref(ag.exp(first).data)

    @ag.op
    def look(x):
        return x * 1.0, lambda g: (seen.append(late() is None), g)[1]

    y = look(first)
    late_tensor = ag.exp(y)
    late = weakref.ref(late_tensor.data)
    loss = late_tensor.sum()
    del late_tensor
    loss.backward()
    assert seen == [True] and reference() is None


def test_second_backward_over_a_freed_tape():
    x = leaf([1.0])
    y = x * x
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [4]
    with pytest.raises(RuntimeError, match="freed by an earlier backward.*retain_graph=True"):
        y.backward()


def test_what_backward_refuses():
    with pytest.raises(RuntimeError, match="upstream gradient"):
        (leaf([1.0, 2.0]) * 2).backward()
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        (leaf([1.0, 2.0]) * 2).backward(np.ones(3))
    with pytest.raises(RuntimeError, match="requires_grad"):
        Tensor([1.0]).backward()
    with no_grad():
        y = leaf([1.0]) * 2
    with pytest.raises(RuntimeError, match="no_grad"):
        y.backward()


def test_a_wrong_pullback_shape_or_dtype_is_named():
    @ag.op
    def wrong_shape(x):
        return x * 2, lambda g: g.sum()

    @ag.op
    def wrong_dtype(x):
        return x * 2, lambda g: g.astype(np.float32)

    for function in (wrong_shape, wrong_dtype):
        with pytest.raises(AssertionError, match=function.__name__):
            function(leaf([1.0, 2.0])).backward(np.ones(2))


def test_assignment_into_a_tensor_is_refused():
    with pytest.raises(TypeError, match="where"):
        leaf([1.0, 2.0])[0] = 3.0


def test_mixing_dtypes_is_refused():
    with pytest.raises(TypeError, match=r"float32.*float64.*astype"):
        Tensor([1.0]) + Tensor([1.0], dtype=np.float64)


def test_options_are_plain_values():
    for bound in (leaf(0.0), Tensor(0.0)):
        with pytest.raises(TypeError, match=r"clip: low is a plain value, not a Tensor.*\.item\(\)"):
            ag.clip(leaf([1.0]), bound)
        with pytest.raises(TypeError, match="clip: high is a plain value"):
            ag.clip(leaf([1.0]), high=bound)


# --- what operations are called with --------------------------------------------------------------

PLAIN = [
    [3, 4],
    (3, 4),
    [3.0, 4.0],
    np.array([3, 4]),
    np.array([3, 4], np.uint8),
    np.array([3.0, 4.0]),
    range(3, 5),
]
NUMBERS = [3, 3.0, True, np.int64(3), np.float64(3), np.float32(3), np.bool_(True), np.array(3), [3], [[3]]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("other", [*PLAIN, *NUMBERS], ids=repr)
def test_plain_numbers_take_the_dtype_of_the_tensors(other, dtype):
    x = Tensor([1.0, 2.0], requires_grad=True, dtype=dtype)
    values = np.broadcast_to(np.asarray(other, float), np.broadcast_shapes(np.shape(other), (2,)))
    for y in (
        x * other,
        other * x,
        ag.multiply(x, other),
        ag.multiply(y=x, x=other),
        ag.multiply(x, y=other),
    ):
        x.grad = None
        assert y.dtype == dtype and np.array_equal(y.data, [1, 2] * values)
        y.backward(np.ones(y.shape))
        assert x.grad.dtype == dtype and x.grad.tolist() == values.reshape(-1, 2).sum(0).tolist()
    with no_grad():
        x += other if np.shape(other) in ((), (1,), (2,)) else 1
    assert x.dtype == dtype


def test_numpy_numbers_as_options_do_not_promote():
    x = Tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    weight, half, ids = Tensor(np.ones(3, np.float32)), np.float64(0.5), np.array([0])
    for y in (
        ag.layer_norm(x, weight, eps=half),
        ag.clip(x, half, np.float64(2)),
        ag.clip(x, high=np.array(2.0)),
        ag.masked_fill(x, np.array([True, False, False]), half),
        ag.where(np.bool_(True), x, half),
        ag.causal_attention(x.reshape(1, 1, 3), np.int64(1), scale=half),
        ag.dropout(x, half, ag.Stream(0)),
        ag.sum(x, np.int64(1)),
        ag.softmax(x, axis=np.int64(0)),
        ag.cross_entropy(x, ids, ignore_index=np.int64(-1)),
        x[np.int64(0)],
        x ** np.float64(2),
    ):
        x.grad = None
        y.sum().backward()
        assert y.dtype == np.float32 and x.grad.dtype == np.float32


def test_inputs_and_options_by_name():
    x, w, b = leaf([[1.0, 3.0]]), leaf([1.0, 2.0]), leaf([0.5, 0.5])
    for y in (
        ag.layer_norm(x, w, bias=b),
        ag.layer_norm(x=x, weight=w, bias=b, eps=1e-5),
        ag.layer_norm(bias=b, weight=w, x=x),
        ag.layer_norm(x, w, b, 1e-5),
    ):
        b.grad = None
        y.sum().backward()
        assert y.numpy().round(3).tolist() == [[-0.5, 2.5]] and b.grad.tolist() == [1, 1]
    assert ag.softmax(x=x, axis=0).numpy().tolist() == [[1, 1]]
    assert ag.linear(x, leaf(np.eye(2)), activation="relu", bias=b).numpy().tolist() == [[1.5, 3.5]]
    assert ag.where(np.array([True, False]), y=x, x=0.0).numpy().tolist() == [[0, 3]]


def test_calls_that_do_not_fit_name_the_operation():
    x = leaf([1.0])
    for call, message in (
        (lambda: ag.add(x), "add"),
        (lambda: ag.add(y=x), "add: missing.*'x'"),
        (lambda: ag.add(), "add needs a Tensor, an array or a number"),
        (lambda: ag.add(x, x, x), "add takes 2 values, but 3 were given"),
        (lambda: ag.add(x, x=x), "add: multiple values"),
        (lambda: ag.add(x, None), "add: y must be real numbers, not NoneType"),
        (lambda: ag.add(x, "a"), "add: y must be real numbers, not str"),
        (lambda: ag.softmax(x, dim=0), "dim"),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_without_a_tensor_the_first_array_decides():
    assert ag.exp(1).dtype == ag.exp([1, 2]).dtype == ag.add(1, np.arange(2)).dtype == np.float32
    assert ag.exp(np.zeros(2)).dtype == ag.add(1, np.zeros(2)).dtype == np.float64
    assert ag.where(np.array([True, False]), 1.0, 2.0).numpy().tolist() == [1, 2]


def test_options_with_defaults_need_no_annotation():
    @ag.op
    def scaled(x, mode="twice"):
        factor = {"twice": 2, "thrice": 3}[mode]
        return x * factor, lambda g: g * factor

    x = leaf([1.0])
    (scaled(x) + scaled(x, "thrice") + scaled(x, mode="thrice")).backward()
    assert x.grad.tolist() == [8]


def test_indices_and_ids_must_be_integers():
    with pytest.raises(TypeError, match="index is a plain value, not a Tensor"):
        leaf([1.0])[Tensor([0.0])]
    with pytest.raises(TypeError, match="integer"):
        ag.embedding(leaf([[1.0]]), np.array([0.0]))
    for bad in (-1, 3):
        with pytest.raises(IndexError, match=f"{bad} is out of range"):
            ag.embedding(leaf(np.ones((3, 2))), np.array([0, bad]))
        with pytest.raises(IndexError, match="target"):
            ag.cross_entropy(leaf(np.ones((1, 3))), np.array([bad]))


def test_inputs_that_need_no_gradient_cost_nothing():
    calls = []

    @ag.op
    def pair(x, y):
        return x + y, (lambda g: (calls.append("x"), g)[1], lambda g: (calls.append("y"), g)[1])

    pair(leaf([1.0]), Tensor([1.0], dtype=np.float64)).backward()
    assert calls == ["x"]


def test_detach_and_numpy():
    x = leaf([1.0, 2.0])
    assert not x.detach().requires_grad and x.detach().data is x.data
    assert x.numpy() is x.data and x.shape == (2,) and x.ndim == 1 and x.size == 2 and len(x) == 2
    (x * x.detach()).sum().backward()
    assert x.grad.tolist() == [1, 2]
    assert (x > 1.5).tolist() == [False, True] and (x <= 2.0).tolist() == [True, True]


def test_repr_says_what_it_is():
    x = leaf([1.0, 2.0])
    assert repr(x) == "Tensor([1., 2.], shape=(2,), float64, requires_grad)"
    assert repr(x * 2) == "Tensor([2., 4.], shape=(2,), float64, made by multiply)"
    assert len(repr(Tensor(np.zeros((100, 100))))) < 400


def test_dtypes_of_new_tensors():
    assert Tensor([1, 2]).dtype == Tensor(1.5).dtype == Tensor(np.arange(3)).dtype == np.float32
    assert (
        Tensor(np.zeros(2)).dtype == np.float64 and Tensor(np.zeros(2), dtype=np.float32).dtype == np.float32
    )
    with pytest.raises(TypeError, match="already"):
        Tensor(Tensor([1.0]))


def test_a_function_with_annotations_only_takes_its_arrays_as_inputs():
    @ag.op
    def scaled(x: np.ndarray, factor: float = 2.0):
        return x * factor, lambda g: g * factor

    x = leaf([1.0])
    scaled(x, 3.0).backward()
    assert x.grad.tolist() == [3]
    with pytest.raises(TypeError, match="nothing has no differentiable input"):

        @ag.op
        def nothing(n: int):
            return n, ()
