"""The records of the operations that move elements."""

import numpy as np

import autograd as ag
from autograd import Tensor
from autograd.ops import shape
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
                right="g.reshape(x.shape)",
                wrong='g.reshape(x.shape, order="F")',
            )
        ],
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
        bugs=[Bug("expand_dims: the pullback drops other axes too", "g.reshape(x.shape)", "g.squeeze()")],
    ),
    Record(
        ag.squeeze,
        cases={
            "squeeze": Case(lambda x: x.squeeze(), [(2, 1, 3)]),
            "squeeze_one_axis": Case(lambda x: x.squeeze(1), [(2, 1, 3)]),
        },
        bugs=[Bug("squeeze: the lost axis does not come back", "g.reshape(x.shape)", "g")],
    ),
    Record(
        ag.broadcast_to,
        cases={"broadcast_to": Case(lambda x: ag.broadcast_to(x, (4, 2, 3)), [(2, 1)])},
        bugs=[
            Bug(
                "broadcast_to: the mean over the copies for their sum",
                right="unbroadcast(g, x.shape)",
                wrong="unbroadcast(g, x.shape) / (g.size // x.size)",
            ),
        ],
    ),
    Record(
        shape._concatenate,
        cases={
            "concatenate": Case(lambda x, y: ag.concatenate([x, y], axis=1), [(2, 3), (2, 1)]),
            "concatenate_with_itself": Case(lambda x: ag.concatenate([x, x, x], axis=-1), [(2, 1, 3)]),
            "stack": Case(lambda x, y: ag.stack([x, y], axis=-1), [(2, 3), (2, 3)]),
        },
        bugs=[
            Bug("concatenate: every part from the front", "slice(start, stop)", "slice(0, stop - start)"),
        ],
    ),
    Record(
        ag.getitem,
        cases={
            "slice": Case(lambda x: x[1:, ::-2], [(3, 4)]),
            "gather": Case(lambda x: x[ROWS], [(3, 2)]),
            "split": Case(split_and_multiply, [(2, 4)]),
        },
        bugs=[
            Bug(
                "repeated index assigned instead of added",
                right="xp.add.at(out, index, g)",
                wrong="out[index] = g",
                caught_by="gather",
            ),
            Bug(
                "what was not taken gets a gradient",
                right="xp.zeros(x.shape, x.dtype)",
                wrong="xp.ones(x.shape, x.dtype)",
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
        bugs=[Bug("masked_fill: what was filled gets a gradient", "xp.where(mask, 0, g)", "g")],
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
