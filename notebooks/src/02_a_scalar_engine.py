# %% [markdown]
# # 2. A scalar engine
#
# Every deep-learning framework has the same small machine at its heart. It watches you compute, remembers what you did,
# and then walks back through your steps to find all slopes at once. Here you build that machine for plain numbers,
# without NumPy, in about 30 lines. Then you train a network with it.
#
# **You will write** four pullbacks (1 or 2 lines each), a topological order (7 lines) and `backward` (8 lines).
# **You need** notebook 1's word *pullback*. About 60 minutes.

# %%
import math

from workbook.film import step_through
from workbook.scalar import check, graph, plot_training

# %% [markdown]
# ## A rule and its pullback
#
# An operation is a small function. It returns its result, and for each input a pullback: given `g`, the slope of the
# loss with respect to the *result*, it answers with the slope with respect to that *input*. For the square:


# %%
def square(x):
    return x * x, lambda g: g * 2 * x


out, pullback = square(3.0)
print(f"3² = {out}; a loss that grows by 10 per unit of the result")
print(f"grows by {pullback(10.0)} per unit of x")

# %% [markdown]
# That multiplication `g * slope` *is* the chain rule, $\frac{dL}{dx} = \frac{dL}{dy} \cdot \frac{dy}{dx}$. There is nothing
# more to it.
#
# ### Exercise 1: four rules
#
# With two inputs, return two pullbacks in a tuple. **Predict** for each, before you type: nudge `x` by a little; how much
# does the result move?


# %%
def add(x, y):
    """x + y, and (the pullback for x, the pullback for y)."""
    # BEGIN SOLUTION
    return x + y, (lambda g: g, lambda g: g)
    # END SOLUTION


add = check(add)


# %%
def multiply(x, y):
    """x * y, and (the pullback for x, the pullback for y)."""
    # BEGIN SOLUTION
    return x * y, (lambda g: g * y, lambda g: g * x)
    # END SOLUTION


multiply = check(multiply)


# %%
def exp(x):
    """e to the power x (math.exp), and the pullback."""
    # BEGIN SOLUTION
    out = math.exp(x)
    return out, lambda g: g * out
    # END SOLUTION


exp = check(exp)


# %%
def tanh(x):
    """math.tanh(x), and the pullback."""
    # BEGIN SOLUTION
    out = math.tanh(x)
    return out, lambda g: g * (1 - out * out)
    # END SOLUTION


tanh = check(tanh)

# %% [markdown]
# <details><summary>Hint 1</summary>Nudge x by δ. A sum moves by δ. A product moves by δ · y.</details>
# <details><summary>Hint 2</summary>The slope of exp is exp itself, so the pullback can use the result.</details>
# <details><summary>Hint 3</summary>The slope of tanh is 1 − tanh². Where does that come from? tanh = sinh/cosh, and the
# quotient rule gives (cosh² − sinh²)/cosh² = 1 − tanh².</details>
#
# `exp` and `tanh` keep their *result* for the way back, not their input. Such choices decide how much memory a framework
# needs.
#
# ## A number that remembers
#
# A `Value` is a number that knows which values it was made from, and their pullbacks. `op` turns a rule on plain numbers
# into an operation on Values. Read both; there is no trick in them.


# %%
class Value:
    """A number that remembers how it was made."""

    made = 0

    def __init__(self, data, parents=(), pullbacks=(), name="leaf"):
        self.data, self.parents, self.pullbacks, self.name = data, parents, pullbacks, name
        self.grad = None  # no gradient yet
        self.order = Value.made = Value.made + 1  # when it was made: 1, 2, 3, ...

    __add__ = __radd__ = lambda self, other: op(add)(self, other)
    __mul__ = __rmul__ = lambda self, other: op(multiply)(self, other)
    __neg__ = lambda self: self * -1.0
    __sub__ = lambda self, other: self + other * -1.0
    exp = lambda self: op(exp)(self)
    tanh = lambda self: op(tanh)(self)


def op(rule):
    """The rule as an operation on Values."""

    def apply(*inputs):
        inputs = [x if isinstance(x, Value) else Value(x) for x in inputs]
        out, pullbacks = rule(*(x.data for x in inputs))
        if callable(pullbacks):  # only one
            pullbacks = (pullbacks,)
        return Value(out, inputs, pullbacks, rule.__name__)

    return apply


# %% [markdown]
# (Other libraries call a pullback *vjp*, short for vector-Jacobian product. For single numbers it is just a product.)
#
# Now compute something, and look at what was remembered:

# %%
a, b = Value(2.0), Value(-3.0)
c = a * b
d = c + a
loss = (d * 0.5).tanh()
graph(loss, a=a, b=b, c=c, d=d, loss=loss)

