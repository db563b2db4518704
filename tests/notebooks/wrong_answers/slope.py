import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.slope import check

catalogue = Catalogue(check)
wrong, right = catalogue.wrong, catalogue.right


@wrong("looks only to the right")
def central_difference(f, x, h):
    return (f(x + h) - f(x)) / h


@wrong("looks only to the left")
def central_difference(f, x, h):
    return (f(x) - f(x - h)) / h


@wrong("Twice the slope")
def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / h


@wrong("Multiplied by h")
def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / 2 * h


@wrong("sign is flipped")
def central_difference(f, x, h):
    left, right = f(x - h), f(x + h)
    return (left - right) / (2 * h)


@wrong("Half the slope")
def central_difference(f, x, h):
    return (f(x + h / 2) - f(x - h / 2)) / (2 * h)


@wrong("steps of h / 2")
def central_difference(f, x, h):
    return (f(x + 0.5 * h) - f(x - 0.5 * h)) / h


@wrong("parentheses are missing")
def central_difference(f, x, h):
    return f(x + h) - f(x - h) / (2 * h)


@wrong("step h is ignored")
def central_difference(f, x, h):
    h = 1e-5
    return (f(x + h) - f(x - h)) / (2 * h)


@wrong("`return` missing")
def central_difference(f, x, h):
    slope = (f(x + h) - f(x - h)) / (2 * h)  # noqa: F841


@wrong("stops with NameError in `return (f(x + hh) - f(x - h)) / (2 * h)`")
def central_difference(f, x, h):
    return (f(x + hh) - f(x - h)) / (2 * h)  # noqa: F821


@right
def central_difference(f, x, h):
    return 0.5 * ((f(x + h) - f(x)) / h + (f(x) - f(x - h)) / h)


@wrong("nudge all elements at once")
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        gradient[index] = (f(x + h) - f(x - h)) / (2 * h)
    return gradient


@wrong("changes its input x in place")
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        gradient[index] = (above - f(x)) / (2 * h)
    return gradient


@wrong("nudges pile up")
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    nudge = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge[index] += h
        gradient[index] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient


@wrong("one-sided")
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.copy()
        moved[index] += h
        gradient[index] = (f(moved) - f(x)) / h
    return gradient


@wrong("nudges whole rows")
def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros_like(x)
    for i in range(len(x)):
        nudge = np.zeros_like(x)
        nudge[i] = h
        gradient[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient


@wrong("only returns to x")
def numerical_gradient(f, x, h=1e-5):
    x = x.copy()
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= h
        below = f(x)
        gradient[index] = (above - below) / (2 * h)
    return gradient


@wrong("has the shape (3,)")
def numerical_gradient(f, x, h=1e-5):
    slopes = []
    for index in np.ndindex(x.shape[:1]):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        slopes.append((f(x + nudge) - f(x - nudge)) / (2 * h))
    return np.array(slopes)


@right
def numerical_gradient(f, x, h=1e-5):
    gradient = np.empty_like(x)
    for i in range(x.size):
        up, down = x.copy(), x.copy()
        up.flat[i] += h
        down.flat[i] -= h
        gradient.flat[i] = (f(up) - f(down)) / h / 2
    return gradient


def numeric_side(f, x, g):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = 1e-5
        gradient[index] = ((f(x + nudge) - f(x - nudge)) * g).sum() / 2e-5
    return gradient


@wrong("softmax whose gradient is all zeros")
def gradient_check(f, pullback, x, rng):
    g = np.ones(f(x).shape)
    numeric = numeric_side(f, x, g)
    return np.allclose(pullback(x, g), numeric, rtol=1e-6)


@wrong("the same g as")
def gradient_check(f, pullback, x, rng):
    numeric = numeric_side(f, x, rng.normal(size=x.shape))
    return np.abs(pullback(x, rng.normal(size=x.shape)) - numeric).max() < 1e-6


@wrong("standard deviation was treated as a constant")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    ours, numeric = pullback(x, g), numeric_side(f, x, g)
    return ours @ numeric > 0.1 * np.linalg.norm(ours) * np.linalg.norm(numeric) and ours.any()


@wrong("one wrong entry")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    numeric = numeric_side(f, x, g)
    return np.median(np.abs(pullback(x, g) - numeric)) < 1e-6 * np.abs(numeric).max()


@wrong("wrong sign")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    numeric = numeric_side(f, x, g)
    return np.abs(np.abs(pullback(x, g)) - np.abs(numeric)).max() < 1e-6 * np.abs(numeric).max()


@wrong("all gradients are tiny")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    numeric = numeric_side(f, x, g)
    return np.abs(pullback(x, g) - numeric).max() < 1e-6 + 1e-6 * np.abs(numeric).max()


@wrong("off by 0.35 %")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    numeric = numeric_side(f, x, g)
    return np.abs(pullback(x, g) - numeric).max() < 1e-2 * np.abs(numeric).max()


@wrong("rejects a right gradient")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    return np.array_equal(pullback(x, g), numeric_side(f, x, g))


@wrong("rejects a right gradient")
def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    return np.abs(pullback(x, g) - numeric_side(f, x, g)).max() < 1e-7


@wrong("never draws from rng")
def gradient_check(f, pullback, x, rng):
    g = np.arange(1.0, 1.0 + f(x).size)
    numeric = numeric_side(f, x, g)
    return np.abs(pullback(x, g) - numeric).max() < 1e-6 * np.abs(numeric).max()


@right
def gradient_check(f, pullback, x, rng):
    g = rng.uniform(-1, 1, size=f(x).shape)
    ours, numeric = pullback(x, g), numeric_side(f, x, g)
    return np.linalg.norm(ours - numeric) <= 1e-5 * np.linalg.norm(numeric)
