"""Negative controls: bugs that are easily made are planted one at a time, and the checks must catch each.

A gradient check that cannot fail proves nothing. The bugs stand in tests/operations, beside the checks, which
are the same ones that run on the right code.
"""

import pytest

from autograd.ops import elementwise
from tests.operations import BUGS, CHECKS, KERNEL_BUGS
from tests.operations.record import Bug, plant


@pytest.mark.parametrize(("bug", "function", "check"), BUGS, ids=[bug.what for bug, _, _ in BUGS])
def test_planted_bug_is_caught(bug, function, check, monkeypatch):
    CHECKS[check]()  # the right code passes
    plant(monkeypatch, bug, function)
    with pytest.raises(AssertionError):
        CHECKS[check]()


def test_no_bug_is_planted_twice():
    places = [(bug.inside or function, bug.right, bug.wrong, check) for bug, function, check in BUGS]
    places += [("kernels", bug.right, bug.wrong, check) for bug, check in KERNEL_BUGS]
    names = [bug.what for bug, *_ in BUGS + KERNEL_BUGS]
    assert len(set(places)) == len(places) == len(set(names))


@pytest.mark.parametrize(("text", "found"), [("cosh", 0), ("out", 4)])
def test_a_bug_whose_text_is_not_there_once_is_refused(text, found, monkeypatch):
    bug = Bug("tanh: a planted bug that fits no longer", text, "1")
    with pytest.raises(
        AssertionError, match=f"tanh holds '{text}' {found} times; change the bug 'tanh: a pl"
    ):
        plant(monkeypatch, bug, elementwise.tanh)
