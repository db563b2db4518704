# %% [markdown]
# # 9. Bug clinic
#
# Six small GPTs are ill. Each has **one** bug, of the kind that really happens, one line long. All six run without an error
# message, and most of them even learn something. You are the doctor: look at the dashboard, name the disease, open the code,
# cure it.
#
# **You will write** a diagnosis and a cure for each, 1 to 3 lines. **You need** notebooks 5 to 7. About 60 minutes.

# %%
import numpy as np

from workbook import corpus
from workbook.clinic import PATIENTS, STEPS, check, dashboard, plot_treatment, train
from workbook.softmax import entropies

# %% tags=["corpus"]
name, text = corpus.load()
characters = sorted(set(text))
number = {c: i for i, c in enumerate(characters)}
ids = np.array([number[c] for c in text[: int(0.9 * len(text))]])
references = entropies(ids, len(characters))

# %% [markdown]
# ## A healthy one first
#
# All patients are the same GPT (4 blocks, 2 heads, 32 channels), trained with the same seed. Only a doctor who knows
# what is healthy can see what is not. So here is the healthy one, compared with itself.

# %% tags=["varies"]
healthy = train(ids, characters)
dashboard(healthy, healthy, references, "healthy")

# %% [markdown]
# Six instruments. In each, the healthy run stays in grey from now on; dark violet is the embedding, yellow-green the last block.
#
# - **Loss**, with the reference lines. It begins at $\ln V$, and after a while it reaches that of the pairs.
# - **Size of the gradients**, per group. They lie within a factor of twenty or so, and stay where they are.
# - **Update-to-weight ratio**: how far a step moves the weights, in parts of their size. Around 1/1000 in a long
#   training; ten times that in a short and fast one, as here. 0 or 1 means trouble.
# - **Gradient flow**: a histogram of all gradient entries, in powers of ten, for this patient and for the healthy one. The
#   humps should overlap: every block hears the same loss about equally loud.
# - **Size of the residual stream** from the embedding to the last block. It grows gently, as each block adds its part.
#
# This is the list of diseases. Two of them do not occur here.
#
# | name | what is wrong |
# |---|---|
# | `"init"` | the weights start too large |
# | `"zero_grad"` | gradients are never set back to zero |
# | `"mask"` | attention sees the future |
# | `"frozen"` | the optimizer was not given all weights |
# | `"schedule"` | the learning rate starts huge and then dies away |
# | `"residual"` | blocks replace the stream instead of adding to it |
# | `"slow"` | the learning rate is far too small |
# | `"sign"` | the step goes up the hill |

# %% [markdown]
# ## Patient A

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["A"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient A")

# %% [markdown]
# It learns; the curve points down. Would you have been happy with it? Start reading where training starts.


# %%
def patient_a():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "init"
    # END SOLUTION


patient_a = check(patient_a)

# %% [markdown]
# <details><summary>Hint 1</summary>Look at step 0. What should the loss of a model be that has seen nothing?</details>
# <details><summary>Hint 2</summary>Which panel is wrong <i>before</i> the first update could do any harm?</details>
# <details><summary>Hint 3</summary>The stream is already large at the embedding: those are the weights themselves.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def initial(shape, rng):
#     return rng.normal(size=shape)
# </pre></details>


# %%
def cure_a(shape, rng):
    """First values of a matrix: normal, with a standard deviation of 0.02."""
    # BEGIN SOLUTION
    return 0.02 * rng.normal(size=shape)
    # END SOLUTION


cure_a = check(cure_a)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, initial=cure_a)
plot_treatment(sick, treated, healthy, "patient A, before and after")

# %% [markdown]
# Adam walks at most one learning rate per step, whatever the gradient. From 1 back to a reasonable 0.1 is a long way
# for steps of 0.004: it never gets there in time. **A loss that begins far above $\ln V$ is always a symptom.**

# %% [markdown]
# ## Patient B

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["B"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient B")

# %% [markdown]
# A good start, then a turn. Look for the panel that left its healthy band when the loss turned.


# %%
def patient_b():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "zero_grad"
    # END SOLUTION


patient_b = check(patient_b)

# %% [markdown]
# <details><summary>Hint 1</summary>The gradients jump up, in all groups, and stay there, step after step, almost unchanged. Does the <i>true</i> slope do that,
# with another batch in each step?</details>
# <details><summary>Hint 2</summary>What did notebook 2 say about backward passes, one after another?</details>
# <details><summary>Hint 3</summary>They add up.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def update(loss, optimizer):
#     loss.backward()
#     optimizer.step()
# </pre></details>


# %%
def cure_b(loss, optimizer):
    """One step: optimizer.zero_grad(), loss.backward() and optimizer.step(), in the right order."""
    # BEGIN SOLUTION
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    # END SOLUTION


cure_b = check(cure_b)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, update=cure_b)
plot_treatment(sick, treated, healthy, "patient B, before and after")

