# %% [markdown]
# # 3. Tensors and broadcasting
#
# The scalar engine of notebook 2 makes one node per number. A GPT has millions of numbers per layer, so real engines
# make one node per *array*. The walk stays the same. What changes: a rule now gets an array from upstream, and must
# hand on arrays of the right **shape**.
#
# **You will write** four pullbacks, 2 to 6 lines each: `unbroadcast`, `matmul`, `sum` and the lookup in a table.
# After that you can differentiate anything a GPT is made of. **You need** notebook 2 and NumPy's shapes. About 60 minutes.

# %%
import numpy as np

import autograd as ag
from workbook.tensors import (
    check,
    jacobian,
    plot_broadcast,
    plot_embedding_gradients,
    plot_jacobians,
)

rng = np.random.default_rng(0)

# %% [markdown]
# ## All slopes at once: the Jacobian
#
# A function with 6 inputs and 6 outputs has 36 slopes. Written as a matrix with a row per output and a column per
# input, they are its **Jacobian** $J$. We can find it by nudging each input in turn, as in notebook 1.
#
# **Predict.** What does the Jacobian look like for `tanh` of 6 numbers? For their sum? For a matrix product?

# %%
W = rng.normal(size=(3, 4))
functions = {
    "tanh": np.tanh,
    "sum over rows": lambda x: x.sum(0),
    "copied 3 times": lambda x: np.broadcast_to(x, (3, 2, 3)),
    "x @ W": lambda x: x @ W,
}
plot_jacobians(functions, rng.normal(size=(2, 3)))

# %% [markdown]
# Mostly white: zeros. `tanh` works element by element, so it fills only the diagonal. A sum connects each output to its
# own inputs. Copying is the same picture, turned on its side! And in `x @ W` each row of `x` meets the same `W`.
#
# The chain rule with arrays is a product with this matrix, $\frac{\partial L}{\partial x} = J^\top g$. But **nobody
# builds it**. For one layer of a GPT, $J$ would have $10^{12}$ entries, nearly all of them zero. A pullback computes
# $J^\top g$ directly. That is what the name *vector-Jacobian product* means. A pullback is all that we will ever write.

# %%
x, g = rng.normal(size=(2, 3)), rng.normal(size=(2, 3))
slow = jacobian(np.tanh, x).T @ g.ravel()  # the whole matrix
fast = g * (1 - np.tanh(x) ** 2)  # the pullback
print("the same:", np.allclose(slow, fast.ravel()))

# %% [markdown]
# ## Copying forward is summing backward
#
# NumPy adds a bias of shape `(3,)` to a batch of shape `(4, 3)` by *broadcasting*: it uses the same row four times.
#
# $$y_{ij} = x_{ij} + b_j$$
#
# One number $b_j$ is now in four places. In notebook 2 you learned what to do when a value is used several times: its
# contributions add up. So
#
# $$\frac{\partial L}{\partial b_j} = \sum_i g_{ij} .$$
#
# Nothing new: this is the old `+=` again.

# %%
plot_broadcast(np.array([1.0, -2.0, 0.5]), rng.normal(size=(4, 3)).round(1))

# %% [markdown]
# The general rule. NumPy lines the shapes up **at the right end**. Where one is shorter, axes are added in front. Where one
# has length 1, it is stretched. To go back: *sum over every axis that was added or stretched*.
#
# | input | result | sum g over |
# |---|---|---|
# | `(3,)` | `(4, 3)` | axis 0, added in front |
# | `(4, 1)` | `(4, 3)` | axis 1, stretched; keep it with length 1 |
# | `(1, 3)` | `(2, 4, 3)` | axis 0, added, and axis 1, stretched |
# | `()` | `(2, 3)` | everything |
#
# ### Exercise 1: unbroadcast


# %%
def unbroadcast(g, shape):
    """Sum g, which has the shape of a broadcast result, down to the shape of the input."""
    # BEGIN SOLUTION
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    for axis, length in enumerate(shape):
        if length == 1:
            g = g.sum(axis, keepdims=True)
    return g
    # END SOLUTION


