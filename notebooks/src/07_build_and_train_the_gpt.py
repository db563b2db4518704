# %% [markdown]
# # 7. Build and train the GPT
#
# Everything is on the table: tensors, softmax and cross entropy, layer norm, AdamW, attention. What is left is to put
# it together. A GPT is surprisingly little code. Getting it *right* is the hard part, because a wrong one still learns
# something. So here, too, we believe nothing before it is checked.
#
# **You will write** a batch, a block, the whole model, its first weights, a learning-rate schedule and the choice of the
# next character: six functions, 2 to 6 lines each. Then it trains, for about 90 seconds, and writes.
# **You need** notebooks 3 to 6. About 75 minutes.

# %%
import numpy as np

import autograd as ag
from workbook import corpus
from workbook.gpt import (
    Live,
    check,
    gpt_shapes,
    library_model,
    linear,
    norm,
    part,
    plot_block,
    plot_overfitting,
    plot_schedule,
    plot_temperatures,
    save,
    size,
)
from workbook.softmax import entropies, plot_losses

# %% tags=["corpus"]
name, text = corpus.load()
characters = sorted(set(text))
V = len(characters)
number = {c: i for i, c in enumerate(characters)}
ids = np.array([number[c] for c in text])
train, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
references = entropies(train, V)
for what, loss in references.items():
    print(f"{loss:.2f}  {what}")

# %% [markdown]
# Counted from the text itself, these are the losses to beat: knowing nothing, knowing how often each character comes, and
# knowing each pair. The last is as good as notebook 4's bigram can ever get.
#
# ## What it sees: windows
#
# The model reads windows of $T$ characters from random places. At each of the $T$ places it has to say what comes next, so
# one window holds $T$ lessons, and the targets are the same window moved on by one.
#
# ### Exercise 1: a batch


# %%
def batch(ids, starts, T):
    """Inputs (B, T) from places starts (B,) on; targets (B, T): at each place the id that follows."""
    # BEGIN SOLUTION
    windows = ids[starts[:, None] + np.arange(T + 1)]
    return windows[:, :-1], windows[:, 1:]
    # END SOLUTION


batch = check(batch)

# %% [markdown]
# <details><summary>Hint 1</summary><code>starts[:, None] + np.arange(n)</code> has a row of n places in a row for each
# start.</details>
# <details><summary>Hint 2</summary>Index <code>ids</code> with it. You need T + 1 ids per window.</details>
# <details><summary>Hint 3</summary>Inputs are all but the last column, targets all but the first.</details>

# %% tags=["corpus"]
x, y = batch(train, np.array([0]), 12)
show = lambda ids: repr("".join(characters[i] for i in ids))
print("reads   ", show(x[0]))
print("predicts", show(y[0]))

# %% [markdown]
# ## A block
#
# The heart of the model is the **residual stream**: $C$ numbers per position, which run from the first layer to the last.
# A block never replaces them. It reads a normalised copy, computes something, and *adds* the result.

# %%
plot_block()

# %% [markdown]
# Why add? Think of the way back. From notebook 2 you know that a sum hands its gradient on unchanged, to both sides. So
# the blue line is a motorway for gradients: the first block hears from the loss directly, however many blocks lie
# between. And that is why the norms stand on the side roads. On the blue line, every gradient would have to pass
# through them. (At the end of this notebook you can watch it, step by step.)
#
# The parameters are in a dictionary, named as in GPT-2. `linear(x, p, "mlp.c_fc")` and `norm(x, p, "ln_1")` look theirs up.
# Attention mixes between positions; the **MLP** then works on each position by itself: to $4C$ channels, a `gelu` (a
# smooth relu), and back.
#
# ### Exercise 2: the block


# %%
def attention(x, p, n_head):
    qkv = linear(x, p, "attn.c_attn")  # (B, T, C) -> (B, T, 3C)
    return linear(ag.causal_attention(qkv, n_head), p, "attn.c_proj")


def block(x, p, n_head):
    """x (B, T, C) after attention and after the MLP (mlp.c_fc, ag.gelu, mlp.c_proj)."""
    # BEGIN SOLUTION
    x = x + attention(norm(x, p, "ln_1"), p, n_head)
    h = ag.gelu(linear(norm(x, p, "ln_2"), p, "mlp.c_fc"))
    return x + linear(h, p, "mlp.c_proj")
    # END SOLUTION


block = check(block)

