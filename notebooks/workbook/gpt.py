"""Notebook 7: build and train the GPT."""

import math
import os
import shutil
from pathlib import Path

import numpy as np

import autograd as ag
from autograd.backend import keep_freed_memory
from tinygpt.config import ARCHITECTURES, GPTConfig
from tinygpt.generate import probabilities
from tinygpt.model import GPT
from tinygpt.run import checkpoint
from tinygpt.text.tokenizer import CharTokenizer
from workbook.checking import Checks, Exercise, Wrong, named_results, random_arrays, with_pairs
from workbook.pictures import BLUE, GOLD, GREEN, GREY, RED, Picture, panels, show, with_values
from workbook.softmax import softmax

check = Checks()
normal = random_arrays(7)


# --- batch ----------------------------------------------------------------------------------------


def batch(ids, starts, T):
    windows = ids[starts[:, None] + np.arange(T + 1)]  # (B, T + 1)
    return windows[:, :-1], windows[:, 1:]


def _windows(shift, length=lambda T: T):
    """Targets that lie `shift` places after the inputs."""

    def wrong(ids, starts, T):
        places = starts[:, None] + np.arange(length(T))
        return ids[places], ids[places + shift]

    return wrong


IDS = np.random.default_rng(7).permutation(40)

check.add(
    "batch",
    Exercise(
        batch,
        [(IDS, np.array([0, 7, 3]), 4), (IDS, np.array([30, 1]), 9)],
        {
            "The targets are the inputs: the model would only learn to repeat what it has just read. "
            "(You would notice: its loss falls to almost 0.) Each target is the *next* id.": _windows(0),
            "The targets lie one place *before* the inputs: "
            "the model would learn to say what came before.": _windows(-1),
            "The targets lie two places ahead. It should be one.": _windows(2),
            "The windows are one too short: T inputs and T targets need T + 1 ids in a row.": _windows(
                1, lambda T: T - 1
            ),
            "Inputs and targets must have T ids each. Cut out T + 1: "
            "of those, the first T are inputs, the last T targets.": (_windows(1, lambda T: T + 1)),
            "One target per row wastes a window: "
            "each of its T places has a next character. It holds T lessons.": (
                lambda ids, starts, T: (ids[starts[:, None] + np.arange(T)], ids[starts + T])
            ),
            "np.roll moves the first input of each row to the end, as its last target. "
            "Take the id that really follows.": lambda ids, starts, T: (
                ids[starts[:, None] + np.arange(T)],
                np.roll(ids[starts[:, None] + np.arange(T)], -1, axis=1),
            ),
        },
        named_results(
            "the inputs", "the targets", otherwise="Return two arrays: the inputs and the targets."
        ),
    ),
)


# --- block ----------------------------------------------------------------------------------------


def norm(x, p, name):
    return ag.layer_norm(x, p[f"{name}.weight"], p[f"{name}.bias"])


def linear(x, p, name):
    return ag.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def attention(x, p, n_head):
    qkv = linear(x, p, "attn.c_attn")  # (B, T, C) -> (B, T, 3C)
    return linear(ag.causal_attention(qkv, n_head), p, "attn.c_proj")  # (B, T, C)


def mlp(x, p):
    return linear(ag.gelu(linear(x, p, "mlp.c_fc")), p, "mlp.c_proj")  # (B, T, C) -> (B, T, 4C) -> (B, T, C)


