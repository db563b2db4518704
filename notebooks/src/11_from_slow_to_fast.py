# %% [markdown]
# # 11. From slow to fast
#
# You have a GPT whose every slope is right. Now make it fast. This notebook opens the engine itself, measures where a
# training step spends its time, and then removes one kind of waste after another. Nothing is believed: each idea is
# measured here, on your machine, and its gain is a ratio.
#
# **You will write** a fused operation with its pullbacks, a computation in blocks, a linear layer with its gelu
# inside, micro-batches, a checkpoint, and one step of attention with a cache: six functions, 2 to 8 lines each. **You
# need** notebooks 5 to 7. About 100 minutes.

# %%
import copy
import cProfile
import functools
import inspect
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_limits

import autograd as ag
from autograd import Tensor, gradcheck
from autograd.backend import keep_freed_memory
from workbook.speed import (
    check,
    code_of,
    gelu,
    gelu_slope,
    memory_of,
    nodes_below,
    once,
    plot_blocks,
    plot_gains,
    plot_memory,
    plot_micro_batches,
    plot_rounding,
    plot_shares,
    plot_tape,
    plot_threads,
    plot_tokens,
    products_of,
    small_gpt,
    top_functions,
)

rng = np.random.default_rng(0)
threadpool_limits(1)  # one thread for matrix products, so that we see what our own code does
gains = {}  # what each idea brought

# %% [markdown]
# ## How to measure
#
# A computer does many things at once, and each of them can only make your program *slower*, never faster. So the
# smallest of several times is the one with the least noise in it. And two rivals are timed in turn, so that a slow
# moment hits both.


# %%
def fastest(functions, rounds=5):
    """{name: seconds}: each function's best time, of several rounds in which all have their turn."""
    best = dict.fromkeys(functions, np.inf)
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


# %% [markdown]
# All numbers of seconds in this notebook come from such cells, and yours will differ from ours. If another program
# keeps your machine busy, a ratio may come out smaller than the text promises. Run its cell again.
#
# ## Read the engine
#
# Its heart is three files. They do what your scalar engine of notebook 2 did.
#
# | file | what is in it |
# |---|---|
# | [`autograd/tensor.py`](../autograd/tensor.py) | `Tensor`: an array, its gradient, and the Node that made it |
# | [`autograd/operation.py`](../autograd/operation.py) | `op`: makes an operation on Tensors from a function on arrays |
# | [`autograd/tape.py`](../autograd/tape.py) | `Node`: one recorded operation; `walk`: the way back |
#
# **A Tensor** is an array with a few remarks:

# %%
x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
w = Tensor(np.array([0.5, -1.0, 2.0]), requires_grad=True)
loss = (x * w).sum()
for name in ("data", "requires_grad", "grad", "node"):
    of_x, of_loss = getattr(x, name), getattr(loss, name)
    print(f"{name:14}x: {str(of_x):14}loss:", f"Node {of_loss.name}" if name == "node" else of_loss)

# %% [markdown]
# `x` is a *leaf*: nothing made it, so it has no Node. `loss` has one, called `sum`.
#
# **An operation** is a function on plain arrays that returns two things: the result, and the pullbacks. Here is
# multiplication, complete:

# %% tags=["varies"]
print(code_of(ag.multiply.raw))

# %% [markdown]
# `unbroadcast` you know from notebook 3. The rest is the product rule. (`x * w` calls it; that is arranged in
# `ops/operators.py`.) The line `@op` turns such a function into one that takes Tensors and records. This is all of
# `op`, without its docstring:

# %% tags=["varies"]
print(code_of(ag.op))

# %% [markdown]
# Follow the numbers in its comments. First it takes the arrays out of the Tensors. Then it calls your function on
# them. Then, if any input wants a gradient, it writes down a `Node`: the name, the *parents* (where each gradient
# must go), and the pullbacks. (`uses` notices if you change an array that the tape still needs. `watch` lets others look
# on: the search for the first NaN, for example.)

# %%
plot_tape()

# %% [markdown]
# The tape is no list. Each Node points to what was there *before* it, and the loss points to the newest. So when you
# drop the loss, everything behind it is freed, too.
#
# **Predict.** What do the two pullbacks of `multiply` give for an upstream gradient of ones? Which of the two belongs
# to `x`?

# %%
summed = loss.node
multiplied = summed.parents[0]
print("the newest:", summed.name, "| before it:", multiplied.name)
print("its first parent is x:", multiplied.parents[0] is x)
g = summed.pullbacks[0](np.ones(()))
print("to x:", multiplied.pullbacks[0](g), " to w:", multiplied.pullbacks[1](g))

# %% [markdown]
# That was the whole backward pass, by hand. `loss.backward()` first sees to the upstream gradient: a 1, if you give
# none. Its last lines begin **the walk**, which does for any graph what you have just done for two Nodes:

# %% tags=["varies"]
print(code_of(ag.tape.walk))

# %% [markdown]
# Again, follow the numbers. **1.** It takes the *newest* Node that is left. You know why from notebook 2: all users of its
# output are done by then. **2.** It calls the pullbacks. **3.** It *adds* where a value is used twice. **4.** It throws
# the pullbacks away, and with them the arrays that they keep. (What has "Adding" or "Summing" in its name saves work on
# a GPU. On a CPU you can skip those lines.)
#
# **What stays in memory?** A pullback is a function inside a function. Whatever it mentions by name stays alive until
# the walk has passed.

