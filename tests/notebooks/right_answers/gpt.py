import math

import numpy as np

import autograd as ag
from tests.notebooks.wrong_answers import Catalogue
from workbook.gpt import attention, check, linear, norm, part
from workbook.gpt import block as right_block

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones


@right
def batch(ids, starts, T):
    return np.stack([ids[s : s + T] for s in starts]), np.stack([ids[s + 1 : s + 1 + T] for s in starts])


@right
def batch(ids, starts, T):
    places = starts[:, None] + np.arange(T)
    return [ids[places], ids[places + 1]]


@right
def batch(ids, starts, T):
    windows = np.lib.stride_tricks.sliding_window_view(ids, T + 1)[starts]
    return windows[:, :T], windows[:, -T:]


@right
def batch(ids, starts, T):
    x = np.empty((len(starts), T), dtype=np.int64)
    y = np.empty_like(x)
    for row, start in enumerate(starts):
        for t in range(T):
            x[row, t], y[row, t] = ids[start + t], ids[start + t + 1]
    return x, y


@right
def block(x, p, n_head):
    x = ag.add(attention(norm(x, p, "ln_1"), p, n_head), x)
    h = norm(x, p, "ln_2") @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"]
    return ag.gelu(h) @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"] + x


@right
def block(x, p, n_head):
    """In place, but on a result of its own."""
    after = attention(norm(x, p, "ln_1"), p, n_head) + x
    h = ag.gelu(linear(norm(after, p, "ln_2"), p, "mlp.c_fc"))
    after += linear(h, p, "mlp.c_proj")
    return after


@right
def block(x, p, n_head):
    def mlp(h):
        return linear(ag.gelu(linear(h, p, "mlp.c_fc")), p, "mlp.c_proj")

    for name, branch in (("ln_1", lambda h: attention(h, p, n_head)), ("ln_2", mlp)):
        x = x + branch(norm(x, p, name))
    return x


@right
def gpt(ids, p, n_layer, n_head):
    x = p["wte.weight"][ids] + ag.embedding(p["wpe.weight"], np.arange(ids.shape[1]))
    for i in range(n_layer):
        x = right_block(x, part(p, f"h.{i}."), n_head)
    return ag.matmul(norm(x, p, "ln_f"), ag.transpose(p["wte.weight"]))


@right
def gpt(ids, p, n_layer, n_head):
    """The parameters of a block picked by hand."""
    B, T = ids.shape
    x = ag.embedding(p["wte.weight"], ids)
    x += p["wpe.weight"][:T]
    for i in range(n_layer):
        start = f"h.{i}."
        own = {name[len(start) :]: value for name, value in p.items() if name[: len(start)] == start}
        x = right_block(x, own, n_head)
    flat = norm(x, p, "ln_f").reshape(B * T, -1) @ p["wte.weight"].T
    return flat.reshape(B, T, -1)


@right
def gpt(ids, p, n_layer, n_head):
    """One-hot rows in place of the lookup, and every block by recursion."""
    onehot = np.eye(p["wte.weight"].shape[0])[ids]

    def after(i):
        if i < 0:
            return ag.Tensor(onehot) @ p["wte.weight"] + p["wpe.weight"][0 : ids.shape[1]]
        return right_block(after(i - 1), part(p, f"h.{i}."), n_head)

    return norm(after(n_layer - 1), p, "ln_f") @ p["wte.weight"].swapaxes(0, 1)


@right
def initial(name, shape, n_layer, rng):
    match name.rpartition(".")[2], "ln_" in name, "c_proj" in name:
        case "weight", True, _:
            return np.full(shape, 1.0)
        case "weight", False, scaled:
            return rng.normal(0.0, 0.02 * (2 * n_layer) ** (-0.5 * scaled), shape)
        case _:
            return np.zeros(shape)


@right
def initial(name, shape, n_layer, rng):
    """By the number of axes."""
    if len(shape) == 1:
        return np.ones(shape) if name.endswith("weight") else np.zeros(shape)
    values = rng.standard_normal(shape) * 0.02
    if "c_proj" in name:
        values /= (2 * n_layer) ** 0.5
    return values


@right
def initial(name, shape, n_layer, rng):
    """Draws in any case, and throws it away where it is not needed."""
    std = {True: 0.02 / np.sqrt(n_layer) / np.sqrt(2), False: 0.02}[name.endswith("c_proj.weight")]
    values = rng.normal(scale=std, size=shape)
    if name.split(".")[-1] == "bias":
        return 0.0 * values
    values = values.astype(np.float32)
    return values**0 if ".ln_" in name or name.startswith("ln_") else values


@right
def learning_rate(step, peak, warmup, last, lowest):
    if step + 1 <= warmup:
        return (step + 1) * peak / warmup
    return lowest + (peak - lowest) * math.cos(math.pi / 2 * (step - warmup) / (last - warmup)) ** 2


@right
def learning_rate(step, peak, warmup, last, lowest):
    part = 0.5 + 0.5 * np.cos(np.pi * (step - warmup) / (last - warmup))
    return np.where(step < warmup, peak * (step + 1) / warmup, part * peak + (1 - part) * lowest)


@right
def learning_rate(step, peak, warmup, last, lowest):
    if step >= warmup:
        angle = np.interp(step, [warmup, last], [0, np.pi])
        return np.float64((peak + lowest) / 2 + (peak - lowest) / 2 * np.cos(angle))
    return np.linspace(peak / warmup, peak, warmup)[step]


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


@right
def choose(logits, temperature, top_k, u):
    best = np.sort(np.argsort(-logits, kind="stable")[:top_k])
    return best[int(np.searchsorted(np.cumsum(softmax(logits[best] / temperature)), u, side="right"))]


@right
def choose(logits, temperature, top_k, u):
    """Walks along the line, and keeps the best by argpartition."""
    kept = np.full(logits.shape, -np.inf)
    best = np.argpartition(logits, -top_k)[-top_k:]
    kept[best] = logits[best] / temperature
    total = 0.0
    for i, p in enumerate(softmax(kept)):
        total += p
        if u < total:
            return i
    return int(np.argmax(logits))


@right
def choose(logits, temperature, top_k, u):
    """Cuts after the softmax, and divides by the new sum."""
    p = softmax(logits / temperature)
    p[p < np.partition(p, -top_k)[-top_k]] = 0.0
    p /= p.sum()
    return np.argmax(np.cumsum(p) > u)