# %% [markdown]
# Values flow from left to right. The gradients are not zero; there is **no gradient yet**. (Many tools draw 0.0 here,
# and people search for a bug that is not there.) Nobody has walked back yet. (The picture needs no Graphviz:
# [`autograd/svg.py`](../autograd/svg.py) draws it.)
#
# This is how it will go: start at the right with slope 1, and let each value hand its gradient on to the values it was
# made from. Step through it. → and ← go one step on and back, the space bar plays (click into the player first). You see
# the values come, then the gradients. It also shows the lines of *your* rule, with the pullback that runs now marked, as
# soon as your rule is right. (The *tape* is the record of what was made from what. The player uses NumPy, like the
# picture. Your engine does not.)

# %%
step_through(loss, a=a, b=b, c=c, d=d, loss=loss)

# %% [markdown]
# Look at `a`. It gets a gradient from `d`, and later a *second* contribution from `c`. Go to the step where they add up,
# and read the sum. Nudging `a` moves the loss along both paths, and the two movements **add up**:
#
# $$\frac{dL}{da} = \frac{\partial L}{\partial d}\frac{\partial d}{\partial a} + \frac{\partial L}{\partial c}\frac{\partial c}{\partial a}$$
#
# That is the chain rule for more than one path, and the reason for the most famous bug of all: writing `=` where `+=` must
# stand.
#
# **Predict.** `b = a + a`, then `c = b + b`. What is $dc/da$? What would you get with `=` instead of `+=`?
#
# ## In which order?
#
# A value may hand on its gradient only when that gradient is *complete*: when everything that used the value has added
# its part. In the player `c` has to wait for `d`, because `d` uses `c`: the sentence above the graph says at each step
# whose turn it is, and why.
#
# So each value must come **after all of its users**. An order like that is called (reverse) *topological*. Just
# following the parents as you meet them is not enough: you may meet a value early on a short path, while a long path to
# it is not finished yet.
#
# There is a simple way to get one. A value can only be made from values that already exist. So sort by age, newest
# first: then every user comes before its inputs.
#
# ### Exercise 2: the topological order


# %%
def topological_order(root):
    """A list of all Values that root depends on (and root), each once, after all of its users."""
    # BEGIN SOLUTION
    seen, waiting = {root}, [root]
    while waiting:
        for parent in waiting.pop().parents:
            if parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return sorted(seen, key=lambda value: -value.order)
    # END SOLUTION


topological_order = check(topological_order)

# %% [markdown]
# <details><summary>Hint 1</summary>First collect, then sort. <code>value.order</code> says when a value was made.</details>
# <details><summary>Hint 2</summary>To collect: a set of those seen, and a list of those whose parents you have not looked at
# yet. It starts with the root.</details>
# <details><summary>Hint 3</summary><code>sorted(seen, key=lambda value: -value.order)</code> puts the newest first.</details>
#
# ### Exercise 3: backward
#
# Now put it together: write what the player did. What must hold:
#
# - the root's own gradient is 1;
# - contributions add up;
# - gradients of *leaves* (values without parents) also add up over several backward passes, while those in the middle
#   start again from 0 each time. Before the first pass, `grad` is `None`.


# %%
def backward(root):
    """Write d root / d value into .grad of every Value below root; leaves add up over passes."""
    # BEGIN SOLUTION
    order = topological_order(root)
    for value in order:
        if value.parents or value.grad is None:
            value.grad = 0.0
    root.grad += 1.0
    for value in order:
        for parent, pullback in zip(value.parents, value.pullbacks):
            parent.grad += pullback(value.grad)
    # END SOLUTION


backward = check(backward)

# %% [markdown]
# <details><summary>Hint 1</summary>Three parts: set to 0 the gradients that must start again, give the root its 1,
# walk.</details>
# <details><summary>Hint 2</summary>The walk: for each value in topological order, for each parent with its pullback:
# <code>parent.grad += pullback(value.grad)</code>.</details>
# <details><summary>Hint 3</summary>These start from 0: values with parents, and values whose grad is still
# None.</details>

# %%
a = Value(3.0)
b = a + a
c = b + b
backward(c)
print("dc/da =", a.grad)

# %% [markdown]
# Four: $c = 4a$. With `=` it would have been 1: at each place the last contribution instead of the sum. Now the player
# shows *your* walk: it calls your `backward`, and notes each pullback that this calls. Each value is used twice here, so
# two parts add up at each.

# %%
step_through(c, backward, a=a, b=b, c=c)

# %% [markdown]
# ## Trust, but check
#
# Notebook 1's tool needs only subtraction and division, so it works here too. Any expression will do:


# %%
def expression(x, y):
    h = (x * y + x).tanh()
    return (h * h + y).exp() * h


x, y = Value(0.7), Value(-1.3)
backward(expression(x, y))
for name, value, nudged in (
    ("x", x, lambda h: expression(Value(0.7 + h), Value(-1.3))),
    ("y", y, lambda h: expression(Value(0.7), Value(-1.3 + h))),
):
    numeric = (nudged(1e-5).data - nudged(-1e-5).data) / 2e-5
    print(f"d/d{name}: backward says {value.grad:.6f}, nudging says {numeric:.6f}")

