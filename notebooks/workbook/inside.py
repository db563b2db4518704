"""Notebook 8: look inside a trained GPT."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from autograd.ops.attention import split_heads
from tinygpt.config import UserError
from tinygpt.run import checkpoint
from workbook.attention import causal_weights
from workbook.checking import Checks, Exercise, random_arrays
from workbook.gpt import FOLDER
from workbook.pictures import BLUE, GOLD, GREEN, RED, Picture, panels, reference_lines, with_values
from workbook.softmax import name_of, softmax

check = Checks()
normal = random_arrays(8)
COLORS = (BLUE, RED, GREEN, GOLD)


# --- the model ------------------------------------------------------------------------------------


def open_model(text):
    """(GPT, tokenizer) that notebook 7 saved. If there is none for this text, train a smaller one now."""
    try:
        model, tokenizer, state = checkpoint.load_for_sampling(FOLDER)
        tokenizer.encode(text)
        print(f"The model of notebook 7, after {state['step']} steps.")
        return model, tokenizer
    except UserError:
        print("No model of notebook 7 for this text. Training a small one (20 seconds) ...")
    return train_small_one()


def train_small_one():
    """(GPT, tokenizer) from the library's own train.py, run for a moment."""
    shape = "--preset laptop --n-layer 2 --n-head 4 --n-embd 64 --block-size 64 --batch-size 12"
    course = "--max-steps 450 --warmup-steps 50 --eval-interval 450 --eval-iters 5 --sample-tokens 0"
    train = Path(__file__).resolve().parents[2] / "train.py"
    options = [*shape.split(), *course.split(), "--out", str(FOLDER), "--overwrite"]
    subprocess.run([sys.executable, str(train), *options], check=True, capture_output=True)
    return checkpoint.load_for_sampling(FOLDER)[:2]


def attention_weights(qkv, n_head):
    """The weights (B, H, T, T) that causal attention gives; a row for each position, adding up to 1."""
    q, k, _ = split_heads(qkv, 3, n_head)  # (B, T, 3C) -> (B, H, T, D) each
    return causal_weights(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))


# --- looking_back ---------------------------------------------------------------------------------


def looking_back(weights, distance):
    return np.diagonal(weights, -distance, -2, -1).mean((0, 2))  # (B, H, T - distance) -> (H,)


def _attention(B, H, T):
    return attention_weights(normal(B, T, 3 * H * 2), H)


check.add(
    "looking_back",
    Exercise(
        looking_back,
        [
            (_attention(2, 3, 5), 1),
            (_attention(3, 3, 6), 2),
            (_attention(1, 4, 4), 0),
            (_attention(2, 2, 4), 3),
        ],
        {
            "offset=+distance is above the diagonal: the future, where all weights are 0. "
            "The past is below, at -distance.": (lambda w, d: np.diagonal(w, d, -2, -1).mean((0, 2))),
            "This is how much a position looks at itself, whatever the distance: offset=-distance.": (
                lambda w, d: np.diagonal(w, 0, -2, -1).mean((0, 2))
            ),
            "You divide by all T rows, but the first `distance` rows have no position that far back. "
            "Take the mean of the diagonal: "
            "it knows its own length.": lambda w, d: np.diagonal(w, -d, -2, -1).sum(2).mean(0) / w.shape[-1],
            "That is the sum. Take the mean, so that the result is a share between 0 and 1.": (
                lambda w, d: np.diagonal(w, -d, -2, -1).sum((0, 2))
            ),
            "You averaged over the heads as well. Each head has its own number: "
            "the result has the shape (H,).": (lambda w, d: np.diagonal(w, -d, -2, -1).mean()),
            "Without axes, np.diagonal takes the first two, batch and heads. "
            "The weights of a head are in the last two: "
            "axis1=-2, axis2=-1.": lambda w, d: np.diagonal(w, -d).mean((0, 1)),
            "A column belongs to one fixed position. A fixed *distance* runs along a diagonal.": (
                lambda w, d: w[..., d].mean((0, 2))
            ),
            "This is one place too far back: the diagonal at -distance.": lambda w, d: (
                np.diagonal(w, -d - 1, -2, -1).mean((0, 2)) if d + 1 < w.shape[-1] else np.zeros(w.shape[1])
            ),
            "That is the largest weight at this distance. Take the mean.": lambda w, d: np.diagonal(
                w, -d, -2, -1
            ).max((0, 2)),
            "These are the weights of all places up to `distance` back. Take those exactly that far back.": (
                lambda w, d: (
                    sum(np.diagonal(w, -i, -2, -1).sum((0, 2)) / len(w) for i in range(d + 1)) / w.shape[-1]
                )
            ),
            "This is one number per text and head. Average over the batch, too.": lambda w, d: np.diagonal(
                w, -d, -2, -1
            ).mean(-1),
        },
    ),
)


# --- without_head ---------------------------------------------------------------------------------


def without_head(heads, head, n_head):
    heads = heads.copy()
    D = heads.shape[-1] // n_head
    heads[..., head * D : (head + 1) * D] = 0
    return heads


