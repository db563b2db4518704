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
from workbook.checking import (
    Checks,
    Exercise,
    Wrong,
    named_results,
    random_arrays,
    refuse_changed,
    with_pairs,
)
from workbook.on_tensors import tensor_exercise
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
        [(IDS, np.array([0, 7, 3]), 4), (IDS, np.array([30, 1]), 9), (IDS, np.array([5]), 1)],
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
            "These are places in the text, not what stands there: index `ids` with them.": (
                lambda ids, starts, T: batch(np.arange(len(ids)), starts, T)
            ),
            "The windows begin at 0, one after the other. Begin at `starts`.": lambda ids, starts, T: batch(
                ids, T * np.arange(len(starts)), T
            ),
            "All rows hold the same window. Each start has its own.": lambda ids, starts, T: batch(
                ids, np.full(len(starts), starts[0]), T
            ),
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


def _second_norm(normed):
    """A block whose MLP reads something else than norm ln_2 of x."""

    def wrong(x, p, n_head):
        x = x + attention(norm(x, p, "ln_1"), p, n_head)
        return x + mlp(normed(x, p), p)

    return wrong


def _old_norm(x, p, n_head):
    normed = norm(x, p, "ln_1")
    return x + attention(normed, p, n_head) + mlp(normed, p)


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
    tensor_exercise(
        ("x", "p"),
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
            "That is tanh. GPT-2 has gelu: `ag.gelu`.": _mlp_is(
                lambda x, p: linear(ag.tanh(linear(x, p, "mlp.c_fc")), p, "mlp.c_proj")
            ),
            "That is the exact gelu. GPT-2 has another one, made of tanh: `ag.gelu`.": _mlp_is(
                lambda x, p: linear(ag.gelu_exact(linear(x, p, "mlp.c_fc")), p, "mlp.c_proj")
            ),
            "Both norms use ln_2. The first is 'ln_1'.": lambda x, p, n_head: block(
                x,
                p | {name: p[name.replace("ln_1", "ln_2")] for name in ("ln_1.weight", "ln_1.bias")},
                n_head,
            ),
            "Nothing is added to x, and nothing replaces it.": lambda x, p, n_head: x * 1.0,
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
            "The norm of the MLP is missing: it reads `norm(x, p, 'ln_2')`.": _second_norm(lambda x, p: x),
            "The MLP reads x as it was normalised for attention. Normalise the new x, with ln_2.": _old_norm,
            "x is added twice.": lambda x, p, n_head: x + block(x, p, n_head),
            "attn.c_proj is missing. The heads lie side by side; it mixes what they found.": _attention_is(
                lambda x, p, n_head: ag.causal_attention(linear(x, p, "attn.c_attn"), n_head)
            ),
        },
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


def _gpt_reversed(ids, p, n_layer, n_head):
    return _gpt(which=lambda i: n_layer - 1 - i)(ids, p, n_layer, n_head)


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
    tensor_exercise(
        ("ids", "p"),
        gpt,
        [
            _gpt_case(5, 4, 4, 2, 2, [[1, 4, 0], [2, 2, 3]]),
            _gpt_case(7, 6, 6, 3, 3, [[6, 0, 5, 5, 1, 2]]),
            _gpt_case(3, 2, 2, 1, 1, [[2]]),
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
            "Return the logits themselves, without log_softmax: cross_entropy does that.": _gpt(
                finish=lambda x, p: ag.log_softmax(norm(x, p, "ln_f") @ p["wte.weight"].T)
            ),
            "All channels in one head: give each block the number of heads, n_head.": (
                lambda ids, p, n_layer, n_head: gpt(ids, p, n_layer, 1)
            ),
            "These are the logits of the last position only. Every position predicts its next character: "
            "return all T.": _gpt(finish=lambda x, p: (norm(x, p, "ln_f") @ p["wte.weight"].T)[:, -1]),
            "The weights are right, but the embedding does not hear from the head: `p['wte.weight'].T`, "
            "as a Tensor.": _gpt(finish=lambda x, p: norm(x, p, "ln_f") @ p["wte.weight"].detach().T),
            "The positions are counted from the end of wpe: `wpe.weight[:T]`.": _gpt(
                lambda ids, p: ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][-ids.shape[1] :]
            ),
            "The positions multiply. They are added.": _gpt(
                lambda ids, p: ag.embedding(p["wte.weight"], ids) * p["wpe.weight"][: ids.shape[1]]
            ),
            "The blocks are in the reverse order: block 0 comes first.": _gpt_reversed,
            "The head is missing: `@ wte.weight.T` turns C channels into V logits.": _gpt(
                finish=lambda x, p: norm(x, p, "ln_f")
            ),
        },
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


