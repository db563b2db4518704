# %% [markdown]
# # 5. Layer norm and AdamW
#
# Two things make a deep network trainable: layers that keep their signals at a healthy size, and an optimiser that takes
# steps of a healthy length. Both are short. Both have a trap or two that no loss curve will show you.
#
# **You will write** a layer norm (3 lines), its fused backward pass (4 lines) and a step of AdamW (4 lines).
# **You need** notebooks 3 and 4. About 75 minutes.

# %%
import numpy as np

import autograd as ag
from autograd import Tensor, gradcheck
from workbook.norm import (
    check,
    normalised,
    plot_decay,
    plot_depth,
    plot_paths,
    plot_projection,
    ravine,
)

rng = np.random.default_rng(0)

# %% [markdown]
# ## Why normalise?
#
# Send a signal through 30 layers, each a product with random weights and a `relu`.
#
# **Predict.** If all weights are 50 % too large, how large is the signal at the end? And if they are 50 % too small?


# %%
def sizes(scale, normalise=False, depth=30, width=100):
    """The signal's standard deviation after each layer."""
    rng, x, found = np.random.default_rng(1), np.random.default_rng(2).normal(size=(50, width)), []
    for _ in range(depth):
        x = np.maximum(x @ rng.normal(size=(width, width)) * scale * (2 / width) ** 0.5, 0)
        if normalise:
            x = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True)
        found.append(x.std())
    return found


plot_depth(
    {
        "weights 50 % too large": sizes(1.5),
        "weights 50 % too small": sizes(0.5),
        "the same, with layer norm": sizes(0.5, normalise=True),
    }
)

# %% [markdown]
# A factor at every layer becomes a power after many layers: the signal explodes or dies, and so does its gradient on
# the way back. A layer norm brings the signal back to size 1 at every layer, whatever the weights do.
#
# ## Layer norm, composed
#
# For each row of $C$ channels, by itself:
#
# $$\mu = \frac{1}{C}\sum_i x_i, \qquad \sigma^2 = \frac{1}{C}\sum_i (x_i - \mu)^2, \qquad
# \hat x_i = \frac{x_i - \mu}{\sqrt{\sigma^2 + \varepsilon}}, \qquad y_i = w_i\, \hat x_i + b_i$$
#
# Two details cause many mistakes. The variance divides by $C$, not by $C - 1$ (PyTorch's `var` has the other default!).
# And $\varepsilon$ goes *inside* the root. It is there for rows whose values are all equal.
#
# ### Exercise 1: layer norm from parts
#
# Here `x` is a `Tensor` of the library. Use its methods and operators (`x.mean(-1, keepdims=True)`, `x.var(...)`, `** -0.5`),
# and the tape will differentiate it for you.


# %%
def layer_norm(x, weight, bias, eps=1e-5):
    """Each row of x (..., C) normalised, times weight (C,), plus bias (C,)."""
    # BEGIN SOLUTION
    rstd = (x.var(-1, keepdims=True) + eps) ** -0.5
    xhat = (x - x.mean(-1, keepdims=True)) * rstd
    return xhat * weight + bias
    # END SOLUTION


layer_norm = check(layer_norm)

# %% [markdown]
# <details><summary>Hint 1</summary>Everything runs over the last axis, with <code>keepdims=True</code>.</details>
# <details><summary>Hint 2</summary>One over the standard deviation: <code>(variance + eps) ** -0.5</code>.</details>
# <details><summary>Hint 3</summary>Normalise, then times weight, then plus bias.</details>

# %%
x, weight, bias = (Tensor(rng.normal(size=s), requires_grad=True) for s in ((2, 4), (4,), (4,)))
print("the tape's gradient is right:", gradcheck(layer_norm, x, weight, bias))
for tensor in (x, weight, bias):
    tensor.grad = None
ag.draw(layer_norm(x, weight, bias), x=x, weight=weight, bias=bias)

