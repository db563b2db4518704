"""The records of the reductions."""

import numpy as np

import autograd as ag
from autograd.ops import reduce
from tests.operations.over_shapes import reduction
from tests.operations.record import Bug, Case, Composition, Record

RECORDS = [
    Record(
        ag.sum,
        cases={"sum": Case(lambda x: ag.sum(x, axis=1), [(2, 3)])},
        over_shapes=reduction(ag.sum, np.sum),
        bugs=[
            Bug(
                "sum: divides by the count, as mean does",
                right="_back_on_axes(g, shape, axis, keepdims)",
                wrong="_back_on_axes(g, shape, axis, keepdims) / _count(x, axis)",
            ),
        ],
    ),
    Record(
        ag.mean,
        cases={"mean": Case(lambda x: ag.mean(x, axis=(0, 2)), [(2, 3, 4)])},
        over_shapes=reduction(ag.mean, np.mean),
        bugs=[Bug("mean: missing 1/N", "keepdims) / n, shape)", "keepdims), shape)")],
    ),
    Record(
        ag.var,
        cases={"var": Case(lambda x: ag.var(x, axis=-1), [(2, 5)])},
        over_shapes=reduction(ag.var, np.var),
        bugs=[
            Bug("var: Bessel's n - 1", "(2 / n)", "(2 / (n - 1))"),
            Bug("var: the 2 of the square is lost", "(2 / n)", "(1 / n)"),
        ],
    ),
    Record(
        ag.max,
        cases={"max": Case(lambda x: ag.max(x, axis=0), [(4, 3)])},
        over_shapes=reduction(ag.max, np.max),
        bugs=[
            Bug(
                "max: gradient to every element",
                right="chosen / chosen.sum(axis, keepdims=True).astype(x.dtype)",
                wrong="array_module(x).ones(x.shape, x.dtype)",
                inside=reduce._extremum,
            ),
        ],
    ),
    Record(
        ag.min,
        cases={"min": Case(lambda x: ag.min(x, axis=0), [(4, 3)])},
        over_shapes=reduction(ag.min, np.min),
        bugs=[
            Bug(
                "min: gradient to the largest element",
                right="chosen = x == kept",
                wrong="chosen = x == x.max(axis, keepdims=True)",
                inside=reduce._extremum,
            ),
        ],
    ),
    Record(
        ag.logsumexp,
        cases={"logsumexp": Case(lambda x: ag.logsumexp(x, axis=-1), [(2, 5)])},
        over_shapes=reduction(ag.logsumexp),
        composed={
            "logsumexp from exp and log": Composition(
                lambda x: ag.logsumexp(x, axis=-1),
                lambda x: ag.log(ag.sum(ag.exp(x), axis=-1)),
                [(3, 5)],
            ),
        },
        bugs=[Bug("logsumexp: exp(x) is not divided by its sum", ".exp(x - kept)", ".exp(x)")],
    ),
]
