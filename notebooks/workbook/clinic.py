"""Notebook 9: the bug clinic.

A small GPT whose parts can be exchanged for sick ones, its records, and their dashboards.
"""

import dataclasses
import re

import numpy as np
from matplotlib import colormaps

import autograd as ag
from workbook.checking import Checks, Exercise, Wrong
from workbook.gpt import QUICK, batch, block_shapes, first_values, linear, norm, other_numbers, part
from workbook.pictures import BLUE, GREY, RED, Picture, panels

check = Checks()
C, L, H, T, ROWS = 32, 4, 2, 32, 12
STEPS = 100 if QUICK else 200
GROUPS = ["embedding"] + [f"block {i + 1}" for i in range(L)]

# --- the parts, healthy ---------------------------------------------------------------------------


def initial(shape, rng):
    return 0.02 * rng.normal(size=shape)


def block(x, attention, mlp):
    x = x + attention(x)
    return x + mlp(x)


def hidden(T):
    return np.triu(np.ones((T, T), bool), k=1)


def learning_rate(step, peak, warmup):
    return peak * min(1.0, (step + 1) / warmup)


def update(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def trained(parameters):
    return list(parameters.values())


HEALTHY = {
    "initial": initial,
    "block": block,
    "hidden": hidden,
    "learning_rate": learning_rate,
    "update": update,
    "trained": trained,
}

# --- a model made of such parts -------------------------------------------------------------------


@dataclasses.dataclass
class Record:
    """What was recorded of a training run."""

    losses: list  # (steps,)
    gradient_sizes: np.ndarray  # (steps, groups)
    ratios: np.ndarray  # (steps, groups)
    gradients: list  # last step, per group: log10 of the sizes of all entries that are not 0
    streams: list  # last step: some values of the residual stream after the embedding and after each block
    sample: str


def parameters_of(V, initial, seed):
    """All parameters, {name: Tensor}; `initial` makes the matrices."""
    rng, shapes = np.random.default_rng(seed), {"wte.weight": (V, C), "wpe.weight": (T, C)}
    for i in range(L):
        shapes |= {f"h.{i}.{name}": shape for name, shape in block_shapes(C).items()}
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,), "head.weight": (C, V)}

    def first(name, shape):
        if len(shape) == 2:
            return initial(shape, rng)
        return np.ones(shape) if name.endswith("weight") else np.zeros(shape)

    return {
        name: ag.Tensor(np.asarray(first(name, shape), np.float32), requires_grad=True)
        for name, shape in shapes.items()
    }


def forward(ids, p, block, mask):
    """Logits (B, T, V) and the residual streams, for blocks and masks of any kind."""
    t = ids.shape[1]
    x = ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][:t]
    streams = [x]
    for i in range(L):
        x = block(x, *_functions_of_block(part(p, f"h.{i}."), mask[:t, :t]))
        streams.append(x)
    return norm(x, p, "ln_f") @ p["head.weight"], streams