# %% [markdown]
# It works, and costs eight operations (or one, if you have not solved the exercise: then you see the library's
# version). Each keeps an array of the size of `x` for the way back. In a GPT that is a waste of memory and time, so
# layer norm is *fused*: one operation with a backward pass worked out on paper. Let us do that.
#
# ## The derivation
#
# Call the upstream gradient `dout`. The end of the formula is easy, and you know such things from notebook 3:
#
# $$dw_i = \sum_{\text{rows}} \mathrm{dout}_i\, \hat x_i, \qquad db_i = \sum_{\text{rows}} \mathrm{dout}_i, \qquad d\hat x_i = \mathrm{dout}_i\, w_i$$
#
# Now for one row. Write $r = (\sigma^2 + \varepsilon)^{-1/2}$ and $c_i = x_i - \mu$, so $\hat x_i = c_i\, r$.
#
# **Step 1: from $\hat x$ to $c$.** $c_i$ acts directly, with slope $r$, and through $r$, on which *all* $\hat x_j$ depend:
#
# $$dc_i = r\, d\hat x_i + \Big( \sum_j d\hat x_j\, c_j \Big) \frac{\partial r}{\partial c_i}$$
#
# From $r = (\sigma^2 + \varepsilon)^{-1/2}$ and $\sigma^2 = \frac{1}{C} \sum c_j^2$ we get
# $\frac{\partial r}{\partial c_i} = -\tfrac12 r^3 \cdot \tfrac{2}{C} c_i = -\tfrac{1}{C} r^3 c_i$. Put it in, and write
# $\hat x$ for $c\,r$ wherever possible:
#
# $$dc_i = r \Big( d\hat x_i - \hat x_i \cdot \frac{1}{C} \sum_j d\hat x_j\, \hat x_j \Big)$$
#
# **Step 2: from $c$ to $x$.** $c_i = x_i - \mu$, and each $x_i$ has a share of $1/C$ in $\mu$. So $dx_i = dc_i - \frac{1}{C}
# \sum_j dc_j$: subtract the mean. The mean of $\hat x$ is 0, so only that of $d\hat x$ is left:
#
# $$dx = r \,\big( d\hat x - \mathrm{mean}(d\hat x) - \hat x \cdot \mathrm{mean}(d\hat x\, \hat x) \big)$$
#
# That is all of it.
#
# ## What it means
#
# If you add the same number to all of $x$, the result does not change. If you make $x$ larger, it does not change
# either (except for $\varepsilon$). Where nothing changes there is no slope: the gradient can have no part along
# $(1, 1, \dots, 1)$ and none along $\hat x$. The formula takes out exactly these two parts. With three channels it can be
# drawn. We look along $(1, 1, 1)$, so we do not see this direction, and all possible $\hat x$ lie on a circle.

# %%
plot_projection(np.array([2.0, -0.5, 0.3]), np.array([1.5, 0.5, -1.8]))

# %% [markdown]
# Red is the part of gold along $\hat x$. Take it away from gold, and blue is left: a tangent to the circle. It must be
# a tangent, because $\hat x$ can only move along the circle.
#
# ### Exercise 2: the fused backward pass
#
# **Predict.** Which of the three terms would you forget, and would training show it?


# %%
def layer_norm_pullback(dout, xhat, rstd, weight):
    """dx, dweight, dbias for dout and xhat (N, C), rstd (N, 1), weight (C,)."""
    # BEGIN SOLUTION
    mean = lambda a: a.mean(-1, keepdims=True)
    dxhat = dout * weight
    dx = rstd * (dxhat - mean(dxhat) - xhat * mean(dxhat * xhat))
    return dx, (dout * xhat).sum(0), dout.sum(0)
    # END SOLUTION


layer_norm_pullback = check(layer_norm_pullback)

# %% [markdown]
# <details><summary>Hint 1</summary>Begin with <code>dxhat = dout * weight</code>.</details>
# <details><summary>Hint 2</summary>Both means run over channels: <code>.mean(-1, keepdims=True)</code>.</details>
# <details><summary>Hint 3</summary>Every row used the same weight and bias, so their gradients are sums over rows:
# <code>.sum(0)</code>.</details>
#
# Two tests that any layer norm must pass, without a single finite difference:

