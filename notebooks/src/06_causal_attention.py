# %% [markdown]
# # 6. Causal attention
#
# The bigram model of notebook 4 looked at one character. Attention lets every position look at *all* positions before it,
# and choose, each for itself, what is worth looking at. It is the only place in a GPT where positions exchange anything.
#
# **You will write** the causal mask (4 lines), attention (2 lines), its whole backward pass (4 lines), and the split into
# heads (2 lines). **You need** notebooks 3 to 5. About 75 minutes.

# %%
import numpy as np

import autograd as ag
from autograd import Stream, Tensor
from workbook.attention import check, letters, merge_heads, plot_curves, plot_maps, plot_scale

rng = np.random.default_rng(0)

# %% [markdown]
# ## Question, label, content
#
# Each position makes three vectors of $D$ channels out of what it knows:
#
# - a **query** $q$: what am I looking for?
# - a **key** $k$: what do I have to offer? (the label on the drawer)
# - a **value** $v$: what do I hand over, if you choose me? (what is in it)
#
# How well query $i$ fits key $j$ is their dot product, the *score* $s_{ij} = q_i \cdot k_j$. A softmax over all $j$ turns the
# scores of a query into weights $p_{ij}$, and the result is the weighted mean of the values:
#
# $$o_i = \sum_j p_{ij}\, v_j$$
#
# ## Nobody may look ahead
#
# A language model predicts position $i + 1$ from positions up to $i$. If position $i$ could look at $i + 1$, the task
# would be trivial, and what the model learned would be worthless. So query $i$ may look at keys $j \le i$ only: the
# past, and itself.
#
# **Predict.** Take scores that are all 0, mask the future, and apply the softmax. What is the first row of the weights? And
# the fourth?
#
# ### Exercise 1: causal weights
#
# Which score has the weight 0? It must have $e^{\text{score}} = 0$. `np.triu(np.ones((T, T), bool), 1)` is `True` above
# the diagonal.


# %%
def causal_weights(scores):
    """Softmax over the keys (the last axis) of scores (..., T, T), with the future masked."""
    # BEGIN SOLUTION
    future = np.triu(np.ones(scores.shape[-2:], bool), 1)
    scores = np.where(future, -np.inf, scores)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
    # END SOLUTION


causal_weights = check(causal_weights)

# %% [markdown]
# <details><summary>Hint 1</summary>Replace the scores of the future by <code>-np.inf</code>, before the softmax.</details>
# <details><summary>Hint 2</summary><code>np.where(future, -np.inf, scores)</code> broadcasts over leading axes.</details>
# <details><summary>Hint 3</summary>Then notebook 4's stable softmax over the last axis. No row is all -inf, because
# each position sees itself.</details>

# %%
plot_maps(
    {
        "scores all 0": causal_weights(np.zeros((8, 8))),
        "random scores": causal_weights(2 * rng.normal(size=(8, 8))),
    },
    labels=list("ROMEO:␣I"),
)

# %% [markdown]
# The causal triangle. With equal scores each position takes the plain mean of its past. Position 0 can only look at itself.
#
# ## Why divide by √D?
#
# A score is a sum of $D$ products. If queries and keys have entries of size about 1, the products are random, and their sum is
# of size about $\sqrt D$. The softmax of large scores is a hard choice: one weight near 1, all others near 0.
#
# **Predict.** Why would that be bad at the start of training? (Think of softmax's pullback: $p\,(g - \dots)$.)

# %%
plot_scale([4, 16, 64, 256], np.random.default_rng(1))

# %% [markdown]
# Where $p$ is 0, the gradient is 0 too: a position that no query looks at can never learn to be looked at. Divided by
# $\sqrt D$, scores have size 1 whatever $D$ is, and at the start every query looks at everything a little.
#
# ### Exercise 2: attention


