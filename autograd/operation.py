"""`op`, which makes an operation on Tensors from a function on arrays, and `checkpoint`."""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from autograd import tape
from autograd.backend import Array, array_module, device_of, is_array
from autograd.dispatch import TwoForms, choose_form, with_forms
from autograd.recording import (
    enable_grad,
    is_recording,
    no_grad,
    note_uses,
    noting_uses,
    refuse_changed,
    uses_of,
)
from autograd.tape import Node, take_gradient
from autograd.tensor import FLOATS, Tensor, TensorLike, numbers


class Operation(TwoForms, Protocol):
    """What `op` returns: a function on Tensors. Its two forms are functions on arrays."""

    __name__: str

    def __call__(self, *inputs: Any, **options: Any) -> Tensor: ...


def op(function: Callable) -> Operation:
    """Make an operation on Tensors from a function on arrays that returns its result and its pullback.

    The function's parameters without an annotation are its differentiable inputs: x, y, bias=None. They come
    first. They may be given as Tensors, or as numbers, arrays and lists, which take the Tensors' dtype. Its
    other parameters are plain options: ids: Array, axis: int. The pullback is one function per input, from
    the gradient of the result to the gradient of that input (the bare function if there is only one). Only
    those of inputs that need a gradient are ever called. The undecorated function stays available as `.raw`,
    for fused operations to build on; `.on_gpu` registers a form of it for float32 on a GPU.
    """
    parameters = Parameters(function)
    name = parameters.operation

    @functools.wraps(function)
    def apply(*inputs, **options):
        # 1. From Tensors and numbers to arrays of one dtype on one device.
        inputs, options = parameters.arranged(inputs, options)
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        like = tensors[0].data
        arrays = parameters.arrays(inputs, like)
        # 2. Forward.
        output, pullbacks = choose_form(apply, like, arrays)(*arrays, **options)
        # 3. Record how to go back, if that is wanted.
        uses, node = uses_of(tensors), None
        if is_recording() and any(tensor.requires_grad for tensor in tensors):
            pullbacks = (pullbacks,) if callable(pullbacks) else pullbacks
            node = Node(name, [_parent(value) for value in inputs], pullbacks, uses, output)
        else:
            note_uses(uses)
        if (watch := tape.watch) is not None:  # read once: another thread may end it
            watch.result(apply, output, node, arrays, options)
        return Tensor._result(output, node, _shared_counter(output, tensors) if uses else None)

    apply.__signature__ = parameters.signature_on_tensors()
    return with_forms(apply, function)


def _parent(value):
    """What the tape remembers of an input: what receives its gradient."""
    return (value.node or value) if isinstance(value, Tensor) and value.requires_grad else None


def _shared_counter(output, tensors):
    """The counter of changes of the leaf whose memory an operation's result is a view of, or None."""
    for tensor in tensors:
        if tensor.changes and _owner(output) is _owner(tensor.data):
            return tensor.changes
    return None


def _owner(array):
    """The array that owns the memory."""
    return array if array.base is None else array.base


