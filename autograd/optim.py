"""AdamW, gradient clipping and learning-rate schedules."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from autograd.backend import Array, array_module, device_of, has_kernels
from autograd.dispatch import dispatched
from autograd.tape import gradient_of
from autograd.tensor import Tensor

# Elements that are updated at a time on a CPU: four float32 arrays and two temporaries of this length fit a
# cache of 1 MB.
CHUNK = 32_768


def flatten(tensors: list[Tensor], attribute: str = "data", zeros: Callable | None = None) -> Array:
    """Move the arrays of these Tensors (their `data`, or their `grad`, 0 where it is None) into one.

    Returns that contiguous array, made by zeros(size, dtype). Each Tensor keeps a view of its part, so one
    operation on the flat array updates them all.
    """
    first = tensors[0].data
    zeros = zeros or array_module(first).zeros
    flat = zeros(sum(tensor.size for tensor in tensors), first.dtype)
    for tensor, part in zip(tensors, _parts_of(flat, [tensor.shape for tensor in tensors]), strict=True):
        if attribute == "data":
            part[...] = tensor.data
        elif tensor.grad is not None:
            part[...] = gradient_of(tensor)
        setattr(tensor, attribute, part)
    return flat


def _parts_of(flat, shapes):
    """Views of a flat array in these shapes, one after another."""
    start = 0
    for shape in shapes:
        stop = start + math.prod(shape)
        yield flat[start:stop].reshape(shape)
        start = stop


SETTINGS = {  # of a group: what is allowed, in words and as a test
    "lr": ("at least 0", lambda lr: lr >= 0),
    "betas": ("two numbers, at least 0 and below 1", lambda b: len(b) == 2 and all(0 <= x < 1 for x in b)),
    "eps": ("at least 0", lambda eps: eps >= 0),
    "weight_decay": ("at least 0", lambda decay: decay >= 0),
}


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as in PyTorch, defaults included.

    parameters: leaf Tensors of one dtype on one device, or groups: dicts with "params" and settings of their
    own ("lr", "betas", "eps", "weight_decay"). `groups` has one dict each; "lr" may be changed between steps.
    Each step reads the parameters' `data` and `grad` as they are then, so both may be replaced. A parameter
    whose `grad` is None is skipped: no update, no decay. The formula stands at `adamw` below. Raises
    TypeError or ValueError for what cannot be trained.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor | dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ):
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = [settings | group for group in _groups(parameters)]
        self.groups: list[dict[str, Any]] = [group for group in groups if group["params"]]
        self.gradient: Array | None = None  # of all parameters, once they are flat
        _check_parameters(self.parameters())
        for group in self.groups:
            _check_settings(group)
            first = group["params"][0].data
            shapes = [parameter.shape for parameter in group["params"]]
            m = array_module(first).zeros(sum(map(math.prod, shapes)), first.dtype)
            # The moments of all parameters, one after another, and how often each parameter was updated.
            group |= {"m": m, "v": m.copy(), "shapes": shapes, "steps": [0] * len(shapes)}

    def parameters(self) -> list[Tensor]:
        """All parameters, group after group: the order of `gradient`."""
        return [parameter for group in self.groups for parameter in group["params"]]

    @property
    def steps(self) -> int:
        """How many updates there were. Setting it sets every parameter's count, as for a resumed run."""
        return max(count for group in self.groups for count in group["steps"])

    @steps.setter
    def steps(self, count: int) -> None:
        for group in self.groups:
            group["steps"] = [count] * len(group["params"])

    def flatten(self, zeros: Callable | None = None) -> None:
        """Move all gradients into one flat array, `gradient`, and each group's values into group["data"].

        Then a step takes few operations instead of some for every parameter. From here on the parameters'
        arrays are views of the flat ones, and a gradient that no backward pass reached is 0, not None. Flat
        arrays stay as they are, since others may share them. zeros(size, dtype) makes the arrays, those of
        the moments too, if they should lie in memory of another kind.
        """
        if all(map(_is_flat, self.groups)):
            return
        self.gradient = flatten(self.parameters(), "grad", zeros)
        start = 0
        for group in self.groups:
            data = flatten(group["params"], zeros=zeros)
            if zeros:
                for name in ("m", "v"):
                    moments = zeros(data.size, data.dtype)
                    moments[...] = group[name]
                    group[name] = moments
            group |= {"data": data, "grad": self.gradient[start : start + data.size]}
            group["views"] = [(parameter.data, parameter.grad) for parameter in group["params"]]
            start += data.size

    def twin(self) -> AdamW:
        """An optimizer of the same arrays with settings and counts of its own, to update a part of them."""
        twin = copy.copy(self)
        twin.groups, twin.gradient = [dict(group) for group in self.groups], self.gradient
        return twin

    def __getstate__(self) -> dict[str, Any]:
        """For copy and pickle: without the flat arrays, of which the copied parameters are no views."""
        flat = ("data", "grad", "views")
        groups = [{key: value for key, value in group.items() if key not in flat} for group in self.groups]
        return {"groups": groups, "gradient": None}

    def zero_grad(self) -> None:
        """Forget all gradients: None, or 0 in flat arrays."""
        if self.gradient is not None:
            self.gradient.fill(0)
        for group in self.groups:
            for i, parameter in enumerate(group["params"]):
                parameter.grad = group["views"][i][1] if "views" in group else None

    def step(self, run: Callable | None = None) -> None:
        """Update the parameters from their gradients.

        On a CPU the update goes chunk by chunk, so that a chunk's arrays stay in the cache through all its
        operations. `run(function, list)` may spread the chunks over threads; they are independent of each
        other. On a GPU one kernel updates a group with flat arrays.
        """
        updates = [update for group in self.groups for update in _updates(group)]
        (run or _in_order)(_Update.carry_out, [part for update in updates for part in update.parts()])

    def clip_grad_norm(self, max_norm: float) -> Array:
        """As clip_grad_norm below, for all parameters; with flat arrays in as many operations as groups."""
        if all(map(_is_flat, self.groups)):
            return _clip([group["grad"] for group in self.groups], max_norm)
        return clip_grad_norm(self.parameters(), max_norm)


