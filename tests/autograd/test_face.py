"""What a user of the package meets first: its names, their types, and the errors of a misspelt form."""

import builtins
import inspect

import numpy as np
import pytest

import autograd as ag
from autograd import AdamW, Stream, Tensor
from autograd.cuda import products
from autograd.ops import linalg, nn
from autograd.optim import norm


def test_import_star_replaces_nothing_of_pythons():
    namespace = {}
    exec("from autograd import *", namespace)
    taken = namespace.keys() & vars(builtins).keys() - {"__builtins__"}
    assert not taken and {"Tensor", "op", "softmax", "gradcheck"} <= namespace.keys()
    assert namespace["__builtins__"]["sum"] is sum and ag.sum is not sum


def test_all_names_exist_once():
    assert len(set(ag.__all__)) == len(ag.__all__)
    assert all(hasattr(ag, name) for name in ag.__all__)


@pytest.mark.parametrize("name", ["sum", "max", "min", "abs"])
def test_operations_with_names_of_pythons(name):
    x = Tensor([-2.0, 1.0])
    np.testing.assert_array_equal(getattr(ag, name)(x).numpy(), getattr(np, name)(x.numpy()))


def test_an_operation_of_ones_own():
    from autograd import gradcheck, op

    @op
    def cube(x):
        return x**3, lambda g: g * 3 * x**2

    x = Tensor(np.array([1.0, -2.0]), requires_grad=True)
    assert cube(x).numpy().tolist() == [1, -8] and gradcheck(cube, x)


def test_precisions(monkeypatch):
    monkeypatch.setattr(products, "_compute_type", products._compute_type)
    assert ag.PRECISIONS == ("fp32", "tf32", "bf16")
    for name in ag.PRECISIONS:
        ag.set_precision(name)
    with pytest.raises(ValueError, match="unknown precision 'nonsense': fp32, tf32, bf16"):
        ag.set_precision("nonsense")


# --- forms for a GPU ------------------------------------------------------------------------------


def linaer(x, weight, bias=None, activation=None): ...


def linear(x, weights, bias=None, activation=None): ...


def test_a_misspelt_form_for_a_gpu_is_refused():
    before = linalg.linear.gpu_form
    right = r"linear\('x', 'weight', 'bias', 'activation'\)"
    with pytest.raises(TypeError, match=rf"linaer\(.*\) cannot be the GPU's form of {right}"):
        linalg.linear.on_gpu(linaer)
    with pytest.raises(TypeError, match=rf"linear\('x', 'weights', .*\) cannot be the GPU's form of {right}"):
        linalg.linear.on_gpu(linear)
    with pytest.raises(TypeError, match="the GPU's form of norm"):
        norm.on_gpu(linear)
    with pytest.raises(AttributeError, match="linaer"):
        nn.linaer.on_gpu  # noqa: B018
    assert linalg.linear.gpu_form is before


# --- types ----------------------------------------------------------------------------------------


def functions_of_users():
    """{name: function} of what a user calls: the functions of `__all__`, and the methods of its classes."""
    found = {name: getattr(ag, name) for name in [*ag.__all__, "sum", "max", "min", "abs"]}
    functions = {name: value for name, value in found.items() if inspect.isfunction(value)}
    for kind in (Tensor, AdamW, Stream):
        methods = inspect.getmembers(kind, callable)
        functions |= {f"{kind.__name__}.{name}": method for name, method in methods if name[0] != "_"}
        functions[f"{kind.__name__}.__init__"] = kind.__init__
    return functions


def untyped(name, function):
    """The parameters without an annotation, and "return" if the result has none."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if "." in name:  # a method's first parameter is its own object
        parameters = [parameter for parameter in parameters if parameter.name != "self"]
    lacking = [parameter.name for parameter in parameters if parameter.annotation is parameter.empty]
    if signature.return_annotation is signature.empty and not name.endswith("__init__"):
        lacking.append("return")
    return lacking


@pytest.mark.parametrize("name", functions_of_users())
def test_users_see_types(name):
    assert untyped(name, functions_of_users()[name]) == []


def test_what_has_no_types_is_named():
    assert untyped("linaer", linaer) == ["x", "weight", "bias", "activation", "return"]


def test_help_shows_inputs_and_options():
    signature = inspect.signature(ag.softmax)
    assert list(signature.parameters) == ["x", "axis"] and signature.return_annotation is Tensor
    assert signature.parameters["axis"].default == -1
