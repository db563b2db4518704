"""Notebook 1: a slope you can trust."""

import math

import numpy as np

from workbook.checking import Checks, Exercise, Wrong, refuse_changed
from workbook.pictures import BLUE, GREY, RED, Picture, panels

check = Checks()


# --- central_difference ---------------------------------------------------------------------------


def central_difference(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def cube(x):
    return x**3 - 2 * x


def _second_differences(f, x, h):
    return (f(x + h) - 2 * f(x) + f(x - h)) / h**2


# functions whose slopes do not come out exactly right by chance: (f, its slope, x)
CURVED = [
    (math.sin, math.cos, 0.7),
    (math.exp, math.exp, -0.4),
    (math.tanh, lambda x: 1 - math.tanh(x) ** 2, 0.4),
]
ONE_SIDED = "it looks only to the {}, so its error shrinks like h instead of h². Nudge to both sides."


def _ignores_h(difference):
    """What to say if the step makes no difference, or "". difference: (f, x, h) -> one number or an array."""
    slopes = [float(difference(math.sin, 0.7, h)) for h in (0.5, 0.2, 0.1)]
    is_one = len(set(slopes)) == 1 and abs(slopes[0] - math.cos(0.7)) < 1e-3
    return "The step h is ignored: the result is the same for every h." if is_one else ""


def _more_exact(difference):
    """What to say of a difference whose error shrinks like h⁴ or faster, or ""."""

    def error(f, slope, x, h):
        return abs(float(difference(f, x, h)) - slope(x))

    at_least = all(
        0 < error(f, slope, x, 0.1) < error(f, slope, x, 0.2) / 10
        and error(f, slope, x, 0.2) < abs(central_difference(f, x, 0.2) - slope(x))
        for f, slope, x in CURVED
    )
    if not at_least:
        return ""
    return (
        "this takes more than two values of f, and is even more exact: its error shrinks like h⁴ or faster. "
        "The text goes on with the simple formula, whose error shrinks like h²."
    )


check.add(
    "central_difference",
    Exercise(
        central_difference,
        [(math.sin, 0.7, 1e-2), (math.exp, 1.0, 1e-2), (cube, -1.5, 1e-3), (math.tanh, 0.4, 0.1)]
        + [(math.exp, 0.0, 1.0), (abs, -2.0, 1e-4)],
        {
            "This is the one-sided difference: " + ONE_SIDED.format("right"): lambda f, x, h: (
                (f(x + h) - f(x)) / h
            ),
            "This is the one-sided difference: " + ONE_SIDED.format("left"): lambda f, x, h: (
                (f(x) - f(x - h)) / h
            ),
            "These are three values at one side of x. That is as exact as two at both sides, "
            "but the exercise asks for those at x + h and x - h.": lambda f, x, h: (
                (-3 * f(x) + 4 * f(x + h) - f(x + 2 * h)) / (2 * h)
            ),
            "Twice the slope: from x - h to x + h you walk 2h, not h.": lambda f, x, h: (
                (f(x + h) - f(x - h)) / h
            ),
            "Half the slope: from x to x + h you walk h, not 2h. "
            "(And look to the left of x, too.)": lambda f, x, h: (f(x + h) - f(x)) / (2 * h),
            "Multiplied by h where you meant to divide: `/ 2 * h` is read as `(... / 2) * h`. "
            "Write `/ (2 * h)`.": (lambda f, x, h: (f(x + h) - f(x - h)) / 2 * h),
            "Not divided by the distance walked: that is 2h.": lambda f, x, h: f(x + h) - f(x - h),
            "The result is divided by 2, but not by h. The distance walked is 2h.": lambda f, x, h: (
                (f(x + h) - f(x - h)) / 2
            ),
            "The sign is flipped: right minus left, not left minus right.": lambda f, x, h: (
                (f(x - h) - f(x + h)) / (2 * h)
            ),
            "A sum where the difference belongs: f(x + h) minus f(x - h).": lambda f, x, h: (
                (f(x + h) + f(x - h)) / (2 * h)
            ),
            "Half the slope: with steps of h / 2 to each side you walk h, not 2h.": (
                lambda f, x, h: (f(x + h / 2) - f(x - h / 2)) / (2 * h)
            ),
            "These are steps of h / 2. The slope is fine, but the question was about steps of h: "
            "walk a whole h to each side.": lambda f, x, h: (f(x + h / 2) - f(x - h / 2)) / h,
            "These are steps of 2h. The slope is fine, but the question was about h.": lambda f, x, h: (
                (f(x + 2 * h) - f(x - 2 * h)) / (4 * h)
            ),
            "The parentheses are missing: only the second value is divided. "
            "Write `(f(...) - f(...)) / (2 * h)`.": (lambda f, x, h: f(x + h) - f(x - h) / (2 * h)),
            "The nudge is outside: f(x) + h is not f(x + h). Move x, then call f.": lambda f, x, h: (
                ((f(x) + h) - (f(x) - h)) / (2 * h)
            ),
            "This is the second derivative: how fast the slope changes. For the slope take right minus left, "
            "over 2h.": _second_differences,
        },
        also_right=_more_exact,
        explain=_ignores_h,
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


def wave(x):
    return np.exp(np.sin(x) @ np.arange(1, len(x) + 1))


def _nudged(slope=lambda f, x, nudge, h: (f(x + nudge) - f(x - nudge)) / (2 * h), nudge_of=lambda h: h):
    """A numerical gradient with another difference or another nudge."""

    def gradient_of(f, x, h=1e-5):
        gradient = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            nudge = np.zeros(x.shape)
            nudge[index] = nudge_of(h)
            gradient[index] = slope(f, x, nudge, h)
        return gradient

    return gradient_of


def _all_at_once(f, x, h=1e-5):
    return np.full(x.shape, (f(x + h) - f(x - h)) / (2 * h))


def _nudges_pile_up(f, x, h=1e-5):
    gradient, nudge = np.zeros(x.shape), np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        nudge[index] = h
        gradient[index] = (f(x + nudge) - f(x - nudge)) / (2 * h)
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


def _copies_a_transpose(gradient):
    """What to say if only an array that lies in memory column by column is a problem, or ""."""
    x = np.array([[0.3, 1.2], [-0.7, 0.9], [1.1, 0.4]])
    right, turned = (
        np.allclose(gradient(mixed, z), numerical_gradient(mixed, z), 1e-6) for z in (x.copy(), x.T.copy().T)
    )
    if turned or not right:
        return ""
    return (
        "It is wrong only if x is a transpose, which lies in memory column by column. There `ravel()` and "
        "`reshape()` make copies, and what you write into a copy is lost. Use `np.ndindex`, or `.flat[i]`."
    )


def _more_exact_gradient(gradient):
    """As _more_exact, of a gradient that is also right for matrices and of each number."""
    x = np.array([[0.3, 1.2], [-0.7, 0.9], [1.1, 0.4]])
    for f, point, h in (
        (bowl, x, 1e-5),
        (mixed, x, 1e-5),
        (mixed, x.T.copy().T, 1e-5),
        (wave, x[:, 0], 1e-3),
    ):
        if not np.allclose(gradient(f, point.copy(), h), numerical_gradient(f, point, 1e-5), 1e-5, 1e-7):
            return ""
    return _more_exact(_on_one_number(gradient))


def _on_one_number(gradient):
    """A numerical gradient as a difference of a function of one number."""
    return lambda f, x, h: gradient(lambda z: f(z[0]), np.array([x]), h)[0]


check.add(
    "numerical_gradient",
    Exercise(
        numerical_gradient,
        [
            (bowl, np.array([0.5, -1.0, 2.0])),
            (mixed, np.array([[0.3, 1.2], [-0.7, 0.9], [1.1, 0.4]])),
            (bowl, np.linspace(-1, 1, 4).reshape(1, 2, 2)),
            (mixed, np.array([[0.3, -0.7, 1.1], [1.2, 0.9, 0.4]]).T),  # lies in memory column by column
            (wave, np.array([0.2, 0.9, -0.4]), 0.1),  # so large a step shows in the result
            (wave, np.array([0.6, -1.3]), 1e-3),
        ],
        {
            "You nudge all elements at once, so every entry holds the sum of all slopes. "
            "Nudge one at a time: `nudge[index] = h`.": _all_at_once,
            "The nudges pile up: when the second element's turn comes, the first is still moved. "
            "Start each element with a fresh `np.zeros`.": _nudges_pile_up,
            "The difference is one-sided: use f(x + nudge) and f(x - nudge).": _nudged(
                lambda f, x, nudge, h: (f(x + nudge) - f(x)) / h
            ),
            "The difference is one-sided: it looks only to the left. "
            "Use f(x + nudge) and f(x - nudge).": _nudged(lambda f, x, nudge, h: (f(x) - f(x - nudge)) / h),
            "For a matrix this nudges whole rows: "
            "go through all places with `np.ndindex(x.shape)`.": _first_axis_only,
            "Half the slope: the step back of h only returns to x. "
            "To get to x - h you must step back 2h.": _left_where_it_was,
            "Twice the slope: from x - nudge to x + nudge you walk 2h, not h.": _nudged(
                lambda f, x, nudge, h: (f(x + nudge) - f(x - nudge)) / h
            ),
            "Multiplied by h where you meant to divide: write `/ (2 * h)`.": _nudged(
                lambda f, x, nudge, h: (f(x + nudge) - f(x - nudge)) / 2 * h
            ),
            "The sign is flipped: right minus left, not left minus right.": _nudged(
                lambda f, x, nudge, h: (f(x - nudge) - f(x + nudge)) / (2 * h)
            ),
            "The differences are not divided by the distance walked, 2h.": _nudged(
                lambda f, x, nudge, h: f(x + nudge) - f(x - nudge)
            ),
            "The nudge is always 1e-5, but you divide by 2h. Nudge by h.": _nudged(nudge_of=lambda h: 1e-5),
            "These are steps of h / 2. The slopes are fine, but the question was about steps of h.": _nudged(
                lambda f, x, nudge, h: (f(x + nudge) - f(x - nudge)) / h, lambda h: h / 2
            ),
            "You nudge by h, but divide always by 2e-5. Divide by 2h.": _nudged(
                lambda f, x, nudge, h: (f(x + nudge) - f(x - nudge)) / 2e-5
            ),
        },
        also_right=_more_exact_gradient,
        explain=lambda gradient: _ignores_h(_on_one_number(gradient)) or _copies_a_transpose(gradient),
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


# --- the check's own check: right pullbacks, wrong ones, and what each shows ---

X = np.array([0.3, -1.2, 0.8, 2.0, -0.4])
MATRIX = np.random.default_rng(1).normal(size=(2, 3))
WEIGHTS = np.random.default_rng(2).normal(size=(3, 2))


def sine(x, g):
    return g * np.cos(x)


def _off(*errors):
    """The pullback of sin with these errors, of the largest entry's size, in the first entries."""

    def pullback(x, g):
        gradient = sine(x, g)
        gradient[: len(errors)] += np.array(errors) * np.abs(gradient).max()
        return gradient

    return pullback


# (function, pullback, point)
RIGHT = [
    (np.sin, sine, X),
    (softmax, softmax_pullback, X),
    (normalise, normalise_pullback, X),
    (lambda x: 1e4 * x**3, lambda x, g: 3e4 * x**2 * g, X),
]
RIGHT_WITH_TWO_AXES = [
    (softmax, softmax_pullback, MATRIX),
    (lambda x: x @ WEIGHTS, lambda x, g: g @ WEIGHTS.T, MATRIX),  # (2, 3) -> (2, 2)
]
# Each finds one blind spot: (function, wrong pullback, what to tell a check that accepts it).
SPECIMENS = [
    (softmax, lambda x, g: 0 * g, "It accepts a softmax whose gradient is all zeros."),
    (
        normalise,
        lambda x, g: (g - g.mean()) / x.std(),
        "It accepts a normalisation whose standard deviation was treated as a constant. "
        "That gradient points nearly in the right direction. Compare the numbers themselves.",
    ),
    (
        np.sin,
        _off(-0.3, -0.2, -0.4, -0.2, -0.3),
        "It accepts a gradient whose entries are all too small. A negative difference is never above a "
        "tolerance: take the absolute value first, then the largest.",
    ),
    (
        np.sin,
        _off(0.3, 0.2, 0.4, 0.2, 0.3),
        "It accepts a gradient whose entries are all too large. A negative difference is never above a "
        "tolerance: take the absolute value first, then the largest.",
    ),
    (
        np.sin,
        _off(-0.5),
        "It accepts a gradient with one wrong entry. "
        "Averages, any() and a maximum without abs() let that through: take the largest absolute difference.",
    ),
    (
        np.sin,
        _off(0.5),
        "It accepts a gradient with one wrong entry. "
        "Averages, any() and a minimum without abs() let that through: take the largest absolute difference.",
    ),
    (
        np.sin,
        _off(0.5, -0.5),
        "It accepts a gradient with one entry too large and another too small by as much. "
        "In a sum or a mean they cancel: take the largest absolute difference.",
    ),
    (
        np.sin,
        lambda x, g: -g * np.cos(x),
        "It accepts a gradient with the wrong sign. "
        "Compare |yours - numeric|, not the plain difference or the lengths.",
    ),
    (
        np.sin,
        lambda x, g: sine(x, g)[::-1],
        "It accepts a gradient with its entries in the reverse order. Compare entry by entry.",
    ),
    (
        np.sin,
        lambda x, g: 3 * sine(x, g),
        "It accepts a gradient that is three times too large. "
        "The direction alone says little: compare the numbers themselves.",
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
ONES = (
    "An upstream gradient of ones, as in `f(x).sum()`, shows nothing of a softmax: "
    "the outputs always add up to 1, so all slopes are 0. Draw a random g."
)

CANCEL = "Do your differences cancel? In a sum they can: take the largest absolute difference."


class _Asked:
    """A pullback that keeps the upstream gradients that it is asked with."""

    def __init__(self, pullback):
        self.pullback, self.upstream = pullback, []

    def __call__(self, x, g):
        self.upstream.append(np.array(g))
        return self.pullback(x, g)


def _verdict_of(answer, f, pullback, x, seed=0):
    """What a check says: True or False. Raises Wrong if that is neither, or if it changes x."""
    point = x.copy()
    try:
        result = answer(f, pullback, point, np.random.default_rng(seed))
    except AssertionError:
        raise Wrong(
            "It raises AssertionError where the two sides differ. A check answers: return True or False. "
            "(`np.testing.assert_allclose` raises, `np.allclose` returns.)"
        ) from None
    refuse_changed("x", x, point)
    if result is None:
        raise Wrong(
            "It returns None: return True or False. "
            "(`assert` and `np.testing.assert_allclose` return nothing, `np.allclose` does.)"
        )
    if np.size(result) > 1:
        raise Wrong("It returns True or False for each entry. Return one for all of them: `.all()`.")
    if np.asarray(result).dtype.kind not in "bi":
        raise Wrong("Return True or False, not how large the difference is: compare it with a tolerance.")
    return bool(result)


def _inspect_gradient_check(answer):
    asked = _Asked(sine)
    _verdict_of(answer, np.sin, asked, X)
    if not asked.upstream:
        raise Wrong("It never calls pullback(x, g), so it cannot know what that returns.")
    if asked.upstream[0].shape != X.shape:
        raise Wrong("g has one number for each output: `rng.normal(size=f(x).shape)`.")
    accepted = [_verdict_of(answer, f, pullback, x, i) for i, (f, pullback, x) in enumerate(RIGHT)]
    constant = np.ptp(asked.upstream[0]) == 0
    if not all(accepted):
        raise Wrong("It rejects a right softmax. " + ONES if constant else _why_rejected(accepted))
    through = [text for f, pullback, text in SPECIMENS if _verdict_of(answer, f, pullback, X)]
    if len(through) == len(SPECIMENS):
        raise Wrong("It accepts everything, wrong gradients too. Compare pullback(x, g) with nudging.")
    if through and through[0] == SPECIMENS[0][2]:
        raise Wrong(f"{through[0]} {ONES if constant else CANCEL}")
    if through:
        raise Wrong(through[0])
    if np.random.default_rng(0).normal() == _rng_after(answer):
        raise Wrong(
            "It never draws from rng. "
            "A fixed upstream gradient (all ones, for example) is blind to some mistakes: use rng.normal."
        )
    if not all(_verdict_of(answer, *right) for right in RIGHT_WITH_TWO_AXES):
        raise Wrong("It rejects a right gradient where x has two axes. Go through all of its entries.")


def _why_rejected(accepted):
    """What to say of a check that rejects some of RIGHT."""
    if all(accepted[:-1]):
        return (
            "It rejects a right gradient whose entries are large (about 1e4). The tolerance must grow and "
            "shrink with the gradient: compare with 1e-6 times the largest true value."
        )
    return (
        f"It rejects a right gradient{'' if any(accepted) else ', every one'}. "
        "Does the pullback get the same g as the numerical side? "
        "Is the tolerance smaller than finite differences can reach (about 1e-9 of the largest value)?"
    )


def _rng_after(answer):
    """The next number of the generator once the answer has used it."""
    rng = np.random.default_rng(0)
    answer(*RIGHT[0][:2], X.copy(), rng)
    return rng.normal()


def _advise_gradient_check(answer):
    """What an accepted check misses all the same."""
    said = []
    tiny = lambda x: 1e-10 * np.sin(x)
    if _verdict_of(answer, tiny, lambda x, g: 2e-10 * g * np.cos(x), X):
        said.append(
            "part of your tolerance is fixed (in `np.allclose` it is atol=1e-8). In gradients smaller than "
            "that no mistake shows. A tolerance of 1e-6 times the largest true value has no such limit."
        )
    flat = np.array([0.3, np.pi / 2, 1.2])  # sin has the slope 0 at its top
    unused = lambda x: np.sin(x) * np.array([1.0, 0.0, 1.0])
    if not (
        _verdict_of(answer, np.sin, sine, flat)
        and _verdict_of(answer, unused, lambda x, g: g * np.cos(x) * np.array([1.0, 0.0, 1.0]), X[:3])
    ):
        said.append(
            "it compares each entry with its own size. Where a true slope is 0, or nearly, it rejects a "
            "right gradient, because nudging is not exact either. Compare with the largest entry."
        )
    if _verdict_of(answer, np.sin, lambda x, g: np.full(x.shape, np.nan), X):
        said.append(
            "it accepts a gradient of nan, for which every comparison is False. "
            "Ask whether the difference is below the tolerance, not whether it is above."
        )
    few, many = X[:3], np.linspace(-1, 1, 300)
    slip = lambda x, g: sine(x, g) + 2e-4 * np.abs(sine(x, g)).max() * (x == x[0])
    if _verdict_of(answer, np.sin, slip, many) and not _verdict_of(answer, np.sin, slip, few):
        said.append(
            "it accepts one wrong entry among many right ones, where a mean or a norm hardly shows it. "
            "Take the largest absolute difference."
        )
    return " Also, ".join(said)


check.add(
    "gradient_check",
    Exercise(gradient_check, inspect=_inspect_gradient_check, advise=_advise_gradient_check),
)


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
