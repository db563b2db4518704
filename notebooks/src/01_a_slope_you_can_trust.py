# %% [markdown]
# # 1. A slope you can trust
#
# Training a network means asking, for each of its numbers: *if I turn this up a little, does the loss go up or down,
# and how fast?* That is a slope. Backpropagation finds millions of slopes at once, and it is easy to get wrong in a
# way that still trains, only worse.
#
# So before we differentiate anything, we build the tool that tells us whether we did it right. It needs only
# subtraction and division. Every backward pass in these notebooks, and in the library, must pass it.
#
# **You will write** a central difference (1 line), a numerical gradient (6 lines) and a gradient check (3 lines).
# **You need** Python, a little NumPy, and the idea that a derivative is a slope. About 45 minutes.

# %%
import math

import numpy as np

from workbook.slope import check, normalise, normalise_pullback, plot_errors, plot_nudge, softmax

# %% [markdown]
# ## Nudge it and see
#
# The slope of $f$ at $x$ is what $f$ gains per step to the right. Take a step $h$ and measure:
#
# $$\frac{f(x + h) - f(x)}{h}$$
#
# That is the *one-sided* difference. We could also step to both sides, and divide by the whole distance walked:
#
# $$\frac{f(x + h) - f(x - h)}{2h}$$
#
# That is the *central* difference.
#
# **Predict.** For $f = \exp$ at $x = 0$ the true slope is exactly 1. With the rather large step $h = 1$, which of the
# two comes closer? Is each of them too large or too small? Decide before you run the next cell.

# %%
plot_nudge(math.exp, 0.0, 1.0)

# %% [markdown]
# The blue line comes closer, and there is a reason. Write down Taylor's series to the right and to the left:
#
# $$f(x + h) = f(x) + h f'(x) + \tfrac{h^2}{2} f''(x) + \tfrac{h^3}{6} f'''(x) + \dots$$
#
# $$f(x - h) = f(x) - h f'(x) + \tfrac{h^2}{2} f''(x) - \tfrac{h^3}{6} f'''(x) + \dots$$
#
# Subtract the second from the first. Everything with an even power cancels, and what is left is
#
# $$\frac{f(x + h) - f(x - h)}{2h} = f'(x) + \tfrac{h^2}{6} f'''(x) + \dots$$
#
# The one-sided difference keeps the term $\tfrac{h}{2} f''(x)$. So when you make $h$ ten times smaller, the one-sided
# error becomes 10 times smaller, the central one 100 times.
#
# ### Exercise 1: the central difference
#
# Replace the `...`. The cell checks your answer and tells you what it thinks happened. Until it is solved, the notebook
# goes on with a version of its own, so you can read on and come back.


# %%
def central_difference(f, x, h):
    """The slope of f at x, from its values h to the left and h to the right."""
    # BEGIN SOLUTION
    return (f(x + h) - f(x - h)) / (2 * h)
    # END SOLUTION


central_difference = check(central_difference)

# %% [markdown]
# <details><summary>Hint 1</summary>You need two values of <code>f</code>, and neither is <code>f(x)</code>.</details>
# <details><summary>Hint 2</summary>From x − h to x + h you walk a distance of 2h.</details>
# <details><summary>Hint 3</summary>Mind the parentheses: <code>a / 2 * h</code> is <code>(a / 2) * h</code>.</details>

# %% [markdown]
# ## The best step is not the smallest
#
# **Predict.** The error shrinks like $h^2$. So $h = 10^{-12}$ should be marvellous: error $10^{-24}$. Sketch the error
# as $h$ goes from 1 down to $10^{-12}$. Then look.

# %%
plot_errors(central_difference, np.sin, np.cos, 1.0)

