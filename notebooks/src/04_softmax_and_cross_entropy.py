# %% [markdown]
# # 4. Softmax, cross entropy, and a bigram Shakespeare
#
# Time for a model that learns something from a real text. It is the smallest language model there is: it sees one
# character and says how likely each character is to come next. Its loss function is the one that trains every GPT.
#
# **You will write** a softmax (2 lines), its pullback (1 line), and the cross entropy with its famous pullback
# (8 lines). **You need** notebook 3. About 60 minutes.

# %%
import numpy as np

from autograd import embedding
from workbook import corpus
from workbook.softmax import (
    check,
    entropies,
    plot_bigrams,
    plot_losses,
    plot_prefixes,
    plot_push_and_pull,
)

# %% tags=["corpus"]
name, text = corpus.load()
characters = sorted(set(text))
V = len(characters)
number = {c: i for i, c in enumerate(characters)}
ids = np.array([number[c] for c in text])
train, validation = ids[: int(0.9 * len(ids))], ids[int(0.9 * len(ids)) :]
print(f"{V} different characters; the text begins with {text[:13]!r}")

# %% [markdown]
# (A megabyte, downloaded once. Without a network the notebook takes the source of Python's standard library instead and says
# so; then expect other numbers than those you see here.)
#
# ## Every prefix is a lesson
#
# A text of 11 characters holds 10 lessons: after reading this much, that came next. Nobody has to label anything.

# %%
plot_prefixes("I LOVE YOU.")

# %% [markdown]
# Our first model is forgetful. Of each prefix it sees only the *last* character, and for each of the $V$ characters it has
# one row of $V$ scores, called **logits**. High score: likely to come next. What remains is to turn scores into probabilities,
# and probabilities into a loss.
#
# ## Softmax: scores to probabilities
#
# $$p_i = \frac{e^{x_i}}{\sum_j e^{x_j}}$$
#
# All positive, adding up to 1. Add the same number to all logits, and nothing changes, since $e^{x_i + c} = e^c e^{x_i}$ and
# the $e^c$ cancels.
#
# **Predict.** What does NumPy return for `np.exp(1000.0)`? And what does the formula above give then?
#
# ### Exercise 1: a softmax that survives
#
# Use the invariance: subtract something from each row, so that no exponent is above 0.


# %%
def softmax(logits):
    """Probabilities of the same shape (..., V); each row, along the last axis, adds up to 1."""
    # BEGIN SOLUTION
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)
    # END SOLUTION


softmax = check(softmax)

# %% [markdown]
# <details><summary>Hint 1</summary>Subtract the row's maximum: <code>logits.max(-1, keepdims=True)</code>.</details>
# <details><summary>Hint 2</summary>Then exp, then divide by the row's sum.</details>
# <details><summary>Hint 3</summary><code>keepdims=True</code> in both places, so that rows stay rows.</details>
# <details><summary>And the prediction?</summary><code>np.exp(1000.0)</code> is <code>inf</code>, with a warning, and
# <code>inf / inf</code> is <code>nan</code>. One such row, and the loss of the whole batch is nan.</details>
#
# ## Back through softmax
#
# Now each output depends on *all* inputs of its row: raise one logit, and its own probability grows at the cost of all
# others. How much? Write $s = \sum_k e^{x_k}$, so $p_i = e^{x_i} / s$. Nudging $x_j$ changes the denominator always, by
# $e^{x_j}$, and the numerator only if $i = j$. By the quotient rule,
#
# $$\frac{\partial p_i}{\partial x_j} = \frac{\delta_{ij}\, e^{x_i}\, s - e^{x_i} e^{x_j}}{s^2} = p_i\,(\delta_{ij} - p_j),$$
#
# where $\delta_{ij}$ is 1 if $i = j$ and 0 otherwise. Now pull an upstream gradient $g$ back through this Jacobian:
#
# $$\frac{\partial L}{\partial x_j} = \sum_i g_i\, p_i\,(\delta_{ij} - p_j) = p_j \Big( g_j - \sum_i g_i p_i \Big)$$
#
# In words: each logit gets its own $g_j$ minus the average of all $g$, weighted with the probabilities. All of this is
# multiplied by $p_j$. If every $g$ is the same, nothing is left. That is notebook 1's blind spot, now in a formula.
#
# ### Exercise 2: the pullback of softmax


