import numpy as np

from tests.notebooks.wrong_answers import Catalogue
from workbook.slope import check

catalogue = Catalogue(check)
right, right_ones = catalogue.right, catalogue.right_ones

right_ones(
    "central_difference",
    lambda f, x, h: 0.5 * ((f(x + h) - f(x)) / h + (f(x) - f(x - h)) / h),
    lambda f, x, h: (f(x + h) - f(x - h)) / h / 2,
    lambda f, x, h: (f(x - h) - f(x + h)) / (-2 * h),
    lambda f, x, h: np.float64(f(x + h) - f(x - h)) / ((x + h) - (x - h)),
    lambda f, x, h: np.array((f(x + h) - f(x - h)) / (2 * h)),
    lambda f, x, h: float(np.diff([f(x - h), f(x + h)])[0]) / (2 * h),
    # more exact than asked: five values, Richardson's extrapolation, seven values
    lambda f, x, h: (f(x - 2 * h) - 8 * f(x - h) + 8 * f(x + h) - f(x + 2 * h)) / (12 * h),
    lambda f, x, h: (8 * (f(x + h / 2) - f(x - h / 2)) - (f(x + h) - f(x - h))) / (6 * h),
    lambda f, x, h: sum(c * (f(x + i * h) - f(x - i * h)) for i, c in ((1, 45), (2, -9), (3, 1))) / (60 * h),
)


@right
def numerical_gradient(f, x, h=1e-5):
    gradient = np.empty_like(x)
    for i in range(x.size):
        up, down = x.copy(), x.copy()
        up.flat[i] += h
        down.flat[i] -= h
        gradient.flat[i] = (f(up) - f(down)) / h / 2
    return gradient


@right
def numerical_gradient(f, x, h=1e-5):
    """Nudges x itself, and puts it back (to within rounding)."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        x[index] += h
        above = f(x)
        x[index] -= 2 * h
        below = f(x)
        x[index] += h
        gradient[index] = (above - below) / (2 * h)
    return gradient


@right
def numerical_gradient(f, x, h=1e-5):
    gradient, it = np.zeros_like(x), np.nditer(x, flags=["multi_index"])
    for _ in it:
        i = it.multi_index
        old = x[i]
        x[i] = old + h
        above = f(x)
        x[i] = old - h
        gradient[i] = (above - f(x)) / (2 * h)
        x[i] = old
    return gradient


@right
def numerical_gradient(f, x, h=1e-5):
    nudges = h * np.eye(x.size).reshape(x.size, *x.shape)
    return np.array([(f(x + n) - f(x - n)) / (2 * h) for n in nudges]).reshape(x.shape)


@right
def numerical_gradient(f, x, h=1e-5):
    """Five points, which is more exact."""
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        n = np.zeros(x.shape)
        n[index] = h
        gradient[index] = (f(x - 2 * n) - 8 * f(x - n) + 8 * f(x + n) - f(x + 2 * n)) / (12 * h)
    return gradient


def numeric_side(f, x, g, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        gradient[index] = ((f(x + nudge) - f(x - nudge)) * g).sum() / (2 * h)
    return gradient


def both_sides(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    return pullback(x, g), numeric_side(f, x, g)


@right
def gradient_check(f, pullback, x, rng):
    g = rng.uniform(-1, 1, size=f(x).shape)
    ours, numeric = pullback(x, g), numeric_side(f, x, g)
    return np.linalg.norm(ours - numeric) <= 1e-5 * np.linalg.norm(numeric)


@right
def gradient_check(f, pullback, x, rng):
    ours, numeric = both_sides(f, pullback, x, rng)
    for a, b in zip(ours.ravel(), numeric.ravel(), strict=True):
        if abs(a - b) > 1e-6 * np.abs(numeric).max():
            return False
    return True


@right
def gradient_check(f, pullback, x, rng):
    """One random direction for all entries."""
    g, v = rng.normal(size=f(x).shape), rng.normal(size=x.shape)
    numeric = ((f(x + 1e-5 * v) - f(x - 1e-5 * v)) * g).sum() / 2e-5
    size = np.linalg.norm(pullback(x, g)) * np.linalg.norm(v)
    return abs((pullback(x, g) * v).sum() - numeric) < 1e-6 * size


@right
def gradient_check(f, pullback, x, rng):
    ours, numeric = both_sides(f, pullback, x, rng)
    try:
        np.testing.assert_allclose(ours, numeric, rtol=0, atol=1e-6 * np.abs(numeric).max())
    except AssertionError:
        return False
    return True


@right
def gradient_check(f, pullback, x, rng):
    ours, numeric = both_sides(f, pullback, x, rng)
    return np.array(np.abs(ours - numeric).max() / np.abs(numeric).max() < 1e-6)


@right
def gradient_check(f, pullback, x, rng):
    """Accepted, but not without a word: part of the tolerance is fixed."""
    return np.allclose(*both_sides(f, pullback, x, rng))
