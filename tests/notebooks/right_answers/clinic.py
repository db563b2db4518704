import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.clinic import FINDINGS, check

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones

for patient, (truth, _) in FINDINGS.items():
    right_ones(
        f"patient_{patient}",
        lambda truth=truth: truth,
        lambda truth=truth: truth.upper().replace("_", "-"),
        lambda truth=truth: f" {truth.capitalize()}".replace("_", " "),
        lambda truth=truth: np.str_(truth),
    )

right_ones(
    "cure_a",
    lambda shape, rng: rng.normal(0, 0.02, size=shape),
    lambda shape, rng: rng.standard_normal(shape) / 50,
    lambda shape, rng: rng.normal(0, 0.02, shape).astype(np.float32),
    lambda shape, rng: np.array([rng.normal(scale=0.02) for _ in range(np.prod(shape))]).reshape(shape),
)


@right
def cure_b(loss, optimizer):
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@right
def cure_b(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


@right
def cure_b(loss, optimizer):
    for action in (optimizer.zero_grad, loss.backward, optimizer.step, optimizer.zero_grad):
        action()


right_ones(
    "cure_c",
    lambda T: np.arange(T) > np.arange(T)[:, None],
    lambda T: ~np.tril(np.ones((T, T), bool)),
    lambda T: np.triu(np.ones((T, T)), 1) == 1,
    lambda T: np.array([[j > i for j in range(T)] for i in range(T)]),
    lambda T: np.triu(np.ones((T, T), int), 1),
)
right_ones(
    "cure_d",
    lambda parameters: [p for p in parameters.values() if p.ndim >= 1],
    lambda parameters: [parameters[name] for name in parameters],
    lambda parameters: parameters.values(),
    lambda parameters: tuple(p for _, p in sorted(parameters.items())),
)
right_ones(
    "cure_e",
    lambda step, peak, warmup: peak * (step + 1) / warmup if step < warmup else peak,
    lambda step, peak, warmup: min(peak, peak * (step + 1) / warmup),
    lambda step, peak, warmup: peak * np.clip((step + 1) / warmup, 0, 1),
    lambda step, peak, warmup: np.interp(step + 1, [0, warmup], [0, peak]),
)


@right
def cure_f(x, attention, mlp):
    y = attention(x) + x
    return mlp(y) + y


right_ones(
    "cure_f",
    lambda x, attention, mlp: x + attention(x) + mlp(x + attention(x)),
    lambda x, attention, mlp: (lambda y: y + mlp(y))(x + attention(x)),
    lambda x, attention, mlp: sum([x, attention(x), mlp(attention(x) + x)]),
)
