"""AdamW on flat buffers, gradient clipping and learning-rate schedules."""

import math
from collections.abc import Callable, Iterable
from typing import Any

from autograd.backend import Array, array_module, has_kernels
from autograd.dispatch import dispatched
from autograd.tensor import Tensor

# Elements that are updated at a time on a CPU: four float32 arrays and two temporaries of this length fit a
# cache of 1 MB.
CHUNK = 32_768


def flatten(tensors: list[Tensor], attribute: str = "data") -> Array:
    """Move the arrays of these Tensors (their `data`, or zeros for their `grad`) into one contiguous array.

    Returns that array. Each Tensor keeps a view of its part, so one operation on the flat array updates them
    all.
    """
    first = tensors[0].data
    flat = array_module(first).zeros(sum(tensor.size for tensor in tensors), first.dtype)
    start = 0
    for tensor in tensors:
        view = flat[start : start + tensor.size].reshape(tensor.shape)
        if attribute == "data":
            view[...] = tensor.data
        setattr(tensor, attribute, view)
        start += tensor.size
    return flat


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as in PyTorch, defaults included.

    parameters: Tensors, or groups: dicts with "params" and settings of their own ("lr", "betas", "eps",
    "weight_decay"). Each group's values, gradients and moments become flat arrays: group["data"], ["grad"],
    ["m"], ["v"]. `lr` of a group may be changed between steps. The groups' gradients lie one after another in
    `gradient`. The formula stands at `adamw` below.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor | dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        parameters = list(parameters)
        groups = parameters if parameters and isinstance(parameters[0], dict) else [{"params": parameters}]
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = [settings | group | {"params": list(group["params"])} for group in groups]
        self.steps = 0
        self.groups: list[dict[str, Any]] = [group for group in groups if group["params"]]
        if not self.groups:
            raise ValueError("AdamW got no parameters")
        self.gradient = flatten(self.parameters(), "grad")
        start = 0
        for group in self.groups:
            data = flatten(group["params"])
            grad = self.gradient[start : start + data.size]
            group |= {"data": data, "grad": grad, "m": grad.copy(), "v": grad.copy()}
            start += data.size

    def parameters(self) -> list[Tensor]:
        """All parameters, group after group: the order of `gradient`."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def zero_grad(self) -> None:
        """Set all gradients to 0."""
        self.gradient.fill(0)

    def step(self, run: Callable | None = None) -> None:
        """Update the parameters from their gradients.

        On a CPU the update goes chunk by chunk, so that a chunk's arrays stay in the cache through all its
        operations. `run(function, list)` may spread the chunks over threads; they are independent of each
        other. On a GPU one kernel updates a group.
        """
        self.steps += 1
        (run or _in_order)(self._update, [part for group in self.groups for part in _parts(group)])

    def clip_grad_norm(self, max_norm: float) -> Array:
        """As clip_grad_norm below, for all parameters, in as many operations as there are groups."""
        return _clip([group["grad"] for group in self.groups], max_norm)

    def _update(self, group_and_part):
        group, part = group_and_part
        arrays = (group[name][part] for name in ("data", "grad", "m", "v"))
        adamw(*arrays, group["lr"], group["betas"], group["eps"], group["weight_decay"], self.steps)


def _parts(group):
    """(group, slice) for each part of a group that is updated at a time."""
    size = group["data"].size
    length = size if has_kernels(group["data"]) else CHUNK
    return [(group, slice(start, start + length)) for start in range(0, size, length)]


def _in_order(function, items):
    for item in items:
        function(item)


@dispatched
def adamw(p, g, m, v, lr, betas, eps, weight_decay, step):
    """Update flat parameters p and their moments m and v in place, from the gradient g. step counts from 1.

    p *= 1 - lr * weight_decay
    m = beta1 * m + (1 - beta1) * g;  v = beta2 * v + (1 - beta2) * g²
    p -= lr * (m / (1 - beta1^step)) / (sqrt(v / (1 - beta2^step)) + eps)
    """
    beta1, beta2 = betas
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    v += (1 - beta2) * (g * g)
    denominator = array_module(v).sqrt(v)
    denominator *= 1 / math.sqrt(1 - beta2**step)
    denominator += eps
    if weight_decay:
        p *= 1 - lr * weight_decay
    p -= (lr / (1 - beta1**step)) * m / denominator


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Array:
    """Scale all gradients down if their joint Euclidean norm exceeds max_norm. Returns the norm before.

    The norm is a 0-d array and the comparison happens on its device, so the program need not wait for a GPU.
    """
    return _clip([parameter.grad for parameter in parameters if parameter.grad is not None], max_norm)


def _clip(grads, max_norm):
    total = norm(*grads)
    factor = array_module(total).minimum(max_norm / (total + 1e-6), 1.0)
    for g in grads:
        g *= factor
    return total


@dispatched
def norm(*arrays):
    """The joint Euclidean norm, a 0-d array."""
    xp = array_module(arrays[0])
    return xp.sqrt(sum(xp.vdot(x.ravel(), x.ravel()) for x in arrays))


def constant(lr: float) -> Callable[[int], float]:
    """A schedule, step -> learning rate, that does not change."""
    return lambda step: lr


def warmup_cosine(lr: float, warmup_steps: int, max_steps: int, min_lr: float) -> Callable[[int], float]:
    """A schedule: a linear rise over warmup_steps, then half a cosine wave from lr to min_lr at max_steps."""

    def schedule(step):
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * progress))

    return schedule