class Parameters:
    """The parameters of an operation's function, and how the values of a call become what it works with."""

    def __init__(self, function: Callable):
        self.operation = function.__name__.strip("_")
        self.signature = inspect.signature(function, eval_str=True)
        parameters = self.signature.parameters.values()
        # A default such as "mean" or 1e-5 makes an option, even without an annotation.
        inputs = [p for p in parameters if p.annotation is p.empty and p.default in (p.empty, None)]
        if not inputs:  # in a function of somebody who annotates everything
            inputs = [p for p in parameters if p.annotation is np.ndarray and p.default is p.empty]
        if not inputs:
            raise TypeError(
                f"{self.operation} has no differentiable input, a parameter without an annotation"
            )
        self.inputs = {p.name for p in inputs}
        self.optional = {p.name for p in inputs if p.default is None}
        self.kinds = [(p.name, p.name in self.inputs) for p in parameters]
        self.repeats = inputs[0].kind is inputs[0].VAR_POSITIONAL  # as concatenate's
        before_options = itertools.takewhile(lambda kind: kind[1], self.kinds)
        self.leading_inputs = math.inf if self.repeats else len(list(before_options))

    def arranged(self, values: tuple, options: dict) -> tuple[tuple, dict]:
        """The same call with its differentiable inputs by position, at least one of them a Tensor.

        Options become plain values. TypeError as from Python's own calls.
        """
        if options and not self.inputs.isdisjoint(options):
            try:
                call = self.signature.bind(*values, **options)
            except TypeError as error:
                raise TypeError(f"{self.operation}: {error}") from None
            call.apply_defaults()
            values, options = call.args, call.kwargs
        if options:
            options = {name: self._option(name, value) for name, value in options.items()}
        if len(values) > self.leading_inputs:
            values = tuple(
                value if is_input else self._option(name, value)
                for (name, is_input), value in self._with_kinds(values)
            )
        if not any(isinstance(value, Tensor) for value in values):
            values = self._with_tensors(values)
        return values, options

    def arrays(self, values: tuple, like: Array) -> list:
        """The arrays and numbers of a call, of the dtype and on the device of the array `like`.

        TypeError for Tensors of several dtypes or devices, and for what is no number.
        """
        return [
            self._input(name, value, like) if is_input else value
            for (name, is_input), value in self._with_kinds(values)
        ]

    def signature_on_tensors(self) -> inspect.Signature:
        """The function's signature as help() should show it: inputs like Tensors, the result a Tensor."""
        parameters = [
            p.replace(annotation=TensorLike) if p.name in self.inputs else p
            for p in self.signature.parameters.values()
        ]
        return self.signature.replace(parameters=parameters, return_annotation=Tensor)

    def _with_kinds(self, values):
        """((name, whether it is an input), value) for each value given by position."""
        if self.repeats:
            return zip(itertools.repeat(self.kinds[0]), values, strict=False)
        if len(values) > len(self.kinds):
            raise TypeError(f"{self.operation} takes {len(self.kinds)} values, but {len(values)} were given")
        return zip(self.kinds, values, strict=False)

    def _with_tensors(self, values):
        """The values with Tensors in place of all inputs: of their first array's dtype, or float32."""
        inputs = [value for (_, is_input), value in self._with_kinds(values) if is_input]
        if all(value is None for value in inputs):
            raise TypeError(f"{self.operation} needs a Tensor, an array or a number")
        dtypes = [value.dtype for value in inputs if is_array(value) and value.dtype in FLOATS]
        return tuple(
            Tensor(value, dtype=dtypes[0] if dtypes else np.float32)
            if is_input and value is not None
            else value
            for (_, is_input), value in self._with_kinds(values)
        )

    def _input(self, name, value, like):
        """The array of a differentiable input, or a Python number, which does not change the dtype."""
        kind = type(value)
        if kind is Tensor:
            self._check_same_kind(value.data, like)
            return value.data
        if kind is float or kind is int or kind is bool or (value is None and name in self.optional):
            return value
        array = numbers(value, f"{self.operation}: {name}")
        if not isinstance(array, np.ndarray):
            self._check_same_device(array, like)
        if isinstance(value, np.generic):
            return array.item()
        # Always a copy: the tape may keep it, and the caller may put other values into the array.
        return array_module(like).array(array, like.dtype)

    def _check_same_kind(self, array, like):
        if array.dtype != like.dtype:
            raise TypeError(
                f"{self.operation} got a {like.dtype} and a {array.dtype} Tensor; convert one with .astype()"
            )
        if type(array) is not type(like):
            self._check_same_device(array, like)

    def _check_same_device(self, array, like):
        if device_of(array) != device_of(like):
            raise TypeError(
                f"{self.operation} got arrays on {device_of(like)} and {device_of(array)}; "
                "move one with .to()"
            )

    def _option(self, name, value):
        """The value of an option: NumPy's numbers as Python's, which do not change a dtype."""
        if isinstance(value, Tensor):
            raise TypeError(
                f"{self.operation}: {name} is a plain value, not a Tensor, since there is no derivative with "
                "respect to it; pass its .numpy() or .item()"
            )
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            return value.item()
        return value


def checkpoint(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a Tensor x, keeping only x (Chen et al., 2016): backward computes function(x) again.

    Saves the memory of everything recorded inside, for one more forward pass. The function may use other
    Tensors with requires_grad; it must give the same result both times, as dropout from a `Stream` does.
    """
    if _parent(x) is None or not is_recording():
        return function(x)
    values = x.data
    with no_grad(), noting_uses() as uses:
        output = _single_tensor(function(x)).data

    def dx(g):
        refuse_changed(uses, "checkpoint")
        again = Tensor._result(values)
        again.requires_grad = True
        with enable_grad():  # even if backward() was called under no_grad()
            result = _single_tensor(function(again))
        if result.requires_grad:
            result.backward(g)
        gradient = take_gradient(again)
        return array_module(values).zeros_like(values) if gradient is None else gradient

    node = Node("checkpoint", [_parent(x)], (dx,), uses_of([x]), output)
    if (watch := tape.watch) is not None:
        watch.result(checkpoint, output, node, [values], {})
    return Tensor._result(output, node)


def _single_tensor(result):
    if not isinstance(result, Tensor):
        raise TypeError(f"checkpoint: the function must return a Tensor, not {type(result).__name__}")
    return result
