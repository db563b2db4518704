"""The records of the operations that move elements."""

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor
from autograd.ops import shape
from tests.operations.checks import refused, tensors
from tests.operations.over_shapes import unary
from tests.operations.record import Bug, Case, Record
from tests.stand_ins import strict_cupy

ROWS = np.array([[1, 0, 1], [1, 2, 1]])
MASK = np.array([[False, False, False], [False, True, False]])


def split_and_multiply(x):
    return ag.split(x, [1, 3], axis=1)[1] * ag.split(x, 2, axis=1)[0]


def lower_triangle(x):
    return ag.tril(x, -1)


def the_gradient_travels_back():
    with strict_cupy.installed():
        x = Tensor([1.0, 2.0], requires_grad=True)
        (x.to("cuda") * 3.0).sum().backward()
        assert isinstance(x.grad, np.ndarray) and x.grad.tolist() == [3, 3]


def shapes_that_do_not_fit():
    x = Tensor(np.ones((2, 3)))
    refused(ValueError, "broadcast_to: shape (2, 3) cannot become (3,)", lambda: ag.broadcast_to(x, (3,)))
    refused(ValueError, "(2, 3), (4, 3) do not fit", lambda: ag.broadcast_to(x, (4, 3)))
    refused(ValueError, "broadcast_to", lambda: ag.broadcast_to(x, (-1, 3)))
    refused(ValueError, "cannot reshape", lambda: x.reshape(4))
    refused(ValueError, "a negative length that is not -1", lambda: x.reshape(-2, 3))
    refused(TypeError, "a length in a shape must be an integer, not 2.0", lambda: x.reshape(2.0, 3))
    refused(TypeError, "a length in a shape must be", lambda: ag.reshape(x, None))
    refused(ValueError, "axis 1 of shape (2, 3) does not have length 1", lambda: x.squeeze(1))
    refused(ValueError, "tril needs two axes, but the shape is (3,)", lambda: ag.tril(x[0]))
    refused(TypeError, "k of tril must be an integer, not 0.5", lambda: ag.tril(x, 0.5))


def axes_that_do_not_fit():
    x = Tensor(np.ones((2, 3, 1)))
    refused(ValueError, "does not name each axis of shape (2, 3, 1) once", lambda: x.transpose(0, 1))
    refused(ValueError, "repeated axis", lambda: ag.transpose(x, (0, 1, 1)))
    for function in (ag.transpose, ag.squeeze, ag.expand_dims):
        for axis in ((0, 1, 7), 7, -7):
            refused(ValueError, "out of bounds", lambda f=function, a=axis: f(x, a))
        refused(TypeError, "must be an integer", lambda f=function: f(x, 0.5))
    for function in (
        lambda a: x.swapaxes(0, a),
        lambda a: ag.concatenate([x, x], a),
        lambda a: ag.split(x, 1, a),
        lambda a: ag.stack([x, x], a),
    ):
        refused(ValueError, "out of bounds", lambda f=function: f(7))
        refused(TypeError, "an axis must be an integer", lambda f=function: f(None))


def what_cannot_be_joined():
    x = Tensor(np.ones((2, 3)))
    for function in (ag.concatenate, ag.stack):
        name = function.__name__
        refused(ValueError, f"{name}: nothing to join", lambda f=function: f([]))
        refused(TypeError, f"{name} takes a list: {name}([x, y])", lambda f=function: f(x, x))
    message = "concatenate: the shapes (2, 3) and (2, 2) do not fit along axis 0"
    refused(ValueError, message, lambda: ag.concatenate([x, x[:, :2], x]))
    refused(ValueError, "shapes (2, 3) and (3,) do not fit", lambda: ag.concatenate([x, x[0]], 1))
    refused(ValueError, "shapes (2, 3) and (2,) do not fit", lambda: ag.concatenate([x, x[:, 0]], 1))
    refused(ValueError, "stack: the shapes (2, 3) and (3,) differ", lambda: ag.stack([x, x[0]]))
    refused(ValueError, "out of bounds", lambda: ag.concatenate([Tensor(1.0), Tensor(2.0)]))


def parts_that_are_not_equal():
    x = Tensor(np.ones((2, 5)))
    refused(ValueError, "split: 5 elements do not make 2 equal parts", lambda: ag.split(x, 2, axis=1))
    for parts in (0, -1):
        refused(ValueError, f"do not make {parts} equal parts", lambda n=parts: ag.split(x, n))
    for sections in (1.0, "2", [0.5]):
        refused(TypeError, "a section of split must be", lambda s=sections: ag.split(x, s))


def masks_that_do_not_fit():
    x = Tensor(np.ones((2, 3)))
    for mask, words in (
        (np.zeros(2, bool), "masked_fill: the shapes (2,), (2, 3) do not fit"),
        (np.zeros((3, 3), bool), "masked_fill: the shapes (3, 3), (2, 3) do not fit"),
        (np.zeros((4, 2, 3), bool), "a mask of shape (4, 2, 3) does not fit an x of shape (2, 3)"),
    ):
        refused(ValueError, words, lambda m=mask: ag.masked_fill(x, m, 0.0))
    refused(TypeError, "mask of masked_fill must be boolean", lambda: ag.masked_fill(x, [[1, 0, 1]], 0.0))
    refused(TypeError, "one number", lambda: ag.masked_fill(x, MASK, np.zeros(3)))