def _initial_of_proj_bias(name, shape, n_layer, rng):
    if name.endswith("c_proj.bias"):
        return 0.02 / math.sqrt(2 * n_layer) * rng.normal(size=shape)
    return initial(name, shape, n_layer, rng)


def first_values(function, *case):
    """A `compute` for first weights: float32, in which they will be trained, is as good as float64."""
    values = function(*case)
    is_float32 = isinstance(values, np.ndarray) and values.dtype == np.float32
    return {"the result": values.astype(float) if is_float32 else values}


def other_numbers(draws):
    """What to say of random numbers that have the right spread, but are others than the reference's, or "".

    draws: (function of a shape and a generator, standard deviation that it should have)
    """
    shape = (300, 200)
    for draw, std in draws:
        x = np.asarray(draw(shape, np.random.default_rng(0)))
        if x.shape != shape or abs(x.std() / std - 1) > 0.02 or abs(x.mean()) > 0.03 * std:
            return ""
    return (
        "The spread is right, but the numbers are not those that rng gives. Draw them once, with "
        "`rng.normal(size=shape)`, so that a model can be made again from its seed."
    )


def _other_numbers(answer):
    draw = lambda name: lambda shape, rng: answer(name, shape, 4, rng)
    return other_numbers([(draw("wte.weight"), 0.02), (draw("h.0.mlp.c_proj.weight"), 0.02 / math.sqrt(8))])


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
            ("h.0.attn.c_proj.bias", (8,), 3, np.random.default_rng(7)),
            ("ln_f.weight", (8,), 1, np.random.default_rng(8)),
            ("wpe.weight", (16, 8), 12, np.random.default_rng(9)),
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
            "c_proj.bias is a bias, too, and starts at 0. Ask for `bias` first.": _initial_of_proj_bias,
            "The norms' biases start at 0, like all biases. Ask for `bias` first.": lambda name, *more: (
                np.ones(more[0]) if "ln_" in name else initial(name, *more)
            ),
            "ln_f is a norm, too, although its name has no `h.` in front: its weight starts at 1.": (
                lambda name, *more: initial("wte.weight" if name == "ln_f.weight" else name, *more)
            ),
            "c_proj is multiplied by √(2·n_layer). Divide by it: those matrices start smaller.": _initial(
                lambda shape, n_layer, r: 0.02 * (math.sqrt(2 * n_layer) if r else 1)
            ),
            "You divide by √(inputs), as Xavier and Kaiming do. "
            "That is a good choice too. But GPT-2 takes 0.02 for all, "
            "and the layer norms do the rest.": _initial(lambda shape, n_layer, r: 1 / math.sqrt(shape[0])),
            "0.02 is the standard deviation, not the variance: multiply by it, not by its root.": _initial(
                lambda shape, n_layer, r: math.sqrt(0.02 / (math.sqrt(2 * n_layer) if r else 1))
            ),
        },
        compute=first_values,
        explain=_other_numbers,
        tolerance=1e-6,
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


def _advise_rate(answer):
    try:
        answer(0, 1.0, 0, 10, 0.0)
    except ZeroDivisionError:
        return "without a warm-up (warmup = 0) it divides by 0. Divide only where step < warmup."
    return ""