unbroadcast = check(unbroadcast)

# %% [markdown]
# <details><summary>Hint 1</summary>First the axes in front: there are <code>g.ndim - len(shape)</code> of them.
# <code>sum</code> takes a tuple of axes.</details>
# <details><summary>Hint 2</summary>Then, for each axis where <code>shape</code> has a 1, sum over it, and keep it:
# <code>keepdims=True</code>.</details>
# <details><summary>Hint 3</summary>An empty tuple of axes sums over nothing, so no special case is needed.</details>
#
# With this, every elementwise rule of notebook 2 works on arrays of any shapes. For `x * y`:
# `(unbroadcast(g * y, x.shape), unbroadcast(g * x, y.shape))`. You find this line, word for word, in
# [`autograd/ops/elementwise.py`](../autograd/ops/elementwise.py).
#
# ## Matrix products
#
# Now the operation in which a GPT spends nearly all of its time. Write the product out,
#
# $$y_{ij} = \sum_k a_{ik}\, b_{kj},$$
#
# and ask where $a_{ik}$ occurs: in row $i$ of the result, in all its columns $j$, each time multiplied by $b_{kj}$.
# Its uses add up:
#
# $$\frac{\partial L}{\partial a_{ik}} = \sum_j g_{ij}\, b_{kj} = (g\, b^\top)_{ik}$$
#
# And $b_{kj}$ occurs in column $j$, in all rows $i$, each time multiplied by $a_{ik}$:
#
# $$\frac{\partial L}{\partial b_{kj}} = \sum_i a_{ik}\, g_{ij} = (a^\top g)_{kj}$$
#
# So the derivative of a matrix product is two more matrix products. That is why a training step costs three times a forward
# pass.
#
# You can remember it by shapes: `g` is `(n, m)`, `a` is `(n, k)`, `b` is `(k, m)`, and there is only one way to make `(n, k)`
# from `g` and `b`. But do not *rely* on it: with square matrices every wrong way fits, too.
#
# ### Exercise 2: matmul
#
# It should work for stacks of matrices as well, `(..., n, k) @ (..., k, m)`, and where one matrix, on either side,
# multiplies a whole stack. That one has been broadcast; you know what to do.


# %%
def matmul(x, y):
    """x @ y, and (the pullback for x, the pullback for y)."""
    # BEGIN SOLUTION
    dx = lambda g: unbroadcast(g @ y.swapaxes(-1, -2), x.shape)
    dy = lambda g: unbroadcast(x.swapaxes(-1, -2) @ g, y.shape)
    return x @ y, (dx, dy)
    # END SOLUTION


matmul = check(matmul)

# %% [markdown]
# <details><summary>Hint 1</summary>dx = g @ yᵀ and dy = xᵀ @ g.</details>
# <details><summary>Hint 2</summary>For a stack, transpose only the last two axes: <code>y.swapaxes(-1, -2)</code>.</details>
# <details><summary>Hint 3</summary>Wrap both in <code>unbroadcast(..., x.shape)</code> and
# <code>unbroadcast(..., y.shape)</code>.</details>
#
# ## Summing forward is copying backward
#
# You have seen it in the pictures: the Jacobians of summing and of copying are each other's transposes. So the pullback
# of a sum *copies*: when a term of a sum moves, the sum moves by the same amount. So every term gets all of `g`.
#
# **Predict.** `x` has shape `(3, 3)`. You sum over axis 1, so `g` has shape `(3,)`. If you simply broadcast `g` back to
# `(3, 3)`, does NumPy complain? Is the result right?
#
# ### Exercise 3: sum along an axis


# %%
def sum_over(x, axis):
    """x.sum(axis) for one axis, and the pullback."""
    # BEGIN SOLUTION
    return x.sum(axis), lambda g: np.broadcast_to(np.expand_dims(g, axis), x.shape)
    # END SOLUTION


sum_over = check(sum_over)