def _functions_of_block(p, mask):
    """(attention, mlp) with these parameters: functions of x, with the norms inside."""

    def attention(x):
        qkv = linear(norm(x, p, "ln_1"), p, "attn.c_attn")
        return linear(_attend(qkv, mask), p, "attn.c_proj")

    def mlp(x):
        return linear(ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc")), p, "mlp.c_proj")

    return attention, mlp


def _attend(qkv, mask):
    """Attention with any mask, from plain operations."""
    B, t, _ = qkv.shape
    heads = qkv.reshape(B, t, 3, H, C // H).transpose(2, 0, 3, 1, 4)  # (B, t, 3C) -> (3, B, H, t, D)
    scores = heads[0] @ heads[1].swapaxes(-1, -2) * (C // H) ** -0.5
    weights = ag.softmax(ag.masked_fill(scores, mask, -1e9))
    return (weights @ heads[2]).swapaxes(1, 2).reshape(B, t, C)


def train(ids, characters, steps=STEPS, seed=0, **parts):
    """Train for some steps with these parts instead of the healthy ones; returns the Record."""
    parts = HEALTHY | parts
    p = parameters_of(len(characters), parts["initial"], seed)
    optimizer = _Watched(p, parts["trained"](p), betas=(0.9, 0.98), weight_decay=0.01)
    # Nobody sets the gradients of what the optimizer does not have back to zero, so we do.
    idle = [q for q in p.values() if all(q is not other for other in optimizer.parameters())]
    mask, rng = np.asarray(parts["hidden"](T), bool), np.random.default_rng(seed)
    losses, sizes, ratios = [], [], []
    for step in range(steps):
        x, y = batch(ids, rng.integers(len(ids) - T, size=ROWS), T)
        logits, streams = forward(x, p, parts["block"], mask)
        loss = ag.cross_entropy(logits, y)
        optimizer.groups[0]["lr"] = parts["learning_rate"](step, 4e-3, 10)
        before = {name: q.data.copy() for name, q in p.items()}
        for q in idle:
            q.grad = np.zeros_like(q.data)
        parts["update"](loss, optimizer)
        gradients = grouped(optimizer.gradients)
        weights = grouped({name: q.data for name, q in p.items()})
        changes = grouped({name: q.data - before[name] for name, q in p.items()})
        losses.append(loss.item())
        sizes.append([np.sqrt(np.mean(g**2)) for g in gradients])
        ratios.append([change.std() / w.std() for change, w in zip(changes, weights, strict=True)])
    gradients = [np.log10(np.abs(g[g != 0])) for g in gradients]
    streams = [x.data[:2].ravel() for x in streams]
    sample = write(p, parts["block"], mask, characters) if np.isfinite(losses[-1]) else ""
    return Record(losses, np.array(sizes), np.array(ratios), gradients, streams, sample)


class _Watched(ag.AdamW):
    """AdamW that keeps the gradients of each step: an update may forget them at its end."""

    def __init__(self, named, trained, **options):
        super().__init__(trained, **options)
        self.named = named
        self.gradients = {name: np.zeros_like(q.data) for name, q in named.items()}

    def step(self):
        self.gradients = {
            name: np.zeros_like(q.data) if q.grad is None else q.grad.copy() for name, q in self.named.items()
        }
        super().step()


def grouped(arrays):
    """The matrices of each group (the embedding, each block) in one flat array; arrays: {name: array}."""
    groups = [["wte.weight", "wpe.weight"]]
    matrices = [name for name in arrays if ".c_" in name and name.endswith("weight")]
    groups += [[name for name in matrices if name.startswith(f"h.{i}.")] for i in range(L)]
    return [np.concatenate([arrays[name].ravel() for name in group]) for group in groups]


def write(p, block, mask, characters, n=90):
    """n characters that the model continues with. Here there is no future that it could look at."""
    said, rng = [characters.index("\n")], np.random.default_rng(0)
    for _ in range(n):
        with ag.no_grad():
            logits = forward(np.array([said[-T:]]), p, block, mask)[0].data[0, -1].astype(float)
        e = np.exp((logits - logits.max()) / 0.8)
        said.append(int(rng.choice(len(e), p=e / e.sum())))
    return "".join(characters[i] for i in said[1:])


# --- the patients ---------------------------------------------------------------------------------


def _sick_initial(shape, rng):
    return rng.normal(size=shape)


def _sick_block(x, attention, mlp):
    x = attention(x)
    return mlp(x)


def _sick_hidden(T):
    return np.triu(np.ones((T, T), bool), k=2)


def _sick_rate(step, peak, warmup):
    return peak * warmup / (step + 1)


def _sick_update(loss, optimizer):
    loss.backward()
    optimizer.step()


def _sick_trained(parameters):
    return [p for name, p in parameters.items() if p.ndim == 1 or name.startswith(("wte", "wpe", "head"))]


PATIENTS = {
    "A": {"initial": _sick_initial},
    "B": {"update": _sick_update},
    "C": {"hidden": _sick_hidden},
    "D": {"trained": _sick_trained},
    "E": {"learning_rate": _sick_rate},
    "F": {"block": _sick_block},
}


# --- naming the disease ---------------------------------------------------------------------------

SIGNS = {
    "init": (
        "Weights that start too large can be seen at step 0: "
        "the loss begins far above ln V, before any learning."
    ),
    "zero_grad": (
        "Gradients that are not set to zero pile up: after a good start they go up and never come down again."
    ),
    "mask": (
        "A model that sees the future has a loss that is far too low to be true, and still writes rubbish."
    ),
    "frozen": (
        "Weights that are not trained have an update-to-weight ratio of exactly 0, "
        "although they have a gradient."
    ),
    "schedule": (
        "With a schedule upside down the first update is as large as the weights (a ratio near 1), "
        "and the last ones hardly move them. The ratio falls all the way."
    ),
    "residual": (
        "Without the residual stream the gradient shrinks from block to block on its way back, "
        "each time by a large factor."
    ),
    "slow": (
        "With too small a learning rate all ratios lie far *below* the healthy band, "
        "and the loss falls slowly but smoothly."
    ),
    "sign": "With a flipped sign the loss rises from the very first step.",
}
FINDINGS = {
    "a": ("init", "Here the loss is worst at step 0, and the stream is far too large from the embedding on."),
    "b": (
        "zero_grad",
        "Here everything begins well. Then the gradients jump up, in all groups, and stay there.",
    ),
    "c": (
        "mask",
        "Here nothing explodes or vanishes. The loss is *better* than it can be. Compare it with the sample.",
    ),
    "d": (
        "frozen",
        "Here the curves are nearly healthy. But four groups are missing in one of the six panels.",
    ),
    "e": (
        "schedule",
        "Here the curves of one panel fall by a factor of nearly a thousand, in all groups. "
        "In the healthy run they are almost level.",
    ),
    "f": (
        "residual",
        "Here the groups' gradients lie far apart, in the order of their depth. "
        "Almost nothing arrives at the embedding.",
    ),
}


def _names(patient):
    """The exercise of naming this patient's disease."""
    truth, finding = FINDINGS[patient]

    def reference():
        return truth

    def compute(function):
        answer = function()
        if answer is None:
            return {"the name": None}
        if not isinstance(answer, str):
            raise Wrong(f"Return one name from the list, as a text: {', '.join(SIGNS)}.")
        name = re.sub(r"[\s-]+", "_", answer.strip().lower())  # "Zero-grad" is meant well
        if name not in SIGNS:
            raise Wrong(f"{answer!r} is not on the list; choose from {', '.join(SIGNS)}.")
        if name != truth:
            raise Wrong(f"Not {name}. {SIGNS[name]} {finding}")
        return {"the name": 1.0}

    return Exercise(reference, [()], compute=compute)


for _patient in FINDINGS:
    check.add(f"patient_{_patient}", _names(_patient))

# --- curing it ------------------------------------------------------------------------------------

STILL_SICK = "That does the same as the patient's code. "

check.add(
    "cure_a",
    Exercise(
        initial,
        [((3, 4), np.random.default_rng(0)), ((5, 2), np.random.default_rng(1))],
        {
            STILL_SICK + "Multiply by the standard deviation, 0.02.": _sick_initial,
            "All zeros: then all channels stay equal for ever. "
            "Small numbers, but different from each other.": lambda shape, rng: np.zeros(shape),
            "All the same: channels that start equal stay equal. Draw random numbers.": lambda shape, rng: (
                np.full(shape, 0.02)
            ),
            "You divide by 0.02, which makes them even larger.": lambda shape, rng: (
                rng.normal(size=shape) / 0.02
            ),
            "0.02 is the standard deviation, not the variance: do not take its root.": (
                lambda shape, rng: np.sqrt(0.02) * rng.normal(size=shape)
            ),
            "The numbers are around 0.02, with a standard deviation of 1. It is the other way round.": (
                lambda shape, rng: 0.02 + rng.normal(size=shape)
            ),
        },
        compute=first_values,
        explain=lambda answer: other_numbers([(answer, 0.02)]),
        tolerance=1e-6,
    ),
)


class _Descent:
    """Plain gradient descent, with the two methods that `update` uses."""

    def __init__(self, p):
        self.p = p

    def zero_grad(self):
        self.p.grad = np.zeros(self.p.shape)

    def step(self):
        self.p.data = self.p.data - 0.1 * self.p.grad


def _after_updates(function):
    """Where three updates on a bowl lead."""
    p, places = ag.Tensor(np.array([1.0, -2.0]), requires_grad=True), []
    optimizer = _Descent(p)
    optimizer.zero_grad()
    for _ in range(3):
        function((p * p * np.array([1.0, 0.5])).sum(), optimizer)
        places.append(p.data)
    return {"the weights after each of 3 updates": np.array(places)}


def _late(loss, optimizer):
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()


def _zeroed_between(loss, optimizer):
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()


def _twice(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    optimizer.step()


check.add(
    "cure_b",
    Exercise(
        update,
        [()],
        {
            STILL_SICK + "backward() adds to what is there. Before it, optimizer.zero_grad().": _sick_update,
            "Nothing moves: step() is missing, or the gradient is 0 when it comes. "
            "First zero_grad, then backward, then step.": _zeroed_between,
            "step() uses the gradient of the step before: backward must come first.": _late,
            "Two steps along the same gradient: step() once.": _twice,
        },
        compute=_after_updates,
    ),
)


def _marks(function, T):
    """The mask as numbers: 1 where it says True."""
    mask = function(T)
    return {"the mask": mask if mask is None else np.asarray(mask, float)}


check.add(
    "cure_c",
    Exercise(
        hidden,
        [(4,), (6,), (1,)],
        {
            STILL_SICK + "Row t may see the columns up to t. "
            "With k=2 it also sees column t + 1: the character that it must predict.": _sick_hidden,
            "No position sees itself, and the first one sees nothing: "
            "its softmax has nothing to choose from. k=1.": lambda T: np.triu(np.ones((T, T), bool), k=0),
            "That hides the past and shows the future: upper triangle, not lower.": lambda T: np.tril(
                np.ones((T, T), bool), k=-1
            ),
            "True means hidden. You marked what may be seen.": lambda T: np.tril(np.ones((T, T), bool)),
            "Each row hides the place that it may see last, and nothing else.": lambda T: np.eye(
                T, dtype=bool
            ),
            "Everything is hidden. Row t may see the columns up to t.": lambda T: np.ones((T, T), bool),
            "Nothing is hidden any more.": lambda T: np.zeros((T, T), bool),
            "-inf belongs in the scores. Here True and False say where.": lambda T: np.triu(
                np.full((T, T), -np.inf), k=1
            ),
        },
        compute=_marks,
    ),
)


def _which(function, shapes):
    """For each parameter, how often it is given to the optimizer."""
    parameters = {name: ag.Tensor(np.zeros(shape)) for name, shape in shapes.items()}
    given = function(parameters)
    if given is None:
        return {"the list": None}
    given = list(given)
    if any(isinstance(item, str) for item in given):
        raise Wrong("These are the names. The optimizer needs the Tensors: `parameters.values()`.")
    if not given:
        raise Wrong("The list is empty: nothing is trained.")
    for item in given:
        if not isinstance(item, ag.Tensor):
            raise Wrong(f"The optimizer needs the Tensors themselves, but gets {type(item).__name__}.")
    times = [float(sum(p is q for q in given)) for p in parameters.values()]
    return {"how often each is trained": np.array(times)}


def _left_out(answer):
    """Which parameters are not given to the optimizer, or ""."""
    times = _which(answer, SHAPES)["how often each is trained"]
    missing = [name for name, often in zip(SHAPES, times, strict=True) if not often]
    return f"Not trained: {', '.join(missing)}." if missing else ""


NAMES = (
    "wte.weight",
    "wpe.weight",
    "h.0.attn.c_attn.weight",
    "h.0.attn.c_attn.bias",
    "h.0.ln_1.weight",
    "h.3.mlp.c_proj.weight",
    "ln_f.bias",
    "head.weight",
)
SHAPES = {name: (3,) if "bias" in name or "ln" in name else (3, 4) for name in NAMES}

check.add(
    "cure_d",
    Exercise(
        trained,
        [(SHAPES,)],
        {
            STILL_SICK + "The matrices of the blocks are missing. They are not vectors, and their names "
            "do not begin with wte, wpe or head: h.0.attn.c_attn.weight and so on.": _sick_trained,
            "Now the vectors, biases and norms, are left out.": lambda ps: [
                p for p in ps.values() if p.ndim == 2
            ],
            "Now only the blocks are trained; embeddings and head are left out.": lambda ps: [
                p for name, p in ps.items() if name.startswith("h.")
            ],
            "Now only the matrices of the blocks are trained.": lambda ps: [
                p for name, p in ps.items() if name.startswith("h.") and p.ndim == 2
            ],
            "Those that were already in the list come twice.": lambda ps: [*_sick_trained(ps), *ps.values()],
            "Biases of the blocks are left out: their names do not end in 'weight'.": lambda ps: [
                p for name, p in ps.items() if name.endswith("weight")
            ],
        },
        compute=_which,
        explain=_left_out,
    ),
)

check.add(
    "cure_e",
    Exercise(
        learning_rate,
        [(step, peak, 10) for step in (0, 4, 9, 10, 57, 199) for peak in (4e-3, 0.5)]
        + [(step, 0.1, 4) for step in (0, 2, 3, 8)],
        {
            STILL_SICK + "The fraction is upside down: it should rise with the step. "
            "It is (step + 1) / warmup, but never above 1.": (_sick_rate),
            "Nothing is above the peak any more, but the fraction is still upside down: "
            "the rate falls where it should rise.": (
                lambda step, peak, warmup: peak * min(1.0, warmup / (step + 1))
            ),
            "max() picks the larger: 1 while the rate should rise, and more and more after that. "
            "Take the smaller.": (lambda step, peak, warmup: peak * max(1.0, (step + 1) / warmup)),
            "It grows for ever: the factor must stop at 1.": lambda step, peak, warmup: (
                peak * (step + 1) / warmup
            ),
            "The warm-up is gone: min(1, (step + 1) / warmup).": lambda step, peak, warmup: peak,
            "min() of the wrong things: the factor must not exceed 1. "
            "Then multiply peak by it.": lambda step, peak, warmup: min(peak, (step + 1) / warmup),
            "At step `warmup` it still rises, above the peak. The warm-up is over there: `step < warmup`.": (
                lambda step, peak, warmup: peak * (step + 1) / warmup if step <= warmup else peak
            ),
            "The rate jumps from step to step: `//` cuts off what comes after the point. Use `/`.": (
                lambda step, peak, warmup: peak * min(1, (step + 1) // warmup)
            ),
            "peak is missing: this is only the factor, from 0 to 1.": lambda step, peak, warmup: min(
                1.0, (step + 1) / warmup
            ),
            "The first step has the rate 0, so nothing happens in it: (step + 1) / warmup.": (
                lambda step, peak, warmup: peak * min(1.0, step / warmup)
            ),
        },
    ),
)

MIX, MIX_2 = np.random.default_rng(9).normal(size=(2, 4, 4))


def _through(function, x):
    return {"the result": function(x, lambda x: np.tanh(x @ MIX), lambda x: np.sin(x @ MIX_2))}


check.add(
    "cure_f",
    Exercise(
        block,
        [
            (np.random.default_rng(10).normal(size=(2, 3, 4)),),
            (np.random.default_rng(11).normal(size=(1, 4)),),
        ],
        {
            STILL_SICK + "Both parts replace x. They must add to it: x + attention(x), "
            "and then the same with mlp.": _sick_block,
            "Attention's result is added, but the MLP's still replaces x.": lambda x, attention, mlp: mlp(
                x + attention(x)
            ),
            "The MLP's result is added, but attention's still replaces x.": lambda x, attention, mlp: (
                attention(x) + mlp(attention(x))
            ),
            "The MLP reads x from before attention.": lambda x, attention, mlp: x + attention(x) + mlp(x),
            "Attention's result is lost: the MLP's is added to the old x.": lambda x, attention, mlp: (
                x + mlp(x + attention(x))
            ),
            "MLP and attention have changed places.": lambda x, attention, mlp: (
                x + mlp(x) + attention(x + mlp(x))
            ),
            "The MLP reads only what attention found. It should read the sum.": lambda x, attention, mlp: (
                x + attention(x) + mlp(attention(x))
            ),
            "Nothing is added to x.": lambda x, attention, mlp: x,
            "The MLP is missing.": lambda x, attention, mlp: x + attention(x),
            "Attention is missing.": lambda x, attention, mlp: x + mlp(x),
            "x is added twice.": lambda x, attention, mlp: x + (x + attention(x)) + mlp(x + attention(x)),
        },
        _through,
    ),
)

# --- pictures -------------------------------------------------------------------------------------

DEPTHS = [colormaps["viridis"](at) for at in np.linspace(0, 0.9, L + 1)]


def dashboard(patient, healthy, references, title):
    """Six panels: the patient in colours (dark: embedding, light: last block), the healthy run in grey."""
    figure, ((loss, sizes, ratios), (flow, flow_healthy, stream)) = panels(3, 2, width=10, height=5.8)
    _loss(loss, patient, healthy, references)
    _over_steps(sizes, patient.gradient_sizes, healthy.gradient_sizes)
    sizes.set(title="size of the gradients", xlabel="step")
    _over_steps(ratios, patient.ratios, healthy.ratios)
    ratios.axhline(1e-3, color=RED, ls=":", lw=1)
    ratios.text(0, 1e-3, "1/1000", color=RED, fontsize=7, va="bottom")
    ratios.set(title="update-to-weight ratio", xlabel="step")
    edges = np.linspace(-13, 1, 60)
    for ax, record, name in ((flow, patient, "this patient"), (flow_healthy, healthy, "healthy")):
        for values, color, group in zip(record.gradients, DEPTHS, GROUPS, strict=True):
            if values.size:
                density, _ = np.histogram(values, edges, density=True)
                ax.plot(edges[:-1], density, color=color, lw=1.3, label=group)
        ax.set(title=f"gradient flow, {name}", xlabel="log₁₀ |gradient|", yticks=[])
    flow.set_xlim(flow_healthy.set_xlim(-13, 1))
    flow_healthy.legend(fontsize=7, loc="upper left")
    for record, color, name in ((healthy, GREY, "healthy"), (patient, BLUE, "patient")):
        rms = [np.sqrt(np.mean(x.astype(float) ** 2)) for x in record.streams]
        stream.semilogy(rms, "o-", color=color, label=name)
    stream.set(title="size of the residual stream", ylim=(0.01, 1e4), xticks=range(L + 1))
    stream.set_xticklabels(["emb.", *range(1, L + 1)])
    stream.legend()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return Picture(figure, f"dashboard of {title}")


def _loss(axes, patient, healthy, references):
    axes.plot(healthy.losses, color=GREY, lw=1, label="healthy")
    axes.plot(patient.losses, color=BLUE, lw=1.2, label="patient")
    for value in references.values():
        axes.axhline(value, color=GREY, ls="--", lw=0.7)
    axes.set(
        title="loss (dashed: ln V, singles, pairs)",
        xlabel="step",
        ylim=(0, min(14, 1.1 * max(5, *patient.losses))),
    )
    axes.legend(fontsize=8)


def _over_steps(axes, patient, healthy):
    """A line per group in logarithms, and the range of the healthy groups in grey."""
    steps = np.arange(len(healthy))
    axes.fill_between(steps, healthy.min(1), healthy.max(1), color=GREY, alpha=0.35, lw=0)
    for values, color in zip(patient.T, DEPTHS, strict=True):
        if values.any():
            axes.plot(np.where(values > 0, values, np.nan), color=color, lw=0.9)
    axes.set_yscale("log")


def plot_treatment(sick, treated, healthy, title):
    """The loss before and after."""
    figure, axes = panels(width=6.5, height=2.4)
    axes.plot(healthy.losses, color=GREY, lw=4, alpha=0.4, label="healthy")
    axes.plot(sick.losses, color=RED, lw=1, label="sick")
    axes.plot(treated.losses, color=BLUE, lw=1.3, label="with your cure")
    axes.set(title=title, xlabel="step", ylabel="loss", ylim=(0, min(14, 1.1 * max(5, *sick.losses))))
    axes.legend(fontsize=8)
    return Picture(figure, title)