check.add(
    "learning_rate",
    Exercise(
        learning_rate,
        [(step, 3e-3, 10, 200, 3e-4) for step in (57, 0, 3, 9, 10, 150, 200)]
        + [(1, 1.0, 4, 50, 0.1), (20, 1.0, 4, 50, 0.1), (0, 1.0, 20, 50, 0.1)],
        with_pairs(
            _rate,
            {
                "Step 0 has the rate 0: it computes a gradient and throws it away. "
                "Rise with (step + 1) / warmup.": {"rise": lambda step, warmup: step / warmup},
                "`//` cuts off what comes after the point, so this is 0 until the warm-up is over. "
                "Use `/`.": {"rise": lambda step, warmup: (step + 1) // warmup},
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
                "The fall begins one step early: progress is (step - warmup) / (last - warmup).": {
                    "progress": lambda step, warmup, last: (step + 1 - warmup) / (last - warmup)
                },
                "π is missing: the cosine must run from 0 to π.": {"fall": lambda t: 0.5 * (1 + math.cos(t))},
            },
        )
        | {
            "`//` cuts off what comes after the point, so the warm-up is a jump. Use `/`.": (
                lambda step, peak, warmup, last, lowest: (
                    peak * (step + 1) // warmup
                    if step < warmup
                    else learning_rate(step, peak, warmup, last, lowest)
                )
            ),
            "You do not let the warm-up go below `lowest`. It rises from peak / warmup, "
            "whatever lowest is.": lambda *case: max(case[-1], learning_rate(*case)),
            "At step `warmup` it still rises, above the peak. The warm-up is over there: `step < warmup`.": (
                lambda step, peak, warmup, last, lowest: (
                    peak * (step + 1) / warmup
                    if step <= warmup
                    else learning_rate(step, peak, warmup, last, lowest)
                )
            ),
        },
        advise=_advise_rate,
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


def _sorted_places(direction):
    def wrong(logits, temperature, top_k, u):
        return _draw(softmax(np.sort(logits / temperature)[-top_k:][::direction]), u)

    return wrong


def _without_cumsum(logits, temperature, top_k, u):
    return int(np.searchsorted(softmax(_cut(logits / temperature, top_k)), u, side="right"))


def _ids(function, logits, temperature, top_k, us):
    given = logits.copy()
    chosen = [function(given, temperature, top_k, float(u)) for u in us]
    refuse_changed("logits", logits, given)
    if any(i is None for i in chosen):
        return {"the chosen id": None}
    is_id = lambda i: np.ndim(i) == 0 and np.asarray(i).dtype.kind in "iu" and 0 <= i <= len(logits)
    if not all(map(is_id, chosen)):
        raise Wrong("Return one id: an integer from 0 to V - 1.")
    return {"the ids, one for each u": np.array(chosen)}


def _explain_choice(answer):
    """What to say of an answer that does choose at random, but otherwise than by u; or ""."""
    logits, us = np.array([0.3, 2.1, -0.5, 1.6, -1.2, 0.9]), (np.arange(400) + 0.5) / 400
    chosen, again, right = (
        np.array([f(logits.copy(), 1.0, 4, u) for u in us]) for f in (answer, answer, choose)
    )
    if not np.array_equal(chosen, again):
        return "With the same u it gives another id. Draw with u alone, not with other random numbers."
    how_often = lambda ids: np.bincount(ids, minlength=len(logits))
    if not np.array_equal(chosen, right) and np.abs(how_often(chosen) - how_often(right)).max() < 3:
        return (
            "Each id comes as often as it should, but for other u. Put the probabilities on the line in the "
            "order of the ids."
        )
    return ""


def _advise_choice(answer):
    if answer(np.array([0.0, 5.0, 4.0]), 1.0, 2, 0.0) == 0:
        return (
            "for u = 0 it takes the first id, even if top_k has excluded it. "
            "`side='right'` looks for the first part that reaches beyond u."
        )
    return ""


US = (np.arange(40) + 0.5) / 40
check.add(
    "choose",
    Exercise(
        choose,
        [
            (np.array([0.3, 2.1, -0.5, 1.6, -1.2, 0.9]), temperature, k, US)
            for temperature, k in ((1.0, 6), (0.5, 6), (2.0, 6), (1.0, 3), (0.7, 2), (1.5, 1))
        ]
        + [(np.array([900.0, 901.0, 899.5]), 1.0, 3, US)],
        {
            "It always takes the most likely character. Then every text ends in a loop ('the the the'). "
            "Let u decide.": (lambda logits, temperature, top_k, u: int(np.argmax(logits))),
            "After the cut the probabilities no longer add up to 1, so a large u falls off the end. "
            "Cut the logits (-inf) before the softmax.": _cut_late,
            "All characters are equally likely: u must fall into parts that are as long as the "
            "probabilities.": lambda logits, temperature, top_k, u: int(u * len(logits)),
            "This is a place among the sorted logits (largest first), not an id. "
            "Cut without moving anything, or look up which id stands there.": _sorted_places(-1),
            "This is a place among the sorted logits (smallest first), not an id. "
            "Cut without moving anything, or look up which id stands there.": _sorted_places(1),
            "cumsum is missing: the probabilities must lie one after another on the line from 0 to 1.": (
                _without_cumsum
            ),
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
                    "cut": lambda x, k: _cut(x, k - 1) if k > 1 else x
                },
                "`<=` drops the k-th largest, too, and with top_k = 1 nothing is left: "
                "the k-th largest itself must stay (`<`).": {
                    "cut": lambda x, k: np.where(x <= np.sort(x)[-k], -np.inf, x)
                },
                "exp(900) is infinite: subtract the maximum before exp, as in notebook 4.": {
                    "soften": lambda x: np.exp(x) / np.exp(x).sum()
                },
            },
        ),
        _ids,
        advise=_advise_choice,
        explain=_explain_choice,
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
