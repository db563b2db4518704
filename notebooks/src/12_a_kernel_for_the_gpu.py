# %% [markdown]
# # 12. A kernel for the GPU
#
# The same formulas, on another machine. On a GPU a hundred thousand threads do a little each. To write for it is to decide who does
# what, who waits for whom, and what goes through memory. Here you write the layer norm of notebook 5 once more, in CUDA C.
#
# **You will write** six pieces of CUDA C, 1 to 12 lines each. **You need** notebook 5, and to have seen C: loops, `if`,
# arrays. You need no GPU: the kernels run on the CPU, in an emulator that also finds races. About 90 minutes.

# %%
import numpy as np

from workbook.cuda import show_frame
from workbook.gpu import (
    H100,
    backward,
    experiment,
    forward,
    microseconds,
    plot_fusing,
    plot_gpu,
    plot_lanes,
    plot_race,
    plot_tree,
    say_ready,
    watch,
)
from workbook.kernels import check
from workbook.reading import read

rng = np.random.default_rng(0)
say_ready()

# %% [markdown]
# ## What is different on a GPU
#
# A CPU has a few cores, each of which is clever. A GPU has thousands of simple ones. A function for it is called a *kernel*. You
# launch it once, and it is run by a whole **grid** of threads. All run the same code. What makes them different are two
# numbers: `blockIdx.x`, the number of the block, and `threadIdx.x`, the number of the thread within its block.

# %%
plot_gpu()

# %% [markdown]
# - A **block** is up to 1024 threads that can work together. They share a small, fast memory, and can wait for each other at a
#   **barrier**. Threads of different blocks cannot wait for each other: nobody knows which block runs when.
# - A **warp** is 32 threads of a block, its *lanes*. They run the same instruction at the same time.
# - Every number comes from **memory**, and that is the slow part. So the first question about a kernel is: how often does
#   it read and write its arrays?
#
# ### Exercise 1: a thread for each element
#
# The last step of a layer norm: $y = w\, \hat x + b$ for arrays of $N$ rows and $C$ channels. In C they are flat: element
# $(n, c)$ stands at place $n C + c$. Each thread takes one element.
#
# Your lines are the body of this function, given as a text:

# %%
show_frame("affine")

# %% [markdown]
# It is launched with blocks of 64 threads (`blockDim.x` is 64), as many as are needed for all $N \cdot C$ elements.
#
# **Predict.** With 150 elements, how many blocks are that, and what do the threads do that are left over?


# %%
def affine():
    """CUDA C: out[i] = xhat[i] * weight[its channel] + bias[its channel], for every element i."""
    # BEGIN SOLUTION
    return """
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < N * C) out[i] = xhat[i] * weight[i % C] + bias[i % C];
    """
    # END SOLUTION


affine = check(affine)

# %% [markdown]
# <details><summary>Hint 1</summary>The elements of the blocks before this one come first: <code>blockIdx.x * blockDim.x</code> of
# them.</details>
# <details><summary>Hint 2</summary>Element <code>i</code> is in row <code>i / C</code>, channel <code>i % C</code> (division of
# integers, and what is left over).</details>
# <details><summary>Hint 3</summary>Three blocks have 192 threads. Those without an element must do nothing: <code>if (i &lt; N *
# C)</code>.</details>
#
# Now forget that `if`, and watch. (It is taken out of your lines, if you have solved the exercise and wrote it so.)

# %%
watch("affine", affine().replace("if (i < N * C)", ""))

# %% [markdown]
# On a GPU nobody tells you. The thread reads whatever lies behind the array, and overwrites whatever lies behind `out`, perhaps
# another array of yours. The emulator puts forbidden memory around every array.
#
# ## Together: the sum of a row
#
# Mean and variance are sums over a row. A block of threads shall make one. First each thread adds up its own elements. But which
# ones are its own?

# %%
plot_lanes()

