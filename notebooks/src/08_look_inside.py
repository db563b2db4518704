# %% [markdown]
# # 8. Look inside
#
# The model of notebook 7 writes. *How?* Nobody programmed it, but every number in it is there for you to read, switch off
# and measure. Here you do three small experiments that researchers do on large models: you read where heads look, you
# switch parts off, and you ask each layer what it would say.
#
# **You will write** three functions of 1 to 4 lines. **You need** notebooks 6 and 7. If you have not trained the model
# there, a smaller one is trained now, in 20 seconds. About 45 minutes.

# %%
import numpy as np

import autograd as ag
from workbook import corpus
from workbook.inside import (
    attention_weights,
    check,
    open_model,
    plot_ablation,
    plot_lens,
    plot_losses_by,
    plot_maps,
    plot_profiles,
)
from workbook.softmax import entropies, softmax

# %% tags=["varies"]
name, text = corpus.load()
model, tokenizer = open_model(text)
config = model.config
characters, V, T = tokenizer.chars, config.vocab_size, config.block_size
print(f"{config.n_layer} blocks, {config.n_head} heads each, {config.n_embd} channels.")

# %%
cut = int(0.9 * len(text))
train, validation = tokenizer.encode(text[:cut]), tokenizer.encode(text[cut:])
references = entropies(train, V)
del references["guessing (ln V)"]
starts = np.linspace(0, len(validation) - T - 1, 60).astype(int)
windows = validation[starts[:, None] + np.arange(T + 1)]
ids, targets = windows[:, :-1], windows[:, 1:]  # text that the model has never seen

# %% [markdown]
# ## A forward pass with windows in it
#
# This is notebook 7's model once more, with the library's layers, except that it keeps what passes by: the residual
# stream after the embedding and after each block, and the attention weights. `change` may change a part's result on the
# way.


# %%
def run(ids, change=lambda part, block, result: result):
    """(logits, streams, maps): streams a list of (B, T, C), maps a list of (B, H, T, T)."""
    t = model.transformer
    changed = lambda part, i, x: ag.Tensor(change(part, i, x.data))
    with ag.no_grad():
        x = t.wte(ids) + t.wpe.weight[: ids.shape[1]]
        streams, maps = [x.data], []
        for i, block in enumerate(t.h):
            qkv = block.attn.c_attn(block.ln_1(x))
            maps.append(attention_weights(qkv.data, config.n_head))
            heads = changed("heads", i, ag.causal_attention(qkv, config.n_head))  # (B, T, C)
            x = x + block.attn.c_proj(heads)
            hidden = block.mlp.c_fc(block.ln_2(x))
            x = x + changed("mlp", i, block.mlp.c_proj(hidden))
            streams.append(x.data)
        return model.head(t.ln_f(x)), streams, maps


logits, streams, maps = run(ids)
with ag.no_grad():
    print(
        "the same logits as the model's own:", np.allclose(logits.data, model(ids).data, atol=1e-4)
    )


# %%
def loss(logits):
    return ag.cross_entropy(logits, targets).item()


print("better than pairs:", loss(logits) < references["pairs"])

# %% [markdown]
# ## Where does a head look?
#
# Each row below is a position, each column a position it may look at. Dark means: from here it takes much.
#
# **Predict.** To say the next letter of a word, where would *you* look? What would you expect in the first block, what in
# the last?

# %% tags=["varies"]
at = text.index("\n\n", cut) + 2
snippet = text[at : at + 22]
_, _, few = run(tokenizer.encode(snippet)[None])
plot_maps([weights[0] for weights in few], snippet)

# %% [markdown]
# Typical patterns: a stripe just below the diagonal (a head that looks *one back*); a broad band over the last few
# characters; columns, where all positions look at the same place, often a space, a line break or the first character. A
# head that has nothing to say must look *somewhere*, because its row adds up to 1. Such a resting place is called an
# **attention sink**.
#
# One text proves little. So measure it, over many.
#
# ### Exercise 1: how far back?


# %%
def looking_back(weights, distance):
    """For each head the mean weight on the place `distance` back: (B, H, T, T) -> (H,)."""
    # BEGIN SOLUTION
    return np.diagonal(weights, offset=-distance, axis1=-2, axis2=-1).mean(axis=(0, 2))
    # END SOLUTION


looking_back = check(looking_back)