# %% [markdown]
# <details><summary>Hint 1</summary>Follow the picture: two side roads, each begins with a norm and ends in a plus.</details>
# <details><summary>Hint 2</summary><code>x = x + attention(norm(x, p, "ln_1"), p, n_head)</code></details>
# <details><summary>Hint 3</summary>The second reads the <i>new</i> x: norm ln_2, linear mlp.c_fc, ag.gelu, linear
# mlp.c_proj; and add.</details>
#
# ## The whole model
#
# In front: each character looks up a row of `wte`, and each position a row of `wpe`. (Attention by itself does not know who
# stands where.) Then the blocks, a last norm, and one logit per character. For those we use `wte` a second time: the logit of
# a character is how well the stream *points at its row*. The table is then used twice, so its gradient comes from both ends
# and adds up. Notebook 2 again.
#
# ### Exercise 3: the GPT
#
# `part(p, "h.0.")` gives you the parameters of the first block.


# %%
def gpt(ids, p, n_layer, n_head):
    """Logits (B, T, V) for ids (B, T)."""
    # BEGIN SOLUTION
    x = ag.embedding(p["wte.weight"], ids) + p["wpe.weight"][: ids.shape[1]]
    for i in range(n_layer):
        x = block(x, part(p, f"h.{i}."), n_head)
    return norm(x, p, "ln_f") @ p["wte.weight"].T
    # END SOLUTION


gpt = check(gpt)

# %% [markdown]
# <details><summary>Hint 1</summary><code>ag.embedding(table, ids)</code> looks rows up. Of <code>wpe.weight</code> take the
# first T rows; broadcasting does the rest.</details>
# <details><summary>Hint 2</summary>For each i: <code>x = block(x, part(p, f"h.{i}."), n_head)</code>.</details>
# <details><summary>Hint 3</summary>At the end: <code>norm(x, p, "ln_f") @ p["wte.weight"].T</code>. No softmax; the loss has
# one.</details>
#
# ## The first weights
#
# What should a network know before it has seen anything? Nothing, and it should know that it knows nothing: all characters
# about equally likely.
#
# **Predict.** What is the loss then? And with weights that are much too large?
#
# GPT-2's recipe: biases 0, norm weights 1, matrices normal with a standard deviation of 0.02. One more thing. Every block
# adds to the stream twice, through `attn.c_proj` and `mlp.c_proj`. The *variances* of $2L$ independent contributions add up,
# so with $L$ blocks the stream would grow like $\sqrt{2L}$. Those matrices therefore start smaller, by that factor.
#
# ### Exercise 4: first weights


# %%
def initial(name, shape, n_layer, rng):
    """First values of a parameter. Matrices: std * rng.normal(size=shape)."""
    # BEGIN SOLUTION
    if name.endswith("bias"):
        return np.zeros(shape)
    if "ln_" in name:
        return np.ones(shape)
    std = 0.02
    if name.endswith("c_proj.weight"):
        std = 0.02 / np.sqrt(2 * n_layer)
    return std * rng.normal(size=shape)
    # END SOLUTION


initial = check(initial)

# %% [markdown]
# <details><summary>Hint 1</summary>Four cases: names ending in <code>bias</code>; names with <code>ln_</code> in them; names
# ending in <code>c_proj.weight</code>; all others.</details>
# <details><summary>Hint 2</summary><code>np.zeros(shape)</code>, <code>np.ones(shape)</code>, and normal numbers.</details>
# <details><summary>Hint 3</summary>For c_proj the standard deviation is <code>0.02 / np.sqrt(2 * n_layer)</code>.</details>
#
# Now there is a model. The numbers below fit into about 90 seconds of training on two cores; in your own experiments,
# change them.


# %% tags=["varies"]
C, L, H, T, rows, steps = size()


def new_model(V, T, C, L, dtype=np.float32, scale=1.0):
    rng, shapes = np.random.default_rng(0), gpt_shapes(V, T, C, L)
    start = lambda name: scale * initial(name, shapes[name], L, rng)
    return {n: ag.Tensor(start(n).astype(dtype), requires_grad=True) for n in shapes}


model = new_model(V, T, C, L)
print(f"{L} blocks, {H} heads each, {C} channels, windows of {T} characters:")
print(f"{sum(p.size for p in model.values()):,} parameters in {len(model)} arrays")

# %% [markdown]
# ## Three tests before any training
#
# **First: does it start at $\ln V$?** A model whose loss starts elsewhere has an opinion before it has seen any text.

# %% tags=["corpus"]
x, y = batch(train, np.arange(0, 64_000, 1000), T)
for scale in (1.0, 10.0):
    with ag.no_grad():
        loss = ag.cross_entropy(gpt(x, new_model(V, T, C, L, scale=scale), L, H), y).item()
    verdict = "as it should be" if abs(loss - np.log(V)) < 0.1 else "confidently wrong"
    print(f"weights times {scale:.0f}: {verdict}")

