"""Tensor, and `op`, which makes an operation on Tensors from a function on arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from autograd import tape
from autograd.backend import Array, array_module, device_of, is_array, to_numpy
from autograd.dispatch import TwoForms, choose_form, with_forms
from autograd.tape import Node, is_recording, no_grad


class Tensor:
    """An array that remembers how it was computed.

    data: list, number or array. Floating arrays keep their dtype (float32 or float64), everything else
    becomes float32. After `loss.backward()`, `grad` of every leaf with `requires_grad=True` holds d loss / d
    leaf as a plain array of the same shape; further backward passes add to it.
    """

    __slots__ = ("data", "grad", "requires_grad", "node", "__weakref__")
    __array_ufunc__ = None  # numpy_array * tensor comes to Tensor.__rmul__ instead of looping over elements

    data: Array
    grad: Array | None
    requires_grad: bool
    node: Node | None

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None):
        if isinstance(data, Tensor):
            raise TypeError("this is a Tensor already; use .detach() for one without history")
        array = data if is_array(data) else np.asarray(data)
        if dtype is None:
            dtype = array.dtype if is_array(data) and array.dtype in (np.float32, np.float64) else np.float32
        self.data = array.astype(dtype, copy=False)
        self.grad, self.requires_grad, self.node = None, requires_grad, None

    @classmethod
    def _result(cls, array, node=None):
        """The Tensor around an operation's result (a reduction to 0-d comes as a NumPy scalar)."""
        tensor = object.__new__(cls)
        tensor.data = array if is_array(array) else np.asarray(array)
        tensor.grad, tensor.requires_grad, tensor.node = None, node is not None, node
        return tensor

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: device_of(self.data))

    def detach(self) -> Tensor:
        """The same values, cut off from the tape."""
        return Tensor._result(self.data)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array (on the CPU it shares the Tensor's memory)."""
        return to_numpy(self.data)

    def item(self) -> float:
        """The value of a one-element Tensor as a Python number."""
        return self.data.item()

    def __len__(self) -> int:
        return len(self.data)

    def __float__(self) -> float:
        return float(self.data)

    def __setitem__(self, index, value):
        raise TypeError(
            "a Tensor cannot be assigned into: the tape may need the old values. Build a new one with "
            "where() or concatenate(), or change .data of a leaf between two training steps."
        )

    def __repr__(self) -> str:
        facts = [f"shape={self.shape}", str(self.dtype)]
        if self.device != "cpu":
            facts.append(self.device)
        if self.node:
            facts.append(f"made by {self.node.name}")
        elif self.requires_grad:
            facts.append("requires_grad")
        layout = dict(precision=4, threshold=100, edgeitems=3, separator=", ", prefix="Tensor(")
        return f"Tensor({np.array2string(self.numpy(), **layout)}, {', '.join(facts)})"

    def backward(self, gradient: TensorLike | None = None, retain_graph: bool = False) -> None:
        """Add d self / d leaf to `.grad` of every leaf below.

        gradient: the upstream gradient, of this Tensor's shape; may be left out for a single element (it is 1
        then). The tape is freed on the way, unless retain_graph. Raises RuntimeError if there is nothing to
        differentiate or the tape was freed before, ValueError if the gradient has another shape.
        """
        if not self.requires_grad:
            raise RuntimeError(
                "nothing to differentiate: no input had requires_grad=True, or it ran under no_grad()"
            )
        if gradient is None and self.size != 1:
            raise RuntimeError(
                f"backward() from shape {self.shape} needs an upstream gradient of that shape: "
                "reduce to one number first (.mean(), .sum()), or pass gradient="
            )
        xp = array_module(self.data)
        if gradient is None:
            gradient = xp.ones(self.shape, self.dtype)
        gradient = xp.asarray(gradient.data if isinstance(gradient, Tensor) else gradient, self.dtype)
        if gradient.shape != self.shape:
            raise ValueError(f"the upstream gradient has shape {gradient.shape}, the Tensor {self.shape}")
        if self.node is None:
            tape.add_to_leaf(self, gradient)
        else:
            tape.walk(self.node, gradient, retain_graph)

    if TYPE_CHECKING:  # what ops/__init__.py adds, for type checkers

        def _unary(self) -> Tensor: ...
        def _binary(self, other: TensorLike) -> Tensor: ...
        def _reduction(self, axis: int | tuple | None = None, keepdims: bool = False) -> Tensor: ...

        __neg__ = __abs__ = exp = log = sqrt = tanh = sigmoid = relu = _unary
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _binary
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _binary
        sum = mean = max = min = _reduction
        T: Tensor

        def __getitem__(self, index: Any) -> Tensor: ...
        def __lt__(self, other: TensorLike) -> Array: ...
        def __le__(self, other: TensorLike) -> Array: ...
        def __gt__(self, other: TensorLike) -> Array: ...
        def __ge__(self, other: TensorLike) -> Array: ...
        def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: int) -> Tensor: ...
        def swapaxes(self, a: int, b: int) -> Tensor: ...
        def squeeze(self, axis: Any = None) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def to(self, device: str) -> Tensor: ...


