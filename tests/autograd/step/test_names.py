"""What nodes are called, and which module each belongs to."""

from functools import partial

import numpy as np

from autograd import Tensor, linear, step_through, tanh
from tests.autograd.step.losses import leaf
from tinygpt import stepping
from tinygpt.model import GPT

GLOBAL = leaf(2)


def labels(film):
    return [node.label for node in film.nodes if node.label]


def test_names_given_come_before_variables():
    x, w = leaf(2), leaf(2, seed=1)

    def loss():
        y = x * w
        z = y + w + GLOBAL
        return (z * z).sum()

    assert labels(step_through(loss, weight=w)) == ["x", "weight", "y", "GLOBAL", "z"]


def test_a_variable_that_is_assigned_again_names_what_it_holds_at_the_end():
    x = leaf(2)

    def loss():
        h = x * 2.0
        h = tanh(h)
        return h.sum()

    assert [node.called for node in step_through(loss).nodes] == ["x", "2", "multiply", "h", "sum"]


def test_items_and_attributes():
    class Layer:
        def __init__(self):
            self.w = leaf(3, 3)

        def loss(self):
            return (xs[0] @ self.w + parameters["b"]).sum()

    xs, parameters = [leaf(2, 3, seed=1)], {"b": leaf(3, seed=2)}
    assert labels(step_through(Layer().loss)) == ["xs[0]", "self.w", "parameters['b']"]


def test_a_tensor_may_be_called_loss():
    x = leaf(2)
    y = x * 2.0
    assert labels(step_through(lambda: y.sum(), loss=y)) == ["loss"]


def test_nodes_of_one_name_are_numbered():
    film = step_through(lambda: ((GLOBAL * 2.0) * 3.0).sum())
    products = [node.called for node in film.nodes if node.name == "multiply"]
    assert products == ["multiply #2", "multiply #4"] and film.node("sum").called == "sum"


def test_a_detached_tensor_is_not_the_tensor():
    x = leaf(2)

    def loss():
        h = x * 2.0
        return (h * h.detach() + x.detach()).sum()

    film = step_through(loss)
    assert {"x", "h", "x.detach()", "h.detach()"} == set(labels(film))
    assert film.node("h.detach()").kind == "constant" and film.gradient("x") is not None


def test_of_partial_functions_and_objects_that_are_called():
    class Loss:
        def __init__(self):
            self.w = leaf(2)

        def __call__(self):
            y = self.w * 3.0
            return y.sum()

    def scaled(k):
        y = GLOBAL * k
        return y.sum()

    assert labels(step_through(Loss())) == ["self.w", "y"]
    assert labels(step_through(partial(scaled, 2.0))) == ["GLOBAL", "y"]


def test_a_name_is_in_one_line():
    assert labels(step_through(lambda: (GLOBAL * 2.0).sum(), **{"a\n b": GLOBAL})) == ["a b"]


def test_constants_keep_their_names():
    data = Tensor(np.ones((2, 3)))
    film = step_through(lambda: linear(data, leaf(3, 2)).sum())
    assert film.node("data").kind == "constant"


def test_the_modules_of_a_gpt():
    model = GPT(stepping.CONFIG)
    film = step_through(lambda: model.loss(stepping.IDS, stepping.TARGETS))
    where = {node.module: node.name for node in film.nodes if node.kind == "operation"}
    assert where["transformer.h.1.attn"] == "causal_attention"
    assert where["transformer.h.1.attn.c_proj"] == "residual_linear"  # in a method that is no __call__
    assert where[""] == "linear_cross_entropy" and where["transformer.ln_f"] == "layer_norm"
    assert {node.label for node in film.nodes if node.kind == "leaf"} == set(dict(model.named_parameters()))
    for node in film.nodes:
        if node.kind == "leaf":
            assert node.module == node.label.rpartition(".")[0]


def test_two_models():
    first, second = GPT(stepping.CONFIG), GPT(stepping.CONFIG)
    film = step_through(
        lambda: sum(model.loss(stepping.IDS, stepping.TARGETS) for model in (first, second)),
        a=first,
        b=second,
    )
    modules = {node.module for node in film.nodes}
    assert {"transformer.ln_f", "b.transformer.ln_f", "b"} <= modules
    assert film.gradient("b.lm_head.bias") is not None