def _groups(parameters):
    """The groups that AdamW was given, each with a list of Tensors. TypeError for something else."""
    if isinstance(parameters, (Tensor, dict)):
        kind = type(parameters).__name__
        raise TypeError(f"AdamW takes a list of Tensors or of groups, not a {kind}; write AdamW([x])")
    parameters = list(parameters)
    if not parameters or not isinstance(parameters[0], dict):
        parameters = [{"params": parameters}]
    groups = []
    for group in parameters:
        if not isinstance(group, dict) or "params" not in group:
            raise TypeError('AdamW takes Tensors alone or groups alone; a group is a dict with "params"')
        if unknown := group.keys() - SETTINGS.keys() - {"params"}:
            raise TypeError(f"AdamW knows no setting {min(unknown)!r}; a group has {', '.join(SETTINGS)}")
        params = group["params"]
        groups.append(group | {"params": [params] if isinstance(params, Tensor) else list(params)})
    return groups


def _check_parameters(parameters):
    if not parameters:
        raise ValueError("AdamW got no parameters")
    for parameter in parameters:
        if not isinstance(parameter, Tensor):
            raise TypeError(f"AdamW trains Tensors, not a {type(parameter).__name__}")
        if parameter.node is not None:
            raise ValueError(
                f"AdamW can only train leaves, but one parameter was made by {parameter.node.name}; make it "
                "with Tensor(..., requires_grad=True), or detach() it"
            )
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise ValueError("AdamW got the same parameter twice")
    kinds = {f"{parameter.dtype} on {parameter.device}" for parameter in parameters}
    if len(kinds) > 1:
        raise TypeError(f"AdamW got parameters of several kinds: {', '.join(sorted(kinds))}; it takes one")