# %% [markdown]
# ## A network
#
# A neuron weighs its inputs, adds a bias and squeezes the result through `tanh`. Two layers of them can separate what
# no straight line can separate: the points inside a ring and the points on it.

# %%
points = []
for i in range(10):
    angle = 2 * math.pi * i / 10
    points.append((math.cos(angle), math.sin(angle), 1.0))  # on the ring: +1
    points.append((0.3 * math.cos(angle), 0.3 * math.sin(angle), -1.0))  # inside: -1


def new_network(hidden=5):
    """Weights of 2 -> hidden -> 1, from a fixed formula that looks random enough."""
    start = iter(math.sin(12.9898 * i) for i in range(1, 1000))
    layer = lambda n_in, n_out: [
        [Value(next(start)) for _ in range(n_in + 1)] for _ in range(n_out)
    ]
    return [layer(2, hidden), layer(hidden, 1)]


def run(network, inputs):
    for layer in network:
        weigh = lambda w, x: sum((wi * xi for wi, xi in zip(w, x, strict=False)), w[-1])
        inputs = [weigh(weights, inputs).tanh() for weights in layer]
    return inputs[0]


# %% [markdown]
# The training loop is the one that trains every network: run it, measure the loss, walk back, step against the slope. And
# before each new walk, **set the gradients back to zero**. They add up, as you made them.


# %%
def train(zero_grad=True, n_steps=100, learning_rate=0.03):
    network, losses = new_network(), []
    parameters = [value for layer in network for weights in layer for value in weights]
    for _ in range(n_steps):
        loss = Value(0.0)
        for x, y, target in points:
            error = run(network, [x, y]) - target
            loss = loss + error * error
        if zero_grad:
            for p in parameters:
                p.grad = None
        backward(loss)
        for p in parameters:
            p.data -= learning_rate * p.grad
        losses.append(loss.data / len(points))
    return network, losses


network, losses = train()
print(f"loss: {losses[0]:.2f} at first, {losses[-1]:.4f} after {len(losses)} steps")

# %% [markdown]
# ## Break it and watch
#
# **Predict.** What happens if you leave out the zeroing? The gradients then hold the sum of *all* slopes so far. Does the
# loss fall faster, slower, or not at all?

# %%
curves = {
    "as it should be": losses,
    "without zeroing": train(zero_grad=False)[1],
    "without zeroing, rate 0.1": train(zero_grad=False, learning_rate=0.1)[1],
}
plot_training(curves, points, lambda x, y: run(network, [x, y]).data)

# %% [markdown]
# A surprise: on this easy task the bug makes it *faster*. Old slopes keep pushing, like a ball that rolls downhill
# without friction. But such a ball does not stop in the valley. The right loop works well at a rate of 0.1 (try it).
# This one shoots off to a place where every `tanh` is flat. There it has no slope left, and it never comes back.
#
# A bug that sometimes helps is the hardest kind to notice. (Momentum is the tame version, with friction; notebook 5.)
#
# ## In the library
#
# You have just written the heart of [`autograd/tape.py`](../autograd/tape.py). Read `walk` there: it is your
# `backward`. The differences are small. It visits the newest node first with a heap, which gives the same order as your
# sort without collecting everything first. It keeps gradients of the middle in a dictionary and throws each away after
# its use, since they would fill the memory. It also frees the tape as it goes: a second `backward()` needs
# `retain_graph=True`, and says so.
#
# The rules in [`autograd/ops/elementwise.py`](../autograd/ops/elementwise.py) look like yours, too. So the library can be
# stepped through in the same way. Here is your first example again. Compare it with yours, step by step:

# %%
import autograd as ag

x = ag.Tensor(2.0, requires_grad=True, dtype="float64")
y = ag.Tensor(-3.0, requires_grad=True, dtype="float64")


def first_example():
    """The first example, in the library"""
    c = x * y
    d = c + x
    return ag.tanh(d * 0.5)


film = ag.step_through(first_example, a=x, b=y)
a, b = Value(2.0), Value(-3.0)
backward(((a * b + a) * 0.5).tanh())
print(f"yours:       {a.grad:.6f} and {b.grad:.6f}")
print(f"the library: {film.gradient('a'):.6f} and {film.gradient('b'):.6f}")
film

# %% [markdown]
# One thing differs: the library knows that 0.5 is a constant, and hands it no gradient. Everything else is the same, and
# this player shows *any* loss of the library: `ag.step_through(loss)`. You will meet it again in notebook 6, for
# attention, and in notebook 7, for a whole GPT.
#
# ## What you have now
#
# - Backprop is three things: rules with pullbacks, a record of who used what, and a walk in reverse order of creation.
# - Paths add up (`+=`), passes add up (so zero the gradients), and the order matters.
#
# Next: [3. Tensors and broadcasting](03_tensors_and_broadcasting.ipynb). One number per node is slow. With whole arrays the
# walk stays the same, but each rule gets more interesting.
