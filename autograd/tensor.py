"""Tensor: an array that remembers how it was computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from autograd import tape
from autograd.backend import Array, array_module, device_of, is_array, to_numpy
from autograd.tape import Node

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Tensor:
    """An array that remembers how it was computed.

    data: list, number or array, which is copied unless copy=False. Floating arrays keep their dtype (float32
    or float64), everything else becomes float32. TypeError for what is no real number.

    After `loss.backward()`, `grad` of every leaf with `requires_grad=True` holds d loss / d leaf as a plain
    array of the same shape; further backward passes add to it. (A leaf is a Tensor that no recorded operation
    made.)
    """

    __slots__ = ("data", "grad", "requires_grad", "node", "changes", "__weakref__")
    __array_ufunc__ = None  # numpy_array * tensor comes to Tensor.__rmul__ instead of looping over elements

    data: Array
    grad: Array | None
    requires_grad: bool
    node: Node | None
    changes: list[int] | None  # how often a leaf was changed in place: see recording.py

    def __init__(self, data: Any, requires_grad: bool = False, dtype: Any = None, copy: bool = True):
        if isinstance(data, Tensor):
            raise TypeError("this is a Tensor already; use .detach() for one without history")
        array = numbers(data, "the values of a Tensor")
        if dtype is None:
            dtype = array.dtype if is_array(data) and array.dtype in FLOATS else np.float32
        self.data = array.astype(float_dtype(dtype), copy=copy)
        self.grad, self.requires_grad, self.node, self.changes = None, requires_grad, None, [0]

    @classmethod
    def _result(cls, array, node=None, changes=None):
        """The Tensor around an operation's result (a reduction to 0-d comes as a NumPy scalar).

        changes: the counter of the leaf whose memory the array shares.
        """
        tensor = object.__new__(cls)
        tensor.data = array if is_array(array) else np.asarray(array)
        tensor.grad, tensor.requires_grad, tensor.node = None, node is not None, node
        tensor.changes = [0] if changes is None and node is None else changes
        return tensor

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)
    device = property(lambda self: device_of(self.data))

    def detach(self) -> Tensor:
        """The same values, cut off from the tape."""
        return Tensor._result(self.data, changes=self.changes)

    def numpy(self) -> np.ndarray:
        """The values as a NumPy array (on the CPU it shares the Tensor's memory)."""
        return to_numpy(self.data)

    def item(self) -> float:
        """The value of a one-element Tensor as a Python number."""
        return self._one("item()")

    def _one(self, what):
        if self.size != 1:
            raise ValueError(f"{what} needs one element, but the shape is {self.shape}")
        return self.data.item()

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("a Tensor without axes cannot be iterated over; .item() gives its value")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self == value))

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError(
                f"the truth of a Tensor of shape {self.shape} is ambiguous; write (x > 0).any() or .all()"
            )
        return bool(self.data.item())

    def __float__(self) -> float:
        return float(self._one("float()"))

    def __int__(self) -> int:
        return int(self._one("int()"))

    def __round__(self, digits: int | None = None) -> float:
        return round(self._one("round()"), digits)

    def __format__(self, spec: str) -> str:
        return format(self._one(f"the format {spec!r}"), spec) if spec else str(self)

    __hash__ = object.__hash__  # by identity, though == compares elements

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.requires_grad:
            raise TypeError(
                "NumPy would lose the tape of this Tensor: join Tensors with stack() or concatenate(), "
                "or take values with .numpy()"
            )
        if not isinstance(self.data, np.ndarray):
            raise TypeError(f"this Tensor is on {self.device}; .numpy() copies its values")
        return np.array(self.data, dtype, copy=copy)

    def __array_function__(self, function: Callable, types: Any, args: Any, kwargs: Any) -> NoReturn:
        name = function.__name__
        raise TypeError(
            f"np.{name} knows nothing of the tape: write autograd.{name}(x) if there is one, "
            f"or np.{name}(x.numpy()) for the values alone"
        )

    def __reduce__(self) -> tuple:
        """For copy and pickle."""
        if self.node is not None:
            raise TypeError("only leaves can be copied or pickled: detach() this Tensor first")
        grad = None if self.grad is None else self.grad.copy()
        return _leaf, (self.data.copy(), self.requires_grad, grad)

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
        if isinstance(gradient, Tensor):
            gradient = gradient.data
        gradient = xp.asarray(gradient, self.dtype)
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

        __pos__ = __neg__ = __abs__ = exp = log = sqrt = tanh = sigmoid = relu = _unary
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _binary
        __pow__ = __rpow__ = __matmul__ = __rmatmul__ = _binary
        __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _binary
        sum = mean = max = min = _reduction
        T: Tensor

        def __getitem__(self, index: Any) -> Tensor: ...
        def __eq__(self, other: object) -> Any: ...
        def __ne__(self, other: object) -> Any: ...
        def __lt__(self, other: TensorLike) -> Array: ...
        def __le__(self, other: TensorLike) -> Array: ...
        def __gt__(self, other: TensorLike) -> Array: ...
        def __ge__(self, other: TensorLike) -> Array: ...
        def var(self, axis: Any = None, keepdims: bool = False, ddof: int = 0) -> Tensor: ...
        def reshape(self, *shape: Any) -> Tensor: ...
        def transpose(self, *axes: Any) -> Tensor: ...
        def swapaxes(self, a: int, b: int) -> Tensor: ...
        def squeeze(self, axis: Any = None) -> Tensor: ...
        def astype(self, dtype: Any) -> Tensor: ...
        def to(self, device: str) -> Tensor: ...


TensorLike = Tensor | Array | float  # what operations take as inputs


def numbers(values: Any, what: str) -> Array:
    """The values as an array. TypeError, which says `what` they are for, unless they are real numbers."""
    array = values if is_array(values) else np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{what} must be real numbers, not {type(values).__name__} ({array.dtype})")
    return array


def float_dtype(dtype: Any) -> np.dtype:
    """float32 or float64 as NumPy's dtype. TypeError for another."""
    if np.dtype(dtype) not in FLOATS:
        raise TypeError(
            f"a Tensor holds float32 or float64, not {np.dtype(dtype)}; "
            "for integers take .numpy() and convert that"
        )
    return np.dtype(dtype)


def _leaf(data, requires_grad, grad):
    """The copy of a leaf: what __reduce__ asks for."""
    tensor = Tensor._result(data)
    tensor.requires_grad, tensor.grad = requires_grad, grad
    return tensor
