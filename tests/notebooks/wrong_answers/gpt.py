import math

import numpy as np

import autograd as ag
from tests.notebooks.wrong_answers import Catalogue
from workbook.gpt import attention, check, linear, norm, part
from workbook.gpt import block as right_block

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


@wrong("repeat what it has just read")
def batch(ids, starts, T):
    x = np.stack([ids[s : s + T] for s in starts])
    return x, x


@wrong("two places ahead")
def batch(ids, starts, T):
    return np.stack([ids[s : s + T] for s in starts]), np.stack([ids[s + 2 : s + T + 2] for s in starts])


@wrong("one too short")
def batch(ids, starts, T):
    windows = ids[starts[:, None] + np.arange(T)]
    return windows[:, :-1], windows[:, 1:]


@wrong("of those, the first T are inputs")
def batch(ids, starts, T):
    places = starts[:, None] + np.arange(T + 1)
    return ids[places], ids[places + 1]


@wrong("One target per row")
def batch(ids, starts, T):
    windows = ids[starts[:, None] + np.arange(T + 1)]
    return windows[:, :-1], windows[:, -1]


@wrong("np.roll")
def batch(ids, starts, T):
    x = ids[starts[:, None] + np.arange(T)]
    return x, np.roll(x, -1, axis=1)


@wrong("Return two arrays")
def batch(ids, starts, T):
    return ids[starts[:, None] + np.arange(T + 1)]


@right
def batch(ids, starts, T):
    return np.stack([ids[s : s + T] for s in starts]), np.stack([ids[s + 1 : s + 1 + T] for s in starts])


@wrong("both parts replace it")
def block(x, p, n_head):
    x = attention(norm(x, p, "ln_1"), p, n_head)
    return linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("MLP's result replaces x")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("as the first Transformer did")
def block(x, p, n_head):
    x = norm(x + attention(x, p, n_head), p, "ln_1")
    h = ag.gelu(linear(x, p, "mlp.c_fc"))
    return norm(x + linear(h, p, "mlp.c_proj"), p, "ln_2")