# %%
for operation in (ag.add, ag.multiply, ag.exp):
    out = operation(x, w) if operation is not ag.exp else operation(x)
    names = {}
    for pullback in out.node.pullbacks:
        names |= inspect.getclosurevars(pullback).nonlocals
    kept = [name for name, value in names.items() if isinstance(value, np.ndarray)]
    print(f"{operation.__name__:9} keeps {kept}")

# %% [markdown]
# A sum needs nothing of its inputs. A product needs both. `exp` needs only its result, since that is its own slope.
#
# ### Exercise 1: an operation of your own
#
# Newer models have a *gate* in their MLP, called SwiGLU. The library does not have it. You can add it, without
# touching the library:
#
# $$\mathrm{out} = x \, \sigma(x) \, y, \qquad \sigma(x) = \frac{1}{1 + e^{-x}}, \qquad \sigma'(x) = \sigma(x)\,(1 - \sigma(x))$$
#
# Written with Tensors, `x * ag.sigmoid(x) * y` is three operations. Write it as one: arrays in, the result and two
# pullbacks out.
#
# **Predict.** Which arrays will yours keep for the way back?


# %%
def swiglu(x, y):
    """x * sigmoid(x) * y for arrays of one shape, and the pullbacks (of x, of y)."""
    # BEGIN SOLUTION
    s = 1 / (1 + np.exp(-x))
    dx = lambda g: g * y * (s + x * s * (1 - s))
    dy = lambda g: g * x * s
    return x * s * y, (dx, dy)
    # END SOLUTION


swiglu = check(swiglu)

# %% [markdown]
# <details><summary>Hint 1</summary>Compute <code>s</code>, the sigmoid of x, once. The pullbacks may use it.</details>
# <details><summary>Hint 2</summary>For y it is a plain product: the gradient is <code>g</code> times everything else.</details>
# <details><summary>Hint 3</summary>x comes in twice, so its slope has two terms: with s held constant it is s, and with the
# factor x held constant it is x times the slope of the sigmoid. Both times y.</details>

# %%
gate = ag.op(swiglu)
composed = lambda x, y: x * ag.sigmoid(x) * y
x, y = (Tensor(rng.normal(size=(2, 3)), requires_grad=True) for _ in range(2))
print("the same values:", np.allclose(gate(x, y).data, composed(x, y).data))
print("gradcheck accepts it:", gradcheck(gate, x, y))
print(
    "operations on the tape:",
    nodes_below(composed(x, y)),
    "composed,",
    nodes_below(gate(x, y)),
    "fused",
)

# %% [markdown]
# ### Break it and watch
#
# What if somebody forgets the pullback of `y`, or hands back a gradient of the wrong shape? **Predict**: an error, or
# a wrong gradient without a word?


# %%
@ag.op
def forgetful(x, y):
    out, (dx, dy) = swiglu(x, y)
    return out, (dx,)


@ag.op
def too_small(x, y):
    out, (dx, dy) = swiglu(x, y)
    return out, (dx, lambda g: dy(g).sum(0))


for operation in (forgetful, too_small):
    try:
        gradcheck(operation, x, y)
    except AssertionError as error:
        print(f"{operation.__name__}: {error}")

# %% [markdown]
# The walk sees a wrong shape at once. A missing pullback it does not see: `y` just gets no gradient, and such a
# network trains, only worse. The gradient check sees both. That is why every operation of the library has to
# pass one.
#
# ## Where does the time go?
#
# Measure before you improve. Python brings a *profiler*, which counts calls and time for each function:


# %%
def training_step(model, rows):
    """A function that makes one training step."""
    T, V = model.config.block_size, model.config.vocab_size
    ids = np.random.default_rng(0).integers(V, size=(rows, T + 1))
    optimizer = ag.AdamW(model.parameters(), lr=1e-3)
    optimizer.flatten()  # all parameters in one array

    def step():
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()

    return step


# %% tags=["varies"]
profile, step = cProfile.Profile(), training_step(small_gpt(128), rows=8)
step()  # the first is slower: some things are made once
profile.runcall(lambda: [step() for _ in range(10)])
for share, calls, name in top_functions(profile)[:9]:
    print(f"{share:4.0%} of the time in {calls / 10:4.0f} calls a step of {name}")

# %% [markdown]
# (Each `lambda` is a pullback.) It tells *where* the time goes, but not *why*. The time of `linear` is that of a
# matrix product, of adding a bias, and of Python itself, all in one number. A training step does three kinds of work:
#
# 1. **matrix products**: many multiplications for each number that is read;
# 2. **passes over memory**: adding a bias, `exp`, a sum of rows. One small thing is done to each number, and much of the
#    time goes into fetching it and putting it back;
# 3. **Python**: calling functions, building the tape, walking it.
#
# How can we tell them apart? The products can be done alone: the same shapes, nothing else. Python can be done alone,
# too: take the same step with arrays of nearly no size. What is left must be the passes.
#
# **Predict.** For a model of 16 channels, which of the three is the largest? And for 256?


# %%
def products_alone(model, rows):
    pairs = products_of(model, rows)
    return lambda: [a @ b for a, b in pairs]


