import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.slope import check

catalogue = Catalogue(check)
wrong, wrong_ones = catalogue.wrong, catalogue.wrong_ones


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


wrong_ones(
    "central_difference",
    {
        "divided by 2, but not by h": lambda f, x, h: (f(x + h) - f(x - h)) / 2,
        "A sum where the difference belongs": lambda f, x, h: (f(x + h) + f(x - h)) / (2 * h),
        "Not divided by the distance walked": lambda f, x, h: f(x + h) - f(x - h),
        "second derivative": lambda f, x, h: (f(x + h) - 2 * f(x) + f(x - h)) / h**2,
        "outside: f(x) + h is not f(x + h)": lambda f, x, h: ((f(x) + h) - (f(x) - h)) / (2 * h),
        "three values at one side": lambda f, x, h: (-3 * f(x) + 4 * f(x + h) - f(x + 2 * h)) / (2 * h),
        "result is the same for every h": lambda f, x, h: (f(x + 1e-6) - f(x - 1e-6)) / 2e-6,
        "is 4 times what it should be, everywhere": lambda f, x, h: (f(x + h) - f(x - h)) / h * 2,
        "right to about 6 digits": lambda f, x, h: (f(x + h) - f(x - h)) / (2 * h) + 1e-7,
        "should hold float64": lambda f, x, h: np.float32((f(x + h) - f(x - h)) / (2 * h)),
        "The numbers are right": lambda f, x, h: [(f(x + h) - f(x - h)) / (2 * h)],
        "Compare the cases": lambda f, x, h: (f(x + h) - f(x - h)) / (2 * h) ** 2,
    },
)


def nudging(difference):
    """A numerical gradient that gets each slope from difference(f, x, unit vector, h)."""

    def numerical_gradient(f, x, h=1e-5):
        gradient = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            unit = np.zeros(x.shape)
            unit[index] = 1.0
            gradient[index] = difference(f, x, unit, h)
        return gradient

    return numerical_gradient


wrong_ones(
    "numerical_gradient",
    {
        "step h is ignored": nudging(lambda f, x, e, h: (f(x + 1e-6 * e) - f(x - 1e-6 * e)) / 2e-6),
        "The nudge is always 1e-5": nudging(lambda f, x, e, h: (f(x + 1e-5 * e) - f(x - 1e-5 * e)) / (2 * h)),
        "divide always by 2e-5": nudging(lambda f, x, e, h: (f(x + h * e) - f(x - h * e)) / 2e-5),
        "Twice the slope": nudging(lambda f, x, e, h: (f(x + h * e) - f(x - h * e)) / h),
        "not divided by the distance": nudging(lambda f, x, e, h: f(x + h * e) - f(x - h * e)),
        "sign is flipped": nudging(lambda f, x, e, h: (f(x - h * e) - f(x + h * e)) / (2 * h)),
        "steps of h / 2": nudging(lambda f, x, e, h: (f(x + h / 2 * e) - f(x - h / 2 * e)) / h),
        "only to the left": nudging(lambda f, x, e, h: (f(x) - f(x - h * e)) / h),
        "3 times what it should be, everywhere": nudging(
            lambda f, x, e, h: 3 * (f(x + h * e) - f(x - h * e)) / (2 * h)
        ),
    },
)


@wrong("only if x is a transpose")
def numerical_gradient(f, x, h=1e-5):
    gradient, flat = np.zeros(x.shape), x.ravel()
    for i in range(x.size):
        old = flat[i]
        flat[i] = old + h
        above = f(x)
        flat[i] = old - h
        gradient.flat[i] = (above - f(x)) / (2 * h)
        flat[i] = old
    return gradient


def comparing(test, draw=lambda f, x, rng: rng.normal(size=f(x).shape)):
    """A gradient check that compares both sides like this, with such an upstream gradient."""

    def gradient_check(f, pullback, x, rng):
        g = draw(f, x, rng)
        return test(pullback(x, g), numeric_side(f, x, g))

    return gradient_check


def largest(a):
    return np.abs(a).max()


def asserting(a, n):
    np.testing.assert_allclose(a, n, rtol=1e-6)
    return True


wrong_ones(
    "gradient_check",
    {
        "entries are all too small": comparing(lambda a, n: (a - n).max() < 1e-6 * largest(n)),
        "entries are all too large": comparing(lambda a, n: (n - a).max() < 1e-6 * largest(n)),
        "a maximum without abs()": comparing(lambda a, n: abs((a - n).max()) < 1e-6 * largest(n)),
        "a minimum without abs()": comparing(lambda a, n: abs((a - n).min()) < 1e-6 * largest(n)),
        "Do your differences cancel?": comparing(lambda a, n: abs((a - n).sum()) < 1e-6 * largest(n)),
        "not the plain difference or the lengths": comparing(
            lambda a, n: abs(np.linalg.norm(a) - np.linalg.norm(n)) < 1e-6 * np.linalg.norm(n)
        ),
        "The direction alone says little": comparing(
            lambda a, n: (a * n).sum() > 0.9999999 * np.linalg.norm(a) * np.linalg.norm(n)
        ),
        "shrink with the gradient": comparing(lambda a, n: largest(a - n) < 1e-6),
        "It accepts everything": comparing(lambda a, n: True),
        "return True or False. (`assert`": comparing(lambda a, n: asserting(a, n) and None),
        "It raises AssertionError": comparing(asserting),
        "for each entry": comparing(lambda a, n: np.abs(a - n) < 1e-6 * largest(n)),
        "not how large the difference is": comparing(lambda a, n: largest(a - n)),
        "It rejects a right softmax": comparing(
            lambda a, n: largest(a - n) < 1e-6 * largest(n), lambda f, x, rng: np.ones(f(x).shape)
        ),
        "g has one number for each output": comparing(
            lambda a, n: largest(a - n) < 1e-6 * largest(n), lambda f, x, rng: rng.normal()
        ),
        "never calls pullback": lambda f, pullback, x, rng: rng.normal() < 10,
    },
)