# %% [markdown]
# From right to left each line first falls along $h^2/6$, just as promised. Then it turns around and climbs.
#
# A computer keeps about 16 digits of a number in float64 and 7 in float32. Call the relative rounding error
# $\varepsilon$: about $10^{-16}$ and $6 \cdot 10^{-8}$. When $h$ is tiny, $f(x+h)$ and $f(x-h)$ agree in nearly all of
# their digits, and the subtraction throws those away. What is left is an error of about $\varepsilon$, and we divide it
# by the tiny $h$. Together,
#
# $$\text{error} \approx \frac{h^2}{6} + \frac{\varepsilon}{h},$$
#
# which is smallest near $h = \sqrt[3]{3 \varepsilon}$. The rest is arithmetic:
#
# | | digits | best $h$ | error there |
# |---|---|---|---|
# | float64 | 16 | about $10^{-5}$ | about $10^{-10}$ or better |
# | float32 | 7 | about $10^{-2}$ | about $10^{-5}$ |
#
# This is why **gradients are always checked in float64**, even if training runs in float32. With five good digits you
# cannot tell a right derivative from one that is off by a thousandth. People see "exact: False" from a float32 check,
# panic, and look for a bug that is not there; or worse, they loosen the tolerance until a real bug passes.

# %%
for dtype in (np.float64, np.float32):
    for h in (1e-2, 1e-5, 1e-8):
        slope = central_difference(np.sin, dtype(1.0), dtype(h))
        error = abs(float(slope) - math.cos(1.0))
        print(f"{dtype.__name__}, h = {h:.0e}: {'good' if error < 1e-4 else 'useless'}")

# %% [markdown]
# ## Many inputs: one nudge each
#
# A loss depends on many numbers. Its *gradient* is the list of slopes, one for each number while all others stay fixed;
# it has the same shape as the numbers themselves.
#
# ### Exercise 2: the gradient by nudging
#
# Here `f` takes an array and returns one number. `np.ndindex(x.shape)` runs over all places of an array of any shape.
# Do not change `x` itself: the caller still needs it.


# %%
def numerical_gradient(f, x, h=1e-5):
    """An array of x's shape: the slope of f (array -> number) with respect to each element of x."""
    # BEGIN SOLUTION
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        gradient[index] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient
    # END SOLUTION


numerical_gradient = check(numerical_gradient)

# %% [markdown]
# <details><summary>Hint 1</summary>Make an array of zeros for the answer. Then a loop over the places.</details>
# <details><summary>Hint 2</summary>For each place: an array <code>nudge</code> that is zero everywhere but there.</details>
# <details><summary>Hint 3</summary><code>gradient[index]</code> is the central difference of <code>f(x + nudge)</code> and
# <code>f(x - nudge)</code>.</details>

# %%
numerical_gradient(lambda x: (x**2).sum(), np.array([[1.0, 2.0], [3.0, 4.0]]))  # slope of x²: 2x

# %% [markdown]
# **Why not train with this?** It calls `f` twice for every number. The smallest GPT in this project has 615,680 of them,
# so one step would cost 1,231,360 forward passes. Backpropagation does it for the price of about three. Nudging is for
# *checking*.
#
# ## Many outputs: an upstream gradient
#
# Most functions inside a network return arrays, not one number. The loss comes somewhere later, and it sends back a
# message: the slope of the loss with respect to each of our *outputs*. This is the **upstream gradient** $g$. Our job
# is to turn it into the slopes with respect to our *inputs*:
#
# $$\frac{\partial L}{\partial x_j} = \sum_i g_i \, \frac{\partial y_i}{\partial x_j}$$
#
# A function that does this is called a **pullback**: it pulls $g$ back from the outputs to the inputs. For $y = \sin x$,
# element by element, it is `g * cos(x)`.
#
# To check a pullback we need a loss. We are free to choose one, and a good choice is $L = \sum_i g_i y_i$ with a
# **random** $g$: its slope with respect to $y_i$ is exactly $g_i$.
#
# **Predict.** Many courses check with `out.sum()`, that is, with $g$ all ones. Take the softmax, which turns any numbers
# into positive ones that add up to 1. What is the gradient of `softmax(x).sum()`?

# %%
x = np.array([0.3, -1.2, 0.8, 2.0, -0.4])
with_ones = numerical_gradient(lambda z: softmax(z).sum(), x)
g = np.random.default_rng(0).normal(size=x.shape)
with_random = numerical_gradient(lambda z: (softmax(z) * g).sum(), x)
print("g all ones:", np.abs(with_ones).max() < 1e-9 and "zero everywhere")
print("g random:  ", with_random.round(3))

