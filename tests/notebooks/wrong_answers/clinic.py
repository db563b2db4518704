import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.clinic import FINDINGS, check

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


def naming(patient, name):
    def answer():
        return name

    answer.__name__ = f"patient_{patient}"
    return answer


NAMES = {
    "init": "seen at step 0",
    "zero_grad": "pile up",
    "mask": "sees the future",
    "frozen": "exactly 0",
    "schedule": "falls all the way",
    "residual": "from block to block",
    "slow": "far *below*",
    "sign": "rises from the very first step",
    "dropout": "is not on the list",
}
for patient, (truth, finding) in FINDINGS.items():
    for name, words in NAMES.items():
        if name != truth:
            wrong(words)(naming(patient, name))
    wrong(finding)(naming(patient, "sign"))


@wrong("Multiply by the standard deviation")
def cure_a(shape, rng):
    return rng.normal(size=shape)


@wrong("All zeros")
def cure_a(shape, rng):
    return np.zeros(shape)


@wrong("All the same")
def cure_a(shape, rng):
    return np.ones(shape) * 0.02


@wrong("the other way round")
def cure_a(shape, rng):
    return rng.normal(0.02, 1, shape)


@wrong("Before it, optimizer.zero_grad()")
def cure_b(loss, optimizer):
    loss.backward()
    optimizer.step()


@wrong("Nothing moves")
def cure_b(loss, optimizer):
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()


@wrong("backward must come first")
def cure_b(loss, optimizer):
    optimizer.step()
    optimizer.zero_grad()
    loss.backward()


@wrong("step() once")
def cure_b(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    optimizer.step()


@wrong("backward")
def cure_b(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    loss.backward()
    optimizer.step()


@wrong("With k=2 it also sees")
def cure_c(T):
    return np.triu(np.ones((T, T), bool), 2)


@wrong("No position sees itself")
def cure_c(T):
    return np.triu(np.ones((T, T), bool))


@wrong("upper triangle, not lower")
def cure_c(T):
    return np.tril(np.ones((T, T), bool), -1)


@wrong("You marked what may be seen")
def cure_c(T):
    return np.tril(np.ones((T, T), bool))


@wrong("-inf belongs in the scores")
def cure_c(T):
    return np.triu(np.full((T, T), -np.inf), 1)


@wrong("They are not vectors")
def cure_d(parameters):
    return [p for name, p in parameters.items() if p.ndim == 1 or name[0] == "w" or "head" in name]


@wrong("the vectors, biases and norms, are left out")
def cure_d(parameters):
    return [p for p in parameters.values() if p.ndim == 2]


@wrong("embeddings and head are left out")
def cure_d(parameters):
    return [p for name, p in parameters.items() if "h." in name]


@wrong("come twice")
def cure_d(parameters):
    some = [p for name, p in parameters.items() if p.ndim == 1 or name.startswith(("wte", "wpe", "head"))]
    return some + list(parameters.values())


@wrong("These are the names")
def cure_d(parameters):
    return list(parameters)


@wrong("it should rise with the step")
def cure_e(step, peak, warmup):
    return peak / ((step + 1) / warmup)


@wrong("still upside down")
def cure_e(step, peak, warmup):
    return min(peak, peak * warmup / (step + 1))


@wrong("picks the larger")
def cure_e(step, peak, warmup):
    return max(peak, peak * (step + 1) / warmup)


@wrong("It grows for ever")
def cure_e(step, peak, warmup):
    return peak / warmup * (step + 1)


@wrong("warm-up is gone")
def cure_e(step, peak, warmup):
    return peak


@wrong("min() of the wrong things")
def cure_e(step, peak, warmup):
    return min(peak, (step + 1) / warmup)


@wrong("The first step has the rate 0")
def cure_e(step, peak, warmup):
    return min(peak, peak * step / warmup)


@wrong("Both parts replace x")
def cure_f(x, attention, mlp):
    return mlp(attention(x))


@wrong("the MLP's still replaces x")
def cure_f(x, attention, mlp):
    x = x + attention(x)
    return mlp(x)


@wrong("attention's still replaces x")
def cure_f(x, attention, mlp):
    x = attention(x)
    return x + mlp(x)


@wrong("from before attention")
def cure_f(x, attention, mlp):
    return x + attention(x) + mlp(x)


@wrong("added to the old x")
def cure_f(x, attention, mlp):
    y = x + attention(x)
    return x + mlp(y)


for patient in FINDINGS:
    wrong_ones(f"patient_{patient}", {"Return one name from the list, as a text": lambda: 1})
wrong_ones(
    "cure_a",
    {
        "is 10 times what it should be": lambda shape, rng: 0.2 * rng.normal(size=shape),
        "not those that rng gives": lambda shape, rng: np.random.default_rng(1).normal(0, 0.02, shape),
        "do not take its root": lambda shape, rng: rng.normal(0, 0.02**0.5, shape),
        "every entry of the result differs": lambda shape, rng: rng.uniform(-0.02, 0.02, shape),
        "has the shape ()": lambda shape, rng: rng.normal(0, 0.02),
    },
)


@wrong("step() is missing, or the gradient is 0")
def cure_b(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()


@wrong("Before it, optimizer.zero_grad()")
def cure_b(loss, optimizer):
    optimizer.zero_grad  # noqa: B018
    loss.backward()
    optimizer.step()


wrong_ones(
    "cure_c",
    {
        "Everything is hidden": lambda T: np.ones((T, T)),
        "Nothing is hidden any more": lambda T: np.zeros((T, T)),
        "has the shape (4, 4), but should have (6, 6)": lambda T: np.triu(np.ones((4, 4)), 1),
        "6 of 16 entries of the mask": lambda T: 2 * np.triu(np.ones((T, T)), 1),
    },
)
wrong_ones(
    "cure_d",
    {
        "Not trained: wpe.weight.": lambda ps: [p for name, p in ps.items() if name != "wpe.weight"],
        "the Tensors themselves, but gets ndarray": lambda ps: [p.data for p in ps.values()],
        "The list is empty": lambda ps: [],
        "gets tuple": lambda ps: ps.items(),
    },
)
wrong_ones(
    "cure_e",
    {
        "At step `warmup` it still rises": lambda step, peak, warmup: (
            peak * (step + 1) / warmup if step <= warmup else peak
        ),
        "`//` cuts off": lambda step, peak, warmup: peak * min(1, (step + 1) // warmup),
        "peak is missing": lambda step, peak, warmup: min(1.0, (step + 1) / warmup),
        "Compare the cases": lambda step, peak, warmup: peak * min(1.0, (step + 1) / 10),
    },
)
wrong_ones(
    "cure_f",
    {
        "The MLP is missing": lambda x, attention, mlp: x + attention(x),
        "x is added twice": lambda x, attention, mlp: x + (x + attention(x)) + mlp(x + attention(x)),
        "is 0.5 times": lambda x, attention, mlp: 0.5 * (x + attention(x) + mlp(x + attention(x))),
        "every entry of the result differs": lambda x, attention, mlp: x * attention(x) * mlp(x),
    },
)


@wrong("changes its input x in place")
def cure_f(x, attention, mlp):
    x += attention(x)
    x += mlp(x)
    return x