def _zeroed(which):
    """Heads with other channels set to 0."""

    def wrong(heads, head, n_head):
        heads = heads.copy()
        heads[which(head, n_head, heads.shape[-1] // n_head)] = 0
        return heads

    return wrong


def _only(heads, head, n_head):
    return heads - without_head(heads, head, n_head)


def _deleted(heads, head, n_head):
    D = heads.shape[-1] // n_head
    return np.delete(heads, np.s_[head * D : (head + 1) * D], axis=-1)


check.add(
    "without_head",
    Exercise(
        without_head,
        [(normal(2, 3, 8), 1, 4), (normal(1, 4, 6), 0, 2), (normal(2, 2, 9), 2, 3), (normal(1, 2, 4), 0, 1)],
        {
            "Only one channel is switched off. A head has D = C / n_head of them: "
            "from head·D to (head + 1)·D.": _zeroed(lambda head, n, D: (..., head)),
            "You took every n_head-th channel. The heads lie side by side, "
            "each with its D channels in one piece.": _zeroed(lambda head, n, D: (..., slice(head, None, n))),
            "The slice begins at `head`. "
            "It must begin at head·D, since each head before it has D channels.": _zeroed(
                lambda head, n, D: (..., slice(head, head + D))
            ),
            "You switched off everything *but* this head.": _only,
            "You switched off positions, or texts. Channels are the last axis: `heads[..., "
            "start:stop]`.": _zeroed(lambda head, n, D: (slice(None), slice(head * D, (head + 1) * D))),
            "The slice is as long as the number of heads. "
            "It should be D = C / n_head channels long.": _zeroed(
                lambda head, n, D: (..., slice(head * n, (head + 1) * n))
            ),
            "Heads are counted from 0: head 0 has the channels from 0 to D.": _zeroed(
                lambda head, n, D: (..., slice(max(0, head - 1) * D, head * D))
            ),
            "The slice ends one channel too early. `a:b` does not include b: (head + 1)·D.": _zeroed(
                lambda head, n, D: (..., slice(head * D, (head + 1) * D - 1))
            ),
            "Nothing is switched off.": lambda heads, head, n_head: heads.copy(),
            "That is the next head. Head 0 has the channels from 0 to D.": _zeroed(
                lambda head, n, D: (..., slice((head + 1) * D, (head + 2) * D))
            ),
            "All channels from this head on are off. The slice ends at (head + 1)·D.": _zeroed(
                lambda head, n, D: (..., slice(head * D, None))
            ),
            "-inf belongs into scores, before a softmax. Here channels are switched off: set them to 0.": (
                lambda heads, head, n_head: np.where(_only(heads, head, n_head) != 0, -np.inf, heads)
            ),
            "All heads are off. Set only the channels of this one to 0.": _zeroed(lambda head, n, D: ...),
            "The channels are gone. They must stay, as zeros. "
            "Without them the next layer does not fit.": _deleted,
        },
    ),
)


# --- logit_lens -----------------------------------------------------------------------------------


def logit_lens(x, norm, head):
    return softmax(head(norm(x)))


def _norm(x):
    return (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * np.linspace(0.5, 1.5, x.shape[-1])


HEAD = normal(4, 6)


def _softmax_of_all(x, norm, head):
    e = np.exp(head(norm(x)))
    return e / e.sum()


def _head(x):
    return x @ HEAD


check.add(
    "logit_lens",
    Exercise(
        logit_lens,
        [(3 * normal(2, 3, 4), _norm, _head), (0.1 * normal(1, 5, 4), _norm, _head)],
        {
            "The last norm is missing. "
            "The head has never seen a stream that was not normalised.": lambda x, norm, head: softmax(
                head(x)
            ),
            (
                "The last norm is missing.",
                "These are logits: the softmax is missing, too.",
            ): lambda x, norm, head: head(x),
            "These are logits. Turn them into probabilities: softmax.": lambda x, norm, head: head(norm(x)),
            "The head is missing: it turns C channels into V characters.": lambda x, norm, head: softmax(
                norm(x)
            ),
            "The softmax runs over the wrong axis: "
            "for each position, the probabilities of all V characters add up to 1.": (
                lambda x, norm, head: softmax(head(norm(x)).swapaxes(-1, -2)).swapaxes(-1, -2)
            ),
            "You keep only the last position. Look at all of them.": lambda x, norm, head: softmax(
                head(norm(x))
            )[:, -1],
            "These are exp(logits). Divide by their sum: softmax.": lambda x, norm, head: np.exp(
                head(norm(x))
            ),
            "Everything together adds up to 1. For each position the probabilities of all V characters do: "
            "softmax along the last axis.": _softmax_of_all,
            "norm twice. Once is enough.": lambda x, norm, head: softmax(head(norm(norm(x)))),
            "The softmax comes first. It comes last: softmax(head(norm(x))).": (
                lambda x, norm, head: head(norm(softmax(x)))
            ),
            "norm and head are in the wrong order: the last norm comes before the head.": (
                lambda x, norm, head: softmax(norm(head(x)))
            ),
            "That is the sigmoid, which takes each logit by itself. "
            "Over all V characters the probabilities must add up to 1: softmax.": lambda x, norm, head: (
                1 / (1 + np.exp(-head(norm(x))))
            ),
            "Softmax twice. Once is enough.": lambda x, norm, head: softmax(softmax(head(norm(x)))),
            "These are the most likely ids. Return the probabilities of all.": lambda x, norm, head: head(
                norm(x)
            ).argmax(-1),
            "These are the logarithms of the probabilities. "
            "Return the probabilities themselves.": lambda x, norm, head: np.log(softmax(head(norm(x)))),
        },
    ),
)


# --- pictures -------------------------------------------------------------------------------------


def plot_maps(maps, snippet):
    """Each head's attention on a snippet: maps is a list (per block) of (H, T, T)."""
    n_layer, n_head = len(maps), len(maps[0])
    figure, axes = panels(n_head, n_layer, width=10, height=2.6 * n_layer, squeeze=False)
    names = [name_of(c) for c in snippet]
    for i, row in enumerate(axes):
        for j, ax in enumerate(row):
            ax.imshow(maps[i][j] ** 0.5, cmap="Blues", vmin=0, vmax=1)
            ax.set(title=f"block {i + 1}, head {j + 1}", xticks=range(len(names)), yticks=range(len(names)))
            ax.set_xticklabels(names, fontsize=6.5, family="monospace")
            ax.set_yticklabels(names, fontsize=6.5, family="monospace")
            ax.tick_params(length=0, pad=1)
    return Picture(figure, "attention maps: rows look at columns")


def plot_profiles(profiles):
    """How much each head looks back by how far: profiles is a list (per block) of (distances, H)."""
    figure, axes = panels(len(profiles), width=10, height=2.8, sharey=True, squeeze=False)
    for i, (ax, profile) in enumerate(zip(axes[0], profiles, strict=True)):
        for head, (curve, color) in enumerate(zip(np.transpose(profile), COLORS, strict=False)):
            ax.plot(curve, "o-", color=color, ms=3, label=f"head {head + 1}")
        ax.set(title=f"block {i + 1}", xlabel="characters back")
    axes[0][0].set(ylabel="share of attention", ylim=(0, None))
    axes[0][-1].legend()
    return Picture(figure, "how far back each head looks")


def plot_ablation(costs):
    """What it costs to switch parts off: {name: increase of the loss}. Names begin with a block's number."""
    figure, axes = panels(width=9, height=3.2)
    names = list(costs)
    colors = [COLORS[(int(name.split()[0]) - 1) % len(COLORS)] for name in names]
    bars = axes.bar(range(len(names)), costs.values(), color=colors)
    axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.set(xticks=range(len(names)), ylabel="loss gained (nats)")
    axes.set_xticklabels([name.split(" ", 1)[1] for name in names], rotation=45, ha="right", fontsize=8)
    blocks = [int(name.split()[0]) for name in names]
    for block in sorted(set(blocks)):
        places = [i for i, b in enumerate(blocks) if b == block]
        axes.text(np.mean(places), 1.02, f"block {block}", ha="center", color=COLORS[(block - 1) % 4],
                  transform=axes.get_xaxis_transform())  # fmt: skip
    axes.axhline(0, color="k", lw=0.6)
    return Picture(figure, "loss gained when a part is switched off")


def plot_lens(probabilities, snippet, following, characters):
    """What each stage of the stream would say next: probabilities is a list (per stage) of (T, V)."""
    n = len(snippet)
    figure, axes = panels(width=10, height=0.7 + 0.42 * len(probabilities))
    best = np.array([p.argmax(-1) for p in probabilities])
    sure = np.array([p.max(-1) for p in probabilities])
    axes.imshow(sure, cmap="Oranges", vmin=0, vmax=2.2, aspect="auto")
    for (i, j), ident in np.ndenumerate(best):
        right = characters[ident] == following[j]
        axes.text(j, i, name_of(characters[ident]), ha="center", va="center", family="monospace", fontsize=10,
                  color="#0b5d2a" if right else "k", weight="bold" if right else "normal")  # fmt: skip
    stages = ["embedding"] + [f"block {i}" for i in range(1, len(probabilities))]
    axes.set(xticks=range(n), yticks=range(len(stages)), xlabel="it has just read", ylabel="")
    axes.set_yticklabels(stages)
    axes.set_xticklabels([name_of(c) for c in snippet], family="monospace")
    above = axes.secondary_xaxis("top")
    above.set(xticks=range(n), xlabel="what really came")
    above.set_xticklabels([name_of(c) for c in following], family="monospace", color="#0b5d2a")
    for side in (axes, above):
        side.tick_params(length=0)
    return Picture(figure, "the most likely next character after each block")


def plot_losses_by(values, labels, references, xlabel):
    """Losses over stages or positions, with reference lines."""
    figure, axes = panels(width=7, height=3)
    axes.plot(range(len(values)), values, "o-", color=BLUE, ms=4)
    reference_lines(axes, with_values(references))
    axes.set(xlabel=xlabel, ylabel="loss (nats)")
    if labels:
        axes.set(xticks=range(len(labels)))
        axes.set_xticklabels(labels)
    return Picture(figure, f"loss over {xlabel}")