# %% [markdown]
# Zero! The outputs always add up to 1, so their sum has no slope. A pullback for softmax that returns zeros *passes* a
# check with ones, and so do many other wrong ones. Layer norm has the same blind spot.
#
# ### Exercise 3: a gradient check
#
# Write a check that you would trust. It gets a function, its pullback `pullback(x, g)`, a point `x`, and a random
# generator. It returns `True` if the pullback is right, otherwise `False`.
#
# Then your check is checked itself. It gets right pullbacks, which it must accept, and several wrong ones. Each of
# those slips through one kind of careless check.


# %%
def gradient_check(f, pullback, x, rng):
    """Whether pullback(x, g) is the gradient of (f(x) * g).sum(), for a random g."""
    # BEGIN SOLUTION
    g = rng.normal(size=f(x).shape)
    numeric = numerical_gradient(lambda z: (f(z) * g).sum(), x)
    return np.abs(pullback(x, g) - numeric).max() < 1e-6 * np.abs(numeric).max()
    # END SOLUTION


gradient_check = check(gradient_check)

# %% [markdown]
# <details><summary>Hint 1</summary>Draw <code>g = rng.normal(size=...)</code> in the shape of <code>f(x)</code>.</details>
# <details><summary>Hint 2</summary>The numerical side is your <code>numerical_gradient</code> of the function
# <code>lambda z: (f(z) * g).sum()</code>.</details>
# <details><summary>Hint 3</summary>Compare the <i>largest</i> difference with the largest true value times a small
# number: 1e-6 is strict, and still leaves room for the error of nudging.</details>

# %% [markdown]
# ## Break it and watch
#
# Here is a function from a later notebook: subtract the mean, divide by the standard deviation. Its first pullback is
# right. The second forgets that the standard deviation depends on `x` as well: the classic mistake in layer norm.


# %%
def forgetful_pullback(x, g):
    return (g - g.mean()) / x.std()


x = np.random.default_rng(1).normal(size=40)
g = np.random.default_rng(2).normal(size=40)
right, wrong = normalise_pullback(x, g), forgetful_pullback(x, g)
cosine = right @ wrong / np.linalg.norm(right) / np.linalg.norm(wrong)
print(f"the angle between right and wrong has the cosine {cosine:.2f}")
for pullback in (normalise_pullback, forgetful_pullback):
    passed = gradient_check(normalise, pullback, x, np.random.default_rng(3))
    print(f"{pullback.__name__}: {'accepted' if passed else 'rejected'}")

# %% [markdown]
# A cosine so close to 1 means that training would still go down the hill, only in a slightly wrong direction. No loss
# curve would tell you. The check does, at once.
#
# ## One number for a million parameters
#
# Nudging each of a million parameters takes too long. But one *random direction* $v$ through all of them is a single
# nudge: the slope of $L(x + t v)$ at $t = 0$ must be $\nabla L \cdot v$. If any entry of the gradient is wrong, a
# random direction shows it with probability 1.

# %%
x, g, v = np.random.default_rng(4).normal(size=(3, 1_000_000))
numeric = central_difference(lambda t: (np.tanh(x + t * v) * g).sum(), 0.0, 1e-5)
analytic = (g * (1 - np.tanh(x) ** 2)) @ v
print(f"along v: {analytic:.4f} by formula, {numeric:.4f} by nudging, from two evaluations")

# %% [markdown]
# ## In the library
#
# [`autograd/gradcheck.py`](../autograd/gradcheck.py) does all of this with a formula of five points, which is even more
# exact. It also recognises corners: at 0, `relu` has the slope 0 to the left and 1 to the right, and no check can be
# right there. (The message shows both slopes times the random upstream gradient.)

# %%
from autograd import KinkError, Tensor, gradcheck, relu

gradcheck(
    lambda x: x.tanh() * x, Tensor(np.random.default_rng(5).normal(size=(3, 4)), requires_grad=True)
)
print("tanh(x) * x passes")
try:
    gradcheck(relu, Tensor(np.array([1.0, 0.0]), requires_grad=True))
except KinkError as error:
    print("relu at 0:", error)

# %% [markdown]
# ## What you have now
#
# - A central difference, and a feeling for its best step: neither large nor tiny.
# - A check with float64, a random upstream gradient and a tight relative tolerance. Anything less has blind spots, and
#   you have seen each of them.
# - The word **pullback**: upstream gradient in, gradient of the inputs out.
#
# Next: [2. A scalar engine](02_a_scalar_engine.ipynb) builds the machine that chains pullbacks together.