# %% [markdown]
# Memory is fetched in pieces of 128 bytes: 32 numbers. In the first way, neighbouring threads read neighbouring numbers, and each
# piece is fetched for all 32 lanes at once. So a thread goes through the row in **strides**: `j = threadIdx.x`, then `j += blockDim.x`.
# Such a loop also ends right, whatever the length of the row is: no tail is forgotten.
#
# Then each thread has a sum of its own, and 128 sums must become one. With shared memory that takes 7 steps, not 127
# (on the left, with 8 threads):

# %%
plot_tree()

# %% [markdown]
# ### Exercise 2: the sum of a row, by a block
#
# A block for each row. `blockDim.x` is a power of two, at most 256. `__shared__ float part[256];` declares memory for the whole
# block, and `__syncthreads();` is the barrier: each thread waits there until all have come.
#
# **Predict.** After which lines does everybody have to wait?

# %%
show_frame("row_sum")


# %%
def row_sum():
    """CUDA C: out[blockIdx.x] = the sum of row number blockIdx.x of x, which has C elements."""
    # BEGIN SOLUTION
    return """
    __shared__ float part[256];
    float total = 0.0f;
    for (int j = threadIdx.x; j < C; j += blockDim.x) total += x[blockIdx.x * C + j];
    part[threadIdx.x] = total;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
    """
    # END SOLUTION


row_sum = check(row_sum)

# %% [markdown]
# <details><summary>Hint 1</summary>First a loop in strides, with a <code>float total</code> that belongs to the thread. Row number
# <code>blockIdx.x</code> begins at <code>x[blockIdx.x * C]</code>.</details>
# <details><summary>Hint 2</summary>Write it to <code>part[threadIdx.x]</code>, wait, then: <code>for (int half = blockDim.x / 2; half
# &gt; 0; half /= 2)</code>, in which the first <code>half</code> threads each add the place <code>half</code> further on.</details>
# <details><summary>Hint 3</summary>A barrier after the writing, and one in every round of the loop, where all threads pass: behind the
# <code>if</code>, not inside. In the end one thread writes the result.</details>
#
# ## Break it and watch: a race
#
# Take out the first barrier. The emulator runs one thread after the other, in four orders. (These are your lines, if you have
# solved the exercise.)

# %%
broken = row_sum().replace("__syncthreads();", "", 1)
watch("row_sum", broken)

# %% [markdown]
# A **race**: the result depends on who comes first. In one order everything is right! On a GPU too: such a kernel passes a
# thousand tests, and fails on the next card. Here is what happens, with two warps. In the emulator the first warp runs until it has to
# wait.

# %%
plot_race(row_sum(), broken)

# %% [markdown]
# With the barrier, all 64 places are written before the tree begins. Without it the first warp is at the tree already, while
# the second has written nothing. (Red: what it reads is not there yet.)
#
# Orders of the threads are not enough to find every race. Look at this one, where all threads add to the same place:

# %%
to_one_place = """
    __shared__ float total;
    if (threadIdx.x == 0) total = 0.0f;
    __syncthreads();  // nobody adds before it is 0
    for (int j = threadIdx.x; j < C; j += blockDim.x)
        total += x[blockIdx.x * C + j];
    __syncthreads();  // nobody reads before all have added
    if (threadIdx.x == 0) out[blockIdx.x] = total;
"""
watch("row_sum", to_one_place)

# %% [markdown]
# Right in every order, and still wrong. `total += ...` is three steps: read, add, write. In the emulator a thread is never
# interrupted between them; on a GPU thousands run at once. So beside the orders there is a **watch**: it writes down every access to memory, and looks
# for two threads at one place, of which one writes, without a barrier between. That does not depend on luck.
#
# ## Without shared memory: a warp
#
# The 32 lanes of a warp can look into each other's registers. `__shfl_xor_sync(FULL_WARP, x, offset)` gives each lane the `x` of
# the lane whose number is `lane ^ offset` (the bits of `offset` flipped): with 16, lanes 0 and 16 exchange their numbers,
# 1 and 17, and so on. It needs no shared memory and no barrier, and in the end *every* lane has the sum (the picture above,
# on the right).
#
# **Predict.** How many exchanges does a warp of 32 need?
#
# ### Exercise 3: the sum of a warp