TensorLike = Tensor | Array | float  # what operations take as inputs


class Operation(TwoForms, Protocol):
    """What `op` returns: a function on Tensors. Its two forms are functions on arrays."""

    __name__: str

    def __call__(self, *inputs: Any, **options: Any) -> Tensor: ...


def op(function: Callable) -> Operation:
    """Make an operation on Tensors from a function on arrays that returns its result and its pullback.

    The pullback is one function per differentiable input, from the gradient of the result to the gradient of
    that input (the bare function if there is only one). Only those of inputs that need a gradient are ever
    called. The differentiable inputs come first; what follows are plain options. Inputs may be Tensors,
    numbers or plain arrays, which take the Tensors' dtype. The undecorated function stays available as
    `.raw`, for fused operations to build on; `.on_gpu` registers a form of it for float32 on a GPU.
    """
    name = function.__name__.strip("_")

    @functools.wraps(function)
    def apply(*inputs, **options):
        # 1. From Tensors to arrays of one dtype on one device.
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if not tensors:
            inputs = (Tensor(inputs[0]), *inputs[1:])
            tensors = inputs[:1]
        like = tensors[0].data
        for other in tensors[1:]:
            _check_same_kind(name, like, other.data)
        arrays = [_operand(value, like) for value in inputs]
        # 2. Forward.
        output, pullbacks = choose_form(apply, like)(*arrays, **options)
        # 3. Record how to go back, if that is wanted.
        node = None
        if is_recording() and any(tensor.requires_grad for tensor in tensors):
            pullbacks = (pullbacks,) if callable(pullbacks) else pullbacks
            node = Node(name, _parents(name, inputs, len(pullbacks)), pullbacks, output)
        if tape.watch:
            tape.watch.result(name, output, node)
        return Tensor._result(output, node)

    apply.__signature__ = _signature_on_tensors(function)
    return with_forms(apply, function)


def _parents(name, inputs, differentiable):
    """What the tape remembers of each input. TypeError if one without a derivative needs a gradient."""
    parents = [_parent(value) for value in inputs]
    if any(parent is not None for parent in parents[differentiable:]):
        raise TypeError(f"{name} has no derivative with respect to input {len(parents) - 1}; detach() it")
    return parents


def _parent(value):
    """What the tape remembers of an input: what receives its gradient."""
    return (value.node or value) if isinstance(value, Tensor) and value.requires_grad else None


def _operand(value, like):
    """The array (or number) that an operation works with, of the dtype and on the device of `like`.

    Integers stay as they are: they name rows. They are checked where they are used, which is cheap only on
    the CPU.
    """
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, np.floating):
        return float(value)  # a NumPy scalar would promote float32 to float64, a Python float does not
    if not is_array(value) or value.dtype.kind in "iu":
        return value
    return array_module(like).asarray(value, like.dtype if value.dtype.kind == "f" else None)


def _check_same_kind(name, a, b):
    if a.dtype != b.dtype:
        raise TypeError(f"{name} got a {a.dtype} and a {b.dtype} Tensor; convert one with .astype()")
    if array_module(a) is not array_module(b):
        raise TypeError(f"{name} got Tensors on {device_of(a)} and {device_of(b)}; move one with .to()")


def _signature_on_tensors(function):
    """The function's signature as help() should show it: inputs like Tensors, the result a Tensor."""
    signature = inspect.signature(function, eval_str=True)
    parameters = [
        p.replace(annotation=TensorLike) if p.annotation is p.empty else p
        for p in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters, return_annotation=Tensor)


def checkpoint(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x) for a Tensor x, keeping only x (Chen et al., 2016): backward computes function(x) again.

    Saves the memory of everything recorded inside, for one more forward pass. The function may use other
    Tensors with requires_grad; it must give the same result both times, as dropout from a `Stream` does.
    """
    if _parent(x) is None or not is_recording():
        return function(x)
    with no_grad():
        output = function(x).data
    values = x.data

    def dx(g):
        again = Tensor._result(values)
        again.requires_grad = True
        function(again).backward(g)
        return again.grad

    return Tensor._result(output, Node("checkpoint", [_parent(x)], (dx,), output))
