"""Tensor among Python's and NumPy's own: as they do it, or a TypeError that says what to write."""

import copy
import pickle

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor, no_grad
from tests.operations.tape import leaf


def leaf32(values):
    return Tensor(values, requires_grad=True)


# --- comparisons ----------------------------------------------------------------------------------


def test_equal_and_unequal_compare_elements():
    x = leaf([0.0, 2.0])
    assert (x == 0).tolist() == [True, False] and (x != 0).tolist() == [False, True]
    assert x.__eq__(0.0).tolist() == [True, False] and (x == [0, 3]).tolist() == [True, False]
    assert (np.array([0.0, 1.0]) == x).tolist() == [True, False] and (x == x.detach()).all()
    assert (leaf32([0.1]) == 0.1).all()
    y = ag.where(x == 0, 0.0, x * x + 1)
    y.sum().backward()
    assert y.numpy().tolist() == [0, 5] and x.grad.tolist() == [0, 4]


def test_comparing_with_what_is_no_number():
    x = leaf([0.0])
    assert (x == None) is False and (x != "a") is True and x is not None  # noqa: E711
    with pytest.raises(TypeError):
        x < None  # noqa: B015


def test_tensors_are_hashed_by_identity():
    x, y = leaf([1.0]), leaf([1.0])
    assert len({x, y}) == 2 and {x: 1, y: 2}[y] == 2


# --- numbers --------------------------------------------------------------------------------------


def test_one_element_is_a_number():
    for x in (leaf(2.5), leaf([2.5]), leaf([[2.5]])):
        assert float(x) == x.item() == 2.5 and int(x) == 2 and round(x) == 2 and round(x, 1) == 2.5
        assert f"{x:.2f} {x:6.1f}|" == "2.50    2.5|" and bool(x) and not leaf([0.0])
    assert f"{leaf(1.0)}" == str(leaf(1.0))


@pytest.mark.parametrize("use", [float, int, round, bool, Tensor.item, lambda x: f"{x:.2f}"])
def test_several_elements_are_not(use):
    for x in (leaf([1.0, 2.0]), leaf(np.ones((0, 2)))):
        with pytest.raises(ValueError, match="shape"):
            use(x)


# --- containers -----------------------------------------------------------------------------------


def test_iteration_gives_rows_on_the_tape():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    a, b = x
    (a * b).sum().backward()
    assert x.grad.tolist() == [[3, 4], [1, 2]] and len(list(x)) == 2 and list(leaf([])) == []
    with pytest.raises(TypeError, match="without axes"):
        iter(leaf(1.0))


def test_in_and_sum():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    assert 3 in x and 5 not in x and "a" not in x
    sum([x, x * 2, 1]).sum().backward()
    assert x.grad.tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize("join", [Tensor, lambda parts: leaf([1.0]) * parts, ag.sum, np.array])
def test_a_list_of_tensors_never_loses_the_tape(join):
    a, b = leaf(1.0), leaf(2.0)
    for parts in ([a * a, b * b], [[a, 1.0], [2.0, b]]):
        with pytest.raises(TypeError, match=r"stack\(\)"):
            join(parts)


# --- NumPy ----------------------------------------------------------------------------------------


def test_numpy_takes_the_values_of_constants_only():
    assert np.asarray(Tensor([1.0, 2.0])).tolist() == [1, 2]
    assert np.array([Tensor([1.0]), Tensor([2.0])]).shape == (2, 1)
    with pytest.raises(TypeError, match=r"\.numpy\(\)"):
        np.asarray(leaf([1.0]))


@pytest.mark.parametrize(
    "use",
    [np.sum, np.mean, np.shape, np.linalg.norm, lambda x: np.where(x > 0, x, 0), lambda x: np.stack([x, x])],
)
def test_numpy_functions_say_what_to_write(use):
    with pytest.raises(TypeError, match=r"autograd\.\w+\(x\).*np\.\w+\(x\.numpy\(\)\)"):
        use(leaf([1.0]))


def test_numpy_arrays_leave_operators_to_the_tensor():
    x = leaf([1.0, 2.0])
    y = np.array([3.0, 4.0]) * x + np.float64(2) - x / np.int64(2)
    y.sum().backward()
    assert isinstance(y, Tensor) and x.grad.tolist() == [2.5, 3.5]
    with pytest.raises(TypeError):
        np.exp(x)


