"""All operations, and the operators of Tensor that call them."""

from autograd.ops.attention import causal_attention
from autograd.ops.elementwise import (
    abs_,
    add,
    astype,
    clip,
    divide,
    exp,
    gelu,
    gelu_exact,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    sqrt,
    subtract,
    tanh,
    where,
)
from autograd.ops.linalg import linear, matmul
from autograd.ops.nn import (
    cross_entropy,
    dropout,
    embedding,
    layer_norm,
    linear_cross_entropy,
    log_softmax,
    softmax,
)
from autograd.ops.reduce import logsumexp, max, mean, min, sum, var
from autograd.ops.shape import (
    broadcast_to,
    concatenate,
    expand_dims,
    getitem,
    masked_fill,
    reshape,
    split,
    squeeze,
    stack,
    swapaxes,
    to,
    transpose,
    tril,
)
from autograd.tensor import Tensor

abs = abs_


def _give_tensor_its_operators():
    for name, function in {
        "add": add,
        "sub": subtract,
        "mul": multiply,
        "truediv": divide,
        "pow": power,
    }.items():
        setattr(Tensor, f"__{name}__", lambda x, y, f=function: f(x, y))
        setattr(Tensor, f"__r{name}__", lambda x, y, f=function: f(y, x))
    Tensor.__matmul__ = lambda x, y: matmul(x, y)
    Tensor.__rmatmul__ = lambda x, y: matmul(y, x)
    Tensor.__neg__ = lambda x: negative(x)
    Tensor.__abs__ = lambda x: abs_(x)
    Tensor.__getitem__ = lambda x, index: getitem(x, index=index)
    for name in ("lt", "le", "gt", "ge"):  # plain boolean arrays, for where() and masked_fill()
        compare = f"__{name}__"
        setattr(
            Tensor,
            compare,
            lambda x, y, c=compare: getattr(x.data, c)(y.data if isinstance(y, Tensor) else y),
        )
    for method in (exp, log, sqrt, tanh, sigmoid, relu, sum, mean, var, max, min, squeeze, astype, to):
        setattr(Tensor, method.__name__, method)
    Tensor.reshape = lambda x, *shape: reshape(x, shape=shape[0] if isinstance(shape[0], tuple) else shape)
    Tensor.transpose = lambda x, *axes: transpose(x, axes=axes or None)
    Tensor.swapaxes = lambda x, a, b: swapaxes(x, a=a, b=b)
    Tensor.T = property(lambda x: transpose(x))


_give_tensor_its_operators()