# %% [markdown]
# **Second: is every slope right?** Your pieces were checked one by one; now check the whole. Take a tiny GPT in
# float64, and nudge every single one of its parameters, as in notebook 1. The library's check does it here, with a
# random upstream gradient.

# %%
tiny = new_model(V=5, T=4, C=4, L=2, dtype=np.float64, scale=20.0)
tiny_ids = np.array([[0, 3, 1, 1], [4, 2, 2, 0]])
names = list(tiny)
whole = lambda *values: gpt(tiny_ids, dict(zip(names, values)), 2, 2)
ag.gradcheck(whole, *tiny.values(), rtol=1e-5)
print(f"all {sum(p.size for p in tiny.values())} slopes agree with nudging")

# %% [markdown]
# **Third: can it learn one batch by heart?** A model with thousands of parameters must be able to memorise a few lines, and
# bring the loss close to 0. If it cannot, something between data and update is broken, and no amount of training will help.
# It takes seconds, and finds more bugs than any other test.


# %%
def train_step(p, optimizer, x, y, L, H):
    """One update of the weights; returns the loss before it."""
    optimizer.zero_grad()
    loss = ag.cross_entropy(gpt(x, p, L, H), y)
    loss.backward()
    optimizer.clip_grad_norm(1.0)
    optimizer.step()
    return loss.item()