# --- copies ---------------------------------------------------------------------------------------


def test_a_tensor_has_an_array_of_its_own():
    array = np.ones(2)
    x = leaf(array)
    array[:] = 7
    assert x.numpy().tolist() == [1, 1]
    assert Tensor(array, copy=False).data is array


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_leaves_can_be_copied_and_results_cannot(again):
    x = leaf([1.0, 2.0])
    (x * x).sum().backward()
    twin = again(x)
    assert twin.requires_grad and twin.grad.tolist() == [2, 4] and twin.numpy().tolist() == [1, 2]
    with pytest.raises(TypeError, match=r"detach\(\)"):
        again(x * 2)
    assert not again((x * 2).detach()).requires_grad


@pytest.mark.parametrize(
    "values", [None, "3", ["a"], [None], 1j, np.ones(2, complex), {"a": 1}, object(), np.array([None])]
)
def test_what_is_no_number_is_no_tensor(values):
    with pytest.raises(TypeError, match="real numbers"):
        Tensor(values)
    with pytest.raises(TypeError, match=r"real numbers|unsupported operand|None"):
        leaf([1.0]) * values
    with pytest.raises(TypeError, match=r"multiply: y must be real numbers|None"):
        ag.multiply(leaf([1.0]), values)


@pytest.mark.parametrize("dtype", [int, "int64", np.float16, bool, complex])
def test_a_tensor_is_float32_or_float64(dtype):
    with pytest.raises(TypeError, match="float32 or float64"):
        Tensor([1.0], dtype=dtype)
    for good in (float, "float32", np.float64):
        assert Tensor([1], dtype=good).dtype == np.dtype(good)


# --- in place -------------------------------------------------------------------------------------


def test_in_place_operators_train_leaves_under_no_grad():
    parameters = [leaf([1.0]), leaf([2.0])]
    arrays = [p.data for p in parameters]
    for _ in range(2):
        for p in parameters:
            p.grad = None
        sum(p * p for p in parameters).sum().backward()
        with no_grad():
            for p in parameters:
                p -= 0.25 * p.grad  # noqa: PLW2901
    assert [float(p) for p in parameters] == [0.25, 0.5] and all(p.requires_grad for p in parameters)
    assert all(p.data is array for p, array in zip(parameters, arrays, strict=True))


def in_place(name):
    def change(x):
        getattr(x, f"__i{name}__")(2.0)

    return change


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "pow"])
def test_a_leaf_is_not_changed_in_place_while_recording(name):
    x = leaf([1.0])
    with pytest.raises(RuntimeError, match="no_grad"):
        in_place(name)(x)
    with no_grad():
        in_place(name)(x)
    assert float(x) == {"add": 3, "sub": -1, "mul": 2, "truediv": 0.5, "pow": 1}[name]


def test_other_tensors_change_but_not_their_arrays():
    total, x = Tensor(0.0, dtype=np.float64), leaf([1.0, 2.0])
    same, array = total, total.numpy()
    for row in x:
        total += row * row
    total.backward()
    assert same is total and float(total) == 5 and array == 0 and x.grad.tolist() == [2, 4]

    buffer = Tensor([1.0, 1.0], dtype=np.float64)
    y = (x * buffer).sum()
    buffer *= 100.0
    x.grad = None
    y.backward()
    assert x.grad.tolist() == [1, 1] and buffer.numpy().tolist() == [100, 100]

    alias = x.detach()
    alias += 1
    assert x.numpy().tolist() == [1, 2] and alias.numpy().tolist() == [2, 3]


def test_in_place_operators_refuse_what_would_be_lost():
    y = leaf([1.0]) * 2
    with no_grad(), pytest.raises(RuntimeError, match="cut this result off"):
        y += 1
    y += 1
    y.backward()
    x = leaf([1.0])
    for change in (lambda: x.__imul__([1.0, 2.0]), lambda: Tensor([1.0]).__iadd__(np.ones((2, 1)))):
        with no_grad(), pytest.raises(ValueError, match="cannot change the shape"):
            change()