# %% [markdown]
# <details><summary>Hint 1</summary>Position t looks at t − distance: row t, column t − distance. All those places form a
# diagonal.</details>
# <details><summary>Hint 2</summary><code>np.diagonal(weights, offset=..., axis1=-2, axis2=-1)</code> has the shape
# (B, H, T − distance). Below the main diagonal, offsets are negative.</details>
# <details><summary>Hint 3</summary>The mean over axes 0 and 2.</details>

# %% tags=["varies"]
profiles = [[looking_back(weights, d) for d in range(12)] for weights in maps]
plot_profiles(profiles)

# %% [markdown]
# Curves with a peak at 1, 2 or 3 belong to heads that pick out one place. Together they let the next layer see the last few
# characters *in order*. Flat curves belong to heads that choose by content, or that rest.
#
# ## Switch it off
#
# That a head looks somewhere does not prove that it matters. To know, take the head away and see what breaks: an
# **ablation**. The result of attention has the heads side by side, head 0 in the first $D = C / H$ channels, head 1 in
# the next, and so on. Set a head's channels to 0 before `c_proj`, and nothing of what it found gets into the stream.
#
# ### Exercise 2: ablate a head


# %%
def without_head(heads, head, n_head):
    """A copy of heads (B, T, C) in which this head's channels are 0."""
    # BEGIN SOLUTION
    D = heads.shape[-1] // n_head
    heads = heads.copy()
    heads[..., head * D : (head + 1) * D] = 0
    return heads
    # END SOLUTION


without_head = check(without_head)

# %% [markdown]
# <details><summary>Hint 1</summary>Each head has <code>D = C // n_head</code> channels, all in one piece.</details>
# <details><summary>Hint 2</summary>Work on <code>heads.copy()</code>; the original is still needed.</details>
# <details><summary>Hint 3</summary><code>heads[..., head * D : (head + 1) * D] = 0</code></details>
#
# **Predict.** Which head's loss will hurt most? Write down your guess, counting from 1 as in the pictures. And which costs
# more: a whole block's attention, or its MLP?

# %% tags=["varies"]
my_guess = (2, 3)  # (block, head)


def cost(part, block, change):
    """How much the loss grows if `change` is applied to this part of this block."""
    here = lambda p, i, x: change(x) if (p, i) == (part, block) else x
    return loss(run(ids, here)[0]) - loss(logits)


costs = {}
for i in range(config.n_layer):
    for h in range(config.n_head):
        off = lambda x, h=h: without_head(x, h, config.n_head)
        costs[f"{i + 1} head {h + 1}"] = cost("heads", i, off)
    costs[f"{i + 1} all heads"] = cost("heads", i, np.zeros_like)
    costs[f"{i + 1} MLP"] = cost("mlp", i, np.zeros_like)
plot_ablation(costs)

# %% tags=["varies"]
by_cost = sorted((name for name in costs if " head " in name), key=costs.get, reverse=True)
mine = f"{my_guess[0]} head {my_guess[1]}"
print(f"costs most: block {by_cost[0]}; costs least: block {by_cost[-1]}")
print(f"your guess, block {mine}, is number {by_cost.index(mine) + 1} of {len(by_cost)}")

# %%
print("losing the first block's heads costs something:", costs["1 all heads"] > 0.05)

# %% [markdown]
# Compare with the profiles above: the costly heads are mostly those with a peak. Now add up the costs of a block's
# single heads and compare the sum with *all heads* of that block. They do not agree. Heads can replace each other, or
# work only together. "What is this head responsible for?" has no simple answer. So be careful with nice stories about
# heads.
#
# ## What would each layer say?
#
# All blocks write into the same stream, and the head reads that stream at the end. So we can also read it *earlier*:
# take the stream after any block, apply the last norm and the head, and see what the model would say if it stopped
# thinking here. This is called the **logit lens**.
#
# ### Exercise 3: the logit lens


# %%
def logit_lens(x, norm, head):
    """Probabilities (B, T, V) of the next character, read from the stream x (B, T, C)."""
    # BEGIN SOLUTION
    return softmax(head(norm(x)))
    # END SOLUTION


logit_lens = check(logit_lens)

# %% [markdown]
# <details><summary>Hint 1</summary>What does the model itself do with x after the last block?</details>
# <details><summary>Hint 2</summary>First <code>norm</code>, then <code>head</code>: that gives logits.</details>
# <details><summary>Hint 3</summary><code>softmax(...)</code> makes probabilities of them, along the last axis.</details>

# %%
last_norm = lambda x: model.transformer.ln_f(ag.Tensor(x)).data
head = lambda x: model.head(ag.Tensor(x)).data

said = softmax(logits.data)
after_last = logit_lens(streams[-1], last_norm, head)
print("after the last block it is what the model says:", np.allclose(after_last, said, atol=1e-5))