def a_mask_that_is_filled_anew():
    (x,), mask = tensors((2, 3)), MASK.copy()
    out = ag.masked_fill(x, mask, 0.0)
    mask[:] = True
    out.backward(np.ones((2, 3)))
    assert (x.grad == ~MASK).all()


def an_index_that_is_filled_anew():
    for index, other in ((np.array([0, 0, 2]), 1), (np.array([True, False, True]), True)):
        (x,) = tensors((3,))
        expected, out = np.zeros(3), x[index]
        np.add.at(expected, index.copy(), 1.0)
        index[:] = other
        out.backward(np.ones(out.shape))
        assert (x.grad == expected).all()


def nested_sequences_are_arrays():
    """Also inside a tuple, where NumPy takes them so."""
    for index in (((0, 0), (1, 1)), ([0, 0], [1, 1]), (range(2), (1, 1)), ([[0, 0], [0, 0]],)):
        (x,) = tensors((2, 3))
        expected, out = np.zeros((2, 3)), x[index]
        np.add.at(expected, index, 1.0)
        out.backward(np.ones(out.shape))
        np.testing.assert_array_equal(x.grad, expected)


def what_is_no_index():
    x = Tensor(np.ones((3, 2)))
    for index in (1.0, [0.0, 1.0], np.array([]), "a", {}, (0, 1.0), [slice(2), 0], 3, [0, 5], (0, 0, 0)):
        refused(IndexError, "", lambda i=index: x[i])
    refused(IndexError, "boolean index", lambda: x[[True, False]])
    refused(TypeError, "index with plain integer arrays", lambda: x[0, Tensor([0.0])])


def an_index_out_of_range_on_a_gpu():
    """A GPU would take another entry without a word."""

    def as_on_a_gpu(array, index):
        (places,) = index
        return strict_cupy.ndarray(array._host[places._host % len(array._host)])

    with strict_cupy.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_cupy.ndarray, "__getitem__", as_on_a_gpu)
        x = Tensor([1.0, 2.0]).to("cuda")
        with strict_cupy.no_waiting():
            assert x[[1, -2]].shape == (2,)
            refused(IndexError, "out of bounds", lambda: x[[0, 2]])


