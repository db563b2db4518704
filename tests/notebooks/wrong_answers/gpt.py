import math

import numpy as np

import autograd as ag
from tests.notebooks.wrong_answers import Catalogue
from workbook.gpt import attention, check, linear, norm, part
from workbook.gpt import block as right_block

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


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
    return x + attention(norm(x, p, "ln_1"), p, n_head)


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


def windows(ids, starts, T):
    return np.stack([ids[s : s + T] for s in starts]), np.stack([ids[s + 1 : s + 1 + T] for s in starts])


wrong_ones(
    "batch",
    {
        "the targets where the inputs should be": lambda ids, starts, T: windows(ids, starts, T)[::-1],
        "These are places in the text": lambda ids, starts, T: windows(np.arange(len(ids)), starts, T),
        "should hold integers": lambda ids, starts, T: tuple(a + 0.0 for a in windows(ids, starts, T)),
        "It is transposed": lambda ids, starts, T: tuple(a.T for a in windows(ids, starts, T)),
        "the targets have the shape (3, 3)": lambda ids, starts, T: (
            windows(ids, starts, T)[0], windows(ids, starts, T)[1][:, :-1]
        ),
        "All rows hold the same window": lambda ids, starts, T: windows(ids, starts * 0 + starts[0], T),
    },
)  # fmt: skip


@wrong("the gradient of mlp.c_fc.weight is not")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    h = norm(x, p, "ln_2") @ p["mlp.c_fc.weight"].data + p["mlp.c_fc.bias"]
    return x + linear(ag.gelu(h), p, "mlp.c_proj")


@wrong("write y = x + 1 instead of x += 1")
def block(x, p, n_head):
    x += attention(norm(x, p, "ln_1"), p, n_head)
    return x + linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("That is the exact gelu")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return x + linear(ag.gelu_exact(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("Both norms use ln_2")
def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_2"), p, n_head)
    return x + linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")


@wrong("the embedding does not hear from the head")
def gpt(ids, p, n_layer, n_head):
    return norm(stack(embed(ids, p), p, n_layer, n_head), p, "ln_f") @ p["wte.weight"].data.T


@wrong("the gradient of wpe.weight is not")
def gpt(ids, p, n_layer, n_head):
    x = ag.embedding(p["wte.weight"], ids) + p["wpe.weight"].data[: ids.shape[1]]
    return norm(stack(x, p, n_layer, n_head), p, "ln_f") @ p["wte.weight"].T


@wrong("counted from the end")
def gpt(ids, p, n_layer, n_head):
    x = ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][-ids.shape[1] :]
    return norm(stack(x, p, n_layer, n_head), p, "ln_f") @ p["wte.weight"].T


def first_weights(matrix=None, bias=np.zeros, ln=np.ones, proj_bias=np.zeros):
    def initial(name, shape, n_layer, rng):
        if name.endswith("c_proj.bias"):
            return proj_bias(shape)
        if name.endswith("bias"):
            return bias(shape)
        if "ln_" in name:
            return ln(shape)
        std = 0.02 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.02
        return matrix(shape, std, rng) if matrix else rng.normal(0, std, shape)

    return initial


wrong_ones(
    "initial",
    {
        "numbers are not those that rng gives": first_weights(
            lambda shape, std, rng: np.random.default_rng(1).normal(0, std, shape)
        ),
        "The norms' biases start at 0": lambda name, shape, n_layer, rng: (
            np.ones(shape) if "ln_" in name else first_weights()(name, shape, n_layer, rng)
        ),
        "c_proj.bias is a bias, too": lambda name, shape, n_layer, rng: (
            0.02 / math.sqrt(2 * n_layer) * rng.normal(size=shape)
            if "c_proj" in name
            else first_weights()(name, shape, n_layer, rng)
        ),
        "ln_f is a norm, too": lambda name, *more: first_weights()(
            "wte.weight" if name == "ln_f.weight" else name, *more
        ),
        "is 2 times what it should be": first_weights(lambda shape, std, rng: rng.normal(0, 2 * std, shape)),
    },
)


@wrong("for other u")
def choose(logits, temperature, top_k, u):
    best = np.argsort(logits)[-top_k:]
    return int(best[drawn(softmax(logits[best] / temperature), u)])


wrong_ones(
    "choose",
    {
        "With the same u it gives another id": lambda logits, temperature, top_k, u: int(
            np.random.choice(len(logits), p=softmax(cut(logits / temperature, top_k)))
        ),
        "place among the sorted logits (smallest": lambda logits, temperature, top_k, u: drawn(
            softmax(np.sort(logits / temperature)[-top_k:]), u
        ),
        "cumsum is missing": lambda logits, temperature, top_k, u: int(
            np.searchsorted(softmax(cut(logits / temperature, top_k)), u, side="right")
        ),
        "equally likely": lambda logits, temperature, top_k, u: int(u * len(logits)),
        "an integer from 0 to V - 1": lambda logits, temperature, top_k, u: float(
            drawn(softmax(cut(logits / temperature, top_k)), u)
        ),
    },
)


@wrong("changes its input logits in place")
def choose(logits, temperature, top_k, u):
    logits /= temperature
    return drawn(softmax(cut(logits, top_k)), u)


wrong_ones(
    "learning_rate",
    {
        "At step `warmup` it still rises": lambda step, peak, warmup, last, lowest: (
            peak * (step + 1) / warmup
            if step <= warmup
            else HALF_WAVE((step - warmup) / (last - warmup), peak, lowest)
        ),
        "`//` cuts off": rate(lambda step, warmup: (step + 1) // warmup, HALF_WAVE),
        "Compare the cases": rate(
            LINEAR, lambda t, peak, lowest: lowest + (peak - lowest) * ((1 + np.cos(np.pi * t)) / 2) ** 2
        ),
        "below `lowest`": lambda *case: max(case[-1], rate(LINEAR, HALF_WAVE)(*case)),
    },
)