# %%
show_frame("warp_sum")


# %%
def warp_sum():
    """CUDA C: x becomes the sum of the x of all 32 lanes, in every lane."""
    # BEGIN SOLUTION
    return """
    for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(FULL_WARP, x, offset);
    """
    # END SOLUTION


warp_sum = check(warp_sum)

# %% [markdown]
# <details><summary>Hint 1</summary>Five steps: after each, a lane has the sum of twice as many.</details>
# <details><summary>Hint 2</summary>The offsets are 16, 8, 4, 2, 1.</details>
# <details><summary>Hint 3</summary><code>x += __shfl_xor_sync(FULL_WARP, x, offset);</code> in a loop over them.</details>
#
# **Predict.** What happens if only half of the lanes take part?

# %%
by_half_of_the_lanes = """
    for (int offset = 16; offset > 0; offset /= 2)
        if (threadIdx.x % 32 < offset) x += __shfl_xor_sync(FULL_WARP, x, offset);
"""
watch("warp_sum", by_half_of_the_lanes)

# %% [markdown]
# ## Layer norm: a warp for each row
#
# Now all is there. A row of a GPT has a few hundred channels, so a warp is enough for it: each lane takes every 32nd channel, and
# your `warp_sum` makes sums of the row from those of the lanes.
#
# ### Exercise 4: mean and rstd
#
# The first two lines are given. Use `warp_sum(...)`, `sqrtf(...)`, and `C` as it is.
#
# **Predict.** $\sigma^2 = \overline{x^2} - \mu^2$ would need one pass over the row instead of two. What is wrong with it?

# %%
show_frame("moments")


# %%
def moments():
    """CUDA C: mean[row], and rstd[row] = 1 / sqrt(variance + eps), of each row of x (N, C)."""
    # BEGIN SOLUTION
    return """
    float total = 0.0f, squares = 0.0f;
    for (int j = lane; j < C; j += 32) total += x[row * C + j];
    float m = warp_sum(total) / C;
    for (int j = lane; j < C; j += 32) {
        float difference = x[row * C + j] - m;
        squares += difference * difference;
    }
    float r = 1.0f / sqrtf(warp_sum(squares) / C + eps);
    if (lane == 0) {
        mean[row] = m;
        rstd[row] = r;
    }
    """
    # END SOLUTION


moments = check(moments)

# %% [markdown]
# <details><summary>Hint 1</summary>Two loops <code>for (int j = lane; j &lt; C; j += 32)</code>: the first for the sum, the second
# for the squares of the deviations from the mean.</details>
# <details><summary>Hint 2</summary><code>float m = warp_sum(total) / C;</code> All 32 lanes must call <code>warp_sum</code>: not
# inside of an <code>if</code>.</details>
# <details><summary>Hint 3</summary><code>1.0f / sqrtf(warp_sum(squares) / C + eps)</code>. And only lane 0 writes the two
# results.</details>
#
# `C` is an `int`. Somebody who wants to save a division multiplies by `1 / C`. (In your lines, where you divide by C.)

# %%
watch("moments", moments().replace("/ C", "* (1 / C)"))

# %% [markdown]
# The prediction: far from 0, $\overline{x^2}$ and $\mu^2$ are large, and nearly equal. float32 has seven digits, and the difference
# keeps hardly any of them.

# %%
x = (500 + rng.normal(size=1000)).astype(np.float32)
mean_of = lambda a: np.cumsum(a, dtype=np.float32)[-1] / np.float32(1000)  # one after the other
print(f"true variance: {x.astype(float).var():.3f}")
print(f"in two passes: {mean_of((x - mean_of(x)) ** 2):.3f}")
print(f"in one pass:   {mean_of(x * x) - mean_of(x) ** 2:.3f}")

# %% [markdown]
# ### The engine's forward pass, line by line
#
# This is [`layer_norm.cu`](../autograd/cuda/layer_norm.cu) as it runs on a GPU. You have written most of it. What is new: it takes
# four numbers at a time where it can, because one instruction that moves 16 bytes is better than four that move 4.