RECORDS = [
    Record(
        ag.reshape,
        cases={
            "reshape": Case(lambda x: x.reshape(3, -1), [(2, 1, 3)]),
            "reshape_to_a_tuple": Case(lambda x: x.reshape((6,)), [(2, 1, 3)]),
        },
        bugs=[
            Bug(
                "reshape: the gradient is read by columns",
                right="g.reshape(before)",
                wrong='g.reshape(before, order="F")',
            )
        ],
        checks=[shapes_that_do_not_fit, axes_that_do_not_fit],
    ),
    Record(
        ag.transpose,
        cases={
            "transpose": Case(lambda x: ag.transpose(x, (1, 2, 0)), [(2, 3, 4)]),
            "transpose_a_cube": Case(lambda x: ag.transpose(x, (1, 2, 0)), [(2, 2, 2)]),
            "transpose_from_the_end": Case(lambda x: x.transpose(-1, 0, 1), [(2, 1, 3)]),
            "T": Case(lambda x: x.T, [(2, 1, 3)]),
        },
        bugs=[
            Bug(
                "transpose: the same permutation again for its inverse",
                right="g.transpose(inverse)",
                wrong="g.transpose(order)",
                caught_by="transpose_a_cube",  # where no shape gives it away
            ),
            Bug(
                "transpose: NumPy's message, which names no shape",
                right="len(order) != x.ndim",
                wrong="False",
                caught_by="axes_that_do_not_fit",
            ),
        ],
    ),
    Record(
        ag.swapaxes,
        cases={"swapaxes": Case(lambda x: x.swapaxes(0, -1), [(2, 1, 3)])},
        bugs=[Bug("swapaxes: reshapes where it should swap back", "g.swapaxes(a, b)", "g.reshape(x.shape)")],
    ),
    Record(
        ag.expand_dims,
        cases={
            "expand_dims": Case(lambda x: ag.expand_dims(x, axis=-1), [(2, 1, 3)]),
            "expand_dims_twice": Case(lambda x: ag.expand_dims(x, axis=(0, 2)), [(2, 1, 3)]),
        },
        bugs=[Bug("expand_dims: the pullback drops other axes too", "g.reshape(before)", "g.squeeze()")],
    ),
    Record(
        ag.squeeze,
        cases={
            "squeeze": Case(lambda x: x.squeeze(), [(2, 1, 3)]),
            "squeeze_one_axis": Case(lambda x: x.squeeze(1), [(2, 1, 3)]),
        },
        bugs=[
            Bug("squeeze: the lost axis does not come back", "g.reshape(before)", "g"),
            Bug(
                "squeeze: NumPy's message, which names no shape",
                right="before[i] != 1",
                wrong="False",
                caught_by="shapes_that_do_not_fit",
            ),
        ],
    ),
    Record(
        ag.broadcast_to,
        cases={"broadcast_to": Case(lambda x: ag.broadcast_to(x, (4, 2, 3)), [(2, 1)])},
        bugs=[
            Bug(
                "broadcast_to: the mean over the copies for their sum",
                right="unbroadcast(g, before)",
                wrong="unbroadcast(g, before) / (g.size // x.size)",
            ),
        ],
    ),
    Record(
        shape._concatenate,
        cases={
            "concatenate": Case(lambda x, y: ag.concatenate([x, y], axis=1), [(2, 3), (2, 1)]),
            "concatenate_with_itself": Case(lambda x: ag.concatenate([x, x, x], axis=-1), [(2, 1, 3)]),
        },
        checks=[what_cannot_be_joined],
        bugs=[
            Bug("concatenate: every part from the front", "slice(start, stop)", "slice(0, stop - start)"),
            Bug(
                "concatenate: [] has a result",
                right="if not tensors",
                wrong='tensors = tensors or [Tensor(np.ones(0))]\n    if tensors == "none"',
                caught_by="what_cannot_be_joined",
                inside=shape._to_join,
            ),
            Bug(
                "concatenate: a Tensor's rows are taken for a list",
                right="isinstance(tensors, Tensor)",
                wrong="isinstance(tensors, str)",
                caught_by="what_cannot_be_joined",
                inside=shape._to_join,
            ),
        ],
    ),
    Record(
        shape._stack,
        cases={
            "stack": Case(lambda x, y: ag.stack([x, y], axis=-1), [(2, 3), (2, 3)]),
            "stack_numbers": Case(lambda x, y: ag.stack([x.sum(), 2.0, y.sum()]), [(2,), (3,)]),
        },
        bugs=[
            Bug("stack: every input gets the first one's gradient", "(i,)]", "(0,)]"),
        ],
    ),
    Record(
        ag.getitem,
        cases={
            "slice": Case(lambda x: x[1:, ::-2], [(3, 4)]),
            "gather": Case(lambda x: x[ROWS], [(3, 2)]),
            "split": Case(split_and_multiply, [(2, 4)]),
        },
        checks=[
            nested_sequences_are_arrays,
            an_index_that_is_filled_anew,
            what_is_no_index,
            an_index_out_of_range_on_a_gpu,
            parts_that_are_not_equal,
        ],
        bugs=[
            Bug(
                "a tuple inside an index is no array",
                right="any(is_array(part) and part.dtype != bool for part in index)",
                wrong="False",
                caught_by="nested_sequences_are_arrays",
            ),
            Bug(
                "an index array stays the caller's",
                right="part.copy() if is_array(part)",
                wrong="part if is_array(part)",
                caught_by="an_index_that_is_filled_anew",
                inside=shape._plain_part,
            ),
            Bug(
                "float indices are cut off",
                right='array.dtype.kind not in "iub"',
                wrong='(array := array.astype(int)).dtype.kind not in "iub"',
                caught_by="what_is_no_index",
                inside=shape._plain_part,
            ),
            Bug(
                "an index out of range on a GPU is taken",
                right="np.broadcast_to(np.zeros((), bool), x.shape)[index]",
                wrong="pass",
                caught_by="an_index_out_of_range_on_a_gpu",
                inside=shape._plain_index,
            ),
            Bug(
                "repeated index assigned instead of added",
                right="xp.add.at(out, index, g)",
                wrong="out[index] = g",
                caught_by="gather",
            ),
            Bug(
                "what was not taken gets a gradient",
                right="xp.zeros(shape, dtype)",
                wrong="xp.ones(shape, dtype)",
            ),
        ],
    ),
    Record(
        ag.tril,
        cases={"tril": Case(lower_triangle, [(3, 4)])},
        over_shapes=unary(lower_triangle, min_dims=2),
        bugs=[
            Bug("tril: the upper triangle gets a gradient", "lambda g: xp.tril(g, k)", "lambda g: g"),
            Bug("tril: the pullback forgets k", "xp.tril(g, k)", "xp.tril(g)"),
        ],
    ),
    Record(
        ag.masked_fill,
        cases={"masked_fill": Case(lambda x: ag.masked_fill(x, MASK, -7.0), [(2, 3)])},
        checks=[masks_that_do_not_fit, a_mask_that_is_filled_anew],
        bugs=[
            Bug("masked_fill: what was filled gets a gradient", "only_where(~mask, g)", "g"),
            Bug(
                "masked_fill: a mask enlarges the result",
                right="x.shape) != x.shape",
                wrong="x.shape) is None",
                caught_by="masks_that_do_not_fit",
            ),
        ],
    ),
    Record(
        ag.to,
        cases={"to": Case(lambda x: ag.to(x, x.device), [(2, 3)])},
        checks=[the_gradient_travels_back],
        bugs=[
            Bug(
                "to: the gradient stays where it is",
                right="move(g, device_of(x))",
                wrong="g",
                caught_by="the_gradient_travels_back",
            ),
        ],
    ),
]