def _check_settings(group):
    for name, (wanted, is_allowed) in SETTINGS.items():
        if not is_allowed(group[name]):
            raise ValueError(f"AdamW: {name} is {group[name]!r}; it must be {wanted}")


def _is_flat(group):
    """Whether the group has flat arrays and its parameters use them."""
    if "views" not in group:
        return False
    in_use = zip(group["params"], group["views"], strict=True)
    return all(parameter.data is data and parameter.grad is grad for parameter, (data, grad) in in_use)


@dataclass
class _Update:
    """The arrays of one parameter, or of a group whose arrays are flat, all of one shape."""

    data: Array
    grad: Array
    m: Array
    v: Array
    group: dict[str, Any]  # its settings
    step: int  # counts from 1

    def parts(self) -> list[_Update]:
        """The same work in parts: on a CPU, of CHUNK elements."""
        arrays = (self.data, self.grad, self.m, self.v)
        if has_kernels(self.data) or self.data.size <= CHUNK or not self.data.flags.c_contiguous:
            return [self]
        flat = [array.reshape(-1) for array in arrays]
        return [
            _Update(*(array[start : start + CHUNK] for array in flat), self.group, self.step)
            for start in range(0, self.data.size, CHUNK)
        ]

    def carry_out(self) -> None:
        lr, betas, eps, weight_decay = (self.group[name] for name in SETTINGS)
        adamw(self.data, self.grad, self.m, self.v, float(lr), betas, eps, weight_decay, self.step)


def _updates(group):
    """What a step has to do for a group. It is counted as done."""
    parameters, counts = group["params"], group["steps"]
    if _is_flat(group) and len(set(counts)) == 1:
        group["steps"] = [count + 1 for count in counts]
        for parameter in parameters:
            parameter.changes[0] += 1
        arrays = (group[name] for name in ("data", "grad", "m", "v"))
        return [_Update(*arrays, group, counts[0] + 1)]
    updates = []
    moments = (_parts_of(group[name], group["shapes"]) for name in ("m", "v"))
    for i, (parameter, m, v) in enumerate(zip(parameters, *moments, strict=True)):
        if parameter.grad is not None:
            _check_same_kind(parameter, m)
            counts[i] += 1
            parameter.changes[0] += 1
            updates.append(_Update(parameter.data, gradient_of(parameter), m, v, group, counts[i]))
    return updates


def _check_same_kind(parameter, m):
    """ValueError unless a parameter still has the shape, dtype and device of its moments."""
    now, before = [(x.shape, str(x.dtype), device_of(x)) for x in (parameter.data, m)]
    if now != before:
        raise ValueError(f"AdamW was made for a parameter {before}, which has become {now}; make a new AdamW")


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
    (beta1, beta2), xp = betas, array_module(p)
    part = xp.empty_like(p)  # one temporary array for all that follows
    xp.multiply(g, 1 - beta1, out=part)
    m *= beta1
    m += part
    xp.multiply(g, g, out=part)
    part *= 1 - beta2
    v *= beta2
    v += part
    # The update with both of its fractions multiplied by sqrt(1 - beta2^step), which saves a pass.
    correction = math.sqrt(1 - beta2**step)
    xp.sqrt(v, out=part)
    part += eps * correction
    xp.divide(m, part, out=part)
    part *= lr * correction / (1 - beta1**step)
    if weight_decay:
        p *= 1 - lr * weight_decay
    p -= part


def clip_grad_norm(parameters: Iterable[Tensor], max_norm: float) -> Array:
    """Scale all gradients down if their joint Euclidean norm exceeds max_norm. Returns the norm before.

    parameters: Tensors, or one; those whose `grad` is None do not count. The norm is a 0-d array and the
    comparison happens on its device, so the program need not wait for a GPU.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    trained = [parameter for parameter in parameters if parameter.grad is not None]
    for parameter in trained:
        parameter.grad = gradient_of(parameter)
    return _clip([parameter.grad for parameter in trained], max_norm)


def _clip(grads, max_norm):
    if not grads:
        return np.zeros((), np.float32)
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
