"""AdamW on flat buffers, gradient clipping and learning-rate schedules."""

import math

from autograd.backend import array_module, has_kernels


def flatten(tensors, attribute="data"):
    """Move the arrays of these Tensors (their `data`, or zeros for their `grad`) into one contiguous array,
    which is returned.

    Each Tensor keeps a view of its part, so one operation on the flat array updates them all.
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

        p *= 1 - lr * weight_decay
        m = beta1 * m + (1 - beta1) * grad;  v = beta2 * v + (1 - beta2) * grad²
        p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

    parameters: Tensors, or groups: dicts with "params" and settings of their own ("lr", "betas", "eps",
    "weight_decay"). Each group's values, gradients and moments become flat arrays: group["data"], ["grad"],
    ["m"], ["v"]. `lr` of a group may be changed between steps. The groups' gradients lie one after another in
    `gradient`.
    """

    def __init__(self, parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        parameters = list(parameters)
        groups = parameters if parameters and isinstance(parameters[0], dict) else [{"params": parameters}]
        settings = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        groups = [settings | group | {"params": list(group["params"])} for group in groups]
        self.steps = 0
        self.groups = [group for group in groups if group["params"]]
        if not self.groups:
            raise ValueError("AdamW got no parameters")
        self.gradient = flatten(self.parameters(), "grad")
        start = 0
        for group in self.groups:
            data = flatten(group["params"])
            grad = self.gradient[start : start + data.size]
            group |= {"data": data, "grad": grad, "m": grad.copy(), "v": grad.copy()}
            start += data.size

    def parameters(self):
        """All parameters, group after group: the order of `gradient`."""
        return [parameter for group in self.groups for parameter in group["params"]]

    def zero_grad(self):
        """Set all gradients to 0."""
        self.gradient.fill(0)

    def step(self, run=None):
        """Update the parameters from their gradients.

        The update goes chunk by chunk, so that a chunk's arrays stay in the cache through all its operations.
        `run` (function, list) may spread the chunks over threads; they are independent of each other. On a
        GPU, one kernel updates a group.
        """
        self.steps += 1
        if has_kernels(self.groups[0]["data"]):
            from autograd.cuda.optim import adamw

            for group in self.groups:
                arrays = (group[name] for name in ("data", "grad", "m", "v"))
                adamw(*arrays, group["lr"], group["betas"], group["eps"], group["weight_decay"], self.steps)
            return
        starts = [(group, start) for group in self.groups for start in range(0, group["data"].size, CHUNK)]
        (run or _in_order)(
            self._update_chunk, [(group, slice(start, start + CHUNK)) for group, start in starts]
        )

    def clip_grad_norm(self, max_norm):
        """As clip_grad_norm below, for all parameters, in as many operations as there are groups."""
        return _clip([group["grad"] for group in self.groups], max_norm)

    def _update_chunk(self, chunk):
        group, part = chunk
        p, g, m, v = (group[name][part] for name in ("data", "grad", "m", "v"))
        (beta1, beta2), lr = group["betas"], group["lr"]
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        v += (1 - beta2) * (g * g)
        denominator = array_module(v).sqrt(v)
        denominator *= 1 / math.sqrt(1 - beta2**self.steps)
        denominator += group["eps"]
        if group["weight_decay"]:
            p *= 1 - lr * group["weight_decay"]
        p -= (lr / (1 - beta1**self.steps)) * m / denominator


CHUNK = 32_768  # elements: four float32 arrays and two temporaries of this length fit a 1 MB cache


def _in_order(function, items):
    for item in items:
        function(item)


def clip_grad_norm(parameters, max_norm):
    """Scale all gradients down together if their joint Euclidean norm exceeds max_norm; return the norm
    before.

    The norm is a 0-d array and the comparison happens on its device: a GPU need not be waited for.
    """
    return _clip([parameter.grad for parameter in parameters if parameter.grad is not None], max_norm)


def _clip(grads, max_norm):
    norm = _norm(grads)
    factor = array_module(norm).minimum(max_norm / (norm + 1e-6), 1.0)
    for g in grads:
        g *= factor
    return norm


def _norm(arrays):
    """The joint Euclidean norm, a 0-d array."""
    if has_kernels(arrays[0]):
        from autograd.cuda.optim import norm

        return norm(arrays)
    xp = array_module(arrays[0])
    return xp.sqrt(sum(xp.vdot(x.ravel(), x.ravel()) for x in arrays))


def constant(lr):
    """A schedule, step -> learning rate, that does not change."""
    return lambda step: lr


def warmup_cosine(lr, warmup_steps, max_steps, min_lr):
    """A schedule: a linear rise over warmup_steps, then half a cosine wave from lr down to min_lr at
    max_steps.
    """

    def schedule(step):
        if step < warmup_steps:
            return lr * (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, max_steps - warmup_steps))
        return min_lr + 0.5 * (lr - min_lr) * (1 + math.cos(math.pi * progress))

    return schedule