# %% tags=["varies"]
parts = {}
for width in (16, 64, 128, 256):
    model = small_gpt(width)
    seconds = fastest(
        {
            "step": training_step(model, rows=8),
            "products": products_alone(model, rows=8),
            "python": training_step(small_gpt(width=4, length=1), rows=1),
        }
    )
    passes = max(0, seconds["step"] - seconds["products"] - seconds["python"])
    parts[width] = {
        "matrix products": seconds["products"],
        "passes over memory": passes,
        "Python": seconds["python"],
    }
plot_shares(parts)

# %% [markdown]
# Python costs about the same whatever the size of the arrays is. So it matters in a small model, and disappears in a
# large one. With the width $C$ the passes grow like $C$, the products like $C^2$. So in a wide model the products
# win. (In a narrow one their share is large as well, but for another reason: products of tiny matrices are slow for
# their size.) They are done by a library, BLAS, that comes close to what the processor can do. We leave them as they
# are, and go for the rest.
#
# ## Passes over memory
#
# Why should a pass be slow? A processor can add about as fast as it can multiply, and it does both much faster than
# the main memory can deliver. Near the processor there are small, fast memories, the *caches*. What was used a moment
# ago is still there, unless too much else came in between.
#
# Now look at a bias and a gelu, as one writes them with NumPy:

# %% tags=["varies"]
print(code_of(gelu))

# %% [markdown]
# Each operator runs through the whole array before the next begins. If the array is larger than the cache, its
# beginning has been pushed out by the time the next operator wants it. And each operator makes a new array for its
# result.
#
# The cure is simple: take a few rows, do *everything* to them, then take the next few.
#
# ### Exercise 2: in blocks


# %%
def in_blocks(function, x, bias, rows):
    """function(x + bias) for x (N, C) and bias (C,), with at most `rows` rows at a time."""
    # BEGIN SOLUTION
    out = np.empty_like(x)
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        out[part] = function(x[part] + bias)
    return out
    # END SOLUTION


in_blocks = check(in_blocks)

# %% [markdown]
# <details><summary>Hint 1</summary>Make an empty array for the result, <code>np.empty_like(x)</code>, and fill it part by
# part.</details>
# <details><summary>Hint 2</summary><code>range(0, len(x), rows)</code> gives the first row of each block.</details>
# <details><summary>Hint 3</summary><code>x[start : start + rows]</code> is right for the last block, too: a slice may reach
# beyond the end.</details>
#
# **Predict.** Draw the time per element over the number of rows in a block, from 1 row to all. Where is it lowest?

# %% tags=["varies"]
x, bias = rng.normal(size=(4096, 512)).astype(np.float32), np.ones(512, np.float32)
all_rows = len(x)
blocked = lambda rows: functools.partial(in_blocks, gelu, x, bias, rows)
sizes = (1, 4, 16, 64, 256, 1024, all_rows)
fresh = fastest({rows: blocked(rows) for rows in sizes}, rounds=4)
keep_freed_memory()
kept = fastest({rows: blocked(rows) for rows in sizes}, rounds=4)
per_element = lambda curve: {rows: 1e9 * s / x.size for rows, s in curve.items()}
curves = {"as it comes": per_element(fresh), "freed memory is kept": per_element(kept)}
gains["in blocks"] = fresh[all_rows] / min(fresh.values())
print(f"all at once takes {gains['in blocks']:.1f} times as long as the best block")
plot_blocks(curves, channels=512)

# %% [markdown]
# To the left the blocks are so small that calling NumPy takes longer than computing. To the right they no longer fit
# into the cache. In between lies a broad valley. Nobody needs to know the exact size of a cache; a few hundred KB is
# good nearly everywhere.
#
# And the blue line? There is a second cost, hidden. Large arrays come fresh from the operating system, which fills
# them with zeros before it hands them over, page by page. When they are freed, they go back, and the next one is
# filled with zeros again. `keep_freed_memory()` asks Linux to let the program keep what it has freed (elsewhere it
# does nothing). Training and sampling begin with it.
#
# ### Break it and watch
#
# A gelu has an $x^3$ in it. `x**3` or `x * x * x`: **predict** which is faster, and by how much.

# %% tags=["varies"]
block = x[:256]
seconds = fastest({"x**3": lambda: block**3, "x * x * x": lambda: block * block * block})
print(f"x**3 takes {seconds['x**3'] / seconds['x * x * x']:.0f} times as long as x * x * x")

# %% [markdown]
# One pass against two! But in NumPy a power with any exponent goes through a logarithm and an exponential, or the
# like. A product is a product. So count the passes, and also look at what each of them does. (NumPy knows `x**2`, and
# makes a product of it.)
#
# ## Fused pullbacks
#
# On the tape, passes cost memory as well: each operation keeps arrays for its pullback. Let us count for the first
# half of an MLP, $\mathrm{gelu}(x W + b)$, once from primitives and once as one operation, which keeps only `x`,
# `weight` and `pre`, the values before the gelu.
#
# $$\mathrm{pre} = x W + b, \qquad \mathrm{out} = \mathrm{gelu}(\mathrm{pre})$$
#
# With $d\mathrm{pre} = g \odot \mathrm{gelu}'(\mathrm{pre})$ the rest is notebook 3: $dx = d\mathrm{pre}\, W^\top$,
# $dW = x^\top d\mathrm{pre}$, and $db$ is the sum of the rows of $d\mathrm{pre}$.
#
# ### Exercise 3: a linear layer with its gelu
#
# **Predict.** From primitives this is 11 operations. How many arrays of the size of `pre` stay in memory for the way back?
#
# `gelu` and `gelu_slope` are NumPy functions. All three pullbacks begin with the same work. So begin with `dpre =
# once(lambda g: ...)`: it computes for the first, and remembers for the two others.