# %%
read("load, store, part")

# %%
read("warp_sum")

# %%
read("normalise")

# %%
read("layer_norm_forward")

# %% [markdown]
# Now run it, on 5 rows of 70 channels (70 is no multiple of 4, nor of 32), against NumPy in float64, in four orders of the threads.

# %%
N, C = 5, 70
x, dout = rng.normal(size=(2, N, C))
weight, bias = rng.normal(size=(2, C))


def layer_norm(x, weight, bias, eps=1e-5):
    """Notebook 5's, in NumPy."""
    rstd = (x.var(-1, keepdims=True) + eps) ** -0.5
    return (x - x.mean(-1, keepdims=True)) * rstd * weight + bias


orders = ("ascending", "descending", 2, 3)  # the last two are shuffled
outs = [forward(x, weight, bias, order=order)[0] for order in orders]
error = np.abs(outs[0] - layer_norm(x, weight, bias)).max()
print("as NumPy in float64, but for float32's rounding:", error < 1e-5)
print("the same bits in every order:", all((out == outs[0]).all() for out in outs))

# %% [markdown]
# The same bits: each sum is taken in a fixed order, whoever comes first. So a training on a GPU can be repeated exactly.
#
# ## The way back: dx
#
# From notebook 5, for each row, with $d\hat x = \mathrm{dout} \cdot w$:
#
# $$dx = r \,\big( d\hat x - \mathrm{mean}(d\hat x) - \hat x \cdot \mathrm{mean}(d\hat x\, \hat x) \big)$$
#
# ### Exercise 5: dx
#
# Again a warp for each row, now with two sums. `mean` and `rstd` are those of exercise 4.
#
# **Predict.** How often does your kernel read `x`? And how often does it have to come from memory, if the row stays in a cache?

# %%
show_frame("input_gradient")


# %%
def input_gradient():
    """CUDA C: dx (N, C), the gradient of x, from dout, x, weight, and mean and rstd of the rows."""
    # BEGIN SOLUTION
    return """
    float m = mean[row], r = rstd[row], along_ones = 0.0f, along_xhat = 0.0f;
    for (int j = lane; j < C; j += 32) {
        float dxhat = dout[row * C + j] * weight[j];
        along_ones += dxhat;
        along_xhat += dxhat * (x[row * C + j] - m) * r;
    }
    along_ones = warp_sum(along_ones) / C;
    along_xhat = warp_sum(along_xhat) / C;
    for (int j = lane; j < C; j += 32) {
        float dxhat = dout[row * C + j] * weight[j], xhat = (x[row * C + j] - m) * r;
        dx[row * C + j] = r * (dxhat - along_ones - xhat * along_xhat);
    }
    """
    # END SOLUTION


input_gradient = check(input_gradient)

# %% [markdown]
# <details><summary>Hint 1</summary>First loop: each lane adds up its <code>dxhat</code> and its <code>dxhat * xhat</code>, with
# <code>xhat = (x[row * C + j] - mean[row]) * rstd[row]</code>.</details>
# <details><summary>Hint 2</summary>Then <code>warp_sum(...) / C</code> of both, outside of the loop.</details>
# <details><summary>Hint 3</summary>Second loop: the formula, with <code>dxhat</code> and <code>xhat</code> computed again.
# Each lane writes its own elements.</details>
#
# The prediction: twice, but from memory only once. A row of 384 floats has 1.5 KB, and stays in the cache until the second loop
# wants it.
#
# Without `warp_sum`, each lane goes on with its own share. Such a kernel has no race, and is wrong in every order alike:

# %%
watch("input_gradient", input_gradient().replace("warp_sum", ""))

# %% [markdown]
# Now the engine's:

# %%
read("normalise_back")

# %%
read("layer_norm_backward")

# %% [markdown]
# Finite differences do not care who computed a gradient. (The differences are taken in float64, from NumPy's layer norm; the
# gradient comes from the kernel.)

# %%
moments_of_rows = forward(x, weight, bias)[1]
dx = backward(dout, x, weight, moments_of_rows)

