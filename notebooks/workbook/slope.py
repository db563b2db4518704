"""Notebook 1: a slope you can trust."""

import math

import numpy as np

from workbook.checking import Checks, Exercise, Wrong
from workbook.pictures import BLUE, GREY, RED, Picture, panels

check = Checks()


# --- central_difference ---------------------------------------------------------------------------


def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def cube(x):
    return x**3 - 2 * x


CASES = [(math.sin, 0.7, 1e-2), (math.exp, 1.0, 1e-2), (cube, -1.5, 1e-3), (math.tanh, 0.4, 0.1)]

check.add(
    "central_difference",
    Exercise(
        central_difference,
        CASES,
        {
            "This is the one-sided difference: "
            "it looks only to the right, so its error shrinks like h instead of h². "
            "Nudge to both sides.": lambda f, x, h: (f(x + h) - f(x)) / h,
            "This is the one-sided difference: "
            "it looks only to the left, so its error shrinks like h instead of h². "
            "Nudge to both sides.": lambda f, x, h: (f(x) - f(x - h)) / h,
            "Twice the slope: from x - h to x + h you walk 2h, not h.": lambda f, x, h: (
                (f(x + h) - f(x - h)) / h
            ),
            "Multiplied by h where you meant to divide: `/ 2 * h` is read as `(... / 2) * h`. "
            "Write `/ (2 * h)`.": (lambda f, x, h: (f(x + h) - f(x - h)) / 2 * h),
            "The sign is flipped: right minus left, not left minus right.": lambda f, x, h: (
                (f(x - h) - f(x + h)) / (2 * h)
            ),
            "Half the slope: with steps of h / 2 to each side you walk h, not 2h.": (
                lambda f, x, h: (f(x + h / 2) - f(x - h / 2)) / (2 * h)
            ),
            "These are steps of h / 2. The slope is fine, but the question was about steps of h: "
            "walk a whole h to each side.": lambda f, x, h: (f(x + h / 2) - f(x - h / 2)) / h,
            "The parentheses are missing: only the second value is divided. "
            "Write `(f(...) - f(...)) / (2 * h)`.": (lambda f, x, h: f(x + h) - f(x - h) / (2 * h)),
            "The step h is ignored: this always uses another one.": lambda f, x, h: (
                (f(x + 1e-5) - f(x - 1e-5)) / 2e-5
            ),
        },
        tolerance=1e-8,
    ),
)


# --- numerical_gradient ---------------------------------------------------------------------------


