"""Tensor, the tape of recorded operations, and `backward`, which walks the tape in reverse."""

import functools
import heapq
import itertools
import threading

import numpy as np

from autograd.backend import array_module, device_of, has_kernels, is_array, to_numpy

_order = itertools.count()
_state = threading.local()  # each worker thread switches recording on and off for itself
watch = None  # the detect_anomaly() that looks at every result, if one is active


def is_recording():
    """True unless inside `no_grad()`."""
    return getattr(_state, "recording", True)


class no_grad:
    """Do not record operations: `with no_grad(): ...`, or as a decorator. Saves the memory of the tape."""

    def __enter__(self):
        self.before = is_recording()
        _state.recording = False

    def __exit__(self, *exception):
        _state.recording = self.before

    def __call__(self, function):
        @functools.wraps(function)
        def without_tape(*args, **kwargs):
            with no_grad():
                return function(*args, **kwargs)

        return without_tape


class Node:
    """One recorded operation: it turns the gradient of its output into the gradients of its inputs.

    `vjps` holds one function per input (a vector-Jacobian product). `parents` holds, per input, the Node that
    made it, the Tensor itself if it is a leaf, or None if it needs no gradient. A Node knows nothing of its
    own output, so there is no reference cycle: memory goes when the last user goes, without the garbage
    collector.
    """

    __slots__ = ("order", "name", "parents", "vjps", "shape", "dtype")

    def __init__(self, name, parents, vjps, output):
        self.order = next(_order)
        self.name, self.parents, self.vjps = name, parents, vjps
        self.shape, self.dtype = output.shape, output.dtype


class Tensor:
    """An array that remembers how it was computed.

    data: list, number or array. Floating arrays keep their dtype (float32 or float64), everything else
    becomes float32. After `loss.backward()`, `grad` of every leaf with `requires_grad=True` holds d loss / d
    leaf as a plain array of the same shape; further backward passes add to it.
    """

    __slots__ = ("data", "grad", "requires_grad", "node", "__weakref__")
    __array_ufunc__ = None  # numpy_array * tensor comes to Tensor.__rmul__ instead of looping over elements

    def __init__(self, data, requires_grad=False, dtype=None):
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

    def detach(self):
        """The same values, cut off from the tape."""
        return Tensor._result(self.data)

    def numpy(self):
        """The values as a NumPy array (on the CPU it shares the Tensor's memory)."""
        return to_numpy(self.data)

    def item(self):
        """The value of a one-element Tensor as a Python number."""
        return self.data.item()

    def __len__(self):
        return len(self.data)

    def __float__(self):
        return float(self.data)

    def __setitem__(self, index, value):
        raise TypeError(
            "a Tensor cannot be assigned into: the tape may need the old values. Build a new one with "
            "where() or concatenate(), or change .data of a leaf between two training steps."
        )

    def __repr__(self):
        origin = (
            f", made by {self.node.name}" if self.node else ", requires_grad" if self.requires_grad else ""
        )
        place = "" if self.device == "cpu" else f", {self.device}"
        values = np.array2string(
            self.numpy(), precision=4, threshold=100, edgeitems=3, separator=", ", prefix="Tensor("
        )
        return f"Tensor({values}, shape={self.shape}, {self.dtype}{place}{origin})"

    def backward(self, gradient=None, retain_graph=False):
        """Add d self / d leaf to `.grad` of every leaf below.

        gradient: the upstream gradient, of this Tensor's shape; may be left out for a single element (it is 1
        then). The tape is freed on the way, unless retain_graph. Raises RuntimeError if there is nothing to
        differentiate or the tape was freed before.
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
            _add_to_leaf(self, gradient)
        else:
            _walk(self.node, gradient, retain_graph)


def _walk(root, gradient, retain_graph):
    """Visit the nodes below root from the newest to the oldest, handing gradients down.

    An operation is recorded after its inputs were, so descending creation order is a reverse topological
    order: when a node's turn comes, everything that uses its output has already contributed to its gradient.
    """
    gradients = {root: gradient}
    owned = set()  # nodes whose gradient is a sum made here, so that it may be added to in place
    queue = [(-root.order, root)]
    while queue:
        node = heapq.heappop(queue)[1]
        gradient = gradients.pop(node)
        if node.vjps is None:
            raise RuntimeError(
                f"the tape of this {node.name} was freed by an earlier backward(): run the forward pass "
                "again, or call the first backward(retain_graph=True)"
            )
        for position, (parent, vjp) in enumerate(zip(node.parents, node.vjps, strict=False)):
            if parent is None:
                continue
            if (
                isinstance(vjp, AddingPullback)
                and isinstance(parent, Tensor)
                and parent.grad is not None
                and not watch
            ):
                vjp(gradient, add_to=parent.grad)
                continue
            contribution = _checked(vjp(gradient), parent, node, position)
            if watch:
                watch.gradient(node, position, contribution)
            if isinstance(parent, Tensor):
                _add_to_leaf(parent, contribution)
            elif parent not in gradients:
                gradients[parent] = contribution
                heapq.heappush(queue, (-parent.order, parent))
            elif parent in owned:
                gradients[parent] += contribution
            else:  # the array may belong to someone else as well: (x + y) hands the same one to both
                gradients[parent] = gradients[parent] + contribution
                owned.add(parent)
        if not retain_graph:
            node.vjps, node.parents = None, ()  # frees the activations that the pullbacks hold


class AddingPullback:
    """A pullback, function(g, add_to), that can add what it finds to an array at once: a leaf's gradient that
    is there already.

    Otherwise add_to is None and it returns an array of its own. On a GPU this saves a launch per parameter.
    """

    def __init__(self, function):
        self.function = function

    def __call__(self, gradient, add_to=None):
        return self.function(gradient, add_to)


def _checked(gradient, parent, node, position):
    """The gradient as an array, after checking that it fits the input it belongs to."""
    gradient = gradient if is_array(gradient) else np.asarray(gradient)
    if gradient.shape != parent.shape or gradient.dtype != parent.dtype:
        raise AssertionError(
            f"{node.name}: the gradient of input {position} is {gradient.shape} {gradient.dtype}, "
            f"but the input is {parent.shape} {parent.dtype}"
        )
    return gradient


def _add_to_leaf(leaf, gradient):
    if leaf.grad is None:
        leaf.grad = gradient.copy()  # a copy, since later passes add to it in place
    else:
        leaf.grad += gradient


def checkpoint(function, x):
    """function(x) for a Tensor x, keeping only x: backward computes function(x) a second time (Chen et al.,
    2016).

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


