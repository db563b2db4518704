"""Inside a fused operation: composed of primitives, on the same inputs, with the same numbers."""

import numpy as np
import pytest

import autograd as ag
from autograd import Tensor, step_through
from autograd.step import compositions
from tests.autograd.step.losses import leaf
from tests.operations import COMPOSITIONS
from tests.operations.checks import tensors
from tinygpt import stepping

SMALL = {  # the records' compositions, which need no further function around the operation
    name: each for name, each in COMPOSITIONS.items() if max(np.prod(shape) for shape in each.shapes) < 4000
}


def assert_same_numbers(film, node, rtol):
    """The film inside a node gives the node's value, and every gradient that the node hands down."""
    inside = node.inside
    scale = max(1.0, np.abs(node.value).max())
    np.testing.assert_allclose(inside.nodes[-1].value, node.value, rtol=rtol, atol=rtol * scale, strict=True)
    steps = [step for step in film.steps if step.node == node.id and step.kind == "backward"]
    scale = max(np.abs(step.contribution).max() for step in steps) + np.abs(steps[0].incoming).max()
    for step in steps:
        found = inside.gradient(node.input_names[step.input])
        np.testing.assert_allclose(found, step.contribution, rtol=rtol, atol=rtol * scale, strict=True)
    return inside


@pytest.mark.parametrize("name", SMALL)
def test_inside_are_the_same_numbers(name):
    inputs = tensors(*SMALL[name].shapes)
    film = step_through(lambda: SMALL[name].fused(*inputs).sum())
    opened = [node for node in film.nodes if node.inside and node.name != "sum"]
    assert opened
    for node in opened:
        assert_same_numbers(film, node, rtol=1e-9)


def test_every_composition_is_among_them():
    texts = " ".join(SMALL)
    names = {operation.__name__ for operation in compositions._COMPOSITIONS}
    assert {name for name in names if name.replace("causal_", "") not in texts} == set()


def openable(film):
    """Every node that can be opened, with its film, also inside others."""
    for node in film.nodes:
        if node.inside:
            yield film, node
            yield from openable(node.inside)


@pytest.mark.parametrize("loss", [stepping.block, stepping.gpt])
def test_every_operation_of_a_gpt_opens_down_to_primitives(loss):
    film = step_through(loss)
    opened = list(openable(film))
    for outer, node in opened:
        assert_same_numbers(outer, node, rtol=2e-5)
    names = {node.name for _, node in opened}
    assert {"layer_norm", "linear", "causal_attention", "residual_linear", "softmax", "gelu"} <= names
    fused = {operation.__name__ for operation in compositions._COMPOSITIONS}
    assert all(node.name not in fused or node.inside for outer, _ in opened for node in outer.nodes)


def test_the_parts_have_the_names_of_the_composition():
    film = step_through(lambda: ag.layer_norm(leaf(2, 3), leaf(3), leaf(3)).sum())
    called = [node.called for node in film.node("layer_norm").inside.nodes if node.kind == "operation"]
    assert called[1:5] == ["centred", "multiply", "variance", "add #6"]


def test_no_gradient_passes_through_the_maximum_of_a_softmax():
    film = step_through(lambda: ag.softmax(leaf(2, 3)).max()).node("softmax").inside
    assert film.node("max").kind == "constant"


def test_what_has_nothing_inside():
    x = leaf(2, 3)
    assert step_through(lambda: ag.exp(x).sum()).node("exp").inside is None
    assert step_through(lambda: ag.dropout(x, 0.0, None).sum()).node("dropout").inside is None
    empty = Tensor(np.zeros((0, 3)), requires_grad=True)
    assert step_through(lambda: ag.softmax(empty).sum()).node("softmax").inside is None


def test_a_composition_that_meets_nan_where_the_operation_takes_care_is_not_shown():
    masked = Tensor(np.array([[-np.inf, -np.inf], [0.0, 1.0]]), requires_grad=True)
    film = step_through(lambda: ag.logsumexp(masked, axis=1)[1])
    assert film.node("logsumexp").inside is None
    assert np.isfinite(film.gradient("masked")).all()


def test_inputs_that_need_no_gradient():
    x, w = Tensor(np.ones((2, 3))), leaf(3, 2)
    film = step_through(lambda: ag.linear(x, w).sum())
    inside = film.node("linear").inside
    assert film.node("x").kind == inside.node("x").kind == "constant" and inside.gradient("x") is None
    np.testing.assert_array_equal(inside.gradient("weight"), film.gradient("w"))


def test_an_inner_film_stays_right_when_the_weights_change():
    w = leaf(3, 2)
    film = step_through(lambda: ag.linear(Tensor(np.ones((2, 3))), w, activation="gelu").sum())
    with ag.no_grad():
        w -= 5.0
    assert_same_numbers(film, film.node("linear"), rtol=1e-12)