# %%
xhat, rstd = normalised(rng.normal(size=(3, 8)))
dx, _, _ = layer_norm_pullback(rng.normal(size=(3, 8)), xhat, rstd, rng.normal(size=8))
print("dx has no part along ones:     ", np.abs(dx.sum(-1)).max() < 1e-12)
print("and (nearly) none along xhat:  ", np.abs((dx * xhat).sum(-1)).max() < 1e-3)

# %% [markdown]
# ## Break it and watch
#
# Two famous slips: the standard deviation treated as a constant, and the variance divided by $C - 1$. How far off are they?

# %%
print("channels   cosine, std held constant   length, Bessel's n - 1")
for C in (8, 64, 384):
    dout, (xhat, rstd) = rng.normal(size=(200, C)), normalised(rng.normal(size=(200, C)))
    right, _, _ = layer_norm_pullback(dout, xhat, rstd, np.ones(C))
    detached = rstd * (dout - dout.mean(-1, keepdims=True))
    cosine = (right * detached).sum() / np.linalg.norm(right) / np.linalg.norm(detached)
    print(f"{C:8d}   {cosine:.4f}                      {((C - 1) / C) ** 0.5:.4f}")

# %% [markdown]
# At the width of a real GPT the first has a cosine of 0.999 with the right gradient, and the second is a thousandth too
# short. Such a network trains. It would train better with the right gradient, but nobody will know unless somebody
# checks with a random upstream gradient in float64.
#
# ## AdamW: a step of the right length
#
# Plain gradient descent takes the same learning rate for every parameter. A ravine is steep across and nearly flat
# along. There the rate must be small enough for the steep direction, and then it is far too small for the flat one.
#
# Adam keeps two running averages for each parameter: $m$ of its gradient, and $v$ of the gradient's square. It steps by
# $m / \sqrt v$. A parameter whose gradients are all large gets the same step as one whose gradients are all small. What counts
# is whether they *agree*.
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# **Bias correction.** Both start at 0. After the first step $m$ is only $(1 - \beta_1)\, g$, a tenth of what it should be, and
# $v$ a hundredth or a thousandth. If all gradients were the same $g$, then after $t$ steps
#
# $$m = (1 - \beta_1) \sum_{k=0}^{t-1} \beta_1^k\, g = (1 - \beta_1^t)\, g .$$
#
# So divide by $1 - \beta_1^t$ and $1 - \beta_2^t$, and the start is right.
#
# **Predict.** With $\beta_1 = 0.9$, $\beta_2 = 0.999$ and no correction, is the first step too long or too short? By how much?
#
# **Decoupled decay.** Weights should shrink a little at each step, so that those that do nothing fade away. The old way (L2)
# adds $\lambda p$ to the gradient. In Adam this goes wrong: that term, too, is divided by $\sqrt v$, so weights with large
# gradients hardly decay. The **W** in AdamW is the repair: shrink the weights directly.
#
# $$p \leftarrow (1 - \eta \lambda)\, p \; - \; \eta\, \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$
#
# ### Exercise 3: a step of AdamW
#
# `t` counts from 1. Return new arrays, do not change the old ones.


# %%
def adamw_step(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay):
    """The new p, m and v after step number t = 1, 2, 3, ..."""
    # BEGIN SOLUTION
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return (1 - lr * weight_decay) * p - lr * step, m, v
    # END SOLUTION


adamw_step = check(adamw_step)

# %% [markdown]
# <details><summary>Hint 1</summary>First the two averages, without any correction; they are what you return.</details>
# <details><summary>Hint 2</summary>The correction is only used for this step: <code>m / (1 - beta1**t)</code>.</details>
# <details><summary>Hint 3</summary><code>eps</code> is added to the root, not under it.</details>
#
# Now the prediction. The first step would be $0.1\, g / \sqrt{0.001\, g^2}$ in place of $g / \sqrt{g^2}$:

