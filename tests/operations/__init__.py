"""What the tests know of the operations, in one record each (record.py), by family as in autograd/ops.

`tape`, `optim`, `checking` and `shared_kernels` hold what belongs to no single operation. The lists below go
over all of them; the tests in tests/autograd read them.
"""

from tests.operations import (
    attention,
    checking,
    elementwise,
    linalg,
    nn,
    optim,
    reduce,
    shape,
    shared_kernels,
    tape,
)
from tests.operations.record import named

FAMILIES = (elementwise, reduce, shape, linalg, nn, attention)
RECORDS = [record for family in (*FAMILIES, tape, optim, checking) for record in family.RECORDS]


def merged(parts):
    """One dict of several. AssertionError if a name is there twice."""
    whole = {}
    for part in parts:
        assert not whole.keys() & part.keys(), f"two records use the name {whole.keys() & part.keys()}"
        whole |= part
    return whole


def checks_of(*families):
    """{name: check} of what is neither a gradient nor a composition."""
    return merged(named(record.checks) for family in families for record in family.RECORDS)


CASES = merged(record.cases for record in RECORDS)
COMPOSITIONS = merged(record.composed for record in RECORDS)
CHECKS = merged([CASES, COMPOSITIONS, checks_of(*FAMILIES, tape, optim, checking)])
OVER_SHAPES = {
    record.function.__name__.strip("_"): record.over_shapes
    for record in RECORDS
    if record.over_shapes is not None
}
KERNEL_CHECKS = named(check for record in RECORDS for check in record.kernel_checks)

# (bug, the function that it is planted in, the name of the check that must catch it)
BUGS = [
    (bug, record.function, bug.caught_by or record.first_check()) for record in RECORDS for bug in record.bugs
]
# (bug, the name of the kernel check that must catch it)
KERNEL_BUGS = [
    (bug, bug.caught_by or record.first_kernel_check()) for record in RECORDS for bug in record.kernel_bugs
]
KERNEL_BUGS += [(bug, bug.caught_by) for bug in shared_kernels.KERNEL_BUGS]