# %%
def linear_gelu(x, weight, bias):
    """gelu(x @ weight + bias) for arrays (N, K), (K, M), (M,), and the pullbacks of all three."""
    # BEGIN SOLUTION
    pre = x @ weight + bias
    dpre = once(lambda g: g * gelu_slope(pre))
    dx = lambda g: dpre(g) @ weight.T
    dweight = lambda g: x.T @ dpre(g)
    dbias = lambda g: dpre(g).sum(0)
    return gelu(pre), (dx, dweight, dbias)
    # END SOLUTION


linear_gelu = check(linear_gelu)

# %% [markdown]
# <details><summary>Hint 1</summary><code>dpre</code> is <code>g</code> times the slope of the gelu at <code>pre</code>.</details>
# <details><summary>Hint 2</summary>The shapes tell where the transposes go: the gradient of weight must be (K, M).</details>
# <details><summary>Hint 3</summary>Return <code>gelu(pre)</code> and a tuple of three functions of g, each of which uses
# <code>dpre(g)</code>.</details>


# %% tags=["varies"]
def from_primitives(x, weight, bias):
    z = x @ weight + bias
    return 0.5 * z * (1 + ag.tanh(0.797885 * (z + 0.044715 * z * z * z)))


ways = {
    "from primitives": from_primitives,
    "yours, fused": ag.op(linear_gelu),
    "the library's": functools.partial(ag.linear, activation="gelu"),
}
shapes = ((2048, 64), (64, 256), (256,))
inputs = [Tensor(rng.normal(size=s).astype(np.float32), requires_grad=True) for s in shapes]
g = np.ones((2048, 256), np.float32)
seconds = fastest({name: lambda f=f: f(*inputs).backward(g) for name, f in ways.items()}, rounds=10)
memory = {name: memory_of(f, *inputs)[0] for name, f in ways.items()}
print(f"{'':17}operations   ms    MB kept")
for name, f in ways.items():
    count, ms, mb = nodes_below(f(*inputs)), 1e3 * seconds[name], memory[name] / 1e6
    print(f"{name:17}{count:10d}{ms:6.1f}{mb:9.1f}")
gains["fused linear + gelu"] = seconds["from primitives"] / seconds["yours, fused"]
gains["fused: memory"] = memory["from primitives"] / memory["yours, fused"]

# %% [markdown]
# From primitives the tape holds an array for nearly every step. (Each of them has 2.1 MB.) The fused operation holds one,
# `pre`, beside its result. Such arrays, the *activations*, are what fills the memory in training. So this counts more than
# the time.
#
# In time the gain is smaller, since the three matrix products are the same in all rows of the table. The library's
# version has fewer arrays to make than yours: it works in place (`t *= x`, not `t = t * x`) where nobody else needs
# the array. Look at `gelu` in [`autograd/ops/elementwise.py`](../autograd/ops/elementwise.py).
#
# ### Break it and watch
#
# In place is fast, and dangerous. Here a pullback saves an array by writing into one that it keeps.
#
# **Predict.** What does a second backward pass through the same tape give?


# %%
@ag.op
def hasty_square(x):
    slope = 2 * x

    def dx(g):
        np.multiply(slope, g, out=slope)  # saves an array: slope * g would be a new one
        return slope

    return x * x, dx


x = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True)
out = hasty_square(x)
for turn in ("first", "second"):
    x.grad = None
    out.backward(np.full(3, 10.0), retain_graph=True)
    print(f"{turn:7}", x.grad)

# %% [markdown]
# The first pass is right, the second is not: the kept slope has been overwritten. Write only into arrays that are
# yours alone. (The checks of this notebook call your pullbacks twice, for this reason.)
#
# ## Micro-batches
#
# The same idea, one level up. Do not take *rows of an array* in blocks, but *rows of a batch*: a few sequences
# forward and backward, then the next few. The gradients add up. Only one micro-batch's activations are in memory at a
# time, and they are small enough to stay in the cache.
#
# The loss is a mean over rows. The mean of several means is only right if each counts with its share of rows:
#
# $$L = \sum_k \frac{n_k}{N} L_k \qquad\Rightarrow\qquad \nabla L = \sum_k \frac{n_k}{N} \nabla L_k$$
#
# ### Exercise 4: the same gradient, in pieces
#
# `loss_and_gradient(x, y)` gives the mean loss of the rows that it gets, and its gradient.
#
# **Predict.** 7 rows, 3 at a time. Which row counts too much if you simply take the mean of all $L_k$?


# %%
def micro_batches(loss_and_gradient, x, y, size):
    """(loss, gradient) of the mean over all rows of x and y, with at most `size` rows at a time."""
    # BEGIN SOLUTION
    loss, gradient = 0.0, 0.0
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        its_loss, its_gradient = loss_and_gradient(x[part], y[part])
        share = len(x[part]) / len(x)
        loss = loss + share * its_loss
        gradient = gradient + share * its_gradient
    return loss, gradient
    # END SOLUTION


micro_batches = check(micro_batches)

# %% [markdown]
# <details><summary>Hint 1</summary>The loop is that of exercise 2.</details>
# <details><summary>Hint 2</summary>The share of a micro-batch is <code>len(x[part]) / len(x)</code>. It is smaller for the last
# one, if <code>size</code> does not divide the number of rows.</details>
# <details><summary>Hint 3</summary>Start both sums at 0.0, and add share times loss, share times gradient.</details>
#
# On a whole GPT, with its gradient as one flat array:

# %%
model = small_gpt(128)
optimizer = ag.AdamW(model.parameters(), lr=1e-3)
optimizer.flatten()
ids = rng.integers(65, size=(48, 65))


def loss_and_gradient(x, y):
    optimizer.zero_grad()
    loss = model.loss(x, y)
    loss.backward()
    return loss.item(), optimizer.gradient.copy()


_, at_once = loss_and_gradient(ids[:, :-1], ids[:, 1:])
_, in_pieces = micro_batches(loss_and_gradient, ids[:, :-1], ids[:, 1:], 5)
difference = np.linalg.norm(at_once - in_pieces) / np.linalg.norm(at_once)
print("48 rows at once, or 5 at a time: the same gradient to 5 digits:", difference < 1e-5)

# %% [markdown]
# ### Break it and watch
#
# Many training programs add the micro-batches up and divide by their number. With 48 rows, 5 at a time, the last one has
# only 3. **Predict.** How far off is the gradient then?

# %%
starts = range(0, 48, 5)
parts = [loss_and_gradient(ids[i : i + 5, :-1], ids[i : i + 5, 1:])[1] for i in starts]
error = np.linalg.norm(sum(parts) / len(parts) - at_once) / np.linalg.norm(at_once)
print(f"off by {error:.0%} of its length")

# %% [markdown]
# The three rows of the last piece count as much as the five of any other. The error looks like the noise that every batch
# has. So no loss curve shows it. And now what we came for, memory and time:

# %% tags=["varies"]
pieces = lambda size: functools.partial(
    micro_batches, loss_and_gradient, ids[:, :-1], ids[:, 1:], size
)
memory = {size: memory_of(pieces(size))[1] for size in (1, 4, 16, 48)}
seconds = fastest({size: pieces(size) for size in memory}, rounds=3)
gains["micro-batches: memory"] = memory[48] / memory[4]
print(f"48 rows at once need {gains['micro-batches: memory']:.0f} times the memory of 4 at a time")
plot_micro_batches(memory, seconds)

# %% [markdown]
# Memory hardly depends on the batch any more, only on the size of the piece. You can train with a batch of any size.
#
# And the time? One row at a time is slow: all the Python, for little work. From a few rows on, it is about the same
# for all, and you take the smallest of those. On a machine with small caches, or where freed memory is not kept, the
# largest pieces can be slower again. The library takes about a thousand positions at a time.
#
# ## Threads
#
# In ordinary Python only one thread runs at a time: the interpreter has a lock. But NumPy gives it back while it
# computes. So two threads *can* work at the same time, as long as they are inside NumPy.
#
# **Predict.** Two threads each compute `np.tanh` of arrays of their own. From which size on is it worth it? What
# happens with tiny arrays?


# %% tags=["varies"]
def gain_of_two_threads(work):
    """How many times faster two threads do work(0) and work(1) than one after the other."""
    with ThreadPoolExecutor(2) as pool:
        one_by_one = lambda: [work(0), work(1)]
        together = lambda: list(pool.map(work, range(2)))
        seconds = fastest({"one by one": one_by_one, "together": together}, rounds=7)
    return seconds["one by one"] / seconds["together"]