# %% [markdown]
# At step 100 the "gradient" is a sum over a hundred batches, most of them long out of date, and the few largest
# dominate it. Adam divides by the size, so nothing explodes; it just keeps walking in an old direction. Plain gradient
# descent would have blown up, and told you sooner.

# %% [markdown]
# ## Patient C

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["C"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient C")

# %% [markdown]
# Look how well this one does! Before you celebrate, compare its loss with the dashed lines, and remember what notebook 7 reached
# with ten times as many weights. Then read what it writes.


# %%
def patient_c():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "mask"
    # END SOLUTION


patient_c = check(patient_c)

# %% [markdown]
# <details><summary>Hint 1</summary>Nothing explodes, nothing vanishes, the ratio is healthy. So the optimisation works. What does it optimise?</details>
# <details><summary>Hint 2</summary>The loss is far too low, but what it writes is rubbish. What does it have in training that it lacks when writing?</details>
# <details><summary>Hint 3</summary>In training the whole text is there, also what comes <i>after</i> each place.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def hidden(T):
#     return np.triu(np.ones((T, T), bool), k=2)
# </pre></details>


# %%
def cure_c(T):
    """(T, T): True where position t (row) must not see a position (column)."""
    # BEGIN SOLUTION
    return np.triu(np.ones((T, T), bool), k=1)
    # END SOLUTION


cure_c = check(cure_c)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, hidden=cure_c)
plot_treatment(sick, treated, healthy, "patient C, before and after")

# %% [markdown]
# The cure makes the loss *worse*, and the model better. If a mask is one place too far to the right, the answer lies on
# the desk. **A result that is too good is a bug until proven otherwise.** (Notebook 6 has the test: change the future;
# nothing may change.)

# %% [markdown]
# ## Patient D

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["D"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient D")

# %% [markdown]
# You would not find this one by its loss, which is nearly that of the healthy one. But it only reaches the line of the
# pairs, and that is not much for a model with four blocks. One panel shows less than it should.


# %%
def patient_d():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "frozen"
    # END SOLUTION


patient_d = check(patient_d)

# %% [markdown]
# <details><summary>Hint 1</summary>Count the lines in each panel. There should be five.</details>
# <details><summary>Hint 2</summary>The blocks have gradients. So the tape is fine. What comes after the
# gradient?</details>
# <details><summary>Hint 3</summary>Their update-to-weight ratio is exactly 0, which a logarithmic axis cannot even show.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def trained(parameters):
#     """The weights for the optimizer: vectors, embeddings, head ... and those of the blocks?"""
#     return [
#         p for name, p in parameters.items()
#         if p.ndim == 1 or name.startswith(("wte", "wpe", "head"))
#     ]
# </pre></details>


# %%
def cure_d(parameters):
    """The Tensors that the optimizer trains, from a dictionary {name: Tensor}: all, each once."""
    # BEGIN SOLUTION
    return list(parameters.values())
    # END SOLUTION


cure_d = check(cure_d)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, trained=cure_d)
plot_treatment(sick, treated, healthy, "patient D, before and after")

# %% [markdown]
# The curve hardly changes! Embedding and head alone can learn the pairs, and in these few steps the healthy model learns little
# more. This bug costs nothing today. It costs everything in a long training: your blocks stay random for ever. It happens whenever
# weights are picked by name or by kind. Count what you hand over; it is one line.

# %% [markdown]
# ## Patient E

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["E"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient E")

# %% [markdown]
# In the very first steps it is faster than the healthy one. Then it gets stuck near the line of the single characters.
# Which panel falls all the way, while that of the healthy one is almost level?


# %%
def patient_e():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "schedule"
    # END SOLUTION


patient_e = check(patient_e)

# %% [markdown]
# <details><summary>Hint 1</summary>Look at the very first step of the update-to-weight ratio. What does a ratio of 1 mean?</details>
# <details><summary>Hint 2</summary>A step as large as the weights themselves: whatever they were at the start is gone. And at the end they hardly move.</details>
# <details><summary>Hint 3</summary>So smooth a fall, in all groups alike, does not come from the data. It comes from a formula of the step number.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def learning_rate(step, peak, warmup):
#     return peak * warmup / (step + 1)
# </pre></details>


# %%
def cure_e(step, peak, warmup):
    """A linear rise to peak within warmup steps; from then on peak."""
    # BEGIN SOLUTION
    return peak * min(1.0, (step + 1) / warmup)
    # END SOLUTION


cure_e = check(cure_e)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, learning_rate=cure_e)
plot_treatment(sick, treated, healthy, "patient E, before and after")