# %%
print(f"without correction: {(1 - 0.9) / (1 - 0.999) ** 0.5:.2f} times the learning rate")

# %% [markdown]
# Three times too long, exactly when the network knows least.
#
# ### The ravine
#
# **Predict.** Steep across, nearly flat along. Which of the three gets to the star?


# %%
def sgd(rate, momentum=0.0, n=60):
    path, velocity = [np.array([-4.5, 1.0])], np.zeros(2)
    for _ in range(n):
        velocity = momentum * velocity + ravine(path[-1])[1]
        path.append(path[-1] - rate * velocity)
    return path


def adamw(rate, n=60, weight_decay=0.0):
    path, m, v = [np.array([-4.5, 1.0])], np.zeros(2), np.zeros(2)
    for t in range(1, n + 1):
        _, g = ravine(path[-1])
        p, m, v = adamw_step(path[-1], g, m, v, t, rate, 0.8, 0.95, 1e-8, weight_decay)
        path.append(p)
    return path


plot_paths({"gradient descent": sgd(0.045), "momentum": sgd(0.02, 0.8), "AdamW": adamw(0.3)})

# %% [markdown]
# Gradient descent bounces from wall to wall. Momentum averages the bouncing away, and what is left points along the
# valley. AdamW starts at the same speed in both directions, as if the ravine were round. The price comes at the end:
# its steps keep their length, so it circles around the goal. Learning-rate schedules solve this.
#
# ### Break it: L2 in place of decay
#
# Take two weights, one with large gradients, the other with small ones. Both gradients are pure noise, from which
# nothing can be learned. Both weights should fade away.


# %%
def fade(l2, n=400, decay=0.3, lr=0.01):
    rng, p, m, v = np.random.default_rng(3), np.ones(2), np.zeros(2), np.zeros(2)
    path = [p]
    for t in range(1, n + 1):
        g = rng.normal(size=2) * np.array([10.0, 0.1])
        g = g + decay * p if l2 else g
        p, m, v = adamw_step(p, g, m, v, t, lr, 0.9, 0.99, 1e-8, 0.0 if l2 else decay)
        path.append(p)
    return path


plot_decay({"L2: added to the gradient": fade(True), "AdamW: decoupled": fade(False)})

# %% [markdown]
# With L2 the weight with the large gradients stays where it is. With decoupled decay, both shrink alike.
#
# ## In the library
#
# - [`layer_norm`](../autograd/ops/nn.py) in `ops/nn.py` is your pullback, line by line, with sums done as matrix products
#   because those are faster.
# - [`AdamW`](../autograd/optim.py) updates a parameter piece by piece, so that a piece stays in the processor's cache through
#   all operations. In training all parameters lie in one flat array (`flatten`).
# - Biases and norms usually go without decay: `GPT.parameter_groups` in [`tinygpt/model.py`](../tinygpt/model.py).

# %%
p = Tensor(np.ones(3), requires_grad=True)
optimizer = ag.AdamW([p], lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.3)
p.grad = np.array([1.0, -2.0, 0.01])
optimizer.step()
ours = adamw_step(np.ones(3), np.array([1.0, -2.0, 0.01]), 0, 0, 1, 0.1, 0.9, 0.99, 1e-8, 0.3)
print("the library:", p.data.round(6), "  yours:", ours[0].round(6))

# %% [markdown]
# Note how long the first step is: $\eta$, in every direction, however large or small the gradient was.
#
# ## What you have now
#
# - A fused backward pass that you derived yourself, and two geometric tests for it.
# - No loss curve shows a slip of a thousandth. A check in float64 does.
# - Adam's step does not depend on the size of gradients; bias correction is for the start; decay belongs to the weights.
#
# Next: [6. Causal attention](06_causal_attention.ipynb), the part that lets a token look back.