numeric, h = np.zeros_like(x), 1e-5
for i in np.ndindex(x.shape):
    step = np.zeros_like(x)
    step[i] = h
    difference = layer_norm(x + step, weight, bias) - layer_norm(x - step, weight, bias)
    numeric[i] = (dout * difference).sum() / (2 * h)
print("dx agrees with finite differences:", np.abs(dx - numeric).max() < 1e-5)

# %% [markdown]
# ## The way back: dweight
#
# $dw_c$ is a sum over *rows*, and each row belongs to another warp. Whenever several threads have a part of one sum, there are three
# ways: each a place of its own and somebody who adds up; `atomicAdd`, which reads, adds and writes in one go; or a race.
#
# ### Exercise 6: a sum of columns, without a race
#
# Blocks of 32 by 8 threads: 8 warps, `threadIdx.y` from 0 to 7, for 32 columns. Each thread takes every eighth row. `dweight` holds zeros
# at the start.
#
# **Predict.** 40 columns need two blocks. The second has 24 threads in each warp without a column. May they `return` at once?

# %%
show_frame("weight_gradient")


# %%
def weight_gradient():
    """CUDA C: dweight[c] = the sum over all rows n of dout[n, c] * xhat[n, c], both (N, C)."""
    # BEGIN SOLUTION
    return """
    __shared__ float part[8][32];
    float total = 0.0f;
    if (column < C)
        for (int n = threadIdx.y; n < N; n += 8) total += dout[n * C + column] * xhat[n * C + column];
    part[threadIdx.y][threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.y == 0 && column < C) {
        for (int i = 1; i < 8; i++) total += part[i][threadIdx.x];
        dweight[column] = total;
    }
    """
    # END SOLUTION


weight_gradient = check(weight_gradient)

# %% [markdown]
# <details><summary>Hint 1</summary>A loop in strides of 8: <code>for (int n = threadIdx.y; n &lt; N; n += 8)</code>, for threads
# with <code>column &lt; C</code>.</details>
# <details><summary>Hint 2</summary><code>__shared__ float part[8][32];</code> a place for each thread:
# <code>part[threadIdx.y][threadIdx.x]</code>.</details>
# <details><summary>Hint 3</summary>A barrier that <i>all</i> pass. Then the threads with <code>threadIdx.y == 0</code> add up the eight
# sums of their column, and write it.</details>
#
# The prediction: no.

# %%
watch("weight_gradient", "if (column >= C) return;\n" + weight_gradient())

# %% [markdown]
# (If your answer has no barrier, because it uses `atomicAdd`, nothing is wrong with leaving early.)
#
# ### The engine's sums of columns, line by line
#
# One block for all rows would leave most of the GPU idle. So the engine cuts the rows into sets, with a block for each. But blocks
# cannot wait for each other. How do their sums come together, in *one* launch, without atomic additions, in a fixed order?

# %%
read("weight_sums")

# %%
read("keep_sums")

# %%
read("sum_of_warps")

# %%
read("is_last")

# %%
read("add_up")

# %% [markdown]
# ## What the emulator finds, and what it cannot find
#
# Take a line out of the engine's own kernel, and see who notices.

# %%
rows = np.random.default_rng(1).normal(size=(2, 40, 70))
its_moments = forward(rows[0], weight, bias)[1]
for without in (
    (),
    ("first", "__syncthreads();", "sum_of_warps"),
    ("second", "__syncthreads();", "sum_of_warps"),
    ("every", "__threadfence();", "is_last"),
):
    experiment(rows[1], rows[0], its_moments, *without)