def op(function):
    """Make an operation on Tensors from a function on arrays that returns its result and its pullback.

    The pullback is one function per differentiable input, from the gradient of the result to the gradient of
    that input (the bare function if there is only one). Only those of inputs that need a gradient are ever
    called. The differentiable inputs come first; what follows are plain options. Inputs may be Tensors,
    numbers or plain arrays, which take the Tensors' dtype. The undecorated function stays at hand as `.raw`,
    for fused operations to build on. On a GPU, float32 goes to the form in autograd/cuda of the same name, if
    there is one.
    """
    name = function.__name__.strip("_")

    @functools.wraps(function)
    def apply(*inputs, **options):
        tensors = [value for value in inputs if isinstance(value, Tensor)]
        if not tensors:
            inputs = (Tensor(inputs[0]), *inputs[1:])
            tensors = inputs[:1]
        like = tensors[0].data
        for other in tensors[1:]:
            _check_same_kind(name, like, other.data)
        function = _on_gpu(apply) if has_kernels(like) else apply.raw
        output, vjps = function(*[_operand(value, like) for value in inputs], **options)
        if not (is_recording() and any(tensor.requires_grad for tensor in tensors)):
            if watch:
                watch.result(name, output)
            return Tensor._result(output)
        vjps = (vjps,) if callable(vjps) else vjps
        parents = [_parent(value) for value in inputs]
        if any(parent is not None for parent in parents[len(vjps) :]):
            raise TypeError(f"{name} has no derivative with respect to input {len(parents) - 1}; detach() it")
        node = Node(name, parents, vjps, output)
        if watch:
            watch.result(name, output, node)
        return Tensor._result(output, node)

    apply.raw = function
    return apply


def _on_gpu(operation):
    """The form of an operation with CUDA kernels, or the same function as on the CPU if there is none."""
    from autograd.cuda.ops import FUSED  # here, because a machine without a GPU has no use for it

    return FUSED.get(operation.__name__, operation.raw)


def _parent(value):
    """What the tape remembers of an input: who is to receive its gradient."""
    return (value.node or value) if isinstance(value, Tensor) and value.requires_grad else None


def _operand(value, like):
    """The array (or number) that an operation works with, of the dtype and on the device of `like`.

    Integers stay as they are: they name rows, which is checked where they are used, and cheap only on the
    CPU.
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