# %% [markdown]
# **Predict.** The stream after the embedding knows only the character itself and where it stands. What can it say at best?

# %% tags=["varies"]
piece = text[at : at + 31]
_, stages, _ = run(tokenizer.encode(piece[:-1])[None])
lenses = [logit_lens(x, last_norm, head)[0] for x in stages]
plot_lens(lenses, piece[:-1], piece[1:], characters)

# %% [markdown]
# Each row is a stage, each cell the character it finds most likely; the darker, the surer. Green and bold: this is what
# really came. From top to bottom opinions change, mostly for the better, and mostly in the middle of words.
#
# The same as one number per stage, over all sixty windows:

# %% tags=["varies"]
p_next = [
    np.take_along_axis(logit_lens(x, last_norm, head), targets[..., None], -1) for x in streams
]
stage_losses = [-np.log(p).mean() for p in p_next]
names = ["embedding"] + [f"block {i + 1}" for i in range(config.n_layer)]
plot_losses_by(stage_losses, names, references, "read after")

# %% [markdown]
# The first point surprises many: far above even the single characters. The embedding is *not* a bigram model. `wte`
# serves as the head, too, so a stream that holds just the character's own row points at the same character again: the
# lens says "once more", and is sure of it. The first block has to turn *what I have read* into *what comes next*.
#
# ## How much past does it use?
#
# At the first place of a window the model knows one character, at the last it knows all $T$.
#
# **Predict** the loss over the place in the window. Where does it begin? (You know a model that sees one character.) How far
# to the right does it still fall?

# %% tags=["varies"]
many = np.random.default_rng(0).integers(len(validation) - T, size=1500)[:, None] + np.arange(T + 1)
with ag.no_grad():
    log_p = ag.log_softmax(model(validation[many[:, :-1]])).data
of_target = np.take_along_axis(log_p, validation[many[:, 1:]][..., None], -1)
plot_losses_by(-of_target.mean((0, 2)), None, references, "place in the window")

# %% [markdown]
# It starts near the pairs' line, as a model with one character must. Then every further character helps, the first few
# most. After about ten there is little more to gain, for *this* model: to spell, it needs the length of a word. Larger
# models go on falling for thousands of places, because they have learned what a plot is.
#
# ## Break it and watch
#
# **Predict.** What happens if you do not switch a head off, but give it the *average* of all that it found? If you
# exchange the channels of two heads? If the positions are off by one?


# %% tags=["varies"]
def swapped(x):
    """The first two heads exchanged."""
    first, second, *others = np.split(x, config.n_head, axis=-1)
    return np.concatenate([second, first, *others], axis=-1)


wpe = model.transformer.wpe.weight.data
right = wpe.copy()
print(f"as it is: {loss(logits):.2f}")
print(f"first block's heads 1 and 2 exchanged: +{cost('heads', 0, swapped):.2f}")
mean = lambda x: np.broadcast_to(x.mean((0, 1)), x.shape)
print(f"first block's heads say their average: +{cost('heads', 0, mean):.2f}")
print(f"first block's heads off:               +{cost('heads', 0, np.zeros_like):.2f}")
wpe[:] = np.roll(right, 1, axis=0)
print(f"positions off by one:                  +{loss(run(ids)[0]) - loss(logits):.2f}")
wpe[:] = np.random.default_rng(0).permutation(right)
print(f"positions shuffled:                    +{loss(run(ids)[0]) - loss(logits):.2f}")
wpe[:] = right

# %% [markdown]
# Off by one costs less than shuffled: what matters most is who stands *next to* whom. With shuffled positions, the
# heads that look one back no longer find their neighbour. That is even worse than no attention at all in the first
# block.
#
# ## In the library
#
# The model is [`tinygpt/model.py`](../tinygpt/model.py); `run` above is its forward pass, with windows in it. It was
# loaded by [`tinygpt/run/checkpoint.py`](../tinygpt/run/checkpoint.py), which reads nothing that could run code. Open
# your own in the same way: `checkpoint.load_for_sampling("runs/NAME")`. Bigger ones have more to show; those from
# `python train.py` fit in here unchanged.
#
# ## What you have now
#
# - Three instruments: maps and profiles (where it looks), ablation (what it needs), the logit lens (what it thinks so far).
# - Caution: a picture suggests, an ablation measures, and even a measurement can be read in more than one way.
#
# Next: [9. Bug clinic](09_bug_clinic.ipynb). You know how a healthy model looks. Now for the sick ones.