# %% [markdown]
# The missing barriers are found, by the watch and by wrong numbers. **The missing fences are not.** On a GPU a block could count
# itself as arrived before its sums can be seen by others, and the last block would add up old numbers, once in a million launches. In
# the emulator all memory is seen at once, one block runs after the other, and so nothing is ever wrong. No test here will
# show this mistake. What helps is to know the rule: **whoever tells other blocks that something is ready puts a fence before.**
#
# The emulator does not know other things, too: how fast a kernel is, how many registers it takes, whether the compiler for a real
# GPU rounds in the same way. That is what a GPU is for.
#
# ## Bytes and launches: why fusing pays
#
# What does a layer norm cost on an H100? Estimate it by hand. This is the method of
# [`benchmarks/estimate.py`](../benchmarks/estimate.py): a kernel takes the time of its bytes at the memory's rate, or of its flops,
# whichever is longer. A layer norm has few flops. So count the arrays that are read or written. **All times from here on are
# estimates; nobody has measured them.**
#
# **Predict.** Composed as in notebook 5, how many times as long does it take as in one kernel?

# %%
N, C = 64 * 256, 384  # all rows of a step of the reference run
array = 4 * N * C  # bytes of an array of float32

fused = {"layer norm": 2}  # arrays read or written: x in, out out
composed = {
    "mean": 1,  # reads x
    "x − mean": 2,  # reads x, writes the deviations
    "squared": 2,
    "variance": 1,
    "rstd": 0,  # one number for each row
    "· rstd": 2,
    "· weight": 2,
    "+ bias": 2,
}
rate = H100["gb_per_s"] * 1e9 * H100["of_bandwidth"]  # bytes a second that a good kernel gets
print(f"x has {array / 1e6:.1f} MB; the memory moves {rate / 1e9:.0f} GB a second (estimated)")
for name, operations in (("composed", composed), ("fused", fused)):
    gpu = sum(microseconds(count * array) for count in operations.values())
    host = len(operations) * H100["launch_us"]
    moved = sum(operations.values())
    print(f"{name:9} {moved:3} arrays: {gpu:6.1f} µs on the GPU, {host:4.0f} µs to launch")

# %%
plot_fusing(composed, fused, N, C)

# %% [markdown]
# Two different reasons, and both speak for one kernel:
#
# - **Many rows**: bytes decide. Twelve trips through memory against two: six times as long. Each number takes part in about ten
#   operations, but the memory only delivers one number in the time of a hundred. That is true for nearly everything between
#   the matrix products.
# - **Few rows**: launches decide. A launch takes about 3 µs on the GPU however little it does, and the host needs about 13 µs to
#   ask for it. Below the dotted line, the GPU waits for Python.
#
# (What the estimate does not know: arrays of 25 MB may stay in the cache of 50 MB between two launches. Then composed is not six
# times as slow, but it is slower. Only a measurement could tell.)
#
# The backward pass, for the fused kernels: `layer_norm_backward` reads `dout` and `x` and writes `dx`, and
# `layer_norm_weight_gradients` reads `dout` and `x` once more.

# %%
print(f"{microseconds(3 * array) + microseconds(2 * array):.0f} µs, in two launches (estimated)")

# %% [markdown]
# Look at the second kernel again: everything that it needs was in registers a moment before, in the first one. Could one kernel do
# both? It would save two trips of five. It is a question of registers and shared memory, and a good next exercise for you.
#
# ## In the library
#
# - All kernels are in [`autograd/cuda`](../autograd/cuda/common.cu): attention, cross entropy, dropout, AdamW. In each you find what you
#   have written here: strides, a warp or a block for each row, sums in a fixed order.
# - [`tests/stand_ins/cuda_cpu.h`](../tests/stand_ins/cuda_cpu.h) is the emulator: each thread is a stack of its own, and a barrier is
#   a change of stacks. [`cuda_races.h`](../tests/stand_ins/cuda_races.h) is the watch.
# - [`tests/README.md`](../tests/README.md#without-a-gpu) says what is known without a GPU, and by which test.
#
# ## What you have now
#
# - Who does what: `blockIdx` and `threadIdx`, strides, and threads that are left over.
# - Who waits for whom: barriers that all pass, exchanges within a warp, and nothing at all between blocks.
# - What goes through memory, which decides how long it takes. Fused kernels are fast because they read and write less.
# - A race can be right in every test. Only looking at all accesses finds it, and a missing fence not even that.
#
# [The map of the code](../README.md#map-of-the-code) shows where all of this has its place.