# %%
def attention(q, k, v):
    """For q, k, v (..., T, D): the result (..., T, D) and the weights (..., T, T)."""
    # BEGIN SOLUTION
    p = causal_weights(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    return p @ v, p
    # END SOLUTION


attention = check(attention)

# %% [markdown]
# <details><summary>Hint 1</summary>All scores at once: <code>q @ k.swapaxes(-1, -2)</code>, a <code>(T, T)</code> matrix with a
# row per query.</details>
# <details><summary>Hint 2</summary>Divide by <code>np.sqrt(q.shape[-1])</code>, then your <code>causal_weights</code>.</details>
# <details><summary>Hint 3</summary>The result is <code>p @ v</code>.</details>
#
# The test that matters most needs no derivative. Change the future, and the past must not move, not by a single bit:

# %%
q, k, v = rng.normal(size=(3, 10, 4))
before, _ = attention(q, k, v)
q[6:], k[6:], v[6:] = rng.normal(size=(3, 4, 4))  # everything from position 6 on is different now
after, _ = attention(q, k, v)
print("positions that changed:", np.flatnonzero((before != after).any(-1)))

# %% [markdown]
# ## The way back
#
# It looks difficult, but only until you take it step by step. Forward, with $\alpha = 1/\sqrt D$:
#
# $$S = \alpha\, Q K^\top, \qquad P = \mathrm{softmax}(S), \qquad O = P V$$
#
# Backward, from the end. Every step is something that you have written already.
#
# **1. The product** $O = P V$ (notebook 3):
#
# $$dV = P^\top\, dO, \qquad dP = dO\, V^\top$$
#
# **2. The softmax** (notebook 4), row by row:
#
# $$dS = P \odot \big( dP - \mathrm{rowsum}(P \odot dP) \big)$$
#
# And the mask? Where it hid a key, $P$ is exactly 0, so $dS$ is 0 as well. It needs no line of its own.
#
# **3. The scores** $S = \alpha\, Q K^\top$ (notebook 3 again; the second factor is $K^\top$, so its gradient comes out
# transposed):
#
# $$dQ = \alpha\, dS\, K, \qquad dK = \alpha\, dS^\top Q$$
#
# That is the backward pass of attention: four products of matrices, against two on the way forward.
#
# **Predict.** `dq[0]` belongs to the first position, which can only look at itself. What is it?
#
# ### Exercise 3: the backward pass


# %%
def attention_pullback(dout, q, k, v, p):
    """dq, dk, dv for q, k, v and dout (..., T, D), and the weights p (..., T, T)."""
    # BEGIN SOLUTION
    dp = dout @ v.swapaxes(-1, -2)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    ds = ds / np.sqrt(q.shape[-1])
    return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dout
    # END SOLUTION


attention_pullback = check(attention_pullback)

# %% [markdown]
# <details><summary>Hint 1</summary>Transposes are always of the last two axes: <code>.swapaxes(-1, -2)</code>.</details>
# <details><summary>Hint 2</summary><code>dp = dout @ vᵀ</code>, then notebook 4's pullback with <code>p</code> and
# <code>dp</code>.</details>
# <details><summary>Hint 3</summary>The scale goes into dq and into dk. Put it into ds once, and both have it.</details>
#
# (Further down, under *Step through it*, the player goes through this product by product.)

# %%
q, k, v, dout = rng.normal(size=(4, 6, 4))
_, p = attention(q, k, v)
dq, dk, dv = attention_pullback(dout, q, k, v, p)
print("dq of the first position:", np.abs(dq[0]).max() < 1e-12 and "zero")
print("dk of the last position: ", np.linalg.norm(dk[-1]).round(3), "(only the last query saw it)")

# %% [markdown]
# The first query has no choice, so it makes no difference: slope zero.
#
# **A trick worth knowing.** The row sums need $P$ and $dP$, both $T \times T$. But
#
# $$\sum_j P_{ij}\, dP_{ij} = \sum_j P_{ij} \sum_c dO_{ic} V_{jc} = \sum_c dO_{ic}\, O_{ic},$$
#
# a sum over channels only. The fast kernels (FlashAttention, and this library) call it *delta*. With it they go through $P$
# block by block and never hold all of it.

# %%
out = p @ v
dp = dout @ v.T
print("the same:", np.allclose((p * dp).sum(-1), (dout * out).sum(-1)))

# %% [markdown]
# ## Heads
#
# One softmax can only look in one way. So the $C$ channels are split into $H$ heads of $D = C / H$ channels, each with its own
# queries, keys and values. Afterwards their results are put side by side again.
#
# The arrays must go from `(B, T, C)` to `(B, H, T, D)`, so that each head is a stack of `(T, D)` matrices. Head 0 gets the first
# $D$ channels, head 1 the next, and so on.
#
# ### Exercise 4: split into heads
#
# **Predict.** `x.reshape(B, H, T, D)` has the right shape. Is it right?


# %%
def split_heads(x, n_head):
    """(B, T, C) -> (B, n_head, T, C // n_head)"""
    # BEGIN SOLUTION
    B, T, C = x.shape
    return x.reshape(B, T, n_head, C // n_head).swapaxes(1, 2)
    # END SOLUTION


split_heads = check(split_heads)

# %% [markdown]
# <details><summary>Hint 1</summary>First cut the channels: <code>(B, T, C)</code> to <code>(B, T, H, D)</code>. A reshape can do
# that, since it does not move anything across positions.</details>
# <details><summary>Hint 2</summary>Then swap the axes 1 and 2.</details>
# <details><summary>Hint 3</summary>D is <code>C // n_head</code>.</details>
# <details><summary>And the prediction?</summary>No. It cuts the numbers in the order in which they lie in memory, so head 0 would
# get the first half of the <i>positions</i>, and see no channel of the others.</details>
#
# Now you have everything that [`causal_attention`](../autograd/ops/attention.py) in the library does, and can compare, forward
# and backward:

# %%
B, T, C, H = 2, 10, 12, 3
qkv = Tensor(rng.normal(size=(B, T, 3 * C)), requires_grad=True)
out, dout = ag.causal_attention(qkv, H), rng.normal(size=(B, T, C))
out.backward(dout)

q, k, v = (split_heads(part, H) for part in np.split(qkv.data, 3, axis=-1))
ours, p = attention(q, k, v)
grads = attention_pullback(split_heads(dout, H), q, k, v, p)
print("forward: ", np.allclose(merge_heads(ours), out.data))
print("backward:", np.allclose(np.concatenate([merge_heads(g) for g in grads], -1), qkv.grad))

# %% [markdown]
# The library's version never computes most of the future: it goes through the queries in blocks, and takes only the
# keys that a block may see. Otherwise it is what you wrote.
#
# ## Step through it
#
# `ag.op` makes an operation of the library from a function that returns its result and its pullbacks. That is notebook 2's
# form of a rule, so your two functions fit in. One head, four positions, three channels:


# %%
@ag.op
def your_attention(q, k, v):
    """Your attention as one operation, with your backward pass."""
    out, p = attention(q, k, v)
    back = lambda dout: attention_pullback(dout, q, k, v, p)
    return out, (lambda dout: back(dout)[0], lambda dout: back(dout)[1], lambda dout: back(dout)[2])


qkv = Tensor(rng.normal(size=(1, 4, 9)), requires_grad=True)
dout = rng.normal(size=(1, 4, 3))  # the gradient that shall come in


def yours():
    """Your attention, in one piece"""
    q, k, v = ag.split(qkv, 3, axis=-1)
    y = your_attention(q, k, v)
    return (y * dout).sum()


film = ag.step_through(yours)
film

# %% [markdown]
# Your operation has three steps on its way back: to `q`, to `k` and to `v`. The split then puts the three together: at `qkv`
# they add up, each with zeros where the other two stand. What happens *inside* your operation stays hidden, as in every
# fused one. But the library's own can be opened. Press → until `causal_attention` is lit on the way back, then `o`. Now it
# is composed of products, a mask and a softmax, on the same numbers, and you meet the three steps of "The way back", one by
# one. The softmax can be opened once more. `Esc` closes.


# %%
def fused():
    """The library's causal attention"""
    y = ag.causal_attention(qkv, n_head=1)
    return (y * dout).sum()


library = ag.step_through(fused)
opened = library.node("causal_attention").inside
for name, other in (("in one piece", library), ("opened", opened)):
    same = np.allclose(other.gradient("qkv"), film.gradient("qkv"))
    print(f"the library's, {name}: the gradient of yours: {same}")
ds = opened.gradient("scores")[0, 0]
print("gradient of the scores in the future:", ds[np.triu_indices(4, 1)])
library

# %% [markdown]
# The gradient of the scores, $dS$, is exactly 0 above the diagonal: that is why the mask needed no line of its own.
#
# ## What does it look at?
#
# Let us train one head on a small task: *random letters; at each position, say which letter stood three places before.*
# All there is to learn is where to look. A letter comes in as a row of a table, plus a row for its position.


# %%
class LookBack:
    """Letters and positions in, one attention head, logits for letters out."""

    def __init__(self, vocab_size=12, length=16, width=32):
        stream = Stream(7)
        shapes = {"wte": (vocab_size, width), "wpe": (length, width), "qkv": (width, 3 * width)}
        shapes["head"] = (width, vocab_size)
        for site, (name, shape) in enumerate(shapes.items()):
            scale = 1.0 if name in ("wte", "wpe") else width**-0.5
            values = stream.at(site=site).normal(shape, scale)
            setattr(self, name, Tensor(values, requires_grad=True))
        self.parameters = [self.wte, self.wpe, self.qkv, self.head]

    def weights_and_logits(self, ids, causal=True):
        x = ag.embedding(self.wte, ids) + self.wpe[: ids.shape[1]]  # (B, T, C)
        q, k, v = ag.split(x @ self.qkv, 3, axis=-1)
        scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5)  # (B, T, T)
        if causal:
            place = np.arange(ids.shape[1])
            future = place > place[:, None]  # (T, T): keys across, queries down
            scores = ag.masked_fill(scores, future, -np.inf)
        p = ag.softmax(scores)
        return p, (p @ v) @ self.head


def train(model, targets_of, causal=True, n_steps=300):
    optimizer, losses, rng = ag.AdamW(model.parameters, lr=0.01), [], np.random.default_rng(8)
    for _ in range(n_steps):
        ids = letters(rng)
        _, logits = model.weights_and_logits(ids, causal)
        loss = ag.cross_entropy(logits, targets_of(ids), ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


def three_before(ids):
    """The targets; the first three positions have none (-1)."""
    return np.concatenate([np.full((len(ids), 3), -1), ids[:, :-3]], axis=1)


model, ids = LookBack(), letters(np.random.default_rng(9))
untrained = model.weights_and_logits(ids)[0].data[0]
losses = train(model, three_before)
trained = model.weights_and_logits(ids)[0].data[0]
print("learned:", losses[-1] < 0.1)

# %% [markdown]
# **Predict.** What will its attention map look like?

# %%
plot_maps({"before training": untrained, "after training": trained})

# %% [markdown]
# A diagonal, three to the left of the main one: exactly where the answer stands. (In the first three rows there is no answer,
# so nothing was learned there.) Nobody told it about "three places before". The gradient through the softmax did.
#
# ## Break it and watch
#
# Now an impossible task: predict the *next* letter, of random letters. The best possible loss is $\ln 12$.
#
# **Predict.** What happens to the loss if the mask is forgotten?


# %%
def following(ids):
    return np.concatenate([ids[:, 1:], np.full((len(ids), 1), -1)], axis=1)


with_mask = train(LookBack(), following)
without_mask = train(LookBack(), following, causal=False)
plot_curves({"with the mask": with_mask, "without": without_mask}, np.log(12), "ln 12")

# %% [markdown]
# It "solves" the impossible, by reading the answer. A loss that is too good to be true usually is. When your model beats all
# known ones, first change the future, and see whether the past moves.
#
# ## What you have now
#
# - Attention is a soft lookup: scores, softmax, weighted mean. Two products forward, and a pullback made of old parts.
# - The mask needs no backward pass. Heads are only a question of which axis stands where.
# - Two tests to keep: the future must not matter, and delta is the same either way.
#
# Next: [7. Build and train the GPT](07_build_and_train_the_gpt.ipynb). Nothing is missing any more.