def block(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return x + mlp(norm(x, p, "ln_2"), p)


def _post_norm(x, p, n_head):
    x = norm(x + attention(x, p, n_head), p, "ln_1")
    return norm(x + mlp(x, p), p, "ln_2")


def _no_residual(x, p, n_head):
    return mlp(norm(attention(norm(x, p, "ln_1"), p, n_head), p, "ln_2"), p)


def _normed_stream(x, p, n_head):
    x = norm(x, p, "ln_1")
    x = x + attention(x, p, n_head)
    x = norm(x, p, "ln_2")
    return x + mlp(x, p)


def _half_residual(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return mlp(norm(x, p, "ln_2"), p)


def _other_half(x, p, n_head):
    x = attention(norm(x, p, "ln_1"), p, n_head)
    return x + mlp(norm(x, p, "ln_2"), p)


def _mlp_from_start(x, p, n_head):
    return x + attention(norm(x, p, "ln_1"), p, n_head) + mlp(norm(x, p, "ln_2"), p)


def _without_norms(x, p, n_head):
    x = x + attention(x, p, n_head)
    return x + mlp(x, p)


def _one_norm(x, p, n_head):
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    return x + mlp(norm(x, p, "ln_1"), p)


def _mlp_first(x, p, n_head):
    x = x + mlp(norm(x, p, "ln_2"), p)
    return x + attention(norm(x, p, "ln_1"), p, n_head)


def _mlp_is(pieces):
    def wrong(x, p, n_head):
        x = x + attention(norm(x, p, "ln_1"), p, n_head)
        return x + pieces(norm(x, p, "ln_2"), p)

    return wrong


def _attention_is(pieces):
    def wrong(x, p, n_head):
        x = x + pieces(norm(x, p, "ln_1"), p, n_head)
        return x + mlp(norm(x, p, "ln_2"), p)

    return wrong


def _block_parameters(C):
    return {name: normal(*shape) for name, shape in block_shapes(C).items()}


def _on_tensors(function, *arguments):
    """The result of a function of Tensors, and the gradient of x, its first argument."""
    x, *others = map(_as_tensors, arguments)
    out = function(x, *others)
    if out is None:
        return {"the result": None}
    if not isinstance(out, ag.Tensor) or not out.requires_grad:
        raise Wrong(
            "The result has no tape behind it. "
            "Use the operations of `ag` (or + and @) on the Tensors themselves."
        )
    results = {"the result": out.data}
    if out.ndim == 3:
        out.backward(np.random.default_rng(0).normal(size=out.shape))
        if isinstance(x, ag.Tensor):
            results["the gradient of x"] = np.zeros(out.shape) if x.grad is None else x.grad
    return results


def _as_tensors(value):
    """Arrays of floats, also those in a dictionary, as Tensors; anything else as it is."""
    if isinstance(value, dict):
        return {name: _as_tensors(item) for name, item in value.items()}
    is_float = isinstance(value, np.ndarray) and value.dtype.kind == "f"
    return ag.Tensor(value, requires_grad=True) if is_float else value


def block_shapes(C):
    """The shapes of a block's parameters by name, as GPT-2 names them."""
    return {
        "ln_1.weight": (C,), "ln_1.bias": (C,),
        "attn.c_attn.weight": (C, 3 * C), "attn.c_attn.bias": (3 * C,),
        "attn.c_proj.weight": (C, C), "attn.c_proj.bias": (C,),
        "ln_2.weight": (C,), "ln_2.bias": (C,),
        "mlp.c_fc.weight": (C, 4 * C), "mlp.c_fc.bias": (4 * C,),
        "mlp.c_proj.weight": (4 * C, C), "mlp.c_proj.bias": (C,),
    }  # fmt: skip


PRE_NORM = "Norms belong on the way *into* attention and MLP, and only there: `x + attention(norm(x))`. "

check.add(
    "block",
    Exercise(
        block,
        [(normal(2, 3, 4), _block_parameters(4), 2), (normal(1, 5, 6), _block_parameters(6), 3)],
        {
            "Nothing is added to x: both parts replace it. "
            "Without the residual stream the gradient of the first layers must pass through all the others. "
            "`x = x + ...`": _no_residual,
            "The MLP's result replaces x instead of being added to it: `x + mlp(...)`.": _half_residual,
            "Attention's result replaces x instead of being added to it: "
            "`x = x + attention(...)`.": _other_half,
            "You normalise after adding, as the first Transformer did in 2017. "
            + PRE_NORM
            + "Then x itself passes untouched from the first block to the last.": _post_norm,
            "You normalise x itself, so the residual stream is no longer the sum of what was added. "
            + PRE_NORM: _normed_stream,
            "The MLP reads x from before attention. "
            "First add attention's result to x, then let the MLP read that.": (_mlp_from_start),
            "The layer norms are missing: "
            "attention and MLP read `norm(x, p, 'ln_1')` and `norm(x, p, 'ln_2')`.": _without_norms,
            "Both norms use ln_1. The second is 'ln_2'.": _one_norm,
            "MLP and attention are in the wrong order: "
            "first look around (attention), then think about it (MLP).": _mlp_first,
            "gelu is missing: two linear layers in a row are only one linear layer.": _mlp_is(
                lambda x, p: linear(linear(x, p, "mlp.c_fc"), p, "mlp.c_proj")
            ),
            "gelu stands at the end of the MLP. "
            "It belongs between the two layers, where there are 4C channels.": _mlp_is(
                lambda x, p: ag.gelu(linear(linear(x, p, "mlp.c_fc"), p, "mlp.c_proj"))
            ),
            "That is relu. GPT-2 has gelu, which is smooth.": _mlp_is(
                lambda x, p: linear(ag.relu(linear(x, p, "mlp.c_fc")), p, "mlp.c_proj")
            ),
            "All channels in one head: give `causal_attention` the number of heads, n_head.": _attention_is(
                lambda x, p, n_head: attention(x, p, 1)
            ),
            "The MLP is missing: `norm` ln_2, then `mlp.c_fc`, `gelu` and `mlp.c_proj`. "
            "Add the result to x.": lambda x, p, n_head: x + attention(norm(x, p, "ln_1"), p, n_head),
            "Attention is missing: no position knows anything of the others yet.": lambda x, p, n_head: (
                x + mlp(norm(x, p, "ln_2"), p)
            ),
            "attn.c_proj is missing. The heads lie side by side; it mixes what they found.": _attention_is(
                lambda x, p, n_head: ag.causal_attention(linear(x, p, "attn.c_attn"), n_head)
            ),
        },
        _on_tensors,
    ),
)


# --- gpt ------------------------------------------------------------------------------------------


def part(p, prefix):
    """Those entries of a dictionary whose name begins with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def gpt(ids, p, n_layer, n_head):
    x = ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][: ids.shape[1]]  # (B, T, C) + (T, C)
    for i in range(n_layer):
        x = block(x, part(p, f"h.{i}."), n_head)
    return norm(x, p, "ln_f") @ p["wte.weight"].T  # (B, T, C) @ (C, V)


def _gpt(embed=None, which=lambda i: i, finish=None):
    """The GPT with another embedding, another block in place of the i-th, or another end."""

    def wrong(ids, p, n_layer, n_head):
        x = embed(ids, p) if embed else ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][: ids.shape[1]]
        for i in range(n_layer):
            if which(i) is not None:
                x = block(x, part(p, f"h.{which(i)}."), n_head)
        return finish(x, p) if finish else norm(x, p, "ln_f") @ p["wte.weight"].T

    return wrong


def gpt_shapes(V, T, C, n_layer):
    """The shapes of all parameters by name."""
    shapes = {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(n_layer):
        shapes |= {f"h.{i}.{name}": shape for name, shape in block_shapes(C).items()}
    return shapes | {"ln_f.weight": (C,), "ln_f.bias": (C,)}


def _gpt_case(V, T, C, n_layer, n_head, ids):
    parameters = {name: normal(*shape) for name, shape in gpt_shapes(V, T, C, n_layer).items()}
    return np.array(ids), parameters, n_layer, n_head


check.add(
    "gpt",
    Exercise(
        gpt,
        [
            _gpt_case(5, 4, 4, 2, 2, [[1, 4, 0], [2, 2, 3]]),
            _gpt_case(7, 6, 6, 3, 3, [[6, 0, 5, 5, 1, 2]]),
        ],
        {
            "Positions are missing. "
            "Without them, attention cannot tell 'dog bites man' from 'man bites dog': "
            "add `wpe.weight[:T]`.": _gpt(lambda ids, p: ag.embedding(p["wte.weight"], ids)),
            "You look up positions by the characters' ids. "
            "Row t of wpe belongs to the t-th place: `wpe.weight[:T]`.": _gpt(
                lambda ids, p: (
                    ag.embedding(p["wte.weight"], ids)
                    + ag.embedding(p["wpe.weight"], ids % len(p["wpe.weight"]))
                )
            ),
            "All blocks use the weights of the first: `part(p, f'h.{i}.')`.": _gpt(which=lambda i: 0),
            "There is only one block. Go through all n_layer of them.": _gpt(
                which=lambda i: i if i == 0 else None
            ),
            "The first block is left out: count from 0.": _gpt(which=lambda i: i if i > 0 else None),
            "The blocks are missing.": _gpt(which=lambda i: None),
            "The last norm, ln_f, is missing: the stream grows with every block, "
            "and the logits with it.": _gpt(finish=lambda x, p: x @ p["wte.weight"].T),
            "Return the logits without a softmax. "
            "cross_entropy applies the softmax itself, and twice is once too many.": _gpt(
                finish=lambda x, p: ag.softmax(norm(x, p, "ln_f") @ p["wte.weight"].T)
            ),
            "These are the logits of the last position only. Every position predicts its next character: "
            "return all T.": _gpt(finish=lambda x, p: (norm(x, p, "ln_f") @ p["wte.weight"].T)[:, -1]),
            "The head is missing: `@ wte.weight.T` turns C channels into V logits.": _gpt(
                finish=lambda x, p: norm(x, p, "ln_f")
            ),
        },
        _on_tensors,
    ),
)


# --- initial --------------------------------------------------------------------------------------


def initial(name, shape, n_layer, rng):
    if name.endswith("bias"):
        return np.zeros(shape)
    if "ln_" in name:
        return np.ones(shape)
    std = 0.02 / math.sqrt(2 * n_layer) if name.endswith("c_proj.weight") else 0.02
    return std * rng.normal(size=shape)


def _std(shape, n_layer, residual):
    return 0.02 / math.sqrt(2 * n_layer) if residual else 0.02


def _initial(std=_std, bias=0.0, ln=1.0):
    """Initial values with another spread, other biases or other norm weights."""

    def wrong(name, shape, n_layer, rng):
        if name.endswith("bias"):
            return np.full(shape, bias)
        if "ln_" in name:
            return ln(shape, rng) if callable(ln) else np.full(shape, ln)
        return std(shape, n_layer, name.endswith("c_proj.weight")) * rng.normal(size=shape)

    return wrong


check.add(
    "initial",
    Exercise(
        initial,
        [
            ("wte.weight", (65, 8), 3, np.random.default_rng(0)),
            ("h.0.attn.c_attn.weight", (8, 24), 3, np.random.default_rng(1)),
            ("h.2.attn.c_proj.weight", (8, 8), 3, np.random.default_rng(2)),
            ("h.1.mlp.c_proj.weight", (32, 8), 8, np.random.default_rng(3)),
            ("h.0.mlp.c_fc.bias", (32,), 3, np.random.default_rng(4)),
            ("h.1.ln_2.weight", (8,), 3, np.random.default_rng(5)),
            ("ln_f.bias", (8,), 3, np.random.default_rng(6)),
        ],
        {
            "Standard deviation 1: fifty times too large. The logits start far apart, "
            "and the loss starts far above ln V.": _initial(lambda shape, n_layer, residual: 1.0),
            "All zeros: then all channels do the same, get the same gradient, and stay the same for ever. "
            "The entries of a matrix must start different from each other.": _initial(lambda *_: 0.0),
            "All are treated alike. There are four kinds: "
            "biases (0), norm weights (1), c_proj matrices (smaller), "
            "and other matrices (0.02).": lambda name, shape, n_layer, rng: 0.02 * rng.normal(size=shape),
            "Only the c_proj matrices are not right yet. "
            "They write into the residual stream, 2 per block: divide their 0.02 by √(2·n_layer), "
            "so that the sum of all does not grow with the depth.": _initial(lambda *_: 0.02),
            "c_proj: √n_layer counts one contribution per block to the residual stream. "
            "There are two, attention's and the MLP's: "
            "√(2·n_layer).": _initial(lambda shape, n_layer, r: 0.02 / (math.sqrt(n_layer) if r else 1)),
            "c_proj: the root is missing. Variances add up, not standard deviations: √(2·n_layer).": _initial(
                lambda shape, n_layer, r: 0.02 / (2 * n_layer if r else 1)
            ),
            "You scale every matrix down with the depth. "
            "Only c_proj writes into the residual stream.": _initial(
                lambda shape, n_layer, r: 0.02 / math.sqrt(2 * n_layer)
            ),
            "The norms' weights start at 0, so they multiply everything by 0, and nothing arrives. "
            "Start with 1.": _initial(ln=0.0),
            "The norms' weights are random. They multiply values that have a standard deviation of 1: "
            "start with 1.": _initial(ln=lambda shape, rng: 0.02 * rng.normal(size=shape)),
            "Biases start at 0.": _initial(bias=1.0),
            "You divide by √(inputs), as Xavier and Kaiming do. "
            "That is a good choice too. But GPT-2 takes 0.02 for all, "
            "and the layer norms do the rest.": _initial(lambda shape, n_layer, r: 1 / math.sqrt(shape[0])),
            "0.02 is the standard deviation, not the variance: multiply by it, not by its root.": _initial(
                lambda shape, n_layer, r: math.sqrt(0.02 / (math.sqrt(2 * n_layer) if r else 1))
            ),
        },
    ),
)


# --- learning_rate --------------------------------------------------------------------------------


def learning_rate(step, peak, warmup, last, lowest):
    return ag.warmup_cosine(peak, warmup, last, lowest)(step)


def _rate(
    rise=lambda step, warmup: (step + 1) / warmup,
    fall=lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    progress=lambda step, warmup, last: (step - warmup) / (last - warmup),
    between=lambda lowest, peak, part: lowest + (peak - lowest) * part,
):
    """A schedule with another rise, another progress (0 to 1), another fall, or other limits."""

    def wrong(step, peak, warmup, last, lowest):
        if step < warmup:
            return peak * rise(step, warmup)
        return between(lowest, peak, fall(progress(step, warmup, last)))

    return wrong


check.add(
    "learning_rate",
    Exercise(
        learning_rate,
        [(step, 3e-3, 10, 200, 3e-4) for step in (57, 0, 3, 9, 10, 150, 200)]
        + [(1, 1.0, 4, 50, 0.1), (20, 1.0, 4, 50, 0.1)],
        with_pairs(
            _rate,
            {
                "Step 0 has the rate 0: it computes a gradient and throws it away. "
                "Rise with (step + 1) / warmup.": {"rise": lambda step, warmup: step / warmup},
                "There is no warm-up: the first steps have the full rate, when Adam knows least.": {
                    "rise": lambda step, warmup: 1.0
                },
                "The cosine ends at 0. It should end at `lowest`.": {
                    "between": lambda lowest, peak, part: peak * part
                },
                "lowest is added on top, so the fall begins above the peak. "
                "Only what is above lowest falls: `lowest + (peak - lowest) * ...`.": {
                    "between": lambda lowest, peak, part: lowest + peak * part
                },
                "The cosine counts from step 0, so the rate jumps where the warm-up ends. "
                "Progress is (step - warmup) / (last - warmup).": {
                    "progress": lambda step, warmup, last: step / last
                },
                "The rate has only last - warmup steps to fall, so divide by that. "
                "With `/ last` it never arrives.": {
                    "progress": lambda step, warmup, last: (step - warmup) / last
                },
                "In the first half the rate falls, in the second it rises again: that is a whole wave. "
                "Go from 0 to π, not to 2π.": {"fall": lambda t: 0.5 * (1 + math.cos(2 * math.pi * t))},
                "A cosine runs from 1 to -1, so your rate ends below zero. (1 + cos) / 2 runs from 1 to 0.": {
                    "fall": lambda t: math.cos(math.pi * t)
                },
                "The factor ½ is missing: 1 + cos runs from 2 to 0.": {
                    "fall": lambda t: 1 + math.cos(math.pi * t)
                },
                "It falls along a straight line. "
                "That works in practice, but here the exercise is half a cosine.": {"fall": lambda t: 1 - t},
                "It rises where it should fall: 1 + cos, not 1 - cos.": {
                    "fall": lambda t: 0.5 * (1 - math.cos(math.pi * t))
                },
                "π is missing: the cosine must run from 0 to π.": {"fall": lambda t: 0.5 * (1 + math.cos(t))},
            },
        ),
    ),
)


# --- choose ---------------------------------------------------------------------------------------


def choose(logits, temperature, top_k, u):
    return int(np.searchsorted(np.cumsum(probabilities(logits, temperature, top_k)), u, side="right"))


def _draw(p, u):
    return int(np.searchsorted(np.cumsum(p), u, side="right"))


def _cut(x, k):
    return np.where(x < np.sort(x)[-k], -np.inf, x)


def _choose(divide=lambda x, temperature: x / temperature, cut=_cut, soften=softmax):
    """`choose` with another use of the temperature or of top_k, or with another softmax."""

    def wrong(logits, temperature, top_k, u):
        return _draw(soften(cut(divide(logits, temperature), top_k)), u)

    return wrong


def _cut_late(logits, temperature, top_k, u):
    p = softmax(logits / temperature)
    return _draw(np.where(p < np.sort(p)[-top_k], 0.0, p), u)


def _ids(function, logits, temperature, top_k, us):
    chosen = [function(logits.copy(), temperature, top_k, float(u)) for u in us]
    if any(i is None for i in chosen):
        return {"the chosen id": None}
    if any(np.ndim(i) or not 0 <= i <= len(logits) or i != int(i) for i in chosen):
        raise Wrong("Return one id: an integer from 0 to V - 1.")
    return {"the chosen ids (one for each u)": np.array(chosen)}


US = (np.arange(40) + 0.5) / 40
check.add(
    "choose",
    Exercise(
        choose,
        [
            (np.array([0.3, 2.1, -0.5, 1.6, -1.2, 0.9]), temperature, k, US)
            for temperature, k in ((1.0, 6), (0.5, 6), (2.0, 6), (1.0, 3), (0.7, 2))
        ]
        + [(np.array([900.0, 901.0, 899.5]), 1.0, 3, US)],
        {
            "It always takes the most likely character. Then every text ends in a loop ('the the the'). "
            "Let u decide.": (lambda logits, temperature, top_k, u: int(np.argmax(logits))),
            "After the cut the probabilities no longer add up to 1, so a large u falls off the end. "
            "Cut the logits (-inf) before the softmax.": _cut_late,
        }
        | with_pairs(
            _choose,
            {
                "The temperature multiplies. Divide by it: "
                "a high temperature must bring the logits closer together.": {
                    "divide": lambda x, temperature: x * temperature
                },
                "The temperature has no effect. "
                "Divide the logits by it, before the softmax. (If you divide the probabilities, "
                "making them add up to 1 undoes it.)": {"divide": lambda x, temperature: x},
                "top_k is ignored: all characters stay possible.": {"cut": lambda x, k: x},
                "It keeps the least likely characters. "
                "`np.sort` puts the smallest first: the k-th largest is `np.sort(logits)[-top_k]`.": {
                    "cut": lambda x, k: np.where(x > np.sort(x)[k - 1], -np.inf, x)
                },
                "A logit of 0 does not make a character impossible: e⁰ = 1. Set it to -inf.": {
                    "cut": lambda x, k: np.where(x < np.sort(x)[-k], 0.0, x)
                },
                "One more than top_k is kept: `logits < np.sort(logits)[-top_k]` are those to drop.": {
                    "cut": lambda x, k: _cut(x, min(k + 1, len(x)))
                },
                "One less than top_k is kept: the k-th largest itself must stay (`<`, not `<=`).": {
                    "cut": lambda x, k: _cut(x, max(1, k - 1))
                },
                "exp(900) is infinite: subtract the maximum before exp, as in notebook 4.": {
                    "soften": lambda x: np.exp(x) / np.exp(x).sum()
                },
            },
        ),
        _ids,
    ),
)


# --- training -------------------------------------------------------------------------------------

QUICK = bool(os.environ.get("NOTEBOOKS_QUICK"))  # set by `build.py --check`: a smaller model, fewer steps
FOLDER = Path("runs/quick" if QUICK else "runs/gpt")  # beside the notebook that trains


def size():
    """(C, n_layer, n_head, T, rows of a batch, steps) of a training that takes about 90 seconds."""
    return (64, 2, 4, 64, 12, 750) if QUICK else (128, 3, 4, 64, 16, 1500)


class Live:
    """A picture that is drawn again and again while a cell runs: the loss so far, beside it a new sample."""

    def __init__(self, references, steps):
        keep_freed_memory()
        self.references, self.steps, self.losses, self.samples = references, steps, [], {}
        self.handle = None

    def show(self, sample):
        """Draw what there is, with a sample of the model as it is now."""
        self.samples[len(self.losses)] = sample
        picture = plot_progress(self.losses, self.references, self.steps, sample)
        self.handle = show(picture, self.handle)


def library_model(p, V, T, C, n_layer, n_head):
    """The library's GPT with these weights (float32 copies)."""
    config = GPTConfig(V, T, n_layer, n_head, C, **ARCHITECTURES["gpt2"])
    model = GPT(config, seed=None)
    for name, parameter in model.named_parameters():
        parameter.data[...] = p[name.removeprefix("transformer.")].data
    return model


def save(model, optimizer, characters, steps):
    """Write the checkpoint that notebook 8 opens; returns its folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    unknown = dict.fromkeys(("corpus", "data_sha256", "machine"), "")
    state = {"step": steps, "best": {}, "training_seconds": 0.0, "settings": {}, **unknown}
    checkpoint.save(FOLDER, model, optimizer, CharTokenizer(characters), state)
    return FOLDER


# --- pictures -------------------------------------------------------------------------------------


def plot_progress(losses, references, steps, sample):
    """The loss so far, with what simpler models reach; the sample beside it."""
    figure, (left, right) = panels(2, width=10, height=3.6, width_ratios=[3, 2])
    left.plot(losses, color=BLUE, lw=0.6, alpha=0.5)
    if len(losses) > 50:
        smooth = np.convolve(losses, np.ones(25) / 25, "valid")
        left.plot(np.arange(len(smooth)) + 24, smooth, color=BLUE, lw=1.8)
    for text, value in with_values(references).items():
        left.axhline(value, color=GREY, ls="--", lw=0.8)
        left.text(steps, value + 0.03, text, ha="right", va="bottom", fontsize=8, color=GREY)
    left.set(xlim=(0, steps), ylim=(1.2, 4.6), xlabel="step", ylabel="loss (nats per character)")
    latest = f": loss {np.mean(losses[-25:]):.2f}" if losses else ""
    left.set_title(f"step {len(losses)} of {steps}{latest}")
    lines = [line[i : i + 38] for line in sample.split("\n") for i in range(0, max(1, len(line)), 38)]
    right.text(0, 1, "\n".join(lines[:14]).replace("$", r"\$"), family="monospace", fontsize=8.5, va="top")
    right.set_title("what it says now", loc="left")
    right.axis("off")
    return Picture(figure, f"loss at step {len(losses)}, and a sample")


def plot_block():
    """The residual stream through a block: attention and MLP read a normalised copy and add to it."""
    figure, axes = panels(width=9, height=2.5)
    axes.annotate("", (10.0, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "lw": 3, "color": BLUE})
    axes.text(0, 0.18, "x (B, T, C)", color=BLUE)
    axes.text(9.3, 0.18, "x", color=BLUE)
    for start, names, color in ((1.0, ("norm ln_1", "attention"), RED), (5.4, ("norm ln_2", "mlp"), GREEN)):
        box = {"boxstyle": "round,pad=0.35", "fc": "w", "ec": color}
        axes.plot([start, start, start + 3.3], [0, 1.3, 1.3], color=color, lw=1.5)
        arrow = {"arrowstyle": "-|>", "lw": 1.5, "color": color}
        axes.annotate("", (start + 3.3, 0.13), (start + 3.3, 1.33), arrowprops=arrow)
        for at, name in zip((0.9, 2.4), names, strict=True):
            axes.text(start + at, 1.3, name, ha="center", va="center", bbox=box)
        axes.plot(start + 3.3, 0, "o", ms=15, mfc="w", mec=BLUE, mew=2, zorder=3)
        axes.text(start + 3.3, -0.015, "+", ha="center", va="center", zorder=4, fontsize=13)
    axes.text(3.4, -0.5, "look around: positions exchange", ha="center", color=RED, fontsize=9)
    axes.text(7.8, -0.5, "think: each position by itself", ha="center", color=GREEN, fontsize=9)
    axes.set(xlim=(-0.1, 10.2), ylim=(-0.75, 1.8))
    axes.axis("off")
    return Picture(figure, "a block: two branches that add to the residual stream")


def plot_overfitting(losses, limit):
    """The loss of one batch, seen again and again."""
    figure, axes = panels(width=6.5, height=2.8)
    axes.semilogy(losses, color=BLUE)
    axes.axhline(limit, color=GREY, ls="--", lw=0.8)
    label = f"ln V = {limit:.2f}"
    axes.text(len(losses), limit * 1.08, label, ha="right", va="bottom", fontsize=8, color=GREY)
    axes.set(xlabel="step", ylabel="loss of that one batch")
    return Picture(figure, "one batch, learned by heart")


def plot_schedule(learning_rate, last, warmup):
    """The learning rate over the steps."""
    figure, axes = panels(width=6.5, height=2.3)
    axes.plot([learning_rate(step) for step in range(last + 1)], color=BLUE)
    axes.axvline(warmup, color=GREY, ls="--", lw=0.8)
    axes.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    return Picture(figure, "warm-up, then half a cosine")


def plot_temperatures(logits, settings):
    """The probabilities of the same logits under several (temperature, top_k)."""
    figure, axes = panels(len(settings), width=9, height=2.4, sharey=True)
    for ax, (temperature, k) in zip(axes, settings, strict=True):
        ax.bar(range(len(logits)), probabilities(logits, temperature, k), color=GOLD)
        ax.set(xticks=[], xlabel="characters")
        ax.set_title(f"temperature {temperature}, top {k}", fontsize=9)
    axes[0].set(ylabel="probability")
    return Picture(figure, "probabilities at several temperatures")