def many_tanh(size):
    x, out = np.ones((2, 2, size), np.float32)  # for each thread arrays of its own
    repeats = max(1, min(1500, 4_000_000 // size))
    return lambda worker: [np.tanh(x[worker], out=out[worker]) for _ in range(repeats)]


plot_threads({n: gain_of_two_threads(many_tanh(n)) for n in (30, 300, 3000, 30_000, 300_000)})

# %% [markdown]
# With large arrays two threads come near to twice the speed, if the machine has two cores with nothing else to do.
# With tiny ones they only quarrel about the lock: nearly all the time goes into Python, which one thread at a time
# may run, and handing over the lock costs extra.
#
# The same for whole training steps, each thread with a model of its own:

# %% tags=["varies"]
for width in (16, 256):
    steps = [training_step(small_gpt(width), rows=4) for _ in range(2)]
    gain = gain_of_two_threads(lambda worker, steps=steps: steps[worker]())
    print(f"{width:4d} channels: two threads are {gain:.2f} times as fast")
gains["two threads, 256 channels"] = gain

# %% [markdown]
# So the library gives each worker micro-batches of its own, a copy of the model that *shares the weights* and owns
# its gradients, and one thread for products. At the end the gradients are added, in a fixed order, so that the same
# numbers give the same bits. On Linux its workers are not threads but processes, forked from the first one: each has
# a lock of its own, and they share the arrays all the same. Read
# [`workers.py`](../tinygpt/parallel/workers.py) and [`forked.py`](../tinygpt/parallel/forked.py) in `tinygpt/parallel`.
#
# ### Break it and watch
#
# Why gradients of its own? Let two threads add to the *same* array.
#
# **Predict.** Both add 1 to every element, 200 times. What should each element be at the end, and what will it be?

# %% tags=["varies"]
total, ones = np.zeros(300_000, np.float32), np.ones(300_000, np.float32)
add_many = lambda worker: [np.add(total, ones, out=total) for _ in range(200)]
with ThreadPoolExecutor(2) as pool:
    list(pool.map(add_many, range(2)))
print(f"it should be 400 everywhere; {(total != 400).mean():.0%} of the elements are less")

# %% [markdown]
# Both read the old value, both add 1, both write. If that happens at the same moment, one of the two additions is
# lost. How many are lost is a matter of luck, and another number each time: on one core perhaps none, on two cores
# perhaps nearly all elements. No error, no warning. A bug like this shows in no test that looks only once.
#
# ## Activation checkpointing
#
# What if one sequence alone is too large for the memory? Then do not keep the activations of a block at all. Keep
# only its input, and on the way back *compute the block again*. Memory for time: every block runs forward twice.
#
# ### Exercise 5: compute it again
#
# `function(x)` returns a result and a pullback, as your operations do. The pullback keeps arrays. Yours shall keep
# only `x`.


# %%
def recomputing(function, x):
    """The result of function(x), and a pullback that keeps only x and calls function(x) again."""
    # BEGIN SOLUTION
    out, _ = function(x)
    return out, lambda g: function(x)[1](g)
    # END SOLUTION


recomputing = check(recomputing)

# %% [markdown]
# <details><summary>Hint 1</summary>Forward: call <code>function(x)</code>, return the first of the two things, forget the
# second.</details>
# <details><summary>Hint 2</summary>The pullback is a <code>lambda g: ...</code> that calls <code>function(x)</code> once
# more.</details>
# <details><summary>Hint 3</summary>The second thing that it gets is the function's own pullback: call that with g.</details>
#
# `ag.checkpoint(block, x)` is the same for Tensors. To see memory rise and fall, we need an instrument. An operation
# can be one: it hands its input on, and its gradient too, and writes down how much memory is in use whenever somebody
# passes by.


# %%
def instrument(log):
    """An operation that changes nothing, and logs the memory in use, on the way forward and back."""

    @ag.op
    def look(x):
        log.append(tracemalloc.get_traced_memory()[0])

        def dx(g):
            log.append(tracemalloc.get_traced_memory()[0])
            return g

        return x, dx

    return look


def memory_during(model, ids, recompute):
    log = []
    look = instrument(log)
    tracemalloc.start()
    t = model.transformer
    x = t.wte(ids) + t.wpe.weight[: ids.shape[1]]
    for layer in t.h:
        block = lambda x, layer=layer: look(layer(look(x), stream=None))
        x = ag.checkpoint(block, x) if recompute else block(x)
    t.ln_f(x).sum().backward()
    tracemalloc.stop()
    return log


# %% [markdown]
# **Predict.** Draw the memory over time for a model of 8 blocks: forward through all of them, then back. And then
# with checkpoints.

# %% tags=["varies"]
deep = small_gpt(64, n_layer=8)
ids = rng.integers(65, size=(16, 64))
logs = {"everything is kept": memory_during(deep, ids, False)}
logs["with checkpoints"] = memory_during(deep, ids, True)
gains["checkpoints: memory"] = max(logs["everything is kept"]) / max(logs["with checkpoints"])
plot_memory(logs)

# %% [markdown]
# Left: a mountain. Every block adds its activations on the way up, and the walk frees them on the way down. Right: on
# the way up each block leaves little more than its input. Then, block by block, it is computed again, used, and
# freed. Each tooth is one block. The peak is no longer the whole model, but little more than one block.


# %% tags=["varies"]
def whole_step(recompute):
    deep.transformer.recompute_blocks = recompute
    deep.loss(ids, ids).backward()


seconds = fastest({flag: functools.partial(whole_step, flag) for flag in (False, True)})
deep.transformer.recompute_blocks = False
gains["checkpoints: time"] = seconds[False] / seconds[True]
print(f"with checkpoints a step takes {seconds[True] / seconds[False]:.2f} times as long")

# %% [markdown]
# A backward pass costs about two forward passes. One more forward pass makes four out of three, so about 1.3 times is
# what to expect. In the library it is `--recompute-blocks`.
#
# ### Break it and watch
#
# The block must give *the same result* both times. Here it draws a random mask, as dropout does.
#
# **Predict.** Where the output is 0, the gradient must be 0 as well. Is it?


# %%
draw = np.random.default_rng(1)


def careless_dropout(x):
    return x * Tensor(draw.integers(2, size=x.shape), dtype=np.float64)


x = Tensor(np.ones(16), requires_grad=True)
out = ag.checkpoint(careless_dropout, x)
out.backward(np.ones(16))
print("output:  ", out.data.astype(int))
print("gradient:", x.grad.astype(int))

# %% [markdown]
# The second pass drew another mask, so this is the gradient of another function. In the library random numbers do not
# come out of a generator in turn. They have *addresses*: step, row, layer ([`Stream`](../autograd/random.py)). Whoever asks
# for the same address gets the same numbers, the second time too, and in whichever thread.
#
# ## The key/value cache
#
# Training looks at all positions at once. Sampling does not: one token, then the next. In notebook 7 you gave the
# model the whole text again for each new character.
#
# **Predict.** The mask says that a position sees only its past. When one more token is appended, which of the keys
# and values of the older positions change?
#
# <details><summary>The answer</summary>None. They depend on their past only, and that stays as it is.</details>
#
# So keep them. The new token needs one query, one key, one value, and looks at the keys that are there already.
#
# ### Exercise 6: one step of attention, with a cache
#
# There are $H$ heads of $D$ channels, and room for $T$ positions. The new token is at place `t`. First put `k` and
# `v` where they belong, in place; then attend with `q` to places 0 to `t`. Scores, scale, softmax, weighted mean: as
# in notebook 6, with one query for each head.


# %%
def cached_attention(q, k, v, keys, values, t):
    """The result (H, D) for q, k, v (H, D) at place t; keys and values (H, T, D) receive k and v."""
    # BEGIN SOLUTION
    keys[:, t], values[:, t] = k, v
    scores = np.einsum("hd,htd->ht", q, keys[:, : t + 1]) / q.shape[-1] ** 0.5
    e = np.exp(scores - scores.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    return np.einsum("ht,htd->hd", p, values[:, : t + 1])
    # END SOLUTION


cached_attention = check(cached_attention)

# %% [markdown]
# <details><summary>Hint 1</summary><code>keys[:, t] = k</code> stores one row for each head. The past, with the new one, is
# <code>keys[:, : t + 1]</code>.</details>
# <details><summary>Hint 2</summary>The scores are (H, t + 1): <code>np.einsum("hd,htd-&gt;ht", q, past)</code>, or
# <code>(past @ q[:, :, None])[:, :, 0]</code>. No mask: the future is not there yet.</details>
# <details><summary>Hint 3</summary>Divide by √D, softmax over the last axis, then
# <code>np.einsum("ht,htd-&gt;hd", p, values[:, : t + 1])</code>.</details>
#
# Around it goes the model: for a single position, with your function in place of attention.


# %%
model = small_gpt(128, n_layer=3, length=256)
H, T, D = 4, 256, 128 // 4
ids = rng.integers(65, size=T)


def new_cache():
    return [np.zeros((2, H, T, D), np.float32) for _ in model.transformer.h]


def next_logits(token, t, cache):
    """The logits (V,) of what follows the token at place t. The cache holds all before it."""
    net = model.transformer
    x = net.wte(np.array([token])) + net.wpe.weight[t : t + 1]  # (1, C)
    for block, (keys, values) in zip(net.h, cache):
        q, k, v = block.attn.c_attn(block.ln_1(x)).data.reshape(3, H, D)
        y = cached_attention(q, k, v, keys, values, t).reshape(1, H * D)
        x = x + block.attn.c_proj(Tensor(y, dtype=np.float32))
        x = block.mlp(block.ln_2(x), residual=x, stream=None)
    return model.head(net.ln_f(x)).data[0]


# %%
with ag.no_grad():
    cache = new_cache()
    one_by_one = np.stack([next_logits(ids[t], t, cache) for t in range(40)])
    all_at_once = model(ids[None, :40]).data[0]
print("the same logits:", np.abs(one_by_one - all_at_once).max() < 1e-4 * np.abs(all_at_once).max())

# %% [markdown]
# **Predict.** How does the time for one token grow with the length of the text, without the cache and with it?


# %% tags=["varies"]
@ag.no_grad()
def with_cache(t):
    return next_logits(ids[t], t, cache)  # whatever is in the cache: the time is the same


@ag.no_grad()
def without_cache(t):
    return model(ids[None, : t + 1]).data[0, -1]


places = range(7, T, 31)
slow = fastest({t: functools.partial(without_cache, t) for t in places}, rounds=4)
fast = fastest({t: functools.partial(with_cache, t) for t in places}, rounds=4)
gains["key/value cache"] = sum(slow.values()) / sum(fast.values())
for name, seconds in (("without a cache", slow), ("with a cache", fast)):
    print(f"{name:15} {len(seconds) / sum(seconds.values()):6.0f} tokens per second")
plot_tokens({"without a cache": slow, "with a cache": fast})

# %% [markdown]
# Without the cache the work grows with the text. With it, a token costs nearly the same at any place: one row through
# all the matrices. (The cache gets longer, but reading it is a small part here.)
#
# ### Break it and watch
#
# Some day the context is full, and the window must slide: the oldest token goes out. It is tempting to move the cache by
# one place as well, and go on.
#
# **Predict.** Are these still the logits of a model that reads the last 40 tokens?

# %%
with ag.no_grad():
    cache = new_cache()
    for t in range(40):
        next_logits(ids[t], t, cache)
    moved = [np.roll(keys_and_values, -1, axis=2) for keys_and_values in cache]
    lazy = next_logits(ids[40], 39, moved)
    exact = model(ids[None, 1:41]).data[0, -1]
print("the same logits:", np.abs(lazy - exact).max() < 1e-4 * np.abs(exact).max())

# %% [markdown]
# No. Every token has moved to another *place*, its position embedding is another one, and so are all keys and values. (What
# is more, the old ones still know the token that is gone.) So the library's [`generate`](../tinygpt/generate.py) computes
# the whole window again for each token once the context is full. Or, with `--when-full halve`, it drops the older half of the
# text, computes the rest once, and goes on with the cache.
#
# ## Floats
#
# All models up to here ran in float32: 4 bytes, 24 bits for the digits, about 7 decimal places. All checks ran in
# float64: 8 bytes, 53 bits, 16 places. Why not one of them for everything?
#
# **Predict.** Take a whole GPT and walk uphill from its weights by a step $h$. The slope of the loss, by the central
# difference of notebook 1, once in float32 and once in float64: how many digits are right? And how many digits of the
# float32 *gradient*, from the backward pass?

# %%
single = small_gpt(16, n_layer=1, length=16)
double = copy.deepcopy(single)
for p in double.parameters():
    p.data = p.data.astype(np.float64)
ids = rng.integers(65, size=(4, 17))
flat_gradient = lambda model: np.concatenate([p.grad.ravel() for p in model.parameters()])
for model in (single, double):
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
true, ours = flat_gradient(double), flat_gradient(single)
of_backward = np.linalg.norm(ours - true) / np.linalg.norm(true)
print("float32's backward is right to 5 digits:", of_backward < 1e-5)


# %%
@ag.no_grad()
def difference(model, h):
    """The central difference of the loss along the direction uphill."""
    weights, results = [p.data for p in model.parameters()], []
    for step in (h, -h):
        for p, q, w in zip(model.parameters(), double.parameters(), weights):
            p.data = w + (step * q.grad / np.linalg.norm(true)).astype(w.dtype)
        results.append(model.loss(ids[:, :-1], ids[:, 1:]).item())
        for p, w in zip(model.parameters(), weights):
            p.data = w
    return (results[0] - results[1]) / (2 * h)


steps = np.logspace(-9, 0, 28)
slope = np.linalg.norm(true)  # along the gradient, the slope is its length
errors = {
    name: [abs(difference(m, h) - slope) / slope for h in steps]
    for name, m in (("float64", double), ("float32", single))
}
plot_rounding(steps, errors, of_backward)

# %% [markdown]
# The green line is good news. Each operation of the backward pass rounds in the seventh digit, and hardly anything in it
# makes these errors grow. The red curve is the bad news. A difference subtracts two losses that agree in nearly all of
# their digits, and what it keeps is the noise. It never comes down to the green line. *In float32 the thing to be checked
# is more exact than the check.* In float64 the check goes far below.
#
# Is the seventh digit enough for training? Compare it with another error that every step has: the batch is only a
# sample.

# %%
other = rng.integers(65, size=(4, 17))
for p in double.parameters():
    p.grad = None
double.loss(other[:, :-1], other[:, 1:]).backward()
of_the_batch = np.linalg.norm(flat_gradient(double) - true) / np.linalg.norm(true)
print(
    "another batch changes the gradient more than 10,000 times as much:",
    of_the_batch > 1e4 * of_backward,
)

# %% tags=["varies"]
wide = small_gpt(256)
wide_double = copy.deepcopy(wide)
for p in wide_double.parameters():
    p.data = p.data.astype(np.float64)
seconds = fastest(
    {"float32": training_step(wide, rows=4), "float64": training_step(wide_double, rows=4)},
    rounds=3,
)
gains["float32, not float64"] = seconds["float64"] / seconds["float32"]
print(f"a step in float64 takes {gains['float32, not float64']:.1f} times as long")

# %% [markdown]
# Half the bytes, twice as many numbers in each instruction and in the cache: float32 is about twice as fast, and its
# rounding drowns in the noise of the batch. (A trap: in NumPy, `np.sqrt(64)` is a float64, and a float32 array
# divided by it becomes float64, without a word. `64**0.5` is a Python number and leaves the array as it is. Engines
# get slow that way. Ours refuses to mix the two.)
#
# ### Where float32 is not enough
#
# **Predict.** 0.1, added a million times, one after the other, in float32. And $2^{24} + 1$?

# %%
tenths = np.full(1_000_000, 0.1, np.float32)
column = np.stack([tenths, tenths], axis=1)  # two columns of a million rows
sums = {
    "one after the other": np.cumsum(tenths)[-1],
    "np.sum of a row": tenths.sum(),
    "np.sum down a column": column.sum(0)[0],
    "the engine, down a column": Tensor(column).sum(0).data[0],
}
for what, value in sums.items():
    print(f"{what:26} {value:.0f}")
print(f"2**24 + 1 is {np.float32(2**24) + np.float32(1):.0f}, and 2**24 is {2**24}")

# %% [markdown]
# The larger the sum already is, the fewer digits are left for what comes next. Along the last axis `np.sum` adds
# small groups, and then the groups, which helps. Down a column it adds one after the other. A gradient of a bias is
# exactly that, a sum down a column! For the thousand rows of a micro-batch float32 is good enough, and the fused
# `linear` uses it. Where it could hurt, the engine takes float64, in a few places where that costs little:
#
# - long sums over other axes than the last, `total` in [`autograd/ops/elementwise.py`](../autograd/ops/elementwise.py);
# - the probabilities from which a token is drawn, `probabilities` in [`tinygpt/generate.py`](../tinygpt/generate.py);
# - every gradient check: [`autograd/gradcheck.py`](../autograd/gradcheck.py) refuses float32, and says why.
#
# ## What each idea brought, here

# %% tags=["varies"]
plot_gains(gains)

# %% [markdown]
# A bar below 1 is a price. None of these ideas changed a gradient by more than rounding. And none of them is true
# without its measurement: what "must" be faster sometimes is not, on some machine, at some size.
#
# ## What you have now
#
# - You have read the engine, and added an operation to it.
# - A way to measure: the best of several rounds, in turn; products, passes and Python apart.
# - Keep what you work on in the cache: blocks, fused operations, micro-batches. It is one idea at three sizes.
# - Memory can be bought with time (checkpoints), and time with memory (the cache of keys and values).
# - float32 for the work, float64 for the proof.
#
# Next: [12. A kernel for the GPU](12_a_kernel_for_the_gpu.ipynb), where all of this happens again, with a thousand
# threads.