# %%
def softmax_pullback(p, g):
    """The gradient of the logits, from p (the result of softmax) and the upstream g."""
    # BEGIN SOLUTION
    return p * (g - (g * p).sum(-1, keepdims=True))
    # END SOLUTION


softmax_pullback = check(softmax_pullback)

# %% [markdown]
# <details><summary>Hint 1</summary>The weighted average of g in each row: <code>(g * p).sum(-1, keepdims=True)</code>.</details>
# <details><summary>Hint 2</summary>Subtract it from g.</details>
# <details><summary>Hint 3</summary>Multiply by p.</details>

# %%
rng = np.random.default_rng(0)
dx = softmax_pullback(softmax(rng.normal(size=(3, 5))), rng.normal(size=(3, 5)))
print("each row of the gradient adds up to zero:", np.abs(dx.sum(-1)).max() < 1e-12)

# %% [markdown]
# It has to: adding the same to all logits of a row changes nothing, so in that direction there is no slope. This is a
# free test for any gradient of a softmax.
#
# ## Cross entropy: how surprised are you?
#
# The model gave a probability $p_t$ to the character that really came. Its **surprise** is $-\log p_t$: zero if the
# model was sure, large if it thought the character impossible. The loss is the mean surprise.
#
# **Predict.** A model that knows nothing gives each of our $V$ characters the same probability. What is its loss?

# %% tags=["corpus"]
print(f"-log(1/{V}) = ln {V} = {np.log(V):.4f}")

# %% [markdown]
# Remember this number. A language model whose loss *starts* far above it is not ignorant but confidently wrong, and
# something about its initial weights is broken.
#
# ## Softmax and cross entropy together
#
# We could chain the two pullbacks. Better to do the algebra first. With the target $t$,
#
# $$L = -\log p_t = -\log \frac{e^{x_t}}{\sum_j e^{x_j}} = \log \sum_j e^{x_j} - x_t .$$
#
# The slope of the first term with respect to $x_j$ is $e^{x_j} / \sum_k e^{x_k} = p_j$. That of the second is $-1$ at the target
# and 0 elsewhere. So
#
# $$\frac{\partial L}{\partial x_j} = p_j - \delta_{jt} .$$
#
# *What it said minus what came.* It could not be simpler, or safer. (If you chain the two pullbacks, that of the
# logarithm divides by $p_t$, which may have been rounded to 0. In the fused form this division has cancelled.) For the
# mean over $N$ places each term gets a $1/N$.

# %%
plot_push_and_pull(np.array([1.2, 0.3, 2.0, -0.5, 0.8]), target=1, characters="aeiou")

# %% [markdown]
# The gradient step goes *against* the gradient. It pulls the target up and pushes the others down, each in proportion to the
# probability that it wrongly got. Up and down balance exactly.
#
# ### Exercise 3: cross entropy
#
# The logarithm of a sum of exponentials overflows just like the softmax. Take out each row's maximum $m$:
# $\log \sum_j e^{x_j} = m + \log \sum_j e^{x_j - m}$.


# %%
def cross_entropy(logits, targets):
    """Mean surprise, for logits (N, V) and integer targets (N,); and the pullback (g is a number)."""

    # BEGIN SOLUTION
    n = np.arange(len(targets))
    m = logits.max(-1, keepdims=True)
    logsumexp = m[:, 0] + np.log(np.exp(logits - m).sum(-1))

    def dlogits(g):
        gradient = softmax(logits)
        gradient[n, targets] -= 1
        return g * gradient / len(targets)

    return (logsumexp - logits[n, targets]).mean(), dlogits
    # END SOLUTION


cross_entropy = check(cross_entropy)