def numerical_gradient(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        gradient[index] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient


def bowl(x):
    return float((np.arange(1, x.size + 1).reshape(x.shape) * x**2).sum())


def mixed(x):
    return float(np.sin(x).prod() + (x * x[::-1]).sum())


def _all_at_once(f, x, h=1e-5):
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


def _nudges_pile_up(f, x, h=1e-5):
    gradient, nudge = np.zeros(x.shape), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge[index] = h
        gradient[index] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient


def _one_sided(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge = np.zeros(x.shape)
        nudge[index] = h
        gradient[index] = (f(x + nudge) - f(x)) / h
    return gradient


def _first_axis_only(f, x, h=1e-5):
    gradient = np.zeros(x.shape)
    for i in range(len(x)):
        nudge = np.zeros(x.shape)
        nudge[i] = h
        gradient[i] = (f(x + nudge) - f(x - nudge)) / (2 * h)
    return gradient


def _left_where_it_was(f, x, h=1e-5):
    gradient, x = np.zeros(x.shape), x.copy()
    for index in np.ndindex(x.shape):
        x[index] += h
        right = f(x)
        x[index] -= h
        gradient[index] = (right - f(x)) / (2 * h)
    return gradient


check.add(
    "numerical_gradient",
    Exercise(
        numerical_gradient,
        [
            (bowl, np.array([0.5, -1.0, 2.0])),
            (mixed, np.array([[0.3, 1.2], [-0.7, 0.9], [1.1, 0.4]])),
            (bowl, np.linspace(-1, 1, 4).reshape(1, 2, 2)),
        ],
        {
            "You nudge all elements at once, so every entry holds the sum of all slopes. "
            "Nudge one at a time: `nudge[index] = h`.": _all_at_once,
            "The nudges pile up: when the second element's turn comes, the first is still moved. "
            "Start each element with a fresh `np.zeros`.": _nudges_pile_up,
            "The difference is one-sided: use f(x + nudge) and f(x - nudge).": _one_sided,
            "For a matrix this nudges whole rows: "
            "go through all places with `np.ndindex(x.shape)`.": _first_axis_only,
            "Half the slope: the step back of h only returns to x. "
            "To get to x - h you must step back 2h.": _left_where_it_was,
        },
        tolerance=1e-8,
    ),
)


# --- gradient_check -------------------------------------------------------------------------------


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_pullback(x, g):
    p = softmax(x)
    return p * (g - (g * p).sum(-1, keepdims=True))


def normalise(x):
    return (x - x.mean()) / x.std()


def normalise_pullback(x, g):
    xhat = normalise(x)
    return (g - g.mean() - xhat * (g * xhat).mean()) / x.std()


def gradient_check(f, pullback, x, rng):
    g = rng.normal(size=f(x).shape)
    numeric = numerical_gradient(lambda z: (f(z) * g).sum(), x)
    return bool(np.abs(pullback(x, g) - numeric).max() < 1e-6 * np.abs(numeric).max())


def _one_entry_off(x, g):
    gradient = g * np.cos(x)
    gradient[-1] *= 1.5
    return gradient


X = np.array([0.3, -1.2, 0.8, 2.0, -0.4])
# Each finds one blind spot: (function, wrong pullback, what to tell a check that accepts it).
SPECIMENS = [
    (
        softmax,
        lambda x, g: 0 * g,
        "It accepts a softmax whose gradient is all zeros. An upstream gradient of ones, "
        "as in `f(x).sum()`, shows nothing here: the outputs always add up to 1. Draw a random g.",
    ),
    (
        normalise,
        lambda x, g: (g - g.mean()) / x.std(),
        "It accepts a normalisation whose standard deviation was treated as a constant. "
        "That gradient points nearly in the right direction. Compare the numbers themselves.",
    ),
    (
        np.sin,
        _one_entry_off,
        "It accepts a gradient with one wrong entry. "
        "Averages and any() let that through: take the largest difference.",
    ),
    (
        np.sin,
        lambda x, g: -g * np.cos(x),
        "It accepts a gradient with the wrong sign. "
        "Compare |yours - numeric|, not the plain difference or the lengths.",
    ),
    (
        lambda x: 1e-7 * np.sin(x),
        lambda x, g: 2e-7 * g * np.cos(x),
        "It accepts a gradient that is twice too large where all gradients are tiny (1e-7). "
        "The tolerance must grow and shrink with the gradient: "
        "compare with 1e-6 times the largest true value.",
    ),
    (
        np.sin,
        lambda x, g: g * np.cos(x) * 1.0035,
        "It accepts a gradient that is off by 0.35 %. "
        "In a wide layer norm, a Bessel slip (n - 1 in place of n) is that small. "
        "Two sides that are both right agree to 1e-9 here: be stricter.",
    ),
]
RIGHT = [
    (np.sin, lambda x, g: g * np.cos(x)),
    (softmax, softmax_pullback),
    (normalise, normalise_pullback),
    (lambda x: 1e4 * x**3, lambda x, g: 3e4 * x**2 * g),
]


def _inspect_gradient_check(answer):
    rng = np.random.default_rng
    for i, (f, pullback) in enumerate(RIGHT):
        result = answer(f, pullback, X.copy(), rng(i))
        if result is None:
            raise Wrong("It returns None: return True or False.")
        if not result:
            raise Wrong(
                "It rejects a right gradient. Is the tolerance smaller than finite differences can reach "
                "(about 1e-9 of the largest value)? Is it absolute, so that large gradients always fail? "
                "Does the pullback get the same g as the numerical side?"
            )
    for i, (f, pullback, blind_spot) in enumerate(SPECIMENS):
        if answer(f, pullback, X.copy(), rng(i)):
            raise Wrong(blind_spot)
    if rng(0).normal() == _rng_after(answer):
        raise Wrong(
            "It never draws from rng. "
            "A fixed upstream gradient (all ones, for example) is blind to some mistakes: use rng.normal."
        )


def _rng_after(answer):
    """The next number of the generator once the answer has used it."""
    rng = np.random.default_rng(0)
    answer(*RIGHT[0], X.copy(), rng)
    return rng.normal()


check.add("gradient_check", Exercise(gradient_check, inspect=_inspect_gradient_check))


# --- pictures -------------------------------------------------------------------------------------


def plot_nudge(f, x, h):
    """A function, and two lines with the slopes that the one-sided and the central difference find."""
    figure, axes = panels(width=6, height=3.4)
    xs = np.linspace(x - 2.2 * h, x + 2.2 * h, 200)
    axes.plot(xs, [f(v) for v in xs], color=GREY, lw=2.5, label="f")
    for label, a, b, color in (("one-sided", x, x + h, RED), ("central", x - h, x + h, BLUE)):
        slope = (f(b) - f(a)) / (b - a)
        axes.plot(xs, f(a) + slope * (xs - a), color=color, lw=1, label=f"{label}: slope {slope:.3f}")
        axes.plot([a, b], [f(a), f(b)], "o", color=color)
    axes.axvline(x, color=GREY, lw=0.6, ls=":")
    axes.set(xlabel="x", ylim=(min(map(f, xs)) - 0.1, max(map(f, xs)) + 0.1))
    axes.legend()
    return Picture(figure, "two differences and the function")


def plot_errors(difference, f, slope, x):
    """The error of a difference formula against its step size, in float64 and in float32."""
    figure, axes = panels(width=7, height=4)
    steps = np.logspace(-12, 0, 121)
    for dtype, color in ((np.float64, BLUE), (np.float32, RED)):
        point = dtype(x)
        true = slope(np.float64(point))
        errors = [abs(float(difference(f, point, dtype(h))) - true) / abs(true) for h in steps]
        axes.loglog(steps, np.maximum(errors, 1e-17), color=color, label=dtype.__name__)
    axes.loglog(steps, steps**2 / 6, color=GREY, ls="--", lw=1, label="h² / 6")
    axes.set(xlabel="step size h", ylabel="relative error", ylim=(1e-13, 10))
    axes.legend()
    return Picture(figure, "error against step size")