# %% [markdown]
# <details><summary>Hint 1</summary>Put the lost axis back with length 1: <code>np.expand_dims(g, axis)</code>.</details>
# <details><summary>Hint 2</summary>Then stretch it: <code>np.broadcast_to(..., x.shape)</code>.</details>
# <details><summary>Hint 3</summary>Do not divide by anything. That would be the mean.</details>
# <details><summary>And the prediction?</summary>NumPy does not complain: it lines g up with the <i>last</i> axis, and
# every column gets what belongs to a row. With a shape like (4, 3) it would have complained.</details>
#
# ## Looking up rows
#
# The first thing that a GPT does with a token is to look up its row in a table: `weight[ids]`. One batch may ask for
# row 2 many times: the letter *e* comes more often than *z*. Each place where a row was used sends a gradient back, and
# they **add up**:
#
# $$\frac{\partial L}{\partial w_v} = \sum_{i \,:\, \mathrm{ids}_i = v} g_i$$
#
# Rows that nobody asked for get zero.
#
# ### Exercise 4: embedding
#
# `ids` may have any shape; `weight[ids]` then has one axis more. Be careful: NumPy has a trap here. You will see it if
# you fall into it.


# %%
def embedding(weight, ids):
    """weight[ids], weight (V, C) and integers ids of any shape, and the pullback for weight."""

    # BEGIN SOLUTION
    def dweight(g):
        gradient = np.zeros_like(weight)
        np.add.at(gradient, ids, g)
        return gradient

    return weight[ids], dweight
    # END SOLUTION


embedding = check(embedding)

# %% [markdown]
# <details><summary>Hint 1</summary>The gradient has the table's shape: begin with <code>np.zeros_like(weight)</code>.</details>
# <details><summary>Hint 2</summary><code>gradient[ids] += g</code> looks right, but counts each id once only. Why? NumPy first
# reads all the rows, then adds, then writes.</details>
# <details><summary>Hint 3</summary><code>np.add.at(gradient, ids, g)</code> adds every time.</details>
#
# ## Break it and watch
#
# What would that trap cost? Here is a text, a table, and both gradients. Frequent letters lose most.

# %%
ids = np.array([ord(c) - ord("a") for c in "thereisnothingeithergoodorbadbutthinkingmakesitso"])
weight, g = np.zeros((26, 8)), rng.normal(size=(len(ids), 8)) + 0.5
_, pullback = embedding(weight, ids)
overwritten = np.zeros_like(weight)
overwritten[ids] += g
plot_embedding_gradients(ids, pullback(g), overwritten)

# %% [markdown]
# A model with this bug trains, slowly, and nobody ever sees an error.
#
# ## In the library
#
# - [`ops/elementwise.py`](../autograd/ops/elementwise.py): `unbroadcast` at the top, then one rule per line.
# - [`ops/linalg.py`](../autograd/ops/linalg.py): `matmul` also takes vectors; `linear` folds all leading axes into one, so that
#   each pass is a single large product.
# - [`ops/nn.py`](../autograd/ops/nn.py): `embedding` sorts the ids and sums runs of equal ones, several times faster than
#   `np.add.at`, and always in the same order, so that results can be repeated to the last bit.
#
# A Tensor in a notebook shows what it is and where it comes from, and `draw` puts the shapes on the edges:

# %%
x = ag.Tensor(rng.normal(size=(4, 3)), requires_grad=True)
W = ag.Tensor(rng.normal(size=(3, 2)), requires_grad=True)
b = ag.Tensor(np.zeros(2), requires_grad=True)
loss = (x @ W + b).tanh().sum()
picture = ag.draw(loss, x=x, W=W, b=b)
loss.backward()
picture

# %%
W

# %% [markdown]
# ## What you have now
#
# - A pullback computes $J^\top g$ without ever making $J$.
# - Copy forward, sum backward. Sum forward, copy backward. Look up forward, add up backward.
# - The gradient of anything has the shape of that thing. The library asserts it at every step.
#
# Next: [4. Softmax, cross entropy, a bigram Shakespeare](04_softmax_and_cross_entropy.ipynb), the first model that learns a
# text.