# %% [markdown]
# <details><summary>Hint 1</summary>With <code>n = np.arange(len(targets))</code>, <code>logits[n, targets]</code> is each row's
# entry at its target.</details>
# <details><summary>Hint 2</summary>The loss: <code>(logsumexp - logits[n, targets]).mean()</code>.</details>
# <details><summary>Hint 3</summary>The pullback: softmax, minus 1 at <code>[n, targets]</code>, times g, divided by N.</details>
#
# ## Train it
#
# Everything is ready. The model is a table `W` of $V \times V$ logits. Looking up a row is notebook 3's `embedding`.
#
# **Predict.** Where will the loss start, and roughly where will it end? For comparison we count: how surprised would you be if
# you knew how often each character comes? And if you knew it for each pair?

# %% tags=["corpus"]
references = entropies(train, V)
for what, loss in references.items():
    print(f"{loss:.2f}  {what}")


# %%
def fit(n_steps=400, learning_rate=30.0, batch=2048, wrong=lambda dlogits: dlogits, scale=0.0):
    """A table of logits, trained by plain gradient descent, and its losses."""
    rng = np.random.default_rng(0)
    W, losses = scale * rng.normal(size=(V, V)), []
    for _ in range(n_steps):
        places = rng.integers(len(train) - 1, size=batch)
        this, following = train[places], train[places + 1]
        logits, pull_lookup = embedding.raw(W, this)
        loss, pull_loss = cross_entropy(logits, following)
        W -= learning_rate * pull_lookup(wrong(pull_loss(1.0)))
        losses.append(loss)
    return W, losses


W, losses = fit()
plot_losses({"bigram": losses}, references)

# %% tags=["corpus"]
loss, _ = cross_entropy(W[validation[:-1]], validation[1:])
print(f"started at {losses[0]:.2f}; on text it has never seen: {loss:.2f}")

# %% [markdown]
# It began at $\ln V$ exactly, since all logits were 0, and it ends close to what counting pairs would give. No wonder:
# for this model counting *is* the best solution, and gradient descent found it without ever being told to count. Now
# look at what is in the table that it learned:

# %%
plot_bigrams(softmax(W), characters, np.bincount(train, minlength=V))

# %% [markdown]
# Each row is a distribution. After *q* comes *u*. After a space, the beginnings of words. After a line's end, capitals.
# (This is for Shakespeare. In Python code you will see other things.) Let it speak:

# %% tags=["varies"]
rng, this, sample = np.random.default_rng(1), number["\n"], []
for _ in range(250):
    this = rng.choice(V, p=softmax(W[this]))
    sample.append(characters[this])
print("".join(sample))

# %% [markdown]
# Gibberish, but gibberish with the right letters in nearly the right places. A model with a memory of one character cannot do
# better. To remember more it needs attention, in notebook 6.
#
# ## Break it and watch
#
# **Predict** what each of these does to the curve: the $1/N$ forgotten; the gradient's sign flipped; a table that starts with
# large random logits.

# %%
plot_losses(
    {
        "right": losses,
        "1/N missing": fit(wrong=lambda d: d * 2048)[1],
        "sign flipped": fit(wrong=lambda d: -d, learning_rate=3.0)[1],
        "large initial logits": fit(scale=5.0)[1],
    },
    references,
    ylim=(2, 20),
)

# %% [markdown]
# Without the $1/N$ each step is 2,048 times too long, and the loss leaps out of the picture at once. With the sign
# flipped the loss only rises. And large initial logits cost hundreds of steps, only to unlearn false certainty. You
# recognise this by a loss that begins far above $\ln V$ and falls steeply at first.
#
# ## In the library
#
# [`autograd/ops/nn.py`](../autograd/ops/nn.py): `softmax`, `log_softmax` and `cross_entropy` are what you wrote. Look also at
# `linear_cross_entropy`. A GPT-2 has 50,257 logits per token, far more memory than anything else in it, so there the last
# layer and its loss are one operation, which works in chunks and turns each chunk's logits into $p - \text{onehot}$ in place.
#
# ## What you have now
#
# - A shift does not change softmax, so shift its input to safe numbers. The rows of its gradient add up to 0.
# - The gradient of softmax and cross entropy is *what it said minus what came*, over $N$.
# - Three numbers to compare any character model with: guessing, single characters, pairs.
#
# Next: [5. Layer norm and AdamW](05_layer_norm_and_adamw.ipynb).