# %% [markdown]
# A fraction upside down. The first step wiped out the careful first weights. Later, when the model could have learned
# something, the rate was far too small. The loss only says "stuck". The ratio says when, and why. Plot it in your own
# trainings; it costs nothing.

# %% [markdown]
# ## Patient F

# %% tags=["varies"]
sick = train(ids, characters, **PATIENTS["F"])
print("It writes:", repr(sick.sample[:80]))
dashboard(sick, healthy, references, "patient F")

# %% [markdown]
# This one gets stuck there, too: it knows how often letters come, but nothing about their order.


# %%
def patient_f():
    """The name of the disease, from the list."""
    # BEGIN SOLUTION
    return "residual"
    # END SOLUTION


patient_f = check(patient_f)

# %% [markdown]
# <details><summary>Hint 1</summary>Look at the gradient flow: five humps, side by side instead of on top of each other.</details>
# <details><summary>Hint 2</summary>The last block hears the loss, the one before it a thousandth of that, and so on. What should carry the gradient past the blocks?</details>
# <details><summary>Hint 3</summary>In notebook 7 it was called a motorway.</details>
#
# <details><summary><b>Open the code</b> (when you have named it)</summary><pre>
# def block(x, attention, mlp):
#     x = attention(x)
#     return mlp(x)
# </pre></details>


# %%
def cure_f(x, attention, mlp):
    """x after attention and MLP, which are functions of x with their norms inside."""
    # BEGIN SOLUTION
    x = x + attention(x)
    return x + mlp(x)
    # END SOLUTION


cure_f = check(cure_f)

# %% tags=["varies"]
treated = train(ids, characters, steps=STEPS // 2, block=cure_f)
plot_treatment(sick, treated, healthy, "patient F, before and after")

# %% [markdown]
# Each block multiplies the gradient by something small. Multiply a few of those, and nothing is left for the first
# blocks; they stay random. The residual connection turns the product into a sum. Without this one idea (2015), no deep
# network of today would train.

# %% [markdown]
# ## Break it and watch
#
# Now be the disease yourself. `train` takes any part in place of the healthy one. Here is one of the two that no patient had.
#
# **Predict** its dashboard, panel by panel, before you run it. Then invent your own. In the real world two bugs often
# come together.

# %% tags=["varies"]
mine = train(ids, characters, learning_rate=lambda step, peak, warmup: peak / 300)
dashboard(mine, healthy, references, "a rate 300 times too small")

# %% [markdown]
# ## The doctor's card
#
# | you see | think of |
# |---|---|
# | loss far above $\ln V$ at step 0 | first weights, a missing norm, wrong scale |
# | loss stuck at $\ln V$ | nothing is trained: rate 0, tape cut, wrong weights given to the optimizer |
# | loss stuck at single characters | the input does not arrive: vanishing gradients, a broken embedding |
# | loss too good | the future leaks: mask, targets not moved on, test text in the training text |
# | gradients that only go up | not zeroed; then: rate too large |
# | gradients differ by depth, by factors | no residual stream, norms in the wrong place, saturated activations |
# | update-to-weight ratio 0 | not in the optimizer |
# | ratio near 1, or falling or rising all the time | learning rate, schedule |
# | ratio far below 1/1000 | learning rate too small |
# | training falls, unseen text does not | learned by heart: more text, fewer weights, dropout |
#
# And before the dashboard: the three tests of notebook 7. They would have caught A at step 0, and C by one look at the mask.
#
# ## In the library
#
# [`tests/autograd/test_planted_bugs.py`](../tests/autograd/test_planted_bugs.py) plays this game with the library itself: dozens of planted bugs, and
# the checks must catch every one. [`autograd/anomaly.py`](../autograd/anomaly.py) names the operation that made the first NaN,
# and [`train.py`](../train.py) asks it when a loss stops being a number.
#
# ## What you have now
#
# You began with a difference quotient. You have written every derivative of a GPT, trained it, opened it, and cured it. There
# is nothing left in it that you have not seen from the inside.
#
# The rest of the project is the same, only faster: [the map of the code](../README.md#map-of-the-code) is a good page to
# read. Next: [10. Bytes to tokens](10_bytes_to_tokens.ipynb), where the text is no longer cut into single letters.