small = new_model(V, T=32, C=32, L=2)
optimizer = ag.AdamW(small.values(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
x, y = batch(train, np.array([0, 500, 1000, 1500]), 32)
losses = [train_step(small, optimizer, x, y, 2, 4) for _ in range(200)]
print("learned by heart:", losses[-1] < 0.1)
plot_overfitting(losses, np.log(V))

# %% [markdown]
# ## How fast to learn, and when
#
# AdamW's averages are worth little in the first steps, so the learning rate rises along a straight line to its peak
# (the **warm-up**): at step 0 it is $\text{peak}/\text{warmup}$, at step 1 twice that, and so on. Later, near the
# bottom of the valley, long steps only jump from one side to the other. So it falls along half a cosine, down to
# `lowest` at step `last`:
#
# $$\text{lowest} + (\text{peak} - \text{lowest}) \cdot \tfrac12 \Big(1 + \cos\big(\pi \, \tfrac{\text{step} - \text{warmup}}{\text{last} - \text{warmup}}\big)\Big)$$
#
# ### Exercise 5: the schedule


# %%
def learning_rate(step, peak, warmup, last, lowest):
    """The learning rate of a step (0, 1, ...): a linear warm-up, then half a cosine."""
    # BEGIN SOLUTION
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (last - warmup)
    return lowest + (peak - lowest) * (1 + np.cos(np.pi * progress)) / 2
    # END SOLUTION


learning_rate = check(learning_rate)

# %% [markdown]
# <details><summary>Hint 1</summary>Two cases: <code>step &lt; warmup</code>, and the rest.</details>
# <details><summary>Hint 2</summary>Rising: <code>peak * (step + 1) / warmup</code>. With <code>step / warmup</code> the first
# step would be wasted.</details>
# <details><summary>Hint 3</summary>Falling: <code>progress</code> goes from 0 to 1; put it into the formula.</details>

# %%
plot_schedule(lambda step: learning_rate(step, 4e-3, 100, 1500, 2e-4), last=1500, warmup=100)

# %% [markdown]
# ## Letting it speak
#
# The model gives a probability to each character. To write, draw one, append it, ask again. Two knobs:
#
# - **Temperature**: divide the logits by it. Below 1 the likely becomes likelier; above 1 the model gets adventurous.
# - **Top k**: keep the $k$ most likely characters. The many others are unlikely one by one, but together they come up often
#   enough to spoil a text.
#
# **Predict.** What comes out at a temperature near 0?

# %%
logits = np.random.default_rng(3).normal(size=20) * 1.5
plot_temperatures(logits, [(1.0, 20), (0.5, 20), (2.0, 20), (1.0, 5)])

# %% [markdown]
# ### Exercise 6: the next character
#
# To draw with a random number $u$ between 0 and 1: put the probabilities one after another on a line from 0 to 1, and
# see in whose part $u$ falls. `np.searchsorted(np.cumsum(p), u, side="right")` does exactly that.


# %%
def choose(logits, temperature, top_k, u):
    """One id, drawn with the number u from logits (V,), of which only the top_k largest count."""
    # BEGIN SOLUTION
    logits = logits / temperature
    logits[logits < np.sort(logits)[-top_k]] = -np.inf
    e = np.exp(logits - logits.max())
    return int(np.searchsorted(np.cumsum(e / e.sum()), u, side="right"))
    # END SOLUTION


choose = check(choose)

# %% [markdown]
# <details><summary>Hint 1</summary>Divide by the temperature; make all but the top k impossible; softmax; draw.</details>
# <details><summary>Hint 2</summary>The k-th largest logit is <code>np.sort(logits)[-top_k]</code>. Set those below it to
# <code>-np.inf</code>: e to that power is 0.</details>
# <details><summary>Hint 3</summary>Subtract the maximum before exp (notebook 4).</details>


# %%
def write(p, n, prompt="\n", temperature=0.8, top_k=20, seed=0):
    """n characters that continue the prompt."""
    said = [number[c] for c in prompt]
    for u in np.random.default_rng(seed).random(n):
        with ag.no_grad():
            logits = gpt(np.array([said[-T:]]), p, L, H).data[0, -1]
        said.append(choose(logits, temperature, top_k, u))
    return "".join(characters[i] for i in said[len(prompt) :])


# %% [markdown]
# ## Train it
#
# **Predict.** Where does the curve start? When will it cross the line of the single characters, and when that of the
# pairs? At which loss will you first recognise a word?
#
# Then run, and watch. The picture is drawn again and again as it goes.

# %% tags=["varies"]
optimizer = ag.AdamW(model.values(), betas=(0.9, 0.98), weight_decay=0.1)
rng, live = np.random.default_rng(0), Live(references, steps)
live.show(write(model, 300))
for step in range(steps):
    x, y = batch(train, rng.integers(len(train) - T, size=rows), T)
    optimizer.groups[0]["lr"] = learning_rate(step, 4e-3, 100, steps, 2e-4)
    live.losses.append(train_step(model, optimizer, x, y, L, H))
    if len(live.losses) in (20, 100) or len(live.losses) % 150 == 0:
        live.show(write(model, 300))


# %%
def loss_on(ids, model, L, H, windows=100):
    """The mean loss over some windows, evenly spread over a text."""
    starts = np.linspace(0, len(ids) - T - 1, windows).astype(int)
    with ag.no_grad():
        x, y = batch(ids, starts, T)
        return ag.cross_entropy(gpt(x, model, L, H), y).item()


unseen = loss_on(validation, model, L, H)
print("clearly better than pairs, on text it has never seen:", unseen < references["pairs"] - 0.1)

# %% tags=["varies"]
print(f"training text {loss_on(train, model, L, H):.2f}, unseen text {unseen:.2f}")
for step, sample in live.samples.items():
    if step in (0, 20, 100, 300, 600, steps):
        print(f"\n--- after {step} steps ---\n{sample[:120].strip()}")

# %% [markdown]
# Read the samples from top to bottom. First noise; then the right letters in no order; then spaces at the right
# distance; then syllables, line breaks, names in capitals with a colon; finally words. Nobody told it what a word is.
# And each of those steps came from the same move: *what it said minus what came*, pulled back through functions that
# you have written yourself.
#
# Play with the knobs:

# %% tags=["varies"]
for temperature, top_k in ((0.1, V), (0.8, 20), (1.5, V)):
    print(f"--- temperature {temperature}, top {top_k} ---")
    print(write(model, 160, temperature=temperature, top_k=top_k).strip(), "\n")

# %% [markdown]
# Near 0 it takes only the most likely character, and soon repeats itself. At 1.5 it takes too many unlikely ones.
#
# ## Break it and watch
#
# Four small models, each trained for a short time. **Predict** each curve before you look: one as it should be; one
# without positions; one whose weights start five times too large; and one whose targets were not moved on by one.


# %%
def short_run(n=150, T=32, C=32, L=2, H=4, scale=1.0, positions=True, shift=1):
    p = new_model(V, T, C, L, scale=scale)
    if not positions:
        p["wpe.weight"] = ag.Tensor(np.zeros((T, C), np.float32))
    trained = [q for q in p.values() if q.requires_grad]
    optimizer, rng, losses = ag.AdamW(trained, lr=5e-3), np.random.default_rng(0), []
    for _ in range(n):
        x, y = batch(train, rng.integers(len(train) - T, size=12), T)
        losses.append(train_step(p, optimizer, x, y if shift else x, L, H))
    return np.convolve(losses, np.ones(5) / 5, "valid")


curves = {
    "as it should be": short_run(),
    "targets = inputs": short_run(shift=0),
    "no positions": short_run(positions=False),
    "weights × 5": short_run(scale=5.0),
}
plot_losses(curves, references, ylim=(0, 8))

# %% [markdown]
# - **Targets not moved on**: a wonderful curve, and worthless. The model repeats what it has just read. A loss *far below*
#   what is plausible is as much a symptom as one that is too high.
# - **Weights × 5** starts high up, sure of things it cannot know, and spends its time unlearning them.
# - **No positions**: hardly any difference here! A short run learns mostly pairs, and for those the last character is enough.
#   Some bugs show only later. Your check of exercise 3 found it at once.
#
# ## Keep it
#
# Your parameters have the names of GPT-2's, so the library's own model can take them over. Does it agree with yours?

# %%
twin = library_model(model, V, T, C, L, H)
x, y = batch(validation, np.array([0, 1000]), T)
with ag.no_grad():
    same = np.allclose(twin(x).data, gpt(x, model, L, H).data, atol=1e-4)
print("the library's GPT gives the same logits:", same)
folder = save(twin, ag.AdamW(twin.parameters()), characters, steps)

# %% [markdown]
# It is saved beside this notebook, in `runs/gpt`, where notebook 8 will find it. It is a checkpoint like any other, and the
# library's own sampler reads it: `python -m tinygpt sample notebooks/runs/gpt --prompt "ROMEO:"`.
#
# ## Step through all of it
#
# You have built every part of the way back, but never seen all of it. Here is a GPT that is small enough to look at every
# number: it reads OTHELL and should say THELLO. Its first weights are yours, only larger, so that there is something to
# see. The library's classes run them, because the player folds what belongs to one object (a block, its attention).
# Your own functions must give the same gradients:

# %% tags=["once"]
word = "OTHELLO"
alphabet = sorted(set(word))
spelled = np.array([[alphabet.index(c) for c in word]])  # (1, 7)
reads, predicts = spelled[:, :-1], spelled[:, 1:]

p = new_model(V=5, T=6, C=4, L=2)
for parameter in p.values():
    if parameter.ndim == 2:
        parameter.data *= 20
tiny_twin = library_model(p, V=5, T=6, C=4, n_layer=2, n_head=2)


def othello():
    """A whole GPT reads OTHELL and should say THELLO"""
    return tiny_twin.loss(reads, predicts)


film = ag.step_through(othello, model=tiny_twin)
ag.cross_entropy(gpt(reads, p, 2, 2), predicts).backward()
agree = [np.allclose(film.gradient(f"transformer.{n}"), p[n].grad, atol=1e-5) for n in p]
print(f"{sum(agree)} of {len(agree)} gradients are those of your functions")
film

# %% [markdown]
# → goes a step on. First look from afar, with both blocks folded: the loss hands back to the last norm, that to block `h.1`, that
# to `h.0`, and the table `wte.weight` gets its two parts, first from the logits, at the very end from the embedding.
# Then open a block with the small plus on its corner, or by `o`, and in it the attention or the MLP. With *follow into
# modules* the player stops at every single step, and opens what it needs.
#
# **Find** these, all of which you have written yourself:
#
# - in a block, the two places where the gradient of the side road and that of the motorway add up;
# - `causal_attention`, and inside it the gradient of `scores`, your `ds`;
# - the embedding: L is read twice, so its row of the table gets the sum of two rows.
#
# `residual_linear` is your `x + linear(h)` in one operation, and `linear` may hold the `gelu`. Every operation with a plus can
# be opened, down to sums and products. `film.save("gpt.html")` makes a page of it, and `print(film)` a list.
#
# ## In the library
#
# [`tinygpt/model.py`](../tinygpt/model.py) is what you wrote, as classes. [`train.py`](../train.py) is your loop, with
# evaluation, checkpoints and resuming around it. [`tinygpt/parallel/workers.py`](../tinygpt/parallel/workers.py)
# spreads a batch over all cores. [`tinygpt/generate.py`](../tinygpt/generate.py) keeps the keys and values of past
# positions; `write` computes them again for each new character. `python train.py` takes three minutes and reaches 1.6.
#
# ## What you have now
#
# - A GPT of your own, every slope of it checked.
# - Three tests to run before any training: it starts at $\ln V$, its gradient is right, it can learn one batch by heart.
# - A feeling for what a loss *sounds* like: 3.3 is letters, 2.5 pairs, 2.0 syllables, 1.7 words.
#
# Next: [8. Look inside](08_look_inside.ipynb) opens it up.