@wrong("You normalise x itself")
def block(x, p, n_head):
    x = norm(x, p, "ln_1")
    x = x + attention(x, p, n_head)
    x = norm(x, p, "ln_2")
    return x + linear(ag.gelu(linear(x, p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("from before attention")
def block(x, p, n_head):
    a = attention(norm(x, p, "ln_1"), p, n_head)
    m = linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")
    return x + a + m


@wrong("gelu is missing")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return x + linear(linear(norm(x, p, "ln_2"), p, "mlp.c_fc"), p, "mlp.c_proj")


@wrong("Both norms use ln_1")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return x + linear(ag.gelu(linear(norm(x, p, "ln_1"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("the number of heads")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, 1)
    return x + linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("The MLP is missing")
def block(x, p, n_head):
    x += attention(norm(x, p, "ln_1"), p, n_head)
    return x


@wrong("Attention is missing")
def block(x, p, n_head):
    return x + linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("in `h = linear(norm")
def block(x, p, n_head):
    h = linear(norm(x, p, "ln_2"), p, "mlp.fc")
    return x + linear(h, p, "mlp.c_proj")


@wrong("no tape behind it")
def block(x, p, n_head):
    return right_block(x, p, n_head).data


@right
def block(x, p, n_head):
    x = ag.add(attention(norm(x, p, "ln_1"), p, n_head), x)
    h = norm(x, p, "ln_2") @ p["mlp.c_fc.weight"] + p["mlp.c_fc.bias"]
    return ag.gelu(h) @ p["mlp.c_proj.weight"] + p["mlp.c_proj.bias"] + x


@wrong("Positions are missing")
def gpt(ids, p, n_layer, n_head):
    x = ag.embedding(p["wte.weight"], ids)
    for i in range(n_layer):
        x = right_block(x, part(p, f"h.{i}."), n_head)
    return norm(x, p, "ln_f") @ p["wte.weight"].T


def stack(x, p, n_layer, n_head, prefix="h.{}."):
    for i in range(n_layer):
        x = right_block(x, part(p, prefix.format(i)), n_head)
    return x


def embed(ids, p):
    return ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][: ids.shape[1]]


@wrong("weights of the first")
def gpt(ids, p, n_layer, n_head):
    return norm(stack(embed(ids, p), p, n_layer, n_head, "h.0."), p, "ln_f") @ p["wte.weight"].T


@wrong("ln_f, is missing")
def gpt(ids, p, n_layer, n_head):
    return stack(embed(ids, p), p, n_layer, n_head) @ p["wte.weight"].T


@wrong("twice is once too many")
def gpt(ids, p, n_layer, n_head):
    return ag.softmax(norm(stack(embed(ids, p), p, n_layer, n_head), p, "ln_f") @ p["wte.weight"].T)


@wrong("Every position predicts")
def gpt(ids, p, n_layer, n_head):
    return (norm(stack(embed(ids, p), p, n_layer, n_head), p, "ln_f") @ p["wte.weight"].T)[:, -1]


@wrong("turns C channels into V logits")
def gpt(ids, p, n_layer, n_head):
    return norm(stack(embed(ids, p), p, n_layer, n_head), p, "ln_f")


@wrong("stops with ValueError")
def gpt(ids, p, n_layer, n_head):
    return norm(stack(embed(ids, p), p, n_layer, n_head), p, "ln_f") @ p["wte.weight"]


@right
def gpt(ids, p, n_layer, n_head):
    x = p["wte.weight"][ids] + ag.embedding(p["wpe.weight"], np.arange(ids.shape[1]))
    return ag.matmul(norm(stack(x, p, n_layer, n_head), p, "ln_f"), ag.transpose(p["wte.weight"]))


@wrong("fifty times too large")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    return np.ones(shape) if "ln_" in name else rng.normal(size=shape)


@wrong("All zeros")
def initial(name, shape, n_layer, rng):
    return np.ones(shape) if "ln_" in name and name.endswith("weight") else np.zeros(shape)


@wrong("All are treated alike")
def initial(name, shape, n_layer, rng):
    return rng.normal(0, 0.02, shape)


@wrong("Only the c_proj matrices are not right")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    return np.ones(shape) if "ln_" in name else rng.normal(0, 0.02, shape)


@wrong("counts one contribution per block")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    if "ln_" in name:
        return np.ones(shape)
    return rng.normal(size=shape) * 0.02 / (n_layer**0.5 if "c_proj" in name else 1)


@wrong("the root is missing")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    if "ln_" in name:
        return np.ones(shape)
    return rng.normal(size=shape) * (0.02 / (2 * n_layer) if "c_proj" in name else 0.02)


@wrong("multiply everything by 0")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias") or "ln_" in name:
        return np.zeros(shape)
    return rng.normal(size=shape) * (0.02 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.02)


@wrong("as Xavier and Kaiming do")
def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    return np.ones(shape) if "ln_" in name else rng.normal(size=shape) / np.sqrt(shape[0])


@right
def initial(name, shape, n_layer, rng):
    match name.rpartition(".")[2], "ln_" in name, "c_proj" in name:
        case "weight", True, _:
            return np.full(shape, 1.0)
        case "weight", False, scaled:
            return rng.normal(0.0, 0.02 * (2 * n_layer) ** (-0.5 * scaled), shape)
        case _:
            return np.zeros(shape)


def rate(rise, fall):
    def learning_rate(step, peak, warmup, last, lowest):
        if step < warmup:
            return peak * rise(step, warmup)
        return fall((step - warmup) / (last - warmup), peak, lowest)

    return learning_rate


LINEAR = lambda step, warmup: (step + 1) / warmup
HALF_WAVE = lambda t, peak, lowest: lowest + (peak - lowest) * (1 + np.cos(np.pi * t)) / 2
SCHEDULES = {
    "Step 0 has the rate 0": rate(lambda step, warmup: step / warmup, HALF_WAVE),
    "There is no warm-up": rate(lambda step, warmup: 1.0, HALF_WAVE),
    "The cosine ends at 0": rate(LINEAR, lambda t, peak, lowest: peak * (1 + np.cos(np.pi * t)) / 2),
    "lowest is added on top": rate(
        LINEAR, lambda t, peak, lowest: lowest + peak * (1 + np.cos(np.pi * t)) / 2
    ),
    "that is a whole wave": rate(LINEAR, lambda t, p, low: low + (p - low) * (1 + np.cos(2 * np.pi * t)) / 2),
    "ends below zero": rate(LINEAR, lambda t, p, low: low + (p - low) * np.cos(np.pi * t)),
    "The factor ½ is missing": rate(LINEAR, lambda t, p, low: low + (p - low) * (1 + np.cos(np.pi * t))),
    "along a straight line": rate(LINEAR, lambda t, p, low: p + (low - p) * t),
    "It rises where it should fall": rate(
        LINEAR, lambda t, p, low: low + (p - low) * (1 - np.cos(np.pi * t)) / 2
    ),
    "π is missing": rate(LINEAR, lambda t, p, low: low + (p - low) * (1 + np.cos(t)) / 2),
}
for words, function in SCHEDULES.items():
    wrong(words)(function)


@wrong("2 things at once")
def learning_rate(step, peak, warmup, last, lowest):
    if step < warmup:
        return peak * step / warmup
    return lowest + (peak - lowest) * 0.5 * (1 + np.cos(np.pi * (step - warmup) / last))


@wrong("counts from step 0")
def learning_rate(step, peak, warmup, last, lowest):
    if step < warmup:
        return peak * (step + 1) / warmup
    return lowest + (peak - lowest) * (1 + np.cos(np.pi * step / last)) / 2


@right
def learning_rate(step, peak, warmup, last, lowest):
    if step + 1 <= warmup:
        return (step + 1) * peak / warmup
    return lowest + (peak - lowest) * math.cos(math.pi / 2 * (step - warmup) / (last - warmup)) ** 2


def drawn(p, u):
    return int(np.searchsorted(np.cumsum(p), u, side="right"))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def cut(x, k):
    return np.where(x < np.sort(x)[-k], -np.inf, x)


@wrong("most likely character")
def choose(logits, temperature, top_k, u):
    return np.argmax(softmax(cut(logits / temperature, top_k)))


@wrong("The temperature multiplies")
def choose(logits, temperature, top_k, u):
    return drawn(softmax(cut(logits * temperature, top_k)), u)


@wrong("The temperature has no effect")
def choose(logits, temperature, top_k, u):
    p = softmax(cut(logits, top_k)) / temperature
    return drawn(p / p.sum(), u)


@wrong("top_k is ignored")
def choose(logits, temperature, top_k, u):
    return drawn(softmax(logits / temperature), u)


@wrong("keeps the least likely")
def choose(logits, temperature, top_k, u):
    logits = logits / temperature
    logits[logits > np.sort(logits)[top_k - 1]] = -np.inf
    return drawn(softmax(logits), u)


@wrong("no longer add up to 1")
def choose(logits, temperature, top_k, u):
    p = softmax(logits / temperature)
    p[p < np.sort(p)[-top_k]] = 0
    return drawn(p, u)


@wrong("A logit of 0 does not make")
def choose(logits, temperature, top_k, u):
    logits = logits / temperature
    logits[logits < np.sort(logits)[-top_k]] = 0
    return drawn(softmax(logits), u)


@wrong("the k-th largest itself must stay")
def choose(logits, temperature, top_k, u):
    logits = logits / temperature
    if top_k > 1:
        logits[logits <= np.sort(logits)[-top_k]] = -np.inf
    return drawn(softmax(logits), u)


@wrong("exp(900) is infinite")
def choose(logits, temperature, top_k, u):
    e = np.exp(cut(logits / temperature, top_k))
    return drawn(e / e.sum(), u)


@wrong("2 things at once")
def choose(logits, temperature, top_k, u):
    p = np.exp(logits / temperature)
    return int(np.searchsorted(np.cumsum(p / p.sum()), u))


@wrong("Return one id")
def choose(logits, temperature, top_k, u):
    return softmax(cut(logits / temperature, top_k))


@right
def choose(logits, temperature, top_k, u):
    best = np.sort(np.argsort(-logits, kind="stable")[:top_k])
    return best[drawn(softmax(logits[best] / temperature), u)]
